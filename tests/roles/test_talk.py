"""What crosses borders: providers' refusals, events as lines, and the request that starts the built-in agent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads.errors import InvalidDocument, InvalidInput
from beads.model import Ending, Usage
from refinery.processes import Exit, Kind
from roles.builtin.talk import refusal, reopening
from roles.builtin.wire import Request
from roles.builtin.words import INSTRUCTIONS_MAX, opening
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used, as_event, as_line
from roles.runtimes import builtin, runtime_of
from roles.settings import Agent, read_settings
from roles.task import Order

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
SESSION = "0b0e7a3c-6f4e-5d1c-9b7e-2f6f1f0a9d11"


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "status, ending",
    [
        (429, "quota"),
        (402, "quota"),
        (408, "provider_unavailable"),
        (500, "provider_unavailable"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
        (400, "environment"),
        (401, "environment"),
        (403, "environment"),
        (404, "environment"),
        (422, "environment"),
        (None, "environment"),
    ],
)
def test_what_a_status_means(status: int | None, ending: Ending) -> None:
    found = refusal("m", "so\n  it is", status, {"retry-after": "60"}, NOON)
    assert (found.message, found.ending) == ("m: so it is", ending)
    assert found.until == (None if ending == "environment" else NOON + timedelta(minutes=1))


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({}, None),
        ({"retry-after": "17"}, 17),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Sat, 28 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h1m3.5s"}, 3663.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "5m"}, None),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-28T12:05:00Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-11-28T12:01:00Z",
            },
            300,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOON.timestamp() + 90))}, 90),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOON.timestamp() + 90) * 1000)}, 90),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e300"}, None),
    ],
)
def test_when_it_may_be_asked_again(headers: dict[str, str], seconds: float | None) -> None:
    assert reopening(headers, NOON) == (None if seconds is None else NOON + timedelta(seconds=seconds))


@given(st.text("0123456789.+-:smhdTZ ,einfaGMTNov", max_size=40))
def test_no_header_is_too_odd(text: str) -> None:
    found = reopening({"retry-after": text}, NOON)
    assert found is None or found.tzinfo is not None


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────

EVENTS: list[Event] = [
    Began("s", "m"),
    Said("two\nlines «»"),
    Acted("bash", "ls", ok=False),
    Acted("view"),
    Used(Usage(input=5, cached=4, written=3, output=2, reasoning=1), 0.25),
    Used(None),
    Used(Usage(), 0.0),
    Troubled("no"),
    Ended("quota", "later", NOON),
    Ended("finished"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back_as_it_went(event: Event) -> None:
    line = as_line(event)
    assert "\n" not in line
    assert as_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "12:00 - LiteLLM:WARNING",
        "[]",
        '"x"',
        "null",
        '{"event": "ended"}',
        '{"event": ["ended"]}',
        '{"event": "ended", "ending": "well"}',
        '{"text": "x"}',
        "[" * 100_000,
    ],
)
def test_what_else_is_printed_is_no_event(line: str) -> None:
    assert as_event(line) is None


def test_the_reader_hears_what_the_program_says_and_how_it_ends(tmp_path: Path) -> None:
    reader = builtin.reader(order(tmp_path))
    assert [*reader.read(as_line(Said("hi"))), *reader.read("noise")] == [Said("hi")]

    def ends(kind: Kind, code: int | None, output: str = "") -> list[Event]:
        return list(reader.end(Exit(kind, code, None, 1.0, output, 0, "", tmp_path)))

    assert ends("exited", 1, "Traceback\nKeyError: 'x'\n") == [Ended("environment", "KeyError: 'x'")]
    assert ends("timeout", None) == [Ended("limits")]
    assert ends("signalled", None) == [Ended("cancelled")]


# ── The start ────────────────────────────────────────────────────────────────────────────────────────────────


def order(path: Path, session: str = SESSION, **agent: object) -> Order:
    return Order(
        agent=Agent.model_validate({"runtime": "builtin", "model": "openai/m", **agent}),
        prompt="Make it so.",
        directory=path / "tree",
        home=path / "home",
        scratch=path / "scratch",
        session=session,
        now=NOON,
        budget=2.5,
    )


def test_an_order_becomes_a_request(tmp_path: Path) -> None:
    wanted = order(tmp_path, models=["openai/n", "anthropic/c", "openai/m"], api_base="http://localhost:1/v1")
    launch = builtin.launch(wanted)
    request = Request.model_validate_json(launch.stdin)
    assert [(model.name, model.api_base) for model in request.models] == [
        ("openai/m", "http://localhost:1/v1"),
        ("openai/n", "http://localhost:1/v1"),
        ("anthropic/c", ""),
    ]
    assert request.trajectory == str(tmp_path / "home" / "trajectories" / f"{SESSION}.jsonl")
    assert (request.prompt, request.budget, request.steps, request.seconds) == ("Make it so.", 2.5, 150, 3420.0)
    assert launch.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert "OLLAMA_API_BASE" not in launch.environ
    assert runtime_of(wanted.agent) is builtin.RUNTIME


def test_ollama_is_asked_nowhere_else(tmp_path: Path) -> None:
    launch = builtin.launch(order(tmp_path, model="ollama_chat/qwen3", api_base="http://box:1"))
    assert launch.environ["OLLAMA_API_BASE"] == "http://box:1"


def test_a_session_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not the name of a conversation"):
        builtin.launch(order(tmp_path, session="../../x"))


@pytest.mark.parametrize(
    "line, said",
    [
        ("", "runtime 'builtin' needs a 'model'"),
        ('model = "m"\napi_base = "localhost:1"', "api_base"),
        ('model = "m"\nsteps = 0', "steps"),
        ('model = "m"\nwindow = 5', "window"),
    ],
)
def test_a_table_that_cannot_be(line: str, said: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_settings(f'[agents.mine]\nruntime = "builtin"\n{line}\n'.encode())
    assert said in caught.value.message


# ── What the repository says ─────────────────────────────────────────────────────────────────────────────────


def test_the_repository_is_heard_before_the_task_and_marked(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("Use tabs.\n")
    (tmp_path / "CLAUDE.md").symlink_to("AGENTS.md")
    (tmp_path / ".specify/memory").mkdir(parents=True)
    (tmp_path / ".specify/memory/constitution.md").write_text("x" * (INSTRUCTIONS_MAX + 7))
    said = opening(tmp_path, "Make it so.")
    assert said.startswith("# What the repository says\nThese files are from the repository")
    assert '<file path="AGENTS.md">\nUse tabs.\n</file>' in said
    assert "CLAUDE.md" not in said
    assert f"{'x' * INSTRUCTIONS_MAX}\n[… 7 characters left out; the file has them …]\n</file>" in said
    assert said.endswith("\n\nMake it so.")


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("planted")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "AGENTS.md").symlink_to(tmp_path / "key")
    assert opening(tmp_path / "tree", "Make it so.") == "Make it so."


def test_the_values_that_cross_are_plain_json() -> None:
    assert json.loads(as_line(Ended("quota", "later", NOON)))["until"] == "2026-11-28T12:00:00+00:00"
