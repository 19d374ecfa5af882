"""The built-in agent: a loop around one conversation, in a process that :mod:`roles.runtimes.builtin` starts.

The model wishes, :class:`.tools.Hands` does it, :class:`.trajectory.Trajectory` keeps it, and each limit is looked at
before a model is asked. What it says is a hint to the polecat; only criteria decide.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from beads.clock import Clock, SystemClock
from beads.errors import TownError
from beads.model import Usage
from refinery.sandbox import environment, secrets
from roles.builtin.circles import Step, stuck
from roles.builtin.talk import Call, NotServed, Talker, Turn
from roles.builtin.tools import QUIET, ROOM_MAX, Hands, Misused, Result, Tools, in_short
from roles.builtin.trajectory import Trajectory
from roles.builtin.wire import Request
from roles.builtin.words import CUT_OFF, HAND_OFF
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used, as_line
from roles.llm import LiteTalker
from roles.prices import price

PAUSES = (1.0, 5.0, 20.0)
"""Seconds after which a provider that is overloaded or cannot be reached is asked again."""

PATIENCE = 60.0
"""Seconds until a rate limit ends that are waited for; what takes longer ends the run."""

CALL_SECONDS = 600.0
"""How long one answer may take; a model on one's own machine can be slow."""

BUDGET_UNHELD = "what this model costs is not known, and no budget can be held: say its `prices`, or limit its `tokens`"


@dataclass
class Agent:
    """One run.

    Attributes:
        request: what it is about.
        talkers: the models, the first to ask first.
        trajectory: the conversation.
        tools: what the model can do.
        clock: what measures the time.
        tell: told each event as it comes.
    """

    request: Request
    talkers: Sequence[Talker]
    trajectory: Trajectory
    tools: Tools
    clock: Clock
    tell: Callable[[Event], None]
    _done: list[Step] = field(default_factory=list)
    _asked: int = 0
    _used: Usage = field(default_factory=Usage)
    _untold: bool = False
    _cost: float | None = 0.0
    _at: int = 0
    _mistakes: int = 0
    _began: float = 0.0
    _windows: dict[str, int] = field(default_factory=dict)

    def run(self) -> Ended:
        """Talk and do until it is over; how it ended."""
        self._began = self.clock.monotonic()
        self.tell(Began(self.request.session, self._talker.name))
        self._open()
        while True:
            if over := self._over() or stuck(self._done, self._mistakes):
                return over
            if not self._fits():
                return self._hand_off()
            try:
                turn = self._ask()
            except NotServed as error:
                if error.ending != "context_exhausted":
                    self.tell(self._sum())
                    return Ended(error.ending, error.message, error.until)
                # It has less room than we thought: what was just too much is now known to be.
                self._windows[self._talker.name] = int(self.trajectory.tokens(self._talker.name) * 0.9)
                continue
            if end := self._follow(turn):
                return end

    @property
    def _talker(self) -> Talker:
        return self.talkers[self._at]

    def _open(self) -> None:
        """Begin the conversation, or take it up where a run that may have been killed left it."""
        prompt = self.request.prompt
        if len(self.trajectory) == 0:
            self.trajectory.add({"role": "system", "content": self.tools.system})
            prompt = self.tools.opening(prompt, self._talker.window)
        self.trajectory.settle()
        self.trajectory.add({"role": "user", "content": prompt})

    def _over(self) -> Ended | None:
        """Whether one of the limits is reached: looked at before anything is spent (I9)."""
        request, total, spent = self.request, self._used.total, self._spent()
        if self._asked >= request.steps:
            return Ended("limits", f"stopped after {self._asked} steps, of {request.steps} allowed")
        if request.budget is not None and self._cost is not None and self._cost >= request.budget:
            return Ended("limits", f"stopped at ${self._cost:.4f}, with a budget of ${request.budget:.2f}")
        if request.tokens is not None and total >= request.tokens:
            return Ended("limits", f"stopped at {total} tokens, of {request.tokens} allowed")
        if spent >= request.seconds:
            return Ended("limits", f"stopped after {spent:.0f} s, of {request.seconds:.0f} allowed")
        return None

    def _spent(self) -> float:
        return self.clock.monotonic() - self._began

    def _fits(self) -> bool:
        talker = self._talker
        return self.trajectory.fit(self._windows.get(talker.name, talker.window), talker.name)

    def _ask(self) -> Turn:
        """What the model says; asked again where that may help, and the next one where it does not."""
        while True:
            try:
                return self._ask_one()
            except NotServed as error:
                if error.ending not in ("quota", "provider_unavailable") or self._at + 1 == len(self.talkers):
                    raise
                self.tell(Troubled(error.message))
            self._at += 1
            self.tell(Began(self.request.session, self._talker.name))
            self._fits()

    def _ask_one(self) -> Turn:
        for pause in (*PAUSES, None):
            left = self.request.seconds - self._spent()
            try:
                view = self.trajectory.view(self._talker.name)
                turn = self._talker.say(view, self.tools.described(), max(1.0, min(CALL_SECONDS, left)))
            except NotServed as error:
                wait = pause
                if error.ending == "quota":
                    wait = max(pause, self._until(error.until)) if error.until and pause else None
                elif error.ending != "provider_unavailable":
                    raise
                if wait is None or wait > min(PATIENCE, left):
                    raise
                self.tell(Troubled(error.message))
                self.clock.sleep(wait)
            else:
                self._count(turn)
                return turn
        raise AssertionError("the last try returns or raises")

    def _until(self, moment: datetime) -> float:
        return (moment - self.clock.now()).total_seconds()

    def _count(self, turn: Turn) -> None:
        """Add what an answer took, and keep the answer."""
        self._asked += 1
        if turn.usage:
            self._used += turn.usage
            self.trajectory.learn(self._talker.name, turn.usage.input)
        self._untold = self._untold or turn.usage is None
        cost = self._priced(turn)
        if self._cost is not None and cost is None and self.request.budget is not None:
            self.tell(Troubled(BUDGET_UNHELD))
        self._cost = None if self._cost is None or cost is None else self._cost + cost
        self.trajectory.add(turn.entry, self._talker.name)
        if turn.text:
            self.tell(Said(turn.text))
        self.tell(self._sum())

    def _priced(self, turn: Turn) -> float | None:
        """What an answer cost: what LiteLLM says, or by the prices that `town.toml` has where it does not know."""
        if turn.cost is None and turn.usage and self.request.prices:
            return price(self._talker.name, turn.usage, self.request.prices)
        return turn.cost

    def _sum(self) -> Used:
        return Used(None if self._untold else self._used, self._cost)

    def _follow(self, turn: Turn) -> Ended | None:
        """Do what the model wishes; how the run ended, if that was its last wish."""
        self._mistakes += 1
        end = None
        if not turn.calls:
            heard = CUT_OFF if turn.cut else self.tools.heard(turn.text)
            if isinstance(heard, Ended):
                return heard
            self.trajectory.add({"role": "user", "content": heard})
        for call in turn.calls:
            end = self._do(call) or end
        return end

    def _do(self, call: Call) -> Ended | None:
        try:
            wish = self.tools.read(call)
        except Misused as error:
            self._answer(call, Result(str(error), ok=False))
            return None
        self._mistakes = 0
        self.trajectory.begin(call.id)
        result = self.tools.do(wish, self.request.seconds - self._spent())
        self._answer(call, result)
        self.tell(Acted(call.tool, in_short(wish), result.ok))
        self._done.append(Step((call.tool, wish.model_dump_json()), result))
        return self.tools.end(wish, result)

    def _answer(self, call: Call, result: Result) -> None:
        self.trajectory.add({"role": "tool", "tool_call_id": call.id, "content": result.text})

    def _hand_off(self) -> Ended:
        """Ask for a note to whoever goes on, while there is still room for one."""
        self.trajectory.add({"role": "user", "content": HAND_OFF})
        try:
            note = self._ask_one().text
        except NotServed:
            note = ""
        self.trajectory.settle()
        return Ended("context_exhausted", note)


def main(environ: Mapping[str, str]) -> None:
    """The program: the request is on standard input, events go to standard output, a line each."""
    request, clock = Request.model_validate_json(sys.stdin.read()), SystemClock()
    plain, hidden = environment(environ, (), {}), secrets(environ, request.keys)

    def tell(event: Event) -> None:
        sys.stdout.write(hidden.text(as_line(event)) + "\n")
        sys.stdout.flush()

    try:
        path = Path(request.trajectory)
        if not request.resume:
            path.unlink(missing_ok=True)
        talkers = [LiteTalker(model.name, clock, model.api_base, request.window) for model in request.models]
        room = min(ROOM_MAX, talkers[0].window // 3)
        hands = Hands(Path(request.directory), Path(request.scratch), {**plain, **QUIET}, room, clock)
        tell(Agent(request, talkers, Trajectory(path, hidden), hands, clock, tell).run())
    except (TownError, OSError) as error:
        tell(Ended("environment", str(error)))
