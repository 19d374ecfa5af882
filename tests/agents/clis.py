"""The agent programs that are driven for real: where each is, and how it is told to ask our own provider."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beads.model import Usage
from tests.agents.provider import Call, Provider, Text, Turn

DIRECTORY = os.environ.get("BEADTOWN_AGENTS", "")
"""Where ``.ci/agents.py`` installed them; read before a test's own environment takes the place of the caller's."""

KEY = "sk-planted-key-of-the-agent-0123456789"
"""The key that the provider must be asked with, and that must be found nowhere else."""

Price = Callable[[Usage], float | None]


def priced(sent: float, cached: float, written: float, generated: float) -> Price:
    """A price in US dollars for a million tokens of each kind."""

    def price(usage: Usage) -> float:
        fresh = usage.input - usage.cached - usage.written
        total = fresh * sent + usage.cached * cached + usage.written * written + usage.output * generated
        return total / 1_000_000

    return price


SONNET = priced(3.0, 0.3, 3.75, 15.0)
GPT5 = priced(1.25, 0.125, 1.25, 10.0)
"""Also the price of Gemini 2.5 Pro."""

OPENCODE = "settings/opencode.json"
"""OpenCode's settings, in the repository: there it finds them, whatever else is hidden from it."""

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


def _no_files(_: Provider) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Cli:
    """One program.

    Attributes:
        name: what the runtime is called, and the program in ``installed.json``.
        model: as ``town.toml`` names it.
        environ: variables that lead it to the provider; they are allow-listed in place of the runtime's own.
        arguments: arguments that do, where variables cannot.
        files: settings that do, where neither can, as paths in the repository and texts.
        price: what usage costs, by itself or by our table; None where nobody says.
        toolless: whether the model answers with edits in its text, for want of tools.
        ends: how the model says that it is done: with a text, or by a command.
        cached: whether it tells what came from the cache.
        reasons: whether it tells what was reasoning.
        resumes: whether it can go on with a conversation.
        named: whether it tells what a conversation is called.
        resets: whether it tells when a quota is over.
        counts_failed: whether it tells what a run used that ended in a failure.
    """

    name: str
    model: str
    environ: Callable[[Provider], dict[str, str]]
    arguments: Callable[[Provider], list[str]]
    price: Price
    files: Callable[[Provider], dict[str, str]] = _no_files
    toolless: bool = False
    ends: str = ""
    cached: bool = True
    reasons: bool = True
    resumes: bool = True
    named: bool = True
    resets: bool = False
    counts_failed: bool = True

    def edit(self, path: str, text: str, usage: Usage | None = None) -> Turn:
        """A turn in which the model writes a file."""
        more: dict[str, Any] = {} if usage is None else {"usage": usage}
        if self.toolless:
            return Text(f"Here it is.\n\n{path}\n```\n{text}\n```\n", **more)
        return Call(f"printf '%s\\n' {text} >> {path}", **more)

    def done(self, usage: Usage | None = None) -> Turn:
        """A turn in which the model says that it is done."""
        more: dict[str, Any] = {} if usage is None else {"usage": usage}
        return Call(self.ends, **more) if self.ends else Text("All done.", **more)

    def says(self, text: str, usage: Usage) -> Turn:
        """A turn in which the model says something as its last words."""
        return Call(f"{self.ends}; echo {shlex.quote(text)}", usage) if self.ends else Text(text, usage)

    def seen(self, usage: Usage) -> Usage:
        """What the program can tell of what the provider counted."""
        hidden = {} if self.cached else {"cached": 0, "written": 0}
        return usage.model_copy(update={**hidden, **({} if self.reasons else {"reasoning": 0})})

    @property
    def program(self) -> str:
        """The file to start; empty when it is not installed."""
        return installed(self.name).get("program", "")

    def settings(self, provider: Provider, **more: object) -> str:
        """The table of ``town.toml`` that makes it the town's agent."""
        values: dict[str, object] = {
            "runtime": self.name,
            "model": self.model,
            "command": [self.program],
            "arguments": self.arguments(provider),
            "environment": sorted(self.environ(provider)),
            "timeout": 120.0,
            **more,
        }
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        return f"[agents.{self.name}]\n{lines}"


def installed(name: str) -> dict[str, str]:
    """The program's version and file, or why it is missing."""
    path = Path(DIRECTORY) / "installed.json"
    if not DIRECTORY or not path.is_file():
        return {"missing": "make test-agents installs it"}
    found: dict[str, dict[str, str]] = json.loads(path.read_text())
    return found.get(name, {"missing": "it is not among what .ci/agents.py installs"})


def _claude(provider: Provider) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": provider.base, "ANTHROPIC_API_KEY": KEY, "CLAUDE_CODE_MAX_RETRIES": "2"}


def _codex(_: Provider) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY}


def _codex_arguments(provider: Provider) -> list[str]:
    table = f'{{name="fake",base_url="{provider.base}/v1",env_key="OPENAI_API_KEY",wire_api="responses"'
    retries = ",request_max_retries=1,stream_max_retries=1}"
    return ["-c", 'model_provider="fake"', "-c", f"model_providers.fake={table}{retries}"]


def _plain(*arguments: str) -> Callable[[Provider], list[str]]:
    return lambda _: list(arguments)


def _gemini(provider: Provider) -> dict[str, str]:
    return {"GOOGLE_GEMINI_BASE_URL": provider.base, "GEMINI_API_KEY": KEY}


def _opencode(_: Provider) -> dict[str, str]:
    return {"OPENAI_API_KEY": KEY, "OPENCODE_CONFIG_DIR": str(Path(OPENCODE).parent)}


def _opencode_files(provider: Provider) -> dict[str, str]:
    model = {
        "name": "gpt-5",
        "limit": {"context": 200_000, "output": 8_000},
        "cost": {"input": 1.25, "output": 10, "cache_read": 0.125},
    }
    options = {"baseURL": f"{provider.base}/v1", "apiKey": "{env:OPENAI_API_KEY}"}
    fake = {"npm": "@ai-sdk/openai-compatible", "name": "fake", "options": options, "models": {"gpt-5": model}}
    return {OPENCODE: json.dumps({"provider": {"fake": fake}, "small_model": "fake/gpt-5"})}


def _copilot(provider: Provider) -> dict[str, str]:
    return {
        "COPILOT_PROVIDER_BASE_URL": f"{provider.base}/v1",
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_API_KEY": KEY,
        "COPILOT_MODEL": "gpt-5",
        "COPILOT_OFFLINE": "true",
    }


def _openai(provider: Provider) -> dict[str, str]:
    return {"OPENAI_API_BASE": f"{provider.base}/v1", "OPENAI_API_KEY": KEY}


CLIS = (
    Cli("claude", "claude-sonnet-4-5", _claude, _plain(), SONNET, reasons=False),
    Cli("codex", "gpt-5", _codex, _codex_arguments, GPT5, resets=True),
    Cli("gemini", "gemini-2.5-pro", _gemini, _plain(), GPT5, resets=True),
    Cli("opencode", "fake/gpt-5", _opencode, _plain(), GPT5, _opencode_files),
    Cli("copilot", "gpt-5", _copilot, _plain(), GPT5),
    Cli(
        "aider",
        "openai/gpt-5",
        _openai,
        _plain("--edit-format=whole"),
        GPT5,
        toolless=True,
        cached=False,
        reasons=False,
    ),
    Cli("mini", "openai/gpt-5", _openai, _plain(), GPT5, ends=SUBMIT, resumes=False, named=False),
)
"""All that are driven."""
