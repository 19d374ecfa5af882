"""What the holder of a molecule's lease writes: each such write is fenced by the epoch of the lease (I2)."""

from __future__ import annotations

from dataclasses import dataclass

from beads.errors import Fenced
from beads.model import Bead
from beads.ops import Begin, Close, Finish, Release, Renew, Reopen, Spend, Submit
from beads.store import Decision, Store

Kind = (
    type[Begin] | type[Close] | type[Finish] | type[Release] | type[Renew] | type[Reopen] | type[Spend] | type[Submit]
)
"""The operations of a holder."""


@dataclass(frozen=True)
class Hold:
    """A molecule in the hands of one worker.

    Attributes:
        store: where it is.
        actor: who writes, as the history says it.
        molecule: the molecule, as it was when it was claimed.
        worker: who holds it.
    """

    store: Store
    actor: str
    molecule: Bead
    worker: str

    def write(self, kind: Kind, about: Bead, **values: object) -> Bead:
        """Do one operation of that kind about the molecule or one of its parts; the bead afterwards.

        Raises:
            Fenced: it is somebody else's by now.
        """
        fields = {"id": about.id, "worker": self.worker, "epoch": self.molecule.epoch, **values}
        bead = self.store.commit(self.actor, [kind.model_validate(fields)]).beads[-1]
        assert bead is not None, "only a claim may find nothing"
        return bead

    def check(self) -> None:
        """See that it still is ours, before something is touched that would be a successor's.

        Raises:
            Fenced: it is somebody else's by now.
        """
        lease = self.store.snapshot().need(self.molecule.id).lease
        if lease is None or (lease.worker, lease.epoch) != (self.worker, self.molecule.epoch):
            raise Fenced(f"{self.worker} no longer holds {self.molecule.id} under epoch {self.molecule.epoch}")

    def decide(self, decision: Decision) -> None:
        """Do what follows from the newest state, decided and stored in one."""
        self.store.commit(self.actor, decision)
