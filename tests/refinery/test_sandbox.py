"""What a process gets to see."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads.errors import InvalidInput
from refinery.processes import JOB, MARKER
from refinery.sandbox import REDACTED, SECRET_MIN, environment, redact

USER = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "LC_TIME": "de_DE",
    "TZ": "UTC",
    "TERM": "xterm-256color",
    "API_KEY": "secret",
    "API_URL": "https://example.org",
    "PYTHONPATH": "/evil",
    "GIT_DIR": "/elsewhere",
    "LD_PRELOAD": "/evil.so",
}


def test_a_process_sees_who_and_where_it_is_and_no_more() -> None:
    assert environment(USER, (), {}) == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "LC_TIME": "de_DE",
        "TZ": "UTC",
        "TERM": "dumb",
    }


def test_more_is_allowed_by_name_or_by_how_it_begins() -> None:
    assert environment(USER, ["API_*", "TERM", "ABSENT"], {}).keys() - environment(USER, [], {}).keys() == {
        "API_KEY",
        "API_URL",
    }
    assert environment(USER, ["TERM"], {})["TERM"] == "xterm-256color"
    assert environment(USER, ["API"], {}) == environment(USER, [], {})
    assert environment(USER, ["*"], {}) == USER


def test_what_is_set_wins() -> None:
    assert environment(USER, ["API_KEY"], {"API_KEY": "other", "HOME": "/tmp", "EMPTY": ""}) == {
        **environment(USER, [], {}),
        "API_KEY": "other",
        "HOME": "/tmp",
        "EMPTY": "",
    }


def test_a_town_inside_a_job_passes_on_whose_it_is() -> None:
    outer = {MARKER: "outer", JOB: "1"}
    assert environment(outer, (), {}).items() >= outer.items()


@pytest.mark.parametrize("name", ["", "A*B", "*A", "A=B", "**"])
def test_names_that_no_variable_has(name: str) -> None:
    with pytest.raises(InvalidInput, match="environment variable"):
        environment(USER, [name], {})


@pytest.mark.parametrize("name,value", [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")])
def test_variables_that_cannot_be(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be set"):
        environment(USER, [], {name: value})


def test_secrets_are_taken_out_as_they_are_and_as_json() -> None:
    secret = 'sk-"ä"\n\\x'
    text = f"plain {secret}, dumped {json.dumps(secret)}, as it is {json.dumps(secret, ensure_ascii=False)}."
    assert redact(text, [secret]) == f'plain {REDACTED}, dumped "{REDACTED}", as it is "{REDACTED}".'


def test_of_overlapping_secrets_nothing_is_left() -> None:
    assert redact("xabcdefx", ["abcd", "cdef"]) == f"x{REDACTED}x"
    assert redact("abcdabcd", ["abcd"]) == REDACTED * 2
    assert redact("aaaaaa", ["aaaa"]) == REDACTED
    assert redact("token-12345", ["token", "token-12345"]) == REDACTED


def test_what_is_too_short_to_be_a_secret_stays() -> None:
    assert redact("a and b", ["a", "", "and"]) == "a and b"


@given(st.text("ab-", max_size=60), st.lists(st.text("ab-", max_size=6), max_size=5))
def test_no_secret_survives_and_nothing_else_goes(text: str, secrets: list[str]) -> None:
    said = redact(text, secrets)
    long = [secret for secret in secrets if len(secret) >= SECRET_MIN]
    assert not [secret for secret in long if secret in said]
    if not any(secret in text for secret in long):
        assert said == text
    parts = said.split(REDACTED)
    assert text.startswith(parts[0])
    assert text.endswith(parts[-1])
