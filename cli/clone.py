"""What this clone is called, in leases and wherever else clones have to be told apart."""

from __future__ import annotations

import contextlib
from pathlib import Path


def clone_name(directory: Path) -> str:
    """The name of the clone whose own files are in ``directory``; found once, and then kept there.

    It must not change when the machine is called something else today, and a copy of the clone is another one.
    """
    import re
    import secrets
    import socket

    name = known_name(directory)
    if name:
        return name
    file = directory / "clone"
    directory.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "clone"
    fresh = file.with_name(f".clone.{secrets.token_hex(8)}")
    fresh.write_text(f"{host}-{secrets.token_hex(4)}\n{directory}\n")
    if file.exists():
        # What is there came along when the clone was copied.
        fresh.replace(file)
    else:
        # Of two processes that look for it at once, both have to find the same.
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(fresh)
        fresh.unlink()
    return known_name(directory)


def known_name(directory: Path) -> str:
    """The name of the clone, if it was ever asked for; otherwise it is empty."""
    try:
        name, _, place = (directory / "clone").read_text().partition("\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return name if place.strip() == str(directory) else ""
