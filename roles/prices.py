"""What tokens cost: from LiteLLM's own list, which comes with it, unless ``town.toml`` says otherwise.

LiteLLM itself takes seconds to load; its list is a file that is read without it. What is not known is None, never 0.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from beads.model import Usage
from roles.settings import Prices

LIST = "model_prices_and_context_window_backup.json"
"""The file with the list, in LiteLLM's package."""

_SUFFIX = re.compile(r"\[[^\]]*\]$|@.*$|:thinking$")

_GUESSES = ("", "openai/", "anthropic/", "gemini/", "deepseek/", "xai/", "mistral/", "openrouter/")

_ALIASES = {"google": ("gemini", "vertex_ai"), "github-copilot": ("github_copilot",), "amazon-bedrock": ("bedrock",)}
"""What other programs call the providers of LiteLLM."""


def price(model: str, usage: Usage, overrides: Prices | None = None) -> float | None:
    """What so many tokens of a model cost in US dollars, or None when nobody knows.

    Tokens from and to the provider's cache have prices of their own. Where a provider charges more for long prompts,
    this is too low, as nobody tells how long each one was.

    Args:
        model: as LiteLLM, the provider or a coding agent has it, such as ``claude-opus-4-8[1m]`` or ``openai/gpt-5``.
        usage: the tokens.
        overrides: prices that count instead of those of the list.
    """
    prices = overrides or listed(model)
    if prices is None:
        return None
    fresh = max(0, usage.input - usage.cached - usage.written)
    cached = prices.input if prices.cached is None else prices.cached
    written = prices.input if prices.written is None else prices.written
    return (
        fresh * prices.input + usage.cached * cached + usage.written * written + usage.output * prices.output
    ) / 1_000_000


@cache
def listed(model: str) -> Prices | None:
    """The prices of a model in LiteLLM's list, for a million tokens each; None when it has none for it."""
    found = _entry(_SUFFIX.sub("", model.strip()))
    if found is None:
        return None
    keys = {
        "input": "input_cost_per_token",
        "cached": "cache_read_input_token_cost",
        "written": "cache_creation_input_token_cost",
        "output": "output_cost_per_token",
    }
    prices = {name: _million(found.get(key)) for name, key in keys.items()}
    sent, generated = prices["input"], prices["output"]
    # Models of local servers and of subscriptions are listed at 0, as are some that nobody has a price of.
    if sent is None or generated is None or not (sent or generated):
        return None
    return Prices(input=sent, output=generated, cached=prices["cached"], written=prices["written"])


def _entry(model: str) -> Mapping[str, object] | None:
    """What the list has of a model: under that name, or under that of its provider before or without it."""
    names = _list()
    provider, slash, rest = model.partition("/")
    if not slash:
        return next((names[guess + model] for guess in _GUESSES if guess + model in names), None)
    if model in names:
        return names[model]
    for known in _ALIASES.get(provider, (provider,)):
        if f"{known}/{rest}" in names:
            return names[f"{known}/{rest}"]
        # Under the bare name, but only where it is that provider's: another one's has another price.
        if rest in names and str(names[rest].get("litellm_provider")).startswith(known):
            return names[rest]
    return None


def _million(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value) * 1_000_000


@cache
def _list() -> Mapping[str, Mapping[str, object]]:
    spec = importlib.util.find_spec("litellm")
    try:
        path = Path(str(spec.origin)).with_name(LIST) if spec else Path(LIST)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Without the list, nothing is known.
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}
