"""Codex: ``codex exec --json``. What it tells of tokens is the sum over the whole conversation; it tells no costs.

It tells that at the end only, and not when it fails. Its own record of the conversation has it after each answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from beads.model import Usage
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.task import Launch, Order, Runtime

_READ_MAX = 64 << 20
"""Bytes of its record that are read at once."""

_SETTINGS = """\
check_for_update_on_startup = false
cli_auth_credentials_store = "file"

[analytics]
enabled = false

[feedback]
enabled = false
"""


def launch(order: Order) -> Launch:
    """The prompt is on standard input. Outside of a sandbox of ours it gets its own, which lets it edit files here."""
    home = order.home / ".codex"
    allowed = (
        ["--dangerously-bypass-approvals-and-sandbox"]
        if order.confined
        else ["-c", 'sandbox_mode="workspace-write"', "-c", 'approval_policy="never"']
    )
    argv = [
        *stream.program(order, "codex"),
        "exec",
        *(["resume"] if order.resume else []),
        "--json",
        "--skip-git-repo-check",
        *allowed,
        *stream.option("--model", stream.bare(order.agent.model, "openai")),
        *([order.session] if order.resume else []),
        "-",
        *order.agent.arguments,
    ]
    # It says when a limit is over as a time of day, where it is, without saying where that is.
    environ = {**stream.housing(order.home), "CODEX_HOME": str(home), "TZ": "UTC"}
    return Launch(argv, order.prompt, environ, {home / "config.toml": _SETTINGS})


@dataclass
class Reader(stream.JsonReader):
    """Reads ``codex exec --json``, and what is new in its record of the conversation whenever it has done something.

    Attributes:
        thread: the conversation's name.
        at: how many bytes of the record have been read.
        used: what this run used, as it was told last.
    """

    thread: str = ""
    at: int = 0
    used: Usage | None = None

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line. An ``error`` is what it gets over by itself; a turn that fails is the end."""
        match stream.text(found, "type"):
            case "thread.started":
                self.thread = stream.name(found, "thread_id")
                yield Began(self.thread)
            case "item.started" | "item.completed" as kind:
                yield from self._item(stream.entries(found, "item"), kind == "item.completed")
                yield from self.left()
            case "error":
                yield Troubled(stream.text(found, "message"))
            case "turn.completed":
                yield from self._used(stream.entries(found, "usage"))
                yield Ended("finished", self.said)
            case "turn.failed":
                yield failed(stream.text(found, "error.message"), self.order.present)
            case _:
                pass

    def left(self) -> Iterator[Event]:
        """What it used, by its own record."""
        days = (self.order.home / ".codex" / "sessions").glob(f"*/*/*/rollout-*-{self.thread}.jsonl")
        path = max(days, default=None) if self.thread else None
        if path is None or path.is_symlink():
            return
        new = b""
        with suppress(OSError), path.open("rb") as file:
            file.seek(self.at)
            # The last line may not be whole yet.
            new = file.read(_READ_MAX).rpartition(b"\n")[0]
        self.at += len(new)
        lines = [line for line in new.decode(errors="replace").split("\n") if '"token_count"' in line]
        for line in lines[-1:]:
            yield from self._used(stream.entries(stream.parse(line), "payload.info.total_token_usage"))

    def _used(self, told: Mapping[str, object]) -> Iterator[Used]:
        names = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens")
        total = stream.usage(told, *names, apart=False)
        total = total.model_copy(update={"reasoning": stream.count(told, "reasoning_output_tokens")})
        now = total.since(self.order.before)
        # After a context that was full, it counts from nothing.
        if told and now != self.used and (self.used is None or now.total >= self.used.total):
            self.used = now
            yield Used(now)

    def _item(self, item: Mapping[str, object], over: bool) -> Iterator[Event]:
        use, kind = stream.text(item, "id"), stream.text(item, "type")
        match kind:
            case "agent_message":
                self.said = stream.text(item, "text") or self.said
                yield Said(stream.text(item, "text"))
            case "error":
                yield Troubled(stream.text(item, "message"))
            case "command_execution" | "file_change" | "mcp_tool_call" | "web_search":
                yield from self._tool(item, use, kind, over)
            case _:
                pass

    def _tool(self, item: Mapping[str, object], use: str, kind: str, over: bool) -> Iterator[Acted]:
        if use not in self.tools:
            paths = " ".join(stream.text(change, "path") for change in stream.items(item, "changes"))
            tool = stream.text(item, "tool") or {"command_execution": "shell", "file_change": "edit"}.get(kind, kind)
            began = self.began(use, tool, stream.brief(paths or dict(item)) if kind != "mcp_tool_call" else "")
            if not over:
                yield began
        if over:
            good = stream.text(item, "status") in ("completed", "") and not stream.count(item, "exit_code")
            yield self.done(use, good)


RUNTIME = Runtime(
    "codex",
    launch,
    Reader,
    program="codex",
    environment=("CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL", *stream.NET),
    credentials=(".codex/auth.json",),
    resumes=True,
    at_terminal=("resume", "{session}"),
    tried="0.171.0",
    website="https://developers.openai.com/codex",
)
