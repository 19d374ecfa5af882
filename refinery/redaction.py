"""Keep secrets out of what is written down: logs, events, the store, and the files that go into Git.

A secret is a value that somebody handed to an agent by the name of its variable. It is found as it is, and as it
stands in JSON, in a URL and in base64. What was compressed, encrypted or turned around is not found: what a program
may do to hide a secret has no end, and keeping it from sending one away is the sandbox's business.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import copymode
from typing import AnyStr, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urlsplit

SECRET_MIN = 8
"""Characters that a secret must have to be redacted: shorter ones would blacken half of any text."""

REDACTED = "[redacted]"

HANDED = "BEADTOWN_SECRETS"
"""The environment variable that tells a process which others it was handed, by their names, with spaces between."""

_LINE_MIN = 16
"""Characters that a line of a secret of many lines, such as a private key, must have to count by itself."""

_CHUNK = 1 << 20

# How variables are called whose values nobody hides, unless another word of the name says that it is one to hide.
_PLAIN = re.compile(
    r"(?:.*_)?(?:BASE|BUNDLE|CERTS?|COMMAND|CONFIG|DIRS?|EMAIL|ENDPOINT|ENV|FILE|FLAGS|HOST|LEVEL|LOCATION|MODE|MODEL|OPTIONS|ORG"
    r"|ORGANIZATION|PORT|PROFILE|PROJECT|PROVIDER|PROXY|REGION|ROOT|SERVER|TIMEOUT|TYPE|UR[IL]|USER|VERSION|ZONE)"
    r"|.*(?:HOME|NAME|PATH|TERM)",
    re.IGNORECASE,
)
_TELLING = re.compile(r"(?:.*_)?(?:AUTH|CREDENTIALS?|KEY|PASS|PASSWORD|SECRET|TOKEN|WEBHOOK)(?:_.*)?", re.IGNORECASE)


SCRATCH = ".beadtown-redacting-"
"""How files begin that a kill may leave while another one is being rewritten; nothing in them is missed."""


class Redacted(NamedTuple):
    """A secret that was taken out of a file: the name of the variable that holds it, and the file's path, redacted."""

    variable: str
    path: str

    def __str__(self) -> str:
        return f"the value of {self.variable} in {self.path}"


@dataclass(frozen=True)
class Secrets:
    """Values that must not be written down, each with the name of its variable. False when there are none."""

    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def among(cls, variables: Mapping[str, str]) -> Secrets:
        """Those of some variables that are secrets.

        That is each value of at least :data:`SECRET_MIN` characters, unless it is a number, or its variable is called
        like something that nobody hides: ``…_URL``, ``…_REGION``, ``…_MODEL`` and the like. In a URL, the password
        counts anyway.
        """
        found: dict[str, str] = {}
        for name, value in variables.items():
            plain = _PLAIN.fullmatch(name) or value.isdigit()
            whole = [value] if _TELLING.fullmatch(name) or not plain else []
            for secret in (*whole, *_passwords(value)):
                if len(secret) >= SECRET_MIN:
                    found.setdefault(secret, name)
        return cls(tuple((name, secret) for secret, name in found.items()))

    def __bool__(self) -> bool:
        return bool(self.values)

    def text(self, text: str) -> str:
        """The text with every occurrence of a secret replaced by ``[redacted]``, also where secrets overlap."""
        return "".join(_pieces(text, self._forms, 0, len(text), REDACTED)[0]) if self.values else text

    def stream(self) -> Stream:
        """Takes secrets out of bytes that come a piece at a time."""
        return Stream(self._encoded)

    def within(self, data: str | bytes) -> set[str]:
        """The names of the variables whose values are in that text or in those bytes."""
        if isinstance(data, str):
            return {name for form, name in self._forms.items() if form in data}
        return {name for form, name in self._encoded.items() if form in data}

    @cached_property
    def _forms(self) -> dict[str, str]:
        """All that is looked for, with the name of the variable it comes from."""
        named = ((form, name) for name, secret in self.values for form in _forms_of(secret))
        return {form: name for form, name in named if len(form) >= SECRET_MIN}

    @cached_property
    def _encoded(self) -> dict[bytes, str]:
        return {form.encode("utf-8", "surrogateescape"): name for form, name in self._forms.items()}


NO_SECRETS = Secrets()


class Stream:
    """Takes secrets out of bytes that come a piece at a time, also those that are cut in two by that.

    No more is held back than what may be the beginning of a secret.
    """

    def __init__(self, forms: Mapping[bytes, str]) -> None:
        self._forms = forms
        self._rest = b""
        # Of the rest, these first bytes belong to what was redacted before.
        self._done = 0

    def feed(self, data: bytes) -> bytes:
        """What can be said of the bytes so far."""
        data = self._rest + data
        return self._give(data, len(data) - self._begun(data))

    def close(self) -> bytes:
        """The rest, now that nothing follows. The beginning of a secret is redacted, too, when it is long enough."""
        if len(self._rest) < SECRET_MIN:
            return self._give(self._rest, len(self._rest))
        given = REDACTED.encode() if self._done < len(self._rest) else b""
        self._rest, self._done = b"", 0
        return given

    def _begun(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret."""
        longest = 0
        for form in self._forms:
            sizes = range(min(len(form) - 1, len(data)), longest, -1)
            longest = next((size for size in sizes if data.endswith(form[:size])), longest)
        return longest

    def _give(self, data: bytes, until: int) -> bytes:
        parts, done = _pieces(data, self._forms, self._done, until, REDACTED.encode())
        self._rest, self._done = data[until:], max(0, done - until)
        return b"".join(parts)


def redact_file(path: Path, secrets: Secrets) -> set[str]:
    """Take secrets out of a file or out of where a symbolic link leads, in place.

    The names of the variables whose values were in it. What is no file, or gone, has none in it.

    Raises:
        OSError: it cannot be read or written.
    """
    if path.is_symlink():
        target = os.readlink(path)  # noqa: PTH115 - the path as it is.
        if names := secrets.within(target):
            path.unlink()
            path.symlink_to(secrets.text(target))
        return names
    if not path.is_file():
        return set()
    with path.open("rb") as file:
        names = _names_in(file, secrets)
        if names:
            file.seek(0)
            _rewrite(path, file, secrets)
    return names


def redact_below(root: Path, secrets: Secrets) -> None:
    """Take secrets out of all files below a directory, and out of their names. Links are not followed.

    Raises:
        OSError: something cannot be read or written.
    """
    if secrets:
        for path in files_below(root):
            redact_at(root, path.relative_to(root), secrets)


def redact_at(root: Path, path: Path, secrets: Secrets, *, rename: bool = True) -> list[Redacted]:
    """Take secrets out of the file at a relative path below ``root``, and out of that path; what was taken out.

    With ``rename`` false the path stays as it is: that of a file which Git has already hides nothing any more.

    Raises:
        OSError: it cannot be read or written.
    """
    names = redact_file(root / path, secrets)
    told = secrets.text(str(path))
    if rename and told != str(path) and os.path.lexists(root / path):
        names |= secrets.within(str(path))
        _rename(root, path, told)
    return [Redacted(name, told) for name in sorted(names)]


def files_below(root: Path) -> Iterator[Path]:
    """The files and links below a directory, without what is in a ``.git`` directory."""
    for at, directories, files in os.walk(root):
        if ".git" in directories:
            directories.remove(".git")
        linked = (name for name in directories if Path(at, name).is_symlink())
        yield from (Path(at, name) for name in itertools.chain(files, linked))


# ── Underneath ───────────────────────────────────────────────────────────────────────────────────────────────


def _passwords(value: str) -> list[str]:
    """The password in a URL, as it stands there and as it is."""
    with suppress(ValueError):
        parts = urlsplit(value)
        if parts.scheme and parts.password:
            return [parts.password, unquote(parts.password)]
    return []


def _forms_of(secret: str) -> Iterator[str]:
    """How a secret may stand in a text. Of one that has lines, long ones count by themselves."""
    lines = [line for line in secret.splitlines() if len(line) >= _LINE_MIN and not line.startswith("-----")]
    for text in (secret, *(lines if lines != [secret] else ())):
        yield text
        once = json.dumps(text)[1:-1]
        # Agents print JSON that has what a tool printed, which may be JSON.
        yield from (once, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(once)[1:-1])
        yield quote(text.encode("utf-8", "surrogateescape"), safe="")
        yield from _in_base64(text.encode("utf-8", "surrogateescape"))


def _in_base64(data: bytes) -> Iterator[str]:
    """The letters that stand for these bytes in base64 of something that has them, for each of three places."""
    for before, letters in ((0, 0), (1, 2), (2, 3)):
        until = (before + len(data)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(b"\0" * before + data).decode()[letters:until]


def _pieces(text: AnyStr, forms: Iterable[AnyStr], done: int, until: int, redacted: AnyStr) -> tuple[list[AnyStr], int]:
    """What ``text[done:until]`` is without secrets, and where the last one ended that began in it.

    What begins at ``until`` or later is left alone.
    """
    parts: list[AnyStr] = []
    for begin, end in sorted(span for form in forms for span in _occurrences(text, form)):
        if begin >= until:
            break
        if begin >= done:
            parts += [text[done:begin], redacted]
        done = max(done, end)
    parts.append(text[done:until])
    return parts, done


def _occurrences(text: AnyStr, form: AnyStr) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def _names_in(file: BinaryIO, secrets: Secrets) -> set[str]:
    names: set[str] = set()
    before = b""
    keep = max((len(form) for form in secrets._encoded), default=1) - 1
    while chunk := file.read(_CHUNK):
        data = before + chunk
        names |= secrets.within(data)
        before = data[-keep:]
    return names


def _rewrite(path: Path, file: BinaryIO, secrets: Secrets) -> None:
    # Beside it, and then in its place: whoever is killed in between has lost nothing.
    scratch = path.with_name(f"{SCRATCH}{os.getpid()}")
    stream = secrets.stream()
    with scratch.open("wb") as target:
        while chunk := file.read(_CHUNK):
            target.write(stream.feed(chunk))
        target.write(stream.close())
    copymode(path, scratch)
    scratch.replace(path)


def _rename(root: Path, old: Path, told: str) -> None:
    """Give a file another name. Where that is taken, a number makes it another one."""
    names = (told if number == 1 else f"{told}.{number}" for number in itertools.count(1))
    new = next(root / name for name in names if not os.path.lexists(root / name))
    new.parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(new)
    for parent in old.parents:
        if parent == Path():
            break
        with suppress(OSError):
            (root / parent).rmdir()
