"""What steps get that say nothing themselves: a shell line and criteria, as a person gives them for all of them. Pure.

Both are templates like those of a formula: ``{{id}}``, ``{{title}}`` and what else is known of a step are put in as
data, in a shell line as words that are quoted where they have to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beads.errors import InvalidInput
from beads.plan import PlannedCriterion, nearest
from beads.template import Misplaced, Value, fill, undeclared
from beads.toml import validate

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Defaults:
    """A shell line and criteria for steps that have none.

    Attributes:
        run: the shell line, for the command runtime; empty for none.
        criteria: what must hold before such a step may close.
    """

    run: str = ""
    criteria: Sequence[PlannedCriterion] = ()

    def line(self, values: Mapping[str, Value]) -> str:
        """The shell line of a step.

        Args:
            values: what is known of the step, by the names that may stand between double braces.

        Raises:
            InvalidInput: the line has another name, or one in a place where a value cannot be put safely.
        """
        line: str = _filled("--run", {"run": self.run}, values)["run"]
        return line

    def checks(self, values: Mapping[str, Value]) -> tuple[PlannedCriterion, ...]:
        """The criteria of a step; arguments and errors as for :meth:`line`, and for what a value makes no criterion."""
        said = (criterion.model_dump(exclude_defaults=True) for criterion in self.criteria)
        filled = (_filled("--criterion", facts, values) for facts in said)
        return tuple(validate(PlannedCriterion, facts, b"", "--criterion") for facts in filled)


NO_DEFAULTS = Defaults()
"""Nothing for anybody."""


def _filled(option: str, facts: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    for _, name in undeclared(facts, values):
        raise InvalidInput(f"{option} has {{{{{name}}}}}, which is not known of a step", nearest(name, values))
    try:
        filled: dict[str, Any] = fill(facts, "", values)
    except Misplaced as error:
        raise InvalidInput(f"{option}: {error.problem}", error.hint) from error
    return filled
