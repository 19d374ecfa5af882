"""The log of verdicts, which is the evidence on merge requests, and what it says about flaky tests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from beads.model import Bead, Evidence
from refinery.failures import failing

FAILURES_MAX = 4
"""After how many failures of one tree it does not matter any more that they were failures of different tests.

A tree that has never passed, and failed four times while main was green, is not worth a fifth: what makes other tests
fail each time may be a fault as well.
"""


class Entry(NamedTuple):
    """One verdict of the gate, and the merge request that it is stored on."""

    request: str
    evidence: Evidence


def verdicts(requests: Iterable[Bead]) -> list[Entry]:
    """All that the gate has said, oldest first.

    Args:
        requests: merge requests, closed ones too.
    """
    found = [Entry(bead.id, e) for bead in requests for e in bead.evidence if e.gate]
    return sorted(found, key=lambda entry: entry.evidence.at)


def counting(runs: Sequence[Evidence], trees: Collection[str]) -> list[Evidence]:
    """The runs that say something about their trees: without each failure that only shows that tests are flaky.

    Such a one is of a tree that has failed before, but never at one of the same tests. It neither confirms what failed
    then nor is confirmed by it, so that it does not convict; the next failure may be like either of them. Where it is
    not known which tests failed, each failure counts.

    Args:
        runs: all of them under one gate and in one environment, oldest first.
        trees: those that this matters for; of others all runs count.
    """
    failures = Counter(run.tree for run in runs if run.verdict == "fail" and run.tree in trees)
    before: dict[str, list[set[str]]] = {}
    kept = []
    for run in runs:
        if run.verdict == "fail" and failures[run.tree] > 1:
            earlier, tests = before.setdefault(run.tree, []), set(failing(run.output))
            counts = not earlier or len(earlier) >= FAILURES_MAX - 1 or _alike(tests, earlier)
            earlier.append(tests)
            if not counts:
                continue
        kept.append(run)
    return kept


def _alike(tests: set[str], earlier: Iterable[set[str]]) -> bool:
    """Whether a failure may be the same as one of these: as far as is known, they have a test in common."""
    return any(not tests or not others or tests & others for others in earlier)


@dataclass(frozen=True)
class Flake:
    """A test that failed for nothing: on a tree that passed as well, or that failed at other tests the next time.

    Attributes:
        test: its name; empty where the output did not tell, or it is no test that failed.
        command: the gate's command that it failed in.
        failures: how often it did.
        trees: on how many trees.
        requests: the merge requests it was in the way of, in the order of time.
        first: when it was first seen.
        last: when it was last seen.
    """

    test: str
    command: str
    failures: int
    trees: int
    requests: tuple[str, ...]
    first: datetime
    last: datetime


class FlakeRate(NamedTuple):
    """How often a run fails for nothing: of ``runs`` on trees that are known to be good, so many."""

    failures: int
    runs: int

    @property
    def rate(self) -> float:
        """The share of failures; 0 where there were no runs."""
        return self.failures / self.runs if self.runs else 0.0


def flakes(requests: Iterable[Bead], since: datetime | None = None) -> list[Flake]:
    """The tests that failed for nothing, the most frequent first.

    Only what was run again can contradict itself, which is what was about to send somebody back. So these are fewer
    than there are.

    Args:
        requests: merge requests, closed ones too.
        since: verdicts from before do not count.
    """
    seen: dict[tuple[str, str], list[Entry]] = {}
    for group in _trees(requests, since):
        for entry in _for_nothing(group):
            for test in failing(entry.evidence.output) or ("",):
                seen.setdefault((test, entry.evidence.subject.removeprefix("gate: ")), []).append(entry)
    found = [
        Flake(
            test=test,
            command=command,
            failures=len(entries),
            trees=len({entry.evidence.tree for entry in entries}),
            requests=tuple(dict.fromkeys(entry.request for entry in _by_time(entries))),
            first=min(entry.evidence.at for entry in entries),
            last=max(entry.evidence.at for entry in entries),
        )
        for (test, command), entries in seen.items()
    ]
    return sorted(found, key=lambda flake: (-flake.failures, -flake.last.timestamp(), flake.command, flake.test))


def flake_rate(requests: Iterable[Bead], since: datetime | None = None) -> FlakeRate:
    """How often a run fails for nothing, as far as is known; see :func:`flakes`."""
    counts: Counter[str] = Counter()
    for group in _trees(requests, since):
        wrong = len(_for_nothing(group))
        passed = sum(entry.evidence.verdict == "pass" for entry in group)
        counts["failures"] += wrong
        counts["runs"] += wrong + passed
    return FlakeRate(counts["failures"], counts["runs"])


def _trees(requests: Iterable[Bead], since: datetime | None) -> Iterator[list[Entry]]:
    """What passed and failed of each tree under one gate and in one environment, oldest first."""

    def key(entry: Entry) -> tuple[str, str, str]:
        return entry.evidence.tree, entry.evidence.gate, entry.evidence.environment

    known = (entry for entry in verdicts(requests) if since is None or entry.evidence.at >= since)
    judged = [entry for entry in known if entry.evidence.verdict in ("pass", "fail")]
    for _, group in groupby(sorted(judged, key=key), key=key):
        yield list(group)


def _for_nothing(group: Sequence[Entry]) -> list[Entry]:
    """Of the runs of one tree the failures that are not the tree's fault."""
    failed = [entry for entry in group if entry.evidence.verdict == "fail"]
    if len(failed) < len(group):
        return failed
    tests = [set(failing(entry.evidence.output)) for entry in failed]
    alone = (not _alike(mine, tests[:n] + tests[n + 1 :]) for n, mine in enumerate(tests))
    return [entry for entry, lonely in zip(failed, alone, strict=True) if lonely and len(failed) > 1]


def _by_time(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.evidence.at)
