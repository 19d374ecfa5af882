"""What providers and programs say when they do not work: which ending it is, and until when to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads.model import Ending
from refinery.processes import Exit, Kind
from roles.runtimes.trouble import after, failed, gone, known
from roles.runtimes.until import DAYS_MAX, until

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def later(**span: float) -> datetime:
    return NOW + timedelta(**span)


QUOTA: list[tuple[str, datetime | None]] = [
    (f"Claude AI usage limit reached|{int(at(28, 17).timestamp())}", at(28, 17)),
    ("You've hit your limit · resets 3pm (UTC)", at(28, 15)),
    ("You've hit your session limit · resets 11:30am (UTC)", at(29, 11, 30)),
    ("5-hour limit reached ∙ resets 3pm", at(28, 15)),
    ("Weekly limit reached ∙ resets Dec 3, 9am (America/New_York)", at(3, 14, month=12)),
    (
        "You've hit your usage limit. Upgrade to Pro, or try again in 3 days 4 hours 12 minutes.",
        later(days=3, hours=4, minutes=12),
    ),
    ("You've hit your usage limit. Try again at Nov 30th, 2026 3:05 PM.", at(30, 15, 5)),
    ("You’ve hit your usage limit. Purchase more credits or try again at 9:06 PM.", at(28, 21, 6)),
    (
        "Rate limit reached for gpt-5 in organization org-x on tokens per min (TPM): Limit 30000, Used 28000, "
        "Requested 5000. Please try again in 5.2s. Visit https://platform.openai.com/account/rate-limits",
        later(seconds=5.2),
    ),
    ("Rate limit reached. Please try again in 1m30s.", later(seconds=90)),
    ("Rate limit reached. Please try again in 820ms.", later(milliseconds=820)),
    ("exceeded retry limit, last status: 429 Too Many Requests", None),
    (
        'API Error: 429 {"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your '
        "organization's rate limit of 50,000 input tokens per minute.\"}}",
        None,
    ),
    ("API Error: Request rejected (429) · This request would exceed your account's rate limit. Try again later.", None),
    (
        '{"error":{"code":429,"message":"Quota exceeded for quota metric \'Generate requests\'. Please retry in '
        '41.302s.","status":"RESOURCE_EXHAUSTED"}}',
        later(seconds=41.302),
    ),
    (
        '[{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"41s"}]}}]',
        later(seconds=41),
    ),
    (
        "You have exhausted your capacity on this model. Your quota will reset after 3h25m12s.",
        later(hours=3, minutes=25, seconds=12),
    ),
    ("You have exhausted your daily quota on this model.", None),
    ("You exceeded your current quota, please check your plan and billing details.", None),
    (
        "Error code: 429 - {'error': {'message': '...', 'type': 'insufficient_quota', 'code': 'insufficient_quota'}}",
        None,
    ),
    ("Your credit balance is too low to access the Anthropic API.", None),
    ("402 Payment Required: Insufficient credits. Add more using https://openrouter.ai/settings/credits", None),
    ("HTTP 429: too many requests\nretry-after: 30", later(seconds=30)),
    ("429 Too Many Requests, Retry-After: Sat, 28 Nov 2026 12:07:00 GMT", at(28, 12, 7)),
    ("status: 429, headers: {'retry-after': '12', 'x-request-id': 'r'}", later(seconds=12)),
    ("litellm.RateLimitError: AnthropicException - rate_limit_error, retry-after-ms: 1500", later(seconds=1.5)),
    (
        f'{{"error":{{"type":"usage_limit_reached","plan_type":"plus","resets_at":{int(at(30, 6).timestamp())}}}}}',
        at(30, 6),
    ),
    ('{"type":"usage_limit_reached","resets_in_seconds":5400}', later(seconds=5400)),
    ("rate_limit_error: resets at 2026-11-28T18:30:00Z", at(28, 18, 30)),
    ("quota exceeded; x-ratelimit-reset: 2026-11-28T18:30:00+02:00", at(28, 16, 30)),
    ("ThrottlingException: Too many tokens, please wait before trying again.", None),
    ("You've reached your monthly limit. It resets on Dec 1 at 12:00 AM UTC", at(1, 0, month=12)),
    ("Sorry, you have exceeded your premium request allowance quota. Quota exceeded.", None),
]

OTHERS: list[tuple[str, Ending]] = [
    (
        'API Error: 529 {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        "provider_unavailable",
    ),
    (
        "API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment.",
        "provider_unavailable",
    ),
    ("503 Service Unavailable", "provider_unavailable"),
    ("unexpected status 502 Bad Gateway: upstream, url: https://api.openai.com/v1/responses", "provider_unavailable"),
    (
        '{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}',
        "provider_unavailable",
    ),
    ("litellm.InternalServerError: OpenAIException - Connection error.", "provider_unavailable"),
    ("API Error: Unable to connect to API (ConnectionRefused)", "provider_unavailable"),
    (
        "stream disconnected before completion: error sending request for url (http://127.0.0.1:9/v1/responses)",
        "provider_unavailable",
    ),
    ("FetchError: request to https://x failed, reason: connect ECONNREFUSED 127.0.0.1:9", "provider_unavailable"),
    ("TypeError: fetch failed", "provider_unavailable"),
    ("getaddrinfo ENOTFOUND api.anthropic.com", "provider_unavailable"),
    ("httpx.ConnectError: [Errno -3] Temporary failure in name resolution", "provider_unavailable"),
    ("Request timed out.", "provider_unavailable"),
    ("The server had an error processing your request. server_error", "provider_unavailable"),
    ("prompt is too long: 210000 tokens > 200000 maximum", "context_exhausted"),
    ("Prompt is too long", "context_exhausted"),
    (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
        "context_exhausted",
    ),
    ("Error code: 400 - {'error': {'code': 'context_length_exceeded'}}", "context_exhausted"),
    (
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "context_exhausted",
    ),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "context_exhausted"),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", "context_exhausted"),
    ("Codex ran out of room in the model's context window. Start a new thread.", "context_exhausted"),
    ("litellm.ContextWindowExceededError: OllamaException", "context_exhausted"),
    ("Model openai/gpt-4o has hit a token limit!", "context_exhausted"),
    ("the request exceeds the available context size, try increasing it", "context_exhausted"),
    ("Request too large for gpt-4o: please reduce the length of the messages", "context_exhausted"),
    (
        'API Error: 401 {"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
        "environment",
    ),
    ("Invalid API key · Please run /login", "environment"),
    ("Incorrect API key provided: sk-…. You can find your API key at https://platform.openai.com", "environment"),
    ("API key not valid. Please pass a valid API key.", "environment"),
    ("unexpected status 401 Unauthorized: Missing bearer or basic authentication in header", "environment"),
    ("OAuth token has expired. Please obtain a new token or refresh your existing token.", "environment"),
    ("Error: No authentication information found.", "environment"),
    ("The model `gpt-9` does not exist or you do not have access to it.", "environment"),
    ('API Error: 404 {"error":{"type":"not_found_error","message":"model: claude-9"}}', "environment"),
    ("ProviderModelNotFoundError", "environment"),
    ("error: unexpected argument '--jsom' found", "environment"),
    ("Reached maximum number of turns (1)", "limits"),
    ("Reached max session turns for this session.", "limits"),
]


@pytest.mark.parametrize("said,when", QUOTA)
def test_a_quota_and_its_end(said: str, when: datetime | None) -> None:
    end = failed(said, NOW)
    assert (end.ending, end.until) == ("quota", when)
    assert end.text == said


@pytest.mark.parametrize("said,ending", OTHERS)
def test_other_trouble(said: str, ending: Ending) -> None:
    assert failed(said, NOW).ending == ending


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Traceback (most recent call last): line 429, in main",
        "529 tests passed, 503 skipped",
        "All done.",
        "I have reset the counter at 3pm as you asked.",
    ],
)
def test_what_says_nothing_known(said: str) -> None:
    assert known(said, NOW) is None
    assert failed(said, NOW).ending == "environment"


@pytest.mark.parametrize(
    "status,ending",
    [(429, "quota"), (529, "provider_unavailable"), (500, "provider_unavailable"), (401, "environment")],
)
def test_a_status_that_is_told_needs_no_words(status: int, ending: Ending) -> None:
    assert failed("something", NOW, status).ending == ending


@pytest.mark.parametrize(
    "said",
    [
        "No conversation found with session ID: 0",
        "Error: thread/resume: thread/resume failed: no rollout found for thread id 0 (code -32600)",
        'Error resuming session: Invalid session identifier "0".',
        "Error: Session not found",
        "Error: No session, task, or name matched '0'.",
    ],
)
def test_a_conversation_that_is_gone(said: str) -> None:
    assert gone(said)
    assert failed(said, NOW).ending == "environment"


def test_times_that_cannot_be_believed() -> None:
    assert until(f"resets at {int(later(days=DAYS_MAX + 1).timestamp())}", NOW) is None
    assert until(f"resets at {int(later(seconds=-1).timestamp())}", NOW) is None
    assert until("resets Feb 31, 3pm", NOW) is None
    assert until("try again in 99999999999999999999 days", NOW) is None
    assert until("resets 25:99pm (Nowhere/Land)", NOW) is None
    assert until("resets 3pm (../../etc/passwd)", NOW) in (None, at(28, 15))


def test_a_time_of_day_is_one_where_now_is() -> None:
    there = timezone(timedelta(hours=5))
    assert until("resets 6pm", NOW.astimezone(there)) == at(28, 13)


@pytest.mark.parametrize(
    "kind,code,words,ending",
    [
        ("exited", 0, "API Error: 529 Overloaded", "finished"),
        ("exited", 1, "API Error: 529 Overloaded", "provider_unavailable"),
        ("exited", 1, "", "environment"),
        ("timeout", None, "", "limits"),
        ("signalled", None, "", "cancelled"),
        ("cancelled", None, "", "cancelled"),
        ("unrunnable", 127, "cannot be started", "environment"),
    ],
)
def test_a_program_that_did_not_say_how_it_ended(kind: Kind, code: int | None, words: str, ending: Ending) -> None:
    exit = Exit(kind, code, None, 1.0, "", 0, "sha256:0", Path("log"))
    assert after(exit, words, NOW, "said").ending == ending


PIECES = (
    "resets ",
    "try again in ",
    "retry-after: ",
    "at ",
    "3pm",
    "1h",
    "99",
    "(UTC)",
    "Dec 40",
    "|1795",
    "0" * 9,
    "é",
)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8)).map("".join))
def test_no_words_can_break_it(said: str) -> None:
    end = failed(said, NOW)
    assert end.until is None or NOW < end.until <= later(days=DAYS_MAX, seconds=1)
