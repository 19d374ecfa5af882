"""What happens inside a work tree: nothing on disk is lost, whatever a worker does with Git in there."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beads.errors import InvalidInput, LostRace, NotFound, Refused, Unreadable
from refinery.git import Git, Identity
from refinery.workshop import Workshop, Worktree
from tests.world import commit, git, make_repository

WHO = Identity("A Worker", "worker@example.org")
TOWN = Identity("The Town", "town@example.org")
WHEN = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
SAVED = "refs/beads/salvage/one/1"


def reads_everything() -> bool:
    """Whether permissions mean nothing to us, as to root."""
    with TemporaryDirectory() as name:
        file = Path(name, "file")
        file.touch(0)
        return os.access(file, os.R_OK)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    files = {
        "a.txt": "a\n",
        "b.txt": "1\n2\n3\n4\n5\n",
        "dir/c.txt": "c\n",
        "gone/d.txt": "d\n",
        ".gitignore": "*.log\n",
    }
    return make_repository(tmp_path / "repo", files)


@pytest.fixture
def workshop(repo: Path, environ: dict[str, str], tmp_path: Path) -> Workshop:
    return Workshop(Git(repo, environ), tmp_path / "trees")


@pytest.fixture
def worktree(workshop: Workshop) -> Worktree:
    return workshop.open("one", "polecat/one", "main")


def sh(worktree: Worktree, script: str) -> None:
    """What a worker does in its work tree."""
    subprocess.run(["sh", "-ec", script], cwd=worktree.path, check=True, capture_output=True)


def look(path: Path) -> dict[bytes, tuple[str, bytes]]:
    """Every file below a directory, byte for byte, with what Git keeps of its mode."""
    found = {}
    for place in path.rglob("*"):
        mode = place.lstat().st_mode
        name = os.fsencode(place.relative_to(path))
        if stat.S_ISLNK(mode):
            found[name] = ("link", os.fsencode(place.readlink()))
        elif stat.S_ISREG(mode) and name != b".git":
            found[name] = ("program" if mode & 0o100 else "file", place.read_bytes())
    return found


def in_tree(repo: Path, tree: str) -> list[str]:
    return git(repo, "ls-tree", "-r", "-z", "--name-only", tree).split("\0")[:-1]


def clean(worktree: Worktree) -> bool:
    return git(worktree.path, "status", "--porcelain", "--branch") == f"## {worktree.branch}"


# ── The tree on disk ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_tree_is_what_is_on_disk(worktree: Worktree, repo: Path) -> None:
    assert worktree.tree() == git(repo, "rev-parse", "main^{tree}")
    sh(
        worktree,
        "echo new > new.txt; echo more >> a.txt; rm -r gone; chmod +x dir/c.txt; ln -s a.txt link; echo x > x.log",
    )
    tree = worktree.tree()
    assert in_tree(repo, tree) == [".gitignore", "a.txt", "b.txt", "dir/c.txt", "link", "new.txt"]
    assert worktree.changed("main") == ["a.txt", "dir/c.txt", "gone/d.txt", "link", "new.txt"]
    assert git(repo, "show", f"{tree}:a.txt") == "a\nmore"
    modes = git(repo, "ls-tree", "-r", "--format=%(objectmode) %(path)", tree).splitlines()
    assert {"100755 dir/c.txt", "120000 link"} <= set(modes)
    assert worktree.tree() == tree


def test_looking_does_not_touch_the_workers_index(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo staged > staged.txt; git add staged.txt; echo new > new.txt; rm a.txt")
    index = repo / ".git" / "worktrees" / "one" / "index"
    before = (index.read_bytes(), index.stat().st_mtime_ns, index.stat().st_ino)
    worktree.tree()
    worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert (index.read_bytes(), index.stat().st_mtime_ns, index.stat().st_ino) == before
    assert git(worktree.path, "status", "--porcelain").splitlines() == [" D a.txt", "A  staged.txt", "?? new.txt"]


def test_an_empty_work_tree_has_the_empty_tree(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "rm -r a.txt b.txt dir gone .gitignore")
    assert in_tree(repo, worktree.tree()) == []
    assert len(worktree.changed("main")) == 5


def test_an_edit_of_the_same_size_and_time_is_seen(worktree: Worktree) -> None:
    file = worktree.path / "a.txt"
    seen = {worktree.tree()}
    for text in "bc":
        before = file.stat()
        # What is left to tell it by is the time of the change, which Git compares by the second.
        while int(file.stat().st_ctime) == int(before.st_ctime):
            file.write_text(f"{text}\n")
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.add(worktree.tree())
    assert len(seen) == 3


def test_what_is_ignored_counts_once_it_is_tracked(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo 1 > forced.log; echo 2 > other.log; git add --force forced.log; git add b.txt")
    assert "forced.log" in in_tree(repo, worktree.tree())
    assert "other.log" not in in_tree(repo, worktree.tree())
    worktree.commit("Force", WHO, TOWN, WHEN)
    sh(worktree, "echo 2 > forced.log")
    assert worktree.changed("polecat/one") == ["forced.log"]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
@pytest.mark.parametrize("fresh", [True, False])
def test_flags_that_hide_changes_hide_nothing(worktree: Worktree, repo: Path, flag: str, fresh: bool) -> None:
    sh(worktree, f"git update-index {flag} a.txt; echo changed > a.txt")
    if fresh:
        # As when a work tree that we did not make is taken up.
        (repo / ".git" / "worktrees" / "one" / "beadtown-index").unlink()
    assert worktree.changed("main") == ["a.txt"]


def test_a_sparse_checkout_is_no_deletion(workshop: Workshop, repo: Path) -> None:
    git(repo, "sparse-checkout", "set", "dir")
    worktree = workshop.open("one", "polecat/one", "main")
    if (worktree.path / "gone").exists():
        # Git before 2.36 does not pass it on.
        sh(worktree, "git sparse-checkout set dir")
    assert not (worktree.path / "gone").exists()
    assert worktree.changed("main") == []
    (repo / ".git" / "worktrees" / "one" / "beadtown-index").unlink()
    assert worktree.changed("main") == []
    sh(worktree, "mkdir other; echo new > other/new.txt; echo c2 > dir/c.txt")
    assert worktree.changed("main") == ["dir/c.txt", "other/new.txt"]
    worktree.commit("Sparse", WHO, TOWN, WHEN)
    assert "gone/d.txt" in in_tree(repo, "polecat/one")


NAMES = [
    "-rf",
    "two\nlines",
    " space ",
    '"quotes"',
    "a\\b",
    "*",
    "[ab]?",
    ":(glob)x",
    "#x",
    "!x",
    "ä",
    "\udcff\udc81",
    "\x01",
]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has names in Unicode only")
def test_names_as_strange_as_they_come(worktree: Worktree, repo: Path) -> None:
    for name in NAMES:
        (worktree.path / name).write_text(name.encode("utf-8", "replace").decode())
        (worktree.path / f"d{name}").mkdir()
        (worktree.path / f"d{name}" / name).symlink_to(name)
    before = look(worktree.path)
    assert {name for name in worktree.changed("main") if "/" not in name} == set(NAMES)
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    worktree.reset("main")
    assert not worktree.changed("main")
    worktree.restore(saved or "")
    assert look(worktree.path) == before
    worktree.take("main", NAMES)
    assert not [name for name in worktree.changed("main") if "/" not in name]
    worktree.take(saved or "", NAMES)
    worktree.commit("Strange", WHO, TOWN, WHEN)
    assert look(worktree.path) == before
    assert clean(worktree)
    assert set(NAMES) < set(in_tree(repo, "polecat/one"))


def test_what_is_no_file_is_left_out(worktree: Worktree, repo: Path) -> None:
    os.mkfifo(worktree.path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        # The name of a socket is short; that of the directory may not be.
        os.chdir(worktree.path)
        listening.bind("socket")
        sh(worktree, "rm a.txt; mkfifo a.txt; echo new > new.txt")
        assert in_tree(repo, worktree.tree()) == [".gitignore", "b.txt", "dir/c.txt", "gone/d.txt", "new.txt"]
    worktree.commit("No files", WHO, TOWN, WHEN)
    worktree.reset("main")
    assert (worktree.path / "a.txt").read_text() == "a\n"
    worktree.remove(discard=True)
    assert not worktree.path.exists()


def test_names_that_git_refuses_are_left_out_but_kept(workshop: Workshop, worktree: Worktree) -> None:
    sh(worktree, "echo x > 'git~1'; echo new > new.txt")
    assert worktree.changed("main") == ["new.txt"]
    worktree.commit("New", WHO, TOWN, WHEN)
    worktree.remove()
    assert not worktree.path.exists()
    assert (workshop.root / ".aside" / "one.1" / "git~1").read_text() == "x\n"


@pytest.mark.skipif(reads_everything(), reason="permissions mean nothing to root")
def test_what_cannot_be_read_is_made_readable(worktree: Worktree) -> None:
    sh(worktree, "mkdir closed; echo 1 > closed/file; echo 2 > secret; echo a2 > a.txt; chmod 0 secret a.txt closed")
    assert worktree.changed("main") == ["a.txt", "closed/file", "secret"]
    sh(worktree, "chmod 0 closed; chmod 555 dir gone")
    worktree.reset("main")
    assert worktree.changed("main") == []
    sh(worktree, "rm dir/c.txt gone/d.txt; chmod 555 . dir gone")
    worktree.reset("main")
    assert worktree.changed("main") == []


def test_a_filter_that_fails_is_an_error_and_no_deletion(worktree: Worktree, repo: Path) -> None:
    git(repo, "config", "filter.broken.clean", "false")
    git(repo, "config", "filter.broken.required", "true")
    sh(worktree, "echo '*.bin filter=broken' > .gitattributes; echo x > x.bin; echo z > z.txt")
    with pytest.raises(Unreadable, match=r"cannot be put into Git: fatal: x\.bin"):
        worktree.tree()
    with pytest.raises(Unreadable, match=r"x\.bin"):
        worktree.remove()
    assert (worktree.path / "x.bin").read_text() == "x\n"
    git(repo, "config", "filter.broken.clean", "cat")
    assert worktree.changed("main") == [".gitattributes", "x.bin", "z.txt"]


def test_filters_and_line_ends_survive(workshop: Workshop, repo: Path) -> None:
    git(repo, "config", "filter.upper.clean", "tr a-z A-Z")
    git(repo, "config", "filter.upper.smudge", "tr A-Z a-z")
    git(repo, "config", "core.autocrlf", "true")
    git(repo, "config", "core.safecrlf", "true")
    worktree = workshop.open("one", "polecat/one", "main")
    assert (worktree.path / "a.txt").read_bytes() == b"a\r\n"
    assert worktree.changed("main") == []
    (worktree.path / ".gitattributes").write_bytes(b"*.up filter=upper\r\n")
    (worktree.path / "x.up").write_bytes(b"text\r\n")
    (worktree.path / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    (worktree.path / "mixed.txt").write_bytes(b"one\r\ntwo\n")
    before = look(worktree.path)
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert git(repo, "show", f"{saved}:x.up") == "TEXT"
    worktree.remove(saved)
    worktree = workshop.open("one", "polecat/one", "main")
    worktree.restore(saved or "")
    after = look(worktree.path)
    # Of a mixture Git keeps one kind.
    assert after.pop(b"mixed.txt") == ("file", b"one\r\ntwo\r\n")
    assert before.pop(b"mixed.txt")
    assert after == before


@pytest.mark.parametrize("content", [b"", b"torn", b"DIRC" + bytes(100)])
def test_a_torn_index_is_made_again(worktree: Worktree, repo: Path, content: bytes) -> None:
    sh(worktree, "echo new > new.txt")
    admin = repo / ".git" / "worktrees" / "one"
    (admin / "beadtown-index").write_bytes(content)
    assert worktree.changed("main") == ["new.txt"]
    (admin / "beadtown-index").write_bytes(content)
    (admin / "index").unlink()
    (admin / "index").write_bytes(content or b"x")
    assert worktree.changed("main") == ["new.txt"]


def test_no_branch_is_an_answer(worktree: Worktree, repo: Path) -> None:
    git(repo, "update-ref", "-d", "refs/heads/polecat/one")
    assert worktree.head() == git(repo, "rev-parse", "main")
    (repo / ".git" / "worktrees" / "one" / "refs" / "worktree" / "beadtown" / "head").unlink()
    with pytest.raises(NotFound, match="polecat/one"):
        worktree.head()


# ── Repositories inside ──────────────────────────────────────────────────────────────────────────────────────

NESTED = {
    "without a commit": "mkdir sub; cd sub; git init -q; echo f > f; mkdir d; echo g > d/g; echo x > x.log",
    "with a commit": "mkdir sub; cd sub; git init -q; echo f > f; mkdir d; echo g > d/g; git add .; git commit -qm x",
    "with a commit and more": "mkdir sub; cd sub; git init -q; echo f > f; git add .; git commit -qm x;"
    "mkdir d; echo g > d/g",
    "added as a link": "mkdir sub; cd sub; git init -q; echo f > f; mkdir d; echo g > d/g; git add .; git commit -qm x;"
    "cd ..; git add sub",
    "all of it nested": "mkdir -p sub/d; cd sub/d; echo g > g; git init -q; cd ..; git init -q; echo f > f",
    "in a directory": "mkdir -p sub; echo f > sub/f; cd sub; mkdir d; cd d; git init -q; echo g > g; git add .;"
    "git commit -qm x",
}


@pytest.mark.parametrize("script", NESTED.values(), ids=NESTED.keys())
def test_files_in_nested_repositories_are_files(
    workshop: Workshop, worktree: Worktree, repo: Path, script: str
) -> None:
    sh(worktree, script)
    assert worktree.changed("main") == ["sub/d/g", "sub/f"]
    sh(worktree, "echo h > sub/h; echo f2 > sub/f")
    assert worktree.changed("main") == ["sub/d/g", "sub/f", "sub/h"]
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert git(repo, "show", f"{saved}:sub/f") == "f2"
    worktree.commit("Nested", WHO, TOWN, WHEN)
    assert clean(worktree)
    worktree.reset("main")
    worktree.restore("polecat/one")
    assert worktree.changed("polecat/one") == []
    worktree.remove(saved, discard=False)
    # Commits in there are in no tree of ours.
    assert (workshop.root / ".aside").exists() == ("commit -qm" in script)


@pytest.mark.parametrize("victim", ["a.txt", "dir"])
def test_a_nested_repository_in_place_of_what_was_tracked(worktree: Worktree, repo: Path, victim: str) -> None:
    sh(worktree, f"rm -r {victim}; mkdir {victim}; cd {victim}; git init -q; echo f > f; git add .; git commit -qm x")
    assert f"{victim}/f" in in_tree(repo, worktree.tree())


def test_repositories_in_repositories_have_an_end(worktree: Worktree) -> None:
    deep = "mkdir d; cd d; git init -q; echo f > f;"
    sh(worktree, deep * 12)
    assert len(worktree.changed("main")) == 12
    sh(worktree, "cd d/d/d/d/d/d/d/d/d/d/d/d;" + deep * 20)
    with pytest.raises(Unreadable, match="each inside the other"):
        worktree.tree()


def test_an_empty_nested_repository_is_nothing(worktree: Worktree) -> None:
    sh(worktree, "mkdir sub; git init -q sub; git init -q --bare bare; mkdir sub2; cd sub2; git init -q")
    sh(worktree, "cd sub2; git commit -q --allow-empty -m x")
    changed = worktree.changed("main")
    # A bare repository is a directory with files.
    assert "bare/HEAD" in changed
    assert not [path for path in changed if path.startswith("sub")]


def test_ignored_nested_repositories_do_not_count(workshop: Workshop, worktree: Worktree) -> None:
    sh(worktree, "echo modules >> .gitignore; mkdir -p modules/x; cd modules/x; git init -q")
    sh(worktree, "cd modules/x; echo 1 > f; git add .; git commit -qm x")
    assert worktree.changed("main") == [".gitignore"]
    worktree.commit("Ignore", WHO, TOWN, WHEN)
    worktree.remove()
    assert not (workshop.root / ".aside").exists()


@pytest.mark.parametrize(
    "script,kept",
    [
        ("", False),
        ("echo own > own; git add .; git commit -qm own", True),
        ("git checkout -q --detach; git commit -q --allow-empty -m own", True),
        ("echo changed >> a.txt; git stash -q", True),
    ],
)
def test_a_clone_inside_is_kept_when_it_has_something_of_its_own(
    workshop: Workshop, worktree: Worktree, repo: Path, script: str, kept: bool
) -> None:
    sh(worktree, f"git clone -q {repo} sub; cd sub; {script}")
    worktree.commit("Clone", WHO, TOWN, WHEN)
    worktree.remove()
    assert not worktree.path.exists()
    assert (workshop.root / ".aside" / "one.1" / "sub" / ".git").exists() == kept


def test_a_broken_nested_repository_is_kept(workshop: Workshop, worktree: Worktree) -> None:
    sh(worktree, "mkdir -p sub/.git; echo f > sub/f")
    worktree.commit("Broken", WHO, TOWN, WHEN)
    worktree.remove()
    assert (workshop.root / ".aside" / "one.1" / "sub" / ".git").exists()


@pytest.mark.parametrize("edit", ["", "echo more > sub/more.txt", "cd sub; echo 1 > n; git add .; git commit -qm own"])
def test_a_submodule_stays_one_and_loses_nothing(workshop: Workshop, repo: Path, tmp_path: Path, edit: str) -> None:
    library = make_repository(tmp_path / "library", {"lib.txt": "lib\n"})
    allow = ("-c", "protocol.file.allow=always")
    git(repo, *allow, "submodule", "--quiet", "add", str(library), "sub")
    git(repo, "commit", "-qm", "Submodule")
    worktree = workshop.open("one", "polecat/one", "main")
    assert worktree.changed("main") == []
    git(worktree.path, *allow, "submodule", "--quiet", "update", "--init")
    sh(worktree, f"echo new > new.txt; {edit}")
    committed = "commit" in edit
    assert worktree.changed("main") == ["new.txt", "sub"] if committed else ["new.txt"]
    worktree.commit("Work", WHO, TOWN, WHEN)
    assert git(repo, "ls-tree", "polecat/one", "sub").startswith("160000")
    worktree.remove()
    assert not worktree.path.exists()
    aside = workshop.root / ".aside" / "one.1"
    assert (aside / "sub").exists() == bool(edit)
    if committed:
        modules = aside.with_name("one.1-modules")
        assert git(modules / "sub", "--git-dir=.", "--work-tree=.", "log", "-1", "--format=%s", "HEAD", "--") == "own"


def test_a_submodule_is_left_where_it_is_when_it_leaves_the_tree(
    workshop: Workshop, worktree: Worktree, repo: Path, tmp_path: Path
) -> None:
    library = make_repository(tmp_path / "library", {"lib.txt": "lib\n"})
    git(worktree.path, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    sh(worktree, "echo own > sub/own.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    worktree.reset("main")
    # What was a submodule is a repository that somebody made, so its files count.
    assert worktree.changed("main") == ["sub/lib.txt", "sub/own.txt"]
    with pytest.raises(Refused, match="conflict"):
        worktree.restore(saved)
    assert (worktree.path / "sub" / "own.txt").exists()
    slot = workshop.open_detached("slot", saved)
    git(slot.path, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    slot.checkout(saved)
    assert (slot.path / "sub" / "lib.txt").exists()
    slot.checkout("main")
    assert not (slot.path / "sub").exists()
    assert git(repo, "ls-tree", "-r", "--name-only", saved, "sub") == "sub"


def test_a_new_submodule_is_one(worktree: Worktree, repo: Path, tmp_path: Path) -> None:
    library = make_repository(tmp_path / "library", {"lib.txt": "lib\n"})
    git(worktree.path, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    assert worktree.changed("main") == [".gitmodules", "sub"]
    assert git(repo, "ls-tree", worktree.tree(), "sub").startswith("160000")


# ── Snapshots ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_is_a_commit_at_its_ref(worktree: Worktree, repo: Path) -> None:
    assert worktree.snapshot(SAVED, "Save", WHO, WHEN) is None
    sh(worktree, "echo new > new.txt")
    saved = worktree.snapshot(SAVED, "Save it\n\nBead: one\n", WHO, WHEN)
    assert git(repo, "rev-parse", SAVED) == saved
    assert git(repo, "log", "-1", "--format=%P|%an|%ae|%cn|%at|%s|%(trailers:key=Bead)", SAVED).strip() == (
        f"{worktree.head()}|A Worker|worker@example.org|A Worker|{int(WHEN.timestamp())}|Save it|Bead: one"
    )
    assert git(repo, "rev-parse", f"{saved}^{{tree}}") == worktree.tree()
    assert git(worktree.path, "status", "--porcelain") == "?? new.txt"
    assert worktree.snapshot(SAVED, "Save again", WHO, datetime(2027, 1, 1, tzinfo=UTC)) == saved
    sh(worktree, "echo newer > new.txt")
    newer = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert newer != saved
    # The log of the ref still has what it was before.
    assert git(repo, "rev-parse", f"{SAVED}@{{1}}") == saved


def test_a_time_has_a_zone(worktree: Worktree) -> None:
    sh(worktree, "echo new > new.txt")
    with pytest.raises(InvalidInput, match="time zone"):
        worktree.snapshot(SAVED, "Save", WHO, datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("detach", ["git checkout -q --detach", "git checkout -q -b mine", ":"])
def test_a_snapshot_has_the_commits_of_the_worker(worktree: Worktree, repo: Path, detach: str) -> None:
    head = worktree.head()
    sh(worktree, f"{detach}; echo own > own.txt; git add .; git commit -qm own; git rm -q own.txt; git commit -qm less")
    own = git(worktree.path, "rev-parse", "HEAD")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert git(repo, "log", "-1", "--format=%P", saved or "") == f"{head} {own}"
    assert worktree.snapshot(SAVED, "Save", WHO, WHEN) == saved


def test_a_snapshot_has_a_merge_underway(worktree: Worktree, repo: Path) -> None:
    commit(repo, {"a.txt": "theirs\n"}, "Theirs")
    sh(worktree, "echo ours > a.txt; git commit -qam ours; git merge main || true")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    parents = git(repo, "log", "-1", "--format=%P", saved).split()
    assert parents == [worktree.head(), git(worktree.path, "rev-parse", "HEAD"), git(repo, "rev-parse", "main")]
    assert "<<<<<<<" in git(repo, "show", f"{saved}:a.txt")


def test_two_that_write_one_snapshot(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt")
    (repo / ".git" / SAVED).parent.mkdir(parents=True)
    (repo / ".git" / f"{SAVED}.lock").write_text("")
    with pytest.raises(LostRace, match=SAVED):
        worktree.snapshot(SAVED, "Save", WHO, WHEN)


TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c d", "-e", "é", "*"]), min_size=1, max_size=3).map(tuple),
    st.tuples(st.sampled_from(["file", "program", "link"]), st.binary(max_size=40).filter(lambda b: b"\0" not in b)),
    max_size=8,
)


def write(path: Path, tree: dict[tuple[str, ...], tuple[str, bytes]]) -> None:
    """Make a directory hold a tree; a path that needs a directory where a file is, is left out."""
    for parts, (kind, content) in tree.items():
        place = path.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                place.symlink_to(os.fsdecode(content or b"nowhere"))
            else:
                place.write_bytes(content)
                place.chmod(0o755 if kind == "program" else 0o644)
        except OSError:
            continue


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(first=TREES, then=TREES)
def test_any_files_come_back_byte_for_byte(
    first: dict[tuple[str, ...], tuple[str, bytes]], then: dict[tuple[str, ...], tuple[str, bytes]]
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name).resolve()
        workshop = Workshop(Git(make_repository(directory / "repo"), dict(os.environ)), directory / "trees")
        worktree = workshop.open("one", "polecat/one", "main")
        write(worktree.path, first)
        committed = look(worktree.path)
        worktree.commit("First", WHO, TOWN, WHEN)
        for path in worktree.path.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write(worktree.path, then)
        edited = look(worktree.path)
        saved = worktree.snapshot(SAVED, "Then", WHO, WHEN)
        worktree.remove(saved)
        worktree = workshop.open("one", "polecat/one", "main")
        assert look(worktree.path) == committed
        if saved:
            assert worktree.restore(saved) == ()
        assert look(worktree.path) == edited
        worktree.reset("polecat/one")
        assert look(worktree.path) == committed


# ── Restoring ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_saved_comes_back_as_changes(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt; rm -r gone; echo c2 > dir/c.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    head = worktree.head()
    worktree.reset("main")
    assert worktree.restore(saved) == ()
    assert git(worktree.path, "status", "--porcelain").splitlines() == [" M dir/c.txt", " D gone/d.txt", "?? new.txt"]
    assert worktree.head() == head == git(repo, "rev-parse", "polecat/one")
    assert worktree.restore(saved) == ()
    with pytest.raises(NotFound, match="nowhere"):
        worktree.restore("nowhere")


def test_what_was_saved_is_applied_to_what_the_branch_is_now(worktree: Worktree) -> None:
    sh(worktree, "echo new > new.txt; echo 6 >> b.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    worktree.reset("main")
    sh(worktree, "sed -i.bak s/1/one/ b.txt; rm b.txt.bak; echo a2 > a.txt")
    worktree.commit("Meanwhile", WHO, TOWN, WHEN)
    sh(worktree, "echo more > more.txt")
    assert worktree.restore(saved) == ()
    assert (worktree.path / "b.txt").read_text() == "one\n2\n3\n4\n5\n6\n"
    assert worktree.changed("polecat/one") == ["b.txt", "more.txt", "new.txt"]


def test_where_both_changed_the_same_what_was_saved_wins(worktree: Worktree) -> None:
    sh(worktree, "echo saved > a.txt; rm dir/c.txt; echo new > new.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    worktree.reset("main")
    sh(worktree, "echo branch > a.txt; echo branch > dir/c.txt; echo branch > b.txt; echo branch > new.txt")
    worktree.commit("Meanwhile", WHO, TOWN, WHEN)
    assert worktree.restore(saved) == ("a.txt", "dir/c.txt", "new.txt")
    assert look(worktree.path).keys() == {b".gitignore", b"a.txt", b"b.txt", b"gone/d.txt", b"new.txt"}
    assert (worktree.path / "a.txt").read_text() == "saved\n"
    assert (worktree.path / "b.txt").read_text() == "branch\n"
    assert (worktree.path / "new.txt").read_text() == "new\n"


def test_what_was_saved_does_not_win_over_what_is_not(worktree: Worktree) -> None:
    sh(worktree, "echo saved > a.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    sh(worktree, "echo unsaved > a.txt")
    with pytest.raises(Refused, match=r"a\.txt"):
        worktree.restore(saved)
    assert (worktree.path / "a.txt").read_text() == "unsaved\n"


# ── Committing ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_commit_is_what_is_on_disk(worktree: Worktree, repo: Path) -> None:
    head = worktree.head()
    sh(worktree, "echo new > new.txt; rm -r gone; echo x > x.log; chmod +x a.txt")
    tree = worktree.tree()
    new = worktree.commit("Do it\n\nBead: one\nAttempt: 1\n", WHO, TOWN, WHEN, onto=head)
    assert new == worktree.head() == git(repo, "rev-parse", "polecat/one")
    said = git(repo, "log", "-1", "--format=%T|%P|%an|%cn|%ce|%ct|%s|%(trailers:key=Attempt)", new).strip()
    assert said == f"{tree}|{head}|A Worker|The Town|town@example.org|{int(WHEN.timestamp())}|Do it|Attempt: 1"
    assert clean(worktree)
    assert (worktree.path / "x.log").exists()
    assert worktree.commit("Again", WHO, TOWN, WHEN) == new
    assert worktree.changed("polecat/one") == []


WORKER = {
    "a commit": "git add .; git commit -qm own",
    "a commit and an edit": "git add .; git commit -qm own; echo later > later.txt",
    "an amended commit": "git add .; git commit -q --amend -m own",
    "a branch": "git checkout -q -b mine; git add .; git commit -qm own",
    "a detached head": "git checkout -q --detach; git add .; git commit -qm own; echo later > later.txt",
    "an orphan": "git checkout -q --orphan empty; git rm -q -f --cached -r .",
    "a reset": "git add .; git commit -qm own; git reset -q HEAD~1",
    "a hard reset": "git add .; git commit -qm own; git reset -q --hard HEAD~1; echo new > new.txt",
    "a staged half": "git add new.txt; echo newer > new.txt",
    "a removal from the index": "git rm -q --cached b.txt",
    "a merge with a conflict": "git add .; git commit -qm own; git merge -q theirs || true",
    "a rebase with a conflict": "git add .; git commit -qm own; git rebase -q theirs || true",
    "a cherry-pick with a conflict": "git add .; git commit -qm own; git cherry-pick theirs || true",
    "a revert": "git add .; git commit -qm own; git revert --no-commit HEAD; echo new > new.txt",
    "a bisect": "git add .; git commit -qm own; git bisect start -q HEAD HEAD~1 || true",
    "a stash": "git stash -q; echo new > new.txt",
    "a lock": "touch $(git rev-parse --git-dir)/index.lock $(git rev-parse --git-dir)/HEAD.lock",
    "a broken index": "echo torn > $(git rev-parse --git-dir)/index",
    "no branch any more": "git checkout -q --detach; git branch -q -D polecat/one",
    "no .git": "rm .git",
}


@pytest.mark.parametrize("script", WORKER.values(), ids=WORKER.keys())
def test_whatever_the_worker_did_the_branch_goes_on_from_ours(
    workshop: Workshop, worktree: Worktree, repo: Path, script: str
) -> None:
    git(repo, "checkout", "-q", "-b", "theirs")
    commit(repo, {"a.txt": "theirs\n"}, "Theirs")
    git(repo, "checkout", "-q", "main")
    sh(worktree, "echo first > first.txt")
    head = worktree.commit("First", WHO, TOWN, WHEN)
    sh(worktree, f"echo ours > a.txt; echo new > new.txt; rm -r gone; {script}")
    files = look(worktree.path)
    assert worktree.head() == head
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    assert saved
    new = worktree.commit("Second", WHO, TOWN, WHEN, onto=head)
    assert look(worktree.path) == files
    assert git(repo, "log", "-1", "--format=%P", new) == head
    assert git(repo, "rev-parse", "polecat/one") == new
    again = workshop.open("one", "polecat/one", "main")
    assert again.path == worktree.path
    assert again.head() == new
    assert clean(again)
    sh(again, "git add .; git stash -q || true; git commit -q --allow-empty -m fine")
    again.commit("Third", WHO, TOWN, WHEN)
    again.remove()
    assert workshop.all() == []


def test_what_a_rebase_stashed_is_kept(worktree: Worktree, repo: Path) -> None:
    commit(repo, {"a.txt": "theirs\n"}, "Theirs")
    sh(worktree, "echo ours > a.txt; git commit -qam own; echo stashed > b.txt; git rebase -q --autostash main || true")
    assert (worktree.path / "b.txt").read_text() == "1\n2\n3\n4\n5\n"
    worktree.commit("Work", WHO, TOWN, WHEN)
    assert git(repo, "show", "stash@{0}:b.txt") == "stashed"
    assert "rebase" not in git(worktree.path, "status")


def test_of_two_that_believe_to_work_here_one_can_commit(workshop: Workshop, worktree: Worktree) -> None:
    zombie, head = worktree, worktree.head()
    worktree = workshop.open("one", "polecat/one", "main")
    sh(worktree, "echo new > new.txt")
    new = worktree.commit("New", WHO, TOWN, WHEN, onto=head)
    sh(worktree, "echo zombie > new.txt")
    with pytest.raises(LostRace, match=head):
        zombie.commit("Zombie", WHO, TOWN, WHEN, onto=head)
    assert worktree.head() == new
    assert (worktree.path / "new.txt").read_text() == "zombie\n"


def test_a_branch_that_somebody_else_moved_is_not_overwritten(
    workshop: Workshop, worktree: Worktree, repo: Path
) -> None:
    head = worktree.head()
    sh(worktree, "echo new > new.txt; echo 6 >> b.txt")
    git(repo, "checkout", "-q", "--detach")
    commit(repo, {"b.txt": "0\n1\n2\n3\n4\n5\n", "theirs.txt": "theirs\n"}, "Theirs")
    git(repo, "update-ref", "refs/heads/polecat/one", "HEAD")
    with pytest.raises(LostRace, match="from outside"):
        worktree.commit("New", WHO, TOWN, WHEN)
    with pytest.raises(LostRace, match="from outside"):
        worktree.advance("HEAD")
    assert worktree.head() == head
    again = workshop.open("one", "polecat/one", "main")
    assert again.head() == git(repo, "rev-parse", "HEAD")
    assert (again.path / "b.txt").read_text() == "0\n1\n2\n3\n4\n5\n6\n"
    assert again.changed("HEAD") == ["b.txt", "new.txt"]
    new = again.commit("New", WHO, TOWN, WHEN)
    assert git(repo, "log", "-1", "--format=%P", new) == git(repo, "rev-parse", "HEAD")


def test_a_lock_on_the_branch_of_a_dead_process_is_waited_for_and_broken(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt")
    lock = repo / ".git" / "refs" / "heads" / "polecat" / "one.lock"
    lock.write_text("")
    worktree.commit("New", WHO, TOWN, WHEN)
    assert not lock.exists()
    assert clean(worktree)


def test_without_a_log_of_its_head_a_work_tree_is_believed(worktree: Worktree, repo: Path) -> None:
    head = worktree.head()
    sh(worktree, "echo new > new.txt; git add .; git commit -qm own")
    (repo / ".git" / "worktrees" / "one" / "logs" / "HEAD").unlink()
    new = worktree.commit("New", WHO, TOWN, WHEN)
    assert git(repo, "log", "-1", "--format=%P", new) == head


def test_a_branch_that_cannot_be_written(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt; git checkout -q --detach; git branch -q -D polecat/one")
    commit(repo, {"x": "x"}, "x")
    git(repo, "branch", "polecat/one/below")
    with pytest.raises(Unreadable, match="polecat/one"):
        worktree.commit("New", WHO, TOWN, WHEN)
    assert (worktree.path / "new.txt").exists()


def test_a_slot_cannot_be_committed_to(workshop: Workshop) -> None:
    with pytest.raises(Refused, match="no branch"):
        workshop.open_detached("slot").commit("x", WHO, TOWN, WHEN)


# ── Merging ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def theirs(repo: Path) -> str:
    """A commit on main that changed something."""
    git(repo, "rm", "-q", "gone/d.txt")
    commit(repo, {"a.txt": "theirs\n", "b.txt": "one\n2\n3\n4\n5\n", "theirs.txt": "theirs\n"}, "Theirs")
    return git(repo, "rev-parse", "main")


def test_a_merge_without_conflict(worktree: Worktree, repo: Path, theirs: str) -> None:
    sh(worktree, "echo new > new.txt")
    head = worktree.commit("Ours", WHO, TOWN, WHEN)
    sh(worktree, "echo 6 >> b.txt; echo loose > loose.txt; echo x > x.log")
    assert worktree.merge("main") == ()
    assert worktree.merging() == theirs
    assert (worktree.path / "b.txt").read_text() == "one\n2\n3\n4\n5\n6\n"
    assert not (worktree.path / "gone").exists()
    assert git(repo, "rev-parse", "polecat/one") == head
    assert not (repo / ".git" / "worktrees" / "one" / "MERGE_HEAD").exists()
    new = worktree.commit("Merge", WHO, TOWN, WHEN)
    assert git(repo, "log", "-1", "--format=%P", new) == f"{head} {theirs}"
    assert in_tree(repo, new) == [".gitignore", "a.txt", "b.txt", "dir/c.txt", "loose.txt", "new.txt", "theirs.txt"]
    assert clean(worktree)
    assert worktree.merging() is None
    assert worktree.merge("main") == ()
    assert worktree.merging() is None


def test_conflicts_are_left_in_the_files(worktree: Worktree, repo: Path, theirs: str) -> None:
    sh(worktree, "echo ours > a.txt; echo ours > gone/d.txt; mkdir theirs.txt; echo ours > theirs.txt/x")
    head = worktree.commit("Ours", WHO, TOWN, WHEN)
    conflicts = worktree.merge(theirs)
    assert set(conflicts) >= {"a.txt", "gone/d.txt"}
    assert (worktree.path / "a.txt").read_text().startswith("<<<<<<<")
    assert worktree.merge(theirs) == conflicts
    with pytest.raises(Refused, match="is being merged"):
        worktree.merge(git(repo, "commit-tree", "-p", theirs, "-m", "x", f"{theirs}^{{tree}}"))
    sh(worktree, "echo both > a.txt")
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN) or ""
    assert git(repo, "log", "-1", "--format=%P", saved) == f"{head} {theirs}"
    new = worktree.commit("Merge", WHO, TOWN, WHEN, parents=[theirs])
    assert git(repo, "log", "-1", "--format=%P", new) == f"{head} {theirs}"
    assert git(repo, "show", f"{new}:a.txt") == "both"


def test_their_side_can_be_taken(worktree: Worktree, theirs: str) -> None:
    sh(worktree, "echo ours > a.txt; echo ours > gone/d.txt; echo new > new.txt; echo x > dir/x; echo 6 >> b.txt")
    worktree.commit("Ours", WHO, TOWN, WHEN)
    conflicts = worktree.merge(theirs)
    assert set(conflicts) == {"a.txt", "gone/d.txt"}
    worktree.take(theirs, conflicts)
    assert (worktree.path / "a.txt").read_text() == "theirs\n"
    assert not (worktree.path / "gone").exists()
    assert (worktree.path / "b.txt").read_text() == "one\n2\n3\n4\n5\n6\n"
    assert worktree.merging() == theirs
    worktree.take(theirs, ["dir", "new.txt", "neither"])
    assert worktree.changed(theirs) == ["b.txt"]
    worktree.take(theirs, [])
    assert worktree.changed(theirs) == ["b.txt"]


def test_a_file_takes_the_place_of_a_directory(worktree: Worktree, repo: Path) -> None:
    git(repo, "rm", "-q", "-r", "dir")
    commit(repo, {"dir": "a file\n"}, "A file")
    worktree.take("main", ["dir"])
    assert (worktree.path / "dir").read_text() == "a file\n"
    worktree.take("main~1", ["dir/c.txt"])
    assert (worktree.path / "dir" / "c.txt").read_text() == "c\n"


def test_what_cannot_be_merged(worktree: Worktree, repo: Path) -> None:
    stranger = git(repo, "commit-tree", "-m", "x", "main^{tree}")
    with pytest.raises(Unreadable, match="unrelated"):
        worktree.merge(stranger)
    with pytest.raises(NotFound, match="nowhere"):
        worktree.merge("nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        worktree.take("nowhere", ["a.txt"])
    assert worktree.changed("main") == []


# ── Back and forth ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_reset_takes_away_what_came_since(worktree: Worktree) -> None:
    sh(worktree, "echo new > new.txt; echo keep > keep.log")
    tree, files = worktree.tree(), look(worktree.path)
    sh(worktree, "echo junk > junk.txt; mkdir -p d/e; echo junk > d/e/f; rm new.txt")
    sh(worktree, "echo x > a.txt; rm -r gone; ln -s / gone")
    worktree.reset(tree)
    assert look(worktree.path) == files
    assert worktree.tree() == tree
    with pytest.raises(NotFound, match="tree"):
        worktree.reset("nowhere")


def test_a_branch_moves_forward(worktree: Worktree, repo: Path, theirs: str) -> None:
    worktree.advance("main")
    assert worktree.head() == theirs == git(repo, "rev-parse", "polecat/one")
    assert worktree.changed("main") == []
    assert clean(worktree)
    worktree.advance("main")
    commit(repo, {"more.txt": "more\n"}, "More")
    sh(worktree, "echo new > new.txt")
    with pytest.raises(Refused, match="changes of its own"):
        worktree.advance("main")
    worktree.commit("Ours", WHO, TOWN, WHEN)
    with pytest.raises(Refused, match="changes of its own"):
        worktree.advance("main")
    assert (worktree.path / "new.txt").exists()


# ── Slots ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkout_is_exactly_the_commit(workshop: Workshop, theirs: str) -> None:
    slot = workshop.open_detached("slot", "main~1")
    sh(slot, "echo x > a.txt; echo x > new.txt; echo x > x.log")
    sh(slot, "mkdir -p cache/sub other; echo x > cache/sub/c; echo x > other/o")
    sh(
        slot,
        "mkdir n; cd n; git init -q; git commit -q --allow-empty -m x; cd ..; git checkout -q -b mine;"
        "git update-index --assume-unchanged b.txt; echo hidden > b.txt; touch $(git rev-parse --git-dir)/index.lock",
    )
    slot.checkout(theirs, keep=["cache/", "x.log", "[nothing]*"])
    assert look(slot.path).keys() == {
        b".gitignore",
        b"a.txt",
        b"b.txt",
        b"cache/sub/c",
        b"dir/c.txt",
        b"theirs.txt",
        b"x.log",
    }
    assert (slot.path / "b.txt").read_text() == "one\n2\n3\n4\n5\n"
    assert not (slot.path / "n").exists()
    assert slot.head() == theirs
    assert git(slot.path, "status", "--porcelain", "--branch").splitlines() == ["## HEAD (no branch)", "?? cache/"]
    slot.checkout("main~1")
    assert look(slot.path).keys() == {b".gitignore", b"a.txt", b"b.txt", b"dir/c.txt", b"gone/d.txt"}
    with pytest.raises(NotFound, match="nowhere"):
        slot.checkout("nowhere")


def test_a_checkout_converts_files_by_the_rules_of_the_commit(workshop: Workshop, repo: Path) -> None:
    slot = workshop.open_detached("slot")
    commit(repo, {".gitattributes": "*.txt text eol=crlf\n"}, "Rules")
    slot.checkout("main")
    assert (slot.path / "a.txt").read_bytes() == b"a\r\n"
    slot.checkout("main~1")
    assert (slot.path / "a.txt").read_bytes() == b"a\n"
    sh(slot, "echo '*.txt text eol=crlf' > .gitattributes; touch a.txt; git checkout -f .")
    slot.checkout("main~1")
    assert (slot.path / "a.txt").read_bytes() == b"a\n"


def test_a_checkout_that_was_killed_while_it_converted_files(workshop: Workshop, repo: Path) -> None:
    slot = workshop.open_detached("slot")
    commit(repo, {".gitattributes": "*.txt text eol=crlf\n"}, "Rules")
    slot.checkout("main")
    # As if we had not lived to say that it is done.
    admin = repo / ".git" / "worktrees" / "slot"
    (admin / "HEAD").write_text(git(repo, "rev-parse", "main~1") + "\n")
    (admin / "beadtown-converting").touch()
    slot.checkout("main~1")
    assert (slot.path / "a.txt").read_bytes() == b"a\n"
    assert not (admin / "beadtown-converting").exists()


def test_a_checkout_deletes_what_is_read_only(workshop: Workshop) -> None:
    slot = workshop.open_detached("slot")
    sh(slot, "mkdir -p r/o; echo x > r/o/x; chmod 555 r/o r; rm a.txt; chmod 555 dir .")
    slot.checkout("main")
    assert look(slot.path).keys() == {b".gitignore", b"a.txt", b"b.txt", b"dir/c.txt", b"gone/d.txt"}


def test_a_checkout_deletes_what_is_read_only_and_not_tracked(workshop: Workshop) -> None:
    slot = workshop.open_detached("slot")
    sh(slot, "mkdir -p r/o; echo x > r/o/x; chmod 0 r/o; chmod 555 r")
    slot.checkout("main")
    assert not (slot.path / "r").exists()


def test_a_checkout_does_not_follow_links(workshop: Workshop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.txt").write_text("precious")
    slot = workshop.open_detached("slot")
    sh(slot, f"rm -r dir; ln -s {outside} dir; ln -s {outside} new")
    slot.checkout("main")
    assert (outside / "c.txt").read_text() == "precious"
    assert not (slot.path / "dir").is_symlink()
    assert not (slot.path / "new").is_symlink()


def test_a_branch_is_no_place_for_a_checkout(worktree: Worktree) -> None:
    with pytest.raises(Refused, match="polecat/one"):
        worktree.checkout("main")


# ── Removing ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_removed_that_is_not_saved(worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt")
    with pytest.raises(Refused, match="saved nowhere"):
        worktree.remove()
    saved = worktree.snapshot(SAVED, "Save", WHO, WHEN)
    sh(worktree, "echo newer > new.txt")
    with pytest.raises(Refused, match="saved nowhere"):
        worktree.remove(saved)
    assert (worktree.path / "new.txt").exists()
    worktree.remove(worktree.snapshot(SAVED, "Save", WHO, WHEN))
    assert not worktree.path.exists()
    assert git(repo, "worktree", "list").count("\n") == 0
    worktree.remove()


def test_commits_of_the_worker_are_not_removed_with_its_head(worktree: Worktree) -> None:
    sh(worktree, "git checkout -q --detach; git commit -q --allow-empty -m own")
    with pytest.raises(Refused, match="commits that are saved nowhere"):
        worktree.remove()
    sh(worktree, "git branch mine")
    worktree.remove()


def test_a_slot_can_be_discarded(workshop: Workshop) -> None:
    slot = workshop.open_detached("slot")
    sh(slot, "echo x > new.txt")
    with pytest.raises(Refused, match="saved nowhere"):
        slot.remove()
    slot.remove(discard=True)
    assert workshop.all() == []
    assert list((workshop.root / ".trash").iterdir()) == []


def test_removing_does_not_follow_links_and_is_not_stopped_by_permissions(
    workshop: Workshop, worktree: Worktree, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "dir").mkdir(parents=True)
    (outside / "dir" / "file").write_text("precious")
    (outside / "dir").chmod(0o500)
    sh(worktree, f"ln -s {outside} link.log; mkdir -p deep/er; ln -s {outside}/dir deep/er/link; echo x > deep/er/x")
    sh(worktree, "mkdir ro.log; mkdir ro.log/in; echo x > ro.log/in/x; chmod 0 ro.log/in; chmod 555 ro.log")
    worktree.commit("Links", WHO, TOWN, WHEN)
    sh(worktree, "chmod 555 deep/er deep .")
    worktree.remove()
    assert not worktree.path.exists()
    assert list((workshop.root / ".trash").iterdir()) == []
    assert (outside / "dir" / "file").read_text() == "precious"
    assert stat.S_IMODE((outside / "dir").stat().st_mode) == 0o500


def test_removing_wins_against_a_process_that_writes_on(workshop: Workshop, worktree: Worktree, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = "for n in itertools.count():\n    open(f'{n % 500}.log', 'w').close()\n"
    code = f"import itertools\nopen({str(fifo)!r}, 'w').close()\n{loop}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=worktree.path, stderr=subprocess.DEVNULL) as writer:
        fifo.read_text()
        worktree.remove()
        assert not worktree.path.exists()
        assert workshop.all() == []
        writer.kill()
    workshop.prune()
    assert list((workshop.root / ".trash").iterdir()) == []


def test_where_nothing_can_be_set_aside_nothing_is_removed(workshop: Workshop, worktree: Worktree) -> None:
    (workshop.root / ".aside").write_text("a file")
    (workshop.root / ".trash").write_text("a file")
    sh(worktree, "echo x > 'git~1'; echo x > x.log")
    with pytest.raises(Unreadable, match="cannot be moved"):
        worktree.remove()
    assert (worktree.path / "git~1").exists()
    sh(worktree, "rm 'git~1'")
    worktree.remove()
    assert not worktree.path.exists()


def test_a_directory_whose_registration_is_gone_is_kept(workshop: Workshop, worktree: Worktree, repo: Path) -> None:
    sh(worktree, "echo new > new.txt")
    shutil.rmtree(repo / ".git" / "worktrees" / "one")
    worktree.remove()
    assert (workshop.root / ".aside" / "one.1" / "new.txt").exists()


ACTS: dict[str, Callable[[Worktree], object]] = {
    "tree": lambda worktree: worktree.tree(),
    "snapshot": lambda worktree: worktree.snapshot(SAVED, "Save", WHO, WHEN),
    "commit": lambda worktree: worktree.commit("Work", WHO, TOWN, WHEN),
    "reset": lambda worktree: worktree.reset("main"),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_a_directory_that_vanished_is_no_deletion_of_its_files(
    worktree: Worktree, act: Callable[[Worktree], object]
) -> None:
    shutil.rmtree(worktree.path)
    with pytest.raises(Unreadable):
        act(worktree)
    worktree.remove()
