"""A feature that is specified before it is built: all phases of it, by commands in a real town."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.beads.specs import CONSTITUTION, FILES, NAME, SPEC
from tests.towns import assert_settled, make_town, prepare, run, snapshot
from tests.world import commit, git

ASKS = SPEC.replace("by name.", "[NEEDS CLARIFICATION: by name or by date?]").partition("## Clarifications")[0]

# Writes what a phase leaves. What is open is asked, and what was answered is written down.
PHASE = """\
import json, sys
from pathlib import Path

phase, said = sys.argv[1], sys.stdin.read()
phases = json.loads(Path("tools/phases.json").read_text())
for path, text in phases[f"{phase}, answered" if "by name" in said else phase].items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
"""


@pytest.mark.slow  # docs/spec-first.md has the same way, which is run with the documents.
def test_a_feature_is_specified_asked_about_planned_and_built(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    open_ = {"spec.md": ASKS + "## Clarifications\n\n## Assumptions\n"}
    left = {**FILES, "specify": {"spec.md": ASKS}, "clarify": open_, "clarify, answered": FILES["clarify"]}
    phases = {name: {f"specs/{NAME}/{path}": text for path, text in files.items()} for name, files in left.items()}
    phases["constitution"] = {".specify/memory/constitution.md": CONSTITUTION}
    commit(repository, {"tools/phase.py": PHASE, "tools/phases.json": json.dumps(phases)}, "Phases")
    line = ["--run", "python3 tools/phase.py {{id}}"]

    # Two at once, of which one waits for a person.
    prepare(repository, "mayor", "--plan", "constitution", "--var", "principles=Nothing but Python.", *line, "--yes")
    given = ["--var", f"name={NAME}", "--var", "feature=Photos in albums."]
    shown = run(repository, "mayor", "--plan", "spec", *given, *line, "--yes").stdout
    assert "done when: approval: Is specs/001-photo-albums/spec.md what you want?" in shown

    waits = run(repository, "up", "--until-idle", ok=(7,))
    assert "asks for approval: Is specs/001-photo-albums/spec.md what you want?" in waits.stderr
    root = next(bead.id for bead in snapshot(repository) if bead.title == f"Specify {NAME}")
    asked = git(repository, "show", f"polecat/{root}:specs/{NAME}/spec.md")
    assert "[NEEDS CLARIFICATION: by name or by date?]" in asked
    assert git(repository, "show", "main:.specify/memory/constitution.md") == CONSTITUTION.strip()
    prepare(repository, "answer", root, "1: by name")
    run(repository, "up", "--until-idle", ok=(7,))
    answered = git(repository, "show", f"polecat/{root}:specs/{NAME}/spec.md")
    assert "- Q: How are albums sorted? → A: By name." in answered
    prepare(repository, "approve", root)
    run(repository, "up", "--until-idle")
    assert_settled(repository, landed=2)
    steps = [bead for bead in snapshot(repository) if bead.parent == root and bead.issue_type == "step"]
    # What was settled with the answer needed nobody any more.
    assert [len(step.attempts) for step in steps] == [1, 2, 0, 1, 1, 1, 1]
    assert all(attempt.end != "unmet" for step in steps for attempt in step.attempts)
    changed = git(repository, "diff", "--name-only", "main~2", "main", "--", ":!.specify").split()
    assert sorted(changed) == sorted({f"specs/{NAME}/{path}" for files in FILES.values() for path in files})
