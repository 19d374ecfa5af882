"""The ``builtin`` runtime: our own agent on any model that LiteLLM reaches, those of a local server included."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from uuid import UUID

from beads.errors import InvalidInput
from refinery.processes import Exit
from roles.builtin.wire import Named, Request
from roles.events import Ended, Event, as_event
from roles.llm import SURROUNDINGS
from roles.runtimes.trouble import ending_of
from roles.settings import Agent
from roles.task import Launch, Order, Runtime

SHARE = 0.95
"""Of the time an attempt has, what the agent takes, so that it ends by itself and says why."""

_PROGRAM = "import os; from roles.builtin.agent import main; main(os.environ)"


def launch(order: Order) -> Launch:
    """Our own program, with the request on its standard input; the conversation is a file in the molecule's home.

    Raises:
        InvalidInput: the session has a name that we have not given.
    """
    agent = order.agent
    try:
        session = str(UUID(order.session))
    except ValueError as error:
        raise InvalidInput(f"{order.session!r} is not the name of a conversation", "A UUID is.") from error
    request = Request(
        session=session,
        trajectory=str(order.home / "trajectories" / f"{session}.jsonl"),
        resume=order.resume,
        prompt=order.prompt,
        directory=str(order.directory),
        scratch=str(order.scratch),
        models=models_of(agent),
        window=agent.window,
        steps=agent.steps,
        budget=order.budget,
        prices=agent.prices,
        tokens=agent.tokens,
        seconds=agent.timeout * SHARE,
        keys=agent.environment or (),
    )
    return Launch([sys.executable, "-P", "-c", _PROGRAM], request.model_dump_json(), surroundings(agent))


def surroundings(agent: Agent) -> dict[str, str]:
    """What LiteLLM has to find in its environment to ask an agent's models.

    It asks Ollama what it knows of a model, and wherever it was told to ask, it does that at Ollama's own port.
    """
    local = agent.api_base and _provider(agent.model).startswith("ollama")
    return {**SURROUNDINGS, **({"OLLAMA_API_BASE": agent.api_base} if local else {})}


def models_of(agent: Agent) -> tuple[Named, ...]:
    """The models to ask; the address is that of the first one, and of others that the same provider is to have."""
    own = _provider(agent.model)
    names = dict.fromkeys((agent.model, *agent.models))
    return tuple(Named(name=n, api_base=agent.api_base if _provider(n) == own else "") for n in names)


def _provider(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


class Lines:
    """Reads the events that our program prints; what else is in its output is none."""

    def read(self, line: str) -> Iterable[Event]:
        """The event that the line is."""
        event = as_event(line)
        return () if event is None else (event,)

    def end(self, exit: Exit) -> Iterable[Event]:
        """How it ended without saying so: it was made to, or it has a bug."""
        ending = ending_of(exit)
        last = exit.output.strip().splitlines()[-1:] or [""]
        broken = ending == "finished"
        return (Ended("environment" if broken else ending, last[0][:500] if broken else ""),)


def reader(order: Order) -> Lines:
    """The reader for our own program."""
    return Lines()


RUNTIME = Runtime(
    "builtin",
    launch,
    reader,
    resumes=True,
    chooses=True,
    priced=True,
    website="https://docs.litellm.ai/docs/providers",
)
