"""``town flakes``: the tests that failed for nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cli.session import Session, command

if TYPE_CHECKING:
    from datetime import datetime

    from refinery.verdicts import Flake


@command("flakes")
@click.option("--since", metavar="DAY", type=click.DateTime(["%Y-%m-%d"]), help="No verdict from before, in UTC.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show.")
@click.pass_obj
def flakes(session: Session, since: datetime | None, limit: int) -> None:
    """List the tests that failed for nothing: flaky ones, the most frequent first.

    One that failed on a tree which passed as well, under the same gate and in the same environment, or which failed at
    other tests the next time. It follows from the verdicts on merge requests. Only what was about to send somebody back
    is run again, so that there are more flaky tests than these. --json has all of them.

    \b
    Example:
      town flakes
      town flakes --since 2026-01-01 --json
    """
    from datetime import UTC

    from cli.render import echo_json, table
    from refinery.verdicts import flake_rate
    from refinery.verdicts import flakes as found_in

    requests = list(session.store.snapshot().submitted())
    begin = since.replace(tzinfo=UTC) if since else None
    found, rate = found_in(requests, begin), flake_rate(requests, begin)
    if session.json:
        echo_json({"flakes": [asdict(one) for one in found], **rate._asdict(), "rate": rate.rate})
        return
    if not found:
        click.echo(f"no test is known to fail for nothing ({rate.runs} runs)")
        return
    click.echo(table([_cells(one) for one in found[:limit]], ["FAILED", "TREES", "LAST", "TEST", "COMMAND"]))
    if len(found) > limit:
        click.echo(f"and {len(found) - limit} more")
    click.echo(f"{rate.failures} of {rate.runs} runs on good trees failed for nothing: {rate.rate:.1%}")


def _cells(one: Flake) -> list[str]:
    return [str(one.failures), str(one.trees), f"{one.last:%Y-%m-%d}", one.test or "(no name)", one.command]
