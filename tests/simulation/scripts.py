"""What the commands of a simulated town do: agents that work, fail, lie, hang and go on when they should not.

A command is ``sim VERB NAME``. What it does is decided by the seed, by its name and by how often that was started
before, so that it is the same whoever asks, and whenever.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Nature = Literal["good", "bad", "clash", "shared", "hopeless"]
"""What is to be had of a molecule: ``bad`` is red on main until it is sent back, ``clash`` is red with another one,
``shared`` edits the file that others edit, and ``hopeless`` never meets its criteria."""


@dataclass(frozen=True)
class Part:
    """A molecule: what it is called, what is to be had of it, and what it needs."""

    name: str
    nature: Nature
    needs: tuple[str, ...] = ()


class Act(NamedTuple):
    """Something that a command does after so many seconds: to files, or to end with a status."""

    after: float
    what: Callable[[Path], None] | None
    status: int = 0
    says: str = ""


def plan_of(parts: tuple[Part, ...]) -> str:
    """The molecules as a plan."""
    molecules = []
    for part in parts:
        needs = ", ".join(f'"{name}"' for name in part.needs)
        molecules.append(
            f'[[molecules]]\nid = "{part.name}"\ntitle = "Do {part.name}"\ngoal = "{part.name} is done."\n'
            f'needs = [{needs}]\nrun = "sim agent {part.name}"\ncriteria = [{{ run = "sim check {part.name}" }}]\n'
        )
    return 'plan = "sim"\n' + "\n".join(molecules)


def chance(*about: object) -> random.Random:
    """Chance that depends on nothing else than this."""
    return random.Random(hashlib.sha256(repr(about).encode()).digest())


class Scripts:
    """What the commands of one run do.

    Attributes:
        tokens: what agents have written into files: each is somebody's work, and must not be lost.
    """

    def __init__(self, seed: int, parts: tuple[Part, ...], trouble: float) -> None:
        self.tokens: set[str] = set()
        self._seed = seed
        self._parts = {part.name: part for part in parts}
        self._trouble = trouble
        self._starts: dict[str, int] = {}

    def acts(self, line: str) -> list[Act]:
        """What a command does, in order; one that does not end has no status at its end."""
        verb, _, name = line.removeprefix("sim ").partition(" ")
        number = self._starts[line] = self._starts.get(line, 0) + 1
        dice = chance(self._seed, line, number)
        match verb:
            case "check":
                return [Act(dice.uniform(0.01, 0.2), self._checking(name))]
            case "gate":
                return [Act(dice.choice((0.1, 0.5, 3.0)), _gate)]
            case "agent":
                return self._agent(self._parts[name], number, dice)
            case _:
                # What is asked of who was sent back with conflicts.
                assert line.startswith("! git grep --no-index -nE '^(<<<<<<<|>>>>>>>) ' -- "), line
                return [Act(0.05, lambda root: _settled(root / line.rpartition(" ")[2]))]

    def _agent(self, part: Part, number: int, dice: random.Random) -> list[Act]:
        takes = dice.choice((0.2, 1.0, 4.0))
        good = [Act(takes / 2, self._scribble(part, number)), Act(takes, self._work(part, number))]
        if part.nature == "hopeless":
            return [Act(takes, None)]
        if dice.random() >= self._trouble:
            return good
        return dice.choice(
            (
                # It fails half way, does nothing, or works and fails.
                [good[0], Act(takes * 0.6, None, 1, "out of memory")],
                [Act(takes, None)],
                [good[0], good[1]._replace(status=3, says="it is done, and yet it is not")],
                # It does not end.
                [good[0], Act(takes, self._work(part, number), -1)],
                [Act(takes, None, -1)],
            )
        )

    def _scribble(self, part: Part, number: int) -> Callable[[Path], None]:
        """Leave something that is nowhere else, below what was left before."""
        token = f"draft {number} of {part.name}"

        def scribble(root: Path) -> None:
            path = root / "drafts" / part.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(f"{token}\n")
            self.tokens.add(token)

        return scribble

    def _work(self, part: Part, number: int) -> Callable[[Path], None]:
        # What was sent back is done better.
        verdict = {"bad": "bad", "clash": "alone"}.get(part.nature, "ok") if number == 1 else "ok"

        def work(root: Path) -> None:
            path = root / "parts" / part.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{verdict} {number} of {part.name}\n")
            if part.nature == "shared":
                shared = root / "shared.txt"
                lines = shared.read_text().splitlines() if shared.exists() else []
                if part.name not in lines:
                    shared.write_text("\n".join([*lines, part.name]) + "\n")

        return work

    def _checking(self, name: str) -> Callable[[Path], None]:
        def check(root: Path) -> None:
            if not (root / "parts" / name).is_file():
                raise Failed(f"parts/{name} is not there")
            if self._parts[name].nature == "shared" and name not in (root / "shared.txt").read_text().splitlines():
                raise Failed("shared.txt does not name it")

        return check


class Failed(Exception):
    """A check or a gate says no."""


def _gate(root: Path) -> None:
    parts = sorted((root / "parts").iterdir())
    words = [path.read_text().split(" ")[0].strip() for path in parts]
    if "bad" in words:
        raise Failed("a part is bad")
    if words.count("alone") > 1:
        raise Failed("two parts clash")


def _settled(path: Path) -> None:
    lines = path.read_text().splitlines() if path.exists() else []
    if any(line.startswith(("<<<<<<< ", ">>>>>>> ")) for line in lines):
        raise Failed(f"{path.name} has conflicts in it")
