"""The ``command`` runtime: the step's own ``run`` line. Needs no model; a real way to do codemods."""

from __future__ import annotations

from refinery.processes import shell
from roles.runtimes.plain import silent
from roles.task import Launch, Order, Runtime


def launch(order: Order) -> Launch:
    """Run the step's line as typed; what failed last time is on its standard input."""
    return Launch(shell(order.run or ":"), order.feedback)


RUNTIME = Runtime("command", launch, silent, network=False)
