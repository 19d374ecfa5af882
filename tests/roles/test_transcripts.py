"""What newer versions print, and what programs print when a provider refuses them: their own streams, word for word."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beads.model import Ending, Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import RUNTIMES
from roles.settings import Agent
from roles.task import Order

# The quotas in these streams were refused until an hour after they were recorded.
NOW = datetime(2026, 11, 28, 9, 44, tzinfo=UTC)
TRANSCRIPTS = Path(__file__).with_name("transcripts")
SESSION = "11111111-1111-4111-8111-111111111111"
RUN = Usage(input=3300, cached=2100, output=90, reasoning=15)
ONE = Usage(input=1200, cached=300, output=40)
"""What the provider had counted when it refused the second request."""


def told(name: str, home: Path = Path("/home-of-it"), **values: Any) -> list[Event]:
    """What the reader of a runtime makes of what its program printed for real."""
    *lines, last = (TRANSCRIPTS / name).read_text("utf-8").splitlines()
    return read(name, lines, int(last.removeprefix("EXIT=")), home, **values)


def read(name: str, lines: list[str], code: int, home: Path = Path("/home-of-it"), **values: Any) -> list[Event]:
    """What the reader of a runtime makes of these lines."""
    runtime: Any = name.partition("-")[0]
    given = {"prompt": "do it", "session": SESSION, "now": NOW, **values}
    order = Order(agent=Agent(runtime=runtime), directory=Path("/w"), home=home, scratch=home, **given)
    reader = RUNTIMES[runtime].reader(order)
    exit = Exit("exited", code, None, 1.0, "", 0, "sha256:0", Path("log"))
    return [event for line in lines for event in reader.read(line)] + list(reader.end(exit))


def used(events: list[Event]) -> Used:
    """What was used in the end."""
    return [event for event in events if isinstance(event, Used)][-1]


def ended(events: list[Event]) -> Ended:
    """How it ended."""
    return [event for event in events if isinstance(event, Ended)][-1]


@pytest.mark.parametrize(
    "name, tool, usage, cost",
    [
        ("claude-2.1.332-run.jsonl", "Bash", RUN.model_copy(update={"written": 300, "reasoning": 0}), 0.005805),
        ("codex-0.171.0-run.jsonl", "shell", RUN, None),
        ("gemini-0.61.0-run.jsonl", "run_shell_command", RUN, None),
        ("opencode-1.18.33-run.jsonl", "bash", RUN, 0.0026625),
    ],
)
def test_two_files_are_written_by_two_commands(name: str, tool: str, usage: Usage, cost: float | None) -> None:
    events = told(name)
    assert [event.session for event in events if isinstance(event, Began)] != []
    done = [event for event in events if isinstance(event, Acted) and event.ok]
    assert [event.tool for event in done] == [tool, tool]
    assert ["one.txt" in done[0].what, "two.txt" in done[1].what] == [True, True]
    assert Said("All done.") in events
    assert used(events).usage == usage
    assert used(events).cost == (cost if cost is None else pytest.approx(cost))
    assert ended(events) == Ended("finished", "All done.")


def test_claude_goes_on_with_its_books(tmp_path: Path) -> None:
    # What it tells of costs is then the sum, here of 0.005805 before and 0.00678 now.
    books = tmp_path / ".claude" / "projects" / "-w" / f"{SESSION}.jsonl"
    books.parent.mkdir(parents=True)
    model = {"inputTokens": 900, "outputTokens": 90, "cacheReadInputTokens": 2100, "cacheCreationInputTokens": 300}
    state = {"type": "cost-state", "totalCostUSD": 0.005805, "modelUsage": {"claude-sonnet-4-5": model}}
    books.write_text(json.dumps(state, separators=(",", ":")) + "\n")
    found = used(told("claude-2.1.332-resume.jsonl", tmp_path, resume=True))
    assert found.usage == Usage(input=2400, cached=600, output=80)
    assert found.cost == pytest.approx(0.00678)


def test_claude_that_ran_out_of_money_tells_what_it_used_by_its_models() -> None:
    events = told("claude-2.1.332-budget.jsonl")
    assert used(events).usage == ONE
    assert used(events).cost == pytest.approx(0.00339)
    assert ended(events).ending == "limits"


@pytest.mark.parametrize(
    "name, ending, usage",
    [
        ("claude-2.1.332-quota.jsonl", "quota", ONE),
        ("claude-2.1.332-context.jsonl", "context_exhausted", ONE),
        ("codex-0.171.0-quota.jsonl", "quota", None),
        ("codex-0.171.0-context.jsonl", "context_exhausted", None),
        ("codex-0.171.0-overloaded.jsonl", "provider_unavailable", None),
        ("gemini-0.61.0-quota.jsonl", "quota", ONE),
        ("gemini-0.61.0-context.jsonl", "context_exhausted", ONE),
        ("gemini-0.61.0-overloaded.jsonl", "provider_unavailable", Usage()),
        ("copilot-1.0.102-quota.jsonl", "quota", None),
    ],
)
def test_a_refusal_is_told_by_its_kind(name: str, ending: Ending, usage: Usage | None) -> None:
    events = told(name)
    assert ended(events).ending == ending
    assert ended(events).text
    assert [event.usage for event in events if isinstance(event, Used)] == ([] if usage is None else [usage])


@pytest.mark.parametrize("name", ["codex-0.171.0-quota.jsonl", "gemini-0.61.0-quota.jsonl"])
def test_a_quota_is_over_when_the_program_says_so(name: str) -> None:
    until = ended(told(name)).until
    assert until is not None
    assert abs(until - datetime(2026, 11, 28, 10, 44, tzinfo=UTC)) < timedelta(minutes=2)


def test_copilot_tells_its_usage_in_a_file(tmp_path: Path) -> None:
    kept = {
        "inputTokens": 3300,
        "outputTokens": 90,
        "cacheReadTokens": 2100,
        "cacheWriteTokens": 0,
        "reasoningTokens": 15,
    }
    (tmp_path / "copilot-usage.json").write_text(json.dumps({"modelMetrics": {"gpt-5": {"usage": kept}}}))
    assert used(told("copilot-1.0.102-quota.jsonl", tmp_path)).usage == RUN
    before = Usage(input=1000, cached=300, output=40, reasoning=10)
    later = used(told("copilot-1.0.102-quota.jsonl", tmp_path, resume=True, before=before))
    assert later.usage == Usage(input=2300, cached=1800, output=50, reasoning=5)


def test_codex_goes_on_after_an_error_of_its_own() -> None:
    assert any(isinstance(event, Troubled) for event in told("codex-0.171.0-run.jsonl"))


def refusal(said: str) -> str:
    """What OpenCode logs when a provider refuses it."""
    about = "providerID=fake modelID=gpt-5 session.id=ses_1 small=false agent=build mode=primary"
    at = "timestamp=2026-11-28T10:31:36.927Z level=ERROR run=5ea39dc8"
    return f'{at} message="stream error" {about} error.error="AI_APICallError: {said}"'


def test_opencode_asks_a_provider_that_is_overloaded_some_times() -> None:
    line = refusal("The engine is currently overloaded, please try again later")
    assert [type(event) for event in read("opencode-", [line] * 4, 0)] == [*[Troubled] * 4, Ended]
    assert ended(read("opencode-", [line] * 4, 0)).ending == "finished"
    assert ended(read("opencode-", [line] * 5, 0)).ending == "provider_unavailable"


def test_opencode_has_no_use_in_asking_again_where_nothing_is_left() -> None:
    spent, busy = "You exceeded your current quota, please check your plan.", "Too many requests"
    assert ended(read("opencode-", [refusal(spent)], 0)).ending == "quota"
    assert ended(read("opencode-", [refusal(busy)], 0)).ending == "finished"


def test_aiders_own_patience_is_not_the_providers_word() -> None:
    trouble = ["litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current quota"]
    assert ended(read("aider-", [*trouble, "Retrying in 32.0 seconds..."], 0)).ending == "quota"
    assert ended(read("aider-", [*trouble, "Retrying in 32.0 seconds..."], 0)).until is None
