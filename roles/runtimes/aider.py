"""aider: edits files, runs nothing, prints text. What it used is in its log of events, which stays on the machine.

It ends well whatever happened, so that how it ended is read in its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Began, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import after, failed
from roles.task import Launch, Order, Runtime

_ALONE = (
    *("--yes-always", "--no-pretty", "--no-stream", "--no-fancy-input", "--no-detect-urls", "--no-notifications"),
    *("--no-check-update", "--no-show-release-notes", "--no-show-model-warnings", "--disable-playwright"),
    *(
        "--analytics-disable",
        "--no-suggest-shell-commands",
        "--no-auto-commits",
        "--no-dirty-commits",
        "--no-gitignore",
    ),
)

# Where Git does not know who it works for, aider writes "Your Name" into the settings of the repository.
_SOMEBODY = {
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "aider",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "aider@beadtown.invalid",
}

_TROUBLE = re.compile(r"litellm\.\w+(Error|Exception)\b|^The API provider|^Model .{1,200} has hit a token limit")

_HEADINGS = ("Aider v", "Main model:", "Model:", "Weak model:", "Git repo:", "Repo-map:", "Restored previous", "Added ")
"""What it prints before the model says anything."""

_WIDE = {"COLUMNS": "1000000"}
"""It breaks lines where a terminal ends, in the middle of a text in JSON as well, which a verdict or a plan then is no
more."""


def launch(order: Order) -> Launch:
    """The prompt is in a file. Its conversation is in one, too, which it reads again when it goes on with it."""
    prompt, own = order.scratch / "prompt.md", order.home / "aider"
    argv = [
        *stream.program(order, "aider"),
        *_ALONE,
        f"--message-file={prompt}",
        f"--analytics-log={order.scratch / 'aider-events.jsonl'}",
        f"--chat-history-file={own / f'{order.session}.md'}",
        f"--input-history-file={own / 'input'}",
        f"--config={own / 'settings.yml'}",
        f"--env-file={own / 'environment'}",
        *(["--restore-chat-history"] if order.resume else []),
        *stream.option("--model", order.agent.model),
        *order.agent.arguments,
    ]
    files = {prompt: order.prompt, own / "settings.yml": "check-update: false\n", own / "environment": ""}
    environ = {**stream.housing(order.home), **_SOMEBODY, **_WIDE, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if objects := _objects(order.directory):
        # It adds files that are new to Git's index before it writes them, and a sandbox lets nobody write in `.git`.
        environ |= {
            "GIT_INDEX_FILE": str(order.scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(order.scratch / "objects"),
        }
        files[order.scratch / "objects" / "info" / "alternates"] = f"{objects}\n"
    return Launch(argv, "", environ, files)


def _objects(directory: Path) -> Path | None:
    """Where the repository of a work tree has its objects; None where it is none."""
    told = stream.read_file(directory / ".git").removeprefix("gitdir: ").strip()
    here = directory / told if told else directory / ".git"
    common = here / (stream.read_file(here / "commondir").strip() or ".")
    return (common / "objects").resolve() if (common / "objects").is_dir() else None


@dataclass
class Reader:
    """Reads what aider prints for people, and its log of events.

    Attributes:
        order: the run that is read.
        block: what was printed since the last message was over.
        trouble: what went wrong since.
        said: what the model said last.
    """

    order: Order
    block: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    said: str = ""
    words: list[str] = field(default_factory=list)

    def read(self, line: str) -> Iterable[Event]:
        """One line. A message is over when it says how many tokens it took."""
        line = stream.plain(line)
        if line.startswith(_HEADINGS):
            self.block = []
            return [Began(self.order.session, self.order.agent.model)] if line.startswith(_HEADINGS[0]) else []
        if line.startswith("Tokens:"):
            self.said, self.block, self.trouble = "\n".join(self.block).strip() or self.said, [], []
            return [*([Said(self.said)] if self.said else []), *self._used()]
        if line.startswith("Retrying in "):
            # Its own patience: no word of the provider's.
            return [Troubled(line)]
        if _TROUBLE.search(line):
            self.trouble = [*self.trouble, line][-20:]
            return [Troubled(line)]
        self.block = [*self.block, line][-2000:]
        return []

    def end(self, exit: Exit) -> Iterable[Event]:
        """How it ended, and what it used in all."""
        used = list(self._used())
        if exit.kind == "exited" and self.trouble:
            return [*used, failed("\n".join(self.trouble), self.order.present)]
        words = "\n".join(self.block[-40:])
        return [*used, after(exit, words, self.order.present, self.said)]

    def _used(self) -> Iterator[Used]:
        """The sum over all messages; a price that it does not know is 0 to it."""
        usage, cost, told = Usage(), 0.0, False
        for line in stream.read_file(self.order.scratch / "aider-events.jsonl").splitlines():
            found = stream.parse(line)
            if stream.text(found, "event") == "message_send":
                names = ("properties.prompt_tokens", "", "", "properties.completion_tokens")
                usage, told = usage + stream.usage(found, *names, apart=False), True
                cost += stream.money(found, "properties.cost") or 0.0
        if told:
            yield Used(usage, cost or None)


RUNTIME = Runtime(
    "aider",
    launch,
    Reader,
    program="aider",
    environment=(
        *("OPENAI_API_KEY", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        *("DEEPSEEK_API_KEY", "OLLAMA_API_BASE", *stream.NET),
    ),
    resumes=True,
    chooses=True,
    litter=(".aider.tags.cache.v*",),
    tried="0.86.2",
    priced=True,
    website="https://aider.chat",
)
