"""The ``plain`` runtime: any coding-agent command line that takes a prompt and edits files where it is started."""

from __future__ import annotations

from roles.prompts import compose
from roles.settings import Agent
from roles.task import Launch, Task

PLACE = "{prompt}"
MODEL = "{model}"


def launch(agent: Agent, task: Task) -> Launch:
    """The configured program, with the prompt of one attempt."""
    return started(agent, compose(task))


def started(agent: Agent, prompt: str) -> Launch:
    """The configured program; the prompt replaces an argument that is exactly ``{prompt}``, else it is on stdin.

    An argument that is exactly ``{model}`` is replaced by the model. Both are data: one argument or one stream, never
    part of a shell line.
    """
    command = [agent.model if part == MODEL else part for part in agent.command]
    if PLACE in command:
        return Launch([prompt if part == PLACE else part for part in command], "")
    return Launch(command, prompt)
