"""The built-in agent's tools: real commands and files, and what a model is told where something cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beads.clock import SystemClock
from roles.builtin.talk import Call
from roles.builtin.tools import QUIET, TOOLS, Create, Hands, Misused, Result, StrReplace, View, described, read
from tests.towns import until


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    tree = tmp_path / "tree"
    (tree / ".git").mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], **QUIET}
    return Hands(tree, tmp_path / "scratch", environ, 1000, SystemClock())


def do(hands: Hands, tool: str, **arguments: object) -> Result:
    return hands.do(read(Call("1", tool, json.dumps(arguments)), TOOLS), 100.0)


def test_a_command_runs_in_the_tree_with_nobody_to_ask(hands: Hands) -> None:
    done = do(
        hands, "bash", command='pwd; cat; git --version | cat > version; echo "$PAGER" "$GIT_TERMINAL_PROMPT" >&2; tty'
    )
    assert done == Result(f"exit 1\n{hands.directory}\ncat 0\nnot a tty\n", ok=False)


def test_a_long_output_has_its_head_its_tail_and_what_is_between_them_counted(hands: Hands) -> None:
    said = do(hands, "bash", command="seq 100000").text
    assert said.startswith("exit 0\n1\n2\n")
    assert said.endswith("\n99999\n100000\n")
    assert "bytes left out" in said
    assert len(said) < 1100


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(hands: Hands) -> None:
    asleep = f"sleep 61.{os.getpid()}"
    done = do(hands, "bash", command=f"{asleep} & setsid {asleep} & echo begun; {asleep}", timeout=1)
    assert done == Result("It was killed with all that it started, after 1 s.\nbegun\n", ok=False)
    until(lambda: subprocess.run(["pgrep", "-f", asleep], check=False, capture_output=True).stdout == b"")


def test_what_a_command_leaves_in_the_background_is_ended(hands: Hands) -> None:
    asleep = f"sleep 62.{os.getpid()}"
    assert do(hands, "bash", command=f"{asleep} & echo ok").text == "exit 0\nok\n"
    until(lambda: subprocess.run(["pgrep", "-f", asleep], check=False, capture_output=True).stdout == b"")


def test_no_command_outlives_the_time_that_is_left(hands: Hands) -> None:
    done = hands.do(read(Call("1", "bash", '{"command": "sleep 60"}'), TOOLS), 0.5)
    assert done.text.startswith("It was killed with all that it started, after 1 s.")


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_look_has_numbers_and_its_limits(hands: Hands) -> None:
    (hands.directory / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 500)))
    assert (
        do(hands, "view", path="a.txt", first=3, lines=2).text == "a.txt has 499 lines.\n     3\tline 3\n     4\tline 4"
    )
    said = do(hands, "view", path="a.txt").text
    assert said.endswith(f"… {200 - len(said.splitlines()) + 2} lines left out …")
    assert len(said) < 1100
    assert do(hands, "view", path="a.txt", first=500) == Result("a.txt has 499 lines.\n", ok=False)


def test_a_line_without_end_is_cut(hands: Hands) -> None:
    (hands.directory / "min.js").write_text("x" * 5000)
    hands = Hands(hands.directory, hands.scratch, {}, 4000, SystemClock())
    assert do(hands, "view", path="min.js").text.endswith(f"{'x' * 10} … 4000 characters left out …")


def test_a_directory_is_a_list(hands: Hands) -> None:
    (hands.directory / "b").mkdir()
    (hands.directory / "a").write_text("")
    assert do(hands, "view", path=".").text == ".git/\na\nb/"
    assert do(hands, "view", path="b").text == "The directory is empty."


@pytest.mark.parametrize(
    "make, said",
    [
        ("true", "there is no file 'f'"),
        ("mkfifo f", "there is no file 'f'"),
        (r"printf 'a\0b' > f", "f is no text"),
        ("truncate -s 11M f", "f has more than 10 MB"),
    ],
)
def test_what_cannot_be_shown_is_said(hands: Hands, make: str, said: str) -> None:
    subprocess.run(["sh", "-c", make], cwd=hands.directory, check=True)
    done = do(hands, "view", path="f")
    assert (done.ok, said in done.text) == (False, True)


# ── Changing ─────────────────────────────────────────────────────────────────────────────────────────────────

CODE = """\
def first():
    return 1


def second():
    return 1
"""


def test_a_text_that_is_there_once_is_replaced(hands: Hands) -> None:
    path = hands.directory / "a.py"
    path.write_text(CODE)
    done = do(hands, "str_replace", path="a.py", old="second():\n    return 1", new="second():\n    return 2")
    assert done == Result("Replaced in line 5 of a.py.")
    assert path.read_text() == CODE[:-2] + "2\n"


@pytest.mark.parametrize(
    "old, said",
    [
        ("    return 1\n", "The text is there 2 times, in lines 2, 6. Give more of what is around it."),
        (
            "def second():\n        return 1\n",
            "The text is not in a.py. Like it are:\n     5\tdef second():\n     6\t    return 1",
        ),
        ("def secnd(x):\n", "Like it are:\n     5\tdef second():"),
        ("SELECT * FROM nowhere", "Nothing in it is like it."),
        ("\n\n\n\n\n", "Nothing in it is like it."),
    ],
)
def test_a_text_that_is_not_there_once_changes_nothing(hands: Hands, old: str, said: str) -> None:
    path = hands.directory / "a.py"
    path.write_text(CODE)
    done = do(hands, "str_replace", path="a.py", old=old, new="x")
    assert (done.ok, path.read_text()) == (False, CODE)
    assert said in done.text


def test_a_change_keeps_line_ends_and_bytes_that_are_no_text(hands: Hands) -> None:
    path = hands.directory / "a.txt"
    path.write_bytes(b"one\r\ntwo\r\n\xff\xfe\r\n")
    assert do(hands, "str_replace", path="a.txt", old="one\ntwo\n", new="1\n2\n").ok
    assert path.read_bytes() == b"1\r\n2\r\n\xff\xfe\r\n"


def test_a_file_is_made_and_never_overwritten(hands: Hands) -> None:
    assert do(hands, "create", path="deep/er/a.txt", text="a\nb\n") == Result("deep/er/a.txt is written, 2 lines.")
    done = do(hands, "create", path="deep/er/a.txt", text="c\n")
    assert (done.ok, "exists" in done.text) == (False, True)
    assert (hands.directory / "deep/er/a.txt").read_text() == "a\nb\n"


@pytest.mark.parametrize("path", ["../out", "/tmp/out-of-the-tree", "link", "link/x", ".git/config", "sub/.git", "."])
@pytest.mark.parametrize("kind", [StrReplace, Create])
def test_nothing_outside_of_the_tree_is_changed(hands: Hands, path: str, kind: type[StrReplace | Create]) -> None:
    (hands.directory / "link").symlink_to(hands.directory.parent / "elsewhere")
    more = {"text": "x"} if kind is Create else {"old": "x", "new": "y"}
    done = hands.do(kind.model_validate({"path": path, **more}), 10.0)
    assert (done.ok, "is not in the work tree" in done.text) == (False, True)
    assert not (hands.directory.parent / "elsewhere").exists()


# ── What a model says ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tool, arguments",
    [
        ("fly", "{}"),
        ("bash", ""),
        ("bash", "[]"),
        ("bash", '{"command": ""}'),
        ("bash", '{"command": "ls", "timeout": -1}'),
        ("bash", '{"command": "ls", "cwd": "/"}'),
        ("view", '{"path": "a", "first": 0}'),
        ("str_replace", '{"path": "a", "old": "", "new": "x"}'),
        ("create", '{"path": "\\ud800", "text": "x"}'),
    ],
)
def test_what_cannot_be_meant_is_no_wish(tool: str, arguments: str) -> None:
    with pytest.raises(Misused):
        read(Call("1", tool, arguments), TOOLS)


def test_a_wish_that_python_cannot_carry_out_is_answered(hands: Hands) -> None:
    assert not hands.do(View(path="a\0b"), 10.0).ok
    assert not hands.do(Create(path="a\0b", text=""), 10.0).ok
    assert not do(hands, "bash", command="echo a\0b").ok


def test_the_tools_are_told_of_plainly() -> None:
    told = {
        str(tool["function"]["name"]): tool["function"]
        for tool in described(TOOLS)
        if isinstance(tool["function"], dict)
    }
    assert list(told) == ["bash", "view", "str_replace", "create", "submit"]
    assert told["view"]["parameters"] == {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Relative to the work tree."},
            "first": {"type": "integer", "default": 1, "minimum": 1, "description": "The first line to show."},
            "lines": {"type": "integer", "default": 200, "minimum": 1, "description": "How many."},
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    assert all(function["description"] for function in told.values())
    assert "litellm" not in sys.modules
