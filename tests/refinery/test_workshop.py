"""Work trees come, are found again, and go: with real Git, and real kills in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beads.errors import InvalidInput, NotFound, Refused, TownError
from refinery.git import Git, Identity
from refinery.workshop import Workshop, Worktree
from tests.world import ROOT, commit, git, make_repository

WHO = Identity("A Worker", "worker@example.org")
WHEN = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def workshop(repo: Path, environ: dict[str, str], tmp_path: Path) -> Workshop:
    commit(repo, {"a.txt": "a\n", "dir/b.txt": "b\n", ".gitignore": "*.log\n"}, "Files")
    return Workshop(Git(repo, environ), tmp_path / "trees")


@pytest.fixture
def worktree(workshop: Workshop) -> Worktree:
    return workshop.open("one", "polecat/one", "main")


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != ".git"}


WHOLE = {"README.md", "a.txt", "dir/b.txt", ".gitignore"}


# ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_work_tree_has_a_new_branch_and_its_files(workshop: Workshop, repo: Path) -> None:
    worktree = workshop.open("one", "polecat/one", "main")
    assert worktree.path == workshop.root / "one"
    assert worktree.branch == "polecat/one"
    assert names(worktree.path) == WHOLE
    assert git(worktree.path, "status", "--porcelain", "--branch") == "## polecat/one"
    assert worktree.head() == git(repo, "rev-parse", "polecat/one") == git(repo, "rev-parse", "main")
    assert "locked" not in git(repo, "worktree", "list", "--porcelain")
    assert git(repo, "status", "--porcelain") == ""


def test_opening_again_gives_the_same_files_as_they_are(workshop: Workshop, worktree: Worktree) -> None:
    (worktree.path / "new.txt").write_text("new\n")
    (worktree.path / "a.txt").unlink()
    again = workshop.open("one", "polecat/one", "main")
    assert again.path == worktree.path
    assert names(again.path) == WHOLE - {"a.txt"} | {"new.txt"}
    assert workshop.open("another-name", "polecat/one", "main").path == worktree.path


def test_an_existing_branch_is_taken_up_where_it_is(workshop: Workshop, repo: Path) -> None:
    git(repo, "branch", "polecat/one", "main~1")
    worktree = workshop.open("one", "polecat/one", "main")
    assert worktree.head() == git(repo, "rev-parse", "main~1")
    assert names(worktree.path) == {"README.md"}


def test_a_work_tree_elsewhere_is_taken_up_and_never_removed(workshop: Workshop, repo: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    git(repo, "worktree", "add", "-b", "polecat/one", str(elsewhere))
    worktree = workshop.open("one", "polecat/one", "main")
    assert worktree.path == elsewhere
    assert not (workshop.root / "one").exists()
    worktree.remove()
    assert names(elsewhere) == WHOLE
    assert workshop.all() == []


def test_a_work_tree_whose_directory_is_gone_is_made_again(workshop: Workshop, worktree: Worktree) -> None:
    head = worktree.commit("Nothing", WHO, WHO, WHEN)
    shutil.rmtree(worktree.path)
    assert workshop.find("polecat/one") is None
    again = workshop.open("one", "polecat/one", "main")
    assert names(again.path) == WHOLE
    assert again.head() == head


def test_one_that_is_gone_from_elsewhere_is_made_again_under_the_root(
    workshop: Workshop, repo: Path, tmp_path: Path
) -> None:
    git(repo, "worktree", "add", "-b", "polecat/one", str(tmp_path / "elsewhere"))
    shutil.rmtree(tmp_path / "elsewhere")
    assert workshop.open("one", "polecat/one", "main").path == workshop.root / "one"


def test_a_directory_that_nobody_knows_is_kept_aside(workshop: Workshop) -> None:
    stranger = workshop.root / "one"
    stranger.mkdir(parents=True)
    (stranger / "precious").write_text("mine")
    for number in (1, 2):
        worktree = workshop.open("one", "polecat/one", "main")
        assert names(worktree.path) == WHOLE
        assert (workshop.root / ".aside" / "one.1" / "precious").read_text() == "mine"
        worktree.remove()
        stranger.write_text(f"a file this time {number}")
    workshop.open("one", "polecat/one", "main")
    assert {path.name for path in (workshop.root / ".aside").iterdir()} == {"one.1", "one.2", "one.3"}


def test_a_link_in_place_of_the_directory_is_not_followed(
    workshop: Workshop, worktree: Worktree, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    worktree.path.rename(outside)
    worktree.path.symlink_to(outside)
    assert workshop.find("polecat/one") is None
    again = workshop.open("one", "polecat/one", "main")
    assert not again.path.is_symlink()
    assert names(again.path) == names(outside) == WHOLE


def test_one_that_git_was_killed_in_is_made_again(workshop: Workshop, worktree: Worktree, repo: Path) -> None:
    admin = repo / ".git" / "worktrees" / "one"
    (admin / "locked").write_text("initializing")
    (worktree.path / "a.txt").write_text("half")
    (worktree.path / "dir" / "b.txt").unlink()
    assert workshop.find("polecat/one") is None
    assert workshop.all() == []
    again = workshop.open("one", "polecat/one", "main")
    assert (again.path / "a.txt").read_text() == "a\n"
    assert names(again.path) == WHOLE


def test_one_that_git_was_killed_in_before_it_was_whole_is_in_nobodys_way(
    workshop: Workshop, worktree: Worktree, repo: Path
) -> None:
    (worktree.path / "mine.txt").write_text("mine\n")
    admin = repo / ".git" / "worktrees" / "half"
    admin.mkdir()
    (admin / "locked").write_text("beadtown is making this")
    (admin / "gitdir").write_text(f"{workshop.root / 'half' / '.git'}\n")
    # Git itself now fails at each command that looks for work trees.
    (admin / "commondir").write_text("")
    assert workshop.find("polecat/one") is not None
    assert [found.path for found in workshop.all()] == [worktree.path]
    assert workshop.open("two", "polecat/two", "main").path == workshop.root / "two"
    assert git(repo, "worktree", "list", "--porcelain").count("worktree ") == 3
    assert not admin.exists()


def test_one_that_a_person_has_locked_is_used_all_the_same(workshop: Workshop, worktree: Worktree, repo: Path) -> None:
    git(repo, "worktree", "lock", "--reason", "mine", str(worktree.path))
    (worktree.path / "new.txt").write_text("new\n")
    assert (workshop.open("one", "polecat/one", "main").path / "new.txt").exists()


def test_locks_of_dead_processes_go(workshop: Workshop, worktree: Worktree, repo: Path) -> None:
    admin = repo / ".git" / "worktrees" / "one"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = [admin / name for name in ("index.lock", "HEAD.lock", f"beadtown-index.{dead.pid}.1")]
    living = admin / f"beadtown-index.{os.getpid()}.0"
    for path in (*left, living):
        path.write_text("")
    workshop.open("one", "polecat/one", "main")
    assert not any(path.exists() for path in left)
    assert living.exists()
    git(worktree.path, "add", ".")


@pytest.mark.parametrize("script", ["rm .git", "rm .git; git init -q .", "rm .git; ln -s /etc .git", "echo x > .git"])
def test_a_work_tree_that_lost_its_git_file_gets_it_back(workshop: Workshop, worktree: Worktree, script: str) -> None:
    subprocess.run(["sh", "-c", f"echo new > new.txt; {script}"], cwd=worktree.path, check=True)
    # Without the file, Git would look further up.
    assert worktree.changed("main") == ["new.txt"]
    again = workshop.open("one", "polecat/one", "main")
    assert git(again.path, "status", "--porcelain") == "?? new.txt"
    assert os.path.lexists(workshop.root / ".aside" / "git.1") == (script != "rm .git")


def test_a_work_tree_is_found_though_the_worker_switched_branches(workshop: Workshop, worktree: Worktree) -> None:
    git(worktree.path, "checkout", "-q", "-b", "mine")
    (worktree.path / "new.txt").write_text("new\n")
    assert workshop.find("mine") is None
    again = workshop.open("one", "polecat/one", "main")
    assert again.path == worktree.path
    assert (again.path / "new.txt").exists()


def test_the_branch_of_the_repository_itself_is_not_taken(workshop: Workshop, repo: Path) -> None:
    git(repo, "checkout", "-q", "-b", "polecat/one")
    assert workshop.find("polecat/one") is None
    with pytest.raises(Refused, match="checked out in"):
        workshop.open("one", "polecat/one", "main")


def test_a_name_serves_one_branch(workshop: Workshop, worktree: Worktree) -> None:
    with pytest.raises(Refused, match="polecat/one"):
        workshop.open("one", "polecat/two", "main")
    with pytest.raises(Refused, match="polecat/one"):
        workshop.open_detached("one")
    assert names(worktree.path) == WHOLE


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "/a", "-a", "a\0", "a\nb", "a b", "é", "x" * 201])
def test_names_that_could_lead_elsewhere(workshop: Workshop, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        workshop.open(name, "polecat/one", "main")
    with pytest.raises(InvalidInput, match="name"):
        workshop.open_detached(name)


@pytest.mark.parametrize("branch", ["", "-x", "a..b", "a b", "x^{tree}", "x@{1}", "a.lock", "main:a.txt"])
def test_branches_that_cannot_be(workshop: Workshop, branch: str) -> None:
    with pytest.raises(InvalidInput, match="branch"):
        workshop.open("one", branch, "main")


def test_a_start_that_is_not_there(workshop: Workshop) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        workshop.open("one", "polecat/one", "nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        workshop.open_detached("slot", "nowhere")
    assert workshop.all() == []


def test_a_root_inside_git_is_refused(repo: Path, environ: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"\.git"):
        Workshop(Git(repo, environ), repo / ".git" / "trees")


def test_a_root_behind_a_link(repo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = Workshop(Git(repo, environ), tmp_path / "link")
    worktree = linked.open("one", "polecat/one", "main")
    assert worktree.path == (tmp_path / "real" / "one").resolve()
    assert [found.path for found in linked.all()] == [worktree.path]
    worktree.remove()
    assert linked.all() == []


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has names in Unicode only")
@pytest.mark.parametrize("name", ["ä ö", "two\nlines", "\udcff"], ids=ascii)
def test_a_root_with_a_strange_name(repo: Path, environ: dict[str, str], tmp_path: Path, name: str) -> None:
    workshop = Workshop(Git(repo, environ), tmp_path / name / "trees")
    worktree = workshop.open("one", "polecat/ä", "main")
    (worktree.path / "new.txt").write_text("new\n")
    assert workshop.open("one", "polecat/ä", "main").path == worktree.path
    found = workshop.find("polecat/ä")
    assert found is not None
    assert found.changed("main") == ["new.txt"]
    assert not (workshop.root / ".aside").exists()
    found.commit("New", WHO, WHO, WHEN)
    found.remove()
    assert workshop.all() == []


def test_a_bare_repository(repo: Path, environ: dict[str, str], tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
    workshop = Workshop(Git(tmp_path / "bare.git", environ), tmp_path / "trees")
    worktree = workshop.open("one", "polecat/one", "main")
    (worktree.path / "new.txt").write_text("new\n")
    new = worktree.commit("New", WHO, WHO, WHEN)
    assert git(tmp_path / "bare.git", "rev-parse", "polecat/one") == new


def test_no_hook_runs(workshop: Workshop, repo: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in (
        "post-checkout",
        "pre-commit",
        "post-commit",
        "reference-transaction",
        "post-index-change",
        "pre-push",
    ):
        hook = repo / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> {ran}\nexit 1\n")
        hook.chmod(0o755)
    worktree = workshop.open("one", "polecat/one", "main")
    (worktree.path / "new.txt").write_text("new\n")
    saved = worktree.snapshot("refs/saved", "Save", WHO, WHEN)
    worktree.reset(worktree.tree())
    worktree.commit("New", WHO, WHO, WHEN)
    slot = workshop.open_detached("slot")
    slot.checkout("polecat/one")
    worktree.remove(saved)
    assert not ran.exists()


def test_many_processes_open_the_same_one(workshop: Workshop, repo: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from refinery.git import Git\nfrom refinery.workshop import Workshop\n"
        "w = Workshop(Git(Path(sys.argv[1]), dict(os.environ)), Path(sys.argv[2])).open('one', 'polecat/one', 'main')\n"
        "print(w.path, len(list(w.path.iterdir())))"
    )
    command = [sys.executable, "-c", code, str(repo), str(workshop.root)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate()[0] for process in started}
    assert said == {f"{workshop.root / 'one'} 5\n"}
    assert not (workshop.root / ".aside").exists()


# ── Slots, lists, sweeping ───────────────────────────────────────────────────────────────────────────────────


def test_a_slot_has_no_branch_and_is_taken_up_again(workshop: Workshop, repo: Path) -> None:
    slot = workshop.open_detached("slot")
    assert slot.branch is None
    assert slot.head() == git(repo, "rev-parse", "main")
    assert names(slot.path) == WHOLE
    (slot.path / "cache.log").write_text("kept")
    again = workshop.open_detached("slot", "main~1")
    assert again.head() == slot.head()
    assert (again.path / "cache.log").exists()
    shutil.rmtree(slot.path)
    assert workshop.open_detached("slot", "main~1").head() == git(repo, "rev-parse", "main~1")


def test_all_are_those_under_the_root(workshop: Workshop, repo: Path, tmp_path: Path) -> None:
    git(repo, "worktree", "add", "-b", "other", str(tmp_path / "elsewhere"))
    for name in ("two", "one"):
        workshop.open(name, f"polecat/{name}", "main")
    workshop.open_detached("slot")
    found = workshop.all()
    assert [(worktree.path.name, worktree.branch) for worktree in found] == [
        ("one", "polecat/one"),
        ("slot", None),
        ("two", "polecat/two"),
    ]


def test_pruning_forgets_what_is_gone_and_only_there(workshop: Workshop, repo: Path, tmp_path: Path) -> None:
    git(repo, "worktree", "add", "-q", "-b", "other", str(tmp_path / "elsewhere"))
    shutil.rmtree(tmp_path / "elsewhere")
    kept = workshop.open("kept", "polecat/kept", "main")
    (kept.path / "new.txt").write_text("new\n")
    gone = workshop.open("gone", "polecat/gone", "main")
    shutil.rmtree(gone.path)
    half = workshop.open("half", "polecat/half", "main")
    (repo / ".git" / "worktrees" / "half" / "locked").write_text("initializing")
    trash = workshop.root / ".trash" / "old.1"
    trash.mkdir(parents=True)
    workshop.prune()
    workshop.prune()
    assert [worktree.path.name for worktree in workshop.all()] == ["kept"]
    assert not half.path.exists()
    assert not trash.exists()
    assert (kept.path / "new.txt").exists()
    assert {path.name for path in (repo / ".git" / "worktrees").iterdir()} == {"kept", "elsewhere"}


# ── Killed anywhere ──────────────────────────────────────────────────────────────────────────────────────────

# Stands before git in PATH: counts its calls, and kills who calls it before or after the call that is named.
KILLER = """#!/bin/sh
n=$(cat {count}); n=$((n + 1)); echo $n > {count}
if [ $n = {at} ] && [ {when} = before ]; then kill -KILL $PPID; exit 1; fi
{git} "$@"; status=$?
if [ $n = {at} ] && [ {when} = after ]; then kill -KILL $PPID; fi
exit $status
"""

# A process that has everything imported, and forks one that does each action.
ACTOR = """
import json, os, sys
from datetime import datetime, UTC
from pathlib import Path
from refinery.git import Git, Identity
from refinery.workshop import Workshop
who, when = Identity("A Worker", "worker@example.org"), datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
for line in sys.stdin:
    repo, root, environ, action = json.loads(line)
    pid = os.fork()
    if not pid:
        try:
            worktree = Workshop(Git(Path(repo), environ), Path(root)).open("one", "polecat/one", "base")
            exec(action)
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

ACTIONS: dict[str, str] = {
    "open": "",
    "merge": "worktree.merge('theirs'); worktree.commit('Merge', who, who, when)",
    "take": "worktree.take('theirs', ['both.txt', 'theirs.txt', 'new.txt'])",
    "reset": "worktree.reset(worktree.head())",
    "remove": "worktree.remove(worktree.snapshot('refs/saved', 'Save', who, when))",
    "restore": "worktree.restore('refs/salvage')",
}


@pytest.fixture(scope="module")
def actor() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ACTOR]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as actor:
        yield actor


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two sides to merge."""
    first = {"both.txt": "0\n", "same.txt": "same\n", "dir/old.txt": "old\n"}
    repo = make_repository(tmp_path_factory.mktemp("sides") / "repo", first)
    git(repo, "branch", "base")
    commit(repo, {"both.txt": "1\n", "theirs.txt": "theirs\n"}, "Theirs")
    git(repo, "branch", "theirs")
    return repo


class Scene:
    """A copy of that repository, and a worker's uncommitted work on one of the sides."""

    def __init__(self, directory: Path, sides: Path, environ: dict[str, str]) -> None:
        self.repo = shutil.copytree(sides, directory / "repo")
        self.environ = environ
        self.directory = directory
        self.workshop = Workshop(Git(self.repo, environ), directory / "trees")

    def work(self) -> None:
        """What the worker did before the action: committed nothing."""
        worktree = self.workshop.open("one", "polecat/one", "base")
        (worktree.path / "both.txt").write_text("2\n")
        (worktree.path / "new.txt").write_text("new\n")
        (worktree.path / "dir" / "old.txt").unlink()
        worktree.snapshot("refs/salvage", "Salvage", WHO, WHEN)

    def act(self, actor: subprocess.Popen[str], action: str, at: int, when: str) -> int:
        """Do the action in another process that is killed around its ``at``-th call of git; its exit status."""
        tools = self.directory / "tools"
        tools.mkdir(exist_ok=True)
        count = self.directory / "count"
        count.write_text("0")
        real = shutil.which("git", path=self.environ["PATH"])
        (tools / "git").write_text(KILLER.format(count=count, at=at, when=when, git=real))
        (tools / "git").chmod(0o755)
        environ = {**self.environ, "PATH": f"{tools}{os.pathsep}{self.environ['PATH']}"}
        assert actor.stdin is not None
        assert actor.stdout is not None
        print(
            json.dumps([str(self.repo), str(self.workshop.root), environ, ACTIONS[action]]),
            file=actor.stdin,
            flush=True,
        )
        return int(actor.stdout.readline())

    def files(self, revision: str) -> dict[str, str]:
        listed = git(self.repo, "ls-tree", "-r", "--format=%(objectname) %(path)", revision).splitlines()
        found = dict(line.split(" ", 1)[::-1] for line in listed)
        return {name: KNOWN.get(oid) or git(self.repo, "show", oid) for name, oid in found.items()}

    def on_disk(self, worktree: Worktree) -> dict[str, str]:
        return self.files(worktree.tree())


# What blobs hold, by their ids: spares a call of Git for each.
KNOWN = {
    hashlib.sha1(f"blob {len(text) + 1}\0{text}\n".encode()).hexdigest(): text
    for text in ("0", "1", "2", "same", "old", "new", "theirs")
}
BASE = {"both.txt": "0", "same.txt": "same", "dir/old.txt": "old"}
WORK = {"both.txt": "2", "same.txt": "same", "new.txt": "new"}


def check_merge(scene: Scene, worktree: Worktree) -> None:
    worktree.merge("theirs")
    worktree.commit("Merge", WHO, WHO, WHEN)
    merged = scene.files("polecat/one")
    assert merged.keys() == {"both.txt", "same.txt", "new.txt", "theirs.txt"}
    # Conflicted once: a second merge over half of the first would nest the markers.
    lines = [line[:7] for line in merged["both.txt"].splitlines()]
    assert lines == ["<<<<<<<", "2", "=======", "1", ">>>>>>>"]
    assert git(scene.repo, "rev-list", "--count", "base..polecat/one", "^theirs") == "1"
    assert git(worktree.path, "status", "--porcelain") == ""


def check_take(scene: Scene, worktree: Worktree) -> None:
    worktree.take("theirs", ["both.txt", "theirs.txt", "new.txt"])
    assert scene.on_disk(worktree) == {"both.txt": "1", "same.txt": "same", "theirs.txt": "theirs"}


def check_reset(scene: Scene, worktree: Worktree) -> None:
    worktree.reset(worktree.head())
    assert scene.on_disk(worktree) == BASE


def check_restore(scene: Scene, worktree: Worktree) -> None:
    worktree.restore("refs/salvage")
    assert scene.on_disk(worktree) == WORK


CHECKS: dict[str, Callable[[Scene, Worktree], None]] = {
    "merge": check_merge,
    "take": check_take,
    "reset": check_reset,
    "remove": check_restore,
    "restore": check_restore,
}


def calls(when: str) -> range:
    """The calls of Git to be killed at: all, which is what ``make faults`` does, or before one and after the next."""
    every = os.environ.get("FAULTS") == "all"
    return range(1 if every or when == "before" else 2, 60, 1 if every else 2)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", CHECKS)
def test_killed_at_any_call_of_git_the_next_one_makes_it_good(
    action: str, when: str, actor: subprocess.Popen[str], sides: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    for at in calls(when):
        directory = tmp_path / str(at)
        directory.mkdir()
        scene = Scene(directory, sides, environ)
        scene.work()
        status = scene.act(actor, action, at, when)
        # Nothing is lost: what the worker did is on disk, or saved.
        assert scene.files("refs/salvage") == WORK
        worktree = scene.workshop.open("one", "polecat/one", "base")
        # And nothing is left to be finished over what a worker does now.
        state = scene.repo / ".git" / "worktrees" / "one" / "beadtown-state"
        assert not state.exists() or json.loads(state.read_text())["becoming"] == ""
        CHECKS[action](scene, worktree)
        shutil.rmtree(directory)
        if status == 0:
            assert at > 3
            return
        assert status == -signal.SIGKILL
    pytest.fail("the action never came to its end")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_is_made_a_work_tree_is_made_again(
    when: str, actor: subprocess.Popen[str], sides: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    for at in calls(when):
        directory = tmp_path / str(at)
        directory.mkdir()
        scene = Scene(directory, sides, environ)
        status = scene.act(actor, "open", at, when)
        worktree = scene.workshop.open("one", "polecat/one", "base")
        assert scene.on_disk(worktree) == BASE
        assert git(worktree.path, "status", "--porcelain", "--branch") == "## polecat/one"
        worktree.remove()
        assert scene.workshop.all() == []
        assert not (scene.workshop.root / ".aside").exists()
        if status == 0:
            assert at > 3
            return
    pytest.fail("the action never came to its end")


def test_errors_are_ours(worktree: Worktree) -> None:
    shutil.rmtree(worktree.path)
    for action in (worktree.tree, lambda: worktree.commit("x", WHO, WHO, WHEN), lambda: worktree.changed("main")):
        with pytest.raises(TownError):
            action()
