"""What a process may touch; for now, which environment variables it sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from beads.errors import InvalidInput
from refinery.processes import JOB, MARKER
from refinery.redaction import Secrets

ALWAYS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", MARKER, JOB)
"""The variables every process gets: who and where it is, how text is written, and which town it belongs to."""

TERMINAL = "dumb"
"""The ``TERM`` of processes that are not allowed to see the user's: their output goes to a file."""


def environment(base: Mapping[str, str], allow: Iterable[str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: what of ``base`` is allowed, and ``extra`` over it.

    Args:
        base: the user's environment.
        allow: names of variables besides :data:`ALWAYS`; one that ends in ``*`` allows all that begin so.
        extra: variables to set, whatever ``base`` has.

    Raises:
        InvalidInput: a name to allow is empty or has ``*`` or ``=`` elsewhere, or a variable in ``extra`` cannot exist.
    """
    patterns = (*ALWAYS, *allow)
    for pattern in patterns:
        if not pattern or "*" in pattern[:-1] or "=" in pattern:
            raise InvalidInput(f"{pattern!r} is not the name of an environment variable", "Use NAME or PREFIX*.")
    for name, value in extra.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidInput(f"{name!r} cannot be set in an environment")
    names = {pattern for pattern in patterns if not pattern.endswith("*")}
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    seen = {name: value for name, value in base.items() if name in names or name.startswith(prefixes)}
    return {"TERM": TERMINAL, **seen, **extra}


def secrets(base: Mapping[str, str], allow: Iterable[str]) -> Secrets:
    """The secrets among the variables that are allowed by name besides the usual ones.

    Raises:
        InvalidInput: see :func:`environment`.
    """
    usual = environment(base, (), {})
    seen = environment(base, allow, {})
    return Secrets.among({name: value for name, value in seen.items() if name not in usual})
