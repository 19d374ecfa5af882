"""The ``jsonl`` runtime: any program that prints a JSON object a line; ``town.toml`` says what is where in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from beads.model import Usage
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.plain import started
from roles.runtimes.trouble import failed
from roles.settings import EventsTable, Mark
from roles.task import Launch, Order, Runtime

SESSION = "{session}"


def launch(order: Order) -> Launch:
    """The configured program, with what makes it go on with a conversation, where that is asked for.

    An argument that is exactly ``{session}`` is replaced by the conversation's name, as ``{prompt}`` and ``{model}``
    are by the prompt and the model. Without ``{prompt}``, the prompt is on standard input.
    """
    agent, events = order.agent, order.agent.events or EventsTable()
    command = (*agent.command, *agent.arguments, *(events.resume if order.resume else ()))
    named = tuple(order.session if part == SESSION else part for part in command)
    return started(agent.model_copy(update={"command": named, "arguments": ()}), order.prompt)


@dataclass
class Reader(stream.JsonReader):
    """Reads what ``[agents.NAME.events]`` says.

    Attributes:
        usage: what was used so far; None before anything was told of it.
        cost: what that cost.
    """

    usage: Usage | None = None
    cost: float | None = None

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        table = self.order.agent.events or EventsTable()
        session, model = _name(found, table.session), _text(found, table.model)
        if (session and not self.named) or model:
            yield Began(session, model)
        if tool := _text(found, table.tool):
            yield Acted(tool, stream.brief(stream.at(found, table.what)) if table.what else "")
        if said := _text(found, table.text):
            self.said = said
            yield Said(said)
        yield from self._used(found, table)
        if table.error and _holds(table.error, found):
            wrong = _text(found, table.error.text) or "it says that it failed"
            yield failed(wrong, self.order.present) if table.error.final else Troubled(wrong)
        elif table.done and _holds(table.done, found):
            yield Ended("finished", _text(found, table.done.text) or self.said)

    def _used(self, found: Mapping[str, object], table: EventsTable) -> Iterator[Used]:
        paths = (table.input, table.cached, table.written, table.output)
        told = any(path and isinstance(stream.at(found, path), int | float) for path in paths)
        cost = stream.money(found, table.cost) if table.cost else None
        if not told and cost is None:
            return
        if told:
            usage = stream.usage(found, *paths, apart=table.apart)
            if table.counts == "line" and self.usage is not None:
                usage += self.usage
            elif table.counts == "conversation" and self.order.resume:
                usage = usage.since(self.order.before)
            self.usage = usage
        if cost is not None:
            self.cost = cost + (self.cost or 0.0) if table.counts == "line" else cost
        yield Used(self.usage, self.cost if table.counts != "conversation" or not self.order.resume else None)


def _text(found: Mapping[str, object], path: str) -> str:
    return stream.text(found, path) if path else ""


def _name(found: Mapping[str, object], path: str) -> str:
    return stream.name(found, path) if path else ""


def _holds(mark: Mark, found: Mapping[str, object]) -> bool:
    value = stream.at(found, mark.at)
    if not mark.equals:
        return value is not None and value is not False
    # As they are written: in Python, 1 is True.
    return any(type(value) is type(wanted) and value == wanted for wanted in mark.equals)


RUNTIME = Runtime("jsonl", launch, Reader, resumes=True, priced=True)
