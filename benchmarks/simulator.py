"""A merge queue in virtual time: changes that arrive by chance, a gate with slots, and strategies that use it.

Ours is :class:`Train`: the very functions of ``refinery/train.py`` that the Refinery calls, with trees, verdicts and
time made up here. The others are what one would use instead. The world, not the strategy, knows which change is bad,
and refuses what must never be: main is always green, in order, and nothing lands or is sent back twice.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, Protocol

from refinery.gate import Verdict
from refinery.train import BATCH_MAX, Line, Plan, failure_rate, plan

SEEN = 2 * BATCH_MAX
"""How much of the queue a strategy is shown; none looks further ahead."""


@dataclass(frozen=True)
class Trace:
    """What happens whatever the strategy does.

    Attributes:
        arrivals: when each change asks to land, in ascending order; a change is known by its place here.
        bad: those that fail the gate wherever they are.
        pairs: for a change, the earlier ones that it does not go together with, though each is good.
        spread: the sigma of the lognormal duration of a run, whose median is 1; 0 makes every run take 1.
        flakes: how likely a run fails for nothing.
        seed: decides durations and flakes, so that strategies meet the same ones.
    """

    arrivals: Sequence[float]
    bad: frozenset[int]
    pairs: dict[int, frozenset[int]] = field(default_factory=dict)
    spread: float = 0.0
    flakes: float = 0.0
    seed: int = 0


def poisson(load: float, rate: float, amount: int, seed: int, pairs: float = 0.0, **more: float) -> Trace:
    """Changes that arrive independently, ``load`` of them in the time of a run.

    Args:
        load: arrivals per unit of time.
        rate: how likely a change is bad.
        amount: how many arrive.
        seed: of all chance in it.
        pairs: how likely a change does not go together with one of the ten before it.
        more: ``spread`` and ``flakes``.
    """
    chance, now, arrivals = Random(seed), 0.0, []
    for _ in range(amount):
        now += chance.expovariate(load)
        arrivals.append(now)
    bad = frozenset(number for number in range(amount) if chance.random() < rate)
    rivals = {n: frozenset([n - chance.randint(1, min(n, 10))]) for n in range(1, amount) if chance.random() < pairs}
    return Trace(arrivals, bad, rivals, seed=seed, **more)


def backlog(rate: float, failures: int, seed: int, flakes: float = 0.0) -> Trace:
    """Changes that all wait from the beginning, of which ``failures`` are bad, one in ``1 / rate``.

    The runs of good changes between them have each quantile of their distribution once, in an order that the seed
    decides, so that averages are near what they would be in the long run.
    """
    quantiles = [(rank + 0.5) / failures for rank in range(failures)]
    gaps = [math.floor(math.log1p(-share) / math.log1p(-rate)) for share in quantiles]
    Random(seed).shuffle(gaps)
    bad, at = [], -1
    for gap in gaps:
        at += gap + 1
        bad.append(at)
    return Trace([0.0] * (at + 1), frozenset(bad), flakes=flakes, seed=seed)


class Run(NamedTuple):
    """How a run ended, and the how-manieth of all it was to do so."""

    nth: int
    verdict: Verdict


class Strategy(Protocol):
    """Decides what to do with a world, whenever something has happened in it."""

    def act(self, world: World) -> None:
        """Land, reject and test until there is nothing to do but to wait."""
        ...


@dataclass
class World:
    """The queue, main and the gate. A tree is named by a number that follows from the set of its changes.

    Attributes:
        trace: what happens.
        now: the time.
        queue: the changes that wait, in the order in which they came.
        landed: those on main, in the order in which they landed.
        rejected: those that were sent back.
        started: how many runs were started.
        repeated: how many of these were of a tree that had been run before.
        took: how long each change waited for its end.
        main: main's tree.
        log: the runs of each tree that have ended.
        ended: how many these are.
    """

    trace: Trace
    now: float = 0.0
    queue: list[int] = field(default_factory=list)
    landed: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    started: int = 0
    repeated: int = 0
    took: dict[int, float] = field(default_factory=dict)
    main: int = 0
    log: dict[int, list[Run]] = field(default_factory=lambda: defaultdict(list))
    ended: int = 0

    def __post_init__(self) -> None:
        chance = Random(self.trace.seed)
        self._codes = [chance.getrandbits(64) for _ in self.trace.arrivals]
        self._on_main: set[int] = set()
        self._red: dict[int, bool] = {0: False}
        self.log[self.main].append(Run(0, "pass"))
        self._running: dict[int, float] = {}
        self._arrived = self._passed = 0

    @property
    def running(self) -> set[int]:
        """The trees being tested."""
        return set(self._running)

    def tree(self, base: int, changes: Iterable[int]) -> int:
        """The tree of ``base`` with these merged."""
        for change in changes:
            base ^= self._codes[change]
        return base

    def trees(self, changes: Sequence[int]) -> list[int]:
        """Main's tree, and those of main with the first, the first two, … of these."""
        found = [self.main]
        for change in changes:
            found.append(found[-1] ^ self._codes[change])
        return found

    def verdict(self, tree: int) -> Verdict | None:
        """What the last run of a tree said."""
        return self.log[tree][-1].verdict if tree in self.log else None

    def since(self, nth: int) -> list[Verdict]:
        """What has been said of main since the ``nth`` run ended, or else that something has passed."""
        own = [run.verdict for run in self.log.get(self.main, ()) if run.nth > nth]
        return own or ["pass"] * (self._passed > nth)

    def test(self, tree: int, changes: Sequence[int]) -> None:
        """Start a run of the tree that main with these changes is."""
        if tree in self._running:
            raise RuntimeError(f"a run of {changes} is going on already")
        again = len(self.log.get(tree, ()))
        self.started, self.repeated = self.started + 1, self.repeated + bool(again or tree == self.main)
        self._judge(tree, changes)
        spread = self.trace.spread
        took = math.exp(spread * Random(f"{self.trace.seed} {tree} {again}").gauss(0, 1)) if spread else 1.0
        self._running[tree] = self.now + took

    def grant(self, tree: int, changes: Sequence[int]) -> None:
        """Tell the truth about a tree at once, at no cost."""
        self._judge(tree, changes)
        self._end(tree, "fail" if self._red[tree] else "pass")

    def cancel(self, trees: Iterable[int]) -> None:
        """End these runs without a verdict."""
        for tree in trees:
            del self._running[tree]

    def land(self, changes: Sequence[int]) -> None:
        """Main is now the tree with these changes, which has passed; they are the first of the queue."""
        tree = self.tree(self.main, changes)
        if self._red.get(tree, True) or "pass" not in [run.verdict for run in self.log[tree]]:
            raise RuntimeError(f"main would be red, or untested, with {changes}")
        if self.queue[: len(changes)] != list(changes):
            raise RuntimeError(f"{changes} would overtake others of {self.queue[:9]}")
        self.main = tree
        self._on_main.update(changes)
        self.landed += changes
        self._leave(changes)

    def reject(self, change: int) -> None:
        """Send a change back."""
        self.rejected.append(change)
        self._leave([change])

    def run(self, strategy: Strategy) -> None:
        """Let everything happen, until all changes have landed or were sent back.

        Raises:
            RuntimeError: the strategy did what it must not, or nothing although changes wait.
        """
        arrivals = self.trace.arrivals
        while self._arrived < len(arrivals) or self.queue:
            due = [*self._running.values(), *arrivals[self._arrived : self._arrived + 1]]
            if not due:
                raise RuntimeError(f"nothing is done for {self.queue[:9]}")
            self.now = min(due)
            for tree in [tree for tree, at in self._running.items() if at <= self.now]:
                del self._running[tree]
                flake = Random(f"{self.trace.seed} {tree} {len(self.log[tree])} flake").random() < self.trace.flakes
                self._end(tree, "fail" if self._red[tree] or flake else "pass")
            while self._arrived < len(arrivals) and arrivals[self._arrived] <= self.now:
                self.queue.append(self._arrived)
                self._arrived += 1
            strategy.act(self)

    def _judge(self, tree: int, changes: Sequence[int]) -> None:
        """Settle the truth of a tree: it is red with a bad change, or two that do not go together."""
        if tree not in self._red:
            held = set(changes)
            self._red[tree] = not held.isdisjoint(self.trace.bad) or any(
                rival in held or rival in self._on_main for n in changes for rival in self.trace.pairs.get(n, ())
            )

    def _end(self, tree: int, verdict: Verdict) -> None:
        self.ended += 1
        self.log[tree].append(Run(self.ended, verdict))
        self._passed = self.ended if verdict == "pass" else self._passed

    def _leave(self, changes: Iterable[int]) -> None:
        for change in changes:
            if change in self.took:
                raise RuntimeError(f"change {change} ends twice")
            self.took[change] = self.now - self.trace.arrivals[change]
            self.queue.remove(change)


@dataclass
class Train:
    """Ours.

    Attributes:
        slots: how many runs may go on at once.
        rate: the failure rate it believes in; None: what it measures, as the Refinery does.
        granted: whether repetitions and controls cost nothing, as if one failure were enough to convict.
        halts: how often main failed twice, for nothing, and a person started it again.
    """

    slots: int = 1
    rate: float | None = None
    granted: bool = False
    halts: int = 0
    _outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=3000))
    _mended: int = 0

    def act(self, world: World) -> None:
        """Do what the plan says."""
        while True:
            rate = failure_rate(self._outcomes) if self.rate is None else self.rate
            decided = plan(self._line(world, world.queue[:SEEN]), self.slots, rate)
            if decided.halt:
                self._mend(world, decided.halt)
            elif decided.land:
                self._outcomes += [False] * decided.land
                world.land(world.queue[: decided.land])
            elif decided.convict:
                self._outcomes.append(True)
                world.reject(world.queue[0])
            elif not self._test(world, decided):
                return

    def _line(self, world: World, changes: Sequence[int]) -> Line:
        trees, running = world.trees(changes), world.running
        known = {k: world.log[tree] for k, tree in enumerate(trees) if tree in world.log}
        return Line(
            n=len(changes),
            runs={k: [run.verdict for run in seen] for k, seen in known.items()},
            controls={k: said for k, seen in known.items() if k and (said := self._control(world, seen[0]))},
            running=[k for k, tree in enumerate(trees) if tree in running],
            without=lambda k: self._line(world, [*changes[: k - 1], *changes[k:]]),
        )

    def _control(self, world: World, run: Run) -> list[Verdict]:
        return ["pass"] if self.granted else world.since(max(run.nth, self._mended))

    def _mend(self, world: World, why: str) -> None:
        """Be the person who looks at main, finds it green and starts the Refinery again."""
        if self._mended == world.ended:
            raise RuntimeError(f"the queue stays halted: {why}")
        self.halts, self._mended = self.halts + 1, world.ended

    def _test(self, world: World, decided: Plan) -> bool:
        """Run what the plan wants and nothing else; whether a verdict is there already."""
        wanted: dict[int, list[int]] = {}
        for without, k in decided.tests():
            changes = world.queue[:SEEN]
            for place in without:
                del changes[place - 1]
            wanted[world.tree(world.main, changes[:k])] = changes[:k]
        if len(wanted) > self.slots:
            raise RuntimeError(f"{len(wanted)} runs in {self.slots} slots")
        world.cancel(world.running - wanted.keys())
        free = [tree for tree in wanted if tree in world.log or tree == world.main] if self.granted else []
        for tree in free:
            world.grant(tree, wanted[tree])
        if free:
            return True
        for tree in wanted.keys() - world.running:
            world.test(tree, wanted[tree])
        return False


@dataclass
class Batches:
    """Bors: test a batch; when it fails, halve it and test both halves, each on the main of its time. In one slot.

    Attributes:
        size: the most changes in a batch; 1 is a queue that tests one after the other.
        careful: whether a failure has to be repeated before a change is sent back.
        control: whether something has to pass after the first failure as well, main if nothing else does; as for us.
    """

    size: int = 1
    careful: bool = False
    control: bool = False
    _waiting: list[list[int]] = field(default_factory=list)
    _testing: int | None = None
    _suspected: int | None = None
    _controlling: bool = False

    def act(self, world: World) -> None:
        """Take up what the run said, and start the next one."""
        if world.running:
            return
        if self._testing is not None and self._testing != world.main:
            self._settle(world, self._waiting.pop(0), self._testing, world.verdict(self._testing) == "pass")
        elif self._testing is not None:
            world.reject(self._waiting.pop(0)[0])
        self._testing = None
        if not self._waiting and world.queue:
            self._waiting.append(world.queue[: self.size])
        if self._waiting:
            # What is known of a tree does not count: bors asks again.
            changes = [] if self._controlling else self._waiting[0]
            self._controlling = False
            self._testing = world.tree(world.main, changes)
            world.test(self._testing, changes)

    def _settle(self, world: World, batch: list[int], tree: int, passed: bool) -> None:
        half = len(batch) // 2
        if passed:
            world.land(batch)
        elif half:
            self._waiting[:0] = [batch[:half], batch[half:]]
        elif self.careful and self._suspected != batch[0]:
            self._suspected = batch[0]
            self._waiting[:0] = [batch]
        elif self.control and "pass" not in world.since(world.log[tree][-2].nth):
            self._controlling = True
            self._waiting[:0] = [batch]
        else:
            world.reject(batch[0])


@dataclass
class Window:
    """Zuul: each of the first changes is tested on those before it, except on those that failed.

    Attributes:
        slots: how many changes are in the window.
        careful: whether a failure has to be repeated before a change is sent back.
        control: whether something has to pass after the first failure as well, main if nothing else does; as for us.
    """

    slots: int = 1
    careful: bool = False
    control: bool = False

    def act(self, world: World) -> None:
        """Settle the head as long as its run has ended, then test the window."""
        wanted: dict[int, list[int]] = {}
        while world.queue and (head := self._verdict(world, world.queue[:1])):
            if head == "pass":
                world.land(world.queue[:1])
            elif self.control and "pass" not in world.since(self._runs(world, world.queue[:1])[0].nth):
                wanted[world.main] = []
                break
            else:
                world.reject(world.queue[0])
        ahead: list[int] = []
        for change in world.queue[: self.slots]:
            changes = [*ahead, change]
            tree = world.tree(world.main, changes)
            if self._verdict(world, changes) is None:
                wanted[tree] = changes
            if world.verdict(tree) != "fail":
                ahead = changes
        world.cancel(world.running - wanted.keys())
        for tree in wanted.keys() - world.running:
            world.test(tree, wanted[tree])

    def _verdict(self, world: World, changes: list[int]) -> Verdict | None:
        verdicts = [run.verdict for run in self._runs(world, changes)]
        if "pass" in verdicts:
            return "pass"
        return "fail" if len(verdicts) > self.careful else None

    def _runs(self, world: World, changes: list[int]) -> list[Run]:
        return world.log.get(world.tree(world.main, changes), [])


@dataclass
class Oracle:
    """Knows what is bad: one run of all the good ones lands them, and sends the bad ones back by the way.

    Attributes:
        slots: how many runs may go on at once.
    """

    slots: int = 1
    _batches: list[tuple[int, list[int]]] = field(default_factory=list)

    def act(self, world: World) -> None:
        """End those whose run has ended, and start one with all that wait."""
        for tree, batch in [b for b in self._batches if b[0] not in world.running]:
            self._batches.remove((tree, batch))
            good = [change for change in batch if change not in world.trace.bad]
            for change in set(batch) - set(good):
                world.reject(change)
            if good:
                world.land(good)
        under = {change for _, batch in self._batches for change in batch}
        fresh = [change for change in world.queue if change not in under]
        if fresh and len(world.running) < self.slots:
            before = [change for _, batch in self._batches for change in batch]
            good = [change for change in [*before, *fresh] if change not in world.trace.bad]
            tree = world.tree(world.main, good)
            # Without a good one among them it is any run of one of them that takes as long.
            changes = good if good and tree not in world.running else [fresh[0]]
            tree = world.tree(world.main, changes)
            world.test(tree, changes)
            self._batches.append((tree, fresh))


def simulate(trace: Trace, strategy: Strategy) -> World:
    """What comes of a strategy.

    Raises:
        RuntimeError: it broke a promise: something bad on main, out of order, twice, or never ended.
    """
    world = World(trace)
    world.run(strategy)
    if sorted(world.landed + world.rejected) != list(range(len(trace.arrivals))):
        raise RuntimeError("not everything has ended")
    if world.landed != sorted(world.landed):
        raise RuntimeError("something landed out of order")
    return world
