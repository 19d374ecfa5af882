"""What a branch changes, in words for people."""

from __future__ import annotations

from pathlib import Path

from refinery.changes import lines_of, sizes
from refinery.git import Git
from tests.world import commit


def test_each_path_is_told_with_its_lines_on_a_line_of_its_own(repo: Path, environ: dict[str, str]) -> None:
    commit(repo, {"a": "1\n2\n", "gone": "x\n"}, "Old")
    (repo / "picture").write_bytes(b"\0\1\2")
    (repo / "two\nlines \x1b").write_text("x\n")
    (repo / "gone").unlink()
    commit(repo, {"a": "1\n3\n4\n"}, "New")
    g, old, new = Git(repo, environ), "HEAD~1", "HEAD"
    assert sizes(g, old, new, ["a", "other"], ", protected") == [
        "a (+2 -1), protected",
        "gone (+0 -1)",
        "picture (no text)",
        "'two\\nlines \\x1b' (+1 -0)",
    ]
    assert lines_of(g, old, new) == [3, 1, 1, 1]
