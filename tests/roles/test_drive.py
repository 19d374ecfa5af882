"""Agents' programs as they are: silent, deaf, dishonest, endless. Each is followed, kept within limits, reported."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from beads.clock import SystemClock
from beads.model import Usage
from beads.ops import Report
from refinery.processes import LOG_MAX, Exit, kill_strays, start, strays
from refinery.redaction import NO_SECRETS, Secrets
from roles.drive import GRACE_SECONDS, LINE_MAX, LINGER_SECONDS, NOTE_MAX, Drive, Limits, Price
from roles.events import Acted, Ended, Event, Said, Troubled, Used, as_line
from tests.roles.scripted import Scripted, agent
from tests.towns import until


class Later(SystemClock):
    """The real clock, put forward by some seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def unpriced(model: str, usage: Usage) -> float | None:
    del model, usage
    return None


NO_LIMITS = Limits()


@dataclass
class Bench:
    """Starts agents in a directory, on a clock that can be put forward."""

    directory: Path
    environ: dict[str, str]
    clock: Later = field(default_factory=Later)
    events: list[Event] = field(default_factory=list)

    @property
    def marker(self) -> str:
        return f"test {self.directory}"

    def drive(
        self,
        work: str | list[str],
        limits: Limits = NO_LIMITS,
        *,
        price: Price = unpriced,
        secrets: Secrets = NO_SECRETS,
        timeout: float = 3600.0,
        log_max: int = LOG_MAX,
    ) -> Drive:
        log = self.directory / "log"
        self.events.clear()
        job = start(
            agent(work) if isinstance(work, str) else work,
            cwd=self.directory,
            environ=self.environ,
            log=log,
            timeout=timeout,
            marker=self.marker,
            clock=self.clock,
            log_max=log_max,
        )
        return Drive(job, log, Scripted(), limits, "asked", price, self.clock, self.events.append, secrets)

    def run(self, work: str | list[str], *, log_max: int = LOG_MAX, secrets: Secrets = NO_SECRETS) -> Report:
        return self.ended(self.drive(work, log_max=log_max, secrets=secrets))

    def ended(self, drive: Drive) -> Report:
        """Its report, once it has ended by itself, with nothing of it alive."""
        until(lambda: drive.poll() is not None)
        assert strays(self.marker) == []
        return drive.report(self.exit(drive))

    def exit(self, drive: Drive) -> Exit:
        exit = drive.poll()
        assert exit is not None
        return exit

    def until(self, drive: Drive, condition: Callable[[], object]) -> None:
        """Follow it until then."""
        until(lambda: [drive.poll(), condition()][1])

    def after(self, drive: Drive, event: Event) -> None:
        """Follow it until it has told that."""
        self.until(drive, lambda: event in self.events)

    def go(self, name: str = "go") -> None:
        """Let it go on that waits for this."""
        (self.directory / name).touch()


@pytest.fixture
def bench(tmp_path: Path, environ: dict[str, str]) -> Iterator[Bench]:
    bench = Bench(tmp_path, environ)
    yield bench
    kill_strays(bench.marker)


# ── What is reported ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_reported_with_all_that_was_told(bench: Bench) -> None:
    report = bench.run("""
        tell("began", session="s-1", model="m-1")
        tell("said", text="Working.")
        tell("acted", tool="bash", what="make", ok=True)
        tell("troubled", text="Again.")
        spend(0.5, input=10, output=2)
        spend(0.75, input=30, output=4)
        tell("ended", ending="finished", text="Done.")
    """)
    usage = Usage(input=30, output=4)
    assert report == Report(model="m-1", session="s-1", note="Done.", usage=usage, cost=0.75)
    assert Acted("bash", "make", True) in bench.events
    assert Troubled("Again.") in bench.events


def test_until_when_it_will_not_be_served_is_reported(bench: Bench) -> None:
    moment = datetime(2026, 5, 6, tzinfo=UTC)
    drive = bench.drive("pass")
    drive._hear(Ended("quota", "Try again later.", moment))
    report = bench.ended(drive)
    assert (report.ending, report.until, report.note) == ("quota", moment, "Try again later.")


def test_of_who_says_nothing_it_is_said_how_it_ended(bench: Bench) -> None:
    assert bench.run("pass") == Report(ending="finished", model="asked")
    assert bench.run("sys.exit('no key')").note == "ended with exit 1: no key"
    assert bench.run("os.kill(os.getpid(), 9)").note == "killed by signal 9"
    assert bench.run("tell('said', text='Well.'); sys.exit(3)").note == "Well."
    missing = bench.run(["/none/such"])
    assert missing.ending == "environment"
    assert missing.note.startswith("could not be run: cannot be started in ")
    assert bench.run("sys.exit(127)").note == "could not be run: it ended as a shell says that"


def test_the_last_words_are_kept_and_no_more(bench: Bench) -> None:
    drive = bench.drive("tell('said', text='x' * 5000 + 'end'); tell('said', text=' '); hang()", Limits(silence=60))
    bench.until(drive, lambda: len(bench.events) == 2)
    bench.clock.ahead = 61
    note = bench.ended(drive).note
    assert note.startswith("stopped after 6")
    assert " s without a word\nxxx" in note
    assert note.endswith("xend")
    assert len(note) == NOTE_MAX


def test_what_cannot_be_stored_is_not_reported(bench: Bench) -> None:
    """Halves of characters, and numbers that are none: a store refuses them, and the work would be lost."""
    report = bench.run(r"""
        write(b'{"event": "began", "session": "s\\ud800", "model": "m\\udfff"}\n')
        write(b'{"event": "said", "text": "a\\ud800b\\u0000"}\n')
        write(b'{"event": "used", "usage": null, "cost": NaN}\n')
    """)
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert (report.session, report.model, report.note, report.cost) == ("s?", "m?", "a?b\0", None)
    for event in bench.events:
        line = as_line(event, "now").encode("utf-8", "replace")
        assert json.loads(line, parse_constant=lambda word: pytest.fail(word))["at"] == "now"


def test_no_secret_is_reported(bench: Bench) -> None:
    report = bench.run(
        "tell('began', session='s sk-12345678'); tell('ended', ending='finished', text='It is sk-12345678.')",
        secrets=Secrets((("KEY", "sk-12345678"),)),
    )
    assert (report.session, report.note) == ("s [redacted]", "It is [redacted].")


# ── What is read ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_no_reader_can_take_is_no_event_and_no_end(bench: Bench) -> None:
    report = bench.run(r"""
        for line in (b"\xff\xfe\0", b"{", b"null", b"7", b'{"event": "new"}', b'{"event": "said"}', b"[" * 99_999, b""):
            write(line + b"\n")
        write(b'{"event": "said", "text": "a\xffb"}\r\n')
    """)
    assert bench.events == [Said("a\ufffdb"), Ended("finished")]
    assert report.note == "a\ufffdb"


def test_a_line_that_is_too_long_is_no_event_nor_is_its_end(bench: Bench) -> None:
    report = bench.run(f"""
        tell("said", text="before")
        write(b"x" * {LINE_MAX + (4 << 20)})
        tell("said", text="smuggled")
        tell("said", text="a" * 2**20)
        write(b"y" * {LINE_MAX + 1})
    """)
    assert [event.text for event in bench.events if isinstance(event, Said)] == ["before", "a" * 2**20]
    assert report.note == "a" * NOTE_MAX


def test_half_a_line_of_who_died_is_no_event_and_a_whole_one_without_its_end_is(bench: Bench) -> None:
    report = bench.run("""write(b'{"event": "said", "text": "hal'); os.kill(os.getpid(), 9)""")
    assert report == Report(ending="cancelled", model="asked", note="killed by signal 9")
    assert bench.run("""write(b'{"event": "said", "text": "whole"}')""").note == "whole"


def test_a_line_is_heard_as_soon_as_it_is_there(bench: Bench) -> None:
    drive = bench.drive(r"""
        write(b'{"event": "said", "te')
        wait_for("go")
        write(b'xt": "one"}\n{"event"')
        hang()
    """)
    bench.until(drive, lambda: (bench.directory / "log").stat().st_size > 10)
    drive.poll()
    assert bench.events == []
    bench.go()
    bench.after(drive, Said("one"))
    drive.cancel(0.0)
    assert bench.events == [Said("one"), Ended("cancelled")]


def test_how_it_says_that_it_ended_is_not_changed_by_how_it_did(bench: Bench) -> None:
    report = bench.run("tell('ended', ending='context_exhausted', text='Full.'); sys.exit(1)")
    assert (report.ending, report.note) == ("context_exhausted", "Full.")
    assert bench.events == [Ended("context_exhausted", "Full.")]


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_does_not_end_after_its_result_is_ended(bench: Bench) -> None:
    drive = bench.drive("tell('ended', ending='finished', text='Done.'); hang()", Limits(silence=1))
    bench.after(drive, Ended("finished", "Done."))
    bench.clock.ahead = LINGER_SECONDS - 10
    assert drive.poll() is None
    bench.clock.ahead = LINGER_SECONDS + 1
    report = bench.ended(drive)
    assert (report.ending, report.note) == ("finished", "Done.")
    assert bench.exit(drive).kind == "cancelled"


def test_a_minute_of_silence_is_borne_where_more_is_allowed(bench: Bench) -> None:
    drive = bench.drive("tell('troubled', text='No connection.'); hang()", Limits(silence=600))
    bench.after(drive, Troubled("No connection."))
    for minute in range(1, 10):
        bench.clock.ahead = minute * 60
        assert drive.poll() is None
    bench.clock.ahead = 601
    report = bench.ended(drive)
    assert report.ending == "stuck"
    assert report.note.startswith("stopped after 60")


def test_whoever_says_anything_is_not_silent(bench: Bench) -> None:
    drive = bench.drive(
        """
        for number in range(3):
            wait_for(f"go{number}")
            write(b".")
        """,
        Limits(silence=600),
    )
    log = bench.directory / "log"
    for number in range(3):
        bench.clock.ahead += 500
        assert drive.poll() is None
        bench.go(f"go{number}")
        while not log.stat().st_size > number:
            drive.poll()
        drive.poll()
    assert bench.ended(drive).ending == "finished"


def test_a_budget_is_held_by_what_it_says_that_it_costs(bench: Bench) -> None:
    drive = bench.drive("spend(0.2); spend(1.25, input=1); hang()", Limits(budget=1.25))
    report = bench.ended(drive)
    assert (report.ending, report.cost) == ("limits", 1.25)
    assert report.note == "stopped at $1.2500, with a budget of $1.25"


def test_a_budget_is_held_by_prices_where_it_says_nothing(bench: Bench) -> None:
    asked: list[tuple[str, int]] = []

    def price(model: str, usage: Usage) -> float:
        asked.append((model, usage.total))
        return usage.input * 0.001 + usage.output * 0.01

    drive = bench.drive(
        "tell('began', session='s', model='m-2'); spend(input=100, output=10); spend(input=400, output=40); hang()",
        Limits(budget=0.5),
        price=price,
    )
    report = bench.ended(drive)
    assert (report.ending, report.usage) == ("limits", Usage(input=400, output=40))
    assert report.cost == pytest.approx(0.8)
    # Looking again costs nothing: to know prices may take long.
    assert asked == [("m-2", 110), ("m-2", 440)]


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0])
def test_a_cost_that_cannot_be_is_unknown_and_no_reason_to_stop(bench: Bench, cost: float) -> None:
    drive = bench.drive("pass", Limits(budget=0.5))
    drive._hear(Used(None, cost))
    report = bench.ended(drive)
    assert (report.ending, report.cost) == ("finished", None)


def test_tokens_are_held_to_their_limit(bench: Bench) -> None:
    report = bench.ended(bench.drive("spend(input=90, output=10, cached=50); hang()", Limits(tokens=100)))
    assert (report.ending, report.note) == ("limits", "stopped at 100 tokens, of 100 allowed")


def test_what_is_unknown_holds_nobody(bench: Bench) -> None:
    report = bench.ended(bench.drive("spend(input=9**9); tell('ended', ending='finished')", Limits(budget=0.01)))
    assert (report.ending, report.cost) == ("finished", None)


def test_whoever_is_over_its_budget_when_it_is_done_is_done(bench: Bench) -> None:
    drive = bench.drive("spend(9.0); tell('ended', ending='finished', text='Done.'); hang()", Limits(budget=1.0))
    until(lambda: "Done." in (bench.directory / "log").read_text())
    drive.poll()
    bench.clock.ahead = LINGER_SECONDS
    report = bench.ended(drive)
    assert (report.ending, report.note, report.cost) == ("finished", "Done.", 9.0)


def test_a_success_that_is_told_when_it_is_stopped_is_none(bench: Bench) -> None:
    drive = bench.drive(
        """
        def done():
            tell("ended", ending="finished", text="All done!")
            os._exit(0)
        on_term(done)
        spend(2.0)
        hang()
        """,
        Limits(budget=1.0),
    )
    report = bench.ended(drive)
    assert (report.ending, report.note) == ("limits", "stopped at $2.0000, with a budget of $1.00\nAll done!")
    assert Ended("finished", "All done!") in bench.events


def test_a_success_that_is_told_at_the_time_limit_is_none(bench: Bench) -> None:
    drive = bench.drive(
        """
        on_term(lambda: [tell("ended", ending="finished", text="Yes."), os._exit(0)])
        tell("said", text="x")
        hang()
        """,
        timeout=900.0,
    )
    bench.after(drive, Said("x"))
    bench.clock.ahead = 900
    report = bench.ended(drive)
    assert (report.ending, bench.exit(drive).kind) == ("limits", "timeout")
    assert report.note.startswith("stopped at its time limit, after 9")
    assert report.note.endswith(" s\nYes.")


def test_who_is_to_stop_is_told_so_once(bench: Bench) -> None:
    """Told twice, many a program takes it for an order to drop everything."""
    drive = bench.drive(
        """
        on_term(lambda: tell("said", text="stopping"))
        spend(2.0)
        wait_for("go")
        """,
        Limits(budget=1.0),
    )
    bench.after(drive, Said("stopping"))
    for _ in range(50):
        assert drive.poll() is None
    bench.go()
    bench.ended(drive)
    assert bench.events.count(Said("stopping")) == 1


def test_who_is_deaf_is_killed(bench: Bench) -> None:
    drive = bench.drive("signal.signal(signal.SIGTERM, signal.SIG_IGN); spend(2.0); hang()", Limits(budget=1.0))
    bench.until(drive, lambda: drive._stopping)
    assert drive.poll() is None
    bench.clock.ahead = GRACE_SECONDS
    assert bench.ended(drive).ending == "limits"


def test_a_flood_is_stopped_and_said(bench: Bench) -> None:
    report = bench.run("tell('said', text='x')\nwhile True: write(b'y' * 10_000)", log_max=100_000)
    assert report.ending == "limits"
    assert report.note.startswith("stopped after it had printed ")
    assert report.note.endswith(" bytes\nx")


def test_whoever_is_cancelled_is_reported_with_what_it_has_used(bench: Bench) -> None:
    drive = bench.drive("tell('began', session='s'); spend(0.25, input=5); hang()")
    bench.after(drive, Used(Usage(input=5), 0.25))
    report = drive.report(drive.cancel(0.0))
    assert (report.ending, report.session, report.cost, report.usage) == ("cancelled", "s", 0.25, Usage(input=5))
    assert drive.cancel(0.0) == bench.exit(drive)


def test_who_moved_away_is_dead_when_the_end_is_known(bench: Bench) -> None:
    drive = bench.drive(
        """
        if escape("pid"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            hang()
        wait_for("pid")
        tell("ended", ending="finished", text="Done.")
        """
    )
    until(lambda: drive.poll() is not None)
    pid = int((bench.directory / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert bench.ended(drive).note == "Done."
