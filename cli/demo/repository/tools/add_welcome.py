"""Add ``welcome``, which greets a whole crowd, with whatever the greeting function is called today."""

import re
import time
from pathlib import Path

time.sleep(1)
found = re.search(r"^def (\w+)", Path("textkit/words.py").read_text(), re.MULTILINE)
assert found, "textkit/words.py defines no function"
greet = found.group(1)
Path("textkit/welcome.py").write_text(
    f"from textkit.words import {greet}\n\n\n"
    f"def welcome(names: list[str]) -> str:\n    return ' '.join({greet}(name) for name in names)\n"
)
Path("tests/test_welcome.py").write_text(
    "import unittest\n\nfrom textkit.welcome import welcome\n\n\n"
    "class Test(unittest.TestCase):\n    def test_welcome(self) -> None:\n"
    "        self.assertEqual(welcome(['Ada', 'Bob']), 'Hello, Ada! Hello, Bob!')\n"
)
