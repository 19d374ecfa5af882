"""Add ``truncate``. The first idea cuts words in two; told what failed, it does better.

What failed at the last attempt is on standard input, as it is for every step of a molecule.
"""

import sys
from pathlib import Path

feedback = sys.stdin.read()
naive = "return text[:width]"
better = 'return text if len(text) <= width else text[: width + 1].rsplit(" ", 1)[0]'
body = better if "AssertionError" in feedback else naive
Path("textkit/truncate.py").write_text(f"def truncate(text: str, width: int) -> str:\n    {body}\n")
Path("tests/test_truncate.py").write_text(
    "import unittest\n\nfrom textkit.truncate import truncate\n\n\n"
    "class Test(unittest.TestCase):\n    def test_whole_words(self) -> None:\n"
    "        self.assertEqual(truncate('hello world again', 9), 'hello')\n"
)
