"""Trees as bytes say what Git says of them."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beads.objects import raw
from beads.trees import DIRECTORY, FILE, Entry, Tree
from tests.beads.scratch import scratch

_names = st.text("ab-./0z", min_size=1, max_size=4).map(str.encode).filter(lambda name: b"/" not in name)
_shas = st.one_of(st.binary(min_size=20, max_size=20), st.sampled_from([b"\0" * 20, b" 40000 a\0" + b"1" * 11]))
_entries = st.dictionaries(
    _names.filter(lambda name: name not in (b".", b"..", b".git")),
    st.builds(Entry, st.sampled_from([FILE, DIRECTORY, b"100755", b"120000"]), _shas),
    max_size=8,
)


@given(_entries, _entries)
def test_what_was_put_in_is_found_again(first: dict[bytes, Entry], second: dict[bytes, Entry]) -> None:
    tree = Tree(b"").put(first).put(second)
    expected = {**first, **second}
    assert dict(tree.items()) == expected
    assert {name: tree.get(name) for name in expected} == expected
    assert dict(Tree(tree.raw).items()) == expected
    assert Tree(b"").put(expected).raw == tree.raw, "the order in which entries came in shows"
    assert tree.get(b"nobody") is None
    rest = {name: entry for name, entry in expected.items() if name not in second}
    assert tree.put(dict.fromkeys([*second, b"nobody"])).raw == Tree(b"").put(rest).raw


@given(_entries)
@settings(max_examples=15)
def test_git_writes_the_same_bytes(entries: dict[bytes, Entry]) -> None:
    kinds = {DIRECTORY: b"tree"}
    lines = [
        b"%b %b %b\t%b" % (e.mode, kinds.get(e.mode, b"blob"), e.sha.hex().encode(), n) for n, e in entries.items()
    ]
    with scratch() as place:
        done = subprocess.run(
            ["git", "mktree", "--missing", "-z"],
            cwd=place,
            input=b"\0".join([*lines, b""]),
            capture_output=True,
            check=True,
        )
    assert done.stdout.decode().strip() == raw(b"tree", Tree(b"").put(entries).raw).oid


@pytest.mark.parametrize("bytes_", [b"x", b"100644 a\0short", b"100644 a" + b"b" * 30])
def test_what_is_no_tree_is_refused(bytes_: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|not found"):
        Tree(bytes_)
