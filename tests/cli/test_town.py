"""What ``town`` says to what it cannot use: what is wrong, what to do next, the exit code, and nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.towns import BEAD, make_town, molecule, part, run, snapshot
from tests.world import commit, git, make_repository


def refs(repository: Path) -> str:
    return git(repository, "for-each-ref")


def test_init_outside_a_repository(tmp_path: Path) -> None:
    done = run(tmp_path, "init", ok=[6])
    assert f"{tmp_path} is not inside a Git repository" in done.stderr
    assert "git init" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    done = run(tmp_path, "init", "--gate", "true", ok=[3])
    assert "has no commit yet" in done.stderr
    assert "git commit" in done.stderr
    assert refs(tmp_path) == ""


@pytest.mark.parametrize("command", ["init", "up"])
def test_in_a_bare_repository(tmp_path: Path, command: str) -> None:
    git(tmp_path, "init", "--quiet", "--bare")
    done = run(tmp_path, command, ok=[5])
    assert "is a bare repository" in done.stderr
    assert "Clone it" in done.stderr


def test_while_somebody_adds_a_work_tree(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    half = repository / ".git" / "worktrees" / "half"
    half.mkdir(parents=True)
    (half / "gitdir").write_text(f"{tmp_path / 'half' / '.git'}\n")
    # As Git leaves it for a moment; its own commands that look for work trees then fail.
    (half / "commondir").write_text("")
    assert run(repository, "witness", "tick").stdout == ""


def test_from_a_work_tree_that_was_added(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    git(repository, "worktree", "add", "--quiet", "--detach", "../other")
    assert run(tmp_path / "other", "doctor").stdout == run(repository, "doctor").stdout


def test_init_without_main(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"Makefile": "test:\n\ttrue\n"})
    git(repository, "branch", "--move", "main", "trunk")
    done = run(repository, "init", ok=[3])
    assert "neither a branch 'main' nor 'master'" in done.stderr
    assert refs(repository).endswith("refs/heads/trunk")


@pytest.mark.parametrize("where", ["--detach", "--create=topic"])
def test_init_with_main_not_checked_out(tmp_path: Path, where: str) -> None:
    repository = make_repository(tmp_path / "r", {"Makefile": "test:\n\ttrue\n"})
    git(repository, "switch", "--quiet", where)
    before = refs(repository)
    done = run(repository, "init", ok=[5])
    assert "main is not checked out" in done.stderr
    assert "git switch main" in done.stderr
    assert refs(repository) == before
    assert not (repository / "town.toml").exists()


def test_init_where_no_test_command_can_be_guessed(repo: Path) -> None:
    before = refs(repo)
    done = run(repo, "init", ok=[5])
    assert "cannot tell how" in done.stderr
    assert "--gate" in done.stderr
    assert refs(repo) == before
    run(repo, "init", "--gate", "true")
    assert 'commands = [\n    "true",\n]' in git(repo, "show", "main:town.toml")


def test_init_commits_town_toml_and_nothing_of_yours(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"Makefile": "test:\n\ttrue\n", "a": "1\n", "b": "1\n"})
    (repository / "a").write_text("2\n")
    (repository / "b").write_text("2\n")
    git(repository, "add", "b")
    run(repository, "init")
    assert git(repository, "show", "--name-only", "--format=", "main") == "town.toml"
    assert git(repository, "status", "--porcelain") == " M a\nM  b"
    before = refs(repository)
    run(repository, "init")
    assert refs(repository) == before


def test_up_before_init(repo: Path) -> None:
    done = run(repo, "up", ok=[3])
    assert "town init" in done.stderr


def test_up_with_main_gone(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    git(repository, "switch", "--quiet", "--detach")
    git(repository, "branch", "--quiet", "--delete", "--force", "main")
    done = run(repository, "up", ok=[3])
    assert "there is no branch 'main'" in done.stderr


def test_up_with_main_not_checked_out_lands_all_the_same(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    git(repository, "switch", "--quiet", "--create", "mine")
    plan = tmp_path / "plan.toml"
    plan.write_text(f'plan = "p"\n{part("a")}')
    run(repository, "mayor", "--plan", str(plan), "--yes")
    run(repository, "up", "--until-idle")
    assert git(repository, "show", "main:parts/a") == "ok"
    assert not (repository / "parts/a").exists()


@pytest.mark.parametrize(
    "text,said",
    [
        ('plan = "p"\n[[molecules]]\nid = "a"\ntitel = "x"\n', ["plan.toml:4", "titel", "title"]),
        ('plan = "p"\n[[molecules]\n', ["plan.toml:2"]),
        (f'plan = "p"\n{molecule("a", "true", agent="clade")}', ["agent", "clade", "claude"]),
        (f'plan = "p"\n{part("a", needs=["b"])}{part("b", needs=["a"])}', ["plan.toml", "a", "b"]),
        (f'plan = "p"\n{part("a", needs=["bb"])}{part("b")}', ["bb", "'b'"]),
    ],
)
def test_a_plan_that_cannot_be_used(tmp_path: Path, text: str, said: list[str]) -> None:
    repository = make_town(tmp_path)
    agents = '\n[agents.claude]\nruntime = "plain"\ncommand = ["claude"]\n'
    commit(repository, {"town.toml": (repository / "town.toml").read_text() + agents}, "An agent")
    (tmp_path / "plan.toml").write_text(text)
    before = refs(repository)
    done = run(repository, "mayor", "--plan", "../plan.toml", "--yes", ok=[2])
    assert all(word in done.stderr for word in said), done.stderr
    assert refs(repository) == before


def test_a_plan_is_not_poured_without_acceptance(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    (tmp_path / "plan.toml").write_text(f'plan = "p"\n{part("a")}')
    done = run(repository, "mayor", "--plan", "../plan.toml", ok=[2])
    assert "--yes" in done.stderr
    assert len(snapshot(repository)) == 0


@pytest.mark.parametrize(
    "text,said",
    [
        ("[town]\npolecat = 3\n", ["town.toml:2", "polecat", "polecats"]),
        ('[gate]\ncommands = ["true"]\ntimeout = -1\n', ["town.toml:3", "timeout"]),
        ('[town]\nagent = "nobody"\n', ["nobody"]),
        ('[agents.x]\nruntime = "plain"\n', ["town.toml", "command"]),
    ],
)
def test_a_town_toml_that_cannot_be_used(tmp_path: Path, text: str, said: list[str]) -> None:
    repository = make_town(tmp_path)
    (repository / "town.toml").write_text(text)
    done = run(repository, "up", ok=[2])
    assert all(word in done.stderr for word in said), done.stderr


def test_up_without_a_gate_on_main(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    commit(repository, {"town.toml": "[town]\npolecats = 1\n"}, "No gate")
    done = run(repository, "up", ok=[3])
    assert "no [gate]" in done.stderr


def test_polecat_run_of_what_is_not_there(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    assert "no bead 'bt-nope'" in run(repository, "polecat", "run", "bt-nope", ok=[3]).stderr


def test_status_and_queue_of_an_empty_town(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    assert run(repository, "witness", "tick").stdout == ""
    assert "empty" in run(repository, "queue").stdout
    assert run(repository, "queue", "--json").stdout == "[]\n"
    assert run(repository, "ready", "--json", program=BEAD).stdout == "[]\n"


def test_doctor_of_a_healthy_town_and_of_one_without_its_agent(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    said = run(repository, "doctor").stdout
    assert "BAD" not in said
    assert "ok   no branch changes town.toml without an approval\n" in said
    agents = '\n[agents.x]\nruntime = "plain"\ncommand = ["no-such-agent"]\n'
    (repository / "town.toml").write_text((repository / "town.toml").read_text() + agents)
    assert "'no-such-agent' is not on the PATH" in run(repository, "doctor", ok=[7]).stdout


def test_doctor_says_what_thinks_for_the_mayor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_town(tmp_path)
    settings = (repository / "town.toml").read_text()
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret-of-mine")
    said = run(repository, "doctor").stdout
    assert "ok   mayor: takes plans from files only" in said
    assert "$GEMINI_API_KEY" in said
    assert "a-secret-of-mine" not in said
    models = 'model = "gemini/gemini-2.5-pro"\nmodels = ["anthropic/claude-sonnet-4-5"]'
    (repository / "town.toml").write_text(f"{settings}\n[mayor]\n{models}\n")
    said = run(repository, "doctor", ok=[7]).stdout
    assert "ok   mayor: thinks with gemini/gemini-2.5-pro\n" in said
    assert "BAD  mayor: thinks with anthropic/claude-sonnet-4-5, and $ANTHROPIC_API_KEY is not set" in said
    base = 'model = "openai/qwen"\napi_base = "http://127.0.0.1:8000/v1"'
    (repository / "town.toml").write_text(f"{settings}\n[mayor]\n{base}\n")
    assert "ok   mayor: thinks with openai/qwen\n" in run(repository, "doctor").stdout
