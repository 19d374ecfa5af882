"""Add a function of textkit with its test, and export it: ``add_module.py slugify``."""

import sys
from pathlib import Path

FUNCTIONS = {
    "slugify": (
        "import re\n",
        "text: str) -> str",
        'return "-".join(re.findall(r"[a-z0-9]+", text.lower()))',
        'self.assertEqual(slugify("Hello, big World"), "hello-big-world")',
    ),
    "wordcount": (
        "",
        "text: str) -> int",
        "return len(text.split())",
        'self.assertEqual(wordcount("one two three"), 3)',
    ),
    "url": (
        "from textkit.slugify import slugify\n",
        "title: str) -> str",
        'return "/posts/" + slugify(title)',
        'self.assertEqual(url("Hello World"), "/posts/hello-world")',
    ),
    "minutes": (
        "from textkit.wordcount import wordcount\n",
        "text: str) -> int",
        "return max(1, wordcount(text) // 200)",
        'self.assertEqual(minutes("word " * 400), 2)',
    ),
}

name = sys.argv[1]
imports, signature, body, check = FUNCTIONS[name]
Path(f"textkit/{name}.py").write_text(f'{imports}\n\ndef {name}({signature}:\n    {body}\n'.lstrip("\n"))
Path(f"tests/test_{name}.py").write_text(
    f"import unittest\n\nfrom textkit.{name} import {name}\n\n\n"
    f"class Test(unittest.TestCase):\n    def test_{name}(self) -> None:\n        {check}\n"
)
package = Path("textkit/__init__.py")
line = f"from textkit.{name} import {name} as {name}\n"
if line not in package.read_text():
    package.write_text(package.read_text() + line)
