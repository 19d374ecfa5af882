"""What thinks for the Mayor of this clone, by ``[mayor]`` in ``town.toml``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from roles.routing import check_mayor

if TYPE_CHECKING:
    from roles.brain import Brain
    from roles.site import Site


def brain_of(site: Site) -> Brain:
    """The Mayor's brain.

    Raises:
        InvalidInput: none is configured, it cannot think, or has a budget that nobody could hold; says what to do.
        Refused: it is an agent, and there is no sandbox.
    """
    from beads.errors import InvalidInput
    from refinery.gate import SETTINGS_FILE

    table = site.settings.mayor
    check_mayor(site.settings)
    if table.model:
        from roles.model_brain import model_brain
        from roles.runtimes.builtin import surroundings

        # LiteLLM looks for this when it is imported.
        for name, value in surroundings(table.asked()).items():
            os.environ.setdefault(name, value)
        return model_brain(site)
    if table.agent:
        from roles.agent_brain import AgentBrain

        brain = AgentBrain(site, table.agent)
        brain.check()
        return brain
    from roles.discovery import advice, look

    raise InvalidInput(f"{SETTINGS_FILE} names nothing that could think for the Mayor", advice(look(os.environ)))
