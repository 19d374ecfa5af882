"""What commands printed, as files of this clone: found from the evidence by their digest, and bounded in all (I9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from beads.chain import log_of
from beads.model import Attempt, Bead, Usage
from beads.ops import Report
from refinery import removal
from refinery.processes import Exit
from refinery.redaction import files_below
from roles.drive import NOTE_MAX
from roles.events import Began, Said, Used, as_event

KEPT_MAX = 1 << 30
"""How many bytes of logs a clone keeps; what evidence has of them, head and tail, stays in the store."""


def attempt_label(step: Bead, attempt: Attempt) -> str:
    """What the files about an attempt are called: with ``.log`` its output, with ``.events`` what it told."""
    return f"{attempt.epoch}-{step.id}-attempt-{attempt.number}"


def lines(path: Path, over: Callable[[], bool], pause: Callable[[], None]) -> Iterator[bytes]:
    """The lines of a file, which may still grow or not be there yet, without their line feeds.

    Args:
        path: the file.
        over: whether nothing more will come.
        pause: waits a moment for more.
    """
    at, rest, ended = 0, b"", False
    while not ended:
        # Asked before the last look: what was written until then is read.
        ended = over()
        with suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(at)
            while chunk := file.read(1 << 20):
                at += len(chunk)
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
        if not ended:
            pause()
    if rest:
        yield rest


def told(path: Path, price: Callable[[str, Usage], float | None], model: str = "") -> Report | None:
    """What an attempt came to whose worker did not live to say it: as far as the file with its events tells.

    Args:
        path: that file.
        price: what tokens of a model cost, for programs that do not say it.
        model: the one that it was to use.
    """
    session, said, used = "", "", Used()
    for line in lines(path, lambda: True, lambda: None):
        match as_event(line.decode(errors="replace")):
            case Began(session=name, model=kind):
                session, model = name or session, kind or model
            case Said(text=text) if text.strip():
                said = text
            case Used() as found:
                used = found
            case _:
                pass
    if not (session or said or used.usage or used.cost is not None):
        return None
    cost = used.worth(lambda usage: price(model, usage))
    note = said[-NOTE_MAX:]
    return Report(ending="cancelled", model=model, session=session, note=note, usage=used.usage, cost=cost)


def keep(exit: Exit, logs: Path) -> None:
    """Keep a whole log under its digest: evidence leads to it, and what another look prints does not take its place."""
    exit.log.replace(log_of(logs.parent, logs.name, exit.digest))


def trim(logs: Path, over: Callable[[str], bool], most: int = KEPT_MAX) -> None:
    """Delete the oldest logs of molecules that are over, until all logs together have no more than ``most`` bytes.

    Args:
        logs: the directory of all logs, with a directory for each molecule.
        over: whether nothing more will happen to the molecule of that id.
        most: bytes.
    """
    found = []
    for path in logs.glob("*/*"):
        # Another process may delete it, too.
        with suppress(OSError):
            said = path.stat()
            size = sum(file.stat().st_size for file in files_below(path)) if path.is_dir() else said.st_size
            found.append((said.st_mtime, size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        if over(path.parent.name):
            total -= size
            with suppress(OSError):
                removal.delete(path)
                path.parent.rmdir()
