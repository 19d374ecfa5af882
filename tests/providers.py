"""A model's provider for tests: a real HTTP server that speaks the protocol, with answers said in advance."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Provider(ThreadingHTTPServer):
    """Answers chat completions with one text after the other; a number is an HTTP status to fail with.

    Attributes:
        answers: what is still to be said; the last one is said again and again.
        requests: what was asked, as it came.
        keys: the keys it was asked with.
    """

    daemon_threads = True

    def __init__(self, *answers: str | int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []

    @property
    def base(self) -> str:
        """Its address, as ``api_base`` has it."""
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def provider(*answers: str | int) -> Iterator[Provider]:
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
        self.server.requests.append(asked)
        self.server.keys.append(self.headers.get("Authorization", ""))
        said = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if isinstance(said, int):
            self._send(said, {"error": {"message": f"scripted failure {said}", "type": "scripted", "code": said}})
        else:
            self._send(200, _completion(asked["model"], said))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on standard error."""


def _completion(model: str, text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }
