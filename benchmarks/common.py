"""What the benchmarks share: figures beside their floors, clocks, processes, and repositories to work in."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

ROOT = Path(__file__).resolve().parent.parent

BEAD = [sys.executable, "-P", "-c", "from cli.main import bead; bead()"]
TOWN = [sys.executable, "-P", "-c", "from cli.main import town; town()"]
IMPORTS = [sys.executable, "-c", "import click, sqlite3"]
"""The floor of every command: a Python that has loaded what a command line and a cache cannot do without."""

Unit = Literal["s", "/s", "bytes", ""]
Measure = Callable[[Path, Namespace], Iterator["Figure"]]


@dataclass(frozen=True)
class Figure:
    """One measurement, beside the floor that was measured in the same run.

    Attributes:
        name: what was measured.
        ours: the figure; a median where there are several.
        unit: of ``ours`` and ``floor``: seconds, a rate per second, bytes, or a plain number.
        floor: the least that Git or Python would need for the same effect, if there is such a thing.
        floor_is: what that is.
        low: a tenth of the samples were below; None for a single one.
        high: a tenth of the samples were above.
        at_most: the target: an upper bound of the ratio, where there is no floor of the figure itself.
        at_least: the same from below.
    """

    name: str
    ours: float
    unit: Unit = "s"
    floor: float | None = None
    floor_is: str = ""
    low: float | None = None
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor ours is."""
        return self.ours / self.floor if self.floor else None

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without one."""
        value = self.ours if self.ratio is None else self.ratio
        if self.at_most is not None:
            return value <= self.at_most
        return None if self.at_least is None else value >= self.at_least

    def facts(self) -> dict[str, object]:
        """Everything about it, for JSON."""
        return {**asdict(self), "ratio": self.ratio, "holds": self.holds}


def timed(name: str, samples: Sequence[float], floor: Sequence[float] = (), **more: object) -> Figure:
    """The figure of repeated timings in seconds, and of the floor's."""
    least = statistics.median(floor) if floor else None
    low, high = quantile(samples, 0.1), quantile(samples, 0.9)
    return Figure(name, statistics.median(samples), floor=least, low=low, high=high, **more)  # type: ignore[arg-type]


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which ``share`` of them are."""
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def interleaved(times: int, **actions: Callable[[int], object]) -> dict[str, list[float]]:
    """How many seconds each action takes when called with 0, 1, 2, …; in turns, so that noise hits all of them."""
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(times):
        for name, action in actions.items():
            begin = time.perf_counter()
            action(number)
            spent[name].append(time.perf_counter() - begin)
    return spent


class Watch:
    """How long a block of statements took: ``with Watch() as watch: …`` and then ``watch.seconds``."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begin = 0.0

    def __enter__(self) -> Self:
        self._begin = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.seconds += time.perf_counter() - self._begin


def progress(text: str = "") -> None:
    """Show how far it is, on one line of a terminal; nowhere else. Without a text the line is cleared."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """What the processes see: no Git configuration of the caller's, and bytecode is kept as it is for a user."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and k != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": path}


def git(place: Path, *args: str) -> str:
    """What ``git ARGS`` prints there."""
    done = subprocess.run(["git", *args], cwd=place, env=environment(), check=True, capture_output=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def repository(place: Path, settings: Mapping[str, str] | None = None) -> Path:
    """A new Git repository with one commit on main, which is what a store has beside it."""
    place.mkdir(parents=True)
    git(place, "init", "--quiet", "--initial-branch", "main")
    own = {"user.name": "Bench", "user.email": "bench@example.org", "gc.auto": "0"}
    for name, value in {**own, **(settings or {})}.items():
        git(place, "config", name, value)
    (place / "file").write_text("text\n")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "begin")
    return place


@dataclass(frozen=True)
class Ran:
    """A process that has ended: its output, its time in seconds, and the most memory it had, in bytes."""

    output: str
    seconds: float
    peak: int


# What a process had as its peak of memory counts from that of its parent, so the parent must be a small one.
_LAUNCHER = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    arguments = json.loads(line)
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    print(json.dumps([process.returncode, output.decode(errors="replace"), seconds, usage.ru_maxrss]), flush=True)
"""

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Launcher:
    """A small process that starts others in ``place`` and measures them; a ``with`` block ends it."""

    def __init__(self, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER],
            cwd=place,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Ran:
        """Run a process to its end.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        assert self._process.stdin is not None, "a pipe was asked for"
        assert self._process.stdout is not None, "a pipe was asked for"
        print(json.dumps(arguments), file=self._process.stdin, flush=True)
        code, output, seconds, peak = json.loads(self._process.stdout.readline())
        if code:
            raise RuntimeError(f"{arguments[-3:]} ended with {code}: {output}")
        return Ran(output, seconds, peak * _RSS_UNIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


@contextmanager
def workplace(keep: Path | None = None) -> Iterator[Path]:
    """A directory to work in, removed at the end unless it was named."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="beadtown-bench-") as name:
        yield Path(name)


def run(about: str | None, add: Callable[[ArgumentParser], None], measure: Measure) -> None:
    """Be the command of one benchmark: read its options, measure, print."""
    parser = ArgumentParser(description=about)
    add(parser)
    add_common(parser)
    options = parser.parse_args()
    with workplace(options.keep) as place:
        figures = measure(place, options)
        if options.json:
            print(json.dumps(rows(figures), indent=2))
        else:
            report(figures)


def add_common(parser: ArgumentParser) -> None:
    """The options that every benchmark takes."""
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in that new directory and leave it there")


def rows(figures: Iterator[Figure]) -> list[dict[str, object]]:
    """Every figure's facts, for JSON."""
    facts = [figure.facts() for figure in figures]
    progress()
    return facts


def report(figures: Iterator[Figure]) -> None:
    """Print figures as a table, each as soon as it is known."""
    print(f"{'what':<52} {'ours':>10} {'10 to 90 %':>21} {'floor':>10} {'ratio':>6}  {'target':<16} floor is")
    for figure in figures:
        progress()
        print(_row(figure), flush=True)


def _row(figure: Figure) -> str:
    spread = f"{shown(figure.low, figure.unit)} to {shown(figure.high, figure.unit)}" if figure.low else ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    ours, floor = shown(figure.ours, figure.unit), shown(figure.floor, figure.unit)
    return (
        f"{figure.name:<52} {ours:>10} {spread:>21} {floor:>10} {ratio:>6}  {_target(figure):<16} {figure.floor_is}"
    ).rstrip()


def _target(figure: Figure) -> str:
    bound = figure.at_least if figure.at_most is None else figure.at_most
    if bound is None:
        return ""
    unit: Unit = figure.unit if figure.ratio is None else ""
    return f"{'≥' if figure.at_most is None else '≤'} {shown(bound, unit)} {'ok' if figure.holds else 'MISSED'}"


def shown(value: float | None, unit: Unit) -> str:
    """A figure with its unit, as short as a person needs it; nothing for None."""
    if value is None:
        return ""
    match unit:
        case "s":
            return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.2f} ms" if value < 0.1 else f"{value:.3f} s"
        case "bytes":
            return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value:.0f} B"
        case "/s":
            return f"{value:,.0f}/s"
        case _:
            return f"{value:g}"
