"""The notification command: once for each thing that needs a person, whatever happens to the town, and never twice."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from beads.errors import InvalidInput, NotFound
from cli.config import open_site
from refinery.redaction import Secrets
from roles.inbox import Exhibit, Item, Way
from roles.notify import LOG_FILE, TOLD_FILE, Notifier, command_of
from roles.settings import read_settings
from roles.site import Site
from tests.beads.clocks import Virtual
from tests.beads.strategies import NOW
from tests.towns import (
    BEAD,
    SETTINGS,
    TOWN,
    assert_nothing_left,
    make_town,
    molecule,
    part,
    pour,
    run,
    snapshot,
    until,
)
from tests.world import commit, git

# Writes down what it is told, and then stays as long as there is a file that says so.
SCRIPT = """\
import json, os, sys, time
from pathlib import Path

here = Path(__file__).parent
told = {**json.load(sys.stdin), "argv": sys.argv[1:], "cwd": os.getcwd(), "environ": sorted(os.environ)}
told["pid"] = os.getpid()
with (here / "told.jsonl").open("a") as file:
    file.write(json.dumps(told) + "\\n")
while (here / "stay").exists():
    time.sleep(0.01)
"""

STUCK = molecule("stuck", "echo no > parts/stuck; echo a word; exit 1", "grep -q ok parts/stuck; echo seen; exit 1")
VOICE = molecule("voice", "printf 'ok\\n' > parts/voice", limits='{ approval = "is it loud enough?" }')


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The command, which is not in the repository."""
    path = tmp_path / "tell.py"
    path.write_text(SCRIPT)
    return path


def with_notify(*command: str, settings: str = SETTINGS) -> str:
    return settings.replace("[town]\n", f"[town]\nnotify = {json.dumps(list(command))}\n")


def told(script: Path) -> list[dict[str, Any]]:
    path = script.with_name("told.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(script: Path) -> list[tuple[str, str]]:
    return sorted((one["kind"], one["id"]) for one in told(script))


def remembered(repository: Path) -> list[str]:
    path = repository / ".git/beads" / TOLD_FILE
    return list(json.loads(path.read_text())["told"]) if path.exists() else []


def titled(repository: Path, title: str) -> str:
    return next(bead.id for bead in snapshot(repository) if bead.title == title)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextmanager
def town_up(repository: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A town that runs until the block ends, and is then asked to stop."""
    with subprocess.Popen([*TOWN, "up"], cwd=repository, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


# --- through real towns ----------------------------------------------------------------------------------------


def test_each_thing_is_told_once_also_when_the_town_is_started_again_or_killed(tmp_path: Path, script: Path) -> None:
    repository = make_town(tmp_path, with_notify(sys.executable, str(script), "{text}", "not {text}"))
    pour(repository, STUCK)
    run(repository, "up", "--until-idle", ok=[7])
    stuck = titled(repository, "Do stuck")
    assert kinds(script) == [("poison", stuck)]
    (found,) = told(script)
    text = f"Needs you in project: {stuck} Do stuck: step {stuck}.1 failed 3 of 3 attempts; the last time: run: grep"
    assert found["text"].startswith(text)
    assert found["argv"] == [found["text"], "not {text}"]
    assert (found["repository"], found["cwd"]) == (str(repository), str(repository / ".git/beads"))
    assert [one["text"] for one in found["evidence"]] == ["seen"] * 3
    assert found["ways"][0]["command"] == f"town retry {stuck}"

    run(repository, "up", "--until-idle", ok=[7])
    assert len(told(script)) == 1

    pour(repository, VOICE, STUCK)
    with town_up(repository) as process:
        until(lambda: len(remembered(repository)) == 2)
        process.kill()
    run(repository, "up", "--until-idle", ok=[7])
    voice = titled(repository, "Do voice")
    assert kinds(script) == [("approval", voice), ("poison", stuck)]

    # It is news again after somebody has done something about it.
    run(repository, "approve", voice)
    run(repository, "retry", stuck)
    run(repository, "up", "--until-idle", ok=[7])
    assert kinds(script) == [("approval", voice), ("poison", stuck), ("poison", stuck)]
    assert len(remembered(repository)) == 1


def test_a_kill_while_it_is_told_repeats_it_and_leaves_nothing_running(tmp_path: Path, script: Path) -> None:
    repository = make_town(tmp_path, with_notify(sys.executable, str(script)))
    pour(repository, VOICE)
    (tmp_path / "stay").touch()
    with town_up(repository) as process:
        until(lambda: told(script))
        process.kill()
    (first,) = told(script)
    assert lives(first["pid"])
    with town_up(repository):
        until(lambda: len(told(script)) == 2)
        assert not lives(first["pid"])
        (tmp_path / "stay").unlink()
        until(lambda: remembered(repository))
    assert kinds(script) == [("approval", titled(repository, "Do voice"))] * 2


def test_a_town_that_is_asked_to_stop_does_not_wait_for_it(tmp_path: Path, script: Path) -> None:
    repository = make_town(tmp_path, with_notify(sys.executable, str(script)))
    pour(repository, VOICE)
    (tmp_path / "stay").touch()
    with town_up(repository) as process:
        until(lambda: told(script))
    assert process.returncode == 0
    assert remembered(repository) == []
    run(repository, "close", titled(repository, "Do voice"), "--outcome", "cancelled", "--reason", "x", program=BEAD)
    run(repository, "up", "--until-idle")
    assert_nothing_left(repository)


def test_what_fails_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    repository = make_town(tmp_path, with_notify("sh", "-c", "echo out of order; exit 3"))
    pour(repository, VOICE, part("a"))
    done = run(repository, "up", "--until-idle", ok=[7])
    log = repository / ".git/beads" / LOG_FILE
    assert done.stdout.count("notify:") == 1
    assert f"sh ended with 3; it is tried again later, and {log} has what it printed" in done.stdout
    assert log.read_text() == "out of order\n"
    assert git(repository, "show", "main:parts/a") == "ok"
    assert remembered(repository) == []


def test_a_branch_cannot_name_it(tmp_path: Path, script: Path) -> None:
    # Whoever lists what is protected may have forgotten the settings.
    settings = SETTINGS.replace("timeout = 20", 'timeout = 20\nprotected = ["check.sh"]')
    repository = make_town(tmp_path, settings)
    named = with_notify(sys.executable, str(script), settings=settings)
    pour(repository, molecule("voice", f"echo ok > parts/voice; cat > town.toml <<'E'\n{named}E"))
    run(repository, "up", "--until-idle", ok=[7])
    (step,) = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    assert "changes town.toml" in step.attempts[-1].reason
    # Looking at the branch in the checkout changes nothing either.
    (repository / "town.toml").write_text(named)
    run(repository, "up", "--until-idle", ok=[7])
    assert told(script) == []


# --- which command ---------------------------------------------------------------------------------------------


def site_with(tmp_path: Path, *command: str) -> Site:
    return open_site(make_town(tmp_path, with_notify(*command)))


def test_the_command_is_the_one_on_main_with_its_whole_path(tmp_path: Path) -> None:
    site = site_with(tmp_path, "sh", "-c", "true")
    (program, *arguments) = command_of(site)
    assert (Path(program).is_absolute(), Path(program).name, arguments) == (True, "sh", ["-c", "true"])
    commit(site.git.directory, {"town.toml": SETTINGS}, "Without")
    assert command_of(site) == ()


@pytest.mark.parametrize("command", [["tools/tell"], ["./tell"], [" "], [""], ["sh", "a\0b"]])
def test_a_command_that_makes_no_sense(command: Sequence[str]) -> None:
    with pytest.raises(InvalidInput, match=r"town\.notify"):
        read_settings(f"[town]\nnotify = {json.dumps(command)}\n".encode())


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    site = site_with(tmp_path, "no-such-program")
    with pytest.raises(NotFound, match="'no-such-program' is not on the PATH"):
        command_of(site)
    done = run(site.git.directory, "up", "--until-idle")
    assert done.stdout.startswith("notify: nobody will be told: [town] notify: 'no-such-program' is not on the PATH")
    assert "BAD  [town] notify" in run(site.git.directory, "doctor", ok=[7]).stdout


@pytest.mark.parametrize("place", ["program", "argument", "path"])
def test_nothing_of_the_repository_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    inside = tmp_path / "project" / "tools" / "tell"
    command = {"program": [str(inside)], "argument": ["sh", str(inside)], "path": ["tell"]}[place]
    monkeypatch.setenv("PATH", f"{inside.parent}{os.pathsep}{os.environ['PATH']}")
    repository = make_town(tmp_path, with_notify(*command))
    inside.parent.mkdir()
    inside.write_text("#!/bin/sh\n")
    inside.chmod(0o755)
    with pytest.raises(InvalidInput, match=f"{inside} is in the repository"):
        command_of(open_site(repository))


# --- by itself -------------------------------------------------------------------------------------------------


def item(bead_id: str = "bt-a", **fields: object) -> Item:
    evidence = (Exhibit("attempt 1", "no key hunter2hunter2 here", NOW),)
    found = Item("poison", bead_id, "Do it\u202e", 2, NOW, "failed", evidence, (Way("town retry bt-a", "again"),))
    return dataclasses.replace(found, **fields)  # type: ignore[arg-type]


class Telling:
    """A notifier beside which nothing else happens."""

    def __init__(self, site: Site, command: Sequence[str], seconds: float = 30.0) -> None:
        self.said: list[str] = []
        self.site = site
        self.notifier = Notifier(command, site, "here/x", self.said.append, seconds)

    def tell(self, *items: Item, commit: str = "1") -> None:
        """Tell until there is nothing that can be told now."""

        def quiet() -> bool:
            self.notifier.tick(commit, lambda: items)
            return not self.notifier.busy

        until(quiet)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(make_town(tmp_path))


def test_it_gets_what_it_needs_and_no_secret(site: Site, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("API_KEY", "hunter2hunter2")
    site = dataclasses.replace(site, secrets=Secrets((("API_KEY", "hunter2hunter2"),)), environ=dict(os.environ))
    telling = Telling(site, [sys.executable, str(script), "{text}"])
    telling.tell(item(reason="hunter2hunter2 was refused"))
    (found,) = told(script)
    assert found["argv"] == ["Needs you in project: bt-a Do it : [redacted] was refused"]
    assert found["evidence"] == [
        {"what": "attempt 1", "text": "no key [redacted] here", "at": "2026-01-02T03:04:05.678Z"}
    ]
    assert {"DISPLAY", "PATH", "HOME"} <= {*found["environ"]}
    assert "API_KEY" not in found["environ"]
    assert telling.said == []


def test_what_is_over_is_news_when_it_comes_back(site: Site, script: Path) -> None:
    telling = Telling(site, [sys.executable, str(script)])
    telling.tell(item("bt-a"), item("bt-b"))
    telling.tell(item("bt-b"), commit="2")
    telling.tell(item("bt-a"), item("bt-b"), commit="3")
    assert [one["id"] for one in told(script)] == ["bt-a", "bt-b", "bt-a"]
    telling.tell(item("bt-b", mark="another time"), item("bt-a"), commit="4")
    assert [one["id"] for one in told(script)] == ["bt-a", "bt-b", "bt-a", "bt-b"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"told": 3}', '{"told": [3]}', "\0"])
def test_a_memory_that_cannot_be_read_repeats_what_was_told(site: Site, script: Path, text: str) -> None:
    (site.store.directory / TOLD_FILE).write_text(text)
    Telling(site, [sys.executable, str(script)]).tell(item())
    Telling(site, [sys.executable, str(script)]).tell(item())
    assert len(told(script)) == 1


def test_a_memory_that_cannot_be_written_is_said_and_nothing_is_told_twice_meanwhile(site: Site, script: Path) -> None:
    (site.store.directory / TOLD_FILE).mkdir()
    telling = Telling(site, [sys.executable, str(script)])
    telling.tell(item())
    telling.tell(item(), commit="2")
    assert len(told(script)) == 1
    assert "cannot be written, so that something may be told twice" in telling.said[0]


def test_what_failed_is_tried_again_later_and_later(site: Site, tmp_path: Path, script: Path) -> None:
    clock = Virtual()
    site = dataclasses.replace(site, clock=clock)
    broken = tmp_path / "broken"
    broken.touch()
    line = f"test -e {broken} && echo no >> {tmp_path}/failed && exit 1; exec {sys.executable} {script}"
    telling = Telling(site, ["sh", "-c", line])
    for _ in range(3):
        telling.tell(item())
        telling.tell(item())
        clock.sleep(30.0)
    failures = (tmp_path / "failed").read_text().split()
    # At once, after thirty seconds, and not yet after as many more.
    assert len(failures) == 2
    assert len(telling.said) == 1
    broken.unlink()
    clock.sleep(60.0)
    telling.tell(item())
    assert len(told(script)) == 1


def test_where_its_log_cannot_be_written_the_town_goes_on(site: Site) -> None:
    (site.store.directory / LOG_FILE / "in the way").mkdir(parents=True)
    telling = Telling(site, ["true"])
    telling.tell(item())
    assert telling.said[0].startswith("notify: true could not be run: ")
    assert not (site.store.directory / TOLD_FILE).exists()


def test_what_takes_too_long_is_killed(site: Site) -> None:
    telling = Telling(site, ["sleep", "600"], seconds=0.05)
    telling.tell(item())
    assert telling.said[0].startswith("notify: sleep took more than 0.05 s")


def test_it_is_not_looked_at_again_while_nothing_can_have_changed(site: Site) -> None:
    looked: list[str] = []

    def look(name: str) -> Callable[[], list[Item]]:
        def items() -> list[Item]:
            looked.append(name)
            return []

        return items

    clock = Virtual()
    notifier = Notifier(["true"], dataclasses.replace(site, clock=clock), "here/x", looked.append)
    notifier.tick("1", look("first"))
    notifier.tick("1", look("the same"))
    notifier.tick("2", look("another commit"))
    clock.sleep(5.0)
    notifier.tick("2", look("later"))
    assert looked == ["first", "another commit", "later"]


def test_where_looking_takes_long_it_is_not_looked_all_the_time_and_yet_once_more_in_the_end(site: Site) -> None:
    clock, looked = Virtual(), list[str]()
    notifier = Notifier(["true"], dataclasses.replace(site, clock=clock), "here/x", looked.append)

    def tick(commit: str) -> bool:
        def items() -> list[Item]:
            looked.append(commit)
            clock.sleep(2.0)
            return []

        notifier.tick(commit, items)
        return notifier.busy

    assert not tick("1")
    assert tick("2")
    assert tick("3")
    clock.sleep(18.0)
    assert not tick("3")
    assert looked == ["1", "3"]
