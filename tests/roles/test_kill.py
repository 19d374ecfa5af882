"""SIGKILL of the town and of polecats at random moments: the same main as without, everything landed once (I1-I7).

``KILLS=60 SEED=7`` in the environment makes it longer and other.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from beads.proof import asked
from tests.towns import CHECK, SETTINGS, TOWN, assert_settled, make_town, molecule, part, pour, run, snapshot
from tests.world import git

KILLS = int(os.environ.get("KILLS", "8"))
SEED = int(os.environ.get("SEED", "1"))


def plan() -> list[str]:
    """Eleven molecules: slow and quick ones, two that conflict in text, two that clash only together, one that asks."""
    append = "sleep 0.2; grep -qx {0} shared.txt || echo {0} >> shared.txt; echo ok > parts/{0}"
    name = "sleep 0.2; n=one; grep -q '^name one' parts/[!{0}]* && n=two; printf 'ok\\nname %s\\n' $n > parts/{0}"
    return [
        *(molecule(n, append.format(n), f"grep -qx {n} shared.txt") for n in ("s", "t")),
        *(molecule(n, name.format(n)) for n in ("x", "y")),
        *(part(f"p{i}", seconds=0.3) for i in range(4)),
        part("q", needs=["p0", "s"]),
        part("r", seconds=0.3, needs=["q", "x", "y"]),
        molecule("v", "sleep 0.2; echo ok > parts/v", limits='{ approval = "Is it right?" }'),
    ]


def finish(repository: Path) -> None:
    """Let the town come to its end, with a person who says yes to what is asked, once."""
    run(repository, "up", "--until-idle", ok=(7,))
    asking = [bead.id for bead in snapshot(repository) if asked(bead)]
    assert len(asking) == 1
    run(repository, "approve", *asking)
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=11)


def result(repository: Path) -> dict[str, str]:
    """What main has; of two that may land in either order, what they have together."""
    files = git(repository, "ls-tree", "-r", "--name-only", "main").split()
    texts = {name: git(repository, "show", f"main:{name}") for name in files}
    texts["shared.txt"] = "\n".join(sorted(texts["shared.txt"].split()))
    texts["parts/x"] = texts["parts/y"] = "\n".join(sorted([texts["parts/x"], texts["parts/y"]]))
    return texts


def expected() -> dict[str, str]:
    """What a town that nobody kills brings to main with that plan."""
    names = ("first", "s", "t", "p0", "p1", "p2", "p3", "q", "r", "v")
    both = "\n".join(sorted(["ok\nname one", "ok\nname two"]))
    return {
        **{f"parts/{name}": "ok" for name in names},
        **{f"parts/{name}": both for name in ("x", "y")},
        "shared.txt": "\n".join(sorted(["top", "s", "t"])),
        "check.sh": CHECK.removesuffix("\n"),
        "town.toml": SETTINGS.removesuffix("\n"),
    }


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A town with the plan poured; whatever still runs in it afterwards is killed."""
    repository = make_town(tmp_path)
    pour(repository, *plan())
    yield repository
    for process in victims(repository, everything=True):
        process.kill()


def victims(repository: Path, *, everything: bool = False) -> list[psutil.Process]:
    """The town's own processes, or with ``everything`` also what they started, in an order that is always the same."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "create_time"]):
        line = process.info["cmdline"] or []
        if (process.info["cwd"] or "").startswith(str(repository.parent)) and (
            everything or "--until-idle" in line or "polecat" in line
        ):
            found.append(process)
    return sorted(found, key=lambda p: (p.info["create_time"], p.pid))


@pytest.mark.parametrize("seed", [SEED, pytest.param(SEED + 1, marks=pytest.mark.slow)])
def test_killed_at_random_moments(repository: Path, seed: int) -> None:
    chance = random.Random(seed)
    supervisor: subprocess.Popen[bytes] | None = None
    log = (repository.parent / "up.log").open("wb")
    for _ in range(KILLS):
        if supervisor is None or supervisor.poll() is not None:
            supervisor = subprocess.Popen([*TOWN, "up", "--until-idle"], cwd=repository, stdout=log, stderr=log)
        # The moment of the kill is what the test is about: chance, not an event.
        time.sleep(chance.uniform(0.05, 1.5))
        alive = victims(repository)
        if alive:
            chance.choice(alive).send_signal(signal.SIGKILL)
    if supervisor is not None:
        supervisor.kill()
        supervisor.wait()
    log.close()
    finish(repository)
    assert result(repository) == expected()
    assert git(repository, "status", "--porcelain") == ""
