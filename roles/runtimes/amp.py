"""Amp: ``amp -x --stream-json``, which prints what Claude Code does. It needs an account, and was not run for real."""

from __future__ import annotations

import json

from roles.runtimes import claude, stream
from roles.task import Launch, Order, Runtime

_EDITING = [{"tool": "Bash", "action": "reject"}, {"tool": "mcp__*", "action": "reject"}]


def launch(order: Order) -> Launch:
    """The prompt is on standard input. What it may do is in a file of settings of its own; it chooses its model."""
    settings = order.home / ".config" / "amp" / "settings.json"
    argv = [
        *stream.program(order, "amp"),
        *(["threads", "continue", order.session] if order.resume else []),
        "--execute",
        "--stream-json",
        f"--settings-file={settings}",
        *order.agent.arguments,
    ]
    allowed = {"amp.dangerouslyAllowAll": True} if order.confined else {"amp.permissions": _EDITING}
    text = json.dumps({"amp.updates.mode": "disabled", "amp.notifications.enabled": False, **allowed})
    return Launch(argv, order.prompt, stream.housing(order.home), {settings: text})


RUNTIME = Runtime(
    "amp",
    launch,
    claude.Reader,
    program="amp",
    environment=("AMP_API_KEY", "AMP_URL", *stream.NET),
    credentials=(".local/share/amp/secrets.json",),
    resumes=True,
    at_terminal=("threads", "continue", "{session}"),
    website="https://ampcode.com",
)
