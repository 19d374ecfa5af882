"""Every runtime: what it starts, and what it makes of what its program prints. Real streams are in transcripts/."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from beads.errors import InvalidDocument
from beads.model import Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used
from roles.runtimes import RUNTIMES
from roles.runtimes.stream import ARGUMENT_MAX, NET
from roles.settings import Agent, RuntimeName, read_settings
from roles.task import Order
from tests.world import ROOT

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
TRANSCRIPTS = Path(__file__).with_name("transcripts")
SESSION = "0a7da25b-8cd5-4d6b-873c-993b5f5a592f"


def order(runtime: str, home: Path = Path("/home-of-it"), /, **values: Any) -> Order:
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


def test_gemini_tells_the_usage_of_one_run() -> None:
    assert told(order("gemini"), *lines_of("gemini-0.61.0-stream-json.jsonl")) == [
        Began("de8ded86-4e05-4ee2-94e4-1f2d659e3d69", "gemini-2.5-flash"),
        Acted("run_shell_command", "echo hello"),
        Acted("run_shell_command", "echo hello", True),
        Said("All done."),
        Used(Usage(input=200, cached=40, output=10)),
        Ended("finished", "All done."),
    ]


def test_opencode_tells_the_usage_of_each_step() -> None:
    events = told(order("opencode"), *lines_of("opencode-1.18.33-run-json.jsonl"))
    assert events[:1] == [Began("ses_e03afd95effe78lVZqgwSGlbuV")]
    assert events[1:] == [
        Acted("bash", "echo hello", True),
        Used(Usage(input=100, cached=20, output=5), 0.000092),
        Said("All done."),
        Used(Usage(input=200, cached=40, output=10), 0.000184),
        Ended("finished", "All done."),
    ]


def test_copilot_tells_the_usage_of_the_conversation_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    shutil.copy(TRANSCRIPTS / "copilot-1.0.102-usage.json", tmp_path / "scratch/copilot-usage.json")
    before = Usage(input=100, cached=20, output=5)
    given = order("copilot", tmp_path, resume=True, before=before)
    assert told(given, *lines_of("copilot-1.0.102-json.jsonl")) == [
        Began(SESSION, "fake-model"),
        Acted("bash", "echo hello"),
        Acted("bash", "echo hello", True),
        Said("All done."),
        Began("0a7da25b-8cd5-4d6b-873c-993b5f5a592f"),
        Ended("finished", "All done."),
        Used(Usage(input=100, cached=20, output=5)),
    ]


def test_aider_tells_its_usage_in_a_log_of_events(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    shutil.copy(TRANSCRIPTS / "aider-0.86.2-events.jsonl", tmp_path / "scratch/aider-events.jsonl")
    given = order("aider", tmp_path, agent={"model": "openai/gpt-4o"})
    used = Used(Usage(input=7, output=3), 4.75e-05)
    events = [Began(SESSION, "openai/gpt-4o"), Said("A word aside"), used, used, Ended("finished", "A word aside")]
    assert told(given, *lines_of("aider-0.86.2.txt")) == events


def test_aider_ends_well_when_its_provider_does_not_serve() -> None:
    said = "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached. Try again in 20s."
    *_, end = told(order("aider"), ["Aider v0.86.2", said, "Retrying in 0.2 seconds..."], exited(0))
    assert isinstance(end, Ended)
    assert (end.ending, end.until) == ("quota", NOW.replace(second=20))
    assert told(order("aider"), [said, "Tokens: 7 sent, 3 received."], exited(0))[-1] == Ended("finished")


def test_mini_tells_all_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    shutil.copy(TRANSCRIPTS / "mini-2.4.6-trajectory.json", tmp_path / "scratch/trajectory.json")
    known = [Began("", "openai/gpt-4o"), Used(Usage(input=2400, cached=600, output=80), 0.006050000000000001)]
    assert told(order("mini", tmp_path), ["", "mini-swe-agent (step 2, $0.01):"], exited(0)) == [
        Acted("bash", "echo hi > a.txt"),
        Acted("bash", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo It is done."),
        *known,
        *known,
        Ended("finished", "It is done."),
    ]


@pytest.mark.parametrize(
    "status,ending",
    [
        ("LimitsExceeded", "limits"),
        ("TimeExceeded", "limits"),
        ("RepeatedFormatError", "stuck"),
        ("RateLimitError", "quota"),
        ("AuthenticationError", "environment"),
    ],
)
def test_mini_ends_well_whatever_happened(tmp_path: Path, status: str, ending: str) -> None:
    (tmp_path / "scratch").mkdir()
    extra = {"exit_status": status, "exception_str": "rate limit reached" if status == "RateLimitError" else "no key"}
    kept = {"info": {"exit_status": status}, "messages": [{"role": "exit", "content": "", "extra": extra}]}
    (tmp_path / "scratch/trajectory.json").write_text(json.dumps(kept))
    (end,) = told(order("mini", tmp_path), [], exited(0))
    assert isinstance(end, Ended)
    assert end.ending == ending


def lines(*objects: dict[str, Any]) -> list[str]:
    return [json.dumps(one) for one in objects]


def test_claude_goes_on_with_its_books(tmp_path: Path) -> None:
    books = {"inputTokens": 1800, "outputTokens": 80, "cacheReadInputTokens": 600, "cacheCreationInputTokens": 0}
    kept = tmp_path / ".claude/projects/-w"
    kept.mkdir(parents=True)
    state = {"type": "cost-state", "sessionId": SESSION, "totalCostUSD": 0.5, "modelUsage": {"m": books}}
    (kept / f"{SESSION}.jsonl").write_text("\n".join(lines({"type": "user"}, state)))
    twice = {name: 2 * value for name, value in books.items()}
    result: dict[str, Any] = {"type": "result", "subtype": "success", "total_cost_usd": 0.75}
    found = told(order("claude", tmp_path, resume=True), lines({**result, "modelUsage": {"m": twice}}), exited())
    assert found[0] == Used(Usage(input=2400, cached=600, output=80), 0.25)
    # An older version does not carry them on.
    result["modelUsage"] = {"m": {"inputTokens": 7}}
    found = told(order("claude", tmp_path, resume=True), lines(result), exited())
    assert found[0] == Used(Usage(input=7), 0.75)


@pytest.mark.parametrize(
    "runtime,printed,code,ending,until",
    [
        (
            "claude",
            [{"type": "result", "subtype": "success", "is_error": True, "api_error_status": 529, "result": "Oh"}],
            1,
            "provider_unavailable",
            None,
        ),
        (
            "claude",
            [
                {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1795900000}},
                {"type": "result", "subtype": "success", "is_error": True, "result": "You've hit your limit"},
            ],
            1,
            "quota",
            datetime.fromtimestamp(1795900000, UTC),
        ),
        ("claude", [{"type": "result", "subtype": "error_max_budget_usd", "is_error": True}], 1, "limits", None),
        (
            "claude",
            [{"type": "result", "subtype": "error_during_execution", "errors": ["No conversation found with session"]}],
            1,
            "environment",
            None,
        ),
        (
            "codex",
            [
                {"type": "error", "message": "Reconnecting... 1/5"},
                {"type": "turn.failed", "error": {"message": "last status: 429 Too Many Requests"}},
            ],
            1,
            "quota",
            None,
        ),
        ("codex", [{"type": "error", "message": "Reconnecting"}, {"type": "turn.completed"}], 0, "finished", None),
        (
            "gemini",
            [{"type": "result", "status": "error", "error": {"type": "FatalTurnLimitedError", "message": "x"}}],
            53,
            "limits",
            None,
        ),
        (
            "opencode",
            [{"type": "error", "error": {"name": "APIError", "data": {"message": "no", "statusCode": 503}}}],
            0,
            "provider_unavailable",
            None,
        ),
        (
            "copilot",
            [
                {"type": "session.error", "data": {"errorType": "query", "message": "connect ECONNREFUSED"}},
                {"type": "result", "sessionId": "s", "exitCode": 1},
            ],
            1,
            "provider_unavailable",
            None,
        ),
        ("cursor", [{"type": "result", "subtype": "success", "is_error": False, "result": "ok"}], 0, "finished", None),
        ("cursor", [], 1, "environment", None),
        ("goose", [{"type": "error", "error": "Rate limit exceeded"}, {"type": "complete"}], 0, "quota", None),
        ("goose", [{"type": "complete", "total_tokens": 5}], 0, "finished", None),
        ("amp", [{"type": "result", "subtype": "success", "is_error": False, "result": "ok"}], 0, "finished", None),
    ],
)
def test_how_a_run_ended(
    runtime: str, printed: list[dict[str, Any]], code: int, ending: str, until: datetime | None
) -> None:
    ends = [event for event in told(order(runtime), lines(*printed), exited(code)) if isinstance(event, Ended)]
    assert (ends[-1].ending, ends[-1].until) == (ending, until)


GONE = {
    "claude": "No conversation found with session ID: 1",
    "codex": "Error: thread/resume failed: no rollout found for thread id 1 (code -32600)",
    "gemini": 'Error resuming session: Invalid session identifier "1".',
    "opencode": "\x1b[91mError: \x1b[0mSession not found",
    "copilot": "Error: No session, task, or name matched '1'.",
}


@pytest.mark.parametrize("runtime,words", GONE.items())
def test_a_conversation_that_is_gone_is_not_named_again(runtime: str, words: str) -> None:
    gone = told(order(runtime, resume=True), [words], exited(1))
    assert [event for event in gone if isinstance(event, Began)] == []
    assert [event.ending for event in gone if isinstance(event, Ended)] == ["environment"]
    away = told(order(runtime, resume=True), ["connect ECONNREFUSED 127.0.0.1:9"], exited(1))
    assert Began(SESSION) in away
    assert [event.ending for event in away if isinstance(event, Ended)] == ["provider_unavailable"]


def test_codex_is_read_in_its_own_record_where_it_does_not_get_to_say(tmp_path: Path) -> None:
    record = tmp_path / f".codex/sessions/2026/11/28/rollout-2026-11-28T10-00-00-{SESSION}.jsonl"
    record.parent.mkdir(parents=True)

    def counted(sent: int) -> str:
        total = {"input_tokens": sent, "cached_input_tokens": 20, "output_tokens": 5}
        return json.dumps({"payload": {"type": "token_count", "info": {"total_token_usage": total}}}) + "\n"

    reader = RUNTIMES["codex"].reader(order("codex", tmp_path, resume=True, before=Usage(input=40, cached=20)))
    list(reader.read(json.dumps({"type": "thread.started", "thread_id": SESSION})))
    record.write_text(counted(100) + counted(200)[:30])
    done = json.dumps({"type": "item.completed", "item": {"type": "reasoning"}})
    assert list(reader.read(done)) == [Used(Usage(input=60, output=5))]
    assert list(reader.read(done)) == []
    record.write_text(counted(100) + counted(200) + counted(0))
    (failed,) = reader.read(json.dumps({"type": "turn.failed", "error": {"message": "connection refused"}}))
    assert failed == Ended("provider_unavailable", "connection refused")
    record.write_text(counted(100) + counted(200))
    assert list(reader.end(exited(1))) == [Used(Usage(input=160, output=5))]


def test_the_end_of_a_quota_counts_from_when_it_was_told() -> None:
    later = NOW + timedelta(hours=1)
    given = order("gemini", clock=lambda: later)
    wrong = {"type": "unknown", "message": "[API Error: You have exhausted your daily quota on this model.]"}
    printed = ["  message: 'Please retry in 600s.',", *lines({"type": "result", "status": "error", "error": wrong})]
    (end,) = told(given, printed, exited(1))
    assert isinstance(end, Ended)
    assert (end.ending, end.until) == ("quota", later + timedelta(seconds=600))


def test_opencode_goes_on_after_a_context_that_was_full() -> None:
    full = {"type": "error", "error": {"name": "ContextOverflowError", "data": {"message": "maximum context length"}}}
    shortened = {"type": "step_finish", "part": {"reason": "stop", "tokens": {"input": 7, "output": 3}}}
    made_up = {"type": "text", "part": {"synthetic": True, "text": "Continue if you have next steps."}}
    once = lines(full, shortened, made_up)
    assert told(order("opencode"), [*once, *once], exited())[-1] == Ended("finished")
    ends = [event for event in told(order("opencode"), once * 3, exited()) if isinstance(event, Ended)]
    assert [end.ending for end in ends] == ["context_exhausted"]


def test_cursor_tells_its_tools() -> None:
    call = {"shellToolCall": {"args": {"command": "make"}, "result": {"success": {"exitCode": 0}}}}
    printed = lines(
        {"type": "system", "subtype": "init", "session_id": "s", "model": "m"},
        {"type": "tool_call", "subtype": "started", "call_id": "1", "tool_call": call},
        {"type": "tool_call", "subtype": "completed", "call_id": "1", "tool_call": call},
        {"type": "assistant", "message": {"content": [{"text": "Done"}, {"text": "."}]}},
    )
    found = told(order("cursor"), printed, exited())
    assert found[:-1] == [Began("s", "m"), Acted("shell", "make"), Acted("shell", "make", True), Said("Done.")]


def test_goose_tells_its_tools() -> None:
    parts = [
        {"type": "text", "text": "I look."},
        {"type": "toolRequest", "id": "1", "toolCall": {"value": {"name": "shell", "arguments": {"command": "ls"}}}},
        {"type": "toolResponse", "id": "1", "toolResult": {"status": "error"}},
    ]
    printed = lines({"type": "message", "message": {"role": "assistant", "content": parts}}, {"type": "complete"})
    said = [Said("I look."), Acted("shell", "ls"), Acted("shell", "ls", False), Ended("finished", "I look.")]
    assert told(order("goose"), printed, exited()) == [Began(SESSION), *said]


def test_codex_tells_of_files_and_thoughts() -> None:
    change = {"id": "1", "type": "file_change", "changes": [{"path": "a.py"}, {"path": "b.py"}], "status": "completed"}
    call = {"id": "2", "type": "mcp_tool_call", "server": "s", "tool": "find", "status": "failed"}
    printed = lines(
        {"type": "item.completed", "item": change},
        {"type": "item.started", "item": {**call, "status": "in_progress"}},
        {"type": "item.completed", "item": call},
        {"type": "item.completed", "item": {"id": "3", "type": "reasoning", "text": "Hm."}},
    )
    assert told(order("codex"), printed, exited())[:-1] == [
        Acted("edit", "a.py b.py", True),
        Acted("find"),
        Acted("find", "", False),
    ]


def test_thinking_is_generated_too() -> None:
    stats = {"total_tokens": 120, "input_tokens": 100, "output_tokens": 5, "cached": 0}
    (used, _) = told(order("gemini"), lines({"type": "result", "status": "success", "stats": stats}), exited())
    assert used == Used(Usage(input=100, output=20, reasoning=15))
    # OpenCode has had reasoning both in the output and beside it.
    for output in (5, 20):
        tokens = {"total": 120, "input": 100, "output": output, "reasoning": 15, "cache": {"read": 0, "write": 0}}
        found = told(order("opencode"), lines({"type": "step_finish", "part": {"tokens": tokens}}), exited())
        assert Used(Usage(input=100, output=20, reasoning=15)) in found


# ── What is started ──────────────────────────────────────────────────────────────────────────────────────────

CLAUDE = (
    "-p --output-format=stream-json --verbose --setting-sources=user --strict-mcp-config "
    "--disallowedTools=EnterWorktree,ExitWorktree,CronCreate,CronDelete,ScheduleWakeup,AskUserQuestion"
)
COPILOT = (
    "--output-format=json --stream=off --no-color --no-ask-user --no-auto-update --no-bash-env --no-remote "
    "--no-remote-export --no-experimental --disable-builtin-mcps --disable-client-telemetry"
)
COPILOT_USAGE = "--usage-output-file=/home-of-it/scratch/copilot-usage.json"
GEMINI = "gemini --output-format=stream-json --skip-trust --allowed-mcp-server-names=none"
AIDER = (
    "aider --yes-always --no-pretty --no-stream --no-fancy-input --no-detect-urls --no-notifications "
    "--no-check-update --no-show-release-notes --no-show-model-warnings --disable-playwright --analytics-disable "
    "--no-suggest-shell-commands --no-auto-commits --no-dirty-commits --no-gitignore "
    "--message-file=/home-of-it/scratch/prompt.md --analytics-log=/home-of-it/scratch/aider-events.jsonl "
    f"--chat-history-file=/home-of-it/aider/{SESSION}.md --input-history-file=/home-of-it/aider/input "
    "--config=/home-of-it/aider/settings.yml --env-file=/home-of-it/aider/environment"
)
MINI = (
    "mini --yolo --exit-immediately --output=/home-of-it/scratch/trajectory.json --config=mini.yaml "
    "--config=/home-of-it/scratch/task.yaml"
)
AMP = "--execute --stream-json --settings-file=/home-of-it/.config/amp/settings.json"
GOOSE = f"goose run --instructions=- --output-format=stream-json --name={SESSION}"
AGAIN: dict[str, Any] = {"resume": True, "confined": False}
CODEX_OWN = '-c sandbox_mode="workspace-write" -c approval_policy="never"'


def with_model(model: str) -> dict[str, Any]:
    return {"agent": {"model": model}}


@pytest.mark.parametrize(
    "given,argv",
    [
        (order("claude"), f"claude {CLAUDE} --permission-mode=bypassPermissions --session-id={SESSION}"),
        (
            order("claude", **AGAIN, budget=2.5, **with_model("anthropic/claude-opus-4-8")),
            f"claude {CLAUDE} --permission-mode=acceptEdits --resume={SESSION} --model=claude-opus-4-8 "
            "--max-budget-usd=2.5",
        ),
        (
            order("claude", agent={"command": ["npx", "claude"], "arguments": ["--effort=high"]}),
            f"npx claude {CLAUDE} --permission-mode=bypassPermissions --session-id={SESSION} --effort=high",
        ),
        (
            order("codex"),
            "codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox -",
        ),
        (
            order("codex", **AGAIN, agent={"model": "openai/gpt-5", "arguments": ["-c", "a=1"]}),
            f"codex exec resume --json --skip-git-repo-check {CODEX_OWN} --model=gpt-5 {SESSION} - -c a=1",
        ),
        (order("gemini"), f"{GEMINI} --approval-mode=yolo --session-id={SESSION}"),
        (
            order("gemini", **AGAIN, **with_model("gemini/gemini-2.5-pro")),
            f"{GEMINI} --approval-mode=auto_edit --resume={SESSION} --model=gemini-2.5-pro",
        ),
        (order("opencode"), "opencode run --format=json --pure --title=beadtown --print-logs --log-level=ERROR"),
        (
            order("opencode", **AGAIN, **with_model("anthropic/claude-opus-4-8")),
            "opencode run --format=json --pure --title=beadtown --print-logs --log-level=ERROR"
            f" --session={SESSION} --model=anthropic/claude-opus-4-8",
        ),
        (order("copilot"), f"copilot {COPILOT} --allow-all {COPILOT_USAGE} --session-id={SESSION}"),
        (
            order("copilot", **AGAIN, **with_model("openai/gpt-5")),
            f"copilot {COPILOT} --allow-tool=write --deny-tool=shell --disallow-temp-dir {COPILOT_USAGE} "
            f"--resume={SESSION} --model=gpt-5",
        ),
        (order("aider"), AIDER),
        (order("aider", **AGAIN, **with_model("openai/gpt-5")), f"{AIDER} --restore-chat-history --model=openai/gpt-5"),
        (order("mini"), f"{MINI} --cost-limit=0"),
        (
            order("mini", **AGAIN, budget=2.5, **with_model("openai/gpt-5")),
            f"{MINI} --environment-class=bubblewrap --cost-limit=2.5 --model=openai/gpt-5",
        ),
        (order("goose"), GOOSE),
        (order("goose", **AGAIN), f"{GOOSE} --resume"),
        (order("amp"), f"amp {AMP}"),
        (order("amp", **AGAIN), f"amp threads continue {SESSION} {AMP}"),
    ],
)
def test_what_is_started(given: Order, argv: str) -> None:
    launched = RUNTIMES[given.agent.runtime].launch(given)
    assert launched.argv == argv.split()
    assert launched.environ["HOME"] == str(given.home)
    assert all(path.is_relative_to(given.home) for path in launched.files)
    # The prompt is no argument, where it could be taken for flags or be too long.
    assert given.prompt in (launched.stdin, *launched.files.values()) or "mini" in launched.argv
    assert not any(given.prompt in argument for argument in launched.argv)


def test_cursor_takes_the_prompt_as_an_argument() -> None:
    assert RUNTIMES["cursor"].launch(order("cursor")).argv == [
        *("cursor-agent", "-p", "--output-format=stream-json", "--trust", "--force", "\n-rf / is no option")
    ]
    long = RUNTIMES["cursor"].launch(order("cursor", prompt="é" * ARGUMENT_MAX, resume=True, confined=False))
    path = Path("/home-of-it/scratch/prompt.md")
    assert long.argv[-2:] == [f"--resume={SESSION}", f"Read the file {path}: it says what you are to do. Then do it."]
    assert "--force" not in long.argv
    assert long.files == {path: "é" * ARGUMENT_MAX}


@pytest.mark.parametrize(
    "runtime,confined,open_",
    [
        ("claude", {"IS_SANDBOX": "1"}, {"IS_SANDBOX": None}),
        ("goose", {"GOOSE_MODE": "auto"}, {"GOOSE_MODE": "smart_approve"}),
        ("opencode", {"OPENCODE_PERMISSION": '{"*": "allow"}'}, {}),
    ],
)
def test_what_variables_allow(runtime: str, confined: dict[str, str], open_: dict[str, str | None]) -> None:
    launch = RUNTIMES[runtime].launch
    for wanted, given in ((confined, order(runtime)), (open_, order(runtime, confined=False))):
        assert {name: launch(given).environ.get(name) for name in wanted} == wanted


def test_without_a_sandbox_opencode_and_amp_run_nothing() -> None:
    allowed = json.loads(RUNTIMES["opencode"].launch(order("opencode", confined=False)).environ["OPENCODE_PERMISSION"])
    assert (allowed["*"], allowed["edit"], allowed.get("bash")) == ("deny", "allow", None)
    (text,) = RUNTIMES["amp"].launch(order("amp", confined=False)).files.values()
    assert {"tool": "Bash", "action": "reject"} in json.loads(text)["amp.permissions"]
    assert "amp.dangerouslyAllowAll" not in json.loads(text)


def test_minis_prompt_is_a_value_whatever_is_in_it() -> None:
    prompt = "--yolo {{task}} {% x: [\n'\"\t- \U0001f600"
    launched = RUNTIMES["mini"].launch(order("mini", prompt=prompt))
    assert json.loads(launched.files[Path("/home-of-it/scratch/task.yaml")])["run"]["task"] == prompt


def test_every_name_has_a_runtime_and_says_whether_it_was_tried() -> None:
    assert set(RUNTIMES) <= set(get_args(RuntimeName))
    untried = {name for name, one in RUNTIMES.items() if one.program and not one.tried}
    assert untried == {"cursor", "goose", "amp"}
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        assert runtime.website or not runtime.program
        assert not any(Path(file).is_absolute() or ".." in Path(file).parts for file in runtime.credentials)


# ── Hostile lines ────────────────────────────────────────────────────────────────────────────────────────────

STREAMS = {
    "claude": ("claude-2.1.197-stream-json.jsonl", "claude-2.1.197-max-turns.jsonl"),
    "amp": ("claude-2.1.197-stream-json.jsonl",),
    "codex": ("codex-0.169.0-exec-json.jsonl",),
    "gemini": ("gemini-0.61.0-stream-json.jsonl",),
    "opencode": ("opencode-1.18.33-run-json.jsonl",),
    "copilot": ("copilot-1.0.102-json.jsonl",),
    "aider": ("aider-0.86.2.txt",),
    "jsonl": ("claude-2.1.197-stream-json.jsonl",),
}
MORE = {
    "cursor": {"type": "tool_call", "subtype": "started", "call_id": "1", "tool_call": {"shellToolCall": {"args": {}}}},
    "goose": {"type": "message", "message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]}},
}
FILES = {
    "copilot": ("copilot-usage.json", "copilot-1.0.102-usage.json"),
    "mini": ("trajectory.json", "mini-2.4.6-trajectory.json"),
    "aider": ("aider-events.jsonl", "aider-0.86.2-events.jsonl"),
}
EVENTS = {
    "session": "session_id",
    "model": "model",
    "text": "message.content.0.text",
    "tool": "message.content.0.name",
    "what": "message.content.0.input",
    "input": "usage.input_tokens",
    "cached": "usage.cache_read_input_tokens",
    "output": "usage.output_tokens",
    "cost": "total_cost_usd",
    "done": {"at": "type", "equals": ["result"]},
    "error": {"at": "is_error", "equals": [True], "text": "result"},
}
ODD = st.sampled_from(["\ud800", "\0", "-x", 2**70])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | ODD,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)


def broken(value: Any, data: st.DataObject) -> Any:
    """The value with something else in some place of it."""
    if data.draw(st.integers(0, 5)) == 0 or not isinstance(value, dict | list) or not value:
        return data.draw(ANYTHING)
    key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = {name: broken(one, data) if name == key else one for name, one in pairs}
    return found if isinstance(value, dict) else list(found.values())


def hostile(line: str, data: st.DataObject) -> str:
    how = data.draw(st.sampled_from(["whole", "broken", "broken", "cut", "text"]))
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if how == "broken" and value is not None:
        return json.dumps(broken(value, data))
    return line[: len(line) // 2] if how == "cut" else data.draw(st.text(max_size=9)) if how == "text" else line


def assert_storable(events: Iterator[Event]) -> None:
    """What readers tell is what a report can hold, a file can store and an argument can be made of."""
    for event in events:
        for value in vars(event).values():
            if isinstance(value, str):
                value.encode()
        match event:
            case Began(session=session):
                assert "\0" not in session
                assert not session.startswith("-")
            case Used(usage=usage, cost=cost):
                assert usage is None or (0 <= usage.cached + usage.written <= usage.input <= 2**60)
                assert cost is None or 0 <= cost < float("inf")
            case _:
                pass


READERS = sorted(name for name in RUNTIMES if name not in ("builtin", "command", "plain"))


@forall(data=st.data())
def test_no_line_and_no_file_can_break_a_reader(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    runtime = data.draw(st.sampled_from(READERS))
    home = tmp_path_factory.getbasetemp() / f"hostile-{runtime}"
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    printed = [json.dumps(MORE[runtime])] if runtime in MORE else []
    for name in STREAMS.get(runtime, ()):
        printed += lines_of(name)[0]
    if runtime in FILES:
        name, source = FILES[runtime]
        text = (TRANSCRIPTS / source).read_text()
        parts = text.splitlines() if name.endswith("l") else [text]
        (home / "scratch" / name).write_text("\n".join(hostile(part, data) for part in parts), errors="replace")
    counts = data.draw(st.sampled_from(["run", "line", "conversation"]))
    agent = {"command": ["x"], "events": {**EVENTS, "counts": counts}} if runtime == "jsonl" else {}
    given = order(runtime, home, resume=data.draw(st.booleans()), agent=agent)
    picked = data.draw(st.lists(st.sampled_from(printed), max_size=5)) if printed else ["mini-swe-agent (step 1,"]
    assert_storable(iter(told(given, [hostile(line, data) for line in picked], exited(data.draw(st.integers(0, 1))))))


def test_a_line_that_is_deep_or_long_is_no_event() -> None:
    for name in READERS:
        agent = {"command": ["x"], "events": EVENTS} if name == "jsonl" else {"command": ["x"]}
        reader = RUNTIMES[name].reader(order(name, agent=agent))
        assert list(reader.read('{"a":' * 100_000)) == []
        assert list(reader.read("9" * 5_000)) == []
        assert list(reader.read(f'{{"type": {"9" * 5_000}}}')) == []


def test_a_file_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/copilot-usage.json").symlink_to(TRANSCRIPTS / "copilot-1.0.102-usage.json")
    assert [e for e in told(order("copilot", tmp_path), [], exited()) if isinstance(e, Used)] == []


# ── Lines that town.toml explains ────────────────────────────────────────────────────────────────────────────


def jsonl(counts: str = "run", **values: Any) -> Order:
    events = {
        "session": "id",
        "text": "say",
        "tool": "use.name",
        "what": "use.with",
        "input": "tokens.in",
        "cached": "tokens.cached",
        "output": "tokens.out",
        "cost": "usd",
        "counts": counts,
        "done": {"at": "kind", "equals": ["done"], "text": "last"},
        "error": {"at": "kind", "equals": ["oops"], "text": "why"},
        "resume": ["--go-on", "{session}"],
    }
    command = ["mine", "{prompt}", "--model", "{model}"]
    agent = {"command": command, "arguments": ["--fast"], "model": "m", "events": events}
    return order("jsonl", agent=agent, **values)


def test_jsonl_starts_what_it_is_told_to() -> None:
    command = ["mine", "-rf / is no option", "--model", "m", "--fast"]
    assert RUNTIMES["jsonl"].launch(jsonl()).argv == command
    assert RUNTIMES["jsonl"].launch(jsonl(resume=True)).argv == [*command, "--go-on", SESSION]


PRINTED = (
    {"id": "s", "tokens": {"in": 100, "cached": 40, "out": 5}, "usd": 0.25},
    {"use": {"name": "sh", "with": {"command": "ls"}}},
    {"say": "Hm."},
    {"tokens": {"in": 10, "out": 5}, "usd": 0.5},
    {"kind": "done", "last": "Done."},
)


@pytest.mark.parametrize(
    "counts,used",
    [
        ("run", Used(Usage(input=10, output=5), 0.5)),
        ("line", Used(Usage(input=110, cached=40, output=10), 0.75)),
        ("conversation", Used(Usage(input=3, output=4), None)),
    ],
)
def test_jsonl_reads_what_is_where(counts: str, used: Used) -> None:
    given = jsonl(counts, resume=True, before=Usage(input=7, output=1))
    found = told(given, lines(*PRINTED), exited())
    assert [event for event in found if isinstance(event, Used)][-1] == used
    said = [Began("s"), Acted("sh", "ls"), Said("Hm."), Ended("finished", "Done.")]
    assert [event for event in found if not isinstance(event, Used)] == said


def test_jsonl_knows_what_is_wrong() -> None:
    (end,) = told(jsonl(), lines({"kind": "oops", "why": "try again in 20s, rate limit"}), exited())
    assert end == Ended("quota", "try again in 20s, rate limit", NOW.replace(second=20))
    mark = {"at": "failed", "text": "why", "final": False}
    given = order("jsonl", agent={"command": ["x"], "events": {"error": mark}})
    printed = lines({"failed": False}, {"failed": None}, {"failed": 0, "why": "a hiccup"})
    assert told(given, printed, exited()) == [Troubled("a hiccup"), Ended("finished")]


@pytest.mark.parametrize(
    "table,problem",
    [
        ('command = ["x"]', "town.toml:3: agents.x: runtime 'jsonl' needs a table 'events'"),
        ('events = { text = "say" }', "town.toml:3: agents.x: runtime 'jsonl' needs a 'command'"),
        ('command = ["x"]\nevents = { txt = "say" }', "town.toml:6: agents.x.events.txt: unknown key 'txt'"),
        ('command = ["x"]\nevents = { text = "a..b" }', "town.toml:6: agents.x.events.text: String should match"),
        ('command = ["x"]\nevents = { counts = "all" }', "town.toml:6: agents.x.events.counts: Input should be 'run'"),
        ('command = ["x"]\nevents = { done = {} }', "town.toml:6: agents.x.events.done.at: is missing"),
        ('command = ["x"]\nevents = { resume = ["-r"] }', "town.toml:6: agents.x.events: 'resume' needs an argument"),
        ('command = ["x"]\nprices = { input = 1 }', "agents.x.prices.output: is missing"),
    ],
)
def test_what_town_toml_says_wrongly_is_named(table: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_settings(f'[gate]\ncommands = ["true"]\n[agents.x]\nruntime = "jsonl"\n{table}\n'.encode())
    assert problem in caught.value.message


def test_a_runtime_alone_is_enough() -> None:
    for name in READERS:
        if name != "jsonl":
            assert read_settings(f'[agents.x]\nruntime = "{name}"\n'.encode()).agent("x").runtime == name
    with pytest.raises(InvalidDocument, match="should be 'command'"):
        read_settings(b'[agents.x]\nruntime = "cluade"\n')
    with pytest.raises(InvalidDocument, match="agents"):
        read_settings(b'[agents."../x"]\nruntime = "claude"\n')


# ── The page about them ──────────────────────────────────────────────────────────────────────────────────────

PAGE = (ROOT / "docs/agents.md").read_text("utf-8")


def test_every_example_on_the_page_can_be_read() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        read_settings(example.encode())


def test_the_page_has_every_runtime_as_it_is() -> None:
    rows = {row.split("|")[1].strip(" `"): row for row in PAGE.splitlines() if row.startswith("| `")}
    for name, runtime in RUNTIMES.items():
        if runtime.program:
            (first,) = (row for row in PAGE.splitlines() if row.startswith(f"| `{name}` | `{runtime.program}`"))
            assert (runtime.tried or "**not run for real**") in first
            assert ("| yes" in first) == runtime.resumes
            assert all(f"`{part}`" in rows[name] for part in runtime.credentials)
            assert all(f"`{part}`" in rows[name] for part in runtime.environment if part not in NET)
