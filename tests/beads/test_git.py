"""The repository under the store: where it is, what its refs say, what is broken in it, and who else writes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beads.errors import NotFound, TownError, Unreadable
from beads.files import STALE_LOCK_SECONDS, Lock
from beads.git import Change, Oid, Repository
from beads.model import path_of
from beads.objects import Objects
from beads.ops import Create, Operation, Say
from beads.store import REF, Store
from tests.beads.clocks import Virtual
from tests.beads.scratch import scratch
from tests.beads.strategies import NOW, bead
from tests.world import commit as commit_files
from tests.world import git, make_repository


@pytest.fixture
def store(repo: Path, clock: Virtual) -> Store:
    """A store with two beads."""
    store = Store.init(repo, "ada", clock=clock)
    store.commit("ada", [Create(bead=bead("bt-0")), Create(bead=bead("bt-1"))])
    return store


def many(count: int = 100) -> list[Operation]:
    return [Create(bead=bead(f"bt-x{number}")) for number in range(count)]


def litter(store: Store) -> list[str]:
    """Files that only a process in the middle of writing has."""
    names = (path.name for path in store.repository.common.rglob("*"))
    return sorted(name for name in names if name.endswith((".lock", ".keep")) or name.startswith("tmp_"))


def intact(store: Store, beads: int = 2) -> None:
    assert len(Store.open(store.repository.common).snapshot()) == beads
    git(store.repository.common, "fsck", "--strict")
    assert litter(store) == []


# --- where it is -----------------------------------------------------------------------------------------------


def _bare(repo: Path) -> Path:
    git(repo.parent, "clone", "--quiet", "--bare", str(repo), "bare.git")
    return repo.parent / "bare.git"


def _linked(repo: Path) -> Path:
    git(repo, "worktree", "add", "--quiet", "../linked")
    (repo.parent / "linked" / "deep").mkdir()
    return repo.parent / "linked" / "deep"


def _submodule(repo: Path) -> Path:
    outer = make_repository(repo.parent / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "inner")
    return outer / "inner"


def _separate(repo: Path) -> Path:
    git(repo, "init", "--quiet", "--separate-git-dir", "../elsewhere.git")
    return repo


def _through_a_link(repo: Path) -> Path:
    (repo.parent / "link").symlink_to(repo / "src", target_is_directory=True)
    return repo.parent / "link"


PLACES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "top": (lambda repo: repo, "repo/.git"),
    "subdirectory": (lambda repo: repo / "src", "repo/.git"),
    "file": (lambda repo: repo / "src" / "a.py", "repo/.git"),
    "not there yet": (lambda repo: repo / "src" / "new" / "er", "repo/.git"),
    "git directory": (lambda repo: repo / ".git", "repo/.git"),
    "inside the git directory": (lambda repo: repo / ".git" / "refs", "repo/.git"),
    "up and down again": (lambda repo: repo / "src" / ".." / "src", "repo/.git"),
    "bare": (_bare, "bare.git"),
    "linked": (_linked, "repo/.git"),
    "submodule": (_submodule, "outer/.git/modules/inner"),
    "separate": (_separate, "elsewhere.git"),
    "through a link": (_through_a_link, "repo/.git"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_store_is_found_from(repo: Path, name: str) -> None:
    make, expected = PLACES[name]
    commit_files(repo, {"src/a.py": ""}, "Source")
    start = make(repo)
    store = Store.init(start, "ada")
    store.commit("ada", [Create(bead=bead("bt-0"))])
    common = (repo.parent / expected).resolve()
    assert store.repository.common == common
    assert store.directory == common / "beads"
    assert (common / REF).is_file()
    assert len(Store.open(start).snapshot()) == 1
    assert git(common, "rev-list", "--count", REF) == "2"


def test_all_work_trees_have_one_store(repo: Path) -> None:
    linked = _linked(repo)
    store = Store.init(linked, "ada")
    store.commit("ada", [Create(bead=bead("bt-0"))])
    assert Store.open(repo).snapshot().get("bt-0") == Store.open(linked).snapshot().get("bt-0") != None  # noqa: E711
    assert store.repository.control == repo / ".git" / "worktrees" / "linked"


def test_relative_places_are_from_where_one_is(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.init(repo, "ada")
    monkeypatch.chdir(repo)
    assert Store.open(Path()).repository.common == repo / ".git"
    (repo.parent / "other").mkdir()
    with pytest.raises(Unreadable, match=r"\.\./other is not inside a Git repository"):
        Store.open(Path("../other"))


def test_no_repository_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="not inside a Git repository") as caught:
        Store.open(tmp_path)
    assert "git init" in caught.value.hint


def test_no_store_is_said_so(repo: Path) -> None:
    with pytest.raises(NotFound, match="no store at refs/beads/main") as caught:
        Store.open(repo)
    assert "init" in caught.value.hint
    assert not (repo / ".git" / "beads").exists()


@pytest.mark.parametrize("text", ["gitdir: /nowhere", "gitdir: ../nowhere\n", "gitdir: .git", "", "what?", "\xff"])
def test_a_git_file_that_leads_nowhere_is_not_passed_over(repo: Path, text: str) -> None:
    Store.init(repo, "ada")
    (repo / "inner").mkdir()
    (repo / "inner" / ".git").write_bytes(text.encode("latin-1"))
    with pytest.raises(Unreadable):
        Store.open(repo / "inner")


def test_an_empty_git_directory_is_passed_over(repo: Path) -> None:
    Store.init(repo, "ada")
    (repo / "inner" / ".git").mkdir(parents=True)
    assert Store.open(repo / "inner").repository.common == repo / ".git"


_EXTENSION = "[core]\n\trepositoryformatversion = {}\n[extensions]\n\t{} = {}\n"


@pytest.mark.parametrize(
    "config",
    [
        _EXTENSION.format(1, "objectFormat", "sha256"),
        _EXTENSION.format(1, "refStorage", "reftable"),
        _EXTENSION.format(1, "compatObjectFormat", "sha256"),
        _EXTENSION.format(1, "inventedTomorrow", "true"),
        "[core]\n\trepositoryformatversion = 2\n",
        "[Core]\n\tRepositoryFormatVersion = 3\n",
        "[core\n",
        "[core]\n\tcompression = much\n",
    ],
)
def test_a_repository_of_another_kind_is_not_damaged(repo: Path, config: str) -> None:
    (repo / ".git" / "config").write_text(config)
    before = sorted(repo.rglob("*"))
    with pytest.raises(Unreadable, match=r"\.git"):
        Store.init(repo, "ada")
    assert sorted(repo.rglob("*")) == before


@pytest.mark.parametrize(
    "name,value",
    [
        ("partialClone", "origin"), ("worktreeConfig", "true"), ("relativeWorktrees", "true"), ("noop", "true"),
        ("preciousObjects", "true"), ("objectFormat", "sha1"), ("refStorage", "files"),
    ],
)  # fmt: skip
def test_extensions_that_do_not_matter_do_not_matter(repo: Path, name: str, value: str) -> None:
    (repo / ".git" / "config").write_text(_EXTENSION.format(1, name, value))
    assert Store.init(repo, "ada").commit("ada", many()).changed


def test_a_repository_without_configuration_is_one(repo: Path) -> None:
    (repo / ".git" / "config").unlink()
    assert Store.init(repo, "ada").commit("ada", [Create(bead=bead("bt-0"))]).changed


def test_what_a_group_shares_it_can_write(repo: Path) -> None:
    git(repo, "config", "core.sharedRepository", "group")
    objects = repo / ".git" / "objects"
    there = {path.name for path in objects.iterdir()}
    before = os.umask(0o077)
    try:
        store = Store.init(repo, "ada")
        store.commit("ada", many())
    finally:
        os.umask(before)
    oid = store.repository.head(REF) or ""
    [pack] = objects.glob("pack/*.pack")
    init = git(repo, "rev-parse", f"{REF}^")
    assert pack.stat().st_mode & 0o777 == 0o440
    assert (objects / init[:2] / init[2:]).stat().st_mode & 0o777 == 0o440
    made = [path for path in objects.iterdir() if path.name not in there]
    assert [path.name for path in made if path.stat().st_mode & 0o2070 != 0o2070] == []
    assert len(oid) == 40


# --- refs ------------------------------------------------------------------------------------------------------


def test_a_packed_ref_is_read_and_moved(store: Store, repo: Path) -> None:
    for number in range(3):
        git(repo, "pack-refs", "--all", "--prune")
        assert not (repo / ".git" / REF).exists()
        assert len(Store.open(repo).snapshot()) == 2
        assert store.commit("ada", [Say(id="bt-0", text=f"{number}")]).changed
        assert len(Store.open(repo).snapshot().need("bt-0").comments) == number + 1, "the loose one is newer"


def test_other_peoples_refs_may_have_any_name(store: Store, repo: Path) -> None:
    head = store.snapshot().commit
    for name in (b"refs/heads/\xff", b"refs/heads/x/refs/beads/main", b"refs/beads/main2", b"refs/tags/v1"):
        git(repo, "update-ref", os.fsdecode(name), head)
    git(repo, "tag", "-a", "-m", "x", "annotated")
    git(repo, "pack-refs", "--all", "--prune")
    assert store.repository.head(REF) == head
    assert store.repository.head("refs/beads/nothing") is None
    assert store.repository.head("refs/beads") is None


def test_an_empty_directory_hides_no_packed_ref(store: Store, repo: Path) -> None:
    git(repo, "pack-refs", "--all", "--prune")
    (repo / ".git" / REF).mkdir(parents=True)
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    intact(store)


@pytest.mark.parametrize(
    "data,problem",
    [
        (b"", "damaged"), (b"\0" * 41, "damaged"), (b"\xff\xfe", "damaged"), (b"0123", "damaged"),
        (b"ref: refs/heads/main\n", "a symbolic ref"),
    ],
)  # fmt: skip
def test_a_ref_that_names_no_commit_is_said_so(store: Store, data: bytes, problem: str) -> None:
    (store.repository.common / REF).write_bytes(data)
    for attempt in (store.snapshot, lambda: Store.open(store.repository.common), lambda: store.commit("a", many())):
        with pytest.raises(Unreadable, match=problem):
            attempt()
    assert (store.repository.common / REF).read_bytes() == data
    assert litter(store) == []


def test_a_ref_that_cannot_be_read_is_said_so(store: Store) -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        store.repository.head(f"refs/{'x' * 300}")


@pytest.mark.parametrize("kind", ["blob", "tree", "nothing", "other commit"])
def test_a_ref_that_names_something_else_is_said_so(store: Store, repo: Path, kind: str) -> None:
    tree = git(repo, "rev-parse", f"{REF}^{{tree}}")
    oids = {
        "blob": git(repo, "rev-parse", f"{tree}:format.toml"),
        "tree": tree,
        "nothing": "0" * 39 + "1",
        "other commit": git(repo, "rev-parse", "main"),
    }
    (store.repository.common / REF).write_text(f"{oids[kind]}\n")
    with pytest.raises((Unreadable, NotFound)):
        Store.open(repo).snapshot()


def test_swapping_is_comparing_first(store: Store) -> None:
    repository, head = store.repository, store.snapshot().commit
    parent = repository.commit(head).parents[0]
    assert not repository.swap(REF, None, parent)
    assert not repository.swap(REF, parent, parent)
    assert not repository.swap("refs/beads/new", head, head)
    assert repository.head(REF) == head
    assert repository.swap("refs/beads/new", None, head)
    assert repository.swap(REF, head, parent)
    assert (repository.head(REF), repository.head("refs/beads/new")) == (parent, head)
    assert litter(store) == []


def test_a_place_that_a_ref_is_in_the_way_of(store: Store) -> None:
    head = store.snapshot().commit
    with pytest.raises(Unreadable, match="cannot be written"):
        store.repository.swap(f"{REF}/deeper", None, head)
    with pytest.raises(Unreadable, match="cannot be written"):
        store.repository.swap("refs/beads", None, head)
    intact(store)


# --- locks -----------------------------------------------------------------------------------------------------


def test_the_lock_of_a_dead_process_is_waited_for_a_moment_and_removed(store: Store, clock: Virtual) -> None:
    (store.repository.common / f"{REF}.lock").write_bytes(b"half")
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert STALE_LOCK_SECONDS <= clock.elapsed < STALE_LOCK_SECONDS + 0.1
    intact(store)
    before = clock.elapsed
    assert store.commit("ada", [Say(id="bt-0", text="y")]).changed
    assert clock.elapsed == before


def test_a_lock_that_goes_is_waited_for_no_longer(store: Store, clock: Virtual) -> None:
    lock = Lock.take(store.repository.common / REF)
    assert lock is not None

    def let_go() -> None:
        if clock.elapsed > 0.05:
            clock.meanwhile = lambda: None
            lock.__exit__()

    clock.meanwhile = let_go
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert clock.elapsed < 0.1
    intact(store)


def test_a_lock_that_somebody_keeps_touching_is_respected(store: Store, clock: Virtual) -> None:
    lock = store.repository.common / f"{REF}.lock"
    lock.touch()
    head = store.snapshot().commit
    clock.meanwhile = lambda: os.utime(lock, ns=(1, int(clock.elapsed * 1e9)))
    with pytest.raises(Unreadable, match=r"main\.lock has been held by another process for 10 s") as caught:
        store.commit("ada", [Say(id="bt-0", text="x")])
    assert str(lock) in caught.value.hint
    assert clock.elapsed < 10 * STALE_LOCK_SECONDS + 0.1
    assert (store.repository.head(REF), lock.exists()) == (head, True)


def test_who_was_stopped_while_it_had_the_lock_has_lost(store: Store, clock: Virtual) -> None:
    # It was stopped after it had looked, and somebody else has taken its lock for a dead one's.
    head = store.snapshot().commit
    stopped = Lock.take(store.repository.common / REF)
    assert stopped is not None
    store.commit("ada", [Say(id="bt-0", text="x")])
    with stopped:
        assert not stopped.replace(f"{head}\n".encode())
    assert store.repository.head(REF) != head
    assert STALE_LOCK_SECONDS <= clock.elapsed < 2 * STALE_LOCK_SECONDS
    intact(store)


def _die_with_the_lock(store: Store) -> None:
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lock, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            store.commit("ada", [Say(id="bt-0", text="x")])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_the_lock_of_a_writer_that_was_killed_is_not_waited_for(store: Store, clock: Virtual) -> None:
    _die_with_the_lock(store)
    assert litter(store) == ["main.lock", *(name for name in litter(store) if name.endswith(".keep"))]
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert clock.elapsed == 0
    intact(store)


def test_the_lock_of_another_program_is_waited_for_even_then(store: Store, clock: Virtual) -> None:
    _die_with_the_lock(store)
    lock = store.repository.common / f"{REF}.lock"
    lock.rename(lock.with_name("kept"))
    lock.touch()
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert STALE_LOCK_SECONDS <= clock.elapsed < STALE_LOCK_SECONDS + 0.1


def test_a_writer_that_hangs_holds_up_the_others_for_so_long_and_no_longer(store: Store, clock: Virtual) -> None:
    with (store.directory / "writer").open() as hanging:
        fcntl.flock(hanging, fcntl.LOCK_EX)
        assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert 10.0 <= clock.elapsed < 10.1
    intact(store)


def test_what_older_writers_left_beside_objects_is_no_obstacle(store: Store, clock: Virtual) -> None:
    for number in range(256):
        folder = store.repository.common / "objects" / f"{number:02x}"
        folder.mkdir(exist_ok=True)
        (folder / f"{'0' * 38}.lock").touch()
        (folder / "tmp_obj_1_1").touch()
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert clock.elapsed == 0


def test_sweeping_removes_what_dead_writers_left_and_nothing_else(store: Store, clock: Virtual) -> None:
    pack = store.repository.common / "objects" / "pack"
    (pack / "pack-1.keep").write_bytes(b"beadtown\n")
    (pack / "pack-2.keep").write_bytes(b"receive-pack 7 on host\n")
    (store.repository.common / f"{REF}.lock").touch()
    (store.repository.common / "refs" / "heads" / "main.lock").touch()
    with (pack / "pack-3.keep").open("xb") as alive:
        alive.write(b"beadtown\n")
        alive.flush()
        fcntl.flock(alive, fcntl.LOCK_EX)
        store.sweep()
        assert litter(store) == ["main.lock", "pack-2.keep", "pack-3.keep"]
    store.sweep()
    assert litter(store) == ["main.lock", "pack-2.keep"]
    assert clock.elapsed < 2 * STALE_LOCK_SECONDS


def test_what_kept_the_pack_of_a_writer_goes_after_its_death_and_not_before(store: Store) -> None:
    _die_with_the_lock(store)
    (keep,) = (name for name in litter(store) if name.endswith(".keep"))
    # Whoever writes now may be who the pack is of.
    with (store.directory / "writer").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        store.repository.objects.sweep()
        assert keep in litter(store)
    store.repository.objects.sweep()
    assert keep not in litter(store)
    _die_with_the_lock(store)
    assert [name for name in litter(store) if name.endswith(".keep")] != []
    store.sweep()
    assert litter(store) == []


def test_a_file_system_without_links_is_as_good(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    assert store.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert len(store.repository.objects.own) > 0
    intact(store)


def test_git_removes_the_temporary_files_of_killed_writers(store: Store, repo: Path) -> None:
    left = {"13/tmp_obj_7_1", "pack/tmp_pack_7_2", "pack/tmp_idx_7_3"}
    for name in left:
        path = repo / ".git" / "objects" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert len(litter(store)) == 3
    git(repo, "prune", "--expire=now")
    intact(store)


# --- Git tidies up meanwhile -----------------------------------------------------------------------------------

TIDY = [("repack", "-adq"), ("gc", "--quiet"), ("pack-refs", "--all", "--prune"), ("prune-packed", "--quiet")]


FILES = pytest.mark.parametrize(
    "files", [{"a": b"x"}, {path_of(f"bt-x{n}"): f"{n}".encode() for n in range(9)}], ids=["loose", "packed"]
)


@FILES
@pytest.mark.parametrize("task", TIDY, ids=lambda task: task[0])
def test_what_is_written_and_not_yet_published_survives(
    store: Store, repo: Path, task: tuple[str, ...], files: dict[str, bytes]
) -> None:
    repository, head = store.repository, store.snapshot().commit
    tree = repository.commit(head).tree
    written = repository.write(tree, files, parents=(head,), author="a <b>", when=NOW, message="x")
    git(repo, *task)
    assert repository.swap(REF, head, written)
    git(repo, "fsck", "--strict", "--connectivity-only")
    again = Repository(repo)
    after = again.commit(written).tree
    assert {change.path: again.read(change.new) for change in again.changes(tree, after) if change.new} == files
    assert litter(store) == []
    git(repo, *task)
    assert {path: repository.read(oid) for path in files if (oid := again.find(after, path))} == files


@pytest.mark.parametrize("task", TIDY, ids=lambda task: task[0])
def test_a_reader_that_stays_reads_on(store: Store, repo: Path, task: tuple[str, ...]) -> None:
    reader = Store.open(repo)
    for number in range(3):
        store.commit("ada", [Say(id="bt-0", text=f"{number}")])
        assert len(reader.snapshot().need("bt-0").comments) == number + 1
        git(repo, *task)
        assert len(reader.snapshot()) == 2
        assert len(reader.snapshot().need("bt-0").comments) == number + 1


def test_the_same_pack_is_written_once(store: Store, repo: Path) -> None:
    repository, head = store.repository, store.snapshot().commit
    files = {path_of(f"bt-x{number}"): b"x" for number in range(100)}

    def write() -> Oid:
        return repository.write(None, files, parents=(head,), author="a <b>", when=NOW, message="x")

    first = write()
    before = {path: path.stat() for path in (repo / ".git/objects/pack").iterdir()}
    assert write() == first
    assert {path: path.stat() for path in (repo / ".git/objects/pack").iterdir()} == before
    # Killed before the index was there, the pack is none.
    index = max((repo / ".git/objects/pack").glob("*.idx"), key=lambda path: path.stat().st_size)
    index.unlink()
    assert write() == first
    assert repository.swap(REF, head, first)
    git(repo, "fsck", "--strict", "--full")
    assert litter(store) == []


def test_an_object_that_is_there_is_not_written_again_but_made_young(store: Store) -> None:
    repository, head = store.repository, store.snapshot().commit

    def write() -> Oid:
        return repository.write(None, {"a": b"x"}, parents=(head,), author="a <b>", when=NOW, message="x")

    oid = write()
    path = repository.common / "objects" / oid[:2] / oid[2:]
    os.utime(path, (0, 0))
    before = path.stat()
    assert write() == oid
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > before.st_mtime


def test_an_object_that_moves_to_another_pack_under_a_readers_eyes_is_read(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, listed = store.snapshot().commit, Objects._listed
    git(repo, "repack", "-adq")

    def move_first(objects: Objects) -> list[str]:
        # Between seeing which packs there are and opening one of them.
        names = listed(objects)
        monkeypatch.setattr(Objects, "_listed", listed)
        git(repo, "commit", "--quiet", "--allow-empty", "--message", "another pack")
        git(repo, "repack", "-adq")
        return names

    reader = Repository(repo)
    monkeypatch.setattr(Objects, "_listed", move_first)
    assert reader.commit(head).oid == head


@pytest.mark.usefixtures("store")
def test_alternates_are_read(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--shared", "--mirror", str(repo), "shared.git")
    borrowed = Store.open(tmp_path / "shared.git")
    assert borrowed.commit("ada", [Say(id="bt-0", text="x")]).changed
    assert len(borrowed.snapshot()) == 2


@FILES
@pytest.mark.parametrize("lax", [False, True])
def test_what_a_ref_names_is_on_the_disk_first(
    store: Store, repo: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], lax: bool
) -> None:
    git(repo, "config", "core.fsyncObjectFiles", str(not lax).lower())
    events: list[tuple[str, int, str]] = []
    synced, renamed = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append(("synced", os.fstat(handle).st_ino, ""))
        synced(handle)

    def replace(source: str | Path, target: str | Path) -> None:
        events.append(("named", Path(source).stat().st_ino, Path(target).name))
        renamed(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    repository, head = Repository(repo), store.snapshot().commit
    written = repository.write(None, files, parents=(head,), author="a <b>", when=NOW, message="x")
    assert repository.swap(REF, head, written)
    named = [(number, file, name) for number, (kind, file, name) in enumerate(events) if kind == "named"]
    assert named[-1][2] == "main"
    assert len(named) == (3 if len(files) > 1 else 4)
    late = [name for number, file, name in named if ("synced", file, "") not in events[:number]]
    assert len(late) == (3 if lax and len(files) == 1 else 0)


# --- it cannot be written --------------------------------------------------------------------------------------


def _no_directory(common: Path) -> None:
    shutil.rmtree(common / "beads")
    (common / "beads").touch()


def _no_packs(common: Path) -> None:
    (common / "objects" / "pack").rename(common / "objects" / "elsewhere")
    (common / "objects" / "pack").touch()


@pytest.mark.parametrize("hinder", [_no_directory, _no_packs])
def test_what_cannot_be_written_is_said_so_and_changes_nothing(store: Store, hinder: Callable[[Path], None]) -> None:
    before = store.snapshot()
    hinder(store.repository.common)
    with pytest.raises(Unreadable, match="cannot be written") as caught:
        store.commit("ada", many(9))
    assert str(store.repository.common) in caught.value.message
    assert (store.repository.head(REF), litter(store)) == (before.commit, [])
    assert len(store.snapshot()) == 2


# --- it is damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"garbage", b"x\x9c\x03\x00"], ids=["empty", "garbage", "short"])
def test_a_damaged_object_is_said_so(store: Store, damage: bytes) -> None:
    for path in (store.repository.common / "objects").glob("??/*"):
        path.chmod(0o644)
        whole = path.read_bytes()
        for data in (damage, whole[: len(whole) // 2]):
            path.write_bytes(data)
            assert answers(store.repository.common)
        path.write_bytes(whole)
    intact(store)


def answers(place: Path) -> bool:
    """Whether who reads everything is given what was written, or an error with words for people."""
    try:
        return [one.id for one in Store.open(place).snapshot()] == ["bt-0", "bt-1"]
    except TownError as error:
        return bool(error.message)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_nothing_else_is_raised(store: Store, repo: Path, seed: int) -> None:
    chance = random.Random(seed)
    if seed % 2:
        git(repo, "repack", "-adq")
        git(repo, "pack-refs", "--all")
    files = sorted(path for path in (repo / ".git" / "objects").rglob("*") if path.is_file())
    for _ in range(25):
        path = chance.choice(files)
        path.chmod(0o644)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert answers(repo)
        path.write_bytes(whole)
    intact(store)


# --- trees -----------------------------------------------------------------------------------------------------

_paths = st.lists(st.sampled_from(["a", "b", "c.toml", "\udcff"]), min_size=1, max_size=3).map("/".join)
_trees = st.dictionaries(_paths, st.binary(max_size=3), max_size=6)


def _fitting(files: Mapping[str, bytes], there: Iterable[str] = ()) -> dict[str, bytes]:
    """Those of the files that can be together, and with others that are there: none is a directory of another one."""
    kept: dict[str, bytes] = {}
    for path, data in files.items():
        others = {*there, *kept} - {path}
        if not any(f"{path}/".startswith(f"{o}/") or f"{o}/".startswith(f"{path}/") for o in others):
            kept[path] = data
    return kept


def test_a_tree_is_no_commit_and_a_commit_no_tree(store: Store) -> None:
    head = store.snapshot().commit
    with pytest.raises(Unreadable, match="is not a tree"):
        store.repository.find(head, "beads")
    with pytest.raises(Unreadable, match="is not a commit"):
        store.repository.commit(store.repository.commit(head).tree)


def test_more_trees_than_are_kept_at_hand_are_read_as_well(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit("ada", many())
    monkeypatch.setattr("beads.git._TREES_MAX", 3)
    assert len(Store.open(store.repository.common).snapshot()) == 102


@given(_trees, _trees)
@settings(max_examples=40)
def test_a_tree_is_what_was_put_in(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    first = _fitting(first)
    second = _fitting(second, first)
    both = {**first, **second}
    assume(first)
    with scratch() as place:
        repository = Repository(place)

        def write(base: Oid | None, files: Mapping[str, bytes | None]) -> Oid:
            made = repository.write(base, files, parents=(), author="a <b>", when=NOW, message="x")
            return repository.commit(made).tree

        old = write(None, first)
        new = write(old, second)
        fresh = Repository(place)
        assert {c.path: fresh.read(c.new) for c in fresh.changes(None, old) if c.new} == first
        assert {c.path: fresh.read(c.new) for c in fresh.changes(None, new) if c.new} == both
        changed = {path for path in second if first.get(path) != second[path]}
        assert {c.path for c in fresh.changes(old, new)} == changed
        assert {c.path for c in fresh.changes(new, old)} == changed
        assert list(fresh.changes(new, new)) == list(fresh.changes(None, None)) == []
        back = [Change(c.path, c.new, c.old) for c in fresh.changes(old, new)]
        assert sorted(back, key=lambda c: c.path) == sorted(fresh.changes(new, old), key=lambda c: c.path)
        assert all(fresh.find(new, path) for path in both)
        assert fresh.find(new, "nothing/here") is None
        assert write(new, second) == new
        left = {path: data for path, data in first.items() if path not in second}
        assert write(new, dict.fromkeys(second)) == write(None, left)
        git(place, "fsck", "--strict", "--no-dangling")
