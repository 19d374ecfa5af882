from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beads import Bead, Store, graph
from beads.errors import InvalidDocument, LostRace, Refused
from beads.ops import Claim, Close, Create, Depend, Label, Release, Submit, Update
from roles.proposal import Proposal, accept, propose
from roles.settings import Agent, ReviewTable, Settings
from roles.showing import render
from tests.world import ROOT, git

EXAMPLE = (ROOT / "examples" / "plan.toml").read_bytes()
_refs = itertools.count()


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, "founder")


def molecule(name: str, *needs: str, goal: str = "done", more: str = "") -> str:
    return (
        f'[[molecules]]\nid = "{name}"\ntitle = "Do {name}"\ngoal = "{goal}"\nneeds = {list(needs)}\n{more}\n'
        f'[[molecules.criteria]]\nfile = "{name}"\n\n'
    )


def plan(*molecules: str) -> bytes:
    return ('plan = "p"\n\n' + "".join(molecules)).encode()


def pour(store: Store, text: bytes) -> Proposal:
    proposal = propose(text, "plan.toml", store, "mayor")
    accept(proposal, store, "mayor")
    return proposal


def root(store: Store, name: str) -> Bead:
    """The molecule of that name that is not superseded."""
    found = [b for b in store.snapshot() if b.source == f"plan:p/{name}" and b.outcome != "superseded"]
    assert len(found) == 1, f"{name}: {[b.id for b in found]}"
    return found[0]


def land(store: Store, bead_id: str) -> None:
    store.commit("person", [Close(id=bead_id, force=True, reason="by hand")])


def ready(store: Store) -> list[str]:
    """What may be taken now, best first: molecules by their names in the plan, other beads by their ids."""
    return [bead.source.removeprefix("plan:p/") or bead.id for bead in graph.ready(store.snapshot(), store.clock.now())]


# ── Proposing and accepting ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_written_before_it_is_accepted(store: Store) -> None:
    before = store.snapshot().commit
    proposal = propose(EXAMPLE, "examples/plan.toml", store, "mayor")
    render(proposal)
    assert store.snapshot().commit == before
    assert [item.wanted.id for item in proposal.new] == ["slugify", "use-slugs", "drop-ids"]


def test_accepting_writes_what_was_proposed_in_one_commit(store: Store, repo: Path) -> None:
    proposal = propose(EXAMPLE, "examples/plan.toml", store, "mayor")
    before = store.snapshot().commit
    written = accept(proposal, store, "mayor")
    assert written.changed
    wanted = [bead for item in proposal.items for bead in (item.molecule, *item.steps)]
    assert {(b.id, b.source, b.seal) for b in written.snapshot} == {(b.id, b.source, b.seal) for b in wanted}
    assert git(repo, "log", "--format=%s|%an", f"{before}..refs/beads/main") == (
        "pour plan add-slugs: 3 molecules, 4 steps|mayor"
    )
    assert [b.title for b in graph.ready(written.snapshot, store.clock.now())] == [
        "Add slugify()",
        "Remove the table of numeric ids",
    ]


def test_one_is_said_as_one(store: Store, repo: Path) -> None:
    pour(store, plan(molecule("a")))
    assert git(repo, "log", "-1", "--format=%s", "refs/beads/main") == "pour plan p: 1 molecule, 1 step"


def test_accepting_again_changes_nothing(store: Store) -> None:
    proposal = pour(store, EXAMPLE)
    before = store.snapshot().commit
    assert not accept(proposal, store, "mayor").changed
    assert not accept(propose(EXAMPLE, "other.toml", store, "somebody"), store, "somebody").changed
    assert store.snapshot().commit == before


def test_accepting_again_while_the_work_goes_on_changes_nothing(store: Store) -> None:
    proposal = pour(store, EXAMPLE)
    claimed = store.commit("nux", [Claim(worker="nux", site="here")]).beads[0]
    assert claimed is not None
    land(store, propose(EXAMPLE, "plan.toml", store, "mayor").items[2].molecule.id)
    assert not accept(proposal, store, "mayor").changed
    again = propose(EXAMPLE, "plan.toml", store, "mayor")
    assert not again.new
    assert [item.molecule.status for item in again.items] == ["in_progress", "open", "closed"]


def test_a_plan_may_need_a_bead_of_the_store(store: Store) -> None:
    now = store.clock.now()
    store.commit("me", [Create(bead=Bead(id="bt-x.1", title="X", created_at=now, updated_at=now))])
    pour(store, plan(molecule("a", "bt-x.1")))
    assert root(store, "a").needs == ("bt-x.1",)
    assert ready(store) == ["bt-x.1"]


def test_a_need_that_nothing_has_is_refused_and_nothing_written(store: Store) -> None:
    before = store.snapshot().commit
    with pytest.raises(InvalidDocument) as caught:
        propose(plan(molecule("slugify"), molecule("b", "slugfy")), "plan.toml", store, "mayor")
    assert (caught.value.line, caught.value.key) == (16, "molecules[1].needs[0]")
    assert "'slugify'" in caught.value.hint
    assert store.snapshot().commit == before


@pytest.mark.parametrize(
    "text,line,key",
    [
        (plan(molecule("a", more='agent = "cluade"')), 8, "molecules[0].agent"),
        (
            b'plan = "p"\n[[molecules]]\nid = "a"\ntitle = "A"\ngoal = "g"\n[[molecules.steps]]\nid = "s"\n'
            b'title = "S"\nagent = "cluade"\n[[molecules.steps.criteria]]\nfile = "x"\n',
            9,
            "molecules[0].steps[0].agent",
        ),
    ],
)
def test_an_agent_there_is_not_is_refused_with_the_nearest(store: Store, text: bytes, line: int, key: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        propose(text, "plan.toml", store, "mayor", with_agents("claude"))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert caught.value.problem == "there is no agent 'cluade' in town.toml"
    assert caught.value.hint == "Did you mean 'claude'?"
    assert propose(text, "plan.toml", store, "mayor", with_agents("cluade")).new
    assert propose(text, "plan.toml", store, "mayor").new


def with_agents(*names: str) -> Settings:
    return Settings(agents={name: Agent() for name in names})


def test_no_agent_needs_to_be_named(store: Store) -> None:
    assert propose(EXAMPLE, "plan.toml", store, "mayor", Settings()).new


def test_a_review_that_nobody_can_give_is_refused_before_anything_is_poured(store: Store) -> None:
    text = plan(molecule("a")).replace(b"file = ", b"review = ", 1)
    with pytest.raises(InvalidDocument, match="is asked, and nobody is there to review") as caught:
        propose(text, "plan.toml", store, "mayor", Settings())
    assert caught.value.key.endswith("criteria[0].review")
    assert propose(text, "plan.toml", store, "mayor", Settings(review=ReviewTable(models=("x",)))).new


# ── Editing a plan ──────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_changed_is_poured_anew(store: Store, repo: Path) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a"), molecule("c")))
    a, b, c = (root(store, name) for name in "abc")
    proposal = pour(store, plan(molecule("a", goal="done well"), molecule("b", "a"), molecule("c")))
    assert [item.wanted.id for item in proposal.new] == ["a"]
    assert proposal.ending == {a.id}
    assert (root(store, "b").id, root(store, "c").id) == (b.id, c.id)
    assert git(repo, "log", "-1", "--format=%s", "refs/beads/main") == "pour plan p: 1 molecule, 1 step"


def test_an_older_version_that_nobody_is_at_is_superseded(store: Store) -> None:
    pour(store, plan(molecule("a")))
    old = root(store, "a")
    pour(store, plan(molecule("a", goal="done well")))
    new = root(store, "a")
    ended = store.snapshot().need(old.id)
    assert (ended.status, ended.outcome, ended.close_reason) == ("closed", "superseded", f"superseded by {new.id}")
    assert [(d.on, d.type) for d in ended.dependencies] == [(new.id, "supersedes")]
    assert ready(store) == ["a"]


def test_what_waited_for_the_older_version_waits_for_the_new_one(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a")))
    now = store.clock.now()
    store.commit("me", [Create(bead=Bead(id="bt-x", title="X", created_at=now, updated_at=now))])
    store.commit("me", [Depend(id="bt-x", on=root(store, "a").id)])
    pour(store, plan(molecule("a", goal="done well"), molecule("b", "a")))
    new = root(store, "a")
    assert root(store, "b").needs == (new.id,)
    assert store.snapshot().need("bt-x").needs == (new.id,)
    assert ready(store) == ["a"]
    land(store, new.id)
    assert sorted(ready(store)) == ["b", "bt-x"]


def test_what_is_there_waits_for_a_new_version_of_what_has_landed(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a")))
    land(store, root(store, "a").id)
    assert ready(store) == ["b"]
    proposal = pour(store, plan(molecule("a", goal="done well"), molecule("b", "a")))
    assert not proposal.older
    assert ready(store) == ["a"]
    (new,) = proposal.new
    assert root(store, "b").needs == (new.molecule.id,)


def test_what_is_begun_or_closed_does_not_wait_again(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a"), molecule("c", "a")))
    old = root(store, "a")
    land(store, old.id)
    land(store, root(store, "b").id)
    store.commit("nux", [Claim(id=root(store, "c").id, worker="nux", site="here")])
    before = [root(store, name) for name in "bc"]
    pour(store, plan(molecule("a", goal="done well"), molecule("b", "a"), molecule("c", "a")))
    assert [root(store, name) for name in "bc"] == before
    assert before[0].needs == (old.id,)


def test_what_is_superseded_itself_is_left_as_it_was(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a")))
    a, b = root(store, "a"), root(store, "b")
    pour(store, plan(molecule("a", goal="done well"), molecule("b", "a", goal="done well")))
    assert root(store, "b").needs == (root(store, "a").id,)
    assert store.snapshot().need(b.id).needs == (a.id,)


def test_an_older_version_in_a_workers_hands_is_left_to_land_first(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b", "a")))
    held = store.commit("nux", [Claim(worker="nux", site="here")]).beads[0]
    assert held is not None
    assert held.lease is not None
    text = plan(molecule("a", goal="done well"), molecule("b", "a"))
    proposal = pour(store, text)
    new = proposal.items[0].molecule
    snapshot = store.snapshot()
    assert snapshot.need(held.id).lease == held.lease
    assert snapshot.need(new.id).needs == (held.id,)
    assert root(store, "b").needs == (new.id,)
    assert ready(store) == []
    assert not accept(propose(text, "plan.toml", store, "mayor"), store, "mayor").changed
    # Given back, it is still the one to land first; pouring again does not end it behind anybody's back.
    store.commit("nux", [Release(id=held.id, worker="nux", epoch=1)])
    assert not accept(propose(text, "plan.toml", store, "mayor"), store, "mayor").changed
    assert ready(store) == ["a"]
    land(store, held.id)
    assert [b.id for b in graph.ready(store.snapshot(), store.clock.now())] == [new.id]


def test_an_older_version_in_the_queue_is_left_to_land_first(store: Store) -> None:
    pour(store, plan(molecule("a")))
    old = root(store, "a")
    store.commit(
        "nux", [Claim(id=old.id, worker="nux", site="here"), Close(id=f"{old.id}.1", force=True, reason="by hand")]
    )
    submit = Submit(id=old.id, worker="nux", epoch=1, branch="polecat/a", head="1" * 40, base="2" * 40)
    store.commit("nux", [submit])
    proposal = pour(store, plan(molecule("a", goal="done well")))
    assert [(o.bead.id, o.busy) for o in proposal.older] == [(old.id, True)]
    assert store.snapshot().need(proposal.items[0].molecule.id).needs == (old.id,)
    assert not store.snapshot().need(old.id).closed


def test_a_third_version_supersedes_the_second_and_waits_for_the_first(store: Store) -> None:
    pour(store, plan(molecule("a")))
    first = store.commit("nux", [Claim(worker="nux", site="here")]).beads[0]
    assert first is not None
    second = pour(store, plan(molecule("a", goal="two"))).items[0].molecule
    third = pour(store, plan(molecule("a", goal="three"))).items[0].molecule
    snapshot = store.snapshot()
    assert snapshot.need(second.id).outcome == "superseded"
    assert snapshot.need(third.id).needs == (first.id,)


def test_taking_an_edit_back_makes_the_work_anew(store: Store) -> None:
    one, two = plan(molecule("a"), molecule("b", "a")), plan(molecule("a", goal="two"), molecule("b", "a"))
    seen = []
    for text in (one, two, one, two, one):
        pour(store, text)
        seen.append(root(store, "a").id)
        assert ready(store) == ["a"]
        assert root(store, "b").needs == (seen[-1],)
        assert not accept(propose(text, "plan.toml", store, "mayor"), store, "mayor").changed
    assert len(set(seen)) == 5


def test_needs_turned_around_are_no_cycle(store: Store) -> None:
    # First m waits for a, a for c, c for n; then c for n, n for m, m for a. Together the two would be a cycle.
    pour(store, plan(molecule("m", "a"), molecule("a", "c"), molecule("c", "n"), molecule("n")))
    pour(store, plan(molecule("m", "a"), molecule("a"), molecule("c", "n"), molecule("n", "m")))
    assert ready(store) == ["a"]
    for name in "amnc":
        assert ready(store) == [name]
        land(store, root(store, name).id)


def test_a_molecule_the_plan_dropped_is_shown_and_left_alone(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b")))
    b = root(store, "b")
    text = plan(molecule("a"))
    proposal = propose(text, "plan.toml", store, "mayor")
    assert [(o.bead.id, o.successor) for o in proposal.older] == [(b.id, None)]
    assert f"no longer in the plan: {b.id} (open) Do b" in render(proposal)
    assert not accept(proposal, store, "mayor").changed


def test_another_plan_is_not_an_older_version(store: Store) -> None:
    pour(store, plan(molecule("a")))
    other = plan(molecule("a", goal="other")).replace(b'plan = "p"', b'plan = "p2"')
    assert not propose(other, "plan.toml", store, "mayor").older


def test_what_may_be_changed_on_a_bead_is_shown_and_left_alone(store: Store) -> None:
    text = plan(molecule("a", more='priority = 1\nlabels = ["x"]'))
    pour(store, text)
    a = root(store, "a")
    store.commit(
        "me", [Update(id=a.id, priority=3), Label(id=a.id, remove=("x",)), Update(id=f"{a.id}.1", attempts_max=9)]
    )
    proposal = propose(text, "plan.toml", store, "mayor")
    assert proposal.items[0].drift == (
        f"priority of {a.id} is 3 in the store, 1 in the plan",
        f"{a.id} lacks the labels x in the store",
        f"attempts of {a.id}.1 is 9 in the store, 3 in the plan",
    )
    assert f"note: priority of {a.id} is 3 in the store, 1 in the plan; it stays as it is" in render(proposal)
    assert not accept(proposal, store, "mayor").changed


def test_a_proposal_that_another_version_overtook_ends_nothing(store: Store) -> None:
    stale = propose(plan(molecule("a")), "plan.toml", store, "mayor")
    pour(store, plan(molecule("a", goal="two")))
    newer = root(store, "a")
    with pytest.raises(LostRace, match=f"{newer.id}, another version of the plan 'p', was poured in the meantime"):
        accept(stale, store, "mayor")
    assert not store.snapshot().need(newer.id).closed
    accept(propose(plan(molecule("a")), "plan.toml", store, "mayor"), store, "mayor")
    assert root(store, "a").description == "done"


def test_a_retry_after_a_newer_version_does_not_undo_it(store: Store) -> None:
    first = pour(store, plan(molecule("a")))
    pour(store, plan(molecule("a", goal="two")))
    newer = root(store, "a")
    with pytest.raises(LostRace):
        accept(first, store, "mayor")
    assert root(store, "a").id == newer.id


def test_a_bead_that_would_wait_for_itself_is_refused_whole(store: Store) -> None:
    pour(store, plan(molecule("a")))
    now = store.clock.now()
    store.commit("me", [Create(bead=Bead(id="bt-x", title="X", created_at=now, updated_at=now))])
    store.commit("me", [Depend(id="bt-x", on=root(store, "a").id)])
    before = store.snapshot().commit
    proposal = propose(plan(molecule("a", "bt-x")), "plan.toml", store, "mayor")
    with pytest.raises(Refused, match="cycle"):
        accept(proposal, store, "mayor")
    assert store.snapshot().commit == before


# ── Rendering ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_proposal_is_shown_as_a_tree(store: Store) -> None:
    proposal = propose(EXAMPLE, "examples/plan.toml", store, "mayor")
    slugify, use, drop = (item.molecule.id for item in proposal.items)
    lines = render(proposal).splitlines()
    assert lines[:4] == [
        "plan add-slugs: Readable addresses for every page",
        "3 molecules, 4 steps: 3 new, 0 there already",
        "",
        f"{slugify}  slugify: Add slugify()  [new]",
    ]
    expected = [
        f"{use}  use-slugs: Use slugs in addresses  [new]",
        "    goal: pages.address() gives each page an address made of its title.",
        "        Two pages of one title get different addresses.",
        f"    needs: slugify ({slugify})",
        "    priority: 1",
        f"    {use}.1  address: Write address()",
        "        run: cat > pages.py <<'END'",
        f"    {use}.2  describe: Describe addresses for readers",
        "        after: address",
        "        done when: file: ADDRESSES.md exists",
        f"{drop}  drop-ids: Remove the table of numeric ids  [new]",
        "        done when: file: ids.csv is absent",
    ]
    positions = [lines.index(line) for line in expected]
    assert positions == sorted(positions)
    assert render(proposal).endswith("\n")
    assert not any(line != line.rstrip() for line in lines)


def test_what_a_molecule_is_expected_to_touch_is_shown(store: Store) -> None:
    proposal = propose(plan(molecule("a", more='touches = ["a", "docs/**"]')), "plan.toml", store, "mayor")
    assert "    touches: a, docs/**" in render(proposal).splitlines()


def test_what_is_there_already_is_shown_as_such(store: Store) -> None:
    pour(store, plan(molecule("a"), molecule("b"), molecule("c")))
    a, b, c = (root(store, name).id for name in "abc")
    store.commit("nux", [Claim(id=a, worker="nux", site="here")])
    land(store, c)
    text = plan(molecule("a", goal="two"), molecule("b", goal="two"), molecule("c"), molecule("d"))
    shown = render(propose(text, "plan.toml", store, "mayor"))
    assert "4 molecules, 4 steps: 3 new, 1 there already, 1 superseded\n" in shown
    assert f"{c}  c: Do c  [there already, done]\n" in shown
    assert f"    after: {a} (being worked on), an older version, which is left to land first\n" in shown
    assert f"    supersedes: {b} (open) Do b, which is closed\n" in shown


def test_text_cannot_speak_to_the_terminal(store: Store) -> None:
    text = plan(molecule("a", goal="red \\u001b[31m \\u202e\\r\\nsecond\\tline", more='agent = "x\\u009by"'))
    shown = render(propose(text, "plan.toml", store, "mayor"))
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "goal: red \\x1b[31m \\u202e\n        second\\tline\n" in shown


# ── From several processes at once ──────────────────────────────────────────────────────────────────────────────

_ACCEPT = """
import sys, time
from pathlib import Path
from beads.errors import LostRace
from beads import Store
from roles.proposal import accept, propose

repository, ref, plan, go = sys.argv[1:]
store = Store.open(Path(repository), ref=ref)
proposal = propose(Path(plan).read_bytes(), plan, store, "mayor")
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.001)
try:
    changed = [accept(proposal, store, "mayor").changed for _ in range(2)]
    print("changed" if any(changed) else "unchanged")
except LostRace as error:
    print(f"lost: {error}")
"""


def at_once(repo: Path, ref: str, texts: Sequence[bytes], place: Path) -> list[str]:
    """Accept these plans in a process each, all let go at the same moment; returns what each said."""
    place.mkdir()
    running = []
    for number, text in enumerate(texts):
        path = place / f"plan-{number}.toml"
        path.write_bytes(text)
        command = [sys.executable, "-c", _ACCEPT, str(repo), ref, str(path), str(place / "go")]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    (place / "go").touch()
    said = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(out.strip())
    return said


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A plan of a few molecules with any acyclic needs, in any order."""
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True))
    parts = []
    for number, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:number]), max_size=2, unique=True)) if number else []
        parts.append(molecule(name, *needs, goal=draw(st.sampled_from(["one", "two"]))))
    return plan(*draw(st.permutations(parts)))


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=documents())
def test_a_plan_poured_by_several_processes_at_once_is_there_once(repo: Path, tmp_path: Path, text: bytes) -> None:
    ref = f"refs/beads/once-{next(_refs)}"
    store = Store.init(repo, "founder", ref=ref)
    wanted = propose(text, "plan.toml", store, "mayor")
    said = at_once(repo, ref, [text] * 3, tmp_path / ref.rsplit("/", 1)[1])
    assert sorted(said) == ["changed", "unchanged", "unchanged"]
    ids = {bead.id for item in wanted.items for bead in (item.molecule, *item.steps)}
    assert {bead.id for bead in store.snapshot()} == ids
    assert int(git(repo, "rev-list", "--count", ref)) == 2


def test_of_two_versions_poured_at_once_one_is_there(repo: Path, tmp_path: Path) -> None:
    store = Store.init(repo, "founder")
    texts = [plan(molecule("a", goal=goal), molecule("b", "a")) for goal in ("one", "two")]
    said = at_once(repo, store.ref, texts, tmp_path / "race")
    assert sorted(word.split(":")[0] for word in said) == ["changed", "lost"]
    winner = said.index("changed")
    assert root(store, "a").description == ("one", "two")[winner]
    assert len(store.snapshot()) == 4


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(documents(), min_size=1, max_size=5), data=st.data())
def test_after_any_edits_the_store_does_what_the_last_plan_says(
    repo: Path, texts: list[bytes], data: st.DataObject
) -> None:
    store = Store.init(repo, "founder", ref=f"refs/beads/edits-{next(_refs)}")
    for text in texts:
        proposal = propose(text, "plan.toml", store, "mayor")
        accept(proposal, store, "mayor")
        assert not accept(propose(text, "plan.toml", store, "mayor"), store, "mayor").changed
        # Some of it is done, and some of it begun, before the plan is edited again.
        free = graph.ready(store.snapshot(), store.clock.now())
        for bead in data.draw(st.lists(st.sampled_from(free), unique_by=lambda b: b.id)) if free else []:
            if data.draw(st.booleans()):
                land(store, bead.id)
            else:
                store.commit("nux", [Claim(id=bead.id, worker="nux", site="here")])
    finish(store)
    snapshot = store.snapshot()
    for item in propose(texts[-1], "plan.toml", store, "mayor").items:
        assert item.there is not None
        assert item.there.outcome == "done", (
            f"{item.wanted.id} is {graph.state(snapshot, item.there, store.clock.now())}"
        )


def finish(store: Store) -> None:
    """Do everything that can be done, as the workers would."""
    while True:
        snapshot = store.snapshot()
        held = [bead for bead in snapshot.unclosed() if bead.lease]
        for bead in held:
            store.commit("nux", [Release(id=bead.id, worker="nux", epoch=bead.epoch)])
        free = graph.ready(store.snapshot(), store.clock.now())
        if not free:
            return
        for bead in free:
            land(store, bead.id)
