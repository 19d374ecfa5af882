"""Which prefixes of the queue to test next, what to land, whom to convict: a pure decision.

The queue is a list of requests; its prefix ``k`` is main with the first ``k`` of them merged, and prefix 0 is
main itself. Only prefixes are ever tested, so that every green one is a state that main may take as it is. Testing
two halves apart and landing both would not do: two changes can be green alone and red together.

One slot makes this prefix bisection: test a batch; if it is red, search for the smallest red prefix, landing every
green one on the way. Its tests are the bits of a Golomb code for the lengths of the runs of good requests (Golomb,
"Run-length encodings", IEEE Trans. Inf. Theory 12, 1966): while failures are independent and fewer than three in
ten, within one per cent of what any scheme can reach, not counting repetitions. More slots test several prefixes
at once: all of them while the queue is short, a spaced train above, and a search in as many parts as slots allow.

Four rules decide what runs mean:

* A prefix with one passed run is green and lands, whatever else failed. Green before or after a failure means a
  flaky test (:func:`flaky`). A failure below a green prefix is absorbed: what lands is the whole prefix as one
  state of main, and that state passed.
* Land first, convict later. Landing costs milliseconds, lets good work go at once, and makes main itself the
  control: "red on main as it is, while main is green". Only the head of the queue is ever convicted.
* Only the run that convicts is repeated, together with its control. Two failures of the head and a pass of main
  convict. Main that fails (twice, because it may be flaky too) halts the queue and convicts nobody.
* A run that could not judge (``error``: a time-out, exit 126 or 127, no tests) convicts nobody. It is repeated
  once, then main is tried: if main can be judged, a search finds the request that makes the difference and the
  queue halts there, naming it; if not, it halts at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refinery.gate import Verdict

BATCH_MAX = 128
"""The most requests in one candidate; above, a wrong guess of the failure rate costs more than tests."""

RATE_MIN, RATE_MAX = 0.001, 0.9
"""What failure rates are clamped to."""

MAIN_FAILS = "main itself fails the gate"
MAIN_ERRS = "the gate cannot judge main itself"
HEAD_ERRS = "the gate can judge main, but not the first request in the queue on top of it"


@dataclass(frozen=True)
class Plan:
    """What to do now. The caller does it and asks again; nothing is remembered between two plans.

    Attributes:
        land: the length of the prefix to land now; 0 for none. Land it, build the stack anew on the new main, and
            ask again: verdicts of trees that are the same as before stay valid.
        test: the prefixes that should be running now, most valuable first, no more than there are slots. What runs
            and is not here is to be stopped, what is here and does not run is to be started, even if it has a
            verdict already: then it is a repetition. 0 is main, run as the control of ``trial``.
        trial: the prefix whose guilt is being looked into; a verdict of a control belongs to it. 0 for none.
        convict: the first request of the queue is guilty: send it back.
        halt: why nothing can be decided without a person; empty when something can. The tests in ``test`` may
            still help, namely when they are of a request that repairs main. With ``trial`` 1 it is the first
            request that cannot be judged, and setting it aside would let the others go on.
    """

    land: int = 0
    test: tuple[int, ...] = ()
    trial: int = 0
    convict: bool = False
    halt: str = ""


def plan(
    n: int,
    runs: Mapping[int, Sequence[Verdict]],
    controls: Mapping[int, Sequence[Verdict]],
    running: Collection[int],
    slots: int,
    rate: float,
) -> Plan:
    """Decide what to do with a queue of ``n`` requests.

    Whoever calls keys verdicts by tree, gate and environment, and gives none under another key. To try again
    after a halt, leave out the ``error`` verdicts, or all verdicts of main, from before.

    Args:
        n: how many requests are stacked on main.
        runs: the verdicts known of each prefix, 0 to ``n``; of main all of them, those of controls too.
        controls: for a prefix, the verdicts of main that were run as its control.
        running: the prefixes being tested at the moment.
        slots: how many may run at the same time, at least 1.
        rate: how likely a request fails on its base, see :func:`failure_rate`.
    """
    green = max((k for k, seen in runs.items() if 0 < k <= n and "pass" in seen), default=0)
    alive = sorted(k for k in set(running) if green < k <= n)
    if n == 0 or green:
        return Plan(land=green, test=tuple(alive))
    main = _settled(runs.get(0, ()))
    if main in ("fail", "error"):
        return _repair(n, runs, alive, slots, main)
    stop = min((k for k, seen in runs.items() if 0 < k <= n and _stops(seen)), default=0)
    if not stop:
        return Plan(test=_widen(n, alive, slots, rate))
    verdict = _settled(runs[stop])
    if stop == 1 or verdict == "error":
        judged = _judge(stop, verdict, _settled(controls.get(stop, ())), alive, slots)
        if judged is not None:
            return judged
    return Plan(test=_narrow(stop, alive, slots, rate))


def batch_size(rate: float) -> int:
    """How many requests to test at once in one slot when each fails with probability ``rate``.

    The parameter of the optimal Golomb code, about ``ln 2 / rate``: the smallest m with q^m + q^(m+1) <= 1 for
    q = 1 - rate (Gallager and Van Voorhis, "Optimal source codes for geometrically distributed integer alphabets",
    IEEE Trans. Inf. Theory 21, 1975); at most :data:`BATCH_MAX`.
    """
    q = 1 - _clamped(rate)
    return max(1, min(BATCH_MAX, math.ceil(math.log1p(q) / -math.log(q) - 1e-9)))


def horizon(slots: int, rate: float) -> int:
    """The longest prefix worth testing: a batch in one slot, a train of one candidate per slot in several.

    The spacing of the train is the one that resolves most requests per round, counting the rounds of the search
    after a failure; at most :data:`BATCH_MAX` requests, but never less than ``slots``.
    """
    if slots == 1:
        return batch_size(rate)
    spacings = range(1, max(1, BATCH_MAX // slots) + 1)
    return slots * max(spacings, key=lambda spacing: _capacity(slots, spacing, 1 - _clamped(rate)))


def failure_rate(outcomes: Iterable[bool]) -> float:
    """How likely the next request fails, given what became of earlier ones.

    Args:
        outcomes: for each request that was decided, oldest first, whether it was convicted. The last 200 count.

    Returns:
        The mean of the posterior, between 0 and 1. The prior is worth ten requests of which one failed, so that an
        empty history gives 0.1.
    """
    recent = deque(outcomes, maxlen=200)
    return (1 + sum(recent)) / (10 + len(recent))


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


def _judge(stop: int, verdict: Verdict | None, control: Verdict | None, alive: list[int], slots: int) -> Plan | None:
    """The trial of prefix ``stop``: repeat it next to its control, then decide. None: search below it."""
    if control in ("fail", "error"):
        return Plan(halt=MAIN_FAILS if control == "fail" else MAIN_ERRS)
    wanted = [stop] * (verdict is None) + [0] * (control is None)
    if wanted:
        # Whatever ran above is likely refuted, but if this was a flake it is not: it may use slots nobody needs.
        test = dict.fromkeys([*wanted, *alive])
        return Plan(test=tuple(test)[:slots], trial=stop)
    if stop > 1:
        return None
    return Plan(convict=True, trial=1) if verdict == "fail" else Plan(halt=HEAD_ERRS, trial=1)


def _repair(n: int, runs: Mapping[int, Sequence[Verdict]], alive: list[int], slots: int, main: Verdict) -> Plan:
    """Main is bad: nobody can be convicted, but a request that repairs it must get through.

    It does from the head of the queue, and from anywhere if all the others are good.
    """
    # While nothing can be judged, once is enough. A longer queue is no reason to start over: requests may come
    # faster than tests end.
    errors = 0 if main == "error" else 1
    tried = {k: runs.get(k, ()) for k in [*(alive or [n]), 1]}
    wanted = [k for k, seen in tried.items() if _settled(seen) is None and seen.count("error") <= errors]
    return Plan(test=tuple(wanted[:slots]), halt=MAIN_FAILS if main == "fail" else MAIN_ERRS)


def _widen(n: int, alive: list[int], slots: int, rate: float) -> tuple[int, ...]:
    """No failure is known: go on with what runs, reach the horizon, then spread what is left over the gaps."""
    test = alive[:slots]
    top = min(n, horizon(slots, rate))
    if len(test) < slots and top > max(alive, default=0):
        test.append(top)
    # Evenly: a part that is too long takes one more round of the search, wherever it is.
    return (*test, *_spread(sorted({0, *test}), slots - len(test), RATE_MIN))


def _narrow(stop: int, alive: list[int], slots: int, rate: float) -> tuple[int, ...]:
    """The smallest red prefix is ``stop`` or below: go on with what runs below it, and spread what is left."""
    below = [k for k in alive if k < stop][:slots]
    test = [*below, *_spread([0, *below, stop], slots - len(below), rate)]
    return tuple(dict.fromkeys([*test, *alive]))[:slots]


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


def _capacity(slots: int, spacing: int, q: float) -> float:
    """Requests resolved per round by a saturated train, its searches included."""
    reach = 1 - q ** (slots * spacing)
    rounds, parts = 0, 1
    while parts < spacing:
        rounds, parts = rounds + 1, parts * (slots + 1)
    return reach / (1 - q) / (1 + reach * rounds)


def _clamped(rate: float) -> float:
    return min(max(rate, RATE_MIN), RATE_MAX)
