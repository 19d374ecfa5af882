"""Every ``bead`` command, and every way it can refuse."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from beads import Store
from tests.cli.commands import Beads, process
from tests.world import git

ID = re.compile(r"bt-[0-9a-z]{6}")


def test_init_makes_a_store_once(repo: Path) -> None:
    beads = Beads(repo)
    assert "its ids start with web-" in beads.run("init", "--prefix", "web")
    head = git(repo, "rev-parse", "refs/beads/main")
    assert beads.json("init", "--prefix", "other") == {
        "ref": "refs/beads/main",
        "repository": str((repo / ".git").resolve()),
        "prefix": "web",
        "commit": head,
    }
    assert beads.create("One").startswith("web-")


def test_init_refuses_a_prefix_that_cannot_be_one(repo: Path) -> None:
    assert "prefix 'A B' must be" in Beads(repo).run("init", "--prefix", "A B", code=2)


def test_not_a_repository(tmp_path: Path) -> None:
    for command in (["init"], ["ready"], ["create", "x"]):
        said = Beads(tmp_path).run(*command, code=6)
        assert said.startswith(f"error: {tmp_path} is not inside a Git repository\nhint: Run `git init` first")


def test_no_store(repo: Path) -> None:
    for command in (["list"], ["create", "x"], ["doctor"], ["claim", "--next"]):
        said = Beads(repo).run(*command, code=3)
        assert "hint: `town init` or `bead init` begins one, `bead sync` brings that of a remote." in said


def test_create_prints_an_id_that_does_not_repeat(beads: Beads) -> None:
    ids = [beads.create("The same title") for _ in range(5)]
    assert len(set(ids)) == 5
    assert all(ID.fullmatch(bead_id) for bead_id in ids)


def test_create_keeps_all_it_is_given(beads: Beads) -> None:
    needed = beads.create("Needed")
    args = ["-t", "bug", "-p", "P1", "-d", "Why", "--needs", needed, "-l", "b", "-l", "a", "--assignee", "zoe"]
    made = beads.json("create", "All of it", *args, "--criterion", "run: true: yes", "--criterion", "file: a/b")
    limited = beads.json("create", "Some", "--criterion", "run: true", "--criterion", "diff: src/** docs")
    assert limited["acceptance_criteria"] == "- run: true\n- diff: src/** docs"
    assert {key: made[key] for key in ("title", "description", "issue_type", "priority", "labels", "assignee")} == {
        "title": "All of it",
        "description": "Why",
        "issue_type": "bug",
        "priority": 1,
        "labels": ["a", "b"],
        "assignee": "zoe",
    }
    assert made["dependencies"] == [{"issue_id": made["id"], "depends_on_id": needed, "type": "blocks"}]
    assert made["acceptance_criteria"] == "- run: true: yes\n- file: a/b exists"
    assert [c.get("run") or c["file"] for c in made["criteria"]] == ["true: yes", "a/b"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["created_at"])
    assert made["created_by"] == "Test Person <test@example.org>"


def test_a_part_is_numbered_below_its_parent(beads: Beads) -> None:
    parent = beads.create("Whole", "-t", "epic")
    assert [beads.create("Part", "--parent", parent) for _ in range(2)] == [f"{parent}.1", f"{parent}.2"]
    assert beads.show(f"{parent}.2")["parent"] == parent


@pytest.mark.parametrize(
    "args,code,said",
    [
        (["create", ""], 2, "is not one line"),
        (["create", "two\nlines"], 2, "is not one line"),
        (["create", "x" * 501], 2, "is not one line"),
        (["create"], 2, "Missing argument 'TITLE'"),
        (["create", "x", "-p", "7"], 2, "'7' is not 0 (most urgent) to 4"),
        (["create", "x", "-t", "Big Bug"], 2, "the new bead: issue_type:"),
        (["create", "x", "--criterion", "pytest"], 2, "hint: Write 'run: COMMAND'"),
        (["create", "x", "--criterion", "run:"], 2, "'run:' is not a criterion"),
        (["create", "x", "--criterion", "file: ../up"], 2, "must be a path inside the repository"),
        (
            ["create", "x", "--criterion", "run: x", "--criterion", "diff: a ../up"],
            2,
            "must be a path inside the repository",
        ),
        (["create", "x", "--criterion", "diff: a b"], 2, "hint: A diff only sets limits"),
        (["create", "x", "--id", "../up"], 2, "'../up' is not a bead id"),
        (["create", "x", "--needs", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["create", "x", "--parent", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["show", "bt-nope"], 3, "hint: `bead list --all` shows what there is."),
        (["show", "no id"], 2, "'no id' is not a bead id"),
        (["show"], 2, "Missing argument 'ID...'"),
        (["why", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["log", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["path", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["list", "--parent", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["list", "--status", "done"], 2, "'done' is not one of"),
        (["ready", "--limit", "0"], 2, "0 is not in the range"),
        (["update", "bt-nope", "-p", "1"], 3, "there is no bead 'bt-nope'"),
        (["update", "bt-nope"], 2, "nothing to change was given"),
        (["update", "bt-nope", "--defer-until", "soon"], 2, "'soon' is not a date"),
        (["comment", "bt-nope", "x"], 3, "there is no bead 'bt-nope'"),
        (["comment", "bt-nope", ""], 2, "the comment is empty"),
        (["label", "add", "bt-nope", "x"], 3, "there is no bead 'bt-nope'"),
        (["label", "add", "bt-nope", " "], 2, "' ' is not a word"),
        (["create", "x", "-l", "a\nb"], 2, "'a\\nb' is not a word"),
        (["claim", "bt-nope", "--seconds", "1e300"], 2, "not a valid integer range"),
        (["dep", "add", "bt-nope", "bt-no"], 3, "there is no bead 'bt-nope'"),
        (["dep", "tree", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["claim", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["claim"], 2, "give either an ID or --next"),
        (["claim", "bt-nope", "--next"], 2, "give either an ID or --next"),
        (["release", "bt-nope", "--epoch", "1"], 3, "there is no bead 'bt-nope'"),
        (["release", "bt-nope"], 2, "Missing option '--epoch'"),
        (["close", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["close", "bt-nope", "--as", "nux"], 2, "--as and --epoch go together"),
        (["reopen", "bt-nope"], 3, "there is no bead 'bt-nope'"),
        (["pour", "nowhere.toml"], 3, "there is no file nowhere.toml"),
        (["batch", "nowhere.jsonl"], 3, "nowhere.jsonl cannot be read: No such file"),
        (["completion", "csh"], 2, "'csh' is not one of"),
    ],
)
def test_what_cannot_be_is_refused(beads: Beads, args: list[str], code: int, said: str) -> None:
    head = git(beads.repository, "rev-parse", "refs/beads/main")
    assert said in beads.run(*args, code=code)
    assert git(beads.repository, "rev-parse", "refs/beads/main") == head


def test_an_id_that_is_taken_is_refused(beads: Beads) -> None:
    beads.create("One", "--id", "bt-one")
    assert "bead bt-one exists already: One" in beads.run("create", "Two", "--id", "bt-one", code=5)


def test_a_mistyped_id_is_met_with_the_nearest(beads: Beads) -> None:
    beads.create("One", "--id", "bt-slugify")
    for command in (["show", "bt-slugfy"], ["create", "x", "--needs", "bt-slugfy"], ["why", "bt-slugfy"]):
        assert "hint: Did you mean bt-slugify? `bead list --all`" in beads.run(*command, code=3)


def test_list_and_search_filter(beads: Beads) -> None:
    one = beads.create("Über-fast parser", "-t", "bug", "-l", "x", "-l", "y", "--assignee", "zoe")
    two = beads.create("Two", "-l", "x", "--parent", one, "-d", "the PARSER again")
    three = beads.create("Three")
    beads.run("close", three)

    def ids(*args: str) -> set[str]:
        return {found["id"] for found in beads.json(*args)}

    assert ids("list") == {one, two}
    assert ids("list", "--all") == {one, two, three}
    assert ids("list", "--status", "closed") == ids("list", "--state", "closed") == {three}
    assert ids("list", "--status", "open") == ids("list", "--state", "ready") == {one, two}
    assert (
        ids("list", "--type", "bug") == ids("list", "-l", "x", "-l", "y") == ids("list", "--assignee", "zoe") == {one}
    )
    assert ids("list", "--label", "x") == {one, two}
    assert ids("list", "--parent", one) == {two}
    assert len(ids("list", "--limit", "1")) == 1
    assert ids("search", "pARSEr") == {one, two}
    assert ids("search", "ÜBER") == {one}
    assert ids("search", "thre") == set()
    assert ids("search", "thre", "--all") == {three}


def test_ready_is_by_priority_then_age(beads: Beads) -> None:
    late, first, second = (
        beads.create("Late", "-p", "3"),
        beads.create("First", "-p", "1"),
        beads.create("Second", "-p", "1"),
    )
    waiting = beads.create("Waiting", "-p", "0", "--needs", late)
    beads.create("Deferred", "--id", "bt-later")
    beads.run("update", "bt-later", "--defer-until", "2999-01-01")
    assert [found["id"] for found in beads.json("ready")] == [first, second, late]
    assert beads.run("ready", "--limit", "1") == f"{first}\tP1\tready\ttask\tFirst"
    (found,) = beads.json("blocked")
    assert (found["id"], found["blocked_by"], found["blocked_by_count"]) == (waiting, [late], 1)
    assert beads.run("blocked") == f"{waiting}\tP0\tneeds {late}\tWaiting"


def test_show_says_everything(beads: Beads) -> None:
    needed = beads.create("Needed")
    one = beads.create("One", "--needs", needed, "-d", "first\nsecond", "--criterion", "run: true", "-l", "x")
    part = beads.create("Part", "--parent", one)
    beads.run("comment", one, "Look at the parser.")
    beads.run("claim", needed, "--as", "nux")
    text = beads.run("show", one, needed)
    for words in (
        "blocked: needs",
        "  first\n  second",
        "run: true",
        f"blocks {needed} (running)",
        part,
        "Look at the parser.",
        "labels      x",
        "nux, epoch 1, until",
        f"Needed by\n  {one}",
    ):
        assert words in text
    found = beads.show(one)
    assert found["state"] == {"kind": "blocked", "reason": f"needs {needed}", "waits_for": [needed]}
    assert found["comments"][0].items() >= {"issue_id": one, "text": "Look at the parser."}.items()
    assert found["dependents"] == [{"issue_id": part, "depends_on_id": one, "type": "parent-child"}]
    assert (found["dependency_count"], found["dependent_count"], found["comment_count"]) == (1, 1, 1)
    assert [found["id"] for found in beads.json("show", one, needed)] == [one, needed]


def test_why_follows_what_is_waited_for(beads: Beads) -> None:
    one = beads.create("One")
    two = beads.create("Two", "--needs", one)
    three = beads.create("Three", "--needs", two, "--needs", one)
    found = beads.json("why", three)
    assert (found["id"], found["state"]["kind"]) == (three, "blocked")
    assert [(step["id"], step["depth"], step["next"]) for step in found["chain"]] == [
        (two, 1, "whoever acts on what it waits for"),
        (one, 2, "any worker"),
    ]
    assert beads.run("why", one) == f"{one} One\n  ready: nothing in its way; next: any worker"


def test_update_changes_what_is_given(beads: Beads) -> None:
    one = beads.create("One", "-l", "old")
    args = ["--title", "Uno", "-d", "", "-p", "0", "--assignee", "zoe", "--agent", "strong", "--attempts", "9"]
    (found,) = beads.json("update", one, *args, "--add-label", "new", "--remove-label", "old")
    wanted = {"title": "Uno", "priority": 0, "assignee": "zoe", "agent": "strong", "attempts_max": 9, "labels": ["new"]}
    assert found.items() >= wanted.items()
    assert beads.run("update", one, "--status", "in_progress") == f"updated {one}"
    assert beads.run("update", one, "--status", "in_progress") == f"{one} was so already"
    beads.run("update", one, "--defer-until", "2999-12-24T12:00+02:00")
    assert beads.show(one)["defer_until"] == "2999-12-24T10:00:00.000Z"


def test_closing_is_no_update(beads: Beads) -> None:
    one = beads.create("One")
    assert f"hint: Use `bead close {one}`." in beads.run("update", one, "--status", "closed", code=5)


def test_labels_come_and_go(beads: Beads) -> None:
    one = beads.create("One")
    assert beads.run("label", "add", one, "b", "a") == f"labelled {one}"
    assert beads.json("label", "remove", one, "b")[0]["labels"] == ["a"]


def test_dependencies_come_and_go(beads: Beads) -> None:
    one, two = beads.create("One"), beads.create("Two")
    assert beads.run("dep", "add", two, one) == f"{two} needs {one}"
    assert beads.run("dep", "add", two, one) == f"{two} was so already"
    beads.run("dep", "add", two, one, "--type", "discovered-from")
    assert [d["type"] for d in beads.show(two)["dependencies"]] == ["blocks", "discovered-from"]
    said = beads.run("dep", "add", one, two, code=5)
    assert f"error: {one} cannot wait for {two}: that would be a cycle" in said
    assert beads.run("dep", "remove", two, one) == f"{two} no longer needs {one}"
    assert "the dependency: type:" in beads.run("dep", "add", two, one, "--type", "Odd One", code=2)


def test_the_tree_shows_each_bead_once(beads: Beads) -> None:
    one = beads.create("One")
    two = beads.create("Two", "--needs", one)
    three = beads.create("Three", "--needs", two, "--needs", one)
    assert beads.run("dep", "tree", three).splitlines() == [
        f"{three}  blocked  Three",
        f"  {two}  blocked  Two",
        f"    {one}  ready  One",
        f"  {one}  ready  (see above)",
    ]
    found = beads.json("dep", "tree", one, "--reverse")
    assert {(node["id"], node["depth"], node["parent_id"]) for node in found} == {
        (one, 0, ""),
        (two, 1, one),
        (three, 1, one),
        (three, 2, two),
    }


def test_a_long_chain_is_no_recursion(beads: Beads) -> None:
    chain = [{"id": f"bt-{n}", "title": "x", "dependencies": [{"on": f"bt-{n - 1}"}] if n else []} for n in range(1050)]
    lines = "\n".join(json.dumps({"op": "create", "bead": bead}) for bead in chain)
    beads.run("batch", "-", stdin=lines)
    assert len(beads.json("dep", "tree", "bt-1049")) == 1050
    assert len(beads.json("why", "bt-1049")["chain"]) == 1049
    assert beads.run("doctor") == "1050 beads, 0 problems"


def test_claim_release_close(beads: Beads) -> None:
    one = beads.create("One")
    assert beads.run("claim", "--next", "--as", "nux") == f"{one}\tepoch 1\tOne"
    assert beads.run("claim", one, "--as", "nux") == f"{one}\tepoch 1\tOne"
    assert beads.run("claim", "--next", "--as", "ace") == ""
    assert beads.json("claim", "--next", "--as", "ace") == []
    assert f"error: {one} is held by nux" in beads.run("claim", one, "--as", "ace", code=4)
    assert "nux no longer holds" in beads.run("release", one, "--as", "nux", "--epoch", "7", code=4)
    assert beads.run("release", one, "--as", "nux", "--epoch", "1") == f"released {one}"
    (found,) = beads.json("claim", one, "--as", "ace")
    assert (found["epoch"], found["lease"]["worker"], found["assignee"]) == (2, "ace", "ace")
    assert "nux no longer holds" in beads.run("close", one, "--as", "nux", "--epoch", "1", code=4)
    assert beads.run("close", one, "--as", "ace", "--epoch", "2", "--reason", "did it") == f"closed {one}"
    assert beads.show(one).items() >= {"status": "closed", "outcome": "done", "close_reason": "did it"}.items()


def test_the_claimer_is_the_actor_unless_named(beads: Beads) -> None:
    one = beads.create("One")
    (found,) = beads.json("--actor", "zoe", "claim", one)
    assert found["lease"]["worker"] == "zoe"
    # No process stands behind such a lease, so that only its end may be taken for a death.
    assert found["lease"]["site"] == ""


def test_what_waits_cannot_be_claimed(beads: Beads) -> None:
    one = beads.create("One")
    two = beads.create("Two", "--needs", one)
    assert f"{two} cannot be claimed: needs {one}" in beads.run("claim", two, code=5)


def test_two_processes_claim_and_one_wins(beads: Beads, environ: dict[str, str]) -> None:
    one = beads.create("One")
    codes: list[int] = []

    def claim(name: str) -> None:
        codes.append(process("claim", one, "--as", name, cwd=beads.repository, environ=environ).returncode)

    threads = [threading.Thread(target=claim, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 4, 4, 4]


def test_closing_needs_proof_or_a_person(beads: Beads) -> None:
    one = beads.create("One", "--criterion", "run: true")
    said = beads.run("close", one, code=5)
    assert f"error: {one} cannot close: not proven: run: true\nhint: " in said
    assert "needs a reason" in beads.run("close", one, "--force", code=5)
    two = beads.create("Two", "--criterion", "run: true")
    assert len(beads.json("close", one, two, "--force", "--reason", "seen it")) == 2
    assert beads.show(one)["close_reason"] == "forced by Test Person <test@example.org>: seen it"


def test_all_are_closed_or_none(beads: Beads) -> None:
    one, two = beads.create("One"), beads.create("Two", "--criterion", "run: true")
    beads.run("close", one, two, code=5)
    assert beads.show(one)["status"] == "open"


def test_reopen(beads: Beads) -> None:
    one = beads.create("One")
    beads.run("close", one, "--outcome", "cancelled", "--reason", "no")
    assert beads.show(one)["outcome"] == "cancelled"
    assert beads.run("reopen", one) == f"reopened {one}"
    shown = beads.show(one)
    assert (shown["status"], shown.get("outcome"), shown["closed_at"]) == ("open", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines\n",
        "carriage\r\nreturns\r\n",
        "\r",
        "bell \x07, escape \x1b[31m, null \x00, delete \x7f, C1 \x9b",
        "quotes \" ' \"\"\" ''' and \\ \\n \\u0041",
        "  space around  \n\n",
        "ünïcödé \U0001f600 \u2028 \u202e",
        "-",
    ],
)
def test_text_survives_byte_for_byte(beads: Beads, text: str) -> None:
    one = beads.run("create", "One", "-d", "-", stdin=text.encode())
    beads.run("comment", one, "-", stdin=text.encode())
    found = beads.show(one)
    assert (found["description"], found["comments"][0]["text"]) == (text, text)
    assert Store.open(beads.repository).snapshot().need(one).description == text
    # A terminal must not obey what somebody wrote into an issue.
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", beads.run("show", one))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", beads.run("show", one, "--json"))


def test_a_large_text_survives(beads: Beads, environ: dict[str, str]) -> None:
    text = "".join(f"line {number} of a long log\r\n" for number in range(20_000)).encode()
    done = process("create", "Log", "-d", "-", "--id", "bt-log", cwd=beads.repository, environ=environ, stdin=text)
    assert (done.returncode, done.stderr) == (0, b"")
    done = process("show", "bt-log", "--json", cwd=beads.repository, environ=environ)
    assert json.loads(done.stdout)[0]["description"].encode() == text


def test_what_is_no_text_is_refused(beads: Beads, environ: dict[str, str]) -> None:
    said = beads.run("create", "One", "-d", "-", stdin=b"a\xff", code=2)
    assert "the description on standard input is not UTF-8: byte 1 is 0xff" in said
    done = process("create", b"One \xff".decode("utf-8", "surrogateescape"), cwd=beads.repository, environ=environ)
    assert (done.returncode, b"unicode string" in done.stderr) == (2, True)


def test_why_tells_of_a_ring_wherever_it_is(beads: Beads) -> None:
    ring = {"bt-a": "bt-b", "bt-b": "bt-a", "bt-c": "bt-a"}
    rows = (
        {"id": one, "title": "x", "status": "open", "dependencies": [{"depends_on_id": on, "type": "blocks"}]}
        for one, on in ring.items()
    )
    beads.run("import", "-", stdin="\n".join(map(json.dumps, rows)))
    beads.run("update", "bt-b", "--defer-until", "9999-01-01")
    said = beads.json("why", "bt-c")
    assert [one["state"]["kind"] for one in (said, *said["chain"])] == ["blocked", "needs_person", "deferred"]
