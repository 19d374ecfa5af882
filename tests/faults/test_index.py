"""Whatever becomes of the files that are kept to read the store fast: the answers are those of the store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beads.ops import Create, Say
from beads.store import Store
from tests.beads.strategies import bead
from tests.cli.commands import PROGRAM
from tests.faults.scenarios import LONG, Outcome, done, forget
from tests.world import git

# tests/beads/test_index.py has the quick ones.
pytestmark = pytest.mark.slow

QUESTIONS = (
    ("ready", "--json"),
    ("list", "--all", "--json"),
    ("blocked", "--json"),
    ("show", "bt-1", "--json"),
    ("why", "bt-1", "--json"),
    ("search", "work", "--json"),
    ("stats", "--json"),
)


def answers(repo: Path) -> list[Outcome]:
    return [done(repo, *question) for question in QUESTIONS]


@pytest.fixture
def used(repo: Path) -> Path:
    """A repository with a store that has been looked at."""
    done(repo, "init")
    for number in range(8):
        done(repo, "create", f"Work {number}", "--id", f"bt-{number}", *(["--needs", "bt-0"] if number % 2 else []))
    done(repo, "close", "bt-2")
    answers(repo)
    return repo


def place(repo: Path, ending: str = "") -> Path:
    return repo / ".git" / "beads" / f"index.db{ending}"


def _garbage(repo: Path) -> None:
    place(repo).write_bytes(random.Random(0).randbytes(20_000))


def _text(repo: Path) -> None:
    place(repo).write_text("<<<<<<< ours\n")


def _empty(repo: Path) -> None:
    place(repo).write_bytes(b"")


def _half(repo: Path) -> None:
    if place(repo).exists():
        os.truncate(place(repo), place(repo).stat().st_size // 2)


def _header(repo: Path) -> None:
    if place(repo).exists():
        os.truncate(place(repo), 100)


def _holes(repo: Path) -> None:
    """Every other page has become nothing, the first one excepted."""
    if place(repo).exists():
        with place(repo).open("r+b") as file:
            for start in range(4096, place(repo).stat().st_size, 8192):
                file.seek(start)
                file.write(bytes(4096))


def _flipped(repo: Path) -> None:
    """Some bits are not what they were."""
    if place(repo).exists():
        data, chance = bytearray(place(repo).read_bytes()), random.Random(0)
        for _ in range(200):
            data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
        place(repo).write_bytes(data)


def _directory(repo: Path) -> None:
    forget(repo)
    place(repo).mkdir()


def _full_directory(repo: Path) -> None:
    _directory(repo)
    (place(repo) / "file").write_text("mine\n")


def _dangling(repo: Path) -> None:
    forget(repo)
    place(repo).symlink_to("nowhere/index.db")


def _endless(repo: Path) -> None:
    forget(repo)
    place(repo).symlink_to("index.db")


def _another_version(repo: Path) -> None:
    with sqlite3.connect(place(repo)) as database:
        database.execute("PRAGMA user_version = 9999")
    database.close()


def _another_program(repo: Path) -> None:
    forget(repo)
    with sqlite3.connect(place(repo)) as database:
        database.execute("CREATE TABLE beads (colour TEXT)")
        database.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    database.close()


def _each_table(repo: Path, statement: str) -> None:
    """Do something to every table that we may write: the inner ones of a full-text index are not for us."""
    with sqlite3.connect(place(repo)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            with contextlib.suppress(sqlite3.Error):
                database.execute(statement.format(name))
    database.close()


def _emptied(repo: Path) -> None:
    """All tables are there and nothing is in them."""
    _each_table(repo, 'DELETE FROM "{}"')


def _without_tables(repo: Path) -> None:
    _each_table(repo, 'DROP TABLE IF EXISTS "{}"')


def _strange_log(repo: Path) -> None:
    for ending in ("-wal", "-shm", "-journal"):
        place(repo, ending).write_bytes(random.Random(1).randbytes(40_000))


def _log_is_a_directory(repo: Path) -> None:
    for ending in ("-wal", "-shm", "-journal"):
        place(repo, ending).unlink(missing_ok=True)
        place(repo, ending).mkdir()


def _anothers(repo: Path) -> None:
    """That of another store, put there by somebody who copies directories."""
    other = repo.parent / "other"
    shutil.copytree(repo, other)
    done(other, "create", "Of the other", "--id", "bt-other")
    done(other, "close", "bt-0")
    answers(other)
    shutil.rmtree(repo / ".git" / "beads")
    shutil.copytree(other / ".git" / "beads", repo / ".git" / "beads")


def _no_directory(repo: Path) -> None:
    shutil.rmtree(repo / ".git" / "beads")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": forget,
    "garbage": _garbage,
    "text": _text,
    "empty": _empty,
    "half": _half,
    "only the header": _header,
    "holes": _holes,
    "flipped bits": _flipped,
    "a directory": _directory,
    "a full directory": _full_directory,
    "a link to nowhere": _dangling,
    "a link to itself": _endless,
    "of another version": _another_version,
    "of another program": _another_program,
    "emptied": _emptied,
    "without tables": _without_tables,
    "a strange log": _strange_log,
    "a log that is a directory": _log_is_a_directory,
    "that of another clone": _anothers,
    "without its directory": _no_directory,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("first", ["read", "written"])
def test_a_damaged_index_changes_no_answer(used: Path, damage: str, first: str) -> None:
    forget(used)
    expected = answers(used)
    DAMAGES[damage](used)
    if first == "written":
        done(used, "comment", "bt-1", "Found it.")
        done(used, "create", "Another", "--id", "bt-9", "--needs", "bt-1")
    else:
        assert answers(used) == expected
        # And it is not made worse by being looked at.
        assert answers(used) == expected
    done(used, "close", "bt-0")
    after = answers(used)
    copy = Path(shutil.copytree(used, used.parent / "copy", symlinks=True))
    shutil.rmtree(copy / ".git" / "beads")
    assert after == answers(copy)
    git(used, "fsck", "--strict", "--no-dangling")


# What somebody must have put there on purpose is not removed; it costs time and no more.
_LEFT_ALONE = {"a directory", "a full directory", "a link to itself", "a log that is a directory"}


@pytest.mark.parametrize("damage", sorted({*DAMAGES} - _LEFT_ALONE))
def test_an_index_that_was_damaged_is_mended(used: Path, damage: str) -> None:
    if not place(used).exists():
        pytest.skip("there is no index yet")
    DAMAGES[damage](used)
    answers(used)
    database = sqlite3.connect(f"file:{place(used)}?mode=ro", uri=True)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


_HOLDER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.read()
"""

HOLDS = {
    "another writer": ["BEGIN IMMEDIATE"],
    "one who wants it alone": ["BEGIN EXCLUSIVE"],
    "one who never lets go": ["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"],
    "a reader": ["BEGIN", "SELECT * FROM sqlite_master"],
}


@pytest.fixture
def hold(used: Path) -> Iterator[Callable[[str], None]]:
    """Have another process hold on to the index, until the end of the test."""
    holders: list[subprocess.Popen[str]] = []

    def start(how: str) -> None:
        command = [sys.executable, "-c", _HOLDER, str(place(used)), *HOLDS[how]]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"

    yield start
    for holder in holders:
        holder.communicate()


# Each of the others is waited for, which takes its time.
@pytest.mark.parametrize("how", HOLDS if LONG else ["a reader"])
def test_an_index_that_another_process_holds_for_ever_holds_up_nobody(
    used: Path, hold: Callable[[str], None], how: str
) -> None:
    copy = Path(shutil.copytree(used, used.parent / "copy"))
    hold(how)
    for args in ("comment", "bt-1", "Found it."), ("create", "Another", "--id", "bt-9"), ("close", "bt-0"):
        written = subprocess.run([*PROGRAM, *args], cwd=used, capture_output=True, timeout=120, check=False)
        assert written.returncode == 0, written.stderr
        done(copy, *args)
    read = subprocess.run([*PROGRAM, "ready"], cwd=used, capture_output=True, text=True, timeout=120, check=False)
    assert (read.returncode, read.stdout, read.stderr) == (0, done(copy, "ready").out, "")


@pytest.mark.skipif(not LONG, reason="`make faults` waits for it")
def test_one_that_stopped_while_it_made_the_index_anew_holds_up_nobody(used: Path) -> None:
    copy = Path(shutil.copytree(used, used.parent / "copy"))
    forget(used)
    with (used / ".git" / "beads" / "indexer").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for args in ("ready",), ("comment", "bt-1", "Found it."), ("list",):
            ran = subprocess.run([*PROGRAM, *args], cwd=used, capture_output=True, text=True, timeout=60, check=False)
            assert (ran.returncode, ran.stderr) == (0, "")
    assert "Found it." in done(used, "show", "bt-1").out
    assert "Found it." not in done(copy, "show", "bt-1").out


def test_an_index_that_is_deleted_while_in_use_is_made_anew(used: Path) -> None:
    store = Store.open(used)
    for number in range(6):
        seen = {found.id for found in store.snapshot()}
        if number % 2:
            shutil.rmtree(used / ".git" / "beads")
        else:
            forget(used)
        assert {found.id for found in store.snapshot()} == seen
        store.commit("ada", [Create(bead=bead(f"bt-d{number}")), Say(id="bt-1", text=f"{number}")])
        assert {found.id for found in store.snapshot()} == seen | {f"bt-d{number}"}
        assert [found.id for found in Store.open(used).snapshot()] == [found.id for found in store.snapshot()]


def test_an_index_that_another_process_replaces_while_in_use_is_noticed(used: Path) -> None:
    store, other = Store.open(used), Store.open(used)
    for number in range(6):
        len(store.snapshot())
        forget(used)
        other.commit("eve", [Create(bead=bead(f"bt-d{number}"))])
        answers(used)
        assert f"bt-d{number}" in {found.id for found in store.snapshot()}
        store.commit("ada", [Say(id=f"bt-d{number}", text="seen")])
        assert other.snapshot().need(f"bt-d{number}").comments[0].text == "seen"
