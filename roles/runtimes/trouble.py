"""What is wrong when an agent's program fails, by its exit and by the words that providers use for it."""

from __future__ import annotations

from beads.model import Ending
from refinery.processes import Exit


def ending_of(exit: Exit) -> Ending:
    """How a process ended that said nothing of it itself."""
    match exit.kind:
        case "timeout":
            return "limits"
        case "unrunnable":
            return "environment"
        case "cancelled" | "signalled":
            return "cancelled"
        case "exited":
            return "finished"
