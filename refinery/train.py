"""Which prefixes of the queue to test next, what to land, whom to convict: a pure decision.

The queue is a list of requests; its prefix ``k`` is main with the first ``k`` of them merged, and prefix 0 is
main itself. Only prefixes are ever tested, so that every green one is a state that main may take as it is. Testing
two halves apart and landing both would not do: two changes can be green alone and red together.

One slot makes this prefix bisection: test a batch; if it is red, search for the smallest red prefix, landing every
green one on the way. Its tests are the bits of a Golomb code for the lengths of the runs of good requests (Golomb,
"Run-length encodings", IEEE Trans. Inf. Theory 12, 1966): while failures are independent and fewer than three in
ten, within one per cent of what any scheme can reach, not counting repetitions. More slots test several prefixes
at once: all of them while the queue is short, a spaced train above, and a search in as many parts as slots allow.

Once it is clear whose fault a failure is, if it is anybody's, the queue without that request is a queue of its own:
its prefixes are tested with the slots that are left (:attr:`Plan.then`), so that nobody waits for a conviction.
Nothing of it lands before the conviction.

Four rules decide what runs mean:

* A prefix with one passed run is green and lands, whatever else failed. Green before or after a failure means a
  flaky test (:func:`flaky`). A failure below a green prefix is absorbed: what lands is the whole prefix as one
  state of main, and that state passed.
* Land first, convict later. Landing costs milliseconds, lets good work go at once, and makes main itself the
  control: "red on main as it is, while main is green". Only the head of the queue is ever convicted.
* Only the run that convicts is repeated, together with its control. Two failures of the head convict, when main is
  known to be green and the gate has passed something after the first of them: main with others of the queue, which
  brings the queue forward, or else main once more. Main that fails (twice, because it may be flaky too) halts the
  queue and convicts nobody.
* A run that could not judge (``error``: a time-out, exit 126 or 127, no tests) convicts nobody. It is repeated
  once, then main is tried: if main can be judged, a search finds the request that makes the difference and the
  queue halts there, naming it; if not, it halts at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refinery.gate import Verdict

BATCH_MAX = 128
"""The most requests in one candidate; above, a wrong guess of the failure rate costs more than tests."""

FORGET = 1 - 1 / 500
"""How much the outcome of a request counts of what the one after it does, when the failure rate is measured."""

RATE_MIN, RATE_MAX = 0.001, 0.9
"""What failure rates are clamped to."""

PATIENCE = 3
"""How many more in turn fail in a long queue, until main is run to see whether it is to blame."""

MAIN_FAILS = "main itself fails the gate"
MAIN_ERRS = "the gate cannot judge main itself"
HEAD_ERRS = "the gate can judge main, but not the first request in the queue on top of it"


@dataclass(frozen=True)
class Line:
    """A queue, or what is left of one, and what is known of its prefixes.

    Whoever makes one keys verdicts by tree, gate and environment, and gives none under another key. To try again
    after a halt, leave out the ``error`` verdicts, or all verdicts of main, from before.

    Attributes:
        n: how many requests are stacked on main.
        runs: the verdicts known of each prefix, 0 to ``n``, oldest first; of main all of them, those of controls too.
        controls: for a prefix, what shows whether its failures are its own: the verdicts of main that were run for
            that, and every pass of anything that came after its first run that did not pass.
        running: the prefixes being tested at the moment.
        without: the line without its ``k``-th request. Its prefixes below ``k`` are the same trees as here.
    """

    n: int
    runs: Mapping[int, Sequence[Verdict]] = field(default_factory=dict)
    controls: Mapping[int, Sequence[Verdict]] = field(default_factory=dict)
    running: Collection[int] = ()
    without: Callable[[int], Line] | None = None

    def less(self, k: int, testing: Iterable[int] = ()) -> Line:
        """The line without its ``k``-th request, where the prefixes ``testing`` below it are running as well."""
        rest = self.without(k) if self.without else Line(0)
        return replace(rest, running={*rest.running, *(prefix for prefix in testing if 0 < prefix < k)})

    @property
    def green(self) -> int:
        """The longest prefix that has passed; 0 for none."""
        return max((k for k, seen in self.runs.items() if 0 < k <= self.n and "pass" in seen), default=0)

    @property
    def stop(self) -> int:
        """The shortest prefix above the green ones that failed or cannot be judged; 0 for none."""
        return min((k for k, seen in self.runs.items() if self.green < k <= self.n and _stops(seen)), default=0)

    @property
    def alive(self) -> list[int]:
        """The prefixes above the green ones that are being tested."""
        return sorted(k for k in set(self.running) if self.green < k <= self.n)


@dataclass(frozen=True)
class Plan:
    """What to do now. The caller does it and asks again; nothing is remembered between two plans.

    Attributes:
        land: the length of the prefix to land now; 0 for none. Land it, build the stack anew on the new main, and
            ask again: verdicts of trees that are the same as before stay valid.
        test: the prefixes that should be running now, most valuable first. What runs and is in no test is to be
            stopped, what is here and does not run is to be started, even if it has a verdict already: then it is a
            repetition. 0 is main, run as the control of ``trial``. With those of ``then`` they are no more trees
            than there are slots.
        trial: the prefix whose guilt is being looked into; a verdict of a control belongs to it. 0 for none.
        convict: the first request of the queue is guilty: send it back.
        halt: why nothing can be decided without a person; empty when something can. The tests in ``test`` may
            still help, namely when they are of a request that repairs main. With ``trial`` 1 it is the first
            request that cannot be judged, and setting it aside would let the others go on.
        doubt: the request that ``then`` leaves out; 0 for none.
        then: what to test of the line without that request. Only its ``test`` and ``then`` are to be followed.
    """

    land: int = 0
    test: tuple[int, ...] = ()
    trial: int = 0
    convict: bool = False
    halt: str = ""
    doubt: int = 0
    then: Plan | None = None

    def tests(self) -> list[tuple[tuple[int, ...], int]]:
        """Every tree to be tested, once: whom its line leaves out, by their places in what is left, and the prefix."""
        return list(dict.fromkeys(self._tests(())))

    def _tests(self, without: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
        for k in self.test:
            # A prefix that ends before those who are left out is one of the line that still has them.
            kept = without
            while kept and k < kept[-1]:
                kept = kept[:-1]
            yield kept, k
        if self.then is not None:
            yield from self.then._tests((*without, self.doubt))


def plan(line: Line, slots: int, rate: float) -> Plan:
    """Decide what to do with a queue.

    Args:
        line: the queue.
        slots: how many tests may run at the same time, at least 1.
        rate: how likely a request fails on its base, see :func:`failure_rate`.
    """
    if line.n == 0 or line.green:
        return Plan(land=line.green, test=tuple(line.alive))
    main = _settled(line.runs.get(0, ()))
    if main in ("fail", "error"):
        return _repair(line, slots, main)
    stop = line.stop
    control = _settled(line.controls.get(stop, ()))
    if stop and _settled(line.runs[stop]) == "error":
        if control != "pass":
            return _control(line, stop, control, slots)
        if stop == 1:
            return Plan(halt=HEAD_ERRS, trial=1)
    if stop == 1:
        return _try(line, control, slots, rate)
    return _search(line, slots, slots, rate)


def batch_size(rate: float) -> int:
    """How many requests to test at once in one slot when each fails with probability ``rate``.

    The parameter of the optimal Golomb code, about ``ln 2 / rate``: the smallest m with q^m + q^(m+1) <= 1 for
    q = 1 - rate (Gallager and Van Voorhis, "Optimal source codes for geometrically distributed integer alphabets",
    IEEE Trans. Inf. Theory 21, 1975); at most :data:`BATCH_MAX`.
    """
    q = 1 - _clamped(rate)
    return max(1, min(BATCH_MAX, math.ceil(math.log1p(q) / -math.log(q) - 1e-9)))


def horizon(slots: int, rate: float, later: int = 0) -> int:
    """The longest prefix worth testing: a batch in one slot, a train of one candidate per slot in several.

    The spacing of the train is the smallest of those that resolve about the most requests per round, counting the
    rounds of the search after a failure; at most :data:`BATCH_MAX` requests, but never less than ``slots``.

    Args:
        slots: how many candidates are tested now.
        rate: how likely a request fails.
        later: how many are in a round of the search, if that is not the same.
    """
    later = later or slots
    if later == 1:
        return batch_size(rate)
    # Who repeats a failure meanwhile has a slot less, which must not make a train of what is none.
    return slots * (1 if _spacing(later, later, rate) == 1 else _spacing(slots, later, rate))


def failure_rate(outcomes: Iterable[bool]) -> float:
    """How likely the next request fails, given what became of earlier ones.

    Args:
        outcomes: for each request that was decided, oldest first, whether it was convicted. Each counts a little less
            than the next one, so that five hundred have most of the weight.

    Returns:
        The mean of the posterior, between 0 and 1. The prior is worth ten requests of which one failed, so that an
        empty history gives 0.1.
    """
    failed = decided = 0.0
    for convicted in outcomes:
        failed, decided = failed * FORGET + convicted, decided * FORGET + 1
    return (1 + failed) / (10 + decided)


def flaky(verdicts: Sequence[Verdict]) -> bool:
    """Whether the verdicts of one tree contradict each other: it passed and failed under one gate."""
    return "pass" in verdicts and "fail" in verdicts


def _settled(verdicts: Sequence[Verdict]) -> Verdict | None:
    """What the verdicts of one tree amount to: one pass, or else two alike; None while that is open."""
    if "pass" in verdicts:
        return "pass"
    if verdicts.count("fail") >= 2:
        return "fail"
    return "error" if verdicts.count("error") >= 2 else None


def _stops(verdicts: Sequence[Verdict]) -> bool:
    """Whether a prefix with these verdicts bounds the search: it failed, or cannot be judged."""
    return "pass" not in verdicts and ("fail" in verdicts or verdicts.count("error") >= 2)


def _control(line: Line, stop: int, control: Verdict | None, slots: int) -> Plan:
    """Prefix ``stop`` cannot be judged: see whether main can."""
    if control is not None:
        return Plan(halt=MAIN_FAILS if control == "fail" else MAIN_ERRS)
    return Plan(test=tuple(dict.fromkeys([0, *line.alive]))[:slots], trial=stop)


def _try(line: Line, control: Verdict | None, slots: int, rate: float) -> Plan:
    """The head of the queue has failed: repeat that, have it controlled, and go on with the others meanwhile."""
    if control in ("fail", "error"):
        return Plan(halt=MAIN_FAILS if control == "fail" else MAIN_ERRS)
    proven, green = _settled(line.runs[1]) == "fail", "pass" in line.runs.get(0, ())
    if proven and green and control == "pass":
        return Plan(convict=True, trial=1)
    rest, again = line.less(1), [] if proven else [1]
    then = _search(rest, slots - len(again), slots, rate)
    # A pass of the others is a control that brings the queue forward; but it says nothing about main, which one of
    # them may repair, and it is not to be had when none is to be tested or one after the other fails as well.
    # While the queue is short, a run more costs nothing, and waiting does.
    others = 1 if line.n <= 2 * slots else PATIENCE
    missed = not then.tests() or 0 in line.running or (proven and (1 in line.controls or _hopeless(rest, others)))
    if not green or (control is None and missed):
        again = [*again, 0][:slots]
        then = _search(rest, slots - len(again), slots, rate)
    return _beside(line, again, 1, then, slots, trial=1)


def _hopeless(line: Line, others: int) -> bool:
    """Whether the first of what is left has failed, and of the line without it as well, so many in turn."""
    for _ in range(others):
        if line.stop != 1:
            return False
        line = line.less(1)
    return True


def _repair(line: Line, slots: int, main: Verdict) -> Plan:
    """Main is bad: nobody can be convicted, but a request that repairs it must get through.

    It does from the head of the queue, and from anywhere if all the others are good.
    """
    # While nothing can be judged, once is enough. A longer queue is no reason to start over: requests may come
    # faster than tests end.
    errors = 0 if main == "error" else 1
    tried = {k: line.runs.get(k, ()) for k in [*(line.alive or [line.n]), 1]}
    wanted = [k for k, seen in tried.items() if _settled(seen) is None and seen.count("error") <= errors]
    return Plan(test=tuple(wanted[:slots]), halt=MAIN_FAILS if main == "fail" else MAIN_ERRS)


def _search(line: Line, slots: int, later: int, rate: float) -> Plan:
    """What to test above the longest green prefix, to find the first bad request; later in more slots than now."""
    if slots < 1 or line.n == 0:
        return Plan()
    if not line.stop:
        return Plan(test=_widen(line, slots, horizon(slots, rate, later)))
    below = [k for k in line.alive if k < line.stop][:slots]
    test = below + _spread([line.green, *below, line.stop], slots - len(below), rate)
    if line.stop - 1 not in (line.green, *test):
        return _beside(line, test, 0, Plan(), slots)
    # If those before it are good, and each is being tested, then it is this one.
    again = _settled(line.runs[line.stop]) is None and len(test) < slots
    test += [line.stop] * again
    rest = line.less(line.stop, test)
    hidden = sum(k <= rest.green for k in test)
    return _beside(line, test, line.stop, _search(rest, slots - again - hidden, later, rate), slots)


def _beside(line: Line, test: list[int], doubt: int, then: Plan, slots: int, trial: int = 0) -> Plan:
    """The plan that tests these and what is in ``then``, if that is anything."""
    made = Plan(test=tuple(test), trial=trial)
    both = replace(made, doubt=doubt, then=then)
    made = both if len(both.tests()) > len(test) else made
    # What runs above is likely refuted, but if this was a flake it is not: it may use slots that nobody needs.
    spare = [k for k in line.alive if k not in test][: max(0, slots - len(made.tests()))]
    return replace(made, test=(*made.test, *spare))


def _widen(line: Line, slots: int, reach: int) -> tuple[int, ...]:
    """No failure is known: go on with what runs, reach the horizon, then spread what is left over the gaps."""
    test = line.alive[:slots]
    top = min(line.n, line.green + reach)
    if len(test) < slots and top > max(test, default=line.green):
        test.append(top)
    # Evenly: a part that is too long takes one more round of the search, wherever it is.
    return (*test, *_spread(sorted({line.green, *test}), slots - len(test), RATE_MIN))


def _spread(points: list[int], count: int, rate: float) -> list[int]:
    """Up to ``count`` prefixes between ``points`` that make the likeliest part for the first failure unlikely."""
    gaps = list(pairwise(points))
    parts = dict.fromkeys(gaps, 1)
    q = 1 - _clamped(rate)
    for _ in range(count):
        roomy = [gap for gap in gaps if parts[gap] < gap[1] - gap[0]]
        if not roomy:
            break
        parts[max(roomy, key=lambda gap: (q ** gap[0] - q ** gap[1]) / parts[gap])] += 1
    return [cut for gap in gaps for cut in _cuts(*gap, parts[gap], q)]


def _cuts(low: int, high: int, parts: int, q: float) -> list[int]:
    """Cut ``low``..``high`` into parts that are equally likely to hold the first failure, none of them empty."""
    size, cuts = high - low, [0]
    for j in range(1, parts):
        share = j / parts * (1 - q**size)
        exact = math.log1p(-share) / math.log(q)
        cuts.append(min(max(round(exact), cuts[-1] + 1), size - (parts - j)))
    return [low + cut for cut in cuts[1:]]


def _spacing(slots: int, later: int, rate: float) -> int:
    q = 1 - _clamped(rate)
    capacities = [_capacity(slots, later, spacing, q) for spacing in range(1, max(1, BATCH_MAX // slots) + 1)]
    return next(n for n, found in enumerate(capacities, start=1) if found >= 0.97 * max(capacities))


def _capacity(slots: int, later: int, spacing: int, q: float) -> float:
    """Requests resolved per round by a saturated train, its searches included."""
    reach = 1 - q ** (slots * spacing)
    rounds, parts = 0, 1
    while parts < spacing:
        rounds, parts = rounds + 1, parts * (later + 1)
    return reach / (1 - q) / (1 + reach * rounds)


def _clamped(rate: float) -> float:
    return min(max(rate, RATE_MIN), RATE_MAX)
