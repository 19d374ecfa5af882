"""Nothing that an agent started is alive when its work is looked at, nor when somebody else goes on with it (I2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from beads import Bead
from beads.errors import Fenced
from cli.config import open_site
from refinery.processes import start
from roles.site import wait
from tests.roles.scripted import agent
from tests.towns import TOWN, make_town, molecule, pour, processes, run, sandboxed, settings_with, snapshot, until
from tests.world import git

# It writes on and on, and notes which state of the store it has seen last.
ESCAPEE = """
if escape("{pid}"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with open("parts/agent", "a") as file:
            file.write("ok\\n")
        with open("{store}") as store, open("{pid}.seen", "w") as seen:
            seen.write(store.read())
        open("{pid}.began", "w").close()
        time.sleep(0.001)
wait_for("{pid}.began")
"""


def town_with(path: Path, work: str, *criteria: str) -> Path:
    """A town whose agent leaves such a child behind and then does this; out of a sandbox it could not."""
    store = path / "project" / ".git" / "refs" / "beads" / "main"
    begin = ESCAPEE.format(pid=path / "pid", store=store)
    repository = make_town(path, sandboxed('kind = "none"', settings_with(agent(begin + work))))
    pour(repository, molecule("agent", "", *criteria))
    return repository


def child(path: Path) -> int:
    return int((path / "pid").read_text())


def is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def step_of(repository: Path) -> Bead:
    return next(bead for bead in snapshot(repository) if bead.issue_type == "step")


def test_who_moved_away_is_dead_when_criteria_are_looked_at(tmp_path: Path) -> None:
    look = tmp_path / "look.py"
    look.write_text(
        "import json, sys, psutil\n"
        "found = [p.pid for p in psutil.process_iter(['cmdline']) if sys.argv[1] in ' '.join(p.info['cmdline'] or [])\n"
        "         and p.pid not in (psutil.Process().pid, *(q.pid for q in psutil.Process().parents()))]\n"
        "pid = int(open(sys.argv[2]).read())\n"
        "dead = not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE\n"
        "open(sys.argv[2] + '.looked', 'w').write(json.dumps([found, dead]))\n"
    )
    repository = town_with(
        tmp_path,
        "sys.exit(0)",
        f"test -f parts/agent && {sys.executable} {look} {tmp_path}/pid.began {tmp_path}/pid",
    )
    run(repository, "polecat", "run")
    assert json.loads((tmp_path / "pid.looked").read_text()) == [[], True]
    assert step_of(repository).outcome == "done"
    assert processes(repository) == []


def test_who_moved_away_from_a_killed_polecat_is_dead_before_the_work_is_anybody_elses(tmp_path: Path) -> None:
    repository = town_with(tmp_path, "hang()")
    first = subprocess.Popen([*TOWN, "polecat", "run", "--as", "first"], cwd=repository)
    until((tmp_path / "pid.began").exists)
    pid = child(tmp_path)
    first.kill()
    first.wait()
    assert not is_dead(pid)
    held = git(repository, "rev-parse", "refs/beads/main")
    run(repository, "witness", "tick")
    assert is_dead(pid)
    assert step_of(repository).attempts[0].end == "died"
    # It has not lived to see the store in which the molecule is free.
    assert (tmp_path / "pid.seen").read_text().strip() in ("", held)
    # What it had written by then is safe, and nothing is written any more.
    root = step_of(repository).parent
    [worktree] = tmp_path.glob("worktrees/[!.]*")
    saved = git(repository, "show", f"refs/beads/salvage/{root}/1:parts/agent")
    assert (worktree / "parts/agent").read_text().strip() == saved


def test_who_moved_away_from_a_stopped_polecat_is_dead_before_the_work_is_anybody_elses(tmp_path: Path) -> None:
    repository = town_with(tmp_path, "on_term(lambda: [tell('said', text='All done!'), os._exit(0)]); hang()")
    polecat = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository, stdout=subprocess.PIPE, text=True)
    until((tmp_path / "pid.began").exists)
    held = git(repository, "rev-parse", "refs/beads/main")
    polecat.terminate()
    out, _ = polecat.communicate()
    assert "stopped: asked to stop" in out
    assert is_dead(child(tmp_path))
    seen = (tmp_path / "pid.seen").read_text().strip()
    assert seen in ("", held)
    [attempt] = step_of(repository).attempts
    assert (attempt.end, attempt.ending, attempt.reason) == ("stopped", "cancelled", "asked to stop")


def test_whoever_has_lost_its_work_leaves_nothing_running_in_it(tmp_path: Path) -> None:
    site = open_site(make_town(tmp_path))
    job = start(
        agent("hang()"),
        cwd=tmp_path,
        environ=site.environ,
        log=tmp_path / "log",
        timeout=60.0,
        marker="test",
        clock=site.clock,
    )

    def renew() -> None:
        raise Fenced("it is somebody else's")

    with pytest.raises(Fenced):
        wait(job, site, lambda: False, renew)
    assert is_dead(job.pid)


def test_who_exits_well_without_having_done_it_and_who_fails_having_done_it(tmp_path: Path) -> None:
    """An exit status is a hint: the criteria decide."""
    work = "os.environ['BEADTOWN_ATTEMPT'] == '1' and sys.exit(0)\nopen('parts/agent', 'w').write('ok\\n')\nsys.exit(3)"
    repository = make_town(tmp_path, settings_with(agent(work)))
    pour(repository, molecule("agent", ""))
    run(repository, "polecat", "run")
    assert [(a.end, a.reason) for a in step_of(repository).attempts] == [
        ("unmet", "run: test -f parts/agent: exit 1"),
        ("satisfied", ""),
    ]
