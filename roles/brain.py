"""What finds the Mayor's answers: a model that LiteLLM reaches, or the program of an agent. Neither changes anything.

A model has tools that only look, see :mod:`roles.study`. A program runs in the sandbox, on a work tree of main that it
can only read. What either says is read as a :class:`roles.reply.Reply`, looked at by the Mayor's own code, and asked
for again with what is wrong with it, a few times; then it is given up with a clear word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from beads.clock import Clock
from beads.errors import InvalidInput, Unreadable
from beads.model import Fact, Usage
from refinery.redaction import Secrets
from roles import llm, status
from roles.builtin import tools
from roles.builtin.agent import Agent
from roles.builtin.talk import Call, Entry, Talker
from roles.builtin.tools import ROOM_MAX, Result
from roles.builtin.trajectory import Trajectory
from roles.builtin.wire import Named, Request
from roles.events import Began, Ended, Event, Used
from roles.llm import LiteTalker
from roles.prompts import cut
from roles.prompts import mayor as words
from roles.reply import Reply
from roles.runtimes.builtin import models_of
from roles.settings import Agent as RuntimeAgent
from roles.settings import MayorTable
from roles.site import Site
from roles.study import LOOKS, Study

REFUSALS_MAX = 4
"""How many answers in a row are sent back because they cannot be used."""

_SAID_MAX = 600

ANSWER = "answer"
"""The tool that ends a model's looking around."""


@dataclass(frozen=True)
class Question:
    """What the Mayor wants to know.

    Attributes:
        key: a name for it that is the same when it is asked again after a crash.
        prompt: all that is to be known, but for how to answer.
        check: what is wrong with an answer, in words for whoever gave it; empty when it can be used.
    """

    key: str
    prompt: Callable[[str], str]
    check: Callable[[Reply], str]


@dataclass(frozen=True)
class Took:
    """What finding an answer took, as far as it is known.

    Attributes:
        model: the one that was asked last.
        usage: tokens.
        cost: US dollars.
    """

    model: str = ""
    usage: Usage | None = None
    cost: float | None = None


class NoAnswer(Unreadable):
    """No answer came that can be used.

    Args:
        message: why.
        hint: what to do next.
        took: what trying took.
    """

    def __init__(self, message: str, hint: str, took: Took) -> None:
        super().__init__(message, hint)
        self.took = took


class Brain(Protocol):
    """Finds answers."""

    def think(self, question: Question, tell: Callable[[Event], None]) -> tuple[Reply, Took]:
        """The answer to a question, and what it took.

        Args:
            question: what is asked.
            tell: told each event as it comes.

        Raises:
            NoAnswer: none came that can be used.
        """
        ...


@dataclass
class _Tally:
    """Adds up what an answer takes from what is told while it is looked for."""

    tell: Callable[[Event], None]
    model: str = ""
    used: Used = field(default_factory=Used)

    def hear(self, event: Event) -> None:
        match event:
            case Began(model=model):
                self.model = model or self.model
            case Used():
                self.used = event
            case _:
                pass
        self.tell(event)

    @property
    def took(self) -> Took:
        return Took(self.model, self.used.usage, self.used.worth(lambda _: None))


@dataclass(frozen=True)
class ModelBrain:
    """A model, or several that are asked one after the other when one does not answer.

    Attributes:
        talkers: the models.
        table: the limits of one answer.
        study: what they can look at.
        home: where a conversation is kept while an answer is looked for.
        secrets: what must not be in it.
        clock: what measures the time.
    """

    talkers: Sequence[Talker]
    table: MayorTable
    study: Study
    home: Path
    secrets: Secrets
    clock: Clock

    def think(self, question: Question, tell: Callable[[Event], None]) -> tuple[Reply, Took]:
        """As :class:`Brain` has it. A question that was being answered when we were killed is gone on with."""
        path = self.home / f"{question.key}.jsonl"
        begun = path.exists() and path.stat().st_size > 0
        tally, desk = _Tally(tell), Desk(self.study, question.check)
        request = Request(
            session=question.key,
            trajectory=str(path),
            resume=begun,
            prompt=words.GO_ON if begun else question.prompt(words.HOW_WITH_TOOLS),
            directory="",
            scratch="",
            models=tuple(Named(name=talker.name) for talker in self.talkers),
            steps=self.table.steps,
            budget=self.table.budget,
            prices=self.table.prices,
            tokens=self.table.tokens,
            seconds=self.table.timeout,
        )
        trajectory = Trajectory(path, self.secrets)
        ended = Agent(request, self.talkers, trajectory, desk, self.clock, tally.hear).run()
        if ended.ending not in ("quota", "provider_unavailable"):
            # What is over is over: asked again, it begins afresh.
            path.unlink(missing_ok=True)
        if ended.ending != "finished":
            hint = "What was said is kept; say it again, or differently, when that is mended."
            said = " ".join(cut(ended.text, _SAID_MAX).split())
            raise NoAnswer(f"no answer that can be used: {ended.ending}: {said}", hint, tally.took)
        return Reply.model_validate_json(ended.text), tally.took


def model_brain(site: Site) -> ModelBrain:
    """The brain that ``[mayor] model`` names.

    Raises:
        NotFound: there is no main branch to look at.
    """
    table = site.settings.mayor
    asked = RuntimeAgent(runtime="builtin", model=table.model, models=table.models, api_base=table.api_base)
    talkers = [LiteTalker(model.name, site.clock, model.api_base, table.window) for model in models_of(asked)]
    study = Study(
        git=site.git,
        commit=site.main_head(),
        view=site.store.snapshot,
        town=lambda: status.in_words(site.store.snapshot(), site.settings, site.clock.now()),
        now=site.clock.now,
        room=ROOM_MAX,
    )
    return ModelBrain(talkers, table, study, site.store.directory / "mayor", site.secrets, site.clock)


@dataclass
class Desk:
    """The tools of the Mayor's model: those that look, and the one that answers.

    Attributes:
        study: what looks.
        check: what is wrong with an answer; empty when it can be used.
    """

    study: Study
    check: Callable[[Reply], str]
    _refused: int = 0
    system: ClassVar[str] = words.system()

    def opening(self, prompt: str, most: int) -> str:
        """The question."""
        # Two thirds of the window, at about three characters a token, so that there is room to look around.
        return cut(prompt, 2 * most)

    def described(self) -> list[Entry]:
        """The tools, as a model is told of them."""
        return tools.described(_TOOLS)

    def read(self, call: Call) -> Fact:
        """What it wants; raises as :func:`roles.builtin.tools.read` does."""
        return tools.read(call, _TOOLS)

    def do(self, wish: Fact, seconds: float) -> Result:
        """Look, or take the answer as far as it can be used."""
        del seconds
        if not isinstance(wish, Reply):
            return self.study.look(wish)
        problem = self.check(wish)
        self._refused += bool(problem)
        return Result(words.AGAIN.format(problem=problem), ok=False) if problem else Result("Noted.")

    def end(self, wish: Fact, result: Result) -> Ended | None:
        """It ends with an answer that can be used, or with too many that cannot."""
        if not isinstance(wish, Reply):
            return None
        if result.ok:
            return Ended("finished", wish.model_dump_json())
        return Ended("stuck", result.text.splitlines()[0]) if self._refused >= REFUSALS_MAX else None

    def heard(self, text: str) -> Ended | str:
        """Plain words are an answer; what looks like a structure is read as one."""
        try:
            found = llm.read(text, Reply) if _is_structure(text) else Reply(say=text)
        except (InvalidInput, ValueError) as error:
            return words.AGAIN.format(problem=getattr(error, "message", "it is empty, or too long"))
        result = self.do(found, 0.0)
        return self.end(found, result) or result.text


_TOOLS: dict[str, type[Fact]] = {**LOOKS, ANSWER: Reply}


def _is_structure(text: str) -> bool:
    """Whether an answer is meant to be more than words."""
    return text.lstrip().startswith(("{", "```")) or '"say"' in text
