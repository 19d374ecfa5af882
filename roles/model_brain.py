"""A model as the Mayor's brain: it has tools that only look, see :mod:`roles.study`, and one that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from beads.clock import Clock
from beads.errors import InvalidInput, Unreadable
from beads.model import Fact
from refinery.redaction import Secrets
from roles import llm, status
from roles.brain import REFUSALS_MAX, Question, Tally, Took, given_up
from roles.builtin import tools
from roles.builtin.agent import Agent
from roles.builtin.talk import Call, Entry, Talker
from roles.builtin.tools import ROOM_MAX, Result
from roles.builtin.trajectory import Trajectory
from roles.builtin.wire import Named, Request
from roles.events import Ended, Event
from roles.llm import LiteTalker
from roles.prompts import QUOTE, cut
from roles.prompts import mayor as words
from roles.reply import Reply
from roles.runtimes.builtin import models_of
from roles.settings import MayorTable
from roles.site import Site
from roles.study import LOOKS, Study

ANSWER = "answer"
"""The tool that ends a model's looking around."""


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
        trajectory = self._trajectory(path)
        begun = len(trajectory) > 0
        tally, desk = Tally(tell), Desk(self.study, question.check)
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
        ended = Agent(request, self.talkers, trajectory, desk, self.clock, tally.hear).run()
        if ended.ending not in ("quota", "provider_unavailable"):
            # What is over is over: asked again, it begins afresh.
            path.unlink(missing_ok=True)
        if ended.ending != "finished":
            raise given_up(ended.ending, ended.text, tally.took)
        return Reply.model_validate_json(ended.text), tally.took

    def _trajectory(self, path: Path) -> Trajectory:
        """The conversation about a question as a run that was killed left it; an empty one when it cannot be used."""
        with suppress(Unreadable):
            found = Trajectory(path, self.secrets)
            if len(found) > 1:
                return found
        # Killed so early that the question is not in it, or damaged: nobody could go on with that.
        path.unlink(missing_ok=True)
        return Trajectory(path, self.secrets)


def model_brain(site: Site) -> ModelBrain:
    """The brain that ``[mayor] model`` names.

    Raises:
        NotFound: there is no main branch to look at.
    """
    table = site.settings.mayor
    talkers = [LiteTalker(model.name, site.clock, model.api_base, table.window) for model in models_of(table.asked())]
    study = Study(
        git=site.git,
        commit=site.main_head(),
        store=site.store,
        town=lambda: status.in_words(site.store.snapshot(), site.settings, site.clock.now()),
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
    _answered: bool = False
    system: ClassVar[str] = words.system()

    def opening(self, prompt: str, most: int) -> str:
        """The question."""
        # Two thirds of the window, at about three characters a token, so that there is room to look around.
        # What follows the cut may be the middle of a quoted line: as a line of its own it would be one of ours.
        return cut(prompt, 2 * most, QUOTE)

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
        if self._answered:
            # In one turn with the answer that was taken: what was found about that one is not to be lost.
            return Result("You have answered already.", ok=False)
        problem = self.check(wish)
        self._refused += bool(problem)
        self._answered = not problem
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
