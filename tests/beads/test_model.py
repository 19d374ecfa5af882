"""What is stored: ids that are safe as file and branch names, and beads that keep every byte."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from beads.errors import InvalidInput, Unreadable
from beads.model import (
    Attempt,
    Bead,
    Criterion,
    Dependency,
    Evidence,
    Lease,
    MergeRequest,
    check_id,
    derived_id,
    milliseconds,
    path_of,
    read_bead,
    write_bead,
)
from tests.beads.strategies import IDS, MOMENTS, NOW, WORDS, bead, beads, needs, part_of

GOOD = [
    "bt-7f3a9c",
    "bt-7f3a9c.2",
    "bt-7f3a9c.10.3",
    "A",
    "0",
    "_",
    "a_b-c",
    "a.-b",
    "HEAD",
    "x" * 128,
    "lock",
    "a.b.lock.c",
]
BAD = [
    "", ".", "..", "../x", "a/b", "/a", "a\\b", "x.lock", "a.b.lock", "-rf", "-", ".a", "a.", "a..b", "a b", " a",
    "a\n", "\na", "a\x00", "é", "bt-😀", "a:b", "a~1", "a^", "a?", "a*", "a[", "a@{1}", "@", "a'", "\ud800", "٣",
    "x" * 129, "x" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_id_may_be(text: str) -> None:
    assert check_id(text) == text
    assert bead(text).id == text


@pytest.mark.parametrize("text", BAD, ids=lambda text: f"{ascii(text)[:20]}-{len(text)}")
def test_an_id_may_not_be(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a bead id") as caught:
        check_id(text)
    assert len(caught.value.message) < 1000
    with pytest.raises(InvalidInput):
        path_of(text)
    with pytest.raises(ValidationError):
        bead(text)
    with pytest.raises(ValidationError):
        Dependency(on=text)


@pytest.mark.parametrize("text", [text for text in GOOD if text != "HEAD"])
def test_an_id_can_be_a_branch(text: str) -> None:
    asked = subprocess.run(["git", "check-ref-format", f"refs/heads/polecat/{text}"], check=False)
    assert asked.returncode == 0


@given(IDS)
def test_an_id_has_one_path(bead_id: str) -> None:
    path = path_of(bead_id)
    assert path == path_of(bead_id)
    assert re.fullmatch(r"beads/[0-9a-f]{2}/[0-9a-f]{2}/[^/]+\.toml", path)
    assert path.rsplit("/", 1)[1] == f"{bead_id}.toml"


def test_the_path_is_the_documented_one() -> None:
    # The layout is on other people's disks: it is a fact, not a choice any more.
    assert path_of("bt-7f3a9c") == "beads/7f/ea/bt-7f3a9c.toml"


@given(st.lists(WORDS, max_size=4))
def test_a_derived_id_is_an_id_and_always_the_same(parts: list[str]) -> None:
    first = derived_id("bt", *parts)
    assert check_id(first) == first == derived_id("bt", *parts)
    assert re.fullmatch(r"bt-[0-9a-z]{6}", first)


def test_a_derived_id_tells_its_parts_apart() -> None:
    made = [derived_id("bt", *parts) for parts in ((), ("",), ("a", "bc"), ("ab", "c"), ("abc",), ('a", "bc',))]
    assert len(set(made)) == len(made)
    assert derived_id("bt", "a", length=12).startswith(derived_id("bt", "a"))


@given(beads())
def test_a_bead_survives_and_so_do_its_bytes(written: Bead) -> None:
    data = write_bead(written)
    read = read_bead(data, "x.toml")
    assert read == written
    assert read.model_extra == written.model_extra
    assert write_bead(read) == data


@given(beads(), beads(), st.sampled_from(sorted(Bead.model_fields)))
def test_a_changed_bead_survives(first: Bead, second: Bead, name: str) -> None:
    changed = first.evolve(**{name: getattr(second, name)})
    assert read_bead(write_bead(changed), "x.toml") == changed


@given(beads())
def test_equal_beads_give_equal_bytes(first: Bead) -> None:
    shuffled = dict(reversed([*dict(first).items()]))
    second = Bead.model_validate(shuffled)
    assert second == first
    assert write_bead(second) == write_bead(first)


def test_one_moment_has_one_way_to_be_written() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert bead("a", created_at=there) == bead("a", created_at=NOW)
    assert write_bead(bead("a", created_at=there)) == write_bead(bead("a", created_at=NOW))


@pytest.mark.parametrize("field", ["created_at", "updated_at", "defer_until", "closed_at"])
def test_a_moment_without_a_zone_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="timezone"):
        bead("a", **{field: NOW.replace(tzinfo=None)})
    text = write_bead(bead("a")) + b"\n"
    told = text.replace(b"created_at", b"was_at", 1) + b"created_at = 2026-01-01T00:00:00\n"
    with pytest.raises(Unreadable, match="created_at"):
        read_bead(told, "x.toml")


def test_a_moment_at_the_end_of_time_is_refused() -> None:
    with pytest.raises(ValidationError, match="out of range"):
        bead("a", created_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))


REQUIRED: list[tuple[str, Any]] = [
    ("lease", Lease(worker="", epoch=1, site="", since=NOW, until=NOW)),
    ("merge", MergeRequest(molecule="a", branch="", head="", base="")),
    ("attempts", (Attempt(number=1, epoch=0, worker="", runtime="", started_at=NOW),)),
    ("evidence", (Evidence(id="", subject="", verdict="pass", at=NOW),)),
]


@pytest.mark.parametrize("field,value", REQUIRED)
def test_what_must_be_there_is_written_even_when_it_is_empty(field: str, value: object) -> None:
    written = bead("a", **{field: value})
    assert read_bead(write_bead(written), "x.toml") == written


def test_what_is_empty_is_left_out_and_zero_is_not() -> None:
    assert write_bead(bead("bt-1", priority=0)).decode() == (
        'id = "bt-1"\ntitle = "The work of bt-1"\nissue_type = "task"\nstatus = "open"\npriority = 0\n'
        "attempts_max = 3\nepoch = 0\n"
        "created_at = 2026-01-02 03:04:05.678000+00:00\nupdated_at = 2026-01-02 03:04:05.678000+00:00\n"
    )


def test_keys_of_a_later_version_are_kept_in_order() -> None:
    said = {"zeta": {"y": [{"deep": ""}], "x": []}, "alpha": "", "Mid": [1, [2.5, "\r\n"]]}
    data = write_bead(bead("a", **said))
    assert [line.split(b" ")[0] for line in data.splitlines() if line[:2] in (b"Mi", b"al")] == [b"Mid", b"alpha"]
    assert read_bead(data, "x").model_extra == said


@pytest.mark.parametrize("value", [None, [None], {"a": None}, object(), b"x"], ids=lambda value: type(value).__name__)
def test_what_toml_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="cannot be written as TOML"):
        write_bead(bead("a", extra=value))


def test_text_that_is_no_text_is_refused() -> None:
    with pytest.raises((InvalidInput, ValidationError)):
        write_bead(bead("a", description="\udcff"))


@pytest.mark.parametrize(
    "data,problem",
    [
        (b'id = "a"\n', "title"),
        (b'id = "../a"\ntitle = "x"\ncreated_at = 2026-01-01T00:00:00Z\nupdated_at = 2026-01-01T00:00:00Z\n', "id"),
        (b"", "id"),
    ],
)
def test_what_is_not_a_bead_is_unreadable_and_says_where(data: bytes, problem: str) -> None:
    with pytest.raises(Unreadable, match=rf"^beads/x\.toml: {problem}: "):
        read_bead(data, "beads/x.toml")


def test_what_is_not_toml_is_refused_with_its_line() -> None:
    with pytest.raises(Unreadable, match=r"^beads/x\.toml:2: "):
        read_bead(b"id = 'a'\n<<<<<<< ours\n", "beads/x.toml")


@pytest.mark.parametrize("title", ["", " ", "\t", "a\nb", "a\rb", "\x1b[31m", "x" * 501])
def test_a_title_is_one_line(title: str) -> None:
    with pytest.raises(ValidationError):
        bead("a", title=title)


@pytest.mark.parametrize(
    "said,problem",
    [
        ({}, "exactly one"),
        ({"run": "x", "file": "y"}, "exactly one"),
        ({"run": " \n"}, "exactly one"),
        ({"file": "/etc/passwd"}, "inside the repository"),
        ({"file": "a/../../b"}, "inside the repository"),
        ({"run": "x", "matches": "y"}, "needs a 'file'"),
        ({"file": "x", "absent": True, "matches": "y"}, "needs a 'file'"),
        ({"file": "x", "matches": "("}, "not a regular expression"),
        ({"run": "x", "diff": ["y"]}, "exactly one"),
        ({"diff": ["/etc/*"]}, "inside the repository"),
        ({"diff": ["a/../../b"]}, "inside the repository"),
        ({"diff": ["a", " "]}, "must be text"),
        ({"diff": ["a\nb"]}, "must be text"),
        ({"run": "x", "lines": 3}, "needs a 'diff'"),
        ({"diff": ["a"], "lines": -1}, "greater than or equal to 0"),
        ({"run": "x", "exit": 256}, "255"),
        ({"run": "x", "timeout": 0}, "greater than 0"),
        ({"run": "x", "timeot": 1}, "not permitted"),
    ],
)
def test_a_criterion_is_of_one_kind_and_makes_sense(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Criterion.model_validate(said)


@pytest.mark.parametrize(
    "criterion,kind,words",
    [
        (Criterion(run="pytest -q"), "run", "run: pytest -q"),
        (Criterion(run="false", exit=1), "run", "run: false (exit 1)"),
        (Criterion(file="a"), "file", "file: a exists"),
        (Criterion(file="a", absent=True), "file", "file: a is absent"),
        (Criterion(file="a", matches="^x"), "file", "file: a matches ^x"),
        (Criterion(diff=("a", "b/**")), "diff", "diff: a b/**"),
        (Criterion(diff=("**",), lines=0), "diff", "diff: ** (at most 0 lines)"),
    ],
)
def test_a_criterion_in_words(criterion: Criterion, kind: str, words: str) -> None:
    assert (criterion.kind, str(criterion)) == (kind, words)


@given(MOMENTS)
def test_milliseconds_are_kept_and_nothing_finer(moment: datetime) -> None:
    kept = milliseconds(moment)
    assert timedelta() <= moment - kept < timedelta(milliseconds=1)
    assert kept.microsecond % 1000 == 0
    assert kept.utcoffset() == timedelta()
    assert milliseconds(kept) == kept


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "other"},
        {"description": "other"},
        {"run": "other"},
        {"criteria": ()},
        {"criteria": (Criterion(run="x", timeout=1),)},
        {"criteria": (Criterion(run="x"), Criterion(run="x"))},
    ],
)
def test_the_seal_is_of_what_the_work_is(changes: dict[str, Any]) -> None:
    sealed = bead("a", description="d", run="r", criteria=(Criterion(run="x"),)).sealed()
    assert sealed.seal == sealed.digest()
    assert sealed.evolve(**changes).digest() != sealed.seal


def test_the_seal_is_of_nothing_else() -> None:
    sealed = bead("a", criteria=(Criterion(run="x"),)).sealed()
    moved = sealed.evolve(status="closed", labels=("x",), priority=0, epoch=7, agent="other", dependencies=needs("b"))
    assert moved.digest() == read_bead(write_bead(moved), "x").digest() == sealed.seal


def test_parent_and_needs_are_read_from_the_dependencies() -> None:
    related = Dependency(on="r", type="related")
    step = bead("a.2", dependencies=(related, *part_of("a", "a.1")))
    assert (step.parent, step.needs) == ("a", ("a.1",))
    assert (bead("a").parent, bead("a").needs) == (None, ())


@pytest.mark.parametrize(
    "made", [bead("a"), Dependency(on="a"), Criterion(run="x")], ids=lambda made: type(made).__name__
)
def test_values_do_not_change(made: BaseModel) -> None:
    name = next(iter(type(made).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, name, "b")
