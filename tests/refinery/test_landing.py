"""Landing on the main of a remote: real pushes, of which some are lost, refused, or come too late."""

from __future__ import annotations

from pathlib import Path

import pytest

from beads import Store
from beads.errors import InvalidInput
from refinery.git import Git
from refinery.landing import landing_of
from tests.refinery.attending import attended
from tests.refinery.invariants import assert_kept
from tests.refinery.yard import hook, hub, make_shared, outcomes, push_by_a_person, site_of, submit, work
from tests.towns import until
from tests.world import commit, git


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A clone with one good request."""
    repository = make_shared(tmp_path)
    submit(repository, "a", {"parts/a": "ok\n"})
    return repository


def test_main_on_the_remote_is_what_lands_and_what_is_built_on(shared: Path) -> None:
    push_by_a_person(hub(shared), "early")
    # Git would list this one, too, and before the other.
    git(hub(shared), "update-ref", "refs/heads/a/refs/heads/main", "main~1")
    submit(shared, "b", {"parts/b": "ok\n"})
    happened = work(site_of(shared))
    assert happened[-1].startswith("landed bt-a.m1, bt-b.m1 as")
    assert_kept(shared, trunk=hub(shared))
    assert git(hub(shared), "rev-parse", "main") == git(shared, "rev-parse", "main")
    assert git(shared, "status", "--porcelain") == "", "the checkout followed"
    assert (shared / "by-hand/early").exists()
    assert git(shared, "for-each-ref", "refs/beads/following") == ""


def test_what_was_pushed_meanwhile_is_built_on(shared: Path) -> None:
    # Somebody is first while ours is on its way, so that the remote's own compare-and-swap finds it.
    tree = git(hub(shared), "rev-parse", "main^{tree}")
    late = git(hub(shared), "commit-tree", tree, "-p", "main", "-m", "By hand: late")
    git(hub(shared), "update-ref", "refs/heads/late", late)
    free = "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES"
    hook(
        hub(shared), "pre-receive", f"{free}\nrm {hub(shared)}/hooks/pre-receive\ngit update-ref refs/heads/main {late}"
    )
    happened = work(site_of(shared))
    assert "main of origin moved while bt-a.m1 was about to land; trying again on the new one" in happened
    assert outcomes(shared) == {"a": "landed"}
    assert_kept(shared, trunk=hub(shared))
    assert git(hub(shared), "rev-parse", "main^1") == late


def test_a_connection_that_dies_after_the_push_lands_once(shared: Path) -> None:
    hook(hub(shared), "post-receive", f"rm {hub(shared)}/hooks/post-receive; kill -9 $PPID")
    work(site_of(shared))
    assert outcomes(shared) == {"a": "landed"}
    ledger = assert_kept(shared, trunk=hub(shared))
    assert len(ledger.verdicts) == 1


@pytest.mark.slow
def test_a_connection_that_dies_before_is_tried_again(shared: Path) -> None:
    hook(hub(shared), "pre-receive", f"rm {hub(shared)}/hooks/pre-receive; kill -9 $PPID")
    work(site_of(shared))
    assert outcomes(shared) == {"a": "landed"}
    assert len(assert_kept(shared, trunk=hub(shared)).verdicts) == 1


def test_a_branch_that_is_protected_is_a_clear_stop_until_it_is_not(shared: Path) -> None:
    protection = hook(hub(shared), "pre-receive", "echo 'protected branch: ask Kim' >&2; exit 1")
    with attended(shared) as (refinery, tick):
        until(lambda: [tick(), refinery.halted][1])
        assert "the remote origin does not take what is to land on it" in refinery.halted
        assert "protected branch: ask Kim" in refinery.halted
        assert refinery.remedy.startswith("Let the Refinery push to main of origin")
        submit(shared, "b", {"parts/b": "no\n"})
        for _ in range(8):
            tick()
        assert "protected branch" in refinery.halted
        said = [e.verdict for bead in Store.open(shared).snapshot() for e in bead.evidence if e.subject == "the queue"]
        assert said == ["error"], "it is told once"
        assert outcomes(shared) == {"a": "open", "b": "open"}, "it is nobody's fault"
        protection.unlink()
        until(lambda: [tick(), "open" not in outcomes(shared).values()][1])
        assert not refinery.halted
    assert outcomes(shared) == {"a": "landed", "b": "rejected"}
    assert_kept(shared, trunk=hub(shared))


@pytest.mark.slow
def test_a_remote_that_is_gone_is_told_after_some_tries_and_found_again(shared: Path) -> None:
    elsewhere = hub(shared).rename(shared.parent / "elsewhere.git")
    with attended(shared) as (refinery, tick):
        until(lambda: [tick(), refinery.halted][1])
        assert refinery.halted.startswith("the remote origin cannot be read: fatal: '../hub.git' does not appear")
        assert outcomes(shared) == {"a": "open"}
        elsewhere.rename(hub(shared))
        until(lambda: [tick(), outcomes(shared) == {"a": "landed"}][1])


@pytest.mark.slow
def test_a_push_that_hangs_is_given_up(tmp_path: Path) -> None:
    shared = make_shared(tmp_path, "timeout = 0.5\n")
    submit(shared, "a", {"parts/a": "ok\n"})
    hanging = hook(hub(shared), "pre-receive", "exec sleep 100")
    with attended(shared) as (refinery, tick):
        until(lambda: [tick(), refinery.halted][1])
        assert "does not take what is to land on it: no answer within" in refinery.halted
        hanging.unlink()
        until(lambda: [tick(), outcomes(shared) == {"a": "landed"}][1])
    assert_kept(shared, trunk=hub(shared))


def test_commits_of_somebodys_own_on_main_are_a_clear_stop(shared: Path) -> None:
    push_by_a_person(hub(shared), "theirs")
    commit(shared, {"mine": "mine\n"}, "Mine")
    (shared / "edit").write_text("not committed\n")
    mine = git(shared, "rev-parse", "main")
    happened = work(site_of(shared))
    assert happened == ["halted: main here has 1 commit that main of origin has not"]
    assert git(shared, "rev-parse", "main") == mine
    git(shared, "pull", "--quiet", "--rebase", "origin", "main")
    git(shared, "push", "--quiet", "origin", "main")
    work(site_of(shared))
    assert outcomes(shared) == {"a": "landed"}
    assert (shared / "edit").read_text() == "not committed\n"


@pytest.mark.slow
def test_edits_in_the_way_of_following_are_a_clear_stop(shared: Path) -> None:
    push_by_a_person(hub(shared), "theirs")
    (shared / "by-hand").write_text("mine\n")
    (said,) = work(site_of(shared))
    assert said.startswith(f"halted: main is checked out in {shared} and cannot follow origin:")
    assert (shared / "by-hand").read_text() == "mine\n"
    (shared / "by-hand").unlink()
    work(site_of(shared))
    assert outcomes(shared) == {"a": "landed"}
    assert (shared / "by-hand/theirs").exists()


@pytest.mark.slow
def test_a_remote_without_that_branch_is_a_clear_stop(tmp_path: Path) -> None:
    shared = make_shared(tmp_path, 'branch = "release/2"\n')
    submit(shared, "a", {"parts/a": "ok\n"})
    assert work(site_of(shared)) == ["halted: there is no release/2 of origin"]
    git(shared, "push", "--quiet", "origin", "main:release/2")
    work(site_of(shared))
    assert git(hub(shared), "rev-parse", "release/2") == git(shared, "rev-parse", "main")
    assert outcomes(shared) == {"a": "landed"}


@pytest.mark.slow
def test_a_main_that_is_gone_here_and_another_table_are_noticed(shared: Path) -> None:
    with attended(shared) as (refinery, tick):
        tick()
        git(shared, "update-ref", "-d", "refs/heads/main")
        until(lambda: [tick(), refinery.halted][1])
        assert refinery.halted == "the branch main is gone"
        git(shared, "update-ref", "refs/heads/main", git(hub(shared), "rev-parse", "main"))
        settings = (shared / "town.toml").read_text()
        commit(shared, {"town.toml": settings.replace('"origin"', '"backup"')}, "Move")
        git(shared, "remote", "add", "backup", "../backup.git")
        git(shared.parent, "clone", "--bare", "--quiet", str(shared), "backup.git")
        until(lambda: [tick(), outcomes(shared) == {"a": "landed"}][1])
    assert git(shared, "rev-parse", "main") == git(shared.parent / "backup.git", "rev-parse", "main")


def test_the_table_counts_as_it_is_on_main(shared: Path) -> None:
    (shared / "town.toml").write_text("[landing]\nremote = 7\n")
    assert landing_of(Git(shared, {}), "main").remote == "origin"


@pytest.mark.parametrize(
    "text, says",
    [
        ('[landing]\nremote = "https://example.org/x"\n', "remote"),
        ('[landing]\nmode = "request"\n', "'remote', which is missing"),
        ('[landing]\nremote = "o"\nbranch = "a..b"\n', "cannot be the name of a branch"),
        ('[landing]\nremot = "origin"\n', "remot"),
    ],
)
def test_a_table_that_is_wrong_says_where(repo: Path, text: str, says: str) -> None:
    commit(repo, {"town.toml": text}, "Settings")
    with pytest.raises(InvalidInput, match=says):
        landing_of(Git(repo, {}), "main")
