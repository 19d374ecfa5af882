"""What a contained process can touch: real processes in real sandboxes, of each kind that works on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from beads.clock import SystemClock
from beads.errors import Refused
from refinery import landlock
from refinery.containment import INSTALL, Bounds, Choice, Reach, Sandbox
from refinery.processes import Exit, Job, kill_strays, shell, start, strays
from refinery.sandbox import environment
from refinery.view import Host, places, toolchains
from tests.towns import until
from tests.world import ROOT, git, make_repository

KINDS: list[Choice] = ["bubblewrap", "landlock"]
PYTHON = f'"{sys.executable}" -I -S'


class Box:
    """A repository with a work tree, a home with something secret in it, and a sandbox of one kind."""

    def __init__(self, directory: Path, kind: Choice, environ: dict[str, str]) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.repository = make_repository(directory / "project")
        self.tree = directory / "trees" / "tree"
        git(self.repository, "worktree", "add", "--quiet", str(self.tree), "-b", "work")
        self.common = self.repository / ".git"
        self.private = self.common / "beads"
        for file in (self.home / ".ssh/id", self.private / "logs/other.log", self.repository / ".env"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("planted\n")
        self.environ = environment(environ, (), {"HOME": str(self.home)})
        self.kind: Choice = kind
        self.marker = f"test {directory}"
        self.bounds = Bounds()

    @property
    def sandbox(self) -> Sandbox:
        search = tuple(Path(part) for part in self.environ["PATH"].split(":"))
        host = Host(self.home, search, (Path(sys.prefix), Path(sys.base_prefix)))
        return Sandbox(self.kind, host, self.common, self.private, self.repository, bounds=self.bounds)

    def start(self, line: str, reach: Reach | None = None, within: list[str] | None = None) -> Job:
        reach = reach or Reach((self.tree,))
        return start(
            shell(line),
            cwd=self.tree,
            environ=self.environ,
            log=self.directory / "log",
            timeout=60,
            marker=self.marker,
            clock=SystemClock(),
            within=self.sandbox.around(reach, self.tree) if within is None else within,
        )

    def run(self, line: str, reach: Reach | None = None) -> Exit:
        return self.start(line, reach).wait()


def make_box(directory: Path, kind: Choice, environ: dict[str, str]) -> Box:
    box = Box(directory, kind, environ)
    reason = next((trial.reason for trial in box.sandbox.trials() if trial.kind == kind), "")
    if reason:
        pytest.skip(f"{kind}: {reason}")
    return box


@pytest.fixture(params=KINDS)
def box(request: pytest.FixtureRequest, tmp_path: Path, environ: dict[str, str]) -> Iterator[Box]:
    box = make_box(tmp_path, request.param, environ)
    yield box
    kill_strays(box.marker)


@pytest.fixture
def bubble(tmp_path: Path, environ: dict[str, str]) -> Iterator[Box]:
    box = make_box(tmp_path, "bubblewrap", environ)
    yield box
    kill_strays(box.marker)


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_its_work_tree_can_be_written_and_nothing_else(box: Box) -> None:
    done = box.run(
        f"echo in > inside; for place in {box.directory} {box.repository} {box.home} /usr /etc /var; do"
        ' echo out 2>/dev/null > "$place/outside"; done; true'
    )
    assert done.code == 0
    assert (box.tree / "inside").read_text() == "in\n"
    assert [str(path) for path in box.directory.rglob("outside")] == []
    assert not Path("/etc/outside").exists()


def test_what_is_the_users_own_cannot_be_read(box: Box) -> None:
    done = box.run(f"cat {box.home}/.ssh/id ~/.ssh/id {box.repository}/.env; ls {box.home}/.ssh")
    assert done.code != 0
    assert "planted" not in done.output


def test_the_logs_of_others_cannot_be_read(bubble: Box) -> None:
    assert "planted" not in bubble.run(f"cat {bubble.private}/logs/other.log").output


def test_git_can_be_asked_and_moves_no_ref(box: Box) -> None:
    before = git(box.repository, "for-each-ref"), (box.common / "config").read_text()
    done = box.run(
        "git status --short && git log --oneline && git diff --stat && echo asked\n"
        "git commit -q --allow-empty -m mine; git update-ref refs/heads/main HEAD; git branch mine; git tag mine\n"
        "git update-ref refs/beads/main HEAD; git config core.fsmonitor ./mine; git stash\n"
        f"echo ./mine > {box.common}/hooks/post-commit; echo mine > {box.common}/worktrees/tree/mine; true"
    )
    assert "Begin\nasked\n" in done.output, done.output
    assert (git(box.repository, "for-each-ref"), (box.common / "config").read_text()) == before
    assert [path.name for path in box.common.rglob("*") if path.name in ("post-commit", "mine")] == []


def test_the_file_that_says_whose_the_work_tree_is_stays(bubble: Box) -> None:
    said = (bubble.tree / ".git").read_text()
    bubble.run("rm -f .git; mv .git git; echo gitdir: /elsewhere > .git; ln -sf /elsewhere .git")
    assert (bubble.tree / ".git").read_text() == said


def test_files_to_sign_in_with_can_be_used_and_nothing_beside_them(box: Box) -> None:
    key, own = box.home / ".agent/credentials.json", box.private / "homes/one"
    for directory in (key.parent, own):
        directory.mkdir(parents=True)
    key.write_text("old")
    (key.parent / "history").write_text("planted")
    (own / "credentials.json").symlink_to(key)
    line = f"cat {own}/credentials.json; printf new > {own}/credentials.json; cat {key.parent}/history"
    done = box.run(line, Reach((box.tree, own), credentials=(key,)))
    assert done.output.startswith("old")
    assert key.read_text() == "new"
    assert "planted" not in done.output


def test_temporary_files_are_its_own(box: Box) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp", prefix="theirs-") as theirs:
        done = box.run(f"mktemp; cat {theirs.name}; echo mine > {theirs.name}-mine; ls /tmp")
        assert not Path(f"{theirs.name}-mine").exists()
        assert f"{Path(theirs.name).name}\n" not in done.output.splitlines()[-1]
    made = Path(done.output.splitlines()[0])
    assert made.is_relative_to(box.private) or (made.is_relative_to("/tmp") and not made.exists()), done.output


def test_a_link_out_of_the_work_tree_leads_nowhere(box: Box) -> None:
    (box.tree / "out").symlink_to(box.home)
    done = box.run("cat out/.ssh/id; echo x > out/.ssh/id")
    assert "planted" not in done.output
    assert (box.home / ".ssh/id").read_text() == "planted\n"


def test_no_descriptor_of_ours_is_inherited(box: Box) -> None:
    read, write = os.pipe()
    try:
        os.set_inheritable(write, True)
        assert set(box.run("ls /proc/self/fd").output.split()) == {"0", "1", "2", "3"}
    finally:
        os.close(read)
        os.close(write)


# ── Network and processes ────────────────────────────────────────────────────────────────────────────────────


def test_the_network_is_there_only_when_it_is_given(box: Box) -> None:
    if box.kind == "landlock" and landlock.version() < 4:
        pytest.skip("this kernel's Landlock knows no network")
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        line = f"{PYTHON} -c \"import socket; socket.create_connection(('127.0.0.1', {server.server_port}))\""
        assert box.run(line).code == 1
        assert box.run(line, Reach((box.tree,), network=True)).code == 0
    finally:
        server.shutdown()
        server.server_close()


def test_other_processes_cannot_be_seen(bubble: Box) -> None:
    assert bubble.run(f"test -e /proc/{os.getpid()}").code == 1


def test_other_processes_cannot_be_ended(box: Box) -> None:
    if box.kind == "landlock" and landlock.version() < 6:
        pytest.skip("this kernel's Landlock lets signals through")
    with subprocess.Popen(["sleep", "100"]) as other:
        assert box.run(f"kill -9 {other.pid}").code != 0
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    "line", ["setsid sleep {0} & wait", "(setsid sh -c 'sleep {0}; sleep {0}' &) ; sleep {0}", "sleep {0} & sleep {0}"]
)
def test_nothing_goes_on_when_it_is_killed(box: Box, line: str) -> None:
    job = box.start("echo begun; " + line.format("98765"))
    until(lambda: _sleepers("98765"))
    assert strays(box.marker) != []
    assert job.cancel(0.0).kind == "cancelled"
    assert strays(box.marker) == []
    assert _sleepers("98765") == []


def test_nothing_goes_on_when_it_has_ended(bubble: Box) -> None:
    # Without its environment it would not be found, but its namespace ends.
    done = bubble.run("env -i setsid sleep 87654 </dev/null >/dev/null 2>&1 & sleep 0.1")
    assert done.kind == "exited"
    assert _sleepers("87654") == []


def test_a_stray_is_found_by_its_marker_from_outside(box: Box) -> None:
    job = box.start("sleep 76543 & sleep 76543")
    until(lambda: len(_sleepers("76543")) == 2)
    assert set(_sleepers("76543")) <= set(strays(box.marker))
    assert kill_strays(box.marker) >= 2
    assert _sleepers("76543") == []
    assert job.wait().kind in ("signalled", "unrunnable")


def test_it_ends_with_those_who_started_it(bubble: Box) -> None:
    within = bubble.sandbox.around(Reach((bubble.tree,)), bubble.tree)
    within[within.index("{status}")] = "2"
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, *within, "sleep", "65432"], stderr=subprocess.DEVNULL) as parent:
        until(lambda: _sleepers("65432"))
        parent.kill()
    until(lambda: not _sleepers("65432"))


def test_it_may_end_by_itself_when_it_is_asked_to(box: Box) -> None:
    job = box.start("trap 'echo saved; exit 0' TERM; echo begun; while :; do sleep 0.02; done")
    until(lambda: "begun" in (box.directory / "log").read_text())
    done = job.cancel(30.0)
    assert done.output.endswith("saved\n")
    assert done.kind == "cancelled"


# ── Limits and ends ──────────────────────────────────────────────────────────────────────────────────────────


def test_memory_has_a_limit(box: Box) -> None:
    box.bounds = Bounds(memory=256)
    line = f"{PYTHON} -c 'bytearray({{}} << 20)'"
    assert box.run(line.format(64)).code == 0
    assert "MemoryError" in box.run(line.format(512)).output


def test_files_have_a_limit(box: Box) -> None:
    box.bounds = Bounds(file=1)
    done = box.run("exec head -c 2000000 /dev/zero > big")
    assert (done.kind, done.signal) == ("signalled", signal.SIGXFSZ)
    assert (box.tree / "big").stat().st_size == 1 << 20


def test_time_has_a_limit(box: Box) -> None:
    box.bounds = Bounds(cpu=7)
    assert box.run("ulimit -t").output == "7\n"


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, to be somebody else")
def test_somebody_who_is_not_root_is_contained_too(environ: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        box = make_box(directory, "bubblewrap", environ)
        subprocess.run(["chown", "-R", "65534:65534", str(box.tree), str(box.repository)], check=True)
        box.environ["PATH"] = "/usr/bin:/bin"
        host = Host(box.home, (Path("/usr/bin"), Path("/bin")))
        sandbox = Sandbox("bubblewrap", host, box.common, box.private, box.repository, bounds=Bounds(processes=20))
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        within = [*nobody, *sandbox.around(Reach((box.tree,)), box.tree)]
        done = box.start(f"id -u; echo in > inside; cat {box.home}/.ssh/id; git log --oneline", within=within).wait()
        assert done.output.startswith("65534\n")
        assert "Begin\n" in done.output
        assert "planted" not in done.output
        assert (box.tree / "inside").exists()
        many = box.start("for n in $(seq 40); do sleep 5 & done; wait", within=within).wait()
        assert many.code != 0
        assert "fork" in many.output


def test_how_it_ended_is_told_apart(box: Box) -> None:
    ends = [box.run(line) for line in ("exit 1", "exit 3", "kill -9 $$", "nosuchcommand")]
    assert [(done.kind, done.code, done.signal) for done in ends] == [
        ("exited", 1, None),
        ("exited", 3, None),
        ("signalled", None, signal.SIGKILL),
        ("unrunnable", 127, None),
    ]


def test_a_sandbox_that_cannot_begin_is_no_failure_of_the_command(box: Box) -> None:
    within = box.sandbox.around(Reach((box.tree,)), box.tree)
    broken = [part.replace(str(box.tree), "/nowhere") if part == str(box.tree) else part for part in within]
    if box.kind == "landlock":
        broken = [part.replace('"limits": {', '"limits": {"NONESUCH": 1, ') for part in within]
    done = box.start("echo begun", within=broken).wait()
    assert done.kind == "unrunnable"
    assert "begun" not in done.output


# ── Which kind ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_works_is_chosen_best_first(box: Box) -> None:
    works = [trial.kind for trial in box.sandbox.trials() if not trial.reason]
    box.kind = "auto"
    assert box.sandbox.kind == works[0]
    box.environ["PATH"] = str(box.directory)
    left = [trial.kind for trial in box.sandbox.trials() if not trial.reason]
    assert "bubblewrap" not in left
    assert next(trial.reason for trial in box.sandbox.trials()) == "bwrap is not on the PATH"


def test_what_was_chosen_and_does_not_work_is_refused(bubble: Box) -> None:
    bubble.environ["PATH"] = str(bubble.directory)
    with pytest.raises(Refused) as refused:
        bubble.run("echo begun")
    assert "bwrap is not on the PATH" in refused.value.message
    assert refused.value.hint == INSTALL
    assert not (bubble.directory / "log").exists()


def test_none_is_chosen_and_contains_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    box = Box(tmp_path, "none", environ)
    assert not box.sandbox.confines
    assert box.run(f"cat {box.home}/.ssh/id").output == "planted\n"


# ── The view ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_innermost_place_decides(tmp_path: Path) -> None:
    home, tree = tmp_path / "home", tmp_path / "home/state/tree"
    for directory in (home / ".cargo/bin", home / ".ssh", tree):
        directory.mkdir(parents=True)
    (home / ".cargo/credentials.toml").write_text("token")
    found = dict(places(Host(home, (home / ".cargo/bin",)), [], [], [tree]))
    assert found[home] == "hide"
    assert found[home / ".cargo"] == "read"
    assert found[home / ".cargo/credentials.toml"] == "mask"
    assert found[tree] == "write"
    # What is hidden with all around it needs no place of its own.
    assert home / ".ssh" not in found
    assert list(found).index(home) < list(found).index(tree)


def test_what_may_be_written_is_not_taken_back_by_what_may_be_read(tmp_path: Path) -> None:
    pin, file = tmp_path / "pin", tmp_path / "file"
    for path in (pin, file):
        path.touch()
    found = dict(places(Host(tmp_path / "home"), [], [file], [tmp_path], pinned=[pin]))
    assert (found[tmp_path], found[pin]) == ("write", "read")
    assert file not in found


def test_who_opens_the_home_does_not_open_what_is_secret_in_it(tmp_path: Path) -> None:
    for name in (".ssh", "work"):
        (tmp_path / name).mkdir()
    key = tmp_path / ".ssh/key"
    key.touch()
    found = dict(places(Host(tmp_path), [], [tmp_path, key], [key]))
    assert (found[tmp_path], found[tmp_path / ".ssh"]) == ("read", "hide")
    assert key not in found
    assert dict(places(Host(tmp_path), [], [], [], [key]))[key] == "write"


def test_tools_in_the_home_come_with_what_they_need(tmp_path: Path) -> None:
    search = [tmp_path / name for name in (".pyenv/shims", ".cargo/bin", "bin", ".local/bin")]
    for directory in search:
        directory.mkdir(parents=True)
    there = tmp_path / ".opt/tool/bin/tool"
    there.parent.mkdir(parents=True)
    there.touch()
    (tmp_path / "bin/tool").symlink_to(there)
    found = set(toolchains(Host(tmp_path, tuple(search), (ROOT,))))
    wanted = (".pyenv", ".cargo", ".rustup", "bin", ".opt/tool", ".local/bin", ".local/lib", ".local/share/uv")
    assert {tmp_path / name for name in wanted} <= found
    assert ROOT in found
    assert not {tmp_path, tmp_path / ".local", tmp_path / ".local/share"} & found


def _sleepers(seconds: str) -> list[int]:
    """Living processes that sleep for just that long."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["cmdline"] == ["sleep", seconds] and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found
