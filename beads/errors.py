"""Every error this project raises on purpose, and the exit code each one ends a command with.

    TownError                    1  our fault
    ├── InvalidInput             2  what was given cannot be used
    │   └── InvalidDocument         … a file, with line and key
    ├── NotFound                 3  no such bead, branch, revision
    ├── LostRace                 4  somebody else was first
    │   └── Fenced                  … under an epoch that is no longer current
    ├── Refused                  5  a rule says no: criteria unmet, cycle, sealed, protected
    ├── Unreadable               6  the store, the repository or a remote cannot be read or written
    └── NeedsPerson              7  finished, and something waits for a person

Each message names the offending value; ``hint`` says what to do next. The command line prints both and
turns the class into the exit code; nothing else looks at them.
"""

from __future__ import annotations


class TownError(Exception):
    """Something went wrong that a person can be told about.

    Args:
        message: what is wrong, with the offending value in it.
        hint: what to do next, as a full sentence; empty when there is nothing to add.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(TownError):
    """A value, an option or a file cannot be used as given."""

    exit_code = 2


class InvalidDocument(InvalidInput):
    """A file does not say what it must; the message starts with ``file:line: key``.

    Args:
        source: the file's name as the user gave it.
        line: the line the problem is on, counted from 1; 0 when no line can be named.
        key: the dotted key, such as ``molecules[0].steps[1].needs``; empty for the whole file.
        problem: what is wrong there.
    """

    def __init__(self, source: str, line: int, key: str, problem: str, hint: str = "") -> None:
        place = f"{source}:{line}" if line else source
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}", hint)
        self.source = source
        self.line = line
        self.key = key
        self.problem = problem


class NotFound(TownError):
    """The thing that was named does not exist."""

    exit_code = 3


class LostRace(TownError):
    """Somebody else was first, and the write no longer makes sense."""

    exit_code = 4


class Fenced(LostRace):
    """A write came under an epoch that is no longer the current one (I2)."""


class Refused(TownError):
    """A rule says no: criteria unmet, a cycle, a sealed goal, a protected path."""

    exit_code = 5


class Unreadable(TownError):
    """The store, the repository or a remote cannot be read or written."""

    exit_code = 6


class NeedsPerson(TownError):
    """Everything that can be done without a person is done; something waits for one."""

    exit_code = 7
