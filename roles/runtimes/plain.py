"""The ``plain`` runtime: any coding-agent command line that takes a prompt and edits files where it is started."""

from __future__ import annotations

from roles.prompts import compose
from roles.settings import Agent
from roles.task import Launch, Task

PLACE = "{prompt}"


def launch(agent: Agent, task: Task) -> Launch:
    """The configured program, with the prompt of one attempt."""
    return started(agent, compose(task))


def started(agent: Agent, prompt: str) -> Launch:
    """The configured program; the prompt replaces an argument that is exactly ``{prompt}``, else it is on stdin.

    The prompt is data: it is one argument or one stream, never part of a shell line.
    """
    if PLACE in agent.command:
        return Launch([prompt if part == PLACE else part for part in agent.command], "")
    return Launch(list(agent.command), prompt)
