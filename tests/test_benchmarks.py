"""The benchmarks run, at sizes that take seconds, and what they check they do check. No figure is judged here."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from beads import Dependency, Store
from beads.model import write_bead
from beads.ops import Reopen
from benchmarks import (
    contention,
    graph,
    growth,
    hanoi,
    hundred,
    landing,
    million,
    pour,
    processes,
    refinery,
    replay,
    sandbox,
    steps,
    store,
    town,
    worktrees,
)
from benchmarks.common import Figure, Launcher, environment, repository, timed
from benchmarks.simulator import Batches
from tests.world import ROOT, commit, git


def measured(module: ModuleType, place: Path, arguments: str) -> dict[str, Figure]:
    """What a benchmark finds with these options, by name."""
    parser = ArgumentParser()
    module.add(parser)
    figures = list(module.measure(place, parser.parse_args(arguments.split())))
    found = {figure.name: figure for figure in figures}
    assert len(found) == len(figures), "two figures have one name"
    assert all(figure.ours >= 0 for figure in figures)
    return found


def test_transactions_are_measured(tmp_path: Path) -> None:
    found = measured(store, tmp_path, "--beads 30 --times 2 --batch 100 --batches 1")
    assert {name.split(",")[0] for name in found} >= {"create", "update of a field", "claim"}
    assert all(figure.ratio for figure in found.values())


@pytest.mark.parametrize("flush", [True, False])
def test_the_floor_writes_the_very_same_history(tmp_path: Path, flush: bool) -> None:
    list(store.singles(tmp_path, 10, 2, flush=flush))
    heads = {Store.open(tmp_path / name).snapshot().commit for name in ("ours", "bare")}
    assert len(heads) == 1


@pytest.mark.slow
def test_commands_are_measured(tmp_path: Path) -> None:
    found = measured(processes, tmp_path, "--beads 50 --times 1")
    assert {name.split(",")[0] for name in found} >= {"bead ready", "bead create", "bead claim --next"}


def test_contention_is_measured(tmp_path: Path) -> None:
    found = measured(contention, tmp_path, "--processes 2 --beads 4 --comments 2")
    tries = [figure.ours for name, figure in found.items() if name.endswith("tries a commit")]
    assert len(tries) == 2
    assert all(number >= 1 for number in tries)


@pytest.mark.slow
@pytest.mark.parametrize("packer", ["bead", "git"])
def test_growth_is_measured(tmp_path: Path, packer: str) -> None:
    found = measured(growth, tmp_path, f"--beads 50 --changes 5 --packer {packer}")
    total = found[f"a change, 50 beads, packed by {packer}"]
    parts = [figure.ours for name, figure in found.items() if name.startswith("of that")]
    assert total.ours == pytest.approx(sum(parts))


def test_a_long_molecule_is_poured_worked_off_and_shown(tmp_path: Path) -> None:
    found = measured(pour, tmp_path, "--steps 12 --times 1")
    assert {"pour 12 steps", "pour 12 steps again", "show 12 steps as JSON, all worked on"} <= found.keys()
    steps = [bead for bead in Store.open(tmp_path / "pour").snapshot() if bead.issue_type == "step"]
    assert all(bead.outcome == "done" and bead.attempts and bead.evidence for bead in steps)


@pytest.mark.slow
def test_a_million_beads_are_measured_with_fewer(tmp_path: Path) -> None:
    found = measured(million, tmp_path, "--beads 100 --rounds 1 --times 2")
    assert found["bead show, most memory"].ours > 1e6


def test_what_a_step_takes_is_measured(tmp_path: Path) -> None:
    found = measured(steps, tmp_path, "--steps 2")
    whole = found["a step (2 in one molecule)"]
    parts = [f.ours for name, f in found.items() if name.startswith("of that: ") and f.unit == "s"]
    assert whole.ours == pytest.approx(sum(parts))
    assert found["of that: transactions on the store, how often"].ours >= 2


@pytest.mark.slow
def test_what_a_sandbox_adds_is_measured(tmp_path: Path) -> None:
    assert all(figure.ratio for figure in measured(sandbox, tmp_path, "--times 2").values())


@pytest.mark.slow
def test_the_way_to_main_is_measured(tmp_path: Path) -> None:
    assert measured(town, tmp_path, "--molecules 1")["molecule to main (1, 2 polecats)"].ratio


@pytest.mark.parametrize("how", ["--apart", *(pytest.param(how, marks=pytest.mark.slow) for how in ("", "--group 8"))])
def test_the_tower_is_moved_under_fire(tmp_path: Path, how: str) -> None:
    found = measured(hanoi, tmp_path, f"--discs 5 --kills 2 {how}")
    assert found["workers started"].ours == found["killed"].ours + 1
    assert found["commits that closed steps"].ours <= 31
    assert (found["commits that closed steps"].ours == 31) == ("group" not in how)


@pytest.mark.parametrize("discs", range(1, 8))
def test_the_moves_are_those_of_the_puzzle(discs: int) -> None:
    judge = hanoi.Judge(discs, grouped=True, apart=False)
    for number, text in enumerate(titles(discs), start=1):
        judge.see("c", [(number, move(number, text, "open", 0))])
        judge.see("c", [(number, move(number, text, "closed", 1))])
    judge.end()
    assert judge.commits == 2**discs - 1


def titles(discs: int) -> list[str]:
    """What the moves of a tower are called."""
    return [f"move disc {disc} from {source} to {target}" for disc, source, target in hanoi.moves(discs)]


def move(number: int, title: str, status: str, epoch: int) -> bytes:
    """The bead of a move in that state, as it is stored."""
    before = (Dependency(on=f"{hanoi.ROOT}.{number - 1}"),) if number > 1 else ()
    state = {"title": title, "status": status, "epoch": epoch, "dependencies": before}
    return write_bead(store.bead(number).evolve(**state))


@pytest.mark.parametrize(
    "number,title,status,epoch,problem",
    [
        (1, "", "in_progress", 1, "move 1 went from 3"),
        (3, "", "in_progress", 1, "3 was claimed after 1"),
        (1, "", "closed", 1, "move 1 went from 3"),
        (3, "", "closed", 1, "3 was closed after 1"),
        (2, "move disc 2 from B to C", "closed", 1, "it is not on top there"),
        (2, "move disc 2 from A to C", "closed", 1, "it would lie on a smaller one"),
        (2, "rest", "closed", 1, "is no move"),
        (2, "", "closed", 2, "move 2 went from 1"),
    ],
)
def test_the_judge_objects(number: int, title: str, status: str, epoch: int, problem: str) -> None:
    judge, all_of_them = hanoi.Judge(2, grouped=True, apart=False), titles(2)
    judge.see("c", [(n, move(n, all_of_them[n - 1], "open", 0)) for n in (1, 2, 3)])
    judge.see("c", [(1, move(1, "move disc 1 from A to C", "closed", 1))])
    with pytest.raises(RuntimeError, match=problem):
        judge.see("c", [(number, move(number, title or all_of_them[number - 1], status, epoch))])


def test_the_judge_objects_to_several_in_one_and_to_both_in_one() -> None:
    made = [(n, move(n, title, "open", 0)) for n, title in enumerate(titles(2), start=1)]
    moved = [(n, move(n, title, "closed", 1)) for n, title in enumerate(titles(2), start=1)]
    alone = hanoi.Judge(2, grouped=False, apart=False)
    alone.see("c", made)
    alone.see("c", moved[:1])
    with pytest.raises(RuntimeError, match="closes several"):
        alone.see("c", moved[1:])
    apart = hanoi.Judge(2, grouped=False, apart=True)
    apart.see("c", made)
    with pytest.raises(RuntimeError, match="closed by the commit that claimed it"):
        apart.see("c", moved[:1])


def test_an_unfinished_tower_is_noticed(tmp_path: Path) -> None:
    made = Store.init(repository(tmp_path / "a"), "bench")
    hanoi.create(made, 3)
    with pytest.raises(RuntimeError, match="only 0 moves were closed"):
        hanoi.verify(tmp_path / "a", made.ref, 3, grouped=False)


def test_a_move_that_was_taken_back_is_noticed(tmp_path: Path) -> None:
    made = Store.init(repository(tmp_path / "a"), "bench")
    hanoi.create(made, 2)
    hanoi.drive(tmp_path / "a", 3, ["--group", "1"], 0, random.Random(0))
    assert hanoi.verify(tmp_path / "a", made.ref, 2, grouped=False) == 3
    made.commit("somebody", [Reopen(id=f"{hanoi.ROOT}.2")])
    with pytest.raises(RuntimeError, match="move 2 went from 3"):
        hanoi.verify(tmp_path / "a", made.ref, 2, grouped=False)


def test_the_graph_is_like_that_of_a_project() -> None:
    beads = list(graph.beads(5000, seed=1))
    places = {bead.id: place for place, bead in enumerate(beads)}
    assert len(places) == 5000
    assert all(places[d.on] < places[bead.id] for bead in beads for d in bead.dependencies)
    states = Counter(bead.status for bead in beads)
    assert 0.5 < states["closed"] / 5000 < 0.7
    assert states.keys() == {"open", "in_progress", "deferred", "closed"}


def test_the_same_seed_gives_the_same_graph() -> None:
    assert list(graph.beads(100, seed=3)) == list(graph.beads(100, seed=3))
    assert list(graph.beads(100, seed=3)) != list(graph.beads(100, seed=4))


def test_what_a_process_needed_is_its_own(tmp_path: Path) -> None:
    ballast = bytearray(200_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    with Launcher(tmp_path) as launcher:
        assert launcher.run(sys.executable, "-S", "-c", "print(1)").peak < 100e6


def test_a_process_that_fails_is_an_error(tmp_path: Path) -> None:
    with Launcher(tmp_path) as launcher, pytest.raises(RuntimeError, match="ended with 3: no"):
        launcher.run(sys.executable, "-c", "print('no'); raise SystemExit(3)")


def test_a_target_is_of_the_ratio_where_there_is_a_floor() -> None:
    assert timed("a", [3.0], [1.0], at_most=2.0).holds is False
    assert timed("a", [3.0], [2.0], at_most=2.0).holds is True
    assert Figure("a", 3.0, at_least=2.0).holds is True
    assert Figure("a", 3.0).holds is None


def test_work_trees_are_measured(tmp_path: Path) -> None:
    found = measured(worktrees, tmp_path, "--files 20 --times 1")
    assert {name.split(",")[0] for name in found} == {"a work tree anew", "a work tree again", "given up"}


def test_landing_is_measured_beside_merging_by_hand(tmp_path: Path) -> None:
    found = measured(landing, tmp_path, "--requests 2 --files 3 --by-hand 1")
    assert found["a request to main (2 at once)"].ratio
    assert found["a request to main (2 one by one)"].ratio


def test_merges_of_a_history_are_made_again(tmp_path: Path, repo: Path) -> None:
    for name in ("one", "two"):
        git(repo, "checkout", "--quiet", "-b", name, "main")
        commit(repo, {"both": f"{name}\n", name: "x\n"}, name)
        git(repo, "checkout", "--quiet", "main")
    git(repo, "merge", "--quiet", "--no-ff", "--no-edit", "one")
    git(repo, "merge", "--quiet", "--no-ff", "--no-edit", "--strategy=ours", "two")
    found = measured(replay, tmp_path / "replay", f"--repository {repo} --merges 2")
    assert found["merges with the same tree"].ours == 1
    assert found["merges that conflict, in the same paths"].ours == 1
    with pytest.raises(RuntimeError, match="only 2 such merges"):
        measured(replay, tmp_path / "more", f"--repository {repo} --merges 3")


def test_the_merge_queue_is_measured_and_drawn(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.svg"
    found = measured(refinery, tmp_path, f"--failures 4 --changes 20 --seeds 1 --plot {drawn}")
    assert found["strategies that beat the oracle"].floor is None
    names = {name.split(":")[0] for name in found}
    assert {"runs a change, 5% bad", "capacity, 5% bad, 4 slots", "3 a run, 20% bad, 8 slots"} <= names
    curves = [line for line in ElementTree.parse(drawn).iter() if line.tag.endswith("polyline")]
    assert len(curves) == 11


@pytest.mark.slow  # What it finds out of real repositories it checks itself.
def test_requests_of_which_some_are_bad_are_worked_off_by_everybody(tmp_path: Path) -> None:
    found = measured(hundred, tmp_path / "hundred", "--requests 9 --bad 2 --seeds 3")
    assert found["runs of the gate, ours"].ours == found["runs of the gate in virtual time, the same requests"].ours
    assert found["runs of the gate, one after the other"].ours == 9


@pytest.mark.slow
def test_who_sends_back_others_than_the_bad_ones_is_found_out(tmp_path: Path) -> None:
    bad = frozenset({1})
    heads = hundred.project(tmp_path / "origin", 3, bad)
    with pytest.raises(RuntimeError, match=r"landed \[0, 2\] and sent \[1\] back"):
        hundred.rival(tmp_path / "rival", tmp_path / "origin", heads, frozenset({2}), Batches())
    hundred.clone(tmp_path / "ours", tmp_path / "origin")
    hundred.submit(tmp_path / "ours", heads)
    with pytest.raises(RuntimeError, match="it ended otherwise"):
        hundred.verify(tmp_path / "ours", 3, bad)


def test_a_benchmark_prints_a_table_or_json(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.hanoi", "--discs", "2", "--kills", "0"]
    table, data = (
        subprocess.run([*line, *more], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
        for more in (["--keep", str(tmp_path / "kept")], ["--json"])
    )
    assert table.stdout.splitlines()[0].startswith("what")
    assert "create 3 steps" in table.stdout
    assert table.stderr == data.stderr == "", "progress is for terminals"
    assert "all of it" in [figure["name"] for figure in json.loads(data.stdout)]
    assert (tmp_path / "kept" / "hanoi" / ".git").is_dir()


def test_an_unknown_benchmark_is_named_with_those_there_are() -> None:
    line = [sys.executable, "-m", "benchmarks", "haste"]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no benchmark 'haste'; there are store, processes" in done.stderr
