"""Signs of life for other machines: one ref for each worker, overwritten and never chained.

A lease ends when it says, unless its worker has said since that it goes on. Saying so in the history of the store
would fill it with heartbeats; a parentless commit that takes the place of the one before leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from beads.git import Oid, Repository
from beads.model import Lease, check_id


class Held(NamedTuple):
    """A lease that a worker says it still needs."""

    bead: str
    epoch: int
    until: datetime


class Key(NamedTuple):
    """Which lease a sign of life is about."""

    bead: str
    epoch: int
    worker: str
    site: str


Renewed = Mapping[Key, datetime]
"""Until when leases are good by what their workers have said since."""


def ref_name(worker: str, site: str) -> str:
    """What the ref of a worker is called: two clones may have workers of one name."""
    digest = hashlib.sha256(site.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{check_id(worker)}/{digest}"


def write(repository: Repository, worker: str, site: str, held: Iterable[Held], now: datetime) -> Oid:
    """Make the commit that is a worker's sign of life; :meth:`beads.remote.Remote.beat` puts it in its place."""
    lines = [f"Lease: {one.bead} {one.epoch} {one.until.isoformat()}" for one in held]
    message = "\n".join([f"{check_id(worker)} is alive", "", f"Worker: {worker}", f"Site: {site}", *lines, ""])
    author = f"{worker} <{worker}@beadtown.invalid>"
    return repository.write(None, {}, parents=(), author=author, when=now, message=message)


def read(messages: Iterable[str]) -> Renewed:
    """What signs of life say, whoever wrote them; what cannot be read says nothing."""
    found: dict[Key, datetime] = {}
    for message in messages:
        facts = re.findall(r"^(Worker|Site|Lease): (.*)$", message, re.M)
        said = {name: value for name, value in facts if name != "Lease"}
        for lease in (value for name, value in facts if name == "Lease"):
            held = _held(lease)
            if held is not None:
                key = Key(held.bead, held.epoch, said.get("Worker", ""), said.get("Site", ""))
                found[key] = max(held.until, found.get(key, held.until))
    return found


def _held(text: str) -> Held | None:
    try:
        bead, epoch, until = text.split(" ")
        moment = datetime.fromisoformat(until)
        return Held(bead, int(epoch), moment) if moment.tzinfo else None
    except ValueError:
        return None


def until(bead: str, lease: Lease, renewed: Renewed) -> datetime:
    """Until when a lease is good: what it says itself, or what its worker has said since."""
    return max(lease.until, renewed.get(Key(bead, lease.epoch, lease.worker, lease.site), lease.until))
