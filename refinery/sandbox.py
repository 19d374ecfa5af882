"""What a process may touch; for now, which environment variables it sees."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from beads.errors import InvalidInput
from refinery.processes import JOB, MARKER

ALWAYS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", MARKER, JOB)
"""The variables every process gets: who and where it is, how text is written, and which town it belongs to."""

TERMINAL = "dumb"
"""The ``TERM`` of processes that are not allowed to see the user's: their output goes to a file."""

SECRET_MIN = 4
"""Characters that a secret must have to be redacted: shorter ones would blacken half of any text."""

REDACTED = "[redacted]"


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


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with every occurrence of a secret replaced by ``[redacted]``, also where secrets overlap.

    Finds them as they are and as they stand in JSON. Those shorter than :data:`SECRET_MIN` are left.
    """
    spans = sorted(span for secret in secrets if len(secret) >= SECRET_MIN for span in _occurrences(text, secret))
    parts: list[str] = []
    done = 0
    for begin, end in spans:
        if begin >= done:
            parts += [text[done:begin], REDACTED]
        done = max(done, end)
    return "".join(parts) + text[done:]


def _occurrences(text: str, secret: str) -> Iterable[tuple[int, int]]:
    for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
        at = text.find(form)
        while at >= 0:
            yield at, at + len(form)
            at = text.find(form, at + 1)
