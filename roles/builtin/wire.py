"""What the built-in agent's process is asked; what it tells is the events themselves, a line each."""

from __future__ import annotations

from pydantic import Field

from beads.model import Fact
from roles.settings import Prices


class Named(Fact):
    """A model, as LiteLLM names it, and the address of its server; empty for where its provider has it."""

    name: str
    api_base: str = ""


class Request(Fact):
    """One run of the built-in agent.

    Attributes:
        session: the name of the conversation.
        trajectory: the file that keeps it.
        resume: whether to go on with what is in that file.
        prompt: what it is told.
        directory: the work tree.
        scratch: a directory of this run's own.
        models: the one to ask, and those to ask when it does not answer.
        window: tokens that a conversation may have; None for what is known of the model.
        steps: how often a model may be asked.
        budget: US dollars.
        prices: what tokens cost where LiteLLM does not know it.
        tokens: sent and generated together.
        seconds: how long it may take.
        keys: names of variables that are for asking the model, and that no command sees.
    """

    session: str
    trajectory: str
    resume: bool = False
    prompt: str
    directory: str
    scratch: str
    models: tuple[Named, ...] = Field(min_length=1)
    window: int | None = None
    steps: int
    budget: float | None = None
    prices: Prices | None = None
    tokens: int | None = None
    seconds: float
    keys: tuple[str, ...] = ()
