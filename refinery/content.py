"""Merge the content of commits without a work tree, in one Git process for many, with main's attributes only.

What Git takes from where: merge drivers come from the configuration, attributes from ``info/attributes`` and from
the ``.gitattributes`` of the *base* commit. A candidate's own ``.gitattributes`` take effect once they are on main.
Left to itself, ``git merge-tree`` reads the files of whatever is checked out where it runs, edits and all, and in
a bare repository none; therefore it runs here in a directory that has the base's and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from beads.errors import Unreadable
from refinery.git import Git, Talk
from refinery.registry import common_directory

SCRATCH = "merge-"
"""How the directories begin that merging uses in ``beads`` below the Git directory; the process id follows."""

_TREE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNREAD = re.compile(r"^error: Could not read [0-9a-f]{40}", re.MULTILINE)
_USAGE = 129
"""How Git ends when it does not know an option."""

_MERGE = ("merge-tree", "--write-tree", "-z", "--name-only", "--messages")


class Merged(NamedTuple):
    """What a merge gave; a tree with conflicts in it is no candidate for anything.

    Attributes:
        clean: whether Git could decide everything.
        tree: the tree; where Git could not decide, with conflict markers.
        paths: where it could not; empty, too, when the two share no history.
        messages: what Git says about that.
    """

    clean: bool
    tree: str
    paths: tuple[str, ...] = ()
    messages: str = ""


class Merger:
    """Merges commits with the attributes that one commit has.

    One Git process answers as long as it lives; it ends where it cannot merge, and what was asked last is then asked
    again of one that is only for that.

    Args:
        git: Git in the directory that has these attributes, and nothing else.
        errors: a file for what the process says beside its answers.

    Attributes:
        attributes: names them: two mergers with the same merge alike.
    """

    def __init__(self, git: Git, errors: IO[bytes], attributes: str) -> None:
        self.attributes = attributes
        self._git = git
        self._errors = errors
        self._talk: Talk | None = None
        # Git 2.38 merges one pair a process.
        self._many = True
        # Whether the end of the last answer is still to come.
        self._owing = False

    def __call__(self, ours: str, theirs: str) -> Merged:
        """Merge two commits.

        Raises:
            Unreadable: Git failed for another reason than a conflict, or that they share no history.
        """
        if self._many:
            said = self._ask(ours, theirs)
            if said is not None:
                return said
        return self._alone(ours, theirs)

    def close(self) -> None:
        """End the process."""
        talk, self._talk = self._talk, None
        if talk is not None and talk.close() == _USAGE:
            self._many = False

    def _ask(self, ours: str, theirs: str) -> Merged | None:
        """What the process answers; None where it ends instead, or finds something damaged."""
        if self._talk is None:
            self._talk, self._owing = self._git.talk(*_MERGE, "--stdin", errors=self._errors), False
        self._errors.seek(0)
        self._errors.truncate()
        try:
            self._talk.say(f"{ours} {theirs}\n")
            clean, tree = self._answer(self._talk)
            paths: tuple[str, ...] = ()
            messages = ""
            if not clean:
                # The end of an answer comes with the next one: ask for one that takes no time.
                self._talk.say(f"{ours} {ours}\n")
                paths, messages = _conflicts(self._talk)
                self._owing = False
                self._answer(self._talk)
        except EOFError:
            self.close()
            return None
        except TimeoutError:
            # No Git is known that keeps its answers to itself, but it is not promised either.
            self._many = False
            self.close()
            return None
        # Git 2.39 takes a tree that is damaged or gone for an empty one, says so, and calls the merge clean.
        return None if _UNREAD.search(_read(self._errors)) else Merged(clean, tree, paths, messages)

    def _answer(self, talk: Talk) -> tuple[bool, str]:
        """How the next answer begins: whether it is clean, and its tree."""
        if self._owing:
            _conflicts(talk)
        self._owing = True
        return talk.field() == "1", talk.field()

    def _alone(self, ours: str, theirs: str) -> Merged:
        answer = self._git.run(*_MERGE, ours, theirs, ok=(0, 1, 128))
        tree, *fields = answer.out.split("\0")
        if _TREE.fullmatch(tree) and not _UNREAD.search(answer.err):
            return Merged(True, tree) if answer.status == 0 else Merged(False, tree, *_conflicts(_Fields(fields)))
        # It also ends with 1 when it could not even begin.
        if self._git.run("merge-base", ours, theirs, ok=(0, 1)).status == 1:
            return Merged(False, "", (), "It shares no history with main.")
        raise Unreadable(f"git merge-tree {ours} {theirs} failed (exit {answer.status}): {answer.err.strip()}")


@contextmanager
def merger(git: Git, base: str) -> Iterator[Merger]:
    """Something that merges commits with the attributes that ``base`` has, for as long as the block lasts."""
    common = common_directory(git)
    scratch = common / "beads"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=scratch) as name:
        place = Path(name)
        attributes = _write_attributes(git, base, place / "tree")
        extra = {"GIT_DIR": str(common), "GIT_WORK_TREE": str(place / "tree"), "GIT_INDEX_FILE": str(place / "index")}
        with (place / "errors").open("w+b", buffering=0) as errors:
            made = Merger(git.at(place / "tree", extra), errors, attributes)
            try:
                yield made
            finally:
                made.close()


class _Fields:
    """The fields of an answer that is known as a whole."""

    def __init__(self, fields: list[str]) -> None:
        self._fields = iter(fields)

    def field(self) -> str:
        return next(self._fields, "")


def _conflicts(answer: Talk | _Fields) -> tuple[tuple[str, ...], str]:
    """Read paths up to an empty field, then messages up to one: a count, that many paths, kind, text."""
    paths: list[str] = []
    while path := answer.field():
        paths.append(path)
    messages: list[str] = []
    while count := answer.field():
        for _ in range(int(count)):
            answer.field()
        kind, text = answer.field(), answer.field()
        messages += [text] if kind.startswith("CONFLICT") else []
    return tuple(paths), "".join(messages)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")


def _write_attributes(git: Git, commit: str, place: Path) -> str:
    """Write the commit's ``.gitattributes`` files below ``place``, where Git will look for them; a name for them."""
    place.mkdir()
    found = []
    for line in git.run("ls-tree", "-r", "-z", "--full-tree", commit).out.split("\0"):
        facts, _, name = line.partition("\t")
        parts = name.split("/")
        # Git does not follow a link here either, and no tree that it checks out has a path that leads outside.
        if parts[-1] == ".gitattributes" and facts.startswith("100") and ".." not in parts and parts[0]:
            text = git.run("cat-file", "blob", facts.split(" ")[2]).out
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(text.encode("utf-8", "surrogateescape"))
            found.append(line)
    return hashlib.sha256("\0".join(found).encode("utf-8", "surrogateescape")).hexdigest()
