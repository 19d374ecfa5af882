"""Evaluate acceptance criteria and make evidence: the code decides what is done, never the worker (I3)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from beads.clock import Clock
from beads.model import Bead, Criterion, Evidence, milliseconds
from beads.proof import answer
from refinery.changes import changed, lines_of, named, outside, sizes, unapproved
from refinery.failures import trimmed
from refinery.gate import judge
from refinery.git import Git
from refinery.processes import THIS_MACHINE, Exit, Job, Machine, shell
from refinery.redaction import NO_SECRETS, Redacted, Secrets
from roles.logs import keep

_READ_MAX = 1 << 20
_OUTPUT_MAX = 2000
_PATHS_MAX = 200


@dataclass(frozen=True)
class Bench:
    """Where criteria are evaluated: a directory whose content is ``tree``, and how processes run there.

    ``around`` makes a fresh sandbox for each of them. ``base`` is the commit of main that the branch left it at, and
    ``git`` is Git in the repository. ``protected`` are the patterns of what needs an approval, and ``approved`` the
    trees that have one. ``wait`` waits for a job, and may raise when the worker is asked to stop. ``review`` asks a
    reviewer. ``secrets`` must not be in what is found, and ``redacted`` were taken out of the files. Processes run on
    ``machine``.
    """

    directory: Path
    tree: str
    base: str
    git: Git
    environ: Mapping[str, str]
    around: Callable[[], Sequence[str]]
    logs: Path
    marker: str
    clock: Clock
    by: str
    wait: Callable[[Job], Exit]
    review: Callable[[Criterion], Finding]
    protected: Sequence[str] = ()
    approved: Sequence[str] = ()
    secrets: Secrets = NO_SECRETS
    redacted: Sequence[Redacted] = ()
    machine: Machine = THIS_MACHINE


class Finding(NamedTuple):
    """What looking at one criterion gave; the fields are those of the evidence it becomes."""

    verdict: Literal["pass", "fail", "error", "asked"]
    detail: str
    seconds: float = 0.0
    output: str = ""
    digest: str = ""
    cost: float | None = None
    exit: int | None = None
    model: str = ""


# A person is asked last, and only about what nothing else is to be said against.
_TURNS = {"review": 1, "approval": 2}

SECRETS = "secrets"
"""The subject of the evidence that there were secrets in files, which no criterion needs to forbid."""

PROTECTED = "protected paths"
"""The subject of the evidence that a branch changes what it may not, which no criterion needs to forbid."""


def evaluate(step: Bead, bench: Bench) -> tuple[Evidence, ...]:
    """The evidence for each criterion of a step, up to and including the first that does not hold.

    ``run`` criteria run in fresh processes of their own group, with a time limit; ``file`` criteria look at the
    directory without following links out of it; ``diff`` criteria ask Git, and look at nothing that the worker says.
    After those, in the order they are written, come the reviews, and then what a person has to approve of: what was
    answered about this very tree counts, otherwise the evidence says that it is asked. In the end nothing protected
    may be changed that nobody has approved of.

    Files that a secret was taken out of are not what the worker made, so that nothing else is looked at.
    """
    if bench.redacted:
        what = ", ".join(sorted({str(redacted) for redacted in bench.redacted}))
        return (_evidence(SECRETS, Finding("fail", f"took out {what}; nothing that is kept may have it"), bench),)
    found: list[Evidence] = []
    numbered = sorted(enumerate(step.criteria, start=1), key=lambda pair: _TURNS.get(pair[1].kind, 0))
    for number, criterion in numbered:
        found.append(_said(step, criterion, bench) or _evidence(str(criterion), _look(criterion, bench, number), bench))
        if found[-1].verdict != "pass":
            return tuple(found)
    strays = unapproved(bench.git, bench.base, bench.tree, bench.protected, bench.approved)
    if strays:
        detail = f"changes {named(strays)}, and no criterion asks a person to approve of that"
        found.append(_evidence(PROTECTED, Finding("fail", detail, output=_listed(strays)), bench))
    return tuple(found)


def _said(step: Bead, criterion: Criterion, bench: Bench) -> Evidence | None:
    """What a person or a reviewer has said about this tree before: neither is asked twice about the same."""
    said = answer(step, str(criterion), bench.tree) if criterion.approval or criterion.review else None
    return None if said is None or said.verdict == "error" else said


def holds(criteria: Sequence[Criterion], evidence: Sequence[Evidence]) -> bool:
    """Whether the evidence says that every criterion holds; none at all prove nothing."""
    return bool(criteria) and len(evidence) >= len(criteria) and all(e.verdict == "pass" for e in evidence)


def feedback(evidence: Sequence[Evidence]) -> str:
    """What did not hold and how, as text for the next attempt: of test runs what failed; empty when all held."""
    parts = [
        f"{e.subject}\n{e.detail}\n{trimmed(e.output, _OUTPUT_MAX)}".rstrip() for e in evidence if e.verdict != "pass"
    ]
    return "\n\n".join(parts)


def _look(criterion: Criterion, bench: Bench, number: int) -> Finding:
    match criterion.kind:
        case "run":
            return _run(criterion, bench, number)
        case "file":
            return look_at_file(criterion, bench.directory, lambda *about: _search(criterion, bench, number, *about))
        case "diff":
            return _diff(criterion, bench)
        case "review":
            return bench.review(criterion)
        case "approval":
            return _ask(bench)


def _run(criterion: Criterion, bench: Bench, number: int) -> Finding:
    exit = _ended(criterion, bench, number, shell(criterion.run), within=bench.around())
    keep(exit, bench.logs)
    verdict, detail = judge(exit, criterion.run, criterion.exit)
    output = "" if verdict == "pass" else exit.output
    return Finding(verdict, detail, exit.seconds, output, exit.digest, exit=exit.code)


def _ended(
    criterion: Criterion, bench: Bench, number: int, argv: Sequence[str], stdin: str = "", within: Sequence[str] = ()
) -> Exit:
    """How a process ended that looks at a criterion, in the time that it has."""
    job = bench.machine.start(
        argv,
        cwd=bench.directory,
        environ=bench.environ,
        log=bench.logs / f"criterion-{number}-{bench.tree[:12]}.log",
        timeout=criterion.timeout,
        marker=bench.marker,
        clock=bench.clock,
        stdin=stdin,
        within=within,
        secrets=bench.secrets,
    )
    return bench.wait(job)


Search = Callable[[str, str], bool | None]
"""Whether an expression matches in a text; None when that was not known after as long as there was."""


def look_at_file(criterion: Criterion, directory: Path, search: Search) -> Finding:
    """What a ``file`` criterion finds in a directory, without following links out of it.

    Args:
        criterion: what to look for.
        directory: where.
        search: looks for what the file's text is to match; see :func:`searching`.
    """
    try:
        return _found(criterion, directory, search)
    except OSError as error:
        # Such as a name that is longer than any can be.
        return Finding("error", f"{criterion.file[:200]} cannot be looked at: {error.strerror}")


def _found(criterion: Criterion, directory: Path, search: Search) -> Finding:
    path = directory / criterion.file
    if not _inside(path, directory):
        return Finding("fail", f"{criterion.file} leads out of the repository")
    there = path.is_file() if criterion.matches else path.exists()
    if criterion.absent or not there:
        return Finding("pass" if there != criterion.absent else "fail", "is there" if there else "is not there")
    if not criterion.matches:
        return Finding("pass", "is there")
    with path.open("rb") as stream:
        text = stream.read(_READ_MAX).decode(errors="replace")
    match search(criterion.matches, text):
        case True:
            return Finding("pass", "matches")
        case False:
            return Finding("fail", f"nothing in it matches {criterion.matches!r}")
        case None:
            return Finding("error", f"looking for {criterion.matches!r} took longer than {criterion.timeout:g} s")


def searching(expression: str, text: str) -> tuple[list[str], str]:
    """What looks for an expression in a text: arguments and standard input of a process, which ends with 0 or 1.

    An expression may take as long as its author likes, and in this process nothing could stop it.
    """
    return [sys.executable, "-I", "-S", "-c", _SEARCH], json.dumps([expression, text])


_SEARCH = "import json, re, sys; e, t = json.load(sys.stdin); sys.exit(not re.search(e, t, re.MULTILINE))"


def _search(criterion: Criterion, bench: Bench, number: int, expression: str, text: str) -> bool | None:
    argv, stdin = searching(expression, text)
    # It is our own, and touches nothing: it needs no sandbox.
    exit = _ended(criterion, bench, number, argv, stdin)
    exit.log.unlink(missing_ok=True)
    return exit.code == 0 if exit.kind == "exited" else None


def _diff(criterion: Criterion, bench: Bench) -> Finding:
    strays = changed(bench.git, bench.base, bench.tree, outside(criterion.diff))
    if strays:
        return Finding("fail", f"changes {named(strays)}")
    counts = lines_of(bench.git, bench.base, bench.tree)
    small = criterion.lines is None or sum(counts) <= criterion.lines
    return Finding("pass" if small else "fail", f"changes {len(counts)} files, {sum(counts)} lines")


def _ask(bench: Bench) -> Finding:
    """What a person should know before answering: how much there is to look at, and what of it is protected."""
    counts = lines_of(bench.git, bench.base, bench.tree)
    strays = unapproved(bench.git, bench.base, bench.tree, bench.protected, bench.approved)
    besides = f"; protected: {named(strays)}" if strays else ""
    paths = sizes(bench.git, bench.base, bench.tree, strays, ", protected")
    return Finding("asked", f"{len(counts)} files, {sum(counts)} lines changed{besides}", output=_listed(paths))


def _listed(paths: Sequence[str]) -> str:
    """Paths, one a line: those that fit, and how many more there are."""
    more = [f"and {len(paths) - _PATHS_MAX} more"] if len(paths) > _PATHS_MAX else []
    return "\n".join([*(p if p.isprintable() else repr(p) for p in paths[:_PATHS_MAX]), *more])


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _evidence(subject: str, finding: Finding, bench: Bench) -> Evidence:
    at = milliseconds(bench.clock.now())
    key = f"{subject}\0{bench.tree}\0{bench.by}\0{at.isoformat()}"
    return Evidence(
        id=hashlib.sha256(key.encode()).hexdigest()[:12],
        subject=subject,
        verdict=finding.verdict,
        detail=finding.detail,
        tree=bench.tree,
        exit=finding.exit,
        seconds=round(finding.seconds, 3),
        output=finding.output,
        digest=finding.digest,
        cost=finding.cost,
        model=finding.model,
        by=bench.by,
        at=at,
    )
