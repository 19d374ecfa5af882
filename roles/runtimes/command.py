"""The ``command`` runtime: the step's own ``run`` line. Needs no model; a real way to do codemods."""

from __future__ import annotations

from refinery.processes import shell
from roles.settings import Agent
from roles.task import Launch, Task


def launch(agent: Agent, task: Task) -> Launch:
    """Run the step's line as typed; what failed last time is on its standard input."""
    return Launch(shell(task.run or ":"), task.feedback)
