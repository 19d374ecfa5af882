"""goose: ``goose run``. Written by its documentation and source: it has not been run for real.

It tells how many tokens there are in its context, but not what was sent and generated: its use is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from roles.events import Began, Ended, Event, Said, Troubled
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.task import Launch, Order, Runtime


def launch(order: Order) -> Launch:
    """The prompt is on standard input. Its model is ``provider/model``.

    Without a sandbox of ours it asks before it does anything of consequence, and nobody is there to say yes: it has no
    way in between.
    """
    provider, _, model = order.agent.model.partition("/")
    argv = [
        *stream.program(order, "goose"),
        "run",
        "--instructions=-",
        "--output-format=stream-json",
        f"--name={order.session}",
        *(["--resume"] if order.resume else []),
        *order.agent.arguments,
    ]
    environ = {
        **stream.housing(order.home),
        "GOOSE_MODE": "auto" if order.confined else "smart_approve",
        "GOOSE_DISABLE_KEYRING": "1",
        **({"GOOSE_PROVIDER": provider, "GOOSE_MODEL": model} if model else {}),
    }
    return Launch(argv, order.prompt, environ)


class Reader(stream.JsonReader):
    """Reads ``--output-format=stream-json``."""

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        if not self.named:
            yield Began(self.order.session)
        match stream.text(found, "type"):
            case "message":
                for part in stream.items(found, "message.content"):
                    yield from self._part(part, stream.text(found, "message.role") == "assistant")
            case "model_change":
                yield Began("", stream.text(found, "model"))
            case "error":
                # It says so and goes on to `complete`, as if nothing had been.
                yield Troubled(stream.text(found, "error"))
                yield failed(stream.text(found, "error"), self.order.present)
            case "complete" if not self.over:
                yield Ended("finished", self.said)
            case _:
                pass

    def _part(self, part: object, own: bool) -> Iterator[Event]:
        use = stream.text(part, "id")
        match stream.text(part, "type"):
            case "text" if own:
                # A message comes in parts, each a line.
                self.said = stream.text(part, "text")
                yield Said(self.said)
            case "toolRequest":
                call = stream.at(part, "toolCall.value")
                yield self.began(use, stream.text(call, "name"), stream.brief(stream.at(call, "arguments")))
            case "toolResponse":
                yield self.done(use, stream.text(part, "toolResult.status") == "success")
            case _:
                pass


RUNTIME = Runtime(
    "goose",
    launch,
    Reader,
    program="goose",
    environment=(
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_HOST"),
        *("ANTHROPIC_HOST", "OPENAI_HOST", "GOOSE_PROVIDER", "GOOSE_MODEL", *stream.NET),
    ),
    credentials=(".config/goose/secrets.yaml", ".config/goose/config.yaml"),
    resumes=True,
    chooses=True,
    website="https://goose-docs.ai",
)
