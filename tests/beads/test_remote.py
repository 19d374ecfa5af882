"""The store through Git's real transports: a path, smart HTTP, and ssh."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from beads.errors import Unreadable
from beads.git import Oid
from beads.ops import Label
from beads.remote import REMOTE_REF, Remote
from tests.beads.clones import Clone, make_hub
from tests.towns import until
from tests.world import git


class Backend(BaseHTTPRequestHandler):
    """`git http-backend` behind a small server; with a password when the server has one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _serve(self, body: bytes) -> None:
        server = self.server
        assert isinstance(server, Server)
        if server.password and self.headers.get("Authorization") != "Basic YWRhOnNlY3JldA==":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="beads"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        environ = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": "ada",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=environ, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().splitlines()]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


class Server(ThreadingHTTPServer):
    """Serves the repositories in a directory."""

    root: Path
    password = False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Backend) as server:
        server.root = tmp_path
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def to_and_fro(url: str, place: Path) -> Oid | None:
    """Everything there is between two clones and a remote at that address; where both are in the end."""
    ada, bob = (Clone.make(url, name, place) for name in ("ada", "bob"))
    ada.begin().sync()
    bob.sync()
    ada.do(Label(id="bt-1", add=("x",)))
    bob.do(Label(id="bt-1", add=("y",)))
    ada.sync()
    assert bob.sync().received == 1
    assert bob.claim("bt-2") is not None
    ada.sync()
    assert ada.head == bob.head
    assert ada.get("bt-1").labels == ("x", "y")
    assert ada.get("bt-2").lease is not None
    return ada.head


def head(hub: Path) -> str:
    """Where the store of a remote is, as Git says."""
    return git(hub, "rev-parse", REMOTE_REF)


def test_by_path_and_url(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    assert to_and_fro(f"file://{hub}", tmp_path) == head(hub)


def test_by_smart_http(server: Server, tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    git(hub, "config", "http.receivepack", "true")
    assert to_and_fro(f"http://127.0.0.1:{server.server_port}/hub.git", tmp_path) == head(hub)


def test_with_the_credentials_that_git_knows(server: Server, tmp_path: Path, home: Path) -> None:
    hub = make_hub(tmp_path)
    git(hub, "config", "http.receivepack", "true")
    server.password = True
    url = f"http://127.0.0.1:{server.server_port}/hub.git"
    with pytest.raises(Unreadable, match=r"cannot be read: fatal: could not read Username .*terminal prompts disabled"):
        Clone.make(url, "eve", tmp_path).begin().sync()
    git(home, "config", "--global", "credential.helper", f"store --file={home / 'secrets'}")
    (home / "secrets").write_text(f"http://ada:secret@127.0.0.1:{server.server_port}\n")
    assert to_and_fro(url, tmp_path) == head(hub)


def test_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(tmp_path)
    # What ssh would do on the other machine, done here: the host is looked at and forgotten.
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    assert to_and_fro(f"ada@example.org:{hub}", tmp_path) == head(hub)
    assert "ada@example.org git-receive-pack" in (tmp_path / "calls").read_text()


def test_the_url_that_git_makes_of_it(tmp_path: Path, home: Path) -> None:
    hub = make_hub(tmp_path)
    git(home, "config", "--global", f"url.{hub}.insteadOf", "hub:beads")
    assert to_and_fro("hub:beads", tmp_path) == head(hub)


def test_a_pre_push_hook_is_about_code(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    ada = Clone.make(hub, "ada", tmp_path).begin()
    path = ada.path / ".git/hooks/pre-push"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    ada.sync()
    assert head(hub) == ada.head


def test_a_remote_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = Clone.make("ada@example.org:hub", "ada", tmp_path).begin()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"sh -c 'read x < {fifo}'")
    remote = Remote(ada.store.repository, "origin", environ=os.environ, timeout=0.3)
    with pytest.raises(Unreadable, match="did not answer within 0 s"):
        remote.fetch()
    # Nobody waits at the other end any more.
    until(lambda: not has_reader(fifo))


def has_reader(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_what_a_hook_has_told_git_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(tmp_path)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    ada = Clone(tmp_path / "ada", "ada")
    monkeypatch.delenv("GIT_DIR")
    Clone.make(hub, "ada", tmp_path).begin()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    ada.sync()
    monkeypatch.delenv("GIT_DIR")
    assert head(hub) == ada.head
