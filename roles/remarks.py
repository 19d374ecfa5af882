"""What a rehearsal found of the criteria of a plan: what the end of a command says, and that in words. Pure.

Who reads it is a person, or the model that wrote the plan. What commands printed is for the person alone: a plan could
have them print what is not the model's to see.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from beads.lines import Place
from beads.model import Criterion
from refinery.gate import judge
from refinery.processes import Exit

OUTPUT_MAX = 2000
"""Characters of a command's output that are kept, from its end."""

Kind = Literal["holds", "fails", "cannot_run", "no_tests", "timeout", "not_tried", "holds_already"]
"""What was found of a criterion: it ``holds`` already; it ``fails``, as it should; it ``cannot_run``, as there is no
such program, or was killed by a signal; a test runner found ``no_tests``; it was stopped by a ``timeout``; it was
``not_tried``. Of a step: all that it is to prove ``holds_already``."""


@dataclass(frozen=True)
class Remark:
    """What was found of one criterion of a plan, or of a whole step.

    Attributes:
        molecule: the molecule's name in the plan.
        step: the step's.
        place: where the criterion, or the step, is in the plan's document.
        criterion: the criterion; None when it is about the step.
        kind: what was found.
        detail: how, in a few words of ours.
        missing: paths that the command names, and that are not there: something has to write them.
        output: the end of what the command printed; what a plan says may have made it print anything.
        wrong: whether the plan should be mended, as far as can be told.
    """

    molecule: str
    step: str
    place: Place
    criterion: Criterion | None
    kind: Kind
    detail: str
    missing: tuple[str, ...] = ()
    output: str = ""
    wrong: bool = False


LATER = {
    "diff": "only what was done has changes to look at",
    "review": "only what was done can be reviewed",
    "approval": "a person is asked when the rest holds",
}
"""Why criteria of these kinds are not tried."""


class Look(NamedTuple):
    """What one look at a criterion gave, wherever in the plan it stands; see :class:`Remark`."""

    kind: Kind
    detail: str
    missing: tuple[str, ...] = ()
    output: str = ""
    wrong: bool = False


# ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────

_NO_MODULE = re.compile(r"(?m)^\S*python[\d.]*: No module named ([\w.]+)$")
_NOT_THERE = re.compile(r"not found|[Nn]o such file|[Cc]annot (?:find|open)|can't open|does not exist|no match")
_CHOOSES = re.compile(r"\s(?:-k|-t|-g|-run|--grep|--test-name-pattern)(?:[\s=]|$)")


def judged(criterion: Criterion, exit: Exit, there: Callable[[str], bool], each: float) -> Look:
    """What the end of a command says about its criterion.

    Args:
        criterion: the criterion.
        exit: how its command ended.
        there: whether a path is in the work tree.
        each: seconds that it was given at most.
    """
    verdict, detail = judge(exit, criterion.run, criterion.exit)
    output = exit.output[-OUTPUT_MAX:]
    if verdict == "pass":
        return Look("holds", detail)
    if exit.kind == "timeout":
        # One that may take longer than we wait may be right all the same.
        return Look("timeout", detail, (), output, criterion.timeout <= each)
    if exit.kind != "exited":
        missing = _missing(criterion.run, exit.output, there, bare=False)
        return Look("cannot_run", detail, missing, output, not missing)
    if verdict == "error":
        missing = _missing(criterion.run, exit.output, there, bare=True)
        return Look("no_tests", detail, missing, output, not (missing or _CHOOSES.search(criterion.run)))
    if lacks := _NO_MODULE.search(exit.output):
        return Look("cannot_run", f"Python has no module {lacks[1]}", (), output, True)
    return Look("fails", detail, (), output)


def _missing(line: str, output: str, there: Callable[[str], bool], *, bare: bool) -> tuple[str, ...]:
    """What a command names, and says itself that it is not there: files, or tests in them as pytest names them.

    With ``bare``, a plain word may be such a name, and not only what looks like a path.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        words = line.split()
    named = (word.removeprefix("./").strip("();&|") for word in words if not word.startswith(("-", "/")))
    complaints = [said for said in output.splitlines() if _NOT_THERE.search(said)]
    found = (word for word in named if word and (bare or "/" in word or "." in word) and ".." not in word.split("/"))
    return tuple(dict.fromkeys(word for word in found if _misses(word, complaints, there)))


def _misses(word: str, complaints: Sequence[str], there: Callable[[str], bool]) -> bool:
    path, colons, _ = word.partition("::")
    name = re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])")
    return any(name.search(said) for said in complaints) and (bool(colons) or not there(path))


# ── Saying ───────────────────────────────────────────────────────────────────────────────────────────────────

_REMEDIES: dict[Kind, str] = {
    "cannot_run": "Name a command that can be run here.",
    "no_tests": "Name tests that are there, or have the plan write them.",
    "timeout": "Name something that is quicker.",
    "holds_already": "Give the step a criterion that does not hold before the work is done.",
}


def problems(remarks: Sequence[Remark]) -> tuple[str, ...]:
    """What is wrong with a plan, a line for each, for the model that wrote it.

    What commands printed is not in it: a plan could have them print what is not the model's to see.
    """
    return tuple(f"{_where(remark)}: {_found(remark)}. {_REMEDIES[remark.kind]}" for remark in remarks if remark.wrong)


def in_words(remarks: Sequence[Remark]) -> str:
    """What was found, for a person: how many criteria fail as they should, and each that does not.

    What the plan should be mended for begins with ``!``.
    """
    about = [remark for remark in remarks if remark.criterion and remark.criterion.kind not in LATER]
    tried = [remark for remark in about if remark.kind != "not_tried"]
    good = sum(remark.kind == "fails" or bool(remark.missing and not remark.wrong) for remark in tried)
    lines = [f"{_criteria(len(tried))} tried on main: {good} not met yet, as it should be"] if tried else []
    for reason, number in Counter(remark.detail for remark in about if remark.kind == "not_tried").items():
        lines.append(f"{_criteria(number)} not tried: {plain(reason, 500)}")
    for remark in remarks:
        if remark.kind not in ("fails", "not_tried"):
            lines.append(f"{'!' if remark.wrong else '-'} {_where(remark)}: {_found(remark)}")
            last = next((line for line in reversed(remark.output.splitlines()) if line.strip()), "")
            lines += [f"    {plain(last, 200)}"] if last and remark.kind != "holds" and not remark.missing else []
    return "\n".join(lines)


def _where(remark: Remark) -> str:
    name = remark.molecule if remark.molecule == remark.step else f"{remark.molecule}/{remark.step}"
    return f"{name}: {plain(str(remark.criterion))}" if remark.criterion else name


def _found(remark: Remark) -> str:
    said = {"cannot_run": "cannot be tried", "no_tests": "has nothing to run", "timeout": "took too long"}
    words = f"{said[remark.kind]}: {remark.detail}" if remark.kind in said else remark.detail
    if remark.kind == "holds":
        words = "holds on main already, and proves nothing by itself"
    if remark.missing:
        named = plain(", ".join(remark.missing))
        words += f"; {named} is not there, and this step or one before it has to make it"
    return words


def _criteria(number: int) -> str:
    return "1 criterion" if number == 1 else f"{number} criteria"


def plain(text: str, most: int = 120) -> str:
    """Text that may be anything, on one line of a terminal, and not longer than so many characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
