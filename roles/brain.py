"""What finds the Mayor's answers, as the Mayor sees it: it is asked a question, and gives an answer that can be used.

There are two: :mod:`roles.model_brain` and :mod:`roles.agent_brain`. Neither can change anything. What they say is read
as a :class:`roles.reply.Reply`, looked at by the Mayor's own code, and asked for again with what is wrong with it, a
few times; then it is given up with a clear word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from beads.errors import Unreadable
from beads.model import Usage
from roles.events import Began, Event, Used
from roles.prompts import cut
from roles.reply import Reply

REFUSALS_MAX = 4
"""How many answers to one question are sent back because they cannot be used."""

_SAID_MAX = 600


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
class Tally:
    """What an answer takes, from what is told while it is looked for.

    Attributes:
        tell: told each event.
        model: the model that answers.
        used: what it has used so far.
    """

    tell: Callable[[Event], None]
    model: str = ""
    used: Used = field(default_factory=Used)

    def hear(self, event: Event) -> None:
        """Take note of an event, and pass it on."""
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
        """What it has taken."""
        return Took(self.model, self.used.usage, self.used.worth(lambda _: None))


def given_up(why: str, said: str, took: Took) -> NoAnswer:
    """That no answer came: how it ended, what was said of it, and what it took."""
    hint = "What you said is kept: when that is mended, `town mayor --continue` asks again."
    return NoAnswer(f"no answer that can be used: {why}: {' '.join(cut(said, _SAID_MAX).split())}", hint, took)
