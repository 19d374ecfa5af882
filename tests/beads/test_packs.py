"""Packs as we write them are packs as Git writes them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from dulwich.pack import write_pack_index_v2
from hypothesis import given
from hypothesis import strategies as st

from beads import packs
from beads.objects import raw
from tests.beads.scratch import scratch
from tests.world import git


def record(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    return kind, data, bytes.fromhex(raw(kind, data).oid)


RECORDS = st.lists(
    st.builds(record, st.just(b"blob"), st.binary(max_size=5000)),
    unique_by=lambda one: one[2],
    max_size=300,
)


@given(RECORDS, st.integers(-1, 9))
def test_git_makes_the_same_index_of_our_pack(records: list[tuple[bytes, bytes, bytes]], level: int) -> None:
    file = io.BytesIO()
    entries, checksum = packs.write(file, records, level)
    with scratch() as place:
        (place / "x.pack").write_bytes(file.getvalue())
        assert git(place, "index-pack", "x.pack") == checksum.hex()
        (place / "ours").write_bytes(packs.index(entries, checksum))
        assert (place / "x.idx").read_bytes() == (place / "ours").read_bytes()
        listing, shas = packs.Listing(str(place / "ours")), sorted(sha for _, _, sha in records)
        assert list(listing) == shas
        assert all(sha in listing for sha in shas)
        assert not any(sha in listing for sha in (bytes(20), b"\xff" * 20, b"\x80" * 20) if sha not in shas)


def test_git_reads_a_large_pack_in_which_trees_are_as_they_are(tmp_path: Path) -> None:
    def entry(number: int) -> bytes:
        return b"100644 %07d\0%b" % (number, hashlib.sha1(b"%d" % number).digest())

    trees = [record(b"tree", b"".join(map(entry, range(n, n + n % 40)))) for n in range(1, 1000)]
    # One of more than a block can hold, and a blob.
    records = [record(b"blob", bytes(1000)), record(b"tree", b"".join(map(entry, range(2000)))), *trees]
    sizes = []
    for level in (packs.FASTEST, packs.FASTEST + 1):
        with (tmp_path / f"{level}.pack").open("wb") as file:
            _, checksum = packs.write(file, records, level)
        assert git(tmp_path, "index-pack", f"{level}.pack") == checksum.hex()
        sizes.append((tmp_path / f"{level}.pack").stat().st_size)
    least = sum(len(data) for kind, data, _ in records[2:])
    assert sizes[1] < least < sizes[0]


@given(st.sets(st.integers(0, 5000), max_size=200), st.sets(st.integers(0, 5000), max_size=200), st.booleans())
def test_a_listing_holds_another_when_it_has_all_of_it(some: set[int], more: set[int], whole: bool) -> None:
    with scratch() as place:

        def listed(numbers: set[int]) -> packs.Listing:
            shas = [hashlib.sha1(str(number).encode()).digest() for number in numbers]
            path = place / f"{len(list(place.iterdir()))}.idx"
            path.write_bytes(packs.index([packs.Entry(sha, 0, 0) for sha in shas], bytes(20)))
            return packs.Listing(str(path))

        there = some | more if whole else some
        few = set(list(more)[:3])
        # Some are looked for one by one, others are gone through.
        for others in ([more], [few], [more, few, set(), some], [few, few]):
            assert listed(there).holds([listed(other) for other in others]) == [other <= there for other in others]


@given(st.dictionaries(st.binary(min_size=20, max_size=20), st.integers(0, 1 << 40), max_size=50))
def test_what_lies_far_behind_is_found(places: dict[bytes, int]) -> None:
    entries = [packs.Entry(sha, at, at % (1 << 32)) for sha, at in places.items()]
    expected = io.BytesIO()
    write_pack_index_v2(expected, sorted((e.sha, e.at, e.crc) for e in entries), bytes(20))
    assert packs.index(entries, bytes(20)) == expected.getvalue()


@pytest.mark.parametrize("content", [b"", b"\377tOc\0\0\0\2", b"x" * 2000, b"\377tOc\0\0\0\2" + b"\1" * 1100])
def test_what_is_no_index_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.idx is not the index of a pack"):
        packs.Listing(str(tmp_path / "x.idx"))
