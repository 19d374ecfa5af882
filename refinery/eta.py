"""When merge requests will have landed, as far as that can be known: what the strategy would do, played many times.

Nothing is assumed of how the queue behaves but what is measured: how long runs of the gate took, and how many
requests fail. The decisions are those of ``refinery/train.py``, so that what holds of the strategy, whatever the
number of slots, holds of the estimate. Who arrives later is left out, as they come behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from refinery.gate import Verdict
from refinery.train import Line, Plan, plan

PLACES_MAX = 40
"""For how many of the first requests an estimate is made; what is further behind depends on too much."""

PLAYED = 40
"""How often the queue is played."""

RUNS_MIN = 3
"""Of fewer runs of the gate than this it cannot be said how long one takes."""

_LOW, _HIGH = 0.1, 0.9
_SETTLED_MIN = 8


def landings(
    amount: int, seconds: Sequence[float], rate: float, slots: int, elapsed: float = 0.0
) -> list[tuple[float, float] | None]:
    """For each place of the queue in how many seconds from now its request lands, if it is good.

    Args:
        amount: how many requests are in the queue.
        seconds: how long runs of the gate took.
        rate: how likely a request fails.
        slots: how many runs may go on at once.
        elapsed: how long ago the run that goes on was begun.

    Returns:
        The earliest and the latest of eighty in a hundred outcomes; None where that cannot be said: nothing has been
        measured yet, the place is too far behind, or hardly anybody there lands.
    """
    if len(seconds) < RUNS_MIN or amount < 1:
        return [None] * amount
    played = min(amount, PLACES_MAX)
    found: list[list[float]] = [[] for _ in range(played)]
    for number in range(PLAYED):
        chance = Random(number)
        bad = frozenset(place for place in range(played) if chance.random() < rate)
        for place, at in _Play(played, bad, seconds, slots, rate, chance, elapsed).run().items():
            found[place].append(at)
    return [*map(_range, found), *[None] * (amount - played)]


def _range(times: list[float]) -> tuple[float, float] | None:
    if len(times) < _SETTLED_MIN:
        return None
    times.sort()
    return times[int(_LOW * len(times))], times[min(len(times) - 1, int(_HIGH * len(times)))]


@dataclass
class _Play:
    """One way in which it can go. A tree is the set of the requests in it, as the bits of a number.

    Attributes:
        amount: how many requests there are; each is known by its place.
        bad: those that fail.
        seconds: how long a run may take.
        slots: how many runs may go on at once.
        rate: the failure rate that the strategy goes by.
        chance: decides how long runs take.
        elapsed: for how long the first run has been going on.
    """

    amount: int
    bad: frozenset[int]
    seconds: Sequence[float]
    slots: int
    rate: float
    chance: Random
    elapsed: float
    _main: int = 0
    _now: float = 0.0
    _ended: int = 1
    _passed: int = 1
    _log: dict[int, list[tuple[int, Verdict]]] = field(default_factory=lambda: defaultdict(list))
    _running: dict[int, float] = field(default_factory=dict)

    def run(self) -> dict[int, float]:
        """When each request lands; those that are sent back are not in it."""
        queue, landed = list(range(self.amount)), dict[int, float]()
        # What is on main was tested.
        self._log[self._main].append((1, "pass"))
        while queue:
            decided = plan(self._line(queue), self.slots, self.rate)
            if decided.land:
                for place in queue[: decided.land]:
                    landed[place] = self._now
                    self._main |= 1 << place
                del queue[: decided.land]
            elif decided.convict:
                del queue[0]
            else:
                self._test(queue, decided)
                if not self._running:
                    break
                self._wait()
        return landed

    def _line(self, queue: Sequence[int]) -> Line:
        trees = [self._main]
        for place in queue:
            trees.append(trees[-1] | 1 << place)
        runs = {k: self._log[tree] for k, tree in enumerate(trees) if tree in self._log}
        return Line(
            n=len(queue),
            runs={k: [verdict for _, verdict in seen] for k, seen in runs.items()},
            controls={k: said for k, seen in runs.items() if k and (said := self._since(seen[0][0]))},
            running=[k for k, tree in enumerate(trees) if tree in self._running],
            without=lambda k: self._line([*queue[: k - 1], *queue[k:]]),
        )

    def _since(self, nth: int) -> list[Verdict]:
        """What was said of main since the ``nth`` run ended, or else that something has passed."""
        own = [verdict for at, verdict in self._log.get(self._main, ()) if at > nth]
        return own or ["pass"] * (self._passed > nth)

    def _test(self, queue: Sequence[int], decided: Plan) -> None:
        wanted: list[int] = []
        for without, k in decided.tests():
            left = list(queue)
            for place in without:
                del left[place - 1]
            wanted.append(self._main | sum(1 << place for place in left[:k]))
        self._running = {tree: at for tree, at in self._running.items() if tree in wanted}
        for tree in wanted:
            if tree not in self._running:
                took = self.chance.choice(self.seconds)
                # What has gone on for longer than any run before may end at any moment.
                self._running[tree] = self._now + max(took - self.elapsed, 0.0)
                self.elapsed = 0.0

    def _wait(self) -> None:
        """Until the next run ends."""
        tree = min(self._running, key=lambda tree: self._running[tree])
        self._now = self._running.pop(tree)
        self._ended += 1
        good = not any(tree >> place & 1 for place in self.bad)
        self._passed = self._ended if good else self._passed
        self._log[tree].append((self._ended, "pass" if good else "fail"))
