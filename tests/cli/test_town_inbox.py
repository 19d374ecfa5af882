"""``town inbox``: what needs a person, in a list and one by one, and the same in what other commands say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beads import Store
from beads.ops import Begin, Claim, Finish, Operation, Release, Report, Spend
from cli.main import town
from tests.cli.commands import Beads


def ask(repository: Path, *args: str, code: int = 0) -> str:
    done = CliRunner().invoke(town, ["-C", str(repository), *args])
    assert done.exit_code == code, f"{args} ended with {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return done.stderr if code else done.stdout


@pytest.fixture
def stuck(beads: Beads) -> str:
    """A bead that needs another one, which was given up."""
    gone = beads.create("First", "--id", "bt-first", "--criterion", "run: true")
    beads.create("Second", "--id", "bt-second", "--criterion", "run: true", "--needs", gone)
    beads.run("close", gone, "--outcome", "cancelled", "--reason", "not \x1b[32mwanted")
    return "bt-second"


def test_an_empty_inbox_says_so(beads: Beads) -> None:
    beads.create("Something that anybody can do")
    assert ask(beads.repository, "inbox") == "nothing needs you\n"
    assert json.loads(ask(beads.repository, "inbox", "--json")) == {"items": [], "put_off": []}


def test_the_list_has_the_reason_and_the_commands_and_no_exit_code_of_its_own(beads: Beads, stuck: str) -> None:
    lines = ask(beads.repository, "inbox").splitlines()
    assert lines[0].startswith(f"dependency  {stuck}  Second  since 20")
    assert lines[1:] == [
        "  needs bt-first, which was cancelled and did not land",
        f"    bead dep remove {stuck} bt-first",
        "    bead reopen bt-first",
        f"    bead close {stuck} --outcome cancelled --reason WHY",
        "`town inbox ID` shows what was found",
    ]


def test_one_of_them_whole(beads: Beads, stuck: str) -> None:
    said = ask(beads.repository, "inbox", stuck)
    assert "bt-first First: cancelled  20" in said
    assert "\n  not \\x1b[32mwanted\n" in said
    assert f"  bead dep remove {stuck} bt-first" in said
    assert "\x1b" not in said
    (item,) = json.loads(ask(beads.repository, "inbox", stuck, "--json"))
    assert (item["kind"], item["id"], item["evidence"][0]["text"]) == ("dependency", stuck, "not \x1b[32mwanted")


@pytest.mark.usefixtures("stuck")
def test_its_commands_do_what_they_say(beads: Beads) -> None:
    (item,) = json.loads(ask(beads.repository, "inbox", "--json"))["items"]
    program, *args = item["ways"][0]["command"].split()
    assert program == "bead"
    beads.run(*args)
    assert ask(beads.repository, "inbox") == "nothing needs you\n"


@pytest.mark.usefixtures("stuck")
def test_nothing_about_that_one(beads: Beads) -> None:
    said = ask(beads.repository, "inbox", "bt-first", code=3)
    assert "nothing about bt-first needs a person" in said
    assert "no bead 'bt-secon'" in ask(beads.repository, "inbox", "bt-secon", code=3)


def test_the_status_says_the_same(beads: Beads, stuck: str) -> None:
    (item,) = json.loads(ask(beads.repository, "inbox", "--json"))["items"]
    status: dict[str, Any] = json.loads(ask(beads.repository, "status", "--json"))
    assert status["needs_person"] == [
        {"kind": item["kind"], "id": stuck, "reason": item["reason"], "command": item["ways"][0]["command"]}
    ]
    assert f"needs a person: {stuck}: {item['reason']}\n  bead dep remove" in ask(beads.repository, "status")


def test_what_only_the_settings_tell_is_in_it_and_what_is_put_off_stands_apart(beads: Beads) -> None:
    agent = '[agents.claude]\nruntime = "plain"\ncommand = ["claude"]\n'
    (beads.repository / "town.toml").write_text(f'[town]\nagent = "claude"\n{agent}')
    beads.create("Cannot be held", "--id", "bt-a", "--criterion", "run: true")
    beads.run("update", "bt-a", "--budget", "1")
    until = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)
    beads.create("Is put off", "--id", "bt-b", "--criterion", "run: true")
    held: dict[str, Any] = {"worker": "nux", "epoch": 1}
    operations: list[Operation] = [
        Claim(id="bt-b", worker="nux"),
        Begin(id="bt-b", runtime="other", **held),
        Spend(id="bt-b", report=Report(ending="quota", until=until), **held),
        Finish(id="bt-b", end="parked", reason="its quota is used up", **held),
        Release(id="bt-b", until=until, **held),
    ]
    Store.open(beads.repository).commit("nux", operations)
    found = json.loads(ask(beads.repository, "inbox", "--json"))
    assert [(item["kind"], item["id"]) for item in found["items"]] == [("agent", "bt-a")]
    assert "what agent claude costs is not known" in found["items"][0]["reason"]
    assert [(one["id"], one["until"]) for one in found["put_off"]] == [("bt-b", "2999-01-02T03:04:05.000Z")]
    said = ask(beads.repository, "inbox")
    assert "put off: bt-b  Is put off\n  deferred until 2999-01-02 03:04 UTC: other: its quota is used up\n" in said
