"""Claude Code: ``claude -p``, JSON lines. It is keyed to the directory: a conversation goes on only where it began.

What it tells of tokens while it works is a placeholder; the truth is in its ``result``. There the costs are those of
the whole conversation since it keeps them with it (2.1.332), and were those of one run before (2.1.197).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from beads.model import Usage
from roles.events import Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import stream
from roles.runtimes.trouble import failed
from roles.task import Launch, Order, Runtime

_NOWHERE_ELSE = "EnterWorktree,ExitWorktree,CronCreate,CronDelete,ScheduleWakeup,AskUserQuestion"
"""Tools for working elsewhere, later, or with somebody: none of which there is."""

_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


def launch(order: Order) -> Launch:
    """The prompt is on standard input; settings of the user and of the repository are not read."""
    home = order.home / ".claude"
    argv = [
        *stream.program(order, "claude"),
        "-p",
        "--output-format=stream-json",
        "--verbose",
        "--setting-sources=user",
        "--strict-mcp-config",
        f"--disallowedTools={_NOWHERE_ELSE}",
        f"--permission-mode={'bypassPermissions' if order.confined else 'acceptEdits'}",
        *stream.option("--resume" if order.resume else "--session-id", order.session),
        *stream.option("--model", stream.bare(order.agent.model, "anthropic")),
        *stream.option("--max-budget-usd", order.budget),
        *order.agent.arguments,
    ]
    environ = {**stream.housing(order.home), "CLAUDE_CONFIG_DIR": str(home), **_QUIET}
    if order.confined:
        # Without it, it does not let root do as it likes.
        environ["IS_SANDBOX"] = "1"
    # With no sources of settings but the user's, it would not read the instructions that the repository has for it.
    told = "".join(f"@{order.directory / name}\n" for name in ("CLAUDE.md", "AGENTS.md"))
    return Launch(argv, order.prompt, environ, {home / "CLAUDE.md": told})


@dataclass
class Reader(stream.JsonReader):
    """Reads ``--output-format=stream-json``.

    Attributes:
        cost: what the conversation had cost before, by its own books; they are carried on from there.
        before: what it had used before, by the same.
    """

    cost: float = 0.0
    before: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        """Look up how the conversation's books stood, which nobody has begun to change yet."""
        for kept in _books(self.order) if self.order.resume else ():
            self.cost, self.before = stream.money(kept, "totalCostUSD") or 0.0, _models(kept)

    def take(self, found: Mapping[str, object]) -> Iterator[Event]:
        """One line."""
        match stream.text(found, "type"), stream.text(found, "subtype"):
            case "system", "init":
                yield Began(stream.name(found, "session_id"), stream.text(found, "model"))
            case "system", "api_retry":
                yield Troubled(stream.text(found, "error") or "the provider is asked again")
            case "assistant", _:
                yield from self._assistant(found)
            case "user", _:
                for part in stream.items(found, "message.content"):
                    if stream.text(part, "type") == "tool_result":
                        yield self.done(stream.text(part, "tool_use_id"), stream.at(part, "is_error") is not True)
            case "rate_limit_event", _:
                yield from self._limited(found)
            case "result", subtype:
                yield self._used(found)
                yield self._ended(found, subtype)
            case _:
                pass

    def _assistant(self, found: Mapping[str, object]) -> Iterator[Event]:
        # What agents of its own say is said to it, not to us; and what the provider says is in the result.
        own = not stream.text(found, "parent_tool_use_id") and stream.at(found, "is_api_error_message") is not True
        for part in stream.items(found, "message.content"):
            said = stream.text(part, "text")
            if stream.text(part, "type") == "tool_use":
                what = stream.brief(stream.at(part, "input"))
                yield self.began(stream.text(part, "id"), stream.text(part, "name"), what)
            elif said and own:
                self.said = said
                yield Said(said)

    def _used(self, found: Mapping[str, object]) -> Used:
        """What all models together used, of which ``usage`` has the main one's alone."""
        models, cost = _models(found), stream.money(found, "total_cost_usd")
        if models.total:
            if all(mine >= theirs for (_, mine), (_, theirs) in zip(models, self.before, strict=True)):
                models, cost = models.since(self.before), max(0.0, cost - self.cost) if cost is not None else None
            return Used(models, cost)
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
        return Used(stream.usage(stream.at(found, "usage"), *names) if stream.entries(found, "usage") else None, cost)

    def _limited(self, found: Mapping[str, object]) -> Iterator[Event]:
        """A limit was reached, and its reset is told here alone; it may go on all the same, as on another account."""
        if stream.text(found, "rate_limit_info.status") == "rejected":
            self.words.append(f"resets at {stream.count(found, 'rate_limit_info.resetsAt')}")
            yield Troubled("a usage limit is reached")

    def _ended(self, found: Mapping[str, object], subtype: str) -> Ended:
        errors = stream.texts(found, "errors")
        said = stream.text(found, "result") or self.said
        if subtype.startswith("error_max_"):
            return Ended("limits", errors or subtype)
        if subtype == "success" and stream.at(found, "is_error") is not True:
            return Ended("finished", said)
        return failed(errors or said or subtype, self.order.present, stream.count(found, "api_error_status") or None)


def _models(found: object) -> Usage:
    names = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens", "outputTokens")
    return sum((stream.usage(one, *names) for one in stream.entries(found, "modelUsage").values()), Usage())


def _books(order: Order) -> Iterator[Mapping[str, object]]:
    """How the books of a conversation stood after each of its runs, for versions that keep them."""
    for path in sorted((order.home / ".claude" / "projects").glob(f"*/{order.session}.jsonl")):
        for line in stream.read_file(path).splitlines():
            found = stream.parse(line) if '"cost-state"' in line else None
            if stream.text(found, "type") == "cost-state" and found is not None:
                yield found


RUNTIME = Runtime(
    "claude",
    launch,
    Reader,
    program="claude",
    environment=(
        *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"),
        *("CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", *stream.NET),
    ),
    credentials=(".claude/.credentials.json",),
    resumes=True,
    at_terminal=("--resume={session}",),
    chooses=True,
    tried="2.1.332",
    priced=True,
    website="https://claude.com/claude-code",
)
