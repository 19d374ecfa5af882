"""GitHub Copilot CLI. Tokens are only in a file that it writes at its end, and are those of the whole conversation.

Values of secret variables are masked in all that it prints, in the middle of words, too: a key of one letter would
make its lines unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from beads.model import Usage
from roles.events import Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.task import Launch, Order, Runtime

_USAGE = "copilot-usage.json"

_ALONE = (
    *("--output-format=json", "--stream=off", "--no-color", "--no-ask-user", "--no-auto-update", "--no-bash-env"),
    *("--no-remote", "--no-remote-export", "--no-experimental", "--disable-builtin-mcps", "--disable-client-telemetry"),
)


def launch(order: Order) -> Launch:
    """The prompt is on standard input. Without a sandbox of ours it may edit files, and run nothing."""
    argv = [
        *stream.program(order, "copilot"),
        *_ALONE,
        *(["--allow-all"] if order.confined else ["--allow-tool=write", "--deny-tool=shell", "--disallow-temp-dir"]),
        f"--usage-output-file={order.scratch / _USAGE}",
        *stream.option("--resume" if order.resume else "--session-id", order.session),
        *stream.option("--model", stream.bare(order.agent.model, "openai", "anthropic", "github_copilot")),
        *order.agent.arguments,
    ]
    return Launch(argv, order.prompt, {**stream.housing(order.home), "COPILOT_HOME": str(order.home / ".copilot")})


@dataclass
class Reader(stream.JsonReader):
    """Reads ``--output-format=json`` and the file with the usage.

    Attributes:
        wrong: the last error.
    """

    wrong: str = ""

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        match stream.text(found, "type"):
            case "session.tools_updated" if model := stream.text(found, "data.model"):
                # By now it has begun, under the name that it was given.
                yield Began(self.order.session, model)
            case "assistant.message" if said := stream.text(found, "data.content"):
                self.said = said
                yield Said(said)
            case "tool.execution_start":
                what = stream.brief(stream.at(found, "data.arguments"))
                yield self.began(stream.text(found, "data.toolCallId"), stream.text(found, "data.toolName"), what)
            case "tool.execution_complete":
                yield self.done(stream.text(found, "data.toolCallId"), stream.at(found, "data.success") is True)
            case "session.error" | "session.warning":
                self.wrong = stream.text(found, "data.message") or stream.text(found, "data.errorType") or self.wrong
                yield Troubled(self.wrong)
            case "result":
                yield Began(stream.name(found, "sessionId"))
                if stream.at(found, "exitCode") == 0:
                    yield Ended("finished", self.said)
                else:
                    yield failed(self.wrong or "\n".join(self.words), self.order.present)
            case _:
                pass

    def left(self) -> Iterator[Event]:
        """The usage, from its file."""
        kept = stream.parse(stream.read_file(self.order.scratch / _USAGE))
        models = stream.entries(kept, "modelMetrics").values()
        if models:
            yield Used(sum((_tokens(one) for one in models), Usage()).since(self.order.before))


def _tokens(model: object) -> Usage:
    names = ("usage.inputTokens", "usage.cacheReadTokens", "usage.cacheWriteTokens", "usage.outputTokens")
    used = stream.usage(model, *names, apart=False)
    return used.model_copy(update={"reasoning": min(stream.count(model, "usage.reasoningTokens"), used.output)})


RUNTIME = Runtime(
    "copilot",
    launch,
    Reader,
    program="copilot",
    environment=(
        *("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_MODEL", "COPILOT_OFFLINE"),
        *("COPILOT_PROVIDER_*", "GH_HOST", "COPILOT_GH_HOST", *stream.NET),
    ),
    credentials=(".copilot/config.json",),
    resumes=True,
    at_terminal=("--resume={session}",),
    chooses=True,
    tried="1.0.102",
    website="https://docs.github.com/copilot/how-tos/copilot-cli",
)
