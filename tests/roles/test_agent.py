"""The built-in agent's loop with a scripted model: real commands, files and limits, and every way to end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beads.clock import SystemClock
from beads.model import Ending, Usage
from refinery.redaction import Secrets
from roles.builtin.agent import BUDGET_UNHELD, Agent
from roles.builtin.talk import Entry, NotServed, Scripted, Talker, Turn, scripted_turn
from roles.builtin.tools import Hands
from roles.builtin.trajectory import Trajectory
from roles.builtin.wire import Named, Request
from roles.builtin.words import CUT_OFF, HAND_OFF, NO_TOOL
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.settings import Prices

NONE = Secrets()
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@dataclass
class Watch:
    """A clock that moves when somebody sleeps, and when a test says so."""

    passed: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds


class Desk:
    """A place where an agent works: its files, its clock, and what it told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = path / "tree"
        self.tree.mkdir(parents=True)
        self.file = path / "home" / "talk.jsonl"
        self.watch = Watch()
        self.events: list[Event] = []

    def run(self, *talkers: Talker, kept: Trajectory | None = None, secrets: Secrets = NONE, **more: object) -> Ended:
        values = {
            "session": "s",
            "trajectory": str(self.file),
            "prompt": "Make it so.",
            "directory": str(self.tree),
            "scratch": str(self.path),
            "models": [Named(name=talker.name) for talker in talkers],
            "steps": 50,
            "seconds": 1000.0,
        }
        request = Request.model_validate({**values, **more})
        environ = {"PATH": os.environ["PATH"]}
        hands = Hands(self.tree, self.path, environ, 4000, SystemClock())
        kept = Trajectory(self.file, secrets) if kept is None else kept
        end = Agent(request, talkers, kept, hands, self.watch, self.events.append).run()
        self.events.append(end)
        return end

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def wish(tool: str, **arguments: object) -> Turn:
    return scripted_turn("", (tool, json.dumps(arguments)))


def bash(line: str) -> Turn:
    return wish("bash", command=line)


DONE = wish("submit", summary="It is so.")


def last_words(model: Scripted) -> str:
    return str(model.heard[-1][-1]["content"])


def test_work_from_the_first_look_to_the_last_word(desk: Desk) -> None:
    (desk.tree / "a.txt").write_text("one\ntwo\n")
    model = Scripted(
        [
            wish("view", path="a.txt"),
            scripted_turn(
                "I change it.",
                ("str_replace", '{"path": "a.txt", "old": "two", "new": "2"}'),
                ("create", '{"path": "deep/b.txt", "text": "b\\n"}'),
            ),
            bash("cat a.txt deep/b.txt; exit 3"),
            DONE,
        ]
    )
    assert desk.run(model) == Ended("finished", "It is so.")
    assert (desk.tree / "a.txt").read_text() == "one\n2\n"
    assert last_words(model) == "exit 3\none\n2\nb\n"
    assert desk.events == [
        Began("s", "scripted"),
        Used(Usage(input=100, output=10), 0.01),
        Acted("view", "a.txt", True),
        Said("I change it."),
        Used(Usage(input=200, output=20), 0.02),
        Acted("str_replace", "a.txt", True),
        Acted("create", "deep/b.txt", True),
        Used(Usage(input=300, output=30), 0.03),
        Acted("bash", "cat a.txt deep/b.txt; exit 3", False),
        Used(Usage(input=400, output=40), 0.04),
        Acted("submit", "It is so.", True),
        Ended("finished", "It is so."),
    ]


def test_the_conversation_is_in_the_file_as_the_model_heard_it(desk: Desk) -> None:
    model = Scripted([bash("echo hi"), DONE])
    desk.run(model)
    kept = [json.loads(line) for line in desk.file.read_text().splitlines()]
    entries = [line["entry"] for line in kept if "entry" in line]
    assert entries[: len(model.heard[-1])] == model.heard[-1]
    assert [entry["role"] for entry in entries] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert entries[1]["content"] == "Make it so."


# ── Limits, before anything is spent ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "limit, value, asked, said",
    [
        ("steps", 3, 3, "stopped after 3 steps, of 3 allowed"),
        ("budget", 0.02, 2, "stopped at $0.0200, with a budget of $0.02"),
        ("tokens", 300, 3, "stopped at 330 tokens, of 300 allowed"),
    ],
)
def test_a_limit_ends_it_before_the_model_is_asked_again(
    desk: Desk, limit: str, value: float, asked: int, said: str
) -> None:
    model = Scripted(bash(f"echo {number}") for number in range(9))
    limits: dict[str, Any] = {limit: value}
    assert desk.run(model, **limits) == Ended("limits", said)
    assert len(model.heard) == asked


def test_time_that_is_up_ends_it(desk: Desk) -> None:
    def replies() -> Iterable[Turn]:
        yield bash("echo 1")
        desk.watch.passed = 20.0
        yield bash("echo 2")
        pytest.fail("it was asked again")

    assert desk.run(Scripted(replies()), seconds=20.0) == Ended("limits", "stopped after 20 s, of 20 allowed")


def test_what_is_not_known_stays_so_and_a_budget_that_cannot_be_held_is_said(desk: Desk) -> None:
    model = Scripted([scripted_turn("", ("bash", '{"command": "true"}'), cost=None), DONE])
    desk.run(model, budget=0.001)
    assert desk.told(Used) == [Used(Usage(input=100, output=10), None), Used(Usage(input=200, output=20), None)]
    assert desk.told(Troubled) == [Troubled(BUDGET_UNHELD)]


def test_prices_of_ones_own_count_where_litellm_has_none(desk: Desk) -> None:
    model = Scripted([scripted_turn("", ("bash", '{"command": "true"}'), cost=None), DONE])
    end = desk.run(model, budget=0.0001, prices=Prices(input=1.0, output=5.0))
    assert end.ending == "limits"
    assert desk.told(Used) == [Used(Usage(input=100, output=10), 150 / 1e6)]


def test_a_provider_that_counts_nothing_makes_the_sum_unknown(desk: Desk) -> None:
    silent = Turn(bash("true").entry, calls=bash("true").calls, cost=0.5)
    desk.run(Scripted([silent, DONE]))
    assert desk.told(Used) == [Used(None, 0.5), Used(None, 0.51)]


# ── Going round in circles ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines, asked, said",
    [
        (["echo 1"] * 9, 4, "did the same four times, with the same result: bash"),
        (["echo $$; false"] * 9, 3, "did the same three times, and it failed: bash"),
        (["echo 1", "echo 2"] * 9, 6, "did the same two things three times by turns: bash"),
    ],
)
def test_going_round_in_circles_ends_it(desk: Desk, lines: Sequence[str], asked: int, said: str) -> None:
    model = Scripted(map(bash, lines))
    end = desk.run(model)
    assert end.ending == "stuck"
    assert end.text.startswith(said)
    assert len(model.heard) == asked


def test_the_same_line_with_another_result_is_progress(desk: Desk) -> None:
    model = Scripted([*[bash("echo x >> log; wc -l < log")] * 6, DONE])
    assert desk.run(model).ending == "finished"


NOTHING = scripted_turn("I am thinking.")
UNKNOWN = wish("fly", where="up")
NO_JSON = scripted_turn("", ("bash", '{"command": "ls'))
ASTRAY = wish("bash", line="ls")


def test_three_answers_in_a_row_without_anything_to_do_end_it(desk: Desk) -> None:
    model = Scripted([NOTHING, UNKNOWN, bash("true"), NO_JSON, ASTRAY, NOTHING, DONE])
    end = desk.run(model)
    assert end == Ended("stuck", "3 answers in a row had nothing in them that could be done")
    told = [str(heard[-1]["content"]) for heard in model.heard]
    assert told[1] == NO_TOOL
    assert "There is no tool 'fly'. There are: bash, view, str_replace, create, submit." in told[2]
    assert "The arguments of bash cannot be used" in told[4]
    assert "command: Field required" in told[5]


def test_an_answer_that_was_cut_off_is_told_so(desk: Desk) -> None:
    model = Scripted([scripted_turn("and then", cut=True), DONE])
    desk.run(model)
    assert last_words(model) == CUT_OFF


# ── A window that gets full ──────────────────────────────────────────────────────────────────────────────────


class Counting(Scripted):
    """Counts what it is shown, three characters a token, as a provider does."""

    def say(self, talk: Sequence[Entry], tools: Sequence[Entry], timeout: float) -> Turn:
        turn = super().say(talk, tools, timeout)
        self.tokens = sum(len(json.dumps(entry)) for entry in talk) // 3
        assert self.tokens < self.window, "more than it can take"
        return Turn(turn.entry, turn.text, turn.calls, Usage(input=self.tokens, output=10), turn.cost)


def test_old_results_are_left_out_many_at_once_and_the_newest_never(desk: Desk) -> None:
    model = Counting(
        (*(bash(f"echo {n}; head -c 2000 /dev/zero | tr '\\0' x") for n in range(30)), DONE), window=12_000
    )
    assert desk.run(model).ending == "finished"
    changes = 0
    for before, after in zip(model.heard, model.heard[1:], strict=False):
        # A provider's cache holds as long as what was said stays what it was.
        changes += after[: len(before)] != before
        results = [str(entry["content"]) for entry in after if entry["role"] == "tool"]
        assert all("left out to save room" not in result for result in results[-2:])
    assert 2 <= changes <= 6
    assert sum("left out to save room" in str(entry["content"]) for entry in model.heard[-1]) > 10
    assert desk.file.read_text().count("x" * 2000) == 30


def test_a_full_window_ends_with_a_note_to_whoever_goes_on(desk: Desk) -> None:
    chatty = (scripted_turn("w" * 3000, ("bash", f'{{"command": "echo {n}"}}')) for n in range(9))

    def replies() -> Iterable[Turn]:
        for turn in chatty:
            if len(model.heard[-1]) and model.heard[-1][-1]["content"] == HAND_OFF:
                yield scripted_turn("Half of it is done.", ("bash", '{"command": "touch no"}'))
            yield turn

    model = Counting(replies(), window=6000)
    assert desk.run(model) == Ended("context_exhausted", "Half of it is done.")
    assert not (desk.tree / "no").exists()


def test_a_window_that_is_smaller_than_was_thought_is_learned(desk: Desk) -> None:
    full = NotServed("too long", "context_exhausted")
    big = [bash(f"echo {n}; head -c 3000 /dev/zero | tr '\\0' x") for n in range(6)]
    model = Scripted([*big, full, DONE])
    assert desk.run(model).ending == "finished"
    assert sum("left out to save room" in str(entry["content"]) for entry in model.heard[-1]) == 4
    model = Scripted([full, full, full, full, full])
    assert desk.run(model, prompt="p" * 5000) == Ended("context_exhausted", "")


# ── Providers that do not answer ─────────────────────────────────────────────────────────────────────────────

AWAY = NotServed("m: overloaded", "provider_unavailable")


def spent(seconds: float | None) -> NotServed:
    return NotServed("m: quota", "quota", None if seconds is None else NOON + timedelta(seconds=seconds))


def test_who_is_away_is_asked_again_after_a_pause(desk: Desk) -> None:
    assert desk.run(Scripted([AWAY, AWAY, AWAY, DONE])).ending == "finished"
    assert desk.watch.slept == [1.0, 5.0, 20.0]
    assert desk.told(Troubled) == [Troubled("m: overloaded")] * 3


def test_a_rate_limit_that_ends_soon_is_waited_for(desk: Desk) -> None:
    assert desk.run(Scripted([spent(17), DONE])).ending == "finished"
    assert desk.watch.slept == [17.0]


@pytest.mark.parametrize(
    "replies, end, slept",
    [
        ([AWAY] * 4, Ended("provider_unavailable", "m: overloaded"), [1.0, 5.0, 20.0]),
        ([spent(None)], Ended("quota", "m: quota"), []),
        ([spent(3600)], Ended("quota", "m: quota", NOON + timedelta(hours=1)), []),
        ([spent(0)] * 4, Ended("quota", "m: quota", NOON), [1.0, 5.0, 20.0]),
        ([NotServed("m: bad key", "environment")], Ended("environment", "m: bad key"), []),
    ],
)
def test_who_does_not_answer_ends_it(desk: Desk, replies: list[NotServed], end: Ended, slept: list[float]) -> None:
    assert desk.run(Scripted(replies)) == end
    assert desk.watch.slept == slept


def test_no_pause_is_longer_than_the_time_that_is_left(desk: Desk) -> None:
    assert desk.run(Scripted([AWAY] * 4), seconds=8.0).ending == "provider_unavailable"
    assert desk.watch.slept == [1.0, 5.0]


@pytest.mark.parametrize("trouble", [[AWAY] * 4, [spent(3600)]])
def test_the_next_model_goes_on_and_stays(desk: Desk, trouble: list[NotServed]) -> None:
    calls = scripted_turn("", ("bash", '{"command": "echo 1"}')).entry["tool_calls"]
    assert isinstance(calls, list)
    private = {"thinking_blocks": ["signed"], "tool_calls": [{**calls[0], "index": 0}]}
    signed = Turn({**bash("echo 1").entry, **private}, calls=bash("echo 1").calls, cost=0.01)
    first, second = Scripted([signed, *trouble], "first"), Scripted([bash("echo 2"), DONE], "second")
    assert desk.run(first, second).ending == "finished"
    assert desk.told(Began) == [Began("s", "first"), Began("s", "second")]
    assert "thinking_blocks" in first.heard[-1][2]
    assert second.heard[-1][2] == bash("echo 1").entry
    assert [entry["role"] for entry in second.heard[-1]] == ["system", "user", *["assistant", "tool"] * 2]


@pytest.mark.parametrize("ending", ["environment", "context_exhausted"])
def test_what_another_model_does_not_mend_is_not_asked_of_it(desk: Desk, ending: Ending) -> None:
    first, second = Scripted([NotServed("m: no", ending)] * 9, "first"), Scripted([DONE], "second")
    assert desk.run(first, second).ending == ending
    assert not second.heard


# ── Killed, and gone on with ─────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The process is gone."""


class Mortal(Trajectory):
    """Dies at the n-th line, before or after it is on the disk."""

    def __init__(self, path: Path, number: int, how: str) -> None:
        super().__init__(path)
        self._number, self._how = number, how

    def _write(self, record: dict[str, object]) -> None:
        self._number -= 1
        if self._number == 0 and self._how == "before":
            raise Killed
        super()._write(record)
        if self._number == 0:
            raise Killed


class Careful:
    """Writes two numbers into a log, one after the other, by what the conversation says of them."""

    name = "careful"
    window = 100_000

    def say(self, talk: Sequence[Entry], tools: Sequence[Entry], timeout: float) -> Turn:
        del tools, timeout
        if "It may have had its effect" in str(talk[-1 if talk[-1]["role"] == "tool" else -2]["content"]):
            return bash("cat log 2>/dev/null || true")
        results = [str(entry["content"]) for entry in talk if entry["role"] == "tool"]
        done = max((int(line) for result in results for line in result.splitlines() if line.isdigit()), default=0)
        return bash(f"echo {done + 1} >> log; cat log") if done < 2 else DONE


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_between_any_two_steps_it_goes_on_and_does_nothing_twice(tmp_path: Path, how: str) -> None:
    whole = Desk(tmp_path / "whole")
    assert whole.run(Careful()).ending == "finished"
    count = len(whole.file.read_text().splitlines())
    assert count == 2 + 3 * 3
    for number in range(1, count + 1):
        desk = Desk(tmp_path / f"{number}")
        with pytest.raises(Killed):
            desk.run(Careful(), kept=Mortal(desk.file, number, how))
        assert desk.run(Careful(), prompt="Go on.", resume=True).ending == "finished"
        assert (desk.tree / "log").read_text() == "1\n2\n", f"killed at line {number}"
        entries = [entry for entry in map(json.loads, desk.file.read_text().splitlines()) if "entry" in entry]
        asked = [c["id"] for e in entries for c in e["entry"].get("tool_calls", [])]
        assert len(asked) == sum(e["entry"]["role"] == "tool" for e in entries), "every wish has one result"


def test_a_line_that_was_being_written_is_taken_away(desk: Desk) -> None:
    desk.run(Scripted([bash("echo hi"), DONE]))
    data = desk.file.read_bytes()
    desk.file.write_bytes(data[:-5])
    assert desk.run(Scripted([DONE]), prompt="Go on.", resume=True).ending == "finished"
    lines = desk.file.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:7]) == data[: data.rfind(b"{", 0, data.rfind(b'{"role"'))]
    assert "It may have had its effect" in lines[7].decode()


def test_a_file_that_is_no_conversation_is_said(desk: Desk) -> None:
    desk.file.parent.mkdir()
    desk.file.write_text("hello\n")
    with pytest.raises(Exception, match=r"talk.jsonl:1: this is no JSON"):
        Trajectory(desk.file)


def test_a_secret_gets_neither_into_the_file_nor_to_the_model(desk: Desk) -> None:
    (desk.tree / "key").write_text('planted-"key"\n')
    model = Scripted([bash("cat key"), wish("view", path="key"), DONE])
    desk.run(model, secrets=Secrets.among({"MY_KEY": 'planted-"key"'}))
    assert "planted" not in desk.file.read_text()
    assert "planted" not in json.dumps(model.heard)
    assert last_words(model).endswith("1\t[redacted]")
