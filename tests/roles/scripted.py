"""A coding agent for tests: a program that does what it is told, and the reader for the lines that it prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from textwrap import dedent

from beads.model import Usage
from refinery.processes import Exit
from roles.events import Acted, Began, Ended, Event, Said, Troubled, Used

_BEGIN = r"""
import json, os, signal, sys, time

def write(data):
    while data:
        data = data[os.write(1, data):]

def tell(event, **values):
    write(json.dumps({"event": event, **values}).encode() + b"\n")

def spend(cost=None, **usage):
    tell("used", cost=cost, usage=usage or None)

def hang():
    while True:
        time.sleep(600)

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)

def on_term(do):
    signal.signal(signal.SIGTERM, lambda *_: do())

def escape(path):
    # Forked twice, in a session of its own, as a daemon is: True in there, with its id in that file.
    if os.fork():
        os.wait()
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    return True
"""


def agent(work: str) -> list[str]:
    """The command line of an agent that does this, in Python, with ``tell`` and the like at hand."""
    return [sys.executable, "-I", "-S", "-c", f"{_BEGIN}\n{dedent(work)}"]


_KINDS: Mapping[str, Callable[..., Event]] = {
    "began": Began,
    "said": Said,
    "acted": Acted,
    "troubled": Troubled,
    "ended": Ended,
}


class Scripted:
    """Reads what such an agent prints. It is not careful, as one written in a hurry is not."""

    def read(self, line: str) -> Iterable[Event]:
        """The event that a line is; whatever is wrong with it, this fails with."""
        values = json.loads(line)
        kind = values.pop("event")
        if kind == "used":
            return [Used(Usage(**values["usage"]) if values["usage"] else None, values["cost"])]
        return [_KINDS[kind](**values)]

    def end(self, exit: Exit) -> Iterable[Event]:
        """What is said once it has ended, where it did not say so itself."""
        return [Ended("finished" if exit.code == 0 else "cancelled")]
