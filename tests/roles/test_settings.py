"""What ``[mayor]`` of ``town.toml`` may say."""

from __future__ import annotations

import pytest

from beads.errors import InvalidInput
from roles.settings import MayorTable, Prices, read_settings


def test_without_a_table_the_mayor_takes_plans_only() -> None:
    assert read_settings(b"").mayor == MayorTable()
    assert not read_settings(b"").mayor.model
    assert not read_settings(b"").mayor.agent


def test_a_model_with_its_limits() -> None:
    text = b"""[mayor]
model = "ollama_chat/qwen3"
models = ["anthropic/claude-sonnet-4-5"]
api_base = "http://localhost:11434"
budget = 0.5
prices = { input = 1, output = 2 }
"""
    found = read_settings(text).mayor
    assert found.models == ("anthropic/claude-sonnet-4-5",)
    assert found.budget == 0.5
    assert found.prices == Prices(input=1, output=2)


def test_an_agent_in_place_of_a_model() -> None:
    text = b'[mayor]\nagent = "claude"\n[agents.claude]\nruntime = "claude"\n'
    assert read_settings(text).mayor.agent == "claude"


@pytest.mark.parametrize(
    "table, problem",
    [
        ('agent = "nobody"', "there is no agent 'nobody'"),
        ('agent = "command"', "the agent 'command' cannot be the Mayor's"),
        ('model = "m"\nagent = "command"', "only one of them"),
        ('models = ["m"]', "'model', which is missing"),
        ('model = "m"\napi_base = "localhost:11434"', "api_base"),
        ('model = "m"\nsteps = 0', "steps"),
        ('modell = "m"', "Did you mean 'model'?"),
    ],
)
def test_a_mayor_table_that_cannot_be(table: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_settings(f"[mayor]\n{table}\n".encode())
    assert problem in f"{caught.value.message} {caught.value.hint}"
