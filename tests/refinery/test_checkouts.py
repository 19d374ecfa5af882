"""Checkouts that follow their branch, and everything they must not lose on the way."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinery.checkouts import Checkout, checkouts, follow, obstacle
from refinery.git import Git
from tests.world import environment, git, make_repository

OLD = {
    ".gitignore": "*.log\nbuild\nsecret\n",
    "changed": "old\n",
    "deleted": "old\n",
    "kept": "old\n",
    "dir/changed": "old\n",
    "becomes_dir": "old\n",
    "becomes_file/inner": "old\n",
}
NEW = {
    ".gitignore": OLD[".gitignore"],
    "changed": "new\n",
    "kept": "old\n",
    "added": "new\n",
    "secret": "new\n",
    "build/out": "new\n",
    "dir/changed": "new\n",
    "dir/added": "new\n",
    "becomes_dir/inner": "new\n",
    "becomes_file": "new\n",
}


class Moved:
    """A repository whose main went from one commit to another under a checkout of it."""

    def __init__(self, repo: Path, environ: dict[str, str]) -> None:
        self.repo = make_repository(repo, OLD)
        self.g = Git(repo, environ)
        self.old = git(repo, "rev-parse", "main")
        git(repo, "checkout", "--quiet", "-b", "work")
        git(repo, "rm", "-rq", ".")
        write(repo, NEW)
        git(repo, "add", "--all", "--force")
        git(repo, "commit", "--quiet", "-m", "New")
        self.new = git(repo, "rev-parse", "HEAD")
        git(repo, "checkout", "--quiet", "main")
        git(repo, "branch", "-D", "--quiet", "work")
        self.checkout = Checkout(repo, True)

    def move(self) -> None:
        git(self.repo, "update-ref", "refs/heads/main", self.new, self.old)

    def follow(self) -> bool:
        return follow(self.g, self.checkout, self.old, self.new)

    def obstacle(self) -> str:
        return obstacle(self.g, self.checkout, self.old, self.new)

    def status(self) -> list[str]:
        return git(self.repo, "status", "--porcelain", "--untracked-files=all").splitlines()


@pytest.fixture
def moved(tmp_path: Path, environ: dict[str, str]) -> Moved:
    return Moved(tmp_path / "moved", environ)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def disk(root: Path) -> dict[str, tuple[str, bytes]]:
    """What is on disk: kind and content of every file but Git's own."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/")[0] == ".git":
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = ("x" if path.stat().st_mode & stat.S_IXUSR else "file", path.read_bytes())
    return found


def leftovers(repo: Path) -> list[str]:
    return [path.name for path in (repo / ".git").iterdir() if "beadtown" in path.name or path.name.endswith(".lock")]


# Following


def test_a_clean_checkout_follows(moved: Moved) -> None:
    assert moved.obstacle() == ""
    moved.move()
    assert moved.obstacle() == ""
    assert moved.follow()
    assert moved.status() == []
    assert {name: text.decode() for name, (_, text) in disk(moved.repo).items()} == NEW
    assert not leftovers(moved.repo)


def test_following_twice_is_following_once(moved: Moved) -> None:
    moved.move()
    assert moved.follow()
    (moved.repo / "changed").write_text("edited since\n")
    (moved.repo / "added").unlink()
    git(moved.repo, "add", "changed")
    before = disk(moved.repo), moved.status()
    assert moved.follow()
    assert (disk(moved.repo), moved.status()) == before


def test_one_that_was_left_behind_is_repaired(moved: Moved) -> None:
    moved.move()
    assert "M  changed" in moved.status(), "that is how it looks when nobody follows"
    again = Git(moved.repo, moved.g.environ)
    (found,) = checkouts(again, "main")
    assert follow(again, found, moved.old, moved.new)
    assert moved.status() == []


def test_files_touched_but_not_changed_are_not_in_the_way(moved: Moved) -> None:
    moved.move()
    for name in OLD:
        os.utime(moved.repo / name, (1, 1))
    assert moved.follow()


def test_edits_elsewhere_stay(moved: Moved) -> None:
    write(moved.repo, {"kept": "mine\n", "mine/too": "mine\n", "x.log": "mine\n"})
    git(moved.repo, "add", "mine/too")
    moved.move()
    assert moved.obstacle() == ""
    assert moved.follow()
    assert moved.status() == [" M kept", "A  mine/too"]
    assert (moved.repo / "kept").read_text() == (moved.repo / "x.log").read_text() == "mine\n"
    assert (moved.repo / "changed").read_text() == "new\n"


def _run(*args: str) -> Callable[[Path], object]:
    return lambda repo: git(repo, *args)


def _write(**files: str) -> Callable[[Path], object]:
    return lambda repo: write(repo, {name.replace("__", "/"): text for name, text in files.items()})


def _in_turn(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda repo: [step(repo) for step in steps]


def _replace_by_link(repo: Path) -> None:
    (repo / "dir/changed").unlink()
    (repo / "dir").rmdir()
    (repo / "elsewhere").mkdir()
    (repo / "elsewhere/changed").write_text("mine\n")
    (repo / "dir").symlink_to("elsewhere")


def _edit_unseen(repo: Path) -> None:
    """Edit a file within the tick of the clock in which Git looked at it last: only the content tells."""
    git(repo, "config", "core.trustctime", "false")
    os.utime(repo / "changed", (1_000_000_000, 1_000_000_000))
    git(repo, "update-index", "--refresh")
    (repo / "changed").write_text("min\n")
    for path in (repo / "changed", repo / ".git/index"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


def _conflict(repo: Path) -> None:
    blob = git(repo, "rev-parse", "HEAD:kept")
    git(repo, "rm", "--quiet", "--cached", "kept")
    git(repo, "update-index", "--index-info", stdin="".join(f"100644 {blob} {i}\tkept\n" for i in (1, 2, 3)))


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "edited": _write(changed="mine\n"),
    "edited in the same tick": _edit_unseen,
    "staged": _in_turn(_write(changed="mine\n"), _run("add", "changed")),
    "staged and put back": _in_turn(_write(changed="mine\n"), _run("add", "."), _write(changed="old\n")),
    "edited, to be deleted": _write(deleted="mine\n"),
    "staged, to be deleted": _in_turn(_write(deleted="mine\n"), _run("add", "deleted")),
    "staged deletion": _run("rm", "--quiet", "--force", "changed"),
    "deleted from the index only": _run("rm", "--quiet", "--cached", "changed"),
    "made executable": lambda repo: (repo / "changed").chmod(0o755),
    "untracked": _write(added="mine\n"),
    "staged new": _in_turn(_write(added="mine\n"), _run("add", "added")),
    "intent to add": _in_turn(_write(added="mine\n"), _run("add", "--intent-to-add", "added")),
    "staged where a directory must be": _in_turn(_write(build="mine\n"), _run("add", "--force", "build")),
    "staged where a file must be": _in_turn(_write(added__x="mine\n"), _run("add", "added/x")),
    "staged in a directory that becomes a file": _in_turn(
        _write(becomes_file__inner="mine\n"), _run("add", "becomes_file/inner")
    ),
    "edited in a directory that becomes a file": _write(becomes_file__inner="mine\n"),
    "ignored": _write(secret="mine\n"),
    "ignored where a directory must be": _write(build="mine\n"),
    "ignored link where a directory must be": lambda repo: (repo / "build").symlink_to("nowhere"),
    "ignored in a directory that becomes a file": _write(becomes_file__x="", **{"becomes_file__a.log": "mine\n"}),
    "a directory where a file must be": _write(added__x="mine\n"),
    "an ignored file where a file in a directory must be": _write(**{"secret__x.log": "mine\n"}),
    "a dangling link": lambda repo: (repo / "added").symlink_to("nowhere"),
    "a repository": lambda repo: make_repository(repo / "added"),
    "assumed unchanged": _in_turn(_run("update-index", "--assume-unchanged", "changed"), _write(changed="mine\n")),
    "skipped": _in_turn(_run("update-index", "--skip-worktree", "changed"), _write(changed="mine\n")),
    "a directory made a link": _replace_by_link,
    "a merge under way": lambda repo: (repo / ".git/MERGE_HEAD").write_text(git(repo, "rev-parse", "HEAD") + "\n"),
    "an unfinished conflict": _conflict,
    "an am under way": lambda repo: (repo / ".git/rebase-apply").mkdir(),
    "another git at work": lambda repo: (repo / ".git/index.lock").write_text(""),
    "a damaged index": lambda repo: (repo / ".git/index").write_bytes(b"DIRC\0\0\0\2\0\0\0\3rubbish"),
}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_in_the_way_stays_as_it_is(moved: Moved, what: str, late: bool) -> None:
    if not late:
        IN_THE_WAY[what](moved.repo)
        assert moved.obstacle()
    moved.move()
    if late:
        IN_THE_WAY[what](moved.repo)
    before = disk(moved.repo), (moved.repo / ".git/index").read_bytes()
    assert moved.obstacle()
    assert not moved.follow()
    assert (disk(moved.repo), (moved.repo / ".git/index").read_bytes()) == before
    assert [name for name in leftovers(moved.repo) if name != "index.lock" or what != "another git at work"] == []


def test_it_says_what_is_in_the_way(moved: Moved) -> None:
    write(moved.repo, {"changed": "mine\n"})
    assert "'changed' not uptodate" in moved.obstacle()
    write(moved.repo, {"changed": "old\n", "secret": "mine\n"})
    assert moved.obstacle() == "secret would be overwritten."
    (moved.repo / "secret").unlink()
    (moved.repo / ".git/index.lock").touch()
    assert "locked by another git" in moved.obstacle()


def test_a_checkout_elsewhere_is_none_of_ours(moved: Moved) -> None:
    git(moved.repo, "checkout", "--quiet", "-b", "other")
    moved.move()
    before = disk(moved.repo)
    assert not moved.follow()
    assert disk(moved.repo) == before


def test_hooks_do_not_run(moved: Moved) -> None:
    for name in ("post-checkout", "post-index-change", "post-merge"):
        hook = moved.repo / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch ran\n")
        hook.chmod(0o755)
    moved.move()
    assert moved.follow()
    assert not (moved.repo / "ran").exists()


# Whatever somebody did

_PATHS = sorted({*OLD, *NEW, "new/file", "note.log", "dir/x.log", "becomes_dir", "build"})
_deed = st.tuples(
    st.sampled_from(["write", "delete", "stage", "unstage", "chmod", "link", "touch", "commit to index only"]),
    st.sampled_from(_PATHS),
    st.sampled_from(["old\n", "new\n", "mine\n", ""]),
)


def _do(repo: Path, deed: str, name: str, text: str) -> None:
    place = repo / name
    try:
        if deed == "write":
            write(repo, {name: text})
        elif deed == "delete":
            place.unlink()
        elif deed == "chmod":
            place.chmod(0o755)
        elif deed == "link":
            place.symlink_to(text.strip() or "nowhere")
        elif deed == "touch":
            os.utime(place, (1, 1))
        elif deed == "stage":
            git(repo, "add", "--force", name)
        elif deed == "unstage":
            git(repo, "rm", "-rq", "--cached", name)
        else:
            blob = git(repo, "hash-object", "-w", "--stdin", stdin=text)
            git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    except (OSError, AssertionError):
        pass  # It cannot be done in this state, and does not matter.


def _known(repo: Path, *commits: str) -> set[bytes]:
    known = set()
    for revision in commits:
        for name in git(repo, "ls-tree", "-r", "--name-only", revision).splitlines():
            known.add(git(repo, "show", f"{revision}:{name}").encode() + b"\n")
    return known


def _staged(repo: Path) -> set[str]:
    return set(git(repo, "ls-files", "--stage").splitlines())


@given(deeds=st.lists(_deed, max_size=4), late=st.booleans())
@settings(max_examples=settings().max_examples // 3)
def test_nothing_of_anybody_s_is_lost(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, str, str]], late: bool
) -> None:
    home = tmp_path_factory.mktemp("home")
    moved = Moved(home / "repo", environment(home))
    if late:
        moved.move()
    for deed in deeds:
        _do(moved.repo, *deed)
    if not late:
        moved.move()
    before, staged = disk(moved.repo), _staged(moved.repo)
    reason, went = moved.obstacle(), moved.follow()
    after = disk(moved.repo)
    assert went == (not reason)
    if not went:
        assert (after, _staged(moved.repo)) == (before, staged)
    else:
        # What is gone from where it was is in one of the two commits, as it was.
        committed = _known(moved.repo, moved.old, moved.new)
        lost = {name: was for name, was in before.items() if after.get(name) != was}
        assert all(text in committed and kind == "file" for kind, text in lost.values())
        untouched = {name for name in OLD if NEW.get(name) == OLD[name]}
        assert untouched.isdisjoint(lost)
        assert staged - _staged(moved.repo) <= _entries(moved.repo, moved.old)
    assert not leftovers(moved.repo)
    shutil.rmtree(home)


def _entries(repo: Path, revision: str) -> set[str]:
    listed = git(repo, "ls-tree", "-r", "--format=%(objectmode) %(objectname) 0%x09%(path)", revision)
    return set(listed.splitlines())


# Kills

_CHILD = """
import os, signal, sys
from pathlib import Path
from refinery import checkouts as module
from refinery.git import Git

repo, old, new, point = sys.argv[1:]
environ = dict(os.environ)
die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
if point == "locked":
    module._Index.obstacle = die
elif point == "checked":
    module._Index.move = die
elif point == "moved":
    Path.replace = die
elif point == "published":
    unlink = Path.unlink
    Path.unlink = lambda self, missing_ok=False: die() if self.name == "index.lock" else unlink(self, missing_ok)
elif point == "half":
    run = Git.run
    def half(self, *args, **more):
        if "-u" in args and "-n" not in args:
            run(self, "-c", "core.hooksPath=/dev/null", *[a for a in args[2:]], **more)
            for name in ("changed", "becomes_file"):
                path = Path(repo, name)
                path.unlink()
            Path(repo, "changed").write_text("old\\n")
            Path(repo, "becomes_file").mkdir()
            Path(repo, "becomes_file/inner").write_text("old\\n")
            (Path(repo) / ".git" / "index.beadtown.lock").touch()
            die()
        return run(self, *args, **more)
    Git.run = half
module.follow(Git(Path(repo), environ), module.Checkout(Path(repo), True), old, new)
"""


def _killed(moved: Moved, point: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        ["python", "-c", _CHILD, str(moved.repo), moved.old, moved.new, point],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize("point", ["locked", "checked", "half", "moved", "published"])
def test_a_kill_while_following_is_repaired(moved: Moved, point: str) -> None:
    write(moved.repo, {"kept": "mine\n", "x.log": "mine\n"})
    moved.move()
    _killed(moved, point)
    assert (moved.repo / ".git/index.lock").exists(), "the kill came while the index was locked"
    assert moved.obstacle() == ""
    assert moved.follow()
    assert moved.status() == [" M kept"]
    wanted = {**NEW, "kept": "mine\n", "x.log": "mine\n"}
    assert {name: text.decode() for name, (_, text) in disk(moved.repo).items()} == wanted
    assert not leftovers(moved.repo)


def test_a_file_that_was_cut_off_is_left_to_a_person(moved: Moved) -> None:
    moved.move()
    _killed(moved, "moved")
    (moved.repo / "changed").write_text("ne")
    assert not moved.follow()
    assert (moved.repo / "changed").read_text() == "ne"


def test_the_lock_of_a_living_process_is_respected(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    from refinery.checkouts import _Index

    moved.move()
    inner: list[bool] = []
    plain = _Index.move

    def nested(self: _Index, new: str) -> bool:
        inner.append(moved.follow())
        return plain(self, new)

    monkeypatch.setattr(_Index, "move", nested)
    assert moved.follow()
    assert inner == [False]


# Which checkouts there are


def test_checkouts_are_the_work_trees_on_the_branch(repo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    g = Git(repo, environ)
    assert checkouts(g, "main") == [Checkout(repo, True)]
    git(repo, "checkout", "--quiet", "--detach")
    assert checkouts(g, "main") == []
    odd = tmp_path / "a name\nwith two lines"
    git(repo, "worktree", "add", "--quiet", str(odd), "main")
    git(repo, "worktree", "add", "--quiet", "-b", "main2", str(tmp_path / "other"))
    assert checkouts(g, "main") == [Checkout(odd, True)]
    assert checkouts(g.at(odd), "main") == [Checkout(odd, True)]
    shutil.rmtree(odd)
    assert checkouts(g, "main") == []
    git(tmp_path, "clone", "--quiet", "--bare", str(repo), "bare.git")
    assert checkouts(g.at(tmp_path / "bare.git"), "main") == []


def test_a_work_tree_without_its_git_file_is_none(repo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    git(repo, "checkout", "--quiet", "--detach")
    git(repo, "worktree", "add", "--quiet", str(tmp_path / "linked"), "main")
    (tmp_path / "linked/.git").unlink()
    assert checkouts(Git(repo, environ), "main") == []


def test_a_work_tree_that_is_being_made_is_none(repo: Path, environ: dict[str, str]) -> None:
    admin = repo / ".git" / "worktrees" / "half"
    admin.mkdir(parents=True)
    (admin / "gitdir").write_text(f"{repo.parent / 'half' / '.git'}\n")
    (admin / "commondir").write_text("")
    assert checkouts(Git(repo, environ), "main") == [Checkout(repo, True)]


def test_a_submodule_is_a_work_tree(repo: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    outer = make_repository(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "inner")
    assert checkouts(Git(outer / "inner", environ), "main") == [Checkout(outer / "inner", True)]


def test_a_linked_work_tree_follows(moved: Moved, tmp_path: Path) -> None:
    git(moved.repo, "checkout", "--quiet", "--detach")
    git(moved.repo, "worktree", "add", "--quiet", str(tmp_path / "linked"), "main")
    moved.move()
    (linked,) = checkouts(moved.g, "main")
    assert follow(moved.g, linked, moved.old, moved.new)
    assert git(linked.path, "status", "--porcelain") == ""
    assert (linked.path / "changed").read_text() == "new\n"
    assert (moved.repo / "changed").read_text() == "old\n"


CLEAN: dict[str, Callable[[Path], object]] = {
    "nothing": _in_turn(),
    "untracked and ignored": _write(untracked="x\n", secret="x\n"),
}
UNCLEAN: dict[str, Callable[[Path], object]] = {
    "edited": _write(changed="mine\n"),
    "staged": IN_THE_WAY["staged new"],
    "deleted": lambda repo: (repo / "kept").unlink(),
    "a merge under way": IN_THE_WAY["a merge under way"],
    "a damaged index": IN_THE_WAY["a damaged index"],
}


@pytest.mark.parametrize("what", [*CLEAN, *UNCLEAN])
def test_clean_means_nothing_staged_nor_edited(moved: Moved, what: str) -> None:
    (CLEAN | UNCLEAN)[what](moved.repo)
    assert checkouts(moved.g, "main") == [Checkout(moved.repo, what in CLEAN)]
