"""Gemini CLI: JSON lines, and tokens of one run at its end. It tells no costs, and waits out an outage in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from beads.model import Ending
from roles.events import Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.runtimes.until import until
from roles.task import Launch, Order, Runtime

_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL")

# Its settings for a machine would stand over those of the repository, which it has to trust as a whole to be of any
# use; but they count only where root has written them.
_SETTINGS = {
    # Where another address is given, it takes that for a gateway's, which it refuses, unless it is told how to sign in.
    "security": {"auth": {"selectedType": "${GEMINI_DEFAULT_AUTH_TYPE:-gemini-api-key}"}},
    # It would try ten times, for minutes and in silence; the town waits better.
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False, "maxAttempts": 4},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "hooksConfig": {"enabled": False},
    "context": {"fileName": ["GEMINI.md", "AGENTS.md"]},
    # A file of the repository must not say where the key is sent.
    "advanced": {"excludedEnvVars": ["DEBUG", "DEBUG_MODE", *_KEYS]},
}


def launch(order: Order) -> Launch:
    """The prompt is on standard input. Without a sandbox of ours it may edit files, and run nothing."""
    settings = order.home / ".gemini" / "settings.json"
    argv = [
        *stream.program(order, "gemini"),
        "--output-format=stream-json",
        "--skip-trust",
        "--allowed-mcp-server-names=none",
        f"--approval-mode={'yolo' if order.confined else 'auto_edit'}",
        *stream.option("--resume" if order.resume else "--session-id", order.session),
        *stream.option("--model", stream.bare(order.agent.model, "gemini", "google", "vertex_ai")),
        *order.agent.arguments,
    ]
    environ = {
        **stream.housing(order.home),
        "GEMINI_CLI_HOME": str(order.home),
        "GEMINI_CLI_NO_RELAUNCH": "true",
    }
    return Launch(argv, order.prompt, environ, {settings: json.dumps(_SETTINGS)})


@dataclass
class Reader(stream.JsonReader):
    """Reads ``--output-format=stream-json``.

    Attributes:
        part: what of a message has come so far.
    """

    part: str = ""

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        kind = stream.text(found, "type")
        if kind == "message" and stream.text(found, "role") == "assistant":
            self.part += stream.text(found, "content")
            if stream.at(found, "delta") is True:
                return
        yield from self.left()
        match kind:
            case "init":
                yield Began(stream.name(found, "session_id"), stream.text(found, "model"))
            case "tool_use":
                what = stream.brief(stream.at(found, "parameters"))
                yield self.began(stream.text(found, "tool_id"), stream.text(found, "tool_name"), what)
            case "tool_result":
                yield self.done(stream.text(found, "tool_id"), stream.text(found, "status") == "success")
            case "error":
                yield Troubled(stream.text(found, "message"))
            case "result":
                yield from self._result(found)
            case _:
                pass

    def left(self) -> Iterator[Event]:
        """The message that has come in parts."""
        if self.part:
            self.said, self.part = self.part, ""
            yield Said(self.said)

    def _result(self, found: Mapping[str, object]) -> Iterator[Event]:
        if stream.entries(found, "stats"):
            used = stream.usage(stream.at(found, "stats"), "input_tokens", "cached", "", "output_tokens", apart=False)
            # What it thought is in the total alone.
            thought = max(0, stream.count(found, "stats.total_tokens") - used.total)
            yield Used(used.model_copy(update={"output": used.output + thought, "reasoning": thought}))
        if stream.text(found, "status") == "success":
            yield Ended("finished", self.said)
        else:
            kind, wrong = stream.text(found, "error.type"), stream.text(found, "error.message")
            ending: Ending | None = "limits" if "TurnLimit" in kind else None
            end = Ended(ending, wrong) if ending else failed(wrong or kind, self.order.present)
            # The moment at which a quota is over is only in what it writes beside its lines.
            beside = until("\n".join(self.words), self.order.present) if end.ending == "quota" else None
            yield replace(end, until=end.until or beside)


RUNTIME = Runtime(
    "gemini",
    launch,
    Reader,
    program="gemini",
    environment=(
        *_KEYS,
        *("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GEMINI_DEFAULT_AUTH_TYPE"),
        *stream.NET,
    ),
    credentials=(".gemini/oauth_creds.json", ".gemini/google_accounts.json"),
    resumes=True,
    at_terminal=("--resume", "{session}"),
    chooses=True,
    tried="0.61.0",
    website="https://geminicli.com",
)
