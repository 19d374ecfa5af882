"""What must hold after a run, whatever went wrong in it: read from the repository alone, and from what agents wrote."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from beads import Snapshot, Store, graph
from beads.model import Bead
from tests.simulation.actors import BEGIN
from tests.simulation.git import Objects, Refs, objects_of, place_of
from tests.simulation.world import World


def violations(world: World) -> list[str]:
    """In words, what does not hold."""
    repository = world.stage.repository
    store = Store.open(repository)
    state = store.snapshot()
    objects, refs = objects_of(repository / ".git"), Refs(place_of(repository, {}))
    main = refs.read("refs/heads/main") or ""
    return [
        *_nothing_lost(world, objects, refs, main),
        *_kept(store, world),
        *_one_holder(store),
        *_proven(state),
        *_green(objects, main, state),
        *_once(objects, main, state),
        *_in_order(objects, main, state),
        *_next_actor(state),
        *_fair(world, state),
        *_nothing_left(repository, refs, world),
    ]


def _nothing_lost(world: World, objects: Objects, refs: Refs, main: str) -> Iterator[str]:
    """I1: what agents wrote and what people pushed is to be found from a ref."""
    history = objects.history([main])
    yield from (f"I1: {commit} was pushed and is not on main" for commit in world.pushed if commit not in history)
    texts: set[str] = set()
    trees = {c.tree for c in objects.history(oid for name, oid in refs.below([]) if name != "refs/beads/main").values()}
    for tree in trees:
        for path, (_, oid) in objects.files(tree).items():
            if path.startswith("drafts/"):
                texts.update(objects.read(oid)[1].decode().splitlines())
    yield from (f"I1: {token!r} is nowhere" for token in sorted(world.scripts.tokens - texts))


def _kept(store: Store, world: World) -> Iterator[str]:
    """I1: a write that somebody was told of is in the history."""
    there = {commit.oid for commit in store.repository.history(store.head())}
    yield from (f"I1: {commit} of the store is lost" for commit in world.wrote if commit not in there)


def _one_holder(store: Store) -> Iterator[str]:
    """I2: epochs only grow, a lease is not taken from a living one, and nobody writes without one."""
    from beads.model import read_bead

    epochs: dict[str, int] = {}
    holders: dict[str, str | None] = {}
    commits = list(store.repository.history(store.head()))[::-1]
    for before, after in itertools.pairwise(commits):
        who = after.author.split(" <")[0].removeprefix("polecat ")
        beads = [
            read_bead(store.repository.read(change.new), change.path)
            for change in store.repository.changes(before.tree, after.tree, "")
            if change.path.startswith("beads/") and change.new is not None
        ]
        for bead in beads:
            known, holder = epochs.get(bead.id, 0), holders.get(bead.id.split(".")[0])
            claimed = bead.lease is not None and bead.epoch > known
            if bead.epoch < known:
                yield f"I2: {bead.id} went from epoch {known} to {bead.epoch} in {after.oid}"
            if claimed and holder:
                yield f"I2: {bead.id} was claimed by {who} while {holder} had it, in {after.oid}"
            elif after.author.startswith("polecat ") and not claimed and who != holder:
                yield f"I2: {who} wrote {bead.id} while {holder} had it, in {after.oid}"
        for bead in beads:
            epochs[bead.id] = bead.epoch
            if "." not in bead.id:
                holders[bead.id] = bead.lease.worker if bead.lease else None


def _proven(state: Snapshot) -> Iterator[str]:
    """I3: every molecule that landed has evidence for each criterion, on one tree."""
    for bead in state:
        if bead.outcome in ("landed", "done") and bead.criteria:
            passed = {(e.subject, e.tree) for e in bead.evidence if e.verdict == "pass"}
            if not any(all((str(c), tree) in passed for c in bead.criteria) for _, tree in passed):
                yield f"I3: {bead.id} is {bead.outcome}, and its criteria were not proven"


def _first_parents(objects: Objects, main: str) -> Iterator[str]:
    here = main
    while here:
        yield here
        parents = objects.commit(here).parents
        here = parents[0] if parents else ""


def _green(objects: Objects, main: str, state: Snapshot) -> Iterator[str]:
    """I4: every state of main that the Refinery made has a stored green verdict, and really is green."""
    green = {e.tree for bead in state if bead.merge for e in bead.evidence if e.verdict == "pass"}
    for oid in _first_parents(objects, main):
        commit = objects.commit(oid)
        if "Merge-Request: " not in commit.message:
            continue
        words = [
            objects.read(blob)[1].decode().split(" ")[0].strip()
            for path, (_, blob) in objects.files(commit.tree).items()
            if path.startswith("parts/")
        ]
        if commit.tree not in green:
            yield f"I4: main was at {oid}, whose tree has no green verdict"
        if "bad" in words or words.count("alone") > 1:
            yield f"I4: main was red at {oid}"


def _once(objects: Objects, main: str, state: Snapshot) -> Iterator[str]:
    """I5: what landed is on main exactly once, and only that."""
    named: Counter[str] = Counter()
    for oid in _first_parents(objects, main):
        named.update(re.findall(r"^Merge-Request: (\S+)$", objects.commit(oid).message, re.M))
    landed = {bead.id for bead in state if bead.merge and bead.outcome == "landed"}
    yield from (f"I5: {name} landed {count} times" for name, count in named.items() if count > 1)
    yield from (f"I5: {name} is on main, and not said to have landed" for name in sorted(named.keys() - landed))
    yield from (f"I5: {name} is said to have landed, and is not on main" for name in sorted(landed - named.keys()))
    history = objects.history([main])
    for bead in state:
        if bead.merge and bead.outcome == "landed" and bead.merge.head not in history:
            yield f"I5: {bead.id} landed without what was submitted"


def _in_order(objects: Objects, main: str, state: Snapshot) -> Iterator[str]:
    """I5: nothing is on main before what it needs."""
    at: dict[str, int] = {}
    for place, oid in enumerate(reversed([*_first_parents(objects, main)])):
        at.update(dict.fromkeys(re.findall(r"^Bead: (\S+)$", objects.commit(oid).message, re.M), place))
    for bead in state:
        for need in bead.needs:
            if bead.id in at and at.get(need, len(at)) > at[bead.id]:
                yield f"I5: {bead.id} is on main before {need}, which it needs"


def _next_actor(state: Snapshot) -> Iterator[str]:
    """I7: what is left waits for a person, or for what does."""
    for bead in state.unclosed():
        if graph.is_unit(bead):
            kind = graph.state(state, bead, BEGIN).kind
            if kind not in ("needs_person", "blocked"):
                yield f"I7: {bead.id} is {kind} when nothing happens any more"


def _fair(world: World, state: Snapshot) -> Iterator[str]:
    """Nobody is sent back who has done nothing wrong, and what can be done is done."""
    natures = {part.name: part.nature for part in world.scenario.parts}
    hopeless = {name for name, nature in natures.items() if nature == "hopeless"}
    for part in world.scenario.parts:
        hopeless |= {part.name} if hopeless & {*part.needs} else set()
    for bead in state:
        if not (graph.is_unit(bead) and bead.title.startswith("Do ")):
            continue
        name = bead.title.removeprefix("Do ")
        reworks = [b for b in state if b.id.startswith(f"{bead.id}.") and "rework" in b.labels]
        wrong = [b.id for b in reworks if "the gate is red" in (b.description or "")]
        if wrong and natures[name] in ("good", "shared", "hopeless"):
            yield f"fair: {bead.id} ({natures[name]}) was convicted: {wrong[0]}"
        died = any(graph.used_up(step) for step in graph.steps(state, bead))
        if bead.outcome != "landed" and name not in hopeless and not died and not _waits_for_dead(state, bead):
            yield f"fair: {bead.id} ({natures[name]}) is {bead.outcome or bead.status} in the end"


def _waits_for_dead(state: Snapshot, bead: Bead) -> bool:
    return any(any(graph.used_up(s) for s in graph.steps(state, b)) for b in graph.blockers(state, bead))


def _nothing_left(repository: Path, refs: Refs, world: World) -> Iterator[str]:
    """No work tree, branch, worker, lock or process is left over."""
    names: Iterable[str] = (
        name for name, _ in refs.below(["refs/heads", "refs/beads/candidate", "refs/beads/request"])
    )
    open_ids = {bead.id for bead in Store.open(repository).snapshot().unclosed()}
    for name in names:
        if name != "refs/heads/main" and not any(f"/{i}" in name for i in open_ids):
            yield f"left: {name}"
    yield from (f"left: worker {path.name}" for path in (repository / ".git/beads/workers").glob("*"))
    yield from (f"left: {path}" for path in (repository / ".git").rglob("*.lock"))
    trees = world.stage.place / "trees"
    for path in trees.glob("[!.]*"):
        if path.name not in open_ids:
            yield f"left: work tree {path.name}"
    for path in (repository / ".git/beads").glob("merge-*"):
        yield f"left: {path.name}"
    for command in world.commands.values():
        if not command.done:
            yield f"left: command {command.number} for {command.marker}"
