"""Candidates, landing and recovery, in real repositories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads.errors import InvalidInput, Unreadable
from refinery.git import Git, Identity
from refinery.landed import landed
from refinery.merge import CANDIDATES, Request, Stack, land, publish, stack
from tests.world import commit, environment, git, make_repository

WHO = Identity("Refinery", "refinery@example.org")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def g(repo: Path, environ: dict[str, str]) -> Git:
    return Git(repo, environ)


def branch(repo: Path, name: str, files: dict[str, str], start: str = "main") -> str:
    """Commit ``files`` on a new branch off ``start``, leaving main checked out; the commit."""
    git(repo, "checkout", "--quiet", "-b", name, start)
    commit(repo, files, f"Work on {name}")
    git(repo, "checkout", "--quiet", "main")
    return git(repo, "rev-parse", name)


def request(repo: Path, name: str, files: dict[str, str], start: str = "main") -> Request:
    return Request(f"bt-{name}", f"Do {name}", branch(repo, name, files, start), f"bt-{name}-work")


def stacked(g: Git, *requests: Request) -> Stack:
    return stack(g, git(g.directory, "rev-parse", "main"), requests, WHO, WHEN)


def show(g: Git, form: str, revision: str) -> str:
    return git(g.directory, "show", "--no-patch", f"--format={form}", revision)


def files_of(g: Git, revision: str) -> dict[str, str]:
    names = git(g.directory, "ls-tree", "-r", "--name-only", revision).splitlines()
    return {name: git(g.directory, "show", f"{revision}:{name}") for name in names}


def trailers(g: Git, revision: str) -> list[str]:
    return git(g.directory, "interpret-trailers", "--parse", stdin=show(g, "%B", revision)).splitlines()


def test_one_request_becomes_a_merge_of_its_head(repo: Path, g: Git) -> None:
    a = request(repo, "a", {"a": "a\n"})
    commit(repo, {"other": "x\n"}, "Main moves on")
    main = git(repo, "rev-parse", "main")
    (candidate,) = stacked(g, a).candidates
    assert show(g, "%P", candidate.commit) == f"{main} {a.head}"
    assert show(g, "%T", candidate.commit) == candidate.tree
    assert show(g, "%s", candidate.commit) == "Merge bt-a: Do a"
    assert trailers(g, candidate.commit) == ["Merge-Request: bt-a", "Bead: bt-a-work"]
    assert (candidate.base, candidate.members) == (main, (a,))
    git(repo, "checkout", "--quiet", "--detach")
    git(repo, "merge", "--quiet", "--no-ff", "-m", "By hand", a.head)
    assert git(repo, "rev-parse", "HEAD^{tree}") == candidate.tree


def test_what_needs_one_that_is_not_in_the_stack_waits(repo: Path, g: Git) -> None:
    a, b, c = (request(repo, name, {name: f"{name}\n"}) for name in "abc")
    after = replace(b, needs=("bt-a",))
    assert [len(made.members) for made in stacked(g, a, after, c).candidates] == [1, 2, 3]
    without = stacked(g, after, c)
    assert [made.members for made in without.candidates] == [(c,)]
    assert [(w.request, w.messages) for w in without.waiting] == [(after, "It needs bt-a.")]
    assert stacked(g, after, a).candidates[-1].members == (a,), "what it needs has to come before it"


def test_several_requests_land_as_one_commit_over_their_stack(repo: Path, g: Git) -> None:
    requests = [request(repo, name, {name: f"{name}\n"}) for name in "abc"]
    main = git(repo, "rev-parse", "main")
    train = stacked(g, *requests).candidates[2]
    tip = show(g, "%P", train.commit).split()[1]
    assert show(g, "%P", train.commit).split()[0] == main
    assert show(g, "%T", train.commit) == show(g, "%T", tip) == train.tree
    assert set(files_of(g, train.commit)) == {"README.md", "a", "b", "c"}
    assert show(g, "%s", train.commit) == "Land 3 merge requests: bt-a, bt-b, bt-c"
    assert trailers(g, train.commit) == [
        f"{key}: bt-{name}{end}" for name in "abc" for key, end in (("Merge-Request", ""), ("Bead", "-work"))
    ]
    merges = git(repo, "log", "--first-parent", "--format=%s|%P", f"{main}..{tip}").splitlines()
    assert [line.split("|")[0] for line in merges] == [f"Merge bt-{name}: Do {name}" for name in "cba"]
    assert [line.split()[-1] for line in merges] == [r.head for r in reversed(requests)]
    log = git(repo, "log", "--format=%B", train.commit)
    assert all(log.count(f"Merge-Request: bt-{name}\n") == 1 for name in "abc")


def test_every_prefix_is_a_candidate(repo: Path, g: Git) -> None:
    requests = [request(repo, name, {name: f"{name}\n"}) for name in "abc"]
    candidates = stacked(g, *requests).candidates
    assert [c.members for c in candidates] == [tuple(requests[:k]) for k in (1, 2, 3)]
    for k, candidate in enumerate(candidates, start=1):
        assert stacked(g, *requests[:k]).candidates[-1] == candidate


def test_a_tree_stays_the_same_when_part_of_the_stack_has_landed(repo: Path, g: Git) -> None:
    requests = [request(repo, name, {name: f"{name}\n"}) for name in "abcd"]
    before = stacked(g, *requests)
    assert land(g, "main", before.candidates[1])
    after = stacked(g, *requests[2:])
    assert [c.tree for c in after.candidates] == [c.tree for c in before.candidates[2:]]


def test_the_same_arguments_give_the_same_commits(repo: Path, g: Git, environ: dict[str, str]) -> None:
    requests = [request(repo, name, {name: f"{name}\n"}) for name in "ab"]
    first = stacked(g, *requests)
    git(repo, "config", "i18n.commitEncoding", "latin1")
    git(repo, "config", "user.name", "Somebody Else")
    git(repo, "config", "commit.gpgSign", "true")
    assert stacked(Git(repo, {**environ, "GIT_AUTHOR_NAME": "x", "TZ": "Asia/Tokyo"}), *requests) == first
    local = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert stack(g, first.base, requests, WHO, local) == first
    assert (
        show(g, "%an <%ae> %aI %cn <%ce> %cI", first.candidates[1].commit)
        == ("Refinery <refinery@example.org> 2026-01-02T03:04:05+00:00 " * 2).strip()
    )


def test_an_empty_queue_is_an_empty_stack(g: Git) -> None:
    nothing = stacked(g)
    assert nothing == Stack(nothing.base)


def test_stacking_touches_no_work_tree_index_or_ref(repo: Path, g: Git) -> None:
    requests = [request(repo, "a", {"a": "a\n"}), request(repo, "b", {"README.md": "b\n"})]
    (repo / "README.md").write_text("edited\n")
    (repo / "a").write_text("mine\n")
    before = (git(repo, "status", "--porcelain"), git(repo, "for-each-ref"), (repo / ".git/index").read_bytes())
    stacked(g, *requests)
    assert (git(repo, "status", "--porcelain"), git(repo, "for-each-ref"), (repo / ".git/index").read_bytes()) == before
    assert not (repo / ".git/index.lock").exists()


def test_a_rename_on_one_side_takes_the_edit_of_the_other(repo: Path, g: Git) -> None:
    text = "".join(f"line {i}\n" for i in range(30))
    commit(repo, {"old.py": text}, "A file")
    git(repo, "checkout", "--quiet", "-b", "rename")
    git(repo, "mv", "old.py", "new.py")
    git(repo, "commit", "--quiet", "-m", "Rename")
    git(repo, "checkout", "--quiet", "main")
    renamed = Request("bt-rename", "Rename", git(repo, "rev-parse", "rename"), "bt-1")
    edited = request(repo, "edit", {"old.py": text.replace("line 7", "line seven")})
    candidate = stacked(g, renamed, edited).candidates[1]
    assert "line seven" in files_of(g, candidate.commit)["new.py"]
    assert "old.py" not in files_of(g, candidate.commit)


_edit = st.dictionaries(
    st.sampled_from(["f", "g", "d/f", "d/g", "d"]),
    st.lists(st.sampled_from(["one\n", "two\n", "three\n", "<<<<<<< ours\n"]), max_size=6).map("".join) | st.none(),
    max_size=3,
)


@given(first=_edit, second=_edit, third=_edit)
@settings(max_examples=settings().max_examples // 6)
def test_trees_are_those_that_git_merge_makes(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, str | None],
    second: dict[str, str | None],
    third: dict[str, str | None],
) -> None:
    repo = make_repository(
        tmp_path_factory.mktemp("merge") / "repo", {"f": "one\ntwo\nthree\n" * 4, "g": "one\n", "d/h": "x\n"}
    )
    requests = [_edited(repo, name, edit) for name, edit in zip("abc", (first, second, third), strict=True)]
    git(repo, "checkout", "--quiet", "--detach", "main")
    g = Git(repo, environment(tmp_path_factory.mktemp("home")))
    made = stacked(g, *requests)
    tree_with = {c.members[-1]: c.tree for c in made.candidates}
    for each in requests:
        before = g.line("rev-parse", "HEAD^{tree}")
        clean = g.run("merge", "--quiet", "--no-ff", "--no-edit", each.head, ok=(0, 1)).status == 0
        after = g.line("rev-parse", "HEAD^{tree}")
        if each in tree_with:
            assert (clean, after) == (True, tree_with[each])
        elif clean:
            assert after == before
            assert each in (*made.contained, *(c.request for c in made.waiting))
        else:
            assert each in [c.request for c in (*made.conflicts, *made.waiting)]
            g.run("merge", "--abort")


def _edited(repo: Path, name: str, edit: dict[str, str | None]) -> Request:
    git(repo, "checkout", "--quiet", "-b", name, "main")
    for path, text in edit.items():
        place = repo / path
        if text is None:
            git(repo, "rm", "-rq", "--ignore-unmatch", "--", path)
        elif not place.is_dir() and (place.parent.is_dir() or not place.parent.exists()):
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", f"Edit {name}")
    head = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "--quiet", "main")
    return Request(f"bt-{name}", name, head, "bt-1")


# Requests that are in no candidate


def test_a_conflict_with_main_is_reported_and_the_others_are_stacked_without_it(repo: Path, g: Git) -> None:
    a, bad, c = (
        request(repo, "a", {"a": "a\n"}),
        request(repo, "bad", {"README.md": "bad\n"}),
        request(repo, "c", {"c": "c\n"}),
    )
    commit(repo, {"README.md": "main\n"}, "Main moves on")
    made = stacked(g, a, bad, c)
    assert [candidate.members for candidate in made.candidates] == [(a,), (a, c)]
    (conflict,) = made.conflicts
    assert (conflict.request, conflict.paths) == (bad, ("README.md",))
    assert conflict.messages == "CONFLICT (content): Merge conflict in README.md\n"
    assert not made.waiting


def test_a_conflict_with_a_pending_request_waits_for_what_becomes_of_it(repo: Path, g: Git) -> None:
    a, b = request(repo, "a", {"README.md": "a\n"}), request(repo, "b", {"README.md": "b\n"})
    made = stacked(g, a, b)
    assert [c.members for c in made.candidates] == [(a,)]
    assert [(c.request, c.paths) for c in made.waiting] == [(b, ("README.md",))]
    assert not made.conflicts
    assert stacked(g, b).candidates, "it is fine without the other"
    assert land(g, "main", made.candidates[0])
    assert [c.request for c in stacked(g, b).conflicts] == [b], "now it conflicts with main"


def test_what_main_has_already_is_contained(repo: Path, g: Git) -> None:
    merged, picked, empty = (request(repo, name, {name: "x\n"}) for name in ("merged", "picked", "empty"))
    git(repo, "checkout", "--quiet", "empty")
    git(repo, "rm", "--quiet", "empty")
    git(repo, "commit", "--quiet", "-m", "Undo")
    empty = Request(empty.id, "", git(repo, "rev-parse", "HEAD"), empty.molecule)
    git(repo, "checkout", "--quiet", "main")
    git(repo, "merge", "--quiet", "--no-ff", "--no-edit", merged.head)
    git(repo, "cherry-pick", picked.head)
    commit(repo, {"more": "x\n"}, "Main moves on")
    base = Request("bt-base", "Main itself", git(repo, "rev-parse", "main"), "bt-1")
    new = request(repo, "new", {"new": "x\n"})
    made = stacked(g, merged, picked, empty, base, new)
    assert made.contained == (merged, picked, empty, base)
    assert [c.members for c in made.candidates] == [(new,)]


def test_what_a_pending_request_brings_too_waits(repo: Path, g: Git) -> None:
    a = request(repo, "a", {"a": "a\n"})
    same = Request("bt-same", "The same head", a.head, "bt-2")
    later = request(repo, "later", {"later": "x\n"}, start="a")
    made = stacked(g, later, a, same)
    assert [c.members for c in made.candidates] == [(later,)]
    assert [c.request for c in made.waiting] == [a, same]
    assert land(g, "main", made.candidates[0])
    assert stacked(g, a, same).contained == (a, same)


def test_no_common_history_is_a_conflict(repo: Path, g: Git) -> None:
    orphan = git(repo, "commit-tree", "-m", "Orphan", "main^{tree}")
    made = stacked(g, Request("bt-o", "Orphan", orphan, "bt-1"), request(repo, "a", {"a": "a\n"}))
    assert [(c.request.id, c.paths, c.messages) for c in made.conflicts] == [
        ("bt-o", (), "It shares no history with main.")
    ]
    assert len(made.candidates) == 1


def test_a_head_that_is_not_here_stops_nobody_else(repo: Path, g: Git) -> None:
    a, lost = request(repo, "a", {"a": "a\n"}), Request("bt-lost", "Lost", "ab" * 20, "bt-1")
    blob = Request("bt-blob", "No commit", git(repo, "rev-parse", "main:README.md"), "bt-1")
    made = stacked(g, lost, blob, a)
    assert made.missing == (lost, blob)
    assert [c.members for c in made.candidates] == [(a,)]


def test_a_failure_of_git_is_no_conflict(repo: Path, g: Git) -> None:
    a = request(repo, "a", {"a": "a\n"})
    tree = git(repo, "rev-parse", f"{a.head}^{{tree}}")
    (repo / ".git/objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(Unreadable, match="merge-tree"):
        stacked(g, a)


UNION = {".gitattributes": "*.md merge=union\n"}


def test_main_s_attributes_hold(repo: Path, g: Git) -> None:
    commit(repo, UNION | {"sub/log.txt": "x\n", "sub/.gitattributes": "log.txt merge=union\n"}, "Attributes")
    files = {"README.md": "# A project\na\n", "sub/log.txt": "x\na\n"}
    a, b = request(repo, "a", files), request(repo, "b", {n: t.replace("a\n", "b\n") for n, t in files.items()})
    git(repo, "checkout", "--quiet", "--detach", f"{a.head}")  # whatever is checked out
    candidate = stacked(g, a, b).candidates[1]
    assert files_of(g, candidate.commit)["sub/log.txt"] == "x\na\nb"


def test_a_candidate_s_own_attributes_do_not(repo: Path, g: Git) -> None:
    a, b = request(repo, "a", {"README.md": "a\n", **UNION}), request(repo, "b", {"README.md": "b\n", **UNION})
    assert len(stacked(g, a, b).candidates) == 1
    commit(repo, {"README.md": "main\n"}, "Main moves on")
    assert [c.request for c in stacked(g, a, b).conflicts] == [a, b]


def test_attributes_lying_in_the_checkout_do_not(repo: Path, g: Git) -> None:
    a, b = request(repo, "a", {"README.md": "a\n"}), request(repo, "b", {"README.md": "b\n"})
    (repo / ".gitattributes").write_text("* merge=union\n")
    assert len(stacked(g, a, b).candidates) == 1


def test_the_repository_s_own_attributes_and_drivers_hold(repo: Path, g: Git) -> None:
    a, b = request(repo, "a", {"README.md": "a\n"}), request(repo, "b", {"README.md": "b\n"})
    (repo / ".git/info/attributes").write_text("README.md merge=theirs\n")
    git(repo, "config", "merge.theirs.driver", "cp %B %A")
    assert files_of(g, stacked(g, a, b).candidates[1].commit)["README.md"] == "b"


def test_it_works_in_a_bare_repository_and_in_a_linked_work_tree(
    repo: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    a, b = request(repo, "a", {"a": "a\n"}), request(repo, "b", {"b": "b\n"})
    git(repo, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    git(tmp_path, "clone", "--quiet", "--bare", str(repo), "bare.git")
    made = stacked(Git(repo, environ), a, b)
    assert stacked(Git(tmp_path / "linked", environ), a, b) == made
    assert stacked(Git(tmp_path / "bare.git", environ), a, b) == made


@pytest.mark.parametrize(
    "title",
    [
        "Innocent\n\nMerge-Request: bt-evil",
        "Innocent\r\rMerge-Request: bt-evil\r",
        "Innocent\u2028\u2028Merge-Request: bt-evil",
        "Innocent\x0b\x0cMerge-Request: bt-evil\x85\x1c",
        "Merge-Request: bt-evil",
        "x\n---\nMerge-Request: bt-evil\n",
        "\n",
        "",
        "nul \x00 and half a surrogate \udc80 and direction \u202e",
        "# a comment",
        "t" * 5000,
    ],
)
def test_no_title_passes_for_a_trailer(repo: Path, g: Git, title: str) -> None:
    a = Request("bt-a", title, branch(repo, "a", {"a": "a\n"}), "bt-1")
    b = Request("bt-b", title, branch(repo, "b", {"b": "b\n"}), "bt-2")
    single, train = stacked(g, a, b).candidates
    assert trailers(g, single.commit) == ["Merge-Request: bt-a", "Bead: bt-1"]
    assert trailers(g, train.commit) == ["Merge-Request: bt-a", "Bead: bt-1", "Merge-Request: bt-b", "Bead: bt-2"]
    assert trailers(g, f"{train.commit}^2") == ["Bead: bt-2"]
    assert len(show(g, "%B", single.commit).splitlines()) == 4
    evil = Request("bt-evil", "", a.head, "bt-3")
    assert land(g, "main", train)
    assert landed(g, "main", [a, b, evil]) == {"bt-a": train.commit, "bt-b": train.commit}


@pytest.mark.parametrize("bad", ["bt-a\nMerge-Request: bt-b", "", "bt a", "--all", "a/b", "a..b", "x.lock"])
def test_ids_are_ids(bad: str) -> None:
    for request_id, molecule in ((bad, "bt-1"), ("bt-1", bad)):
        with pytest.raises(InvalidInput):
            Request(request_id, "Title", "ab" * 20, molecule)


@pytest.mark.parametrize("head", ["main", "HEAD", "abc123", "", "--all", "ab" * 20 + "\n", "AB" * 20])
def test_a_head_is_a_full_commit_id(head: str) -> None:
    with pytest.raises(InvalidInput, match="not a full commit id"):
        Request("bt-a", "Title", head, "bt-1")


def test_a_long_train_names_some_and_lists_all(repo: Path, g: Git) -> None:
    train = stacked(g, *(request(repo, f"r{i}", {f"f{i}": "x\n"}) for i in range(10))).candidates[-1]
    assert show(g, "%s", train.commit).endswith("bt-r6, bt-r7 and 2 more")
    assert "- bt-r9: Do r9\n" in show(g, "%b", train.commit)


def test_landing_moves_the_branch_to_exactly_the_candidate(repo: Path, g: Git) -> None:
    (candidate,) = stacked(g, request(repo, "a", {"a": "a\n"})).candidates
    assert land(g, "main", candidate)
    assert git(repo, "rev-parse", "main") == candidate.commit
    assert git(repo, "reflog", "-1", "--format=%gs", "main") == "land bt-a"
    assert land(g, "main", candidate), "landing again finds it landed"


def test_of_two_that_land_one_wins(repo: Path, g: Git) -> None:
    a, b = request(repo, "a", {"a": "a\n"}), request(repo, "b", {"b": "b\n"})
    (one,), (other,) = stacked(g, a).candidates, stacked(g, b).candidates
    assert [land(g, "main", one), land(g, "main", other)] == [True, False]
    assert git(repo, "rev-parse", "main") == one.commit


def test_main_that_somebody_moved_is_left_alone(repo: Path, g: Git) -> None:
    (candidate,) = stacked(g, request(repo, "a", {"a": "a\n"})).candidates
    commit(repo, {"x": "x\n"}, "A person's commit")
    moved = git(repo, "rev-parse", "main")
    assert not land(g, "main", candidate)
    assert git(repo, "rev-parse", "main") == moved
    git(repo, "checkout", "--quiet", "--detach")
    git(repo, "branch", "-D", "main")
    assert not land(g, "main", candidate), "a branch that is gone stays gone"


def test_a_branch_that_cannot_be_moved_is_an_error_not_a_race(repo: Path, g: Git) -> None:
    (candidate,) = stacked(g, request(repo, "a", {"a": "a\n"})).candidates
    (repo / ".git/refs/heads/main.lock").touch()
    with pytest.raises(Unreadable, match="did not move main"):
        land(g, "main", candidate)


# What history says


def test_what_landed_is_told_from_history_alone(repo: Path, g: Git) -> None:
    a, b, c, d = (request(repo, name, {name: f"{name}\n"}) for name in "abcd")
    start = git(repo, "rev-parse", "main")
    first = stacked(g, a).candidates[-1]
    assert land(g, "main", first)
    train = stacked(g, b, c).candidates[-1]
    assert landed(g, "main", [a, b, c, d]) == {"bt-a": first.commit}
    assert land(g, "main", train)
    expected = {"bt-a": first.commit, "bt-b": train.commit, "bt-c": train.commit}
    assert landed(g, "main", [a, b, c, d]) == expected
    assert landed(g, "main", [a, b, c, d], start) == expected
    assert landed(g, "main", [a, b, c, d], first.commit) == {"bt-b": train.commit, "bt-c": train.commit}
    assert landed(g, "main", [], start) == {}


def test_what_landed_is_found_off_the_first_parents_too(repo: Path, g: Git) -> None:
    a = request(repo, "a", {"a": "a\n"})
    (candidate,) = stacked(g, a).candidates
    assert land(g, "main", candidate)
    # Somebody with a commit of their own pulls, and pushes the merge: our main is its second parent.
    git(repo, "checkout", "--quiet", "-b", "theirs", candidate.base)
    commit(repo, {"x": "x\n"}, "Local work")
    git(repo, "merge", "--quiet", "--no-edit", "main")
    git(repo, "branch", "--force", "main")
    assert landed(g, "main", [a]) == {"bt-a": candidate.commit}


def test_a_message_on_somebody_s_branch_proves_nothing(repo: Path, g: Git) -> None:
    victim = request(repo, "victim", {"victim": "x\n"})
    forged = "Look\n\nMerge-Request: bt-victim\nMerge-Request: bt-a\u2028x\n"
    git(repo, "checkout", "--quiet", "-b", "evil")
    git(repo, "commit", "--quiet", "--allow-empty", "-m", forged)
    git(repo, "checkout", "--quiet", "-b", "side")
    commit(repo, {"side": "x\n"}, "Side")
    git(repo, "checkout", "--quiet", "evil")
    git(repo, "merge", "--quiet", "--no-ff", "-m", forged, "side")
    git(repo, "checkout", "--quiet", "main")
    evil = Request("bt-evil", "Evil", git(repo, "rev-parse", "evil"), "bt-1")
    (candidate,) = stacked(g, evil).candidates
    assert land(g, "main", candidate)
    assert landed(g, "main", [victim, evil]) == {"bt-evil": candidate.commit}


def test_another_head_under_the_same_id_has_not_landed(repo: Path, g: Git) -> None:
    assert land(g, "main", stacked(g, request(repo, "a", {"a": "a\n"})).candidates[0])
    again = Request("bt-a", "Do a", branch(repo, "again", {"a": "more\n"}), "bt-a-work")
    assert landed(g, "main", [again]) == {}


def test_configuration_does_not_change_what_history_says(repo: Path, g: Git) -> None:
    a = request(repo, "a", {"a": "a\n"})
    for key, value in {
        "log.showSignature": "true",
        "color.ui": "always",
        "grep.patternType": "perl",
        "format.pretty": "fuller",
        "i18n.logOutputEncoding": "utf-16",
        "log.follow": "true",
        "trailer.separators": "=",
    }.items():
        git(repo, "config", key, value)
    (candidate,) = stacked(g, a).candidates
    assert land(g, "main", candidate)
    assert landed(g, "main", [a]) == {"bt-a": candidate.commit}


def candidate_refs(g: Git) -> dict[str, str]:
    lines = git(g.directory, "for-each-ref", "--format=%(refname) %(objectname)", CANDIDATES).splitlines()
    return dict(line.removeprefix(CANDIDATES).split(" ") for line in lines)


def test_published_candidates_survive_pruning(repo: Path, g: Git) -> None:
    a, b, c = (request(repo, name, {name: f"{name}\n"}) for name in "abc")
    candidates = stacked(g, a, b, c).candidates
    publish(g, candidates)
    publish(g, candidates[1:])
    assert candidate_refs(g) == {"bt-b": candidates[1].commit, "bt-c": candidates[2].commit}
    git(repo, "gc", "--quiet", "--prune=now")
    assert land(g, "main", candidates[2])
    publish(g, [after := stacked(g, request(repo, "d", {"d": "d\n"})).candidates[0]])
    assert candidate_refs(g) == {"bt-d": after.commit}
    publish(g, [after])
    publish(g, [])
    publish(g, [])
    assert candidate_refs(g) == {}
