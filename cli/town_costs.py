"""``town costs``: what the agents have cost, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from beads.spending import By, Cost
    from beads.store import Snapshot
    from roles.settings import Settings

_WAYS = ("day", "agent", "model", "molecule")


@command("costs")
@click.option("--by", type=click.Choice(_WAYS), default="day", show_default=True, help="What to add up by.")
@click.option("--since", metavar="DAY", type=click.DateTime(["%Y-%m-%d"]), help="Nothing that began before, in UTC.")
@click.pass_obj
def costs(session: Session, by: By, since: datetime | None) -> None:
    """Print what attempts and reviews have cost: tokens and US dollars, as far as they are known.

    What is sent includes what came from a provider's cache; what is begun counts for the day in UTC that it began.
    UNKNOWN says how many there are that nobody knows the cost of: they are not in the dollars, and are not free.

    \b
    Example:
      town costs
      town costs --by agent --since 2026-01-01
      town costs --by molecule --json | jq 'sort_by(-.cost)[:10]'
    """
    from datetime import UTC

    from beads import spending
    from cli.render import echo_json, table

    snapshot = session.store.snapshot()
    found = spending.costs(snapshot, by, since.replace(tzinfo=UTC) if since else None)
    titles = {one.what: _title(snapshot, one.what) for one in found} if by == "molecule" else {}
    if session.json:
        named = ((one, {"title": titles[one.what]} if titles else {}) for one in found)
        echo_json([{by: one.what, **more, **_numbers(one)} for one, more in named])
        return
    headers = [by.upper(), "ATTEMPTS", "REVIEWS", "SENT", "CACHED", "WRITTEN", "GENERATED", "DOLLARS", "UNKNOWN"]
    rows = [_cells(one) + ([titles[one.what]] if titles else []) for one in found]
    if len(found) > 1:
        rows.append(_cells(_total(found)) + ([""] if titles else []))
    click.echo(table(rows, headers + (["TITLE"] if titles else [])) if rows else "nothing was tried yet")


def _title(snapshot: Snapshot, bead_id: str) -> str:
    bead = snapshot.get(bead_id)
    return bead.title if bead else ""


def _numbers(one: Cost) -> Mapping[str, object]:
    return {name: value for name, value in one._asdict().items() if name != "what"}


def _cells(one: Cost) -> list[str]:
    numbers = (one.attempts, one.reviews, one.input, one.cached, one.written, one.output)
    return [one.what or "(unknown)", *(f"{number:,}" for number in numbers), f"{one.cost:.4f}", str(one.unpriced)]


def _total(found: list[Cost]) -> Cost:
    from beads.spending import Cost

    return Cost._make(["all", *map(sum, zip(*(one[1:] for one in found), strict=True))])


def today_in_words(snapshot: Snapshot, settings: Settings | None, now: datetime) -> list[str]:
    """What a person should know today: what was spent, of how much, and which agents are parked; a line each."""
    from beads.spending import books, costs, day_of
    from roles.routing import in_words

    lines = []
    for one in costs(snapshot, "day", day_of(now))[:1]:
        most = settings.town.budget_day if settings else None
        if most is None and not one.cost and not one.unpriced:
            continue
        of = f" of ${most:.2f}" if most is not None else ""
        unknown = f", {one.unpriced} of unknown cost" if one.unpriced else ""
        tries = "1 attempt" if one.attempts == 1 else f"{one.attempts} attempts"
        lines.append(f"today: ${one.cost:.4f}{of}, {tries}{unknown}; `town costs` says more")
    for agent, park in sorted(books(snapshot, now).parked.items()):
        why = {"quota": "its quota is used up", "provider_unavailable": "its provider does not answer"}
        lines.append(f"agent {agent} is parked until {in_words(park.until, now)}: {why.get(park.ending, park.ending)}")
    return lines


def today_as_json(snapshot: Snapshot, now: datetime) -> dict[str, object]:
    """The same for programs."""
    from beads.spending import books, costs, day_of

    found = costs(snapshot, "day", day_of(now))[:1]
    parked = books(snapshot, now).parked.items()
    return {
        "today": dict(_numbers(found[0])) if found else None,
        "parked": [{"agent": agent, "until": park.until, "ending": park.ending} for agent, park in sorted(parked)],
    }
