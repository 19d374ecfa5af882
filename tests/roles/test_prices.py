"""What tokens cost: by LiteLLM's own list, by ``town.toml``, or unknown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from beads.model import Usage
from roles.prices import listed, price
from roles.settings import Prices

USED = Usage(input=1_000_000, cached=400_000, written=100_000, output=10_000, reasoning=5_000)


def test_each_kind_of_token_has_its_price() -> None:
    prices = Prices(input=3, cached=0.3, written=3.75, output=15)
    assert price("anything", USED, prices) == pytest.approx(1.5 + 0.12 + 0.375 + 0.15)
    # A cache without a price of its own costs what there is without one.
    assert price("anything", USED, Prices(input=3, output=15)) == pytest.approx(3 + 0.15)
    assert price("anything", USED, Prices(input=0, output=0)) == 0


def test_the_list_knows_the_cache() -> None:
    assert listed("claude-sonnet-4-5") == Prices(input=3, cached=0.3, written=3.75, output=15)
    assert price("claude-sonnet-4-5", USED) == pytest.approx(1.5 + 0.12 + 0.375 + 0.15)


@pytest.mark.parametrize(
    "one,other",
    [
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("openai/gpt-4o", "gpt-4o"),
        ("gemini-2.5-pro", "gemini/gemini-2.5-pro"),
        ("google/gemini-2.5-pro", "gemini/gemini-2.5-pro"),
    ],
)
def test_one_model_has_many_names(one: str, other: str) -> None:
    assert listed(one) == listed(other) is not None


@pytest.mark.parametrize(
    "model",
    ["", "no-such-model", "ollama/llama3", "somebody/gpt-4o", "github-copilot/gpt-4o", "/", "openai/", "sample_spec"],
)
def test_what_nobody_knows_has_no_price(model: str) -> None:
    assert price(model, USED) is None


def test_the_list_is_read_without_loading_litellm() -> None:
    code = "import sys; from roles.prices import listed; assert listed('gpt-4o'); sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
