"""The built-in agent's memory: a conversation as a file of JSON lines, and what of it fits into a model's window.

The file is only ever added to, and each line is on the disk before the agent goes on. So it tells afterwards what was
done, and a run that was killed can be gone on with: what was begun and has no result is never done again by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from beads.errors import Unreadable
from refinery.redaction import Secrets
from roles.builtin.talk import Entry

TRIM_AT = 0.7
"""The share of the window from which on old results are left out."""

TRIM_TO = 0.4
"""The share to which that brings it: much at once and seldom, as a provider's cache ends where something changes."""

TRIM_MIN = 0.1
"""The share that it has to free, as long as there is room at all."""

FULL_AT = 0.85
"""The share from which on there is no room for work; the rest is for the note to whoever goes on."""

KEPT = 2
"""The newest results, which are never left out."""

_WORTH = 200
"""Characters of a result that are not worth leaving out."""

_NONE = Secrets()

_PER_CHARACTER = 1 / 3
"""Tokens, before a provider has told how many it counted; rather too many than too few."""

_SHARED = {"role", "content", "tool_calls", "tool_call_id"}
"""What every provider understands of a turn. The rest is from a model to itself, such as signed thoughts."""


class Trajectory:
    """A conversation that is kept in a file.

    Args:
        path: the file; made when it is not there, gone on with when it is.
        secrets: values that must not get into it; they are replaced.
    """

    def __init__(self, path: Path, secrets: Secrets = _NONE) -> None:
        self._secrets = secrets
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole(path)
        self._path = path
        self._entries: list[tuple[Entry, str]] = []
        self._open: dict[str, bool] = {}
        self._left_out = 0
        self._per_character = _PER_CHARACTER
        for number, line in enumerate(lines, 1):
            try:
                self._take(json.loads(line))
            except ValueError as error:
                hint = "Have the agent begin afresh: resume = false."
                raise Unreadable(f"{path}:{number}: this is no JSON", hint) from error

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, model: str = "") -> None:
        """Keep one more turn, and which model's it is; it is on the disk when this returns."""
        self._write({"entry": entry, **({"model": model} if model else {})})

    def begin(self, call: str) -> None:
        """Keep that a tool is about to be used."""
        self._write({"begin": call})

    def settle(self) -> None:
        """Give a result to everything that a killed run left without one."""
        for call, begun in tuple(self._open.items()):
            self.add({"role": "tool", "tool_call_id": call, "content": _MAYBE_DONE if begun else _NOT_DONE})

    def view(self, model: str) -> list[Entry]:
        """What that model is shown: everything, but old results that were left out, and other models' private words."""
        return [
            _without(entry) if number < self._left_out and _is_result(entry) else _for(entry, by, model)
            for number, (entry, by) in enumerate(self._entries)
        ]

    def tokens(self, model: str) -> int:
        """About how many tokens that has."""
        return int(_size(self.view(model)) * self._per_character)

    def learn(self, model: str, tokens: int) -> None:
        """Take note of how many tokens a provider counted in what it was just shown."""
        # What a provider tells may be nonsense, and then we would leave out all or nothing.
        self._per_character = min(2.0, max(0.1, tokens / max(1, _size(self.view(model)))))

    def fit(self, window: int, model: str) -> bool:
        """Leave old results out where it gets tight; whether there is room for work then."""
        before, left_out = self.tokens(model), self._left_out
        if before > window * TRIM_AT:
            results = [number for number, (entry, _) in enumerate(self._entries) if _is_result(entry)]
            for number in results[:-KEPT]:
                if self.tokens(model) <= window * TRIM_TO:
                    break
                self._left_out = max(left_out, number + 1)
            if before <= window * FULL_AT and before - self.tokens(model) < window * TRIM_MIN:
                self._left_out = left_out
        return self.tokens(model) <= window * FULL_AT

    def _write(self, record: dict[str, object]) -> None:
        line = self._secrets.text(json.dumps(record, ensure_ascii=False))
        with self._path.open("ab") as file:
            file.write(line.encode("utf-8", "replace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(json.loads(line))

    def _take(self, record: dict[str, object]) -> None:
        entry, call = record.get("entry"), record.get("begin")
        if isinstance(entry, dict):
            self._entries.append((entry, str(record.get("model", ""))))
            # Only the newest turn can have uses without a result, and some servers begin anew with their names.
            self._open = dict.fromkeys(_calls(entry), False) if entry.get("role") == "assistant" else self._open
            self._open.pop(str(entry.get("tool_call_id")), None)
        if isinstance(call, str):
            self._open[call] = True


def _calls(entry: Entry) -> list[str]:
    """The names of the uses of tools that a turn asks for."""
    calls = entry.get("tool_calls")
    return [str(call["id"]) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


_NOT_DONE = "The run was interrupted before this was done. It has had no effect."
_MAYBE_DONE = "The run was interrupted while this was done. It may have had its effect or a part of it: look first."


def _whole(path: Path) -> Sequence[bytes]:
    """The lines of the file; the last one is taken away where it was being written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return data[:end].splitlines()


def _is_result(entry: Entry) -> bool:
    return entry.get("role") == "tool" and len(str(entry.get("content"))) > _WORTH


def _without(entry: Entry) -> Entry:
    said = f"[… {len(str(entry.get('content')))} characters left out to save room; look again if you need them …]"
    return {**entry, "content": said}


def _for(entry: Entry, by: str, model: str) -> Entry:
    if by in ("", model):
        return entry
    shared = {name: value for name, value in entry.items() if name in _SHARED}
    calls = shared.get("tool_calls")
    if isinstance(calls, list):
        shared["tool_calls"] = [{name: call[name] for name in ("id", "type", "function")} for call in calls]
    return shared


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(json.dumps(entry, ensure_ascii=False)) for entry in entries)
