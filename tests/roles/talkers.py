"""A program for tests: talks to models as the built-in agent does, and says whom it connected to.

It reads a list of ``{"name", "api_base"}`` and prints for each what came of it, in one process, as LiteLLM takes
seconds to load.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from beads.clock import SystemClock
from roles.builtin.talk import Entry, NotServed
from roles.builtin.tools import TOOLS, described
from roles.llm import LiteTalker

TALK: list[Entry] = [
    {"role": "system", "content": "Work."},
    {"role": "user", "content": "Make it so."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call-0", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call-0", "content": "exit 0\na.txt\n"},
]

connected: list[str] = []


def watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        connected.append(f"{args[1][0]}:{args[1][1]}" if isinstance(args[1], tuple) else str(args[1]))
    elif event == "socket.getaddrinfo":
        connected.append(f"{args[0]}:{args[1]}")


def said(name: str, api_base: str) -> dict[str, object]:
    talker = LiteTalker(name, SystemClock(), api_base)
    try:
        turn = talker.say(TALK, described(TOOLS), 30.0)
    except NotServed as error:
        left = (error.until - SystemClock().now()).total_seconds() if error.until else None
        return {"ending": error.ending, "said": error.message, "seconds": left, "window": talker.window}
    usage = dict(turn.usage) if turn.usage else None
    return {"calls": turn.calls, "text": turn.text, "usage": usage, "cost": turn.cost, "window": talker.window}


def main() -> None:
    sys.addaudithook(watch)
    told = [said(**asked) for asked in json.load(sys.stdin)]
    sys.stdout.write(json.dumps({"told": told, "connected": sorted(set(connected))}) + "\n")


if __name__ == "__main__":
    main()
