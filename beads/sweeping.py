"""When Python looks for garbage, and when it had better not."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def unswept() -> Iterator[None]:
    """Without a look for garbage meanwhile: thousands of new beads are none, and each look goes through all of them."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
