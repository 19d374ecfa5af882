"""Requests on a forge in place of landing: opened once, followed until merged, whichever way the forge merges."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from beads import Store
from beads.errors import Unreadable
from beads.model import Bead, Criterion
from refinery.desk import opened_as
from refinery.forge import FORGES, Name, body_of, place_of
from tests.refinery.attending import attended
from tests.refinery.fakeforge import Forge, install
from tests.refinery.yard import hub, make_shared, outcomes, site_of, submit, work
from tests.towns import until
from tests.world import commit, git


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the forge's programs are, before all others."""
    place = install(tmp_path / "programs")
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def make_proposing(place: Path, names: Sequence[str], forge: Name = "github") -> Path:
    """A clone whose work is proposed on a forge, with these requests; those whose names begin with ``bad`` are."""
    repository = make_shared(place, f'mode = "request"\nforge = "{forge}"\n')
    (hub(repository) / "logged-in").touch()
    for name in names:
        submit(repository, name, {f"parts/{name}": "no\n" if name.startswith("bad") else "ok\n"})
    return repository


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    "name, how",
    [
        ("github", "squash"),
        pytest.param("gitlab", "merge", marks=pytest.mark.slow),
        pytest.param("gitlab", "squash", marks=pytest.mark.slow),
    ],
)
def test_what_is_green_is_asked_for_once_and_landed_when_it_is_merged(tmp_path: Path, name: Name, how: str) -> None:
    repository = make_proposing(tmp_path, ["a", "b", "bad"], name)
    happened = work(site_of(repository))
    assert happened[-1] == (
        "halted: what is to land waits on the forge: "
        "#1 https://forge.invalid/our/project/1, #2 https://forge.invalid/our/project/2"
    )
    assert outcomes(repository) == {"a": "open", "b": "open", "bad": "rejected"}
    first, second = Forge(hub(repository)).requests
    assert (first["branch"], first["base"], first["title"]) == ("polecat/bt-a", "main", "Do a")
    assert "## Promised\n\n- `run: true`" in first["body"]
    assert "## Proven\n\n- `gate: sh check.sh`: exit 0, on tree" in second["body"]
    # Another start, as after a death, asks for nothing twice.
    assert work(site_of(repository)) == happened[-1:]
    Forge(hub(repository)).close(2, how)
    Forge(hub(repository)).close(1, "merge")
    # The forge's programs are asked again by the next start; this one asks after a while.
    happened = work(site_of(repository))
    assert [line.split(" as ")[0] for line in happened] == ["landed bt-a.m1", "landed bt-b.m1"]
    landed = {b.id: b.merge.landed for b in Store.open(repository).snapshot() if b.merge and b.outcome == "landed"}
    main = git(hub(repository), "log", "--first-parent", "--format=%H", "main").split()
    assert [landed["bt-a.m1"], landed["bt-b.m1"]] == main[:2]
    assert len(Forge(hub(repository)).requests) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_killed_after_it_was_opened_and_before_that_is_stored_it_is_opened_once(tmp_path: Path) -> None:
    repository = make_proposing(tmp_path, ["a", "b"])
    with attended(repository) as (_, tick):
        until(lambda: [tick(), Forge(hub(repository)).requests][1])
    assert not [b for b in Store.open(repository).snapshot() if opened_as(b)], "it has come to no more"
    work(site_of(repository))
    assert [one["branch"] for one in Forge(hub(repository)).requests] == ["polecat/bt-a", "polecat/bt-b"]


def test_without_its_program_or_unknown_to_it_is_a_clear_stop(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_proposing(tmp_path, ["a"])
    (hub(repository) / "logged-in").unlink()
    with attended(repository) as (refinery, tick):
        until(lambda: [tick(), refinery.halted][1])
        assert refinery.halted.startswith("gh cannot do what is asked: To get started with GitHub CLI")
        assert refinery.remedy == "Try `gh auth status`; `gh auth login` makes you known to it."
        (hub(repository) / "logged-in").touch()
        until(lambda: [tick(), len(Forge(hub(repository)).requests) == 1][1])
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{programs}{os.pathsep}"))
    (programs / "gh").unlink()
    submit(repository, "c", {"parts/c": "ok\n"})
    assert work(site_of(repository))[-1] == "halted: there is no gh to open a request with"


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_one_that_no_longer_merges_comes_back_and_one_that_is_declined_is_told(tmp_path: Path) -> None:
    repository = make_shared(tmp_path, 'mode = "request"\n')
    (hub(repository) / "logged-in").touch()
    submit(repository, "a", {"shared": "mine\n"})
    submit(repository, "b", {"parts/b": "ok\n"})
    work(site_of(repository))
    git(repository, "checkout", "--quiet", "-b", "side", "main")
    commit(repository, {"shared": "theirs\n"}, "Theirs")
    git(repository, "push", "--quiet", "origin", "side:main")
    git(repository, "checkout", "--quiet", "main")
    Forge(hub(repository)).close(2, "decline")
    happened = work(site_of(repository))
    assert happened == [
        "sent bt-a back: it conflicts with main in shared",
        "halted: #2 https://forge.invalid/our/project/2 was closed without being merged",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_nothing_of_somebody_elses_is_pushed_over(tmp_path: Path) -> None:
    repository = make_proposing(tmp_path, ["a", "b"])
    git(repository, "push", "--quiet", "origin", "main:polecat/bt-a", "main:a/refs/heads/polecat/bt-b")
    said = work(site_of(repository))
    theirs = git(repository, "rev-parse", "main")
    assert said[-1] == f"halted: somebody has pushed {theirs[:12]} to polecat/bt-a of origin"
    git(repository, "push", "--quiet", "origin", "--delete", "polecat/bt-a")
    work(site_of(repository))
    assert [one["branch"] for one in Forge(hub(repository)).requests] == ["polecat/bt-a", "polecat/bt-b"]


@pytest.mark.parametrize(
    "url, place",
    [
        ("https://github.com/our/project.git", "github.com/our/project"),
        ("https://kim:secret@github.com/our/project", "github.com/our/project"),
        ("git@github.com:our/project.git", "github.com/our/project"),
        ("ssh://git@gitlab.example.org:2222/group/sub/project.git", "gitlab.example.org/group/sub/project"),
        ("../hub.git", ""),
        ("/srv/hub.git", ""),
        ("file:///srv/hub.git", ""),
    ],
)
def test_the_forges_name_for_a_repository(url: str, place: str) -> None:
    assert place_of(url) == place


def test_what_gitlab_is_asked_and_says() -> None:
    forge = FORGES["gitlab"]
    argv, text = forge.open("gitlab.com/our/project", "polecat/bt-a", "main", "Do a", "Why")
    where = ["--repo", "https://gitlab.com/our/project", "--source-branch", "polecat/bt-a", "--target-branch", "main"]
    assert argv == ["glab", "mr", "create", *where, "--title", "Do a", "--description", "Why", "--yes"]
    assert text == ""
    item = {"iid": 7, "web_url": "https://x/7", "state": "merged", "sha": "b" * 40, "merge_commit_sha": None}
    (seen,) = forge.read(json.dumps([{**item, "squash_commit_sha": "c" * 40}]))
    assert seen == (7, "https://x/7", "merged", "b" * 40, "c" * 40)
    (seen,) = forge.read(json.dumps([{**item, "merge_commit_sha": "d" * 40, "squash_commit_sha": "c" * 40}]))
    assert seen.merged == "d" * 40, "the squashed commit is below that one"
    (seen,) = forge.read(json.dumps([{**item, "state": "opened"}]))
    assert (seen.state, seen.merged) == ("open", "")


def test_what_is_no_list_is_an_error() -> None:
    forge = FORGES["github"]
    assert forge.read("no pull requests match your search in our/project\n") == []
    for text in ("hello", "[{}]", "[1]", '[{"number": '):
        with pytest.raises(Unreadable, match="gh lists what is no list"):
            forge.read(text)


def test_no_text_gets_out_of_its_place(repo: Path) -> None:
    store = Store.init(repo, "test")
    now = store.clock.now().replace(microsecond=0)
    criterion = Criterion(run="echo `date` @kim\n# heading")
    bead = Bead(id="bt-a", title="A", created_at=now, updated_at=now, criteria=(criterion,))
    assert "- `` run: echo `date` @kim # heading ``" in body_of(bead, [bead], bead)
