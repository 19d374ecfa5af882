"""A model's provider for agent CLIs: a real HTTP server that speaks four protocols, with a script of turns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from beads.model import Usage
from tests.agents import protocols
from tests.agents.protocols import Protocol

USAGE = Usage(input=1200, cached=300, output=40)
"""What a turn uses when it does not say otherwise."""


@dataclass(frozen=True)
class Call:
    """The model runs a shell command with whatever tool for that it was offered."""

    command: str
    usage: Usage = USAGE


@dataclass(frozen=True)
class Text:
    """The model says something and is done."""

    text: str
    usage: Usage = USAGE


@dataclass(frozen=True)
class Fail:
    """The provider refuses, in its own words: ``quota``, ``overloaded`` or ``context``.

    ``reset`` is the moment, in seconds since 1970, that a quota names as its end; 0 names none. Where there is a
    ``memory``, everything is refused that has this text in it, and it is over with the first that has not.
    """

    kind: protocols.Failure
    reset: int = 0
    memory: str = ""


@dataclass(frozen=True)
class Hang:
    """The provider takes the request and says nothing more."""


@dataclass(frozen=True)
class Drop:
    """The provider closes the connection without a word."""


Turn = Call | Text | Fail | Hang | Drop


@dataclass(frozen=True)
class Request:
    """What was asked: where, with which key and headers, and the body.

    ``main`` says whether a turn of the script answered it; the others are for titles, summaries and lists.
    """

    path: str
    key: str
    headers: dict[str, str]
    body: dict[str, Any]
    main: bool


class Provider(ThreadingHTTPServer):
    """Answers each request that offers a tool, or any request if ``toolless``, with the next turn of its script.

    The last turn is said again and again. Requests without tools are the CLI's own: they get a few words.

    Attributes:
        requests: everything it was asked.
        used: what the answers of the script came to; ``aside`` what the other answers did.
        hanging: set once a request hangs.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, turns: Iterable[Turn], toolless: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.turns = list(turns)
        self.toolless = toolless
        self.requests: list[Request] = []
        self.used = Usage()
        self.aside = Usage()
        self.hanging = threading.Event()
        self.closing = threading.Event()
        self.guard = threading.Lock()

    @property
    def base(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def keys(self) -> set[str]:
        """The keys that it was asked with."""
        return {request.key for request in self.requests}

    def next(self, asked: dict[str, Any], main: bool) -> Turn:
        """What to answer, which counts as used."""
        with self.guard:
            turn = self.turns[0]
            if isinstance(turn, Fail) and turn.memory:
                if turn.memory in json.dumps(asked):
                    return turn
                del self.turns[0]
            if not main:
                self.aside += protocols.ASIDE
                return Text("A word aside", protocols.ASIDE)
            turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
            if isinstance(turn, Call | Text):
                self.used += turn.usage
            return turn

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that was killed is what some tests are about."""


@contextmanager
def provider(*turns: Turn, toolless: bool = False) -> Iterator[Provider]:
    """A provider that runs for as long as the block lasts."""
    with Provider(turns, toolless) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._note({}, main=False)
        path = urlsplit(self.path).path
        if "/models" in path:
            self._json(200, protocols.models(path, gemini="v1beta" in path))
        else:
            self._json(404, {"error": {"message": f"nothing at {path}", "type": "not_found_error"}})

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = protocols.asked(path, self._body())
        protocol = protocols.of(path)
        if protocol is None:
            self._note(body, main=False)
            self._json(*protocols.elsewhere(path))
            return
        main = self.server.toolless or bool(protocol.tools(body))
        self._note(body, main)
        self._answer(protocol, body, self.server.next(body, main))

    def _answer(self, protocol: Protocol, asked: dict[str, Any], turn: Turn) -> None:
        match turn:
            case Hang():
                self.server.hanging.set()
                self.server.closing.wait()
                self.close_connection = True
            case Drop():
                self.close_connection = True
            case Fail(kind=kind, reset=reset):
                status, body, headers = protocol.failure(kind, reset)
                self._json(status, body, headers)
            case Text(text=text, usage=usage):
                self._send(protocol, asked, text, None, usage)
            case Call(command=command, usage=usage):
                tool = protocols.shell_tool(protocol.tools(asked))
                self._send(protocol, asked, "", (tool, protocols.arguments(tool, command)), usage)

    def _send(
        self, protocol: Protocol, asked: dict[str, Any], text: str, call: protocols.Call | None, usage: Usage
    ) -> None:
        answer = protocols.Answer(asked["model"], text, call, usage, len(self.server.requests))
        if not asked.get("stream"):
            self._json(200, protocol.whole(answer))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.writelines(protocol.events(answer))
        self.close_connection = True

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body: object = json.loads(data)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {"list": body}

    def _note(self, body: dict[str, Any], main: bool) -> None:
        parts, headers = urlsplit(self.path), {k.lower(): v for k, v in self.headers.items()}
        key = headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key")
        key = key or headers.get("authorization", "").removeprefix("Bearer ")
        key = key or parse_qs(parts.query).get("key", [""])[0]
        self.server.requests.append(Request(parts.path, key, headers, body, main))

    def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on standard error."""
