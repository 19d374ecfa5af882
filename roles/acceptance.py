"""Evaluate acceptance criteria and make evidence: the code decides what is done, never the worker (I3)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beads.clock import Clock
from beads.model import Criterion, Evidence, milliseconds
from refinery.gate import Verdict, judge
from refinery.git import Git
from refinery.processes import Exit, Job, shell, start

_READ_MAX = 1 << 20
_TAIL = 2000


@dataclass(frozen=True)
class Bench:
    """Where criteria are evaluated: a directory whose content is ``tree``, and how processes run there.

    ``base`` is the commit of main that the branch left it at, and ``git`` is Git in that directory. ``wait`` waits for
    a job, and may raise when the worker is asked to stop.
    """

    directory: Path
    tree: str
    base: str
    git: Git
    environ: Mapping[str, str]
    logs: Path
    marker: str
    clock: Clock
    by: str
    wait: Callable[[Job], Exit]


def evaluate(criteria: Sequence[Criterion], bench: Bench) -> tuple[Evidence, ...]:
    """The evidence for each criterion, in order, up to and including the first that does not hold.

    ``run`` criteria run in fresh processes of their own group, with a time limit; ``file`` criteria look at the
    directory without following links out of it; ``diff`` criteria ask Git, and look at nothing that the worker says.
    """
    found: list[Evidence] = []
    for number, criterion in enumerate(criteria, start=1):
        evidence = _look(criterion, bench, number)
        found.append(evidence)
        if evidence.verdict != "pass":
            break
    return tuple(found)


def holds(criteria: Sequence[Criterion], evidence: Sequence[Evidence]) -> bool:
    """Whether the evidence says that every criterion holds; none at all prove nothing."""
    return bool(criteria) and len(evidence) == len(criteria) and all(e.verdict == "pass" for e in evidence)


def feedback(evidence: Sequence[Evidence]) -> str:
    """What did not hold and how, as text for the next attempt; empty when all held."""
    parts = [f"{e.subject}\n{e.detail}\n{e.output[-_TAIL:]}".rstrip() for e in evidence if e.verdict != "pass"]
    return "\n\n".join(parts)


def _look(criterion: Criterion, bench: Bench, number: int) -> Evidence:
    match criterion.kind:
        case "run":
            return _run(criterion, bench, number)
        case "file":
            return _file(criterion, bench)
        case "diff":
            return _diff(criterion, bench)


def _run(criterion: Criterion, bench: Bench, number: int) -> Evidence:
    log = bench.logs / f"criterion-{number}-{bench.tree[:12]}.log"
    job = start(
        shell(criterion.run),
        cwd=bench.directory,
        environ=bench.environ,
        log=log,
        timeout=criterion.timeout,
        marker=bench.marker,
        clock=bench.clock,
    )
    exit = bench.wait(job)
    verdict, detail = judge(exit, criterion.run, criterion.exit)
    output = "" if verdict == "pass" else exit.output
    return _evidence(criterion, bench, verdict, detail, exit.seconds, output, exit.digest)


def _file(criterion: Criterion, bench: Bench) -> Evidence:
    path = bench.directory / criterion.file
    if not _inside(path, bench.directory):
        return _evidence(criterion, bench, "fail", f"{criterion.file} leads out of the repository")
    there = path.is_file() if criterion.matches else path.exists()
    if criterion.absent or not there:
        passed = there != criterion.absent
        return _evidence(criterion, bench, "pass" if passed else "fail", "is there" if there else "is not there")
    if not criterion.matches:
        return _evidence(criterion, bench, "pass", "is there")
    with path.open("rb") as stream:
        text = stream.read(_READ_MAX).decode(errors="replace")
    matched = re.search(criterion.matches, text, re.MULTILINE) is not None
    detail = "matches" if matched else f"nothing in it matches {criterion.matches!r}"
    return _evidence(criterion, bench, "pass" if matched else "fail", detail)


def _diff(criterion: Criterion, bench: Bench) -> Evidence:
    changed = ["diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"]
    outside = [f":(exclude,glob){pattern}" for pattern in criterion.diff]
    both = bench.base, bench.tree
    names = bench.git.run(*changed, "--name-only", *both, "--", ".", *outside).out
    strays = [name for name in names.split("\0") if name]
    if strays:
        more = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        return _evidence(criterion, bench, "fail", f"changes {', '.join(strays[:3])}{more}")
    # Of what is no text Git counts no lines; it is one.
    counted = bench.git.run(*changed, "--numstat", *both).out
    counts = [
        1 if added == "-" else int(added) + int(removed)
        for added, removed, _ in (line.split("\t", 2) for line in counted.split("\0") if line)
    ]
    lines = sum(counts)
    verdict: Verdict = "pass" if criterion.lines is None or lines <= criterion.lines else "fail"
    return _evidence(criterion, bench, verdict, f"changes {len(counts)} files, {lines} lines")


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _evidence(
    criterion: Criterion,
    bench: Bench,
    verdict: Verdict,
    detail: str,
    seconds: float = 0.0,
    output: str = "",
    digest: str = "",
) -> Evidence:
    at = milliseconds(bench.clock.now())
    key = f"{criterion}\0{bench.tree}\0{bench.by}\0{at.isoformat()}"
    return Evidence(
        id=hashlib.sha256(key.encode()).hexdigest()[:12],
        subject=str(criterion),
        verdict=verdict,
        detail=detail,
        tree=bench.tree,
        seconds=round(seconds, 3),
        output=output,
        digest=digest,
        by=bench.by,
        at=at,
    )
