"""Files that are there as a whole or not at all, and locks that are taken, broken and stolen."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from beads.files import STALE_LOCK_SECONDS, Lock, break_stale, lock_of, publish
from tests.beads.clocks import Virtual
from tests.world import ROOT


def put(path: Path, data: bytes, durable: bool = False) -> None:
    sync = os.fsync if durable else None
    publish(str(path), lambda file: file.write(data), prefix="tmp_", sync=sync, share=lambda _: None)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_published_file_is_there_and_read_only(tmp_path: Path, durable: bool) -> None:
    put(tmp_path / "a", b"x" * 100_000, durable)
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444
    assert names(tmp_path) == ["a"]


def test_the_umask_is_respected(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        put(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400


def test_what_is_shared_is_so_before_it_has_its_name(tmp_path: Path) -> None:
    seen: list[bool] = []

    def share(path: str) -> None:
        seen.append((tmp_path / "a").exists())
        Path(path).chmod(0o464)

    publish(str(tmp_path / "a"), lambda file: file.write(b""), prefix="tmp_", sync=None, share=share)
    assert seen == [False]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o464


def test_a_temporary_file_that_is_swept_up_before_it_has_its_name_is_written_again(tmp_path: Path) -> None:
    swept: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"x")
        if len(swept) < 3:
            swept.extend(names(tmp_path))
            (tmp_path / swept[-1]).unlink()

    publish(str(tmp_path / "a"), write, prefix="tmp_", sync=None, share=lambda _: None)
    assert ((tmp_path / "a").read_bytes(), names(tmp_path), len(set(swept))) == (b"x", ["a"], 3)


def test_a_file_that_is_swept_up_each_time_is_given_up(tmp_path: Path) -> None:
    def write(_: BinaryIO) -> None:
        (tmp_path / names(tmp_path)[0]).unlink()

    with pytest.raises(FileNotFoundError):
        publish(str(tmp_path / "a"), write, prefix="tmp_", sync=None, share=lambda _: None)
    assert names(tmp_path) == []


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path / "a", b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(str(tmp_path / "a"), fail, prefix="tmp_", sync=os.fsync, share=lambda _: None)
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


def test_somebody_elses_temporary_file_is_left_alone(tmp_path: Path) -> None:
    # A process of the same id, killed earlier or running in another container, may have left some.
    seen: list[str] = []
    publish(
        str(tmp_path / "a"), lambda _: None, prefix="tmp_", sync=None, share=lambda path: seen.append(Path(path).name)
    )
    process, number = seen[0].removeprefix("tmp_").split("_")
    others = [tmp_path / f"tmp_{process}_{int(number) + more}" for more in range(1, 6)]
    for other in others:
        other.touch()
    put(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert [other.read_bytes() for other in others] == [b""] * 5


_ON_A_FULL_DISK = """
import os, resource, sys
from pathlib import Path
from beads.files import Lock, publish

place = Path(sys.argv[1])
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))

def put():
    publish(str(place / "a"), lambda f: f.write(b"x" * 99), prefix="tmp_", sync=os.fsync, share=lambda _: None)

def move():
    with Lock.take(place / "ref") as lock:
        lock.replace(b"x" * 41)

for write in put, move:
    try:
        write()
    except OSError as error:
        print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "ref").write_bytes(b"old")
    command = [sys.executable, "-c", _ON_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("File too large\n" * 2, "")
    assert (names(tmp_path), (tmp_path / "ref").read_bytes()) == (["ref"], b"old")


# --- locks -----------------------------------------------------------------------------------------------------


def test_one_takes_the_lock_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "refs" / "deep" / "main"
    lock = Lock.take(path)
    assert lock is not None
    assert Lock.take(path) is None
    with lock:
        assert lock.replace(b"new\n")
    assert (path.read_bytes(), names(path.parent)) == (b"new\n", ["main"])
    again = Lock.take(path)
    assert again is not None
    with again:
        pass
    assert (path.read_bytes(), names(path.parent)) == (b"new\n", ["main"])


def test_a_directory_that_git_removes_at_the_wrong_moment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "refs" / "main", os.open

    def remove_first(name: Path, flags: int, mode: int = 0o777) -> int:
        monkeypatch.setattr(os, "open", opened)
        path.parent.rmdir()
        return opened(name, flags, mode)

    monkeypatch.setattr(os, "open", remove_first)
    lock = Lock.take(path)
    assert lock is not None
    with lock:
        assert lock.replace(b"new\n")
    assert path.read_bytes() == b"new\n"


def test_an_empty_directory_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    lock = Lock.take(tmp_path / "main")
    assert lock is not None
    with lock:
        assert lock.replace(b"new\n")
    assert (tmp_path / "main").read_bytes() == b"new\n"


def test_a_full_directory_is_an_obstacle(tmp_path: Path) -> None:
    (tmp_path / "main" / "deeper").mkdir(parents=True)
    lock = Lock.take(tmp_path / "main")
    assert lock is not None
    with pytest.raises(OSError, match="directory"), lock:
        lock.replace(b"new\n")
    assert names(tmp_path) == ["main"]


def test_a_lock_that_was_removed_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "main").write_bytes(b"old")
    stopped = Lock.take(tmp_path / "main")
    assert stopped is not None
    lock_of(tmp_path / "main").unlink()
    with stopped:
        assert not stopped.replace(b"zombie")
    assert (names(tmp_path), (tmp_path / "main").read_bytes()) == (["main"], b"old")


def test_a_lock_that_another_one_has_now_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "main").write_bytes(b"old")
    stopped = Lock.take(tmp_path / "main")
    assert stopped is not None
    lock_of(tmp_path / "main").unlink()
    owner = Lock.take(tmp_path / "main")
    assert owner is not None
    with stopped:
        assert not stopped.replace(b"zombie")
    with owner:
        assert owner.replace(b"new")
    assert (names(tmp_path), (tmp_path / "main").read_bytes()) == (["main"], b"new")


def test_what_nobody_touches_is_removed_after_a_moment(tmp_path: Path) -> None:
    clock = Virtual()
    (tmp_path / "a.lock").touch()
    break_stale(tmp_path / "a.lock", clock)
    assert names(tmp_path) == []
    assert STALE_LOCK_SECONDS <= clock.elapsed < STALE_LOCK_SECONDS + 0.1


def test_what_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    clock = Virtual()
    break_stale(tmp_path / "a.lock", clock)
    assert clock.elapsed == 0
    (tmp_path / "a.lock").touch()
    clock.meanwhile = (tmp_path / "a.lock").unlink
    break_stale(tmp_path / "a.lock", clock)
    assert clock.elapsed < 0.1


def test_what_somebody_touches_stays(tmp_path: Path) -> None:
    lock, clock = tmp_path / "a.lock", Virtual()
    lock.touch()

    def touch() -> None:
        lock.write_bytes(b"alive")
        os.utime(lock, ns=(1, int(clock.elapsed * 1e9)))

    clock.meanwhile = touch
    break_stale(lock, clock)
    assert lock.read_bytes() == b"alive"
    assert clock.elapsed < 0.1


def test_the_lock_of_the_next_owner_stays(tmp_path: Path) -> None:
    lock, clock = tmp_path / "a.lock", Virtual()
    lock.touch()

    def next_owner() -> None:
        if clock.elapsed >= STALE_LOCK_SECONDS:
            lock.unlink()
            lock.write_bytes(b"next")

    clock.meanwhile = next_owner
    break_stale(lock, clock)
    assert lock.read_bytes() == b"next"


def test_the_lock_of_an_owner_who_comes_at_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, flock = tmp_path / "a.lock", fcntl.flock
    lock.touch()

    def change_first(handle: int, kind: int) -> None:
        lock.unlink()
        lock.write_bytes(b"next")
        flock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", change_first)
    break_stale(lock, Virtual())
    assert lock.read_bytes() == b"next"


def test_two_that_waited_for_the_same_lock_remove_it_one_at_a_time(tmp_path: Path) -> None:
    lock, clock = tmp_path / "a.lock", Virtual()
    lock.touch()
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        break_stale(lock, clock)
        assert lock.exists(), "the other one is about to remove it"
    break_stale(lock, clock)
    assert not lock.exists()
