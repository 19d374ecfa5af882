"""OpenCode: ``opencode run --format json``. Tokens and costs come with each step; what was cached is not in the input.

It ends well, too, when it was not allowed to do something, and prints nothing while a provider does not answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import failed, known
from roles.task import Launch, Order, Runtime

_EDITING = dict.fromkeys(("read", "edit", "glob", "grep", "list", "todowrite", "todoread"), "allow")

FULL_MAX = 3
"""How often its context may be full in a row, before that is taken for the end."""

REFUSED_MAX = 5
"""How often a provider may refuse it in a row, before that is taken for the end: it would ask for ever."""

_REFUSED = re.compile(r'^timestamp=\S+ level=ERROR .*message="stream error" .*error="((?:[^"\\]|\\.)*)"')

# There is nothing to be had by asking again soon.
_SPENT = re.compile(r"quota|credit|billing|usage limit", re.IGNORECASE)

_QUIET = (
    *("AUTOUPDATE", "CLAUDE_CODE", "DEFAULT_PLUGINS", "EXTERNAL_SKILLS", "LSP_DOWNLOAD", "PROJECT_CONFIG", "SHARE"),
    *("TERMINAL_TITLE",),
)


def launch(order: Order) -> Launch:
    """The prompt is on standard input, and a title is given, as it would ask a model for one."""
    argv = [
        *stream.program(order, "opencode"),
        "run",
        "--format=json",
        "--pure",
        "--title=beadtown",
        # Else it says nothing while it asks a provider again and again that refuses it.
        "--print-logs",
        "--log-level=ERROR",
        *stream.option("--session", order.session if order.resume else ""),
        *stream.option("--model", order.agent.model),
        *order.agent.arguments,
    ]
    permission = {"*": "allow"} if order.confined else {"*": "deny", **_EDITING, "external_directory": "deny"}
    # Where it does not read the repository's settings, it does not read its instructions either.
    told = [str(order.directory / name) for name in ("AGENTS.md", "CLAUDE.md")]
    settings = {"autoupdate": False, "share": "disabled", "instructions": told}
    environ = {
        **stream.housing(order.home),
        **{f"OPENCODE_DISABLE_{what}": "1" for what in _QUIET},
        "OPENCODE_CONFIG_CONTENT": json.dumps(settings),
        "OPENCODE_PERMISSION": json.dumps(permission),
    }
    return Launch(argv, order.prompt, environ)


@dataclass
class Reader(stream.JsonReader):
    """Reads ``--format=json``.

    Attributes:
        usage: what all steps used so far.
        cost: what they cost; a price that it does not know is 0 to it.
        wrong: the last error, unless it has gone on since.
        full: how often it was told that its context is full, since it last did something.
        refused: how often it was refused, since it last got an answer.
    """

    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    wrong: Ended | None = None
    full: int = 0
    refused: int = 0

    def read(self, line: str) -> Iterable[Event]:
        """One line; among those of its log are the provider's refusals, after which it asks again by itself."""
        found = _REFUSED.search(line)
        return self._noted(self._refused(stream.plain(found[1]))) if found else super().read(line)

    def _refused(self, said: str) -> Iterator[Event]:
        yield Troubled(said)
        wrong = known(said, self.order.present)
        if wrong is not None and wrong.ending in ("quota", "provider_unavailable"):
            self.refused += 1
            if self.refused >= REFUSED_MAX or (wrong.ending == "quota" and _SPENT.search(said)):
                yield wrong

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        if not self.named:
            yield Began(stream.name(found, "sessionID"))
        match stream.text(found, "type"):
            case "text" if stream.at(found, "part.synthetic") is not True:
                self.said = stream.text(found, "part.text") or self.said
                yield Said(stream.text(found, "part.text"))
            case "tool_use":
                # It comes once, when the tool is done.
                use, state = stream.text(found, "part.callID"), stream.at(found, "part.state")
                self.full = 0
                self.began(use, stream.text(found, "part.tool"), stream.brief(stream.at(state, "input")))
                yield self.done(use, stream.text(state, "status") == "completed")
            case "step_finish":
                self.wrong, self.refused = None, 0
                self.usage += _tokens(stream.at(found, "part.tokens"))
                self.cost += stream.money(found, "part.cost") or 0.0
                yield Used(self.usage, self.cost or None)
            case "error":
                said = stream.text(found, "error.data.message") or stream.text(found, "error.name")
                status = stream.count(found, "error.data.statusCode") or None
                self.wrong = failed(said, self.order.present, status)
                yield Troubled(said)
                # It makes what it knows shorter and asks again, for ever, where that does not help.
                self.full += self.wrong.ending == "context_exhausted"
                if self.full >= FULL_MAX:
                    yield self.wrong
            case _:
                pass

    def end(self, exit: Exit) -> Iterable[Event]:
        """It does not say that it is through, but says what went wrong, also where its exit status does not."""
        events = super().end(exit)
        if self.wrong is None or exit.kind != "exited":
            return events
        return [*(event for event in events if not isinstance(event, Ended)), self.wrong]


def _tokens(tokens: object) -> Usage:
    used = stream.usage(tokens, "input", "cache.read", "cache.write", "output")
    thought = stream.count(tokens, "reasoning")
    # Whether reasoning is among the output has changed; the total has it once.
    total = stream.count(tokens, "total") - used.input
    output = total if total >= used.output else used.output + thought
    return used.model_copy(update={"output": output, "reasoning": min(thought, output)})


RUNTIME = Runtime(
    "opencode",
    launch,
    Reader,
    program="opencode",
    environment=(
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY"),
        *("OPENCODE_CONFIG", *stream.NET),
    ),
    credentials=(".local/share/opencode/auth.json",),
    resumes=True,
    at_terminal=("--session", "{session}"),
    tried="1.18.33",
    priced=True,
    website="https://opencode.ai",
)
