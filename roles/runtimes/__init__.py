"""How an agent is run for one attempt at a step: argv and standard input, from the task. One small file each.

A runtime only says what to start. Starting it, its limits, its environment and what its result is worth belong
to the polecat, so that every runtime is contained and judged alike.
"""

from __future__ import annotations

from roles.runtimes import command, plain
from roles.settings import Agent
from roles.task import Launch, Task

_RUNTIMES = {"command": command.launch, "plain": plain.launch}


def launch(agent: Agent, task: Task) -> Launch:
    """What to start for ``task``."""
    return _RUNTIMES[agent.runtime](agent, task)
