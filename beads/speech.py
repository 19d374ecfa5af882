"""Conversations with the Mayor, as the graph sees them: who is to speak next. Pure.

Of what is said in one only that is open which waits for somebody. Nobody ever holds a part of a conversation.
"""

from __future__ import annotations

from beads.model import Bead
from beads.state import State

CONVERSATION = "conversation"
"""The type of a conversation; what is said in it are its parts."""

MESSAGE = "message"
"""The type of what somebody says: a person, or the Mayor that asks something."""

PROPOSAL = "proposal"
"""The type of a plan that waits for a person's yes."""

SPEECH = frozenset({CONVERSATION, MESSAGE, PROPOSAL})
"""The types of conversations and of what is said in them."""

MAYOR = "mayor"
"""Who has made what the Mayor says."""


def standing(bead: Bead) -> State:
    """Where an open one of these stands."""
    match bead.issue_type:
        case "proposal":
            return State("needs_person", "proposes a plan, which waits for a yes or a no")
        case "message" if bead.created_by == MAYOR:
            return State("needs_person", "the Mayor asks this")
        case "message":
            return State("waiting", "for the Mayor's answer")
        case _:
            return State("waiting", "for what is said in it next")
