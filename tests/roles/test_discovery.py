"""What a machine has to think with, with real servers on ports of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from beads.toml import loads
from roles.discovery import (
    PLACES,
    PROVIDERS,
    Found,
    Key,
    Place,
    Program,
    Provider,
    Server,
    advice,
    keys_for,
    look,
)
from roles.prices import listed
from roles.runtimes import RUNTIMES
from roles.settings import read_settings

Serve = Callable[[Mapping[str, bytes]], str]

OLLAMA = json.dumps({"models": [{"name": "nomic-embed-text:latest"}, {"name": "qwen3:8b"}, {"size": 1}, 3]}).encode()
OPENAI = json.dumps({"object": "list", "data": [{"id": "Qwen/Qwen3-Coder"}]}).encode()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that answer with these texts at these paths; gives the address of each."""
    servers: list[ThreadingHTTPServer] = []
    ended = threading.Event()

    def start(answers: Mapping[str, bytes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = answers.get(self.path)
                if said == b"SILENCE":
                    ended.wait()
                elif said == b"ELSEWHERE":
                    self.send_response(302)
                    self.send_header("Location", "/v1/models/elsewhere")
                    self.end_headers()
                elif said == b"DRIP":
                    self.send_response(200)
                    self.end_headers()
                    while not ended.wait(0.05):
                        self.wfile.write(b" ")
                else:
                    self.send_response(404 if said is None else 200)
                    self.end_headers()
                    self.wfile.write(said or b"")

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_servers_and_what_they_have(serve: Serve) -> None:
    ollama = Place("Ollama", serve({"/api/tags": OLLAMA}), "ollama")
    vllm = Place("vLLM", serve({"/v1/models": OPENAI}))
    empty = Place("LM Studio", serve({"/v1/models": b'{"data": []}'}))
    found = look({}, [ollama, vllm, empty]).servers
    assert found == (
        Server(ollama, ("nomic-embed-text:latest", "qwen3:8b")),
        Server(vllm, ("Qwen/Qwen3-Coder",)),
        Server(empty, ()),
    )
    assert [server.example for server in found] == ["ollama_chat/qwen3:8b", "openai/Qwen/Qwen3-Coder", ""]
    assert [server.api_base for server in found[:2]] == [ollama.address, f"{vllm.address}/v1"]


@pytest.mark.parametrize(
    "said",
    [
        b"<html>Hello</html>",
        b"[]",
        b"{}",
        b'{"data": "all"}',
        b"\xff\xfe",
        b'{"data": ' + b"[" * 100_000,
        b"ELSEWHERE",
        b"SILENCE",
        b"DRIP",
    ],
)
def test_whatever_else_is_at_the_port_is_no_server(serve: Serve, said: bytes) -> None:
    moved = {"/v1/models/elsewhere": OPENAI}
    there, other = serve({"/v1/models": said, **moved}), serve({"/v1/models": OPENAI})
    found = look({}, [Place("vLLM", there), Place("LM Studio", other), Place("llama.cpp", "http://127.0.0.1:1")])
    assert [server.place.name for server in found.servers] == ["LM Studio"]


def test_a_server_cannot_name_a_model_what_it_likes(serve: Serve) -> None:
    names = ["", "a\nb", "\x1b[31m", "x" * 5000, 'a"b', "c"]
    told = json.dumps({"data": [{"id": name} for name in names]}).encode()
    (found,) = look({}, [Place("vLLM", serve({"/v1/models": told}))]).servers
    assert found.models == ('a"b', "c")
    assert read_settings(advice(Found(servers=(found,))).split("\n\n")[1].encode()).mayor.model == 'openai/a"b'


@pytest.mark.parametrize("form", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "0.0.0.0:{port}", ":{port}"])
def test_ollama_may_be_elsewhere(serve: Serve, form: str) -> None:
    address = serve({"/api/tags": OLLAMA})
    said = form.format(port=address.rpartition(":")[2])
    (found,) = look({"OLLAMA_HOST": said}, [Place("Ollama", "http://127.0.0.1:1", "ollama")]).servers
    assert found.place.address == address


@pytest.mark.parametrize("said", ["127.0.0.1:port", "ftp://127.0.0.1", "[::1", " ", "a b"])
def test_where_ollama_cannot_be_is_passed_over(serve: Serve, said: str) -> None:
    place = Place("Ollama", serve({"/api/tags": OLLAMA}), "ollama")
    found = look({"OLLAMA_HOST": said}, [place]).servers
    assert [server.place for server in found] == ([] if said == "a b" else [place])


def test_no_proxy_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", serve({}))
    place = Place("vLLM", serve({"/v1/models": OPENAI}))
    assert [server.place for server in look({}, [place]).servers] == [place]


def test_keys_by_their_names_alone() -> None:
    found = look({"ANTHROPIC_API_KEY": "sk-ant-secret", "OPENAI_API_KEY": " ", "GOOGLE_API_KEY": "secret"}, [])
    assert [(key.variable, key.provider.name) for key in found.keys] == [
        ("ANTHROPIC_API_KEY", "Anthropic"),
        ("GOOGLE_API_KEY", "Google"),
    ]
    assert "secret" not in f"{found!r}{found.in_words()}{advice(found)}"


# LiteLLM's list leaves out OpenRouter, which has a list of its own.
LISTED = [provider for provider in PROVIDERS if provider.name != "OpenRouter"]


@pytest.mark.parametrize("provider", LISTED, ids=lambda provider: provider.name)
def test_the_example_of_each_provider_is_known_to_litellm(provider: Provider) -> None:
    assert listed(provider.model) is not None


@pytest.mark.parametrize(
    "model, keys",
    [
        ("anthropic/claude-opus-4-5", ("ANTHROPIC_API_KEY",)),
        ("gemini/gemini-2.5-flash", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        ("ollama_chat/qwen3", ()),
        ("gpt-5", ()),
    ],
)
def test_which_keys_a_model_takes(model: str, keys: tuple[str, ...]) -> None:
    assert keys_for(model) == keys


def test_programs_on_the_path(tmp_path: Path) -> None:
    for name, runs in (("claude", True), ("amp", True), ("codex", False)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755 if runs else 0o644)
    found = look({"PATH": str(tmp_path)}, []).programs
    assert found == (
        Program("claude", str(tmp_path / "claude"), RUNTIMES["claude"].tried),
        Program("amp", str(tmp_path / "amp"), ""),
    )
    assert "has not been run for real" in advice(Found(programs=found[1:]))


# ── Saying ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_advice_can_be_copied_as_it_is() -> None:
    found = Found(
        (Program("claude", "/usr/bin/claude", "1.0"),),
        (Key("OPENAI_API_KEY", PROVIDERS[1]),),
        (Server(PLACES[0], ("qwen3:8b",)), Server(PLACES[3], ("Qwen/Qwen3",))),
    )
    text = advice(found)
    body = text.split("\n\nWithout any model:")[0]
    choices = [f"[mayor]{part}" for part in body.split("    [mayor]")[1:]]
    mayors = [read_settings(choice.encode()).mayor for choice in choices]
    assert [(mayor.agent, mayor.model, mayor.api_base) for mayor in mayors] == [
        ("claude", "", ""),
        ("", "openai/gpt-5", ""),
        ("", "ollama_chat/qwen3:8b", "http://127.0.0.1:11434"),
        ("", "openai/Qwen/Qwen3", "http://127.0.0.1:8000/v1"),
    ]
    assert "town mayor --plan FILE" in text
    assert found.in_words() == (
        "claude (/usr/bin/claude), $OPENAI_API_KEY, Ollama at http://127.0.0.1:11434 with 1 model, "
        "the port of vLLM at http://127.0.0.1:8000 with 1 model"
    )


def test_where_there_is_nothing_it_says_what_there_could_be() -> None:
    text = advice(Found())
    assert "Nothing to think with was found" in text
    assert "$ANTHROPIC_API_KEY" in text
    assert "claude, codex" in text
    assert "Ollama (11434)" in text
    assert "town mayor --plan FILE" in text
    for choice in text.split("\n\nWithout any model:")[0].split("    [mayor]")[1:]:
        assert loads(f"[mayor]{choice}".encode(), "town.toml")["mayor"]


def test_a_server_without_a_model_is_told_of() -> None:
    text = advice(Found(servers=(Server(PLACES[0], ("nomic-embed-text",)), Server(PLACES[0], ()))))
    assert "# Ollama at http://127.0.0.1:11434 with 1 model, none that can be talked to" in text
    assert text.count("`ollama pull qwen3` gets one") == 2
    assert "model = " not in text
