"""Room on the disk: what work trees take, and that nothing is begun without."""

from __future__ import annotations

from pathlib import Path

import pytest

from beads import Bead, graph
from beads.errors import InvalidDocument, InvalidInput
from cli.config import open_site
from refinery.git import Git
from refinery.space import in_words, shortage, size_of
from refinery.workshop import Workshop
from roles.polecat import Polecat
from roles.settings import read_settings
from tests.towns import SETTINGS, make_town, part, pour, run, snapshot
from tests.world import make_repository


@pytest.mark.parametrize(
    "text,size", [("0", 0), ("512", 512), ("20G", 20 << 30), ("1.5 MiB", 3 << 19), ("2kb", 2048), ("1T", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size
    assert size_of(in_words(size).removesuffix(" bytes")) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "20 apples", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        size_of(text)
    with pytest.raises(InvalidDocument, match=r"disk_max: .* is not a size"):
        read_settings(f"[worktree]\ndisk_max = '{text}'\n".encode())


def test_the_trash_makes_room_before_it_is_said_that_there_is_none(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {"a": "a" * 100_000})
    git = Git(repository, {"PATH": "/usr/bin:/bin"})
    workshop = Workshop(git, tmp_path / "trees")
    assert shortage(workshop, git, "main", 250_000, 0) == ""
    (workshop.root / ".trash/old").mkdir(parents=True)
    (workshop.root / ".trash/old/big").write_bytes(b"x" * 200_000)
    assert shortage(workshop, git, "main", 250_000, 0) == ""
    assert list((workshop.root / ".trash").iterdir()) == []
    worktree = workshop.open("t", "side", "main")
    # What a set-up makes of one, it will make of the next.
    (worktree.path / "cache").write_bytes(b"x" * 150_000)
    assert "one more would take about" in shortage(workshop, git, "main", 500_000, 0)
    assert shortage(workshop, git, "main", 700_000, 0) == ""
    assert "less than disk_free = " in shortage(workshop, git, "main", None, 1 << 60)


def cramped_town(path: Path, limit: str) -> tuple[Path, Bead]:
    repository = make_town(path, SETTINGS.replace("[worktree]\n", f"[worktree]\n{limit}\n"))
    pour(repository, part("a"))
    (root,) = [bead for bead in snapshot(repository) if bead.issue_type == "molecule"]
    return repository, root


@pytest.mark.parametrize("limit", ['disk_max = "1K"', 'disk_free = "1000000T"'])
def test_a_town_without_room_claims_nothing_and_says_so(tmp_path: Path, limit: str) -> None:
    repository, root = cramped_town(tmp_path, limit)
    done = run(repository, "up", "--until-idle", ok=[7])
    assert "waiting for room on the disk" in done.stdout
    assert f"more than {limit.split()[0]}" in done.stderr or "less than disk_free" in done.stderr
    assert snapshot(repository).need(root.id) == root
    # Room is made, and it goes on by itself.
    settings = (repository / "town.toml").read_text()
    (repository / "town.toml").write_text(settings.replace(limit, ""))
    assert run(repository, "polecat", "run").stdout.startswith(f"{root.id} submitted")


def test_a_polecat_without_room_gives_the_molecule_back(tmp_path: Path) -> None:
    repository, root = cramped_town(tmp_path, "disk_max = 1024")
    result = Polecat(open_site(repository), "nux", lambda: False).run(root.id)
    assert result.end == "parked"
    assert "more than disk_max = 1K" in result.reason
    state = graph.state(snapshot(repository), snapshot(repository).need(root.id), root.updated_at)
    assert state.kind == "deferred"
    assert "disk_max" in state.reason
    assert not list(tmp_path.glob("worktrees/[!.]*"))
