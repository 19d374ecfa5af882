"""What a terminal gets, what a pipe gets, and what JSON looks like."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cli import render
from tests.cli.commands import PROGRAM, Beads


def terminal(*args: str, cwd: Path, environ: Mapping[str, str], columns: int = 60) -> str:
    """What ``bead ARGS`` prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    environ = {**environ, "COLUMNS": str(columns), "TERM": environ.get("TERM", "xterm")}
    with subprocess.Popen(
        [*PROGRAM, *args], cwd=cwd, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        said = b""
        # The end of a terminal's other side is an error on Linux and an empty read elsewhere.
        try:
            while more := os.read(ours, 65536):
                said += more
        except OSError:
            pass
        os.close(ours)
        assert running.wait() == 0, said
    return said.decode().replace("\r\n", "\n")


def test_a_terminal_gets_columns_that_fit(beads: Beads, environ: dict[str, str]) -> None:
    beads.create("A title that is much too long for such a narrow terminal", "--id", "bt-one")
    beads.create("短い", "--id", "bt-second", "-t", "feature")
    said = terminal("list", cwd=beads.repository, environ=environ)
    assert "\x1b[32mready" in said
    plain = terminal("list", cwd=beads.repository, environ={**environ, "NO_COLOR": "1"})
    assert plain.splitlines() == [
        "id         pri  state  type     title",
        "bt-one     P2   ready  task     A title that is much too lo…",
        "bt-second  P2   ready  feature  短い",
    ]
    assert "\x1b" not in terminal("list", cwd=beads.repository, environ={**environ, "TERM": "dumb"})


def test_a_terminal_is_told_that_there_is_nothing(beads: Beads, environ: dict[str, str]) -> None:
    assert terminal("ready", cwd=beads.repository, environ=environ) == "nothing found\n"
    assert beads.run("ready") == ""


def test_a_terminal_shows_one_bead(beads: Beads, environ: dict[str, str]) -> None:
    beads.create("One", "--id", "bt-one", "-d", "Why", "-l", "x")
    said = terminal("show", "bt-one", cwd=beads.repository, environ=environ)
    assert "\x1b[1mbt-one\x1b[0m  One" in said
    assert "\x1b[1mDescription\x1b[0m\n  Why" in said


def test_a_pipe_gets_tabs_and_whole_cells() -> None:
    assert render.table([("a\tb\nc", ("red", "red"), "x" * 500)], ("one", "two", "three")) == f"a b c\tred\t{'x' * 500}"
    assert render.table([], ("one",)) == ""


@pytest.mark.parametrize(
    "text,columns",
    [("", 0), ("abc", 3), ("短い", 4), ("e\u0301", 1), ("ünï", 3), ("\U0001f600", 2)],
)
def test_width_is_in_columns(text: str, columns: int) -> None:
    assert render.width(text) == columns


def test_cut_never_exceeds() -> None:
    assert render.cut("短い題", 6) == "短い題"
    assert render.cut("短い題名", 6) == "短い…"
    assert render.cut("abcdef", 3) == "ab…"


def test_text_cannot_move_the_cursor() -> None:
    assert render.printable("a\x1b[2Jb\r\x9bc\u202ed\te\n\udcff") == "a\\x1b[2Jb\\x0d\\x9bc\\u202ed\te\n\\udcff"


def test_json_says_what_it_was_given() -> None:
    value = {"text": "ü \x1b \x9b \u202e \udcff", "list": (1, None, True), "path": Path("/a")}
    text = render.json_text(value)
    assert json.loads(text) == {"text": "ü \x1b \x9b \u202e \udcff", "list": [1, None, True], "path": "/a"}
    assert "ü" in text
    assert not set(text) & set("\x1b\x9b\u202e\udcff")


def test_moments_are_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, 2, 3, 456789, timezone(timedelta(hours=2)))
    assert render.rfc3339(moment) == "2025-12-31T23:02:03.456Z"
    assert render.moment(moment) == "2025-12-31 23:02 UTC"
    assert render.moment(None) == ""
