"""The home of an agent's program: what it signs in with, and that nothing is written through what it left there."""

from __future__ import annotations

from pathlib import Path

import pytest

from roles.housing import link, put, sweep


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The user's home, with one of two files to sign in with."""
    (tmp_path / "user/.claude").mkdir(parents=True)
    (tmp_path / "user/.claude/key").write_text("key")
    return tmp_path / "user"


def test_what_is_there_to_sign_in_with_is_linked(home: Path, user: Path) -> None:
    for _ in range(2):
        link(home, user, (".claude/key", ".codex/auth.json"))
        assert (home / ".claude/key").readlink() == user / ".claude/key"
        assert not (home / ".codex").exists()


def test_what_a_program_put_in_place_of_a_link_is_replaced(home: Path, user: Path) -> None:
    (home / ".claude").mkdir()
    (home / ".claude/key").write_text("another")
    link(home, user, (".claude/key",))
    assert (home / ".claude/key").read_text() == "key"


def test_nothing_is_written_through_a_link(home: Path, user: Path) -> None:
    (home / ".config").symlink_to(user)
    (home / "settings").symlink_to(user / ".claude/key")
    (home / "file").write_text("in the way")
    put({home / ".config/x/settings": "a", home / "settings": "b", home / "file/settings": "c"}, home)
    assert [(home / name).read_text() for name in (".config/x/settings", "settings", "file/settings")] == [
        "a",
        "b",
        "c",
    ]
    assert (user / ".claude/key").read_text() == "key"
    assert sorted(path.name for path in user.iterdir()) == [".claude"]


def test_texts_that_no_file_can_hold_are_written_all_the_same(home: Path) -> None:
    put({home / "prompt": "a\ud800b"}, home)
    assert (home / "prompt").read_text() == "a?b"


def test_what_is_no_work_is_swept_away(home: Path, user: Path) -> None:
    (home / ".cache.v1").mkdir()
    (home / ".cache.v1/x").write_text("x")
    (home / ".cache.v2").symlink_to(user)
    (home / "work").write_text("work")
    sweep(home, (".cache.v*", "none"))
    assert [path.name for path in home.iterdir()] == ["work"]
    assert user.is_dir()
