"""The history, the health, and the help of a store."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from beads import Store
from beads.git import Repository
from beads.model import path_of
from cli.main import BEAD_COMMANDS, bead
from tests.cli.commands import Beads, process
from tests.world import git


def damage(beads: Beads, files: dict[str, str]) -> None:
    """Write files into the store's tree behind its back."""
    store = Store.open(beads.repository)
    repository: Repository = store.repository
    head = store.snapshot().commit
    new = repository.write(
        repository.commit(head).tree,
        {path: text.encode() for path, text in files.items()},
        parents=(head,),
        author="Mallory <m@example.org>",
        when=repository.commit(head).when,
        message="damage\n",
    )
    assert repository.swap(store.ref, head, new)


def test_the_log_says_who_did_what(beads: Beads) -> None:
    one = beads.create("One")
    two = beads.create("Two")
    beads.run("--actor", "zoe", "update", one, "-p", "0", "--add-label", "x")
    whole = beads.json("log")
    assert [entry["what"] for entry in whole][1:] == [f"create {two}: Two", f"create {one}: One", "begin the store"]
    newest, created = beads.json("log", one)
    assert newest.items() >= {"actor": "zoe", "operations": ["update", "label"], "beads": [one]}.items()
    assert {d["field"]: (d["removed"], d["added"]) for d in newest["differences"]} == {
        "priority": (["2"], ["0"]),
        "labels": ([], ["x"]),
    }
    assert newest["commit"] == git(beads.repository, "rev-parse", "refs/beads/main")
    assert created["what"] == f"create {one}: One"
    assert len(beads.json("log", "--limit", "2")) == 2
    text = beads.run("log", one)
    assert "priority: 2 → 0" in text
    assert "labels: +x" in text


def test_the_path_is_where_git_finds_it(beads: Beads) -> None:
    one = beads.create("One")
    path = beads.run("path", one)
    assert path == path_of(one)
    assert 'title = "One"' in git(beads.repository, "show", f"refs/beads/main:{path}")
    assert beads.json("path", one)["path"] == path


def test_stats_count(beads: Beads) -> None:
    one = beads.create("One", "-t", "bug")
    beads.create("Two", "--needs", one)
    beads.run("close", beads.create("Three"))
    found = beads.json("stats")
    assert (
        found.items()
        >= {
            "total_issues": 3,
            "open_issues": 2,
            "in_progress_issues": 0,
            "deferred_issues": 0,
            "closed_issues": 1,
            "ready_issues": 1,
            "blocked_issues": 1,
        }.items()
    )
    assert found["by_type"] == {"bug": 1, "task": 2}
    assert "state\tblocked\t1" in beads.run("stats").splitlines()


def test_a_healthy_store(beads: Beads) -> None:
    beads.create("One")
    assert beads.run("doctor") == "1 beads, 0 problems"
    assert beads.json("doctor")["findings"] == []


def test_the_doctor_finds_every_damage_at_once(beads: Beads) -> None:
    for name in ("bt-one", "bt-two", "bt-three"):
        beads.create("One", "--id", name)
    text = git(beads.repository, "show", f"refs/beads/main:{path_of('bt-one')}") + "\n"
    needs = '\n[[dependencies]]\non = "{}"\ntype = "blocks"\n'
    files = {
        path_of("bt-bad"): "id = \n",
        path_of("bt-odd"): 'id = "bt-odd"\n',
        path_of("bt-moved"): text,
        "beads/readme.md": "hello",
        path_of("bt-one"): text + 'seal = "sha256:0"\n',
        path_of("bt-two"): text.replace("bt-one", "bt-two") + needs.format("bt-three") + needs.format("bt-gone"),
        path_of("bt-three"): text.replace("bt-one", "bt-three") + needs.format("bt-two"),
    }
    damage(beads, files)
    done = CliRunner().invoke(bead, ["-C", str(beads.repository), "doctor", "--json"])
    assert done.exit_code == 7
    found = json.loads(done.stdout)
    assert found["beads"] == 3
    assert {(finding["kind"], finding["where"]) for finding in found["findings"]} == {
        ("unreadable", path_of("bt-bad")),
        ("unreadable", path_of("bt-odd")),
        ("misplaced", path_of("bt-moved")),
        ("stray", "beads/readme.md"),
        ("seal", "bt-one"),
        ("missing", "bt-two"),
        ("cycle", "bt-three"),
    }
    assert beads.run("doctor", code=7) == "3 beads, 7 problems\n"


def test_the_doctor_mends_what_is_damaged_when_it_is_told_to(beads: Beads) -> None:
    beads.create("One", "--id", "bt-one")
    damage(beads, {path_of("bt-one"): "id = \n"})
    beads.run("list", code=6)
    said = beads.run("doctor", "--repair").splitlines()
    assert re.fullmatch(r"bt-one is as in [0-9a-f]{12} \(create bt-one: One\)", said[0])
    assert said[1:] == ["1 beads, 0 problems"]
    assert beads.show("bt-one")["title"] == "One"
    assert beads.json("doctor", "--repair")["repaired"] == []
    damage(beads, {"beads/readme.md": "hello", path_of("bt-one"): "id = \n"})
    done = CliRunner().invoke(bead, ["-C", str(beads.repository), "doctor", "--repair", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, [one["where"] for one in found["repaired"]]) == (7, ["bt-one"])
    assert [one["kind"] for one in found["findings"]] == ["stray"]


def test_a_damaged_store_names_the_file(beads: Beads) -> None:
    damage(beads, {path_of("bt-odd"): 'id = "bt-odd"\n'})
    said = beads.run("list", code=6)
    assert f"error: {path_of('bt-odd')}: title: Field required\nhint: Run `bead doctor`" in said


def test_prime_names_only_commands_that_exist(beads: Beads) -> None:
    commands = {name for names in BEAD_COMMANDS.values() for name in names}
    named = set(re.findall(r"(?m)(?:^ +|`)bead ([a-z]+)", beads.run("prime")))
    assert {"ready", "claim", "close", "create", "why"} <= named <= commands
    assert beads.json("prime")["text"].startswith("# Issues")


def test_prime_needs_no_store(tmp_path: Path) -> None:
    assert "bead ready" in Beads(tmp_path).run("prime")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(beads: Beads, shell: str) -> None:
    assert f"_BEAD_COMPLETE={shell}_complete" in beads.run("completion", shell)


def test_completion_is_for_the_shell_in_use(beads: Beads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "fish_complete" in beads.run("completion")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "$SHELL is 'tcsh'" in beads.run("completion", code=2)


def test_ids_are_completed(beads: Beads, environ: dict[str, str]) -> None:
    beads.create("Add slugify()", "--id", "bt-slug")
    beads.create("Other", "--id", "bt-other")

    def complete(words: str, position: int, cwd: Path) -> list[str]:
        asked = {**environ, "_BEAD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        done: subprocess.CompletedProcess[bytes] = process(cwd=cwd, environ=asked)
        assert not done.stderr
        return done.stdout.decode().split("\n")[:-1]

    assert complete("bead show bt-s", 2, beads.repository) == ["plain,bt-slug"]
    assert complete("bead dep add bt-slug bt-o", 4, beads.repository) == ["plain,bt-other"]
    assert complete(f"bead -C {beads.repository} show bt-s", 4, Path("/")) == ["plain,bt-slug"]
    assert "plain,ready" in complete("bead re", 1, beads.repository)
    assert complete("bead show bt-s", 2, Path("/")) == [""]


def test_an_export_takes_its_place_as_a_whole_or_not_at_all(beads: Beads, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    beads.run("export", "-o", str(out))
    assert out.read_bytes() == b""
    beads.create("One", "--id", "bt-one")
    beads.run("export", "-o", str(out))
    before = out.read_bytes()
    damage(beads, {path_of("bt-two"): "not a bead"})
    beads.run("export", "-o", str(out), code=6)
    assert out.read_bytes() == before
    said = beads.run("export", "-o", str(tmp_path / "no" / "out.jsonl"), code=3)
    assert said.startswith(f"error: {tmp_path}/no/out.jsonl cannot be written: No such file or directory\nhint: Make")
