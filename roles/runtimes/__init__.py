"""How an agent is run for one attempt at a step, and how what it prints is read. One small file for each kind.

A runtime only says what to start, and what its program's words mean. Starting it, its limits, its surroundings and
what its result is worth belong to the polecat, so that every runtime is contained and judged alike.
"""

from __future__ import annotations

import re
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

    The Mayor's model is asked by this very process, with the key that LiteLLM finds by the provider's name.

    Raises:
        InvalidInput: what is to be allowed is not the name of a variable.
    """
    names = [name for agent in settings.agents.values() for name in names_for(agent)]
    gate = settings.gate.environment if settings.gate else ()
    mayor = [_key_of(model) for model in (settings.mayor.model, *settings.mayor.models) if model]
    return secrets(environ, (*names, *settings.review.environment, *gate, *mayor))


def _key_of(model: str) -> str:
    """The variable with the key for a model, as LiteLLM names both."""
    provider = model.partition("/")[0] if "/" in model else "anthropic" if "claude" in model else "openai"
    return re.sub(r"\W", "_", provider.upper()) + "_API_KEY"
