"""One polecat as a real process: agents, salvage, resuming, stopping, and what it refuses to believe."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beads import Bead, Store, graph
from beads.errors import Fenced
from beads.ops import Claim, Close, Release
from tests.towns import (
    BEAD,
    SETTINGS,
    TOWN,
    UNCONTAINED,
    assert_settled,
    leaks,
    make_town,
    molecule,
    part,
    pour,
    run,
    sandboxed,
    settings_with,
    snapshot,
    until,
)
from tests.world import git

AGENT = """\
import os, pathlib, sys
prompt = sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read()
pathlib.Path("prompt.txt").write_text(prompt)
pathlib.Path("environ.txt").write_text("\\n".join(sorted(os.environ)))
word = "ok" if "did not meet the criteria" in prompt else "not yet"
pathlib.Path("parts/agent").write_text(word + "\\n")
print("I am done. Everything works.")
"""


def with_agent(path: Path, *argument: str) -> Path:
    """A town whose default agent is a small program that claims success whatever it did."""
    (path / "agent.py").write_text(AGENT)
    return make_town(path, settings_with(["python3", f"{path}/agent.py", *argument], ["FAKE_KEY"]))


def only(repository: Path, kind: str) -> Bead:
    """The one bead of that type."""
    (bead,) = [bead for bead in snapshot(repository) if bead.issue_type == kind]
    return bead


@pytest.mark.parametrize("argument", [[], ["{prompt}"]])
def test_an_agent_program_works_a_molecule_to_main(
    tmp_path: Path, argument: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "planted-key-of-the-agent")
    monkeypatch.setenv("OTHER_SECRET", "planted-and-not-allowed")
    repository = with_agent(tmp_path, *argument)
    pour(repository, molecule("agent", "", "grep ok parts/agent", "! grep -q FAKE_KEY /proc/self/environ"))
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    prompt = (repository / "prompt.txt").read_text()
    assert "agent is done." in prompt
    assert "- run: grep ok parts/agent" in prompt
    assert "Attempt 1 did not meet the criteria" in prompt
    seen = (repository / "environ.txt").read_text().split()
    assert "FAKE_KEY" in seen
    assert "OTHER_SECRET" not in seen
    assert [a.end for a in only(repository, "step").attempts] == ["unmet", "satisfied"]
    for secret in ("planted-key-of-the-agent", "planted-and-not-allowed"):
        assert leaks(tmp_path, secret) == []


def test_a_step_that_nobody_works_on_says_so(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("idle", ""))
    run(repository, "polecat", "run", ok=[7])
    reasons = {attempt.reason for attempt in only(repository, "step").attempts}
    assert reasons == {"nothing was done, as it has no `run` line and no agent: run: test -f parts/idle: exit 1"}


def test_what_holds_already_is_closed_without_work(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("done", "echo worked > parts/worked", "test -f parts/first"))
    done = run(repository, "polecat", "run")
    assert "done" in done.stdout
    step, root = only(repository, "step"), only(repository, "molecule")
    assert (step.attempts, step.outcome, root.outcome) == ((), "done", "done")
    assert step.evidence[0].verdict == "pass"
    assert not (repository / "parts/worked").exists()


@pytest.mark.parametrize(
    "line,limits,detail",
    [
        ("echo x > stray.txt", '{ diff = ["parts/**"] }', "changes stray.txt"),
        ("mkdir -p deep/er && echo x > deep/er/a && echo x > b", '{ diff = ["parts/*"] }', "changes b, deep/er/a"),
        ("mkdir parts/deep && echo x > parts/deep/a", '{ diff = ["parts/*"] }', "changes parts/deep/a"),
        ("git mv parts/first moved", '{ diff = ["parts/**"] }', "changes moved"),
        ("chmod +x CHECK", '{ diff = ["parts/**"] }', "changes CHECK"),
        ("echo x > stray.txt && git add . && git commit -qm mine", '{ diff = ["parts/**"] }', "changes stray.txt"),
        ("seq 9 > parts/many", '{ diff = ["**"], lines = 9 }', "changes 2 files, 10 lines"),
        ("printf '\\\\0' > parts/binary", '{ diff = ["**"], lines = 1 }', "changes 2 files, 2 lines"),
        ("touch a b c d e", '{ diff = ["parts/**"] }', "changes a, b, c and 2 more"),
        ("echo x > ':(top)z'", '{ diff = ["parts/**"] }', "changes :(top)z"),
    ],
)
def test_a_change_beyond_its_limits_does_not_close_the_step(
    tmp_path: Path, line: str, limits: str, detail: str
) -> None:
    repository = make_town(tmp_path, UNCONTAINED)
    line = line.replace("CHECK", next(name for name in git(repository, "ls-files").split() if "/" not in name))
    pour(repository, molecule("m", f"echo ok > parts/m; {line}", limits=limits))
    run(repository, "polecat", "run", ok=[7])
    step = only(repository, "step")
    assert not step.closed
    detail = detail.replace("CHECK", line.split()[-1])
    assert [evidence.detail for evidence in step.evidence if evidence.verdict == "fail"][-1] == detail


def test_a_change_within_its_limits_closes_the_step(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    limits = '{ diff = ["parts", "docs/**", "a [b].txt"], lines = 4 }'
    line = "echo ok > parts/m; mkdir -p docs/x/y; echo 1 > docs/1; echo 2 > docs/x/y/2; echo 3 > 'a b.txt'"
    pour(repository, molecule("m", line, limits=limits), part("other"))
    # What others bring to main meanwhile is no change of this branch.
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=2)
    proof = next(b for b in snapshot(repository) if b.issue_type == "step" and len(b.criteria) == 2)
    assert [evidence.detail for evidence in proof.evidence][-1] == "changes 4 files, 4 lines"


def test_uncommitted_work_of_a_killed_polecat_is_gone_on_with(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    asleep = f"sleep 60.{os.getpid()}"
    line = f"if [ -f half ]; then echo ok > parts/whole; else echo half > half; exec {asleep}; fi"
    pour(repository, molecule("whole", line))
    first = subprocess.Popen([*TOWN, "polecat", "run", "--as", "first"], cwd=repository)
    until(lambda: [path for path in tmp_path.glob("worktrees/*/half") if path.read_text()])
    first.kill()
    first.wait()
    said = run(repository, "witness", "tick").stdout
    assert "first died; uncommitted work is in" in said
    assert subprocess.run(["pgrep", "-f", asleep], check=False, capture_output=True).stdout == b""
    root = only(repository, "molecule")
    assert git(repository, "show", f"refs/beads/salvage/{root.id}/1:half") == "half"
    # As on another machine: without the work tree, from the salvage alone.
    (worktree,) = tmp_path.glob("worktrees/[!.]*")
    git(repository, "worktree", "remove", "--force", str(worktree))
    run(repository, "polecat", "run", "--as", "second")
    step = only(repository, "step")
    assert [(a.worker, a.end) for a in step.attempts] == [("first", "died"), ("second", "satisfied")]
    run(repository, "up", "--until-idle")
    assert (repository / "half").read_text() == "half\n"
    assert_settled(repository, landed=1)


def test_asked_to_stop_it_saves_its_work_and_gives_the_molecule_back(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("slow", "echo half > half; sleep 60"))
    polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.PIPE, text=True)
    until(lambda: [path for path in tmp_path.glob("worktrees/*/half") if path.read_text()])
    polecat.send_signal(signal.SIGTERM)
    out, _ = polecat.communicate()
    assert "stopped: asked to stop" in out
    root = only(repository, "molecule")
    assert (root.lease, root.status) == (None, "open")
    assert git(repository, "show", f"refs/beads/salvage/{root.id}/1:half") == "half"
    assert list(tmp_path.glob("worktrees/[!.]*")) == []
    assert graph.state(snapshot(repository), root, root.updated_at).kind == "ready"


def test_a_zombie_is_fenced(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, part("a"))
    store = Store.open(repository)
    zombie = store.commit("zombie", [Claim(worker="zombie", site="elsewhere")]).beads[0]
    assert zombie is not None
    store.commit("witness", [Release(id=zombie.id, worker="zombie", epoch=1, end="died")])
    run(repository, "polecat", "run")
    step = only(repository, "step")
    head = git(repository, "rev-parse", "refs/beads/main")
    with pytest.raises(Fenced, match="epoch 1"):
        store.commit("zombie", [Close(id=only(repository, "molecule").id, worker="zombie", epoch=1)])
    assert step.outcome == "done"
    assert git(repository, "rev-parse", "refs/beads/main") == head


def test_a_worker_that_is_told_to_lie_closes_nothing(tmp_path: Path) -> None:
    repository = make_town(tmp_path, UNCONTAINED)
    lie = "git commit -qm lies --allow-empty; git checkout -qb elsewhere; echo done; exit 0"
    pour(repository, molecule("lie", lie))
    done = run(repository, "polecat", "run", ok=[7])
    assert "did not meet its criteria" in done.stdout
    step = only(repository, "step")
    assert [a.end for a in step.attempts] == ["unmet"] * 3
    assert step.outcome is None
    assert list(tmp_path.glob("worktrees/[!.]*")) == []


def test_setup_runs_once_in_a_new_work_tree(tmp_path: Path) -> None:
    settings = SETTINGS.replace("[worktree]\n", '[worktree]\nsetup = "echo x >> .git-ignored-log; echo ran >> ran"\n')
    repository = make_town(tmp_path, settings)
    pour(
        repository,
        molecule("a", "cat ran > parts/a; sed -i s/ran/ok/ parts/a; rm ran .git-ignored-log", "grep ok parts/a"),
    )
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    assert (repository / "parts/a").read_text() == "ok\n"


def test_an_orphaned_polecat_finishes_and_the_next_town_counts_it(tmp_path: Path) -> None:
    repository = make_town(tmp_path, sandboxed(f'write = ["{tmp_path}"]'))
    pour(
        repository,
        molecule("slow", "touch begun; until [ -f ../../go ]; do sleep 0.05; done; rm begun; echo ok > parts/slow"),
    )
    town = subprocess.Popen([*TOWN, "up", "--until-idle"], cwd=repository, stdout=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("worktrees/*/begun")))
    os.kill(town.pid, signal.SIGKILL)
    town.wait()
    again = subprocess.Popen([*TOWN, "up", "--until-idle"], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    assert "cleared away after refinery-" in again.stdout.readline()
    (tmp_path / "go").touch()
    out, _ = again.communicate()
    assert again.returncode == 0
    assert "Do slow" not in out
    assert len(only(repository, "step").attempts) == 1
    assert_settled(repository, landed=1)


def two_towns(tmp_path: Path, *molecules: str) -> tuple[Path, Path]:
    """Two clones of one project that share their store through a third repository, with this plan."""
    shared = sandboxed(f'write = ["{tmp_path}"]') + '\n[store]\nremote = "origin"\n'
    first = make_town(tmp_path, shared)
    git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    git(first, "remote", "add", "origin", str(tmp_path / "hub.git"))
    pour(first, *molecules)
    run(first, "sync", program=BEAD)
    second = tmp_path / "other" / "project"
    second.parent.mkdir()
    git(tmp_path, "clone", "--quiet", "--branch", "main", str(first), str(second))
    git(second, "remote", "set-url", "origin", str(tmp_path / "hub.git"))
    run(second, "sync", program=BEAD)
    return first, second


def test_towns_that_share_a_store_share_the_work(tmp_path: Path) -> None:
    """Two clones of one project: what one of them has claimed the other does not do again."""
    first, second = two_towns(tmp_path, part("a"), part("b"))
    done = [run(place, "polecat", "run").stdout for place in (first, second)]
    run(first, "sync", program=BEAD)
    requests = [bead for bead in snapshot(first) if bead.merge]
    assert len(requests) == len({bead.merge.molecule for bead in requests if bead.merge}) == 2
    assert git(first, "rev-parse", "refs/beads/main") == git(second, "rev-parse", "refs/beads/main"), done
    assert "nothing is ready" in run(second, "polecat", "run").stdout


def test_another_machine_goes_on_from_what_was_proven_and_lands_what_it_did_not_do(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second = two_towns(tmp_path, CHAIN.format(log=log))
    assert "step" in run(first, "polecat", "run", ok=(7,)).stdout
    assert log.read_text() == "first\nsecond\nsecond\nsecond\n"
    (tmp_path / "log.go").touch()
    log.write_text("")
    root = next(bead.id for bead in snapshot(first) if bead.issue_type == "molecule")

    run(second, "sync", program=BEAD)
    run(second, "retry", root)
    assert "submitted" in run(second, "polecat", "run").stdout
    # What the first machine has proven is not done again, and is in the branch.
    assert log.read_text() == "second\n"

    run(first, "sync", program=BEAD)
    assert "landed" in run(first, "refinery", "tick").stdout
    assert git(first, "show", "main:parts/one", "main:parts/two") == "ok\nok"
    run(first, "sync", program=BEAD)
    run(first, "witness", "tick")
    assert git(tmp_path / "hub.git", "for-each-ref", "--format=%(refname)", "refs/beads/work") == ""


def test_a_remote_that_is_away_keeps_nobody_from_working(tmp_path: Path) -> None:
    first, second = two_towns(tmp_path, CHAIN.format(log=tmp_path / "log"))
    hub = tmp_path / "hub.git"
    (hub / "hooks").mkdir(exist_ok=True)
    hook = hub / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in refs/beads/work/*) exit 1 ;; esac\n')
    hook.chmod(0o755)
    run(first, "polecat", "run", ok=(7,))
    (tmp_path / "log.go").touch()
    (tmp_path / "log").write_text("")
    root = next(bead.id for bead in snapshot(first) if bead.issue_type == "molecule")
    run(second, "sync", program=BEAD)
    run(second, "retry", root)
    assert "submitted" in run(second, "polecat", "run").stdout
    # The work is not to be had, so the step is open again and is done again.
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


# ── Another branch state ─────────────────────────────────────────────────────────────────────────────────────

CHAIN = """
[[molecules]]
id = "chain"
title = "Two parts"
goal = "Both are there."

  [[molecules.steps]]
  id = "first"
  title = "First"
  run = "echo first >> {log}; echo ok > parts/one"
  criteria = [{{ run = "test -f parts/one" }}]

  [[molecules.steps]]
  id = "second"
  title = "Second"
  run = "echo second >> {log}; test -f {log}.go && echo ok > parts/two"
  criteria = [{{ run = "test -f parts/two" }}]
"""


def half_done(tmp_path: Path) -> tuple[Path, str, Path]:
    """A town with a molecule whose first step is closed and whose second one failed; its branch, and a log of work."""
    repository, log = make_town(tmp_path, sandboxed(f'write = ["{tmp_path}"]')), tmp_path / "log"
    pour(repository, CHAIN.format(log=log))
    run(repository, "polecat", "run", ok=(7,))
    (tmp_path / "log.go").touch()
    root = next(bead for bead in snapshot(repository) if bead.issue_type == "molecule")
    assert snapshot(repository).need(f"{root.id}.1").closed
    log.write_text("")
    return repository, root.id, log


def test_a_step_whose_work_the_branch_lost_gets_it_back(tmp_path: Path) -> None:
    repository, root, log = half_done(tmp_path)
    git(repository, "update-ref", f"refs/heads/polecat/{root}", "main")
    run(repository, "retry", root)
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    assert git(repository, "show", "main:parts/one") == "ok"
    assert log.read_text() == "second\n"


def test_a_step_whose_work_is_gone_is_done_again(tmp_path: Path) -> None:
    repository, root, log = half_done(tmp_path)
    git(repository, "update-ref", "-d", f"refs/heads/polecat/{root}")
    for ref in git(repository, "for-each-ref", "--format=%(refname)", "refs/beads/salvage").split():
        git(repository, "update-ref", "-d", ref)
    git(repository, "reflog", "expire", "--expire=now", "--all")
    git(repository, "gc", "--quiet", "--prune=now")
    run(repository, "retry", root)
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    assert git(repository, "show", "main:parts/one") == "ok"
    assert log.read_text() == "first\nsecond\n"
    assert f"reopen {root}.1" in git(repository, "log", "--format=%s", "refs/beads/main")


# ── What is shown of it ──────────────────────────────────────────────────────────────────────────────────────


def test_show_has_the_chain_with_evidence_and_cost_and_why_says_which_criterion_failed_and_how(tmp_path: Path) -> None:
    repository, root, _ = half_done(tmp_path)
    [shown] = json.loads(run(repository, "show", root, "--json", program=BEAD).stdout)
    first, second = shown["steps"]
    assert (first["state"], first["outcome"], first["attempts"], first["unpriced"]) == ("closed", "done", 1, 0)
    assert [c["verdict"] for c in first["criteria"]] == ["pass"]
    assert (second["state"], second["attempts"]) == ("needs_person", 3)
    assert second["criteria"][0]["detail"] == "exit 1"
    assert (shown["spent"]["attempts"], shown["spent"]["cost"]) == (4, 0)
    text = run(repository, "show", root, program=BEAD).stdout
    assert f"{root}.1  done  First  (1 attempt, " in text
    assert "    pass  run: test -f parts/one: exit 0  [" in text
    assert f"{root}.2  needs person  Second  (3 attempts, " in text

    why = run(repository, "why", root, program=BEAD).stdout
    assert f"needs person: step {root}.2 failed 3 of 3 attempts" in why
    assert "fail  run: test -f parts/two: exit 1" in why
    failing = json.loads(run(repository, "why", root, "--json", program=BEAD).stdout)["failing"]
    assert failing["step"] == f"{root}.2"
    assert failing["digest"] == "sha256:" + hashlib.sha256(Path(failing["log"]).read_bytes()).hexdigest()


def test_the_whole_log_of_each_look_is_kept_under_its_digest(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("noise", "true", "seq 100000; date +%N; false"))
    run(repository, "polecat", "run", ok=(7,))
    step = only(repository, "step")
    logs = repository / ".git/beads/logs" / str(step.parent)
    found = [e for e in step.evidence if e.verdict == "fail"]
    assert len(found) == 3
    for evidence in found:
        log = logs / f"{evidence.digest.removeprefix('sha256:')[:16]}.log"
        assert hashlib.sha256(log.read_bytes()).hexdigest() == evidence.digest.removeprefix("sha256:")
        assert log.stat().st_size > 500_000 > len(evidence.output)


# ── Terms ────────────────────────────────────────────────────────────────────────────────────────────────────

TERMS = """
[[molecules]]
id = "terms"
title = "On terms"
goal = "It is there."

  [[molecules.steps]]
  id = "only"
  title = "Only"
  attempts = 1
  {terms}
  criteria = [{{ run = "test -f parts/one" }}]
"""


def terms_town(tmp_path: Path, terms: str) -> Path:
    """A town with two agents, of which one can do more, and a step with these terms."""
    (tmp_path / "agent.py").write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "Path('parts/one').write_text('ok ' + ' '.join(sys.argv[1:]))\ntime.sleep(float(sys.argv[3]))\n"
    )
    command = [sys.executable, str(tmp_path / "agent.py")]
    table = '[agents.{0}]\nruntime = "plain"\nmodel = "m-{0}"\ncapabilities = {1}\ncommand = {2}\n'
    agents = (("plain", "[]", "0"), ("able", '["ui", "css"]', "0"), ("slow", '["slow"]', "60"))
    tables = "".join(table.format(n, c, json.dumps([*command, n, "{model}", s])) for n, c, s in agents)
    settings = SETTINGS.replace("[town]\n", '[town]\nagent = "plain"\n') + tables
    repository = make_town(tmp_path, settings)
    pour(repository, TERMS.format(terms=terms))
    return repository


def made(repository: Path) -> str:
    """What one polecat made of the only step, on its branch."""
    run(repository, "polecat", "run")
    return git(repository, "show", f"polecat/{only(repository, 'molecule').id}:parts/one")


def test_a_step_says_which_model_and_what_its_agent_must_be_able_to_do(tmp_path: Path) -> None:
    repository = terms_town(tmp_path, 'capabilities = ["css"]\n  model = "other"')
    assert made(repository) == "ok able other 0"


def test_without_terms_it_is_the_default_agent_with_its_own_model(tmp_path: Path) -> None:
    repository = terms_town(tmp_path, "")
    assert made(repository) == "ok plain m-plain 0"


def test_a_step_says_how_long_an_attempt_may_take(tmp_path: Path) -> None:
    repository = terms_town(tmp_path, 'agent = "slow"\n  timeout = 1.0')
    assert made(repository) == "ok slow m-slow 60"
    step = only(repository, "step")
    [attempt] = step.attempts
    assert attempt.ended_at is not None
    assert (attempt.ended_at - attempt.started_at).total_seconds() < 30
    assert attempt.ending == "limits"
    # It had done it by then, so that nothing needs a reason.
    assert attempt.note.startswith("stopped at its time limit, after ")
    assert attempt.reason == ""


def test_what_a_limit_stopped_says_so(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, TERMS.format(terms='timeout = 1.0\n  run = "echo thinking; sleep 600"'))
    run(repository, "polecat", "run", ok=[7])
    step = only(repository, "step")
    reason = step.attempts[0].reason
    assert reason.startswith("stopped at its time limit, after ")
    assert reason.endswith(" s; run: test -f parts/one: exit 1")
    assert f"the attempt: {reason}" in run(repository, "why", str(step.parent), program=BEAD).stdout


def test_nobody_being_able_is_said_before_anything_is_poured(tmp_path: Path) -> None:
    repository = terms_town(tmp_path, "")
    plan = tmp_path / "other.toml"
    for terms, problem in {
        'capabilities = ["ui", "slow"]': "12: molecules[0].steps[0].capabilities: no agent is capable of slow, ui",
        'agent = "plain"\n  capabilities = ["ui"]': "13: molecules[0].steps[0].capabilities: the agent 'plain' is not",
        'agent = "abel"': "12: molecules[0].steps[0].agent: there is no agent 'abel'",
    }.items():
        plan.write_text('plan = "other"\n' + TERMS.format(terms=terms))
        said = run(repository, "mayor", "--plan", str(plan), "--yes", ok=(2,)).stderr
        assert f"other.toml:{problem}" in said
