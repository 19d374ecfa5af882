"""List every function of textkit in the README."""

import re
from pathlib import Path

names = sorted(
    name for path in Path("textkit").glob("*.py") for name in re.findall(r"^def (\w+)", path.read_text(), re.MULTILINE)
)
readme = Path("README.md")
head = readme.read_text().split("\n## Functions")[0].rstrip()
readme.write_text(f"{head}\n\n## Functions\n\n" + "".join(f"- `{name}`\n" for name in names))
