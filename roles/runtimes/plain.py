"""The ``plain`` runtime: any coding-agent command line that takes a prompt and edits files where it is started."""

from __future__ import annotations

from collections.abc import Iterable

from refinery.processes import Exit
from roles.events import Ended, Event
from roles.runtimes.trouble import ending_of
from roles.settings import Agent
from roles.task import Launch, Order, Runtime

PLACE = "{prompt}"
MODEL = "{model}"


def launch(order: Order) -> Launch:
    """The configured program, with the prompt of one attempt."""
    return started(order.agent, order.prompt)


def started(agent: Agent, prompt: str) -> Launch:
    """The configured program; the prompt replaces an argument that is exactly ``{prompt}``, else it is on stdin.

    An argument that is exactly ``{model}`` is replaced by the model. Both are data: one argument or one stream, never
    part of a shell line.
    """
    command = [agent.model if part == MODEL else part for part in (*agent.command, *agent.arguments)]
    if PLACE in command:
        return Launch([prompt if part == PLACE else part for part in command])
    return Launch(command, prompt)


class Silent:
    """Reads programs that say nothing of themselves: how they end is all there is."""

    def read(self, line: str) -> Iterable[Event]:
        """Nothing: it may mean anything."""
        del line
        return ()

    def end(self, exit: Exit) -> Iterable[Event]:
        """How it ended, by its exit status."""
        return (Ended(ending_of(exit)),)


def silent(order: Order) -> Silent:
    """The reader for programs that say nothing of themselves."""
    del order
    return Silent()


RUNTIME = Runtime("plain", launch, silent)
