"""mini-swe-agent: a loop around a shell. What it did, used and came to is in a file that it writes after each step.

It ends well, too, when it ran into a limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import after, failed
from roles.task import Launch, Order, Runtime

_STEP = re.compile(r"^\s*mini-swe-agent \(step \d+")


def launch(order: Order) -> Launch:
    """The prompt is in a file of settings. Without a sandbox of ours its commands run in one of its own."""
    task = order.scratch / "task.yaml"
    argv = [
        *stream.program(order, "mini"),
        "--yolo",
        "--exit-immediately",
        f"--output={order.scratch / 'trajectory.json'}",
        "--config=mini.yaml",
        f"--config={task}",
        *([] if order.confined else ["--environment-class=bubblewrap"]),
        f"--cost-limit={order.budget or 0}",
        *stream.option("--model", order.agent.model),
        *order.agent.arguments,
    ]
    own = order.home / ".config" / "mini-swe-agent"
    environ = {
        **stream.housing(order.home),
        "MSWEA_GLOBAL_CONFIG_DIR": str(own),
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        # To it, a model without a price is an error.
        "MSWEA_COST_TRACKING": "ignore_errors",
        # Ten times take it ten minutes; the town waits better.
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "4",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # Its own way to show a traceback takes minutes.
        "TYPER_STANDARD_TRACEBACK": "1",
        "_TYPER_STANDARD_TRACEBACK": "1",
        "COLUMNS": "200",
    }
    # JSON is YAML, too, whatever is in it. Its own sandbox would show the work tree only where it is named.
    settings = {"run": {"task": order.prompt}, "environment": {"cwd": str(order.directory)}}
    return Launch(argv, "", environ, {task: json.dumps(settings)})


@dataclass
class Reader:
    """Reads what it prints for people, and what it wrote after a step, whenever it says that there is another one.

    Attributes:
        order: the run that is read.
        words: what it printed last.
        said: what the model said last.
        seen: how many messages have been looked at for what was done.
    """

    order: Order
    words: list[str] = field(default_factory=list)
    said: str = ""
    seen: int = 0

    def read(self, line: str) -> Iterable[Event]:
        """One line."""
        line = stream.plain(line)
        self.words = [*self.words, line][-40:]
        if line.startswith("Retrying "):
            return [Troubled(line)]
        return list(self._used(self._kept())) if _STEP.match(line) else []

    def end(self, exit: Exit) -> Iterable[Event]:
        """How it ended, and what it used in all."""
        kept = self._kept()
        return [*self._used(kept), self._ended(kept, exit)]

    def _kept(self) -> Mapping[str, object]:
        return stream.parse(stream.read_file(self.order.scratch / "trajectory.json")) or {}

    def _used(self, kept: Mapping[str, object]) -> Iterator[Event]:
        """The sum over all answers; a price that it does not know is 0 to it."""
        usage, told = Usage(), False
        messages = stream.items(kept, "messages")
        for message in messages[self.seen :]:
            for action in stream.items(message, "extra.actions"):
                yield Acted("bash", stream.brief(action))
        self.seen = max(self.seen, len(messages))
        for message in messages:
            if found := stream.entries(message, "extra.response.usage"):
                usage, told = usage + _tokens(found), True
            said = stream.text(message, "content")
            if said and stream.text(message, "role") == "assistant":
                self.said = said
        if told:
            yield Began("", stream.text(kept, "info.config.model.model_name"))
            if self.said:
                yield Said(self.said)
            yield Used(usage, stream.money(kept, "info.model_stats.instance_cost") or None)

    def _ended(self, kept: Mapping[str, object], exit: Exit) -> Ended:
        status = stream.text(kept, "info.exit_status")
        last = stream.at(kept, "messages")
        wrong = stream.text(last[-1], "extra.exception_str") if isinstance(last, list) and last else ""
        match status:
            case "Submitted":
                return Ended("finished", stream.text(kept, "info.submission").strip() or self.said)
            case "LimitsExceeded" | "TimeExceeded":
                return Ended("limits", status)
            case "RepeatedFormatError":
                return Ended("stuck", status)
            case "" | "UserInterruption":
                return after(exit, "\n".join(self.words), self.order.present, self.said)
            case _:
                return failed(f"{status}: {wrong}", self.order.present)


def _tokens(found: object) -> Usage:
    cached = "prompt_tokens_details.cached_tokens"
    used = stream.usage(found, "prompt_tokens", cached, "cache_creation_input_tokens", "completion_tokens", apart=False)
    reasoning = stream.count(found, "completion_tokens_details.reasoning_tokens")
    return used.model_copy(update={"reasoning": reasoning})


RUNTIME = Runtime(
    "mini",
    launch,
    Reader,
    program="mini",
    environment=(
        *("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"),
        *("OPENROUTER_API_KEY", "OLLAMA_API_BASE", "MSWEA_MODEL_NAME", *stream.NET),
    ),
    tried="2.4.6",
    priced=True,
    website="https://mini-swe-agent.com",
)
