"""Every runtime: what it starts, and what it makes of what its program prints. Real streams are in transcripts/."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import RUNTIMES
from roles.settings import Agent
from roles.task import Order

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
TRANSCRIPTS = Path(__file__).with_name("transcripts")
SESSION = "0a7da25b-8cd5-4d6b-873c-993b5f5a592f"


def order(runtime: str, home: Path = Path("/home-of-it"), **values: Any) -> Order:
    agent = {"runtime": runtime, **values.pop("agent", {})}
    given = {"prompt": "-rf / is no option", "session": SESSION, "now": NOW, **values}
    return Order(agent=Agent(**agent), directory=Path("/w"), home=home, scratch=home / "scratch", **given)


def exited(code: int = 0) -> Exit:
    return Exit("exited", code, None, 1.0, "", 0, "sha256:0", Path("log"))


def lines_of(name: str) -> tuple[list[str], Exit]:
    """What a program printed for real, and how it ended."""
    *lines, last = (TRANSCRIPTS / name).read_text("utf-8").splitlines()
    return lines, exited(int(last.removeprefix("EXIT=")))


def told(given: Order, lines: list[str], exit: Exit) -> list[Event]:
    """What the reader of a runtime makes of that."""
    reader = RUNTIMES[given.agent.runtime].reader(given)
    return [event for line in lines for event in reader.read(line)] + list(reader.end(exit))


def test_claude_tells_its_usage_at_the_end() -> None:
    assert told(order("claude"), *lines_of("claude-2.1.197-stream-json.jsonl")) == [
        Began("d19c70a9-03a9-4e15-ab47-66fe588eb617", "claude-opus-4-8[1m]"),
        Acted("Bash", "echo hello"),
        Acted("Bash", "echo hello", True),
        Said("All done."),
        # 200 were sent, and 40 and 14 from and to the cache, which it counts apart.
        Used(Usage(input=254, cached=40, written=14, output=10), 0.0013575),
        Ended("finished", "All done."),
    ]


def test_claude_stopped_by_its_limit_of_turns() -> None:
    events = told(order("claude"), *lines_of("claude-2.1.197-max-turns.jsonl"))
    assert events[-2:] == [
        Used(Usage(input=127, cached=20, written=7, output=5), 0.00067875),
        Ended("limits", "Reached maximum number of turns (1)"),
    ]


def test_codex_tells_the_sum_over_the_conversation() -> None:
    before = Usage(input=100, cached=20, output=5, reasoning=2)
    events = told(order("codex", resume=True, before=before), *lines_of("codex-0.169.0-exec-json.jsonl"))
    assert [event for event in events if not isinstance(event, Troubled)] == [
        Began("01a1fc4f-eca8-7a20-a9af-46f74f6e1bd9"),
        Acted("shell", "/bin/bash -lc 'echo hello'"),
        Acted("shell", "/bin/bash -lc 'echo hello'", True),
        Said("All done."),
        Used(Usage(input=100, cached=20, output=5, reasoning=2)),
        Ended("finished", "All done."),
    ]


CLAUDE = [
    "-p",
    "--output-format=stream-json",
    "--verbose",
    "--setting-sources=user",
    "--strict-mcp-config",
    "--disallowedTools=EnterWorktree,ExitWorktree,CronCreate,CronDelete,ScheduleWakeup,AskUserQuestion",
]
CODEX_OWN = ["-c", 'sandbox_mode="workspace-write"', "-c", 'approval_policy="never"']


@pytest.mark.parametrize(
    "given,argv",
    [
        (
            order("claude"),
            ["claude", *CLAUDE, "--permission-mode=bypassPermissions", f"--session-id={SESSION}"],
        ),
        (
            order("claude", resume=True, confined=False, budget=2.5, agent={"model": "anthropic/claude-opus-4-8"}),
            [
                "claude",
                *CLAUDE,
                "--permission-mode=acceptEdits",
                f"--resume={SESSION}",
                "--model=claude-opus-4-8",
                "--max-budget-usd=2.5",
            ],
        ),
        (
            order("claude", agent={"command": ["npx", "claude"], "arguments": ["--effort=high"]}),
            [
                "npx",
                "claude",
                *CLAUDE,
                "--permission-mode=bypassPermissions",
                f"--session-id={SESSION}",
                "--effort=high",
            ],
        ),
        (
            order("codex"),
            ["codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-"],
        ),
        (
            order("codex", resume=True, confined=False, agent={"model": "openai/gpt-5", "arguments": ["-c", "a=1"]}),
            [
                "codex",
                "exec",
                "resume",
                "--json",
                "--skip-git-repo-check",
                *CODEX_OWN,
                "--model=gpt-5",
                SESSION,
                "-",
                "-c",
                "a=1",
            ],
        ),
    ],
)
def test_what_is_started(given: Order, argv: list[str]) -> None:
    launched = RUNTIMES[given.agent.runtime].launch(given)
    assert launched.argv == argv
    assert launched.stdin == given.prompt
    assert launched.environ["HOME"] == str(given.home)
    assert all(path.is_relative_to(given.home) for path in launched.files)
