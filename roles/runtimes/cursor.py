"""Cursor's ``cursor-agent -p``. Written by its documentation: it needs an account, and has not been run for real.

It tells neither tokens nor costs, and a run that fails ends without a word of JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from roles.events import Began, Ended, Event, Said
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.task import Launch, Order, Runtime


def launch(order: Order) -> Launch:
    """The prompt is an argument. Without ``--force``, it only does what its settings allow: it edits files here."""
    prompt, files = stream.argument(order)
    argv = [
        *stream.program(order, "cursor-agent"),
        "-p",
        "--output-format=stream-json",
        "--trust",
        *(["--force"] if order.confined else []),
        *stream.option("--resume", order.session if order.resume else ""),
        *stream.option("--model", order.agent.model),
        *order.agent.arguments,
        prompt,
    ]
    return Launch(argv, "", stream.housing(order.home), files)


class Reader(stream.JsonReader):
    """Reads ``--output-format=stream-json``."""

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        match stream.text(found, "type"), stream.text(found, "subtype"):
            case "system", "init":
                yield Began(stream.name(found, "session_id"), stream.text(found, "model"))
            case "assistant", _:
                said = "".join(stream.text(part, "text") for part in stream.items(found, "message.content"))
                self.said = said or self.said
                yield Said(said)
            case "tool_call", subtype:
                yield from self._tool(found, subtype == "completed")
            case "result", "success" if stream.at(found, "is_error") is not True:
                yield Ended("finished", stream.text(found, "result") or self.said)
            case "result", subtype:
                yield failed(stream.text(found, "result") or subtype, self.order.present)
            case _:
                pass

    def _tool(self, found: Mapping[str, object], over: bool) -> Iterator[Event]:
        use = stream.text(found, "call_id")
        for kind, call in stream.entries(found, "tool_call").items():
            if over:
                yield self.done(use, "success" in stream.entries(call, "result"))
            else:
                yield self.began(use, kind.removesuffix("ToolCall"), stream.brief(stream.at(call, "args")))


RUNTIME = Runtime(
    "cursor",
    launch,
    Reader,
    program="cursor-agent",
    environment=("CURSOR_API_KEY", *stream.NET),
    credentials=(".config/cursor/auth.json",),
    resumes=True,
    at_terminal=("--resume", "{session}"),
    website="https://cursor.com/cli",
)
