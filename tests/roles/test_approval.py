"""What only a person may say: approvals, and what is protected, through real towns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beads import Bead, graph
from tests.towns import (
    BEAD,
    SETTINGS,
    TOWN,
    assert_settled,
    make_town,
    molecule,
    pour,
    prepare,
    run,
    sandboxed,
    settings_with,
    snapshot,
)
from tests.world import commit, git

ASKED = '{ approval = "is it loud enough?" }'

# Writes what it is told to the first time, and something else when it is told what is wrong.
AGENT = """\
import sys
from pathlib import Path

prompt = sys.stdin.read()
Path(sys.argv[1]).write_text(prompt)
text = "ok\\nLOUD\\n" if "louder" in prompt else "ok\\nquiet\\n"
Path("parts/voice").write_text(text)
"""


def voice(*criteria: str, limits: str = ASKED) -> str:
    return molecule("voice", "printf 'ok\\n' > parts/voice", *criteria, limits=limits)


def step_of(repository: Path) -> Bead:
    found = [bead for bead in snapshot(repository) if bead.issue_type == "step"]
    return found[-1]


def work(repository: Path) -> str:
    """Let one polecat work until a person has to say something."""
    done = run(repository, "polecat", "run", ok=(7,))
    return done.stdout + done.stderr


def up(repository: Path) -> str:
    done = run(repository, "up", "--until-idle", ok=(0, 7))
    return done.stdout + done.stderr


def test_work_waits_for_an_approval_and_then_lands(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, voice())
    said = up(repository)
    step = step_of(repository)
    assert f"needs a person: {step.parent}: step {step.id} asks for approval: is it loud enough?: 1 files" in said
    assert f"town approve {step.parent}" in said
    assert not step.closed
    # What is asked about can be looked at, and no work tree is kept for it.
    assert git(repository, "diff", "--name-only", f"main...polecat/{step.parent}") == "parts/voice"
    assert list((tmp_path / "worktrees").glob("bt-*")) == []
    asked = step.evidence[-1]
    assert (asked.verdict, asked.tree) == ("asked", git(repository, "rev-parse", f"{asked.commit}^{{tree}}"))
    assert [(a.end, a.number) for a in step.attempts] == [("asked", 1)]
    status = json.loads(run(repository, "status", "--json").stdout)
    assert [(m["state"], m["attempts"]) for m in status["molecules"]] == [("needs_person", 1)]

    run(repository, "approve", str(step.parent), "--reason", "fine by me", "--tree", asked.tree[:8])
    up(repository)
    assert_settled(repository, landed=1)
    step = step_of(repository)
    assert len(step.attempts) == 1
    answer = next(e for e in step.evidence if e.subject.startswith("approval") and e.verdict == "pass")
    assert (answer.by, answer.detail) == ("Test Person <test@example.org>", "fine by me")
    log = git(repository, "log", "--format=%an: %s", "refs/beads/main")
    assert f"Test Person: approve {step.id}: fine by me" in log


def test_what_is_rejected_is_worked_on_with_the_reason_and_asked_again(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    settings = settings_with([sys.executable, str(tmp_path / "agent.py"), str(tmp_path / "prompt")])
    settings = sandboxed(f'write = ["{tmp_path}"]', settings)
    repository = make_town(tmp_path, settings)
    pour(repository, molecule("voice", "", "test -f parts/voice", limits=ASKED))
    work(repository)
    first = step_of(repository).evidence[-1]
    run(repository, "reject", step_of(repository).id, "--reason", "make it louder")
    work(repository)
    assert "make it louder" in (tmp_path / "prompt").read_text()
    step = step_of(repository)
    assert step.evidence[-1].verdict == "asked"
    assert step.evidence[-1].tree != first.tree
    assert graph.failed(step) == []
    # The yes that was meant for the first version says nothing about this one.
    late = run(repository, "approve", step.id, "--tree", first.tree, ok=(4,))
    assert f"not {first.tree}" in late.stderr
    run(repository, "approve", step.id)
    up(repository)
    assert_settled(repository, landed=1)
    assert git(repository, "show", "main:parts/voice") == "ok\nLOUD"


# Asks, or does what it is told; a second time it needs two attempts for that, of which the first one breaks something.
ASKER = """\
import sys
from pathlib import Path

prompt = sys.stdin.read()
told, log, page = Path(sys.argv[1]), Path("parts/log"), Path("parts/page")
told.write_text(prompt)
if "by name" not in prompt:
    page.write_text("ok\\nhow is it sorted?\\n")
elif "backwards" not in prompt:
    page.write_text("ok\\nsorted by name\\nand in which direction?\\n")
elif not told.with_suffix(".2").exists():
    told.with_suffix(".2").write_text(prompt)
    page.write_text("broken\\n")
else:
    page.write_text("ok\\nsorted by name, backwards\\n")
"""


def test_what_is_answered_is_worked_on_with_all_that_was_said_while_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(ASKER)
    settings = settings_with([sys.executable, str(tmp_path / "agent.py"), str(tmp_path / "prompt")])
    repository = make_town(tmp_path, sandboxed(f'write = ["{tmp_path}"]', settings))
    asks = '{ approval = "are all questions answered?" }'
    pour(
        repository,
        molecule("page", "", "grep ^ok parts/page", limits=asks),
        molecule("other", "printf 'ok\\n' > parts/other", agent="command"),
    )
    said = up(repository)
    # The question is in nobody's way.
    assert "ok" in git(repository, "show", "main:parts/other")
    root = next(bead.id for bead in snapshot(repository) if bead.title == "Do page")
    assert f"town answer {root} TEXT" in said
    first = snapshot(repository).need(f"{root}.1").evidence[-1]
    done = run(repository, "answer", root, "by name")
    assert done.stdout.startswith(f"answered {root}.1, tree {first.tree[:12]}: approval: are all questions answered?;")

    work(repository)
    prompt = (tmp_path / "prompt").read_text()
    assert "# What a person has said about your step\nby name\n" in prompt
    step = snapshot(repository).need(f"{root}.1")
    assert step.evidence[-1].verdict == "asked"
    assert step.evidence[-1].tree != first.tree
    assert [attempt.end for attempt in step.attempts] == ["asked", "asked"]

    # An attempt that goes wrong does not make the next one forget what was said, nor what was said before.
    prepare(repository, "answer", root, "backwards")
    work(repository)
    assert "# What a person has said about your step\nby name\n\nbackwards\n" in (tmp_path / "prompt").read_text()
    step = snapshot(repository).need(f"{root}.1")
    assert [attempt.end for attempt in step.attempts] == ["asked", "asked", "unmet", "asked"]
    asked = [e.tree for e in step.evidence if e.verdict == "asked"]
    assert len(asked) == len(set(asked)) == 3
    run(repository, "approve", root)
    up(repository)
    assert_settled(repository, landed=2)
    assert git(repository, "show", "main:parts/page") == "ok\nsorted by name, backwards"
    log = git(repository, "log", "--format=%an: %s", "refs/beads/main")
    assert f"Test Person: answer {root}.1: by name" in log
    assert "reject" not in log


def test_a_command_reads_what_was_answered(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    line = "(echo ok; echo question; cat) > parts/voice.new; mv parts/voice.new parts/voice"
    pour(repository, molecule("voice", line, "test -f parts/voice", limits=ASKED))
    work(repository)
    (root,) = {str(bead.parent) for bead in snapshot(repository) if bead.issue_type == "step"}
    done = subprocess.run(
        [*TOWN, "answer", root, "-"], cwd=repository, input="quite\nloud", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    work(repository)
    assert "is it loud enough?\nquite\nloud" in git(repository, "show", f"polecat/{root}:parts/voice")
    late = run(repository, "answer", root, " ", ok=(5,))
    assert "needs words" in late.stderr


def test_an_answer_that_nothing_is_done_about_uses_up_attempts(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, voice())
    work(repository)
    prepare(repository, "answer", step_of(repository).id, "as loud as can be")
    work(repository)
    step = step_of(repository)
    assert len(graph.failed(step)) == 3
    # Nobody is asked again about what they have answered about.
    assert [e.verdict for e in step.evidence if e.subject.startswith("approval")] == ["asked", "answered"]


def test_a_rejection_that_nothing_is_done_about_uses_up_attempts(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, voice())
    work(repository)
    run(repository, "reject", step_of(repository).id, "--reason", "make it louder")
    said = work(repository)
    step = step_of(repository)
    assert f"step {step.id} did not meet its criteria" in said
    assert [a.reason for a in graph.failed(step)] == ["approval: is it loud enough?: make it louder"] * 3


def test_what_asks_nothing_but_approval_is_worked_on_before_anybody_is_asked(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    only = 'criteria = [{ approval = "is it right?" }]'
    head = '[[molecules]]\nid = "voice"\ntitle = "Do it"\ngoal = "It is done."\n'
    pour(repository, f"{head}run = \"printf 'ok' > parts/voice\"\n{only}\n")
    work(repository)
    assert git(repository, "diff", "--name-only", f"main...polecat/{step_of(repository).parent}") == "parts/voice"
    pour(repository, f"{head}{only}\n".replace('id = "voice"', 'id = "release"'))
    work(repository)
    # A step that is nothing but a question asks it at once, and nobody is there to be told more than yes or no.
    assert "it is a question and nothing else" in run(repository, "answer", step_of(repository).id, "x", ok=(5,)).stderr
    assert step_of(repository).attempts == ()
    assert step_of(repository).evidence[-1].verdict == "asked"


def test_nobody_is_asked_about_what_a_test_says_no_to(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, voice("grep -q LOUD parts/voice"))
    work(repository)
    assert len(graph.failed(step_of(repository))) == 3
    assert all(e.verdict != "asked" for e in step_of(repository).evidence)


@pytest.mark.parametrize("word", ["approve", "reject", "answer", "retry", "close"])
def test_an_agent_cannot_speak_for_a_person(tmp_path: Path, word: str) -> None:
    reason = {"retry": "", "answer": " fine"}.get(word, " --reason=fine")
    force = " --force" if word == "close" else ""
    program = "bead" if word == "close" else "town"
    (tmp_path / "agent.py").write_text(
        f"""\
import os, subprocess, sys
from pathlib import Path

Path("parts/voice").write_text("ok\\n")
step = os.environ["BEADTOWN_BEAD"] + ".1"
command = [sys.executable, "-P", "-c", "from cli.main import {program}; {program}()", "{word}", step]
done = subprocess.run([*command, *"{reason}{force}".split()], capture_output=True, text=True, check=False)
Path(sys.argv[1]).write_text(f"{{done.returncode}} {{done.stderr}}")
"""
    )
    said = tmp_path / "said"
    settings = settings_with([sys.executable, str(tmp_path / "agent.py"), str(said)])
    # The sandbox would not let it get that far.
    repository = make_town(tmp_path, sandboxed('kind = "none"', settings))
    pour(repository, molecule("voice", "", "test -f parts/voice", limits=ASKED))
    work(repository)
    assert said.read_text().startswith("5 error: only a person can")
    assert step_of(repository).evidence[-1].verdict == "asked"


def test_a_molecule_that_waits_for_a_person_can_be_given_up(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, voice())
    work(repository)
    root = str(step_of(repository).parent)
    run(repository, "close", root, "--outcome", "rejected", "--reason", "no", program=BEAD)
    up(repository)
    assert git(repository, "for-each-ref", "--format=%(refname)", "refs/heads").split() == ["refs/heads/main"]
    late = run(repository, "approve", root, ok=(5,))
    assert f"nothing is asked about {root}.1" in late.stderr


# ── What is protected ────────────────────────────────────────────────────────────────────────────────────────

PROTECTED = SETTINGS.replace("timeout = 20", 'timeout = 20\nprotected = ["check.sh", "tests/**"]')
WEAKEN = "printf 'ok\\n' > parts/voice; echo 'exit 0' > check.sh"


def test_a_change_to_protected_paths_is_refused_and_names_them(tmp_path: Path) -> None:
    repository = make_town(tmp_path, PROTECTED)
    pour(repository, molecule("voice", WEAKEN))
    work(repository)
    step = step_of(repository)
    assert not step.closed
    reasons = {attempt.reason for attempt in step.attempts}
    assert reasons == {"protected paths: changes check.sh, and no criterion asks a person to approve of that"}
    assert step.evidence[-1].output == "check.sh"


def test_with_an_approval_it_is_a_person_who_decides(tmp_path: Path) -> None:
    repository = make_town(tmp_path, PROTECTED)
    pour(repository, molecule("voice", WEAKEN, limits=ASKED))
    work(repository)
    asked = step_of(repository).evidence[-1]
    assert asked.detail == "2 files, 7 lines changed; protected: check.sh"
    assert asked.output == "check.sh (+1 -5), protected\nparts/voice (+1 -0)"
    run(repository, "approve", step_of(repository).id)
    up(repository)
    assert_settled(repository, landed=1)
    assert git(repository, "show", "main:check.sh") == "exit 0"


def test_what_was_approved_of_in_one_step_is_not_asked_about_in_the_next(tmp_path: Path) -> None:
    repository = make_town(tmp_path, PROTECTED)
    step = '\n  [[molecules.steps]]\n  id = "{0}"\n  title = "{0}"\n  run = "{1}"\n  criteria = [{2}]\n'
    head = '[[molecules]]\nid = "two"\ntitle = "Two"\ngoal = "Both."\n'
    first = step.format("first", "echo 'exit 0' > check.sh", '{ run = "grep -q exit check.sh" }, ' + ASKED)
    second = step.format("second", "echo ok > parts/voice", '{ run = "test -f parts/voice" }')
    pour(repository, head + first + second)
    work(repository)
    run(repository, "approve", str(step_of(repository).parent))
    up(repository)
    assert_settled(repository, landed=1)


@pytest.mark.parametrize("settings", [SETTINGS, PROTECTED])
def test_the_settings_themselves_are_protected_whether_they_are_listed_or_not(tmp_path: Path, settings: str) -> None:
    repository = make_town(tmp_path, settings)
    pour(repository, molecule("voice", "echo ok > parts/voice; echo '# mine' >> town.toml"))
    work(repository)
    assert "town.toml" in step_of(repository).attempts[-1].reason


def test_a_head_with_protected_changes_that_nobody_saw_does_not_land(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    pour(repository, molecule("voice", "echo ok > parts/voice; echo '# weaker' >> check.sh"))
    # Not protected yet when it is worked on, and submitted.
    run(repository, "polecat", "run")
    commit(repository, {"town.toml": PROTECTED}, "Protect the gate")
    said = up(repository)
    step = step_of(repository)
    root = str(step.parent)
    assert f"sent {root} back: it changes check.sh, which is protected, and nobody has approved of that" in said
    assert f"step {step.id} asks for approval: the changes to check.sh" in said
    assert "weaker" not in git(repository, "show", "main:check.sh")
    run(repository, "approve", root)
    up(repository)
    assert_settled(repository, landed=1)
    assert "weaker" in git(repository, "show", "main:check.sh")
