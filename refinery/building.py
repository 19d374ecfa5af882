"""The candidates of one Refinery: made when main or the queue changes, as main wants them, and the same until then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from beads.clock import Clock
from refinery.gate import Gate, gate_of
from refinery.git import Git, Identity
from refinery.merge import MAKING, Candidate, Request, Stack, publish, stack
from refinery.regenerate import Regenerator
from refinery.signing import Signer
from refinery.styles import Merging, merging_of


@dataclass
class Builder:
    """Makes candidates, publishes them, and makes of one what lands.

    Attributes:
        git: Git in the repository.
        who: author and committer of what it makes.
        clock: what time it is.
        made: runs the commands that make files which conflict.
        shown: the stack that was published last.
        top: what main became, or was about to become, when something was landed last.
    """

    git: Git
    who: Identity
    clock: Clock
    top: str = ""
    shown: Stack | None = None
    _rules: tuple[str, Gate, Merging] | None = None
    _stacks: dict[tuple[str, int, tuple[Request, ...]], Stack] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made = Regenerator(self.git)
        self._signer = Signer(self.git, self.clock)

    def gate(self, head: str) -> Gate:
        """The gate that a commit of main defines; how it wants things merged is what holds from now on.

        Raises:
            NotFound: see :func:`refinery.gate.gate_of`.
            InvalidDocument: likewise, or ``[merge]`` is wrong.
        """
        if self._rules is None or self._rules[0] != head:
            self._rules = None
            self._rules = head, gate_of(self.git, head), merging_of(self.git, head)
            self.made.rules = self._rules[2].generated
        return self._rules[1]

    def stack(self, head: str, requests: Sequence[Request], when: datetime) -> Stack:
        """The candidates on ``head``; the same ones as long as neither main nor these requests change."""
        key = head, self.made.known, tuple(requests)
        if key not in self._stacks:
            style = self._rules[2].style if self._rules else "merge"
            before = self.shown if self.top == head else None
            again = self.made if self.made.rules else None
            self._stacks[key] = stack(self.git, head, requests, self.who, when, style, before, again)
        return self._stacks[key]

    def keep(self, stacks: Collection[Stack]) -> None:
        """Forget all others."""
        self._stacks = {key: made for key, made in self._stacks.items() if made in stacks}

    def show(self, stacked: Stack) -> None:
        """Publish the candidates that the queue has now."""
        if stacked is not self.shown:
            publish(self.git, stacked.candidates, self.shown.candidates if self.shown else None)
            self.shown = stacked

    def sign(self, candidate: Candidate) -> Candidate:
        """The candidate as it is to land; see :meth:`refinery.signing.Signer.sign`."""
        return self._signer.sign(candidate)


def settled(stacked: Stack, requests: Sequence[Request]) -> list[Request]:
    """The requests without those whose generated files are being made; they come behind what is tested meanwhile."""
    making = [waiting.request for waiting in stacked.waiting if waiting.messages == MAKING]
    return [request for request in requests if request not in making]
