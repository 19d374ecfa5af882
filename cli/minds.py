"""What thinks for the Mayor of this clone, by ``[mayor]`` in ``town.toml``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.brain import Brain
    from roles.site import Site


def brain_of(site: Site) -> Brain:
    """The Mayor's brain.

    Raises:
        InvalidInput: none is configured, or it has a budget that nobody could hold; says what to do.
    """
    from beads.errors import InvalidInput
    from roles.brain import model_brain
    from roles.llm import SURROUNDINGS

    table = site.settings.mayor
    if table.model:
        # LiteLLM looks for this when it is imported.
        for name, value in SURROUNDINGS.items():
            os.environ.setdefault(name, value)
        return model_brain(site)
    raise InvalidInput("nothing is configured that could answer", "Name a model in [mayor].")
