"""The built-in agent through LiteLLM, with a real server: what is asked, what is counted, and a whole molecule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beads import Bead
from beads.model import Usage
from roles.llm import SURROUNDINGS
from tests.providers import Answer, Fails, Provider, Uses, provider, uses
from tests.towns import SETTINGS, TOWN, assert_settled, make_town, molecule, pour, run, snapshot, until
from tests.world import ROOT, git

BUSY = Fails(429, headers={"retry-after": "3600"})
LIST = Uses((("bash", {"command": "ls"}),), text="I look.", sent=1000, cached=400, made=100, reasoned=30)
FULL = Fails(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")


def test_what_litellm_makes_of_providers() -> None:
    claude = Uses((("bash", {"command": "ls"}),), sent=510, cached=300, written=200, made=7)
    fails: list[Answer] = [
        BUSY,
        Fails(503, headers={"retry-after": "9"}),
        Fails(529),
        FULL,
        Fails(401, "bad key"),
        Fails(404),
    ]
    with provider(LIST, LIST, claude, LIST, *fails, "words") as server:
        names = ["openai/gpt-4o-mini", "openai/own", "anthropic/claude-sonnet-4-5", "ollama_chat/qwen3"]
        bases = [server.base, server.base, server.root, server.root, *[server.base] * 7, ""]
        asked = [{"name": n, "api_base": b} for n, b in zip([*names, *[names[0]] * 8], bases, strict=True)]
        environ = {"OLLAMA_API_BASE": server.root, "ANTHROPIC_API_KEY": "planted", **SURROUNDINGS}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tests.roles.talkers"],
            input=json.dumps(asked),
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    # Nobody else is asked for anything: no table of prices, no news, no other server of that kind.
    assert said["connected"] == [f"127.0.0.1:{server.server_port}"]
    listed, own, cached, local, busy, down, over, full, bad, gone, words, keyless = said["told"]
    usage = {"input": 1000, "cached": 400, "written": 0, "output": 100, "reasoning": 30}
    assert (listed["calls"], listed["text"]) == ([["call-1-0", "bash", '{"command": "ls"}']], "I look.")
    assert (listed["usage"], own["usage"]) == (usage, usage)
    assert listed["cost"] == pytest.approx((600 * 0.15 + 400 * 0.075 + 100 * 0.6) / 1e6)
    # Nobody has a price for this one, and one's own machine costs nothing.
    assert (own["cost"], local["cost"]) == (None, 0.0)
    assert cached["usage"] == {"input": 510, "cached": 300, "written": 200, "output": 7, "reasoning": 0}
    assert cached["cost"] == pytest.approx((10 * 3 + 200 * 3.75 + 300 * 0.3 + 7 * 15) / 1e6)
    assert local["calls"][0][1:] == ["bash", '{"command": "ls"}']
    assert [one["window"] for one in (listed, own, cached, local)] == [128_000, 32_768, 200_000, 32_768]
    assert [one["ending"] for one in (busy, down, over)] == ["quota", "provider_unavailable", "provider_unavailable"]
    assert 3500 < busy["seconds"] <= 3600
    assert 0 < down["seconds"] <= 9
    assert [one["ending"] for one in (full, bad, gone)] == ["context_exhausted", "environment", "environment"]
    assert "bad key" in bad["said"]
    assert (words["calls"], words["text"]) == ([], "words")
    assert keyless["ending"] == "environment"
    assert "OPENAI_API_KEY is not set: name it in the agent's `environment`" in keyless["said"]
    # One request for each: whoever wants to ask again does that itself.
    assert len(server.requests) == 11
    assert set(server.requests[0]) == {"model", "messages", "tools"}
    assert json.dumps(server.requests[2]).count("cache_control") == 2
    assert server.requests[3]["options"]["num_ctx"] == 32_768


# ── Whole molecules ──────────────────────────────────────────────────────────────────────────────────────────


def town(path: Path, server: Provider, more: str = "", model: str = "openai/gpt-4o-mini") -> Path:
    table = f'\n[agents.mine]\nruntime = "builtin"\nmodel = "{model}"\napi_base = "{server.base}"\n'
    settings = SETTINGS.replace("[town]\n", '[town]\nagent = "mine"\n') + table + more
    return make_town(path, settings)


def step_of(repository: Path) -> Bead:
    return next(bead for bead in snapshot(repository) if bead.issue_type == "step")


def test_a_molecule_is_worked_to_main_through_a_kill_and_what_it_took_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "planted-key-of-mine")
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-of-openai")
    keys = "cat /proc/$PPID/environ | tr '\\0' '\\n'; env"
    answers: list[Answer] = [
        BUSY,
        uses("bash", command="echo once >> parts/log; kill -9 $PPID; sleep 60"),
        uses("bash", command=f"cat parts/log; rm parts/log; {keys}"),
        Uses((("create", {"path": "parts/mine", "text": "ok\n"}),), text="Now I write.", cached=400, reasoned=10),
        uses("submit", summary="parts/mine says ok."),
    ]
    with provider(*answers) as server:
        more = 'models = ["openai/gpt-4o"]\nenvironment = ["OPENAI_API_KEY", "MY_KEY"]\nresume = true\n'
        repository = town(tmp_path, server, more)
        (repository / "AGENTS.md").write_text("Say ok.\n")
        git(repository, "add", "AGENTS.md")
        git(repository, "commit", "-qm", "Say how to work here")
        pour(repository, molecule("mine", ""))
        run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    killed, good = step_of(repository).attempts
    # The first model was out of quota, so that the next one was asked, at its own price, until the agent was killed.
    assert (killed.ending, killed.end, killed.model) == ("cancelled", "unmet", "openai/gpt-4o")
    assert killed.usage == Usage(input=1000, output=100)
    assert killed.cost == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    assert (good.ending, good.end, good.model) == ("finished", "satisfied", "openai/gpt-4o-mini")
    assert (good.note, good.session) == ("parts/mine says ok.", killed.session)
    assert good.usage == Usage(input=3000, cached=400, output=300, reasoning=10)
    assert good.cost == pytest.approx((2600 * 0.15 + 400 * 0.075 + 300 * 0.6) / 1e6)
    assert [request["model"] for request in server.requests] == ["gpt-4o-mini", "gpt-4o", *["gpt-4o-mini"] * 3]
    _, first, second, third, _ = (request["messages"] for request in server.requests)
    assert '<file path="AGENTS.md">\nSay ok.\n</file>' in first[1]["content"]
    assert "mine is done." in first[1]["content"]
    # The same conversation, with a word about what was being done, and what did not hold.
    assert [message["role"] for message in second] == ["system", "user", "assistant", "tool", "user"]
    assert "It may have had its effect" in second[3]["content"]
    assert second[4]["content"].startswith("# Go on\n")
    assert set(second[2]) <= {"role", "content", "tool_calls"}
    assert third[-1]["content"].startswith("exit 0\nonce\n")
    assert "PAGER=cat" in third[-1]["content"]
    # The agent's own process has the keys. What prints them is not heard of by anybody.
    assert "OPENAI_API_KEY=[redacted]" in third[-1]["content"]
    assert set(server.keys) == {"Bearer planted-key-of-openai"}
    for found in (json.dumps(server.requests), git(repository, "log", "-p", "--all")):
        assert "planted" not in found
    left = subprocess.run(["grep", "-rl", "planted-key", tmp_path], capture_output=True, text=True, check=False)
    assert left.stdout == ""


@pytest.mark.slow
def test_a_provider_without_quota_has_the_work_wait_until_it_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with provider(BUSY) as server:
        repository = town(tmp_path, server, 'environment = ["OPENAI_API_KEY"]\n')
        pour(repository, molecule("mine", ""))
        run(repository, "polecat", "run", ok=(0, 7))
    (attempt,) = step_of(repository).attempts
    assert (attempt.ending, attempt.end, attempt.usage, attempt.cost) == ("quota", "parked", Usage(), 0.0)
    assert attempt.until
    assert 3500 < (attempt.until - attempt.started_at).total_seconds() < 3700
    assert len(server.requests) == 1


@pytest.mark.slow
def test_after_a_kill_of_everything_the_conversation_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    answers: list[Answer] = [
        uses("bash", command=f"echo once >> parts/log; sleep 63.{os.getpid()}"),
        uses("bash", command="cat parts/log; mv parts/log parts/mine; echo ok > parts/mine"),
        uses("submit", summary="It is so."),
    ]
    with provider(*answers) as server:
        repository = town(tmp_path, server, 'environment = ["OPENAI_API_KEY"]\nresume = true\n')
        pour(repository, molecule("mine", ""))
        first = subprocess.Popen([*TOWN, "polecat", "run"], cwd=repository)
        # LiteLLM takes long to load where many tests run at once.
        until(lambda: [*tmp_path.glob("worktrees/*/parts/log")], 120)
        first.kill()
        first.wait()
        run(repository, "up", "--until-idle")
    assert_settled(repository, landed=1)
    died, good = step_of(repository).attempts
    assert (died.end, good.end, good.ending) == ("died", "satisfied", "finished")
    second, third = (request["messages"] for request in server.requests[1:])
    assert [message["role"] for message in second] == ["system", "user", "assistant", "tool", "user"]
    assert third[-1]["content"].startswith("exit 0\nonce\n")
    # What the answer before the kill took is known to nobody any more; the second attempt has its own.
    assert good.usage == Usage(input=2000, output=200)
