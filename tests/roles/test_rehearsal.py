"""Plans are tried on main: real commands in real work trees, contained where that is possible, and nothing left."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from beads.model import Criterion
from beads.plan import Plan, read_plan
from cli.config import open_site, this_host
from refinery.containment import Trial, trials
from refinery.processes import Exit, Kind
from roles import witness
from roles.rehearsal import Bounds, rehearse
from roles.remarks import Remark, in_words, judged, problems
from roles.site import Site
from tests.towns import SETTINGS, UNCONTAINED, assert_nothing_left, make_town, prepare, processes, sandboxed, until
from tests.world import commit, git

contained = pytest.mark.skipif(
    all(trial.reason for trial in trials(this_host())), reason="nothing can contain anything here"
)

QUICK = Bounds(each=20.0, all=60.0)


def plan(*steps: str, more: str = "") -> Plan:
    """A plan of one molecule with these lists of criteria, one for each step."""
    tables = (f"{{ id = 's{n}', title = 't', criteria = [{step}] }}" for n, step in enumerate(steps, start=1))
    text = f"plan = 'p'\n[[molecules]]\nid = 'm'\ntitle = 't'\ngoal = 'g'\n{more}\nsteps = [{', '.join(tables)}]\n"
    return read_plan(text.encode(), "plan.toml")


def run(line: str, more: str = "") -> str:
    return f"{{ run = {json.dumps(line)}{more} }}"


def site_of(path: Path, settings: str = SETTINGS) -> Site:
    return open_site(make_town(path, settings))


def kinds(remarks: Sequence[Remark]) -> list[str]:
    return [remark.kind for remark in remarks if remark.criterion]


def only(remarks: Sequence[Remark]) -> Remark:
    """The one that is about a criterion."""
    (remark,) = (remark for remark in remarks if remark.criterion)
    return remark


# ── What is found ────────────────────────────────────────────────────────────────────────────────────────────


@contained
def test_each_kind_of_finding(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    wanted = plan(
        run("test -f check.sh"),
        run("test -f parts/new"),
        run("pytst -q"),
        run("./tools/new.sh --check"),
        run("python3 -m pytest -q tests/test_new.py"),
        run("python3 -m nosuchrunner"),
        run("sleep 100", ", timeout = 0.3"),
        run("kill -9 $$"),
        "{ file = 'check.sh', matches = '^test' }",
        "{ file = 'check.sh', absent = true }",
        f"{run('false')}, {{ diff = ['**'] }}, {{ review = 'Good?' }}, {{ approval = 'Good?' }}",
    )
    found = rehearse(site, wanted, bounds=QUICK)
    assert [(remark.step, remark.kind, remark.wrong) for remark in found] == [
        ("s1", "holds", False),
        ("s1", "holds_already", True),
        ("s2", "fails", False),
        ("s3", "cannot_run", True),
        ("s4", "cannot_run", False),
        ("s5", "no_tests", False),
        ("s6", "cannot_run", True),
        ("s7", "timeout", True),
        ("s8", "cannot_run", True),
        ("s9", "holds", False),
        ("s9", "holds_already", False),
        ("s10", "fails", False),
        ("s11", "fails", False),
        ("s11", "not_tried", False),
        ("s11", "not_tried", False),
        ("s11", "not_tried", False),
    ]
    assert [remark.missing for remark in found if remark.missing] == [("tools/new.sh",), ("tests/test_new.py",)]
    assert found[3].place == ("molecules", 0, "steps", 2, "criteria", 0)
    words = in_words(found)
    assert words.splitlines()[0] == "11 criteria tried on main: 5 not met yet, as it should be"
    assert "! m/s3: run: pytst -q: cannot be tried: could not be run (exit 127)" in words
    assert "- m/s4: run: ./tools/new.sh --check: cannot be tried: could not be run (exit 127); tools/new.sh" in words
    assert [line.split(":")[0] for line in problems(found)] == ["m/s1", "m/s3", "m/s6", "m/s7", "m/s8"]
    assert_nothing_left(site.git.directory)


@contained
def test_one_command_is_run_once_and_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = plan(
        run("touch parts/left; test ! -e parts/first"),
        run("test -e parts/left"),
        run("test -e parts/left"),
        run("test -e parts/left", ", exit = 1"),
        run("rm parts/first; false"),
        run("test -e parts/first"),
    )
    found = rehearse(site_of(tmp_path), wanted, bounds=QUICK, tell=said.append)
    assert kinds(found) == ["fails", "fails", "fails", "holds", "fails", "holds"]
    assert [line for line in said if line.startswith("trying")] == [
        "trying 1 of 5: touch parts/left; test ! -e parts/first",
        "trying 2 of 5: test -e parts/left",
        "trying 3 of 5: test -e parts/left",
        "trying 4 of 5: rm parts/first; false",
        "trying 5 of 5: test -e parts/first",
    ]


@contained
def test_main_as_it_is_committed_is_what_counts(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    (site.git.directory / "parts/uncommitted").write_text("ok\n")
    assert kinds(rehearse(site, plan(run("test -e parts/uncommitted")))) == ["fails"]
    commit(site.git.directory, {}, "Add a part")
    assert kinds(rehearse(site, plan(run("test -e parts/uncommitted")))) == ["holds"]


@contained
def test_a_step_that_has_nothing_to_prove(tmp_path: Path) -> None:
    limits = f"{run('true')}, {{ diff = ['parts/**'] }}"
    asked = f"{run('true')}, {{ approval = 'Is it good?' }}"
    found = rehearse(site_of(tmp_path), plan(limits, asked, run("true")), bounds=QUICK)
    flagged = [(remark.step, remark.wrong) for remark in found if remark.kind == "holds_already"]
    assert flagged == [("s1", True), ("s3", False)]
    assert "it would close with nothing done" in problems(found)[0]


@contained
@pytest.mark.parametrize(
    "touches, wrong", [("", False), ("touches = ['tests']", False), ("touches = ['src/**']", True)]
)
def test_what_is_not_there_and_what_the_plan_touches(tmp_path: Path, touches: str, wrong: bool) -> None:
    found = rehearse(site_of(tmp_path), plan(run("python3 -m pytest -q tests/test_a.py::test_b"), more=touches))
    remark = only(found)
    assert (remark.kind, remark.missing, remark.wrong) == ("no_tests", ("tests/test_a.py::test_b",), wrong)


# ── What it may do ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trusted", [False, True])
def test_without_a_sandbox_only_a_persons_own_plan_is_tried(tmp_path: Path, trusted: bool) -> None:
    site, ran = site_of(tmp_path, UNCONTAINED), tmp_path / "ran"
    wanted = plan(run(f"touch {ran}"), "{ file = 'check.sh', matches = 'set' }")
    found = rehearse(site, wanted, trusted=trusted, bounds=QUICK)
    assert kinds(found) == (["holds", "holds"] if trusted else ["not_tried", "holds"])
    assert ran.exists() is trusted
    if not trusted:
        assert "1 criterion not tried: there is no sandbox" in in_words(found)
    assert_nothing_left(site.git.directory)


@contained
def test_in_a_sandbox_it_reaches_nothing(tmp_path: Path) -> None:
    site, ran = site_of(tmp_path), tmp_path / "ran"
    reach = f"touch {ran}; git update-ref refs/heads/mine HEAD; touch {site.git.directory}/mine"
    rehearse(site, plan(run(reach)), bounds=QUICK)
    assert not ran.exists()
    assert not (site.git.directory / "mine").exists()
    assert_nothing_left(site.git.directory)


@contained
@pytest.mark.parametrize("network", [False, True])
def test_the_network_is_had_by_permission_only(tmp_path: Path, network: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        site = site_of(tmp_path, sandboxed(f"network = {str(network).lower()}"))
        found = rehearse(site, plan(run(f'python3 -c "{line}"')), bounds=QUICK)
    assert kinds(found) == ["holds" if network else "fails"]


@contained
@pytest.mark.parametrize("trusted", [False, True])
def test_what_is_copied_in_is_not_for_a_models_commands(tmp_path: Path, trusted: bool) -> None:
    copying = SETTINGS.replace('root = "../worktrees"', 'root = "../worktrees"\ncopy = [".env"]')
    repository = make_town(tmp_path, copying)
    commit(repository, {".gitignore": ".env\n"}, "Ignore it")
    (repository / ".env").write_text("KEY=secret\n")
    found = rehearse(open_site(repository), plan(run("grep KEY .env")), trusted=trusted, bounds=QUICK)
    assert kinds(found) == ["holds" if trusted else "fails"]


@contained
def test_nothing_is_tried_in_a_work_tree_that_cannot_be_set_up(tmp_path: Path) -> None:
    failing = SETTINGS.replace('root = "../worktrees"', 'root = "../worktrees"\nsetup = "exit 3"')
    found = rehearse(site_of(tmp_path, failing), plan(run("true"), "{ file = 'check.sh' }"), bounds=QUICK)
    assert kinds(found) == ["not_tried", "holds"]
    assert "cannot be made ready: [worktree] setup: exit 3: exit 3" in in_words(found)


@contained
def test_it_is_set_up_as_for_a_polecat(tmp_path: Path) -> None:
    made = SETTINGS.replace(
        'root = "../worktrees"', 'root = "../worktrees"\nsetup = "touch made"\nready = "test -e made"'
    )
    said: list[str] = []
    found = rehearse(
        site_of(tmp_path, made), plan(run("test -e made"), run("test -e made && rm made")), tell=said.append
    )
    assert kinds(found) == ["holds", "holds"]
    assert said[:2] == ["making a work tree of main", "setting the work tree up"]


@contained
def test_what_was_printed_is_for_the_person_alone(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    commit(repository, {"words": "\033[31mfor your eyes\n"}, "Add words")
    found = rehearse(open_site(repository), plan(run("cat words; exit 127")), bounds=QUICK)
    assert only(found).wrong
    assert "eyes" not in "".join(problems(found))
    assert in_words(found).splitlines()[-1] == r"    \x1b[31mfor your eyes"


@pytest.mark.parametrize("trial", trials(this_host()), ids=lambda trial: trial.kind)
def test_no_kind_of_sandbox_leaves_anything(tmp_path: Path, trial: Trial) -> None:
    if trial.reason:
        pytest.skip(trial.reason)
    site = site_of(tmp_path, sandboxed(f'kind = "{trial.kind}"'))
    assert kinds(rehearse(site, plan(run("echo x > $TMPDIR/x; false"), run("true")), bounds=QUICK)) == [
        "fails",
        "holds",
    ]
    private = site.sandbox.scratch("any").parent
    assert not private.exists() or not list(private.iterdir())
    assert not list((site.store.directory / "rooms").iterdir())
    assert_nothing_left(site.git.directory)


# ── Bounds ───────────────────────────────────────────────────────────────────────────────────────────────────


@contained
def test_a_command_that_may_take_longer_than_it_is_given_is_not_wrong(tmp_path: Path) -> None:
    wanted = plan(run("echo begun; sleep 100"), run("test -e nothing"))
    found = rehearse(site_of(tmp_path), wanted, bounds=Bounds(each=0.3, all=30.0))
    assert kinds(found) == ["timeout", "fails"]
    assert not problems(found)


@contained
def test_what_there_is_no_time_for_is_not_tried(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    found = rehearse(site, plan(run("false"), run("sleep 100"), run("true")), bounds=Bounds(each=60.0, all=3.0))
    assert kinds(found) == ["fails", "not_tried", "not_tried"]
    assert "2 criteria not tried: there was no time left of 3 s for all of it" in in_words(found)
    assert_nothing_left(site.git.directory)


@contained
def test_it_can_be_stopped_at_any_time(tmp_path: Path) -> None:
    said: list[str] = []
    site = site_of(tmp_path)
    wanted = plan(run("false"), run("sleep 100"), run("true"))
    found = rehearse(site, wanted, stopping=lambda: any("2 of 3" in line for line in said), tell=said.append)
    assert kinds(found) == ["fails", "not_tried", "not_tried"]
    assert_nothing_left(site.git.directory)
    assert kinds(rehearse(site, wanted, stopping=lambda: True)) == ["not_tried"] * 3


def test_an_expression_without_end_is_stopped(tmp_path: Path) -> None:
    repository = make_town(tmp_path, UNCONTAINED)
    commit(repository, {"text": "a" * 64 + "b\n"}, "Add a text")
    wanted = plan("{ file = 'text', matches = '^(a+)+$' }", "{ file = 'text', matches = 'b$' }")
    found = rehearse(open_site(repository), wanted, bounds=Bounds(each=0.5, all=30.0))
    assert kinds(found) == ["timeout", "holds"]
    assert "(a+)+" in problems(found)[0]


def test_a_path_that_cannot_be_is_not_there(tmp_path: Path) -> None:
    found = rehearse(site_of(tmp_path, UNCONTAINED), plan(f"{{ file = '{'x' * 5000}' }}"))
    assert kinds(found) == ["cannot_run"]
    assert len(in_words(found)) < 1000


@contained
def test_where_no_work_tree_can_be_made_nothing_is_tried(tmp_path: Path) -> None:
    site = site_of(tmp_path, SETTINGS.replace("../worktrees", "check.sh"))
    found = rehearse(site, plan(run("true"), "{ file = 'check.sh' }"), bounds=QUICK)
    assert kinds(found) == ["not_tried", "not_tried"]
    assert "2 criteria not tried: there is no work tree of main to try it in" in in_words(found)


@contained
def test_what_cannot_be_cleared_away_is_not_gone_on_with(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    mess = "for n in $(seq 40); do mkdir inner && cd inner && git init -q . && echo x > x; done; false"
    found = rehearse(site, plan(run(mess), run("true")), bounds=QUICK)
    assert kinds(found) == ["fails", "not_tried"]
    assert "more than 16 repositories, each inside the other" in in_words(found)
    assert_nothing_left(site.git.directory)


# ── Kills, and company ───────────────────────────────────────────────────────────────────────────────────────

REHEARSER = """\
import sys
from pathlib import Path
from cli.config import open_site
from beads.plan import read_plan
from roles.rehearsal import rehearse
plan = read_plan(Path(sys.argv[2]).read_bytes(), "plan.toml")
rehearse(open_site(Path(sys.argv[1])), plan, tell=lambda line: print(line, flush=True))
"""


@contained
@pytest.mark.parametrize("by", ["witness", "another"])
@pytest.mark.parametrize("moment", ["making", "trying 1", "trying 2"])
def test_who_is_killed_leaves_nothing_for_long(tmp_path: Path, moment: str, by: str) -> None:
    repository = make_town(tmp_path)
    path = tmp_path / "plan.toml"
    path.write_text(
        "plan = 'p'\n[[molecules]]\nid = 'm'\ntitle = 't'\ngoal = 'g'\n"
        "criteria = [{ run = 'touch parts/left; false' }, { run = 'touch parts/left; sleep 1000' }]\n"
    )
    command = [sys.executable, "-c", REHEARSER, str(repository), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith(moment))
        if moment == "making":
            until(lambda: list((repository / ".git/beads/workers").glob("_rehearsal-*")))
        if moment == "trying 2":
            until(lambda: any("sleep 1000" in line for line in processes(repository)))
        process.kill()
    site = open_site(repository)
    if by == "witness":
        assert witness.tick(site) == ["cleared away after _rehearsal-1"]
    else:
        assert kinds(rehearse(site, plan(run("test -e parts/left")), bounds=QUICK)) == ["fails"]
    assert_nothing_left(repository)


@contained
def test_the_witness_leaves_the_living_alone(tmp_path: Path) -> None:
    site, ticks = site_of(tmp_path), []
    wanted = plan(run("test -e parts/first"), run("false"))
    found = rehearse(site, wanted, bounds=QUICK, tell=lambda _: ticks.append(witness.tick(site)))
    assert ticks == [[]] * 3
    assert kinds(found) == ["holds", "fails"]


@contained
def test_two_at_once_have_work_trees_of_their_own(tmp_path: Path) -> None:
    site, inner, there = site_of(tmp_path), [], []

    def tell(line: str) -> None:
        if line.startswith("trying"):
            there.append(sorted(path.name for path in site.workshop.root.glob("[!.]*")))

    def outer(line: str) -> None:
        if line.startswith("trying"):
            inner.append(kinds(rehearse(site, plan(run("touch parts/left")), bounds=QUICK, tell=tell)))

    found = rehearse(site, plan(run("test -e parts/left")), bounds=QUICK, tell=outer)
    assert (kinds(found), inner, there) == (["fails"], [["holds"]], [["_rehearsal-1", "_rehearsal-2"]])
    assert_nothing_left(site.git.directory)


@contained
def test_a_town_works_beside_it(tmp_path: Path) -> None:
    # A rehearsal is nobody's molecule: a branch is not blocked by it, and main may move meanwhile.
    site = site_of(tmp_path)

    def tell(line: str) -> None:
        if line.startswith("trying 1"):
            commit(site.git.directory, {"parts/second": "ok\n"}, "Move main")
            prepare(site.git.directory, "witness", "tick")

    assert kinds(rehearse(site, plan(run("test -e parts/second")), bounds=QUICK, tell=tell)) == ["fails"]
    assert git(site.git.directory, "status", "--porcelain") == ""


# ── What the end of a command says ───────────────────────────────────────────────────────────────────────────


def ended(output: str, code: int | None = 1, kind: Kind = "exited") -> Exit:
    return Exit(kind, code, None, 1.0, output, len(output), "sha256:0", Path("log"))


@pytest.mark.parametrize(
    "line, output, code, expected",
    [
        ("pytest -q test/", "ERROR: file or directory not found: test/\n\nno tests ran in 0.00s\n", 4, ("test/",)),
        ("pytest test", "ERROR: file or directory not found: test\n\nno tests ran in 0.00s\n", 4, ("test",)),
        ("pytest tests", "no tests ran in 0.00s\n", 5, None),
        ("pytest -k new tests", "no tests ran in 0.00s\n", 5, ()),
        ("python -m unittest", "\nRan 0 tests in 0.000s\n\nOK\n", 0, None),
        ("go test -run TestNew ./...", "ok  \tm\t0.1s [no tests to run]\n", 0, ()),
        ("npx jest src/a.test.js", "No tests found, exiting with code 1\n", 1, None),
        (
            "pytest 'unclosed",
            "ERROR: file or directory not found: 'unclosed\nno tests ran in 0.00s\n",
            4,
            ("'unclosed",),
        ),
    ],
)
def test_no_tests(line: str, output: str, code: int, expected: tuple[str, ...] | None) -> None:
    look = judged(Criterion(run=line), ended(output, code), lambda path: path == "tests", 60.0)
    assert look.kind == "no_tests"
    assert (look.missing, look.wrong) == ((), True) if expected is None else (expected, False)


@pytest.mark.parametrize(
    "line, output, missing",
    [
        ("pytst -q", "sh: 1: pytst: not found", ()),
        ("tools/a.sh", "sh: 1: tools/a.sh: not found", ("tools/a.sh",)),
        ("./a.sh", "sh: line 1: ./a.sh: No such file or directory", ("a.sh",)),
        ("/usr/bin/nothing", "sh: 1: /usr/bin/nothing: not found", ()),
        ("../a.sh", "sh: 1: ../a.sh: not found", ()),
        ("make there.sh", "sh: 1: there.sh: not found", ()),
    ],
)
def test_what_cannot_be_run(line: str, output: str, missing: tuple[str, ...]) -> None:
    look = judged(Criterion(run=line), ended(output, 127, "unrunnable"), lambda path: path == "there.sh", 60.0)
    assert (look.kind, look.missing, look.wrong) == ("cannot_run", missing, not missing)
