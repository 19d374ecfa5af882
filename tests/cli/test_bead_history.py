"""``bead log``, ``show --at``, ``delete`` and ``undo``: what was, who did it, and how to have it back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from beads import Store
from beads.git import Oid
from tests.cli.commands import Beads, process
from tests.world import git

REF = "refs/beads/main"


def newest(beads: Beads, revision: str = REF) -> str:
    """The id of a commit of the store."""
    return git(beads.repository, "rev-parse", revision)


def subject(beads: Beads) -> str:
    return git(beads.repository, "log", "-1", "--format=%s", REF)


@pytest.fixture
def one(beads: Beads) -> Beads:
    """A store with the bead ``bt-a``, made by zoe, and made urgent by nux."""
    beads.run("--actor", "Zoe <zoe@example.org>", "create", "One", "--id", "bt-a", "-l", "x")
    beads.run("--actor", "nux", "update", "bt-a", "-p", "0")
    return beads


# --- undo --------------------------------------------------------------------------------------------------------


def test_undo_takes_back_what_the_actor_did_last(one: Beads) -> None:
    one.run("--actor", "zoe", "comment", "bt-a", "Not yet.")
    done = newest(one, f"{REF}~1")
    said = one.run("--actor", "nux", "undo")
    assert re.fullmatch(rf"undid \S+ \S+  {done[:12]}  nux  update bt-a: priority\n  bt-a\n    priority: 0 → 2", said)
    assert subject(one) == f"undo {done[:12]}: update bt-a: priority"
    now = one.show("bt-a")
    assert (now["priority"], [comment["text"] for comment in now["comments"]]) == (2, ["Not yet."])


def test_undo_in_json_says_what_changed(one: Beads) -> None:
    done = newest(one)
    found = one.json("--actor", "nux", "undo")
    assert found["transaction"]["commit"] == done
    assert found["commit"] == newest(one)
    assert found["dry_run"] is False
    assert found["beads"] == [{"id": "bt-a", "differences": [{"field": "priority", "removed": ["0"], "added": ["2"]}]}]


def test_a_dry_run_says_the_same_and_does_nothing(one: Beads) -> None:
    head = newest(one)
    would = one.json("--actor", "nux", "undo", "--dry-run")
    assert one.run("--actor", "nux", "undo", "--dry-run").startswith("would undo ")
    assert newest(one) == head
    did = one.json("--actor", "nux", "undo")
    assert {**would, "commit": did["commit"], "dry_run": False} == did


def test_undoing_again_goes_on_with_the_one_before_until_nothing_is_left(one: Beads) -> None:
    one.run("--actor", "nux", "label", "add", "bt-a", "y")
    assert "+y" in one.run("--actor", "nux", "undo")
    assert "update bt-a: priority" in one.run("--actor", "nux", "undo")
    said = one.run("--actor", "nux", "undo", code=3)
    assert said.startswith("error: there is nothing by nux to undo\nhint: `bead log` shows who did what")


def test_undoing_an_undo_does_it_again(one: Beads) -> None:
    one.run("--actor", "nux", "undo")
    one.run("--actor", "nux", "undo", "--transaction", "~0")
    assert one.show("bt-a")["priority"] == 0
    assert "update bt-a: priority" in one.run("--actor", "nux", "undo")


def test_what_others_did_is_undone_when_it_is_named(one: Beads) -> None:
    one.run("--actor", "max", "undo", code=3)
    done = newest(one)
    one.run("--actor", "max", "undo", "--transaction", done[:8])
    assert one.show("bt-a")["priority"] == 2
    head = newest(one)
    said = one.run("--actor", "nux", "undo", "--transaction", done)
    assert said.startswith("nothing is left to undo of ")
    assert one.json("undo", "--transaction", done)["commit"] is None
    assert newest(one) == head


def test_a_field_that_was_changed_again_is_not_overwritten(one: Beads) -> None:
    done = newest(one)
    one.run("--actor", "Zoe", "update", "bt-a", "-p", "1")
    head = newest(one)
    said = one.run("--actor", "nux", "undo", code=5)
    assert said == (
        f"error: {done[:12]} (update bt-a: priority) cannot be undone: priority of bt-a was changed again since by Zoe "
        f"in {head[:12]} (update bt-a: priority)\nhint: Undo that first, or change bt-a as it should be.\n"
    )
    assert newest(one) == head


def test_undoing_a_claim_releases_it_and_is_fenced(beads: Beads) -> None:
    beads.create("One", "--id", "bt-a")
    beads.run("--actor", "nux", "claim", "bt-a")
    done = newest(beads)
    beads.run("--actor", "nux", "undo")
    assert (beads.show("bt-a").get("lease"), beads.show("bt-a")["epoch"]) == (None, 1)
    said = beads.run("--actor", "nux", "undo", "--transaction", "~0", code=5)
    assert "a lease is only ever given under a new epoch" in said
    beads.run("--actor", "nux", "claim", "bt-a")
    beads.run("release", "bt-a", "--as", "nux", "--epoch", "2")
    beads.run("claim", "bt-a", "--as", "max")
    assert f"{done[:12]} (claim bt-a: nux, epoch 1) cannot" not in beads.run("undo", "--transaction", done)


def test_what_the_roles_did_is_not_undone(beads: Beads) -> None:
    from beads.ops import Begin

    beads.run("create", "One", "--id", "bt-a", "--criterion", "run: true")
    beads.run("claim", "bt-a", "--as", "nux")
    Store.open(beads.repository).commit("nux", [Begin(id="bt-a", worker="nux", epoch=1, runtime="command")])
    said = beads.run("--actor", "nux", "undo", code=5)
    assert "(begin bt-a: nux, attempt 1) cannot be undone: an attempt is counted when it starts" in said
    assert "hint: `town retry` allows more attempts." in said


def test_restoring_is_not_a_way_around_the_rules(beads: Beads) -> None:
    line = '{"op": "restore", "commit": "' + "0" * 40 + '", "beads": []}'
    assert "'restore' is not an operation that a batch may have" in beads.run("batch", "-", stdin=line, code=2)


def test_many_beads_are_counted(beads: Beads) -> None:
    lines = "\n".join(f'{{"op": "create", "bead": {{"id": "bt-{n}", "title": "T"}}}}' for n in range(120))
    beads.run("batch", "-", stdin=lines)
    said = beads.run("undo")
    assert said.endswith("\n  … and 20 more")
    assert beads.json("list", "--all") == []


# --- delete ------------------------------------------------------------------------------------------------------


def test_what_was_deleted_is_nowhere_but_in_the_history(one: Beads) -> None:
    waiting = one.create("Waits", "--needs", "bt-a")
    assert one.run("--actor", "zoe", "delete", "bt-a", "--reason", "a duplicate") == "deleted bt-a"
    assert one.run("delete", "bt-a") == "bt-a was so already"
    commit = newest(one)
    for command in (["list", "--all"], ["search", "One", "--all"], ["list", "--status", "closed"], ["ready"]):
        assert "bt-a" not in [found["id"] for found in one.json(*command)]
    assert one.json("stats")["total_issues"] == 1
    assert [found["id"] for found in one.json("ready")] == [waiting]
    for command in (["show", "bt-a"], ["why", "bt-a"], ["create", "x", "--needs", "bt-a"], ["dep", "tree", "bt-a"]):
        said = one.run(*command, code=3)
        assert re.match(r"error: bt-a was deleted on \S+ \S+ UTC by zoe: a duplicate\n", said), command
        assert f"hint: `bead show bt-a --at {commit[:12]}~1` shows what it was, `bead undo --trans" in said
    assert "bt-a" not in one.run("show", "bt-aa", code=3).removeprefix("error: there is no bead 'bt-aa'")
    assert "blocks bt-a (deleted)" in one.run("show", waiting)
    assert "bt-a  deleted" in one.run("dep", "tree", waiting)


def test_the_hints_of_a_deleted_bead_work(one: Beads) -> None:
    one.run("delete", "bt-a")
    hint = one.run("show", "bt-a", code=3).splitlines()[1]
    show, undo = re.findall(r"`bead ([^`]*)`", hint)
    assert "One" in one.run(*show.split())
    one.run(*undo.split())
    assert one.show("bt-a")["labels"] == ["x"]


def test_the_path_and_the_log_of_a_deleted_bead_are_still_there(one: Beads) -> None:
    path = one.run("path", "bt-a")
    one.run("delete", "bt-a")
    assert one.run("path", "bt-a") == path
    assert [entry["what"] for entry in one.json("log", "bt-a")] == [
        "delete bt-a",
        "update bt-a: priority",
        "create bt-a: One",
    ]


def test_delete_takes_parts_along_only_when_it_is_told_to(beads: Beads) -> None:
    whole = beads.create("Whole", "-t", "epic")
    part = beads.create("Part", "--parent", whole)
    assert f"{part} is a part of {whole}" in beads.run("delete", whole, code=5)
    found = beads.json("delete", whole, "--cascade")
    assert [(bead["id"], bead["outcome"]) for bead in found] == [(whole, "deleted")]
    assert beads.json("list", "--all") == []
    beads.run("undo")
    assert [bead["id"] for bead in beads.json("list")] == [whole, part]


@pytest.mark.parametrize(
    "args, code, said",
    [
        (["delete", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["delete"], 2, "Missing argument 'ID...'"),
        (["delete", "bt-a", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["undo", "--transaction", "HEAD"], 3, "there is no transaction 'HEAD'"),
        (["undo", "--transaction", "0000"], 3, "no commit of the store starts so"),
        (["undo", "--transaction", "~2"], 5, "cannot be undone: it began the store"),
        (["show", "bt-a", "--at", "~99"], 3, "the store's history begins later"),
        (["show", "bt-a", "--at", "yesterday"], 3, "hint: Give the id of a commit, ~2 for two before the newest"),
        (["show", "bt-a", "--at", "1999-12-31"], 3, "there was no store yet at 1999-12-31"),
        (["show", "bt-a", "--at", "~2"], 3, "there is no bead 'bt-a'"),
        (["log", "--at", "nothing"], 3, "there is no transaction 'nothing'"),
        (["log", "--since", "soon"], 2, "'soon' is not a date"),
    ],
)
def test_what_cannot_be_is_refused(one: Beads, args: list[str], code: int, said: str) -> None:
    head = newest(one)
    assert said in one.run(*args, code=code)
    assert newest(one) == head


# --- show --at ---------------------------------------------------------------------------------------------------


def test_a_bead_is_shown_as_it_was(one: Beads) -> None:
    created = newest(one, f"{REF}~1")
    when = git(one.repository, "log", "-1", "--format=%cI", created)
    for revision in (created, created[:7], "~1", f"{newest(one)}~1"):
        (found,) = one.json("show", "bt-a", "--at", revision)
        assert (found["title"], found["priority"], found["state"]["kind"]) == ("One", 2, "ready")
        assert (found["as_of"]["commit"], found["as_of"]["when"][:19]) == (created, when[:19])
    said = one.run("show", "bt-a", "--at", "~1").splitlines()
    assert re.fullmatch(rf"as of \S+ \S+ UTC, {created[:12]}", said[0])
    assert "task, priority 2" in "\n".join(said)


def test_a_moment_means_the_last_transaction_by_then(one: Beads) -> None:
    assert one.json("show", "bt-a", "--at", "2999-01-01")[0]["as_of"]["commit"] == newest(one)
    when = git(one.repository, "log", "-1", "--format=%cI", REF)
    assert one.json("show", "bt-a", "--at", when)[0]["priority"] == 0


# --- log ---------------------------------------------------------------------------------------------------------


def entries(beads: Beads, *args: str) -> list[str]:
    return [entry["what"] for entry in beads.json("log", *args)]


def test_the_log_is_chosen_from(one: Beads) -> None:
    whole = ["update bt-a: priority", "create bt-a: One", "begin the store"]
    assert entries(one) == whole
    assert entries(one, "--limit", "2") == whole[:2]
    assert entries(one, "--actor", "ZOE") == [whole[1]]
    assert entries(one, "--actor", "example.org", "--limit", "1") == [whole[1]]
    assert entries(one, "--since", "2000-01-01") == whole
    assert entries(one, "--since", "2999-01-01") == []
    assert entries(one, "--at", "~1") == whole[1:]
    assert entries(one, "bt-a", "--actor", "nux") == [whole[0]]
    assert entries(one, "bt-a", "--at", "~1") == [whole[1]]


def test_a_clock_that_was_wrong_hides_nothing(beads: Beads) -> None:
    repository = Store.open(beads.repository).repository
    for year in (2025, 2001, 2026):
        head = Oid(newest(beads))
        text = f"done in {year}\n\nActor: nux\n"
        date = {"GIT_COMMITTER_DATE": f"{year}-01-01T00:00:00Z", "GIT_AUTHOR_DATE": f"{year}-01-01T00:00:00Z"}
        tree = repository.commit(head).tree
        made = git(beads.repository, "commit-tree", tree, "-p", head, "-m", text, extra=date)
        git(beads.repository, "update-ref", REF, made)
    assert entries(beads, "--since", "2020-01-01", "--actor", "nux") == ["done in 2026", "done in 2025"]


def test_the_log_says_what_was_undone(one: Beads) -> None:
    one.run("--actor", "nux", "undo")
    undone, done, *_ = one.json("log")
    assert (undone["undoes"], done["undone_by"]) == (done["commit"], undone["commit"])
    lines = one.run("log").splitlines()
    assert lines[1].endswith(f"update bt-a: priority  (undone by {undone['commit'][:12]})")
    assert f"(undone by {undone['commit'][:12]})" in one.run("log", "bt-a")


def test_a_damaged_store_still_has_its_history(one: Beads) -> None:
    tree: dict[str, Any] = {"format.toml": b"damaged", one.run("path", "bt-a"): b"damaged"}
    repository = Store.open(one.repository).repository
    head = Oid(newest(one))
    when = repository.commit(head).when
    broken = repository.write(
        repository.commit(head).tree,
        tree,
        parents=(head,),
        author="eve <e@example.org>",
        when=when,
        message="by hand\n",
    )
    repository.swap(REF, head, broken)
    assert entries(one)[:2] == ["by hand", "update bt-a: priority"]
    assert entries(one, "bt-a") == ["by hand", "update bt-a: priority", "create bt-a: One"]
    assert one.json("show", "bt-a", "--at", "~1")[0]["priority"] == 0


def test_only_what_is_printed_is_read(one: Beads, environ: dict[str, str]) -> None:
    (objects,) = {Path(git(one.repository, "rev-parse", "--path-format=absolute", "--git-path", "objects"))}
    begun = newest(one, f"{REF}~2")
    (objects / begun[:2] / begun[2:]).unlink()
    done = process("log", "--limit", "2", cwd=one.repository, environ=environ)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert process("log", cwd=one.repository, environ=environ).returncode != 0
