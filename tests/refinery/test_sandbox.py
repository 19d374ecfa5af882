"""What a process gets to see."""

from __future__ import annotations

import pytest

from beads.errors import InvalidInput
from refinery.processes import JOB, MARKER
from refinery.redaction import Secrets
from refinery.sandbox import environment, secrets

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


def test_secrets_are_what_is_allowed_besides_the_usual() -> None:
    user = {**USER, "API_KEY": "sk-0123456789", "PATH": "/a/path/that/is/long"}
    assert secrets(user, ["API_*", "PATH"]) == Secrets((("API_KEY", "sk-0123456789"),))
    assert not secrets(user, ())
