"""The operation that adds a bead, alone: a command that needs no other one need not wait until all are made."""

from __future__ import annotations

from typing import Literal

from beads.model import Bead, Fact


class Create(Fact):
    """Add a bead. One that is there with the same source and seal is left as it is."""

    op: Literal["create"] = "create"
    bead: Bead
