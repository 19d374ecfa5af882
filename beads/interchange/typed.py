"""Values of the types that they must have, out of a document that has no model of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from beads.lines import Place
    from beads.toml import Document

Kind = TypeVar("Kind")


@dataclass
class Typed:
    """A document whose tables are looked into key by key; each raises InvalidDocument for another type.

    Attributes:
        document: the document.
    """

    document: Document

    def text(self, facts: Mapping[str, Any], key: str, place: Place) -> str:
        """The text at a key of the table at ``place``; empty for none."""
        return self._of(str, facts.get(key, ""), (*place, key), "a text")

    def table(self, facts: Mapping[str, Any], key: str, place: Place) -> dict[str, Any]:
        """The table there; empty for none."""
        return self._of(dict, facts.get(key, {}), (*place, key), "a table")

    def array(self, facts: Mapping[str, Any], key: str, place: Place) -> list[str]:
        """The array of texts there; empty for none."""
        found = self._of(list, facts.get(key, []), (*place, key), "an array")
        return [self._of(str, one, (*place, key, index), "a text") for index, one in enumerate(found)]

    def tables(self, facts: Mapping[str, Any], key: str, place: Place) -> list[dict[str, Any]]:
        """The array of tables there; empty for none."""
        found = self._of(list, facts.get(key, []), (*place, key), "an array")
        return [self._of(dict, one, (*place, key, index), "a table") for index, one in enumerate(found)]

    def _of(self, kind: type[Kind], value: object, place: Place, said: str) -> Kind:
        if not isinstance(value, kind):
            raise self.document.fault(place, f"must be {said}, not {value!r:.60}")
        return value
