"""How an agent is run for one attempt at a step, and how what it prints is read. One small file for each kind.

A runtime only says what to start, and what its program's words mean. Starting it, its limits, its surroundings and
what its result is worth belong to the polecat, so that every runtime is contained and judged alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from refinery.redaction import Secrets
from refinery.sandbox import secrets
from roles.runtimes import (
    aider,
    amp,
    builtin,
    claude,
    codex,
    command,
    copilot,
    cursor,
    gemini,
    goose,
    jsonl,
    mini,
    opencode,
    plain,
)
from roles.settings import Agent, Settings
from roles.task import Runtime

_ALL = (command, plain, claude, codex, gemini, opencode, copilot, aider, mini, cursor, goose, amp, jsonl, builtin)

RUNTIMES: dict[str, Runtime] = {one.RUNTIME.name: one.RUNTIME for one in _ALL}
"""Every kind there is, by name."""


def runtime_of(agent: Agent) -> Runtime:
    """The kind of program that an agent is."""
    return RUNTIMES[agent.runtime]


def names_for(agent: Agent) -> tuple[str, ...]:
    """The names of the variables that an agent may see besides the usual ones."""
    return runtime_of(agent).environment if agent.environment is None else agent.environment


def network_for(agent: Agent) -> bool:
    """Whether an agent has the network."""
    return runtime_of(agent).network if agent.network is None else agent.network


def secrets_in(settings: Settings, environ: Mapping[str, str]) -> Secrets:
    """The values of all variables that any agent, review or gate of a town may see besides the usual ones.

    Raises:
        InvalidInput: what is to be allowed is not the name of a variable.
    """
    names = [name for agent in settings.agents.values() for name in names_for(agent)]
    gate = settings.gate.environment if settings.gate else ()
    return secrets(environ, (*names, *settings.review.environment, *gate))
