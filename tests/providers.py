"""A model's provider for tests: a real HTTP server that speaks the protocols, with answers said in advance.

It answers OpenAI's chat completions, Anthropic's messages and Ollama's chat, by the path it is asked on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Uses:
    """An answer that wants tools used: each a name and its arguments, which may also be a text that is no JSON.

    ``sent`` of which ``cached`` and ``written``, and ``made`` of which ``reasoned``, are the tokens it reports.
    """

    calls: tuple[tuple[str, object], ...]
    text: str = ""
    sent: int = 1000
    cached: int = 0
    written: int = 0
    made: int = 100
    reasoned: int = 0
    finish: str = "tool_calls"

    def arguments(self) -> Iterator[tuple[str, str]]:
        """The tools and their arguments as text."""
        for name, given in self.calls:
            yield name, given if isinstance(given, str) else json.dumps(given)


def uses(tool: str, **arguments: object) -> Uses:
    """An answer that wants one tool used."""
    return Uses(((tool, arguments),))


@dataclass(frozen=True)
class Fails:
    """An answer that is an error, with headers such as ``retry-after``."""

    status: int
    message: str = "scripted failure"
    code: str = "scripted"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = str | int | Uses | Fails | Callable[[dict[str, Any]], "str | int | Uses | Fails"]


class Provider(ThreadingHTTPServer):
    """Answers with one answer after the other; a text is said, a number is an HTTP status to fail with, and a function
    says what to answer to what was asked.

    Attributes:
        answers: what is still to be said; the last one is said again and again.
        requests: what was asked, as it came.
        keys: the keys it was asked with.
    """

    daemon_threads = True

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []

    @property
    def root(self) -> str:
        """Its address, as the ``api_base`` of Anthropic and Ollama has it."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def base(self) -> str:
        """Its address, as the ``api_base`` of OpenAI has it."""
        return f"{self.root}/v1"


@contextmanager
def provider(*answers: Answer) -> Iterator[Provider]:
    """A provider that runs for as long as the block lasts."""
    with Provider(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/show":
            self._send(200, {"template": "{{ .Tools }}", "model_info": {"qwen3.context_length": 40_960}})
            return
        self.server.requests.append(asked)
        self.server.keys.append(self.headers.get("Authorization", ""))
        said = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if callable(said):
            said = said(asked)
        if isinstance(said, int):
            said = Fails(said, f"scripted failure {said}", str(said))
        if isinstance(said, Fails):
            error = {"message": said.message, "type": "scripted", "code": said.code}
            self._send(said.status, {"error": error}, said.headers)
            return
        if unknown := _unknown(self.path, asked):
            self._send(400, {"error": {"message": f"Unknown parameter: {unknown}", "type": "invalid_request_error"}})
            return
        uses = Uses((), said, finish="stop") if isinstance(said, str) else said
        form = {"/v1/messages": _message, "/api/chat": _ollama}.get(self.path, _completion)
        self._send(200, form(asked["model"], uses, len(self.server.requests)))

    def _send(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on standard error."""


def _unknown(path: str, asked: Mapping[str, Any]) -> set[str]:
    """What OpenAI would not take: it is strict with what a message has."""
    known = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio"}
    inner = {"id", "type", "function"}
    if path != "/v1/chat/completions":
        return set()
    messages = asked["messages"]
    calls = [call for message in messages for call in message.get("tool_calls", [])]
    return {key for message in messages for key in message} - known | {key for call in calls for key in call} - inner


def _completion(model: str, said: Uses, number: int) -> dict[str, Any]:
    calls = [
        {"id": f"call-{number}-{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(said.arguments())
    ]
    message = {"role": "assistant", "content": said.text or None, **({"tool_calls": calls} if calls else {})}
    usage = {
        "prompt_tokens": said.sent,
        "completion_tokens": said.made,
        "total_tokens": said.sent + said.made,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.reasoned},
    }
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "finish_reason": said.finish, "message": message}],
        "usage": usage,
    }


def _message(model: str, said: Uses, number: int) -> dict[str, Any]:
    words = [{"type": "text", "text": said.text}] if said.text else []
    calls = [
        {"type": "tool_use", "id": f"toolu_{number}_{place}", "name": name, "input": json.loads(arguments)}
        for place, (name, arguments) in enumerate(said.arguments())
    ]
    usage = {
        "input_tokens": said.sent - said.cached - said.written,
        "cache_creation_input_tokens": said.written,
        "cache_read_input_tokens": said.cached,
        "output_tokens": said.made,
    }
    reason = "tool_use" if calls else "end_turn"
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [*words, *calls],
        "stop_reason": reason,
        "usage": usage,
    }


def _ollama(model: str, said: Uses, number: int) -> dict[str, Any]:
    del number
    calls = [{"function": {"name": name, "arguments": json.loads(args)}} for name, args in said.arguments()]
    return {
        "model": model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": said.text, **({"tool_calls": calls} if calls else {})},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": said.sent,
        "eval_count": said.made,
    }
