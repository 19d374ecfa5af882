"""How requests get onto main: as merges, squashed or rebased, signed or not; and what is told of it from main alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from beads.clock import SystemClock
from beads.errors import InvalidDocument, Refused
from refinery.git import Git
from refinery.landed import landed
from refinery.merge import Request, Stack, land, stack
from refinery.signing import Signer
from refinery.styles import Merging, Style, merging_of
from tests.refinery.test_merge import WHEN, WHO, files_of, show, trailers
from tests.world import EMAIL, NAME, commit, git

WHOSE = f"{NAME} <{EMAIL}>"

STYLES: tuple[Style, ...] = ("merge", "squash", "rebase")


@pytest.fixture
def g(repo: Path, environ: dict[str, str]) -> Git:
    return Git(repo, environ)


def work(repo: Path, name: str, *steps: Mapping[str, str], start: str = "main") -> Request:
    """A branch off ``start`` with a commit for each of these steps, and the request that it lands."""
    git(repo, "checkout", "--quiet", "-b", name, start)
    for number, files in enumerate(steps, start=1):
        commit(repo, files, f"Step {number} of {name}\n\nIt says why.\n\nBead: bt-{name}-work.{number}\nAttempt: 1")
    git(repo, "checkout", "--quiet", "main")
    return Request(f"bt-{name}", f"Do {name}", git(repo, "rev-parse", name), f"bt-{name}-work")


def stacked(g: Git, style: Style, *requests: Request, landed: Stack | None = None) -> Stack:
    return stack(g, git(g.directory, "rev-parse", "main"), requests, WHO, WHEN, style, landed)


def parents(g: Git, revision: str) -> list[str]:
    return show(g, "%P", revision).split()


@pytest.fixture
def three(repo: Path) -> tuple[Request, ...]:
    """A request of one commit, one of two, and one whose branch has a merge of main, off a main that moved on."""
    one = work(repo, "one", {"one": "1\n"})
    two = work(repo, "two", {"two": "1\n"}, {"two": "1\n2\n"})
    merged = work(repo, "merged", {"merged": "1\n"})
    commit(repo, {"other": "x\n"}, "Main moves on")
    git(repo, "checkout", "--quiet", "merged")
    git(repo, "merge", "--quiet", "--no-edit", "main")
    git(repo, "checkout", "--quiet", "main")
    return one, two, replace(merged, head=git(repo, "rev-parse", "merged"))


def test_every_style_lands_the_same_trees_on_tested_first_parents(
    repo: Path, g: Git, three: tuple[Request, ...]
) -> None:
    start = git(repo, "rev-parse", "main")
    merged = stacked(g, "merge", *three)
    for style in STYLES:
        git(repo, "reset", "--quiet", "--hard", start)
        made = stacked(g, style, *three)
        assert [c.tree for c in made.candidates] == [c.tree for c in merged.candidates]
        assert stacked(g, style, *three) == made, "the same arguments give the same commits"
        tested = {c.tree for c in made.candidates}
        for which in (0, 2):
            candidate = made.candidates[which]
            git(repo, "reset", "--quiet", "--hard", start)
            assert land(g, "main", candidate)
            line = git(repo, "log", "--first-parent", "--format=%T", f"{start}..main").split()
            assert line == [candidate.tree]
            assert set(line) <= tested
            told = landed(g, "main", three, start)
            assert told == {member.id: candidate.commit for member in candidate.members}
            said = git(repo, "log", "--format=%(trailers:key=Merge-Request,valueonly)", f"{start}..main").split()
            assert sorted(said) == sorted(member.id for member in candidate.members), "once each"


def test_a_request_of_one_commit_is_one_on_main(repo: Path, g: Git, three: tuple[Request, ...]) -> None:
    base = git(repo, "rev-parse", "main")
    squashed = stacked(g, "squash", three[1]).candidates[0].commit
    assert parents(g, squashed) == [base]
    assert show(g, "%s", squashed) == "Do two (bt-two)"
    assert show(g, "%an, %cn", squashed) == f"{NAME}, {WHO.name}"
    assert show(g, "%b", squashed).startswith("- Step 1 of two\n- Step 2 of two\n\n")
    expected = ["Merge-Request: bt-two", f"Merge-Head: {three[1].head}", "Bead: bt-two-work"]
    assert trailers(g, squashed) == expected
    again = stacked(g, "rebase", three[0]).candidates[0].commit
    assert parents(g, again) == [base]
    assert show(g, "%s", again) == "Step 1 of one"
    assert show(g, "%an %aI, %cn", again) == f"{show(g, '%an %aI', three[0].head)}, {WHO.name}"
    assert [line.partition(":")[0] for line in trailers(g, again)] == [
        *("Bead", "Attempt"),
        *("Merge-Request", "Merge-Head", "Bead"),
    ]


def test_commits_that_were_not_tested_hang_on_the_second_parent(repo: Path, g: Git, three: tuple[Request, ...]) -> None:
    base = git(repo, "rev-parse", "main")
    for style, subjects in {
        "squash": ["Do one (bt-one)", "Do two (bt-two)", "Do merged (bt-merged)"],
        "rebase": ["Step 1 of one", "Step 1 of two", "Step 2 of two", "Do merged (bt-merged)"],
    }.items():
        train = stacked(g, style, *three).candidates[2]  # type: ignore[arg-type]
        first, second = parents(g, train.commit)
        assert first == base
        chain = git(repo, "log", "--reverse", "--format=%H %s", f"{base}..{second}").splitlines()
        assert [line.split(" ", 1)[1] for line in chain] == subjects
        assert tuple(line.split()[0] for line in chain) == train.chain
    alone = stacked(g, "rebase", three[1]).candidates[0]
    assert len(parents(g, alone.commit)) == 2, "its first commit was not tested"


def test_picked_commits_are_those_that_git_cherry_pick_makes(repo: Path, g: Git) -> None:
    text = "".join(f"line {i}\n" for i in range(30))
    commit(repo, {"old.py": text}, "A file")
    edited = work(
        repo, "edited", {"old.py": text.replace("line 7", "seven")}, {"old.py": text.replace("line 9", "nine")}
    )
    git(repo, "mv", "old.py", "new.py")
    git(repo, "commit", "--quiet", "-m", "Rename")
    train = stacked(g, "rebase", edited).candidates[0]
    git(repo, "checkout", "--quiet", "--detach", "main")
    git(repo, "cherry-pick", f"main..{edited.head}")
    trees = git(repo, "log", "--format=%T %s", "main..HEAD")
    assert git(repo, "log", "--format=%T %s", f"main..{train.commit}^2") == trees


def test_what_cannot_be_picked_one_by_one_is_one_commit(repo: Path, g: Git) -> None:
    there_and_back = work(repo, "back", {"README.md": "mine\n"}, {"README.md": "# A project\n", "new": "x\n"})
    commit(repo, {"README.md": "# A project, moved on\n"}, "Main moves on")
    (candidate,) = stacked(g, "rebase", there_and_back).candidates
    assert len(parents(g, candidate.commit)) == 1
    assert show(g, "%s", candidate.commit) == "Do back (bt-back)"
    assert files_of(g, candidate.commit)["new"] == "x"


def test_those_behind_what_landed_are_not_merged_again(
    repo: Path, g: Git, three: tuple[Request, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = git(repo, "rev-parse", "main")
    for style in STYLES:
        before = stacked(g, style, *three)
        assert land(g, "main", before.candidates[0])
        expected = stacked(g, style, *three[1:])
        with monkeypatch.context() as patched:
            patched.setattr("refinery.content.Merger.__call__", None)
            assert stacked(g, style, *three[1:], landed=before) == expected
        git(repo, "update-ref", "refs/heads/main", start)
    before = stacked(g, "merge", *three)
    new = work(repo, "new", {"new": "x\n"})
    assert land(g, "main", before.candidates[0])
    assert stacked(g, "merge", new, *three[1:], landed=before) == stacked(g, "merge", new, *three[1:])
    git(repo, "reset", "--quiet", "--hard", start)
    before = stacked(g, "merge", *three)
    commit(repo, {".gitattributes": "* merge=union\n"}, "Other attributes")
    assert stacked(g, "merge", *three, landed=before) == stacked(g, "merge", *three)


@pytest.mark.parametrize("style", ["squash", "rebase"])
def test_no_message_passes_for_a_landing(style: Style, repo: Path, g: Git) -> None:
    victim = work(repo, "victim", {"victim": "x\n"})
    forged = f"Look\n\nMerge-Request: bt-victim\nMerge-Head: {victim.head}\n"
    git(repo, "checkout", "--quiet", "-b", "evil")
    # As good a forgery as there can be: on this branch, it even is what landing the other one would give.
    git(repo, "cherry-pick", victim.head)
    git(repo, "commit", "--quiet", "--amend", "-m", forged)
    git(repo, "revert", "--no-edit", "HEAD")
    commit(repo, {"evil": "x\n"}, forged)
    git(repo, "checkout", "--quiet", "main")
    evil = Request("bt-evil", "Evil", git(repo, "rev-parse", "evil"), "bt-1")
    (candidate,) = stacked(g, style, evil).candidates
    assert land(g, "main", candidate)
    assert landed(g, "main", [victim, evil]) == {"bt-evil": candidate.commit}
    assert "Merge-Request: bt-victim" not in git(repo, "log", "--format=%(trailers)", "main")
    git(repo, "reset", "--quiet", "--hard", f"{candidate.commit}~1")
    git(repo, "merge", "--quiet", "--no-ff", "--no-edit", "evil")
    assert landed(g, "main", [victim]) == {}, "somebody merged it by hand"
    git(repo, "commit", "--quiet", "--allow-empty", "-m", forged)
    assert landed(g, "main", [victim]) == {}, "a commit of main that says so, and brings something else"


@pytest.mark.parametrize("style", STYLES)
def test_another_head_or_a_missing_one_has_not_landed(style: Style, repo: Path, g: Git) -> None:
    one, two = (work(repo, name, {name: "x\n"}) for name in ("one", "two"))
    train = stacked(g, style, one, two).candidates[1]
    assert land(g, "main", train)
    git(repo, "reset", "--quiet", "--hard")
    assert landed(g, "main", [one, two]) == {"bt-one": train.commit, "bt-two": train.commit}
    other = work(repo, "other", {"one": "y\n"})
    assert landed(g, "main", [replace(other, id="bt-one"), replace(two, head="ab" * 20)]) == {}


def test_main_says_how_it_wants_things_merged(repo: Path, g: Git) -> None:
    assert merging_of(g, "main") == Merging(style="merge")
    commit(repo, {"town.toml": '[merge]\nstyle = "squash"\n'}, "Squash")
    assert merging_of(g, "main").style == "squash"
    assert merging_of(g, "main~1").style == "merge"
    commit(repo, {"town.toml": '[merge]\nstyle = "octopus"\n'}, "Octopus")
    with pytest.raises(InvalidDocument, match=r"merge\.style"):
        merging_of(g, "main")


# Signatures


@pytest.fixture
def agent() -> Iterator[None]:
    """Ends the agent that gpg starts for keys in this home."""
    yield
    if shutil.which("gpgconf"):
        subprocess.run(["gpgconf", "--kill", "all"], check=False)


def key_of(repo: Path, home: Path, kind: str) -> None:
    """Make a key of that kind, and let Git sign every commit with it."""
    if kind == "ssh":
        key, signers = home / "key", home / "signers"
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)], check=True)
        signers.write_text(f"test@example.org {key.with_suffix('.pub').read_text()}")
        settings = {"user.signingKey": f"{key}.pub", "gpg.ssh.allowedSignersFile": str(signers)}
    else:
        (home / ".gnupg").mkdir(mode=0o700)
        make = ("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", WHOSE, "ed25519")
        subprocess.run(make, check=True, capture_output=True)
        settings = {}
    for name, value in {**settings, "gpg.format": kind, "commit.gpgSign": "true"}.items():
        git(repo, "config", name, value)


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("kind,program", [("ssh", "ssh-keygen"), ("openpgp", "gpg")])
def test_what_lands_is_signed_where_the_user_s_git_signs(
    kind: str, program: str, repo: Path, g: Git, home: Path, three: tuple[Request, ...]
) -> None:
    if not shutil.which(program):
        pytest.skip(f"there is no {program}")
    start = git(repo, "rev-parse", "main")
    key_of(repo, home, kind)
    for style in STYLES:
        git(repo, "reset", "--quiet", "--hard", start)
        candidates = stacked(g, style, *three).candidates
        assert show(g, "%G?", candidates[2].commit) == "N"
        for candidate in (candidates[0], candidates[2]):
            git(repo, "update-ref", "refs/heads/main", start)
            signed = Signer(g, SystemClock()).sign(candidate)
            assert land(g, "main", signed)
            ours = ("log", "--committer=test@example.org", "--format=%G? %an", f"{start}..main")
            said = git(repo, "-c", "gpg.minTrustLevel=undefined", *ours, "--author=Refinery").splitlines()
            assert all(line.startswith(("G", "U")) for line in said)
            made = [signed.commit, *signed.chain]
            assert [show(g, "%G?", made_one) in "GU" for made_one in made] == [True] * len(made)
            same = "%T %B %an %ae %aI %cI"
            pairs = zip(made, [candidate.commit, *candidate.chain], strict=True)
            assert all(show(g, same, one) == show(g, same, other) for one, other in pairs)
            told = landed(g, "main", three, start)
            assert told == {member.id: signed.commit for member in candidate.members}


def test_a_signature_that_fails_is_no_landing(repo: Path, g: Git, home: Path, three: tuple[Request, ...]) -> None:
    (candidate,) = stacked(g, "merge", three[0]).candidates
    assert Signer(g, SystemClock()).sign(candidate) is candidate
    git(repo, "config", "gpg.format", "ssh")
    git(repo, "config", "commit.gpgSign", "true")
    git(repo, "config", "user.signingKey", str(home / "gone"))
    signer = Signer(g, SystemClock())
    with pytest.raises(Refused, match=r"cannot: .*gone") as refused:
        signer.sign(candidate)
    assert "commit.gpgSign" in refused.value.hint
    with pytest.raises(Refused) as again:
        signer.sign(candidate)
    assert again.value is refused.value, "it is not tried again at each tick"
