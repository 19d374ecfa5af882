"""Rename ``greet`` to ``hello`` wherever it is used; other functions keep their names."""

import re
import time
from pathlib import Path

time.sleep(1)
for path in [*Path("textkit").glob("*.py"), *Path("tests").glob("*.py")]:
    text = path.read_text()
    path.write_text(re.sub(r"\bgreet\b", "hello", text))
