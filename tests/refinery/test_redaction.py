"""What must not be written down is found in every form in which it stands, and nothing else is touched."""

from __future__ import annotations

import json
import os
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refinery.redaction import (
    REDACTED,
    SECRET_MIN,
    Redacted,
    Secrets,
    files_below,
    redact_at,
    redact_below,
    redact_file,
)

KEY = "sk-9f8e7d6c5b4a3210"


def secrets(*values: str) -> Secrets:
    return Secrets(tuple((f"S{number}", value) for number, value in enumerate(values)))


# ── What counts ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name,value,found",
    [
        ("API_KEY", KEY, [KEY]),
        ("anything", "whatever it is", ["whatever it is"]),
        ("API_KEY", "short", []),
        ("FLAG", "1", []),
        ("ANTHROPIC_BASE_URL", "https://api.example.org/v1", []),
        ("AWS_REGION", "eu-central-1", []),
        ("OPENCODE_CONFIG", "settings/opencode.json", []),
        ("OPENAI_MODEL", "gpt-17-large", []),
        ("region", "eu-central-1", []),
        ("SLACK_WEBHOOK_URL", "https://example.org/T0/B0/x", ["https://example.org/T0/B0/x"]),
        ("KEY_NAME", "long enough", ["long enough"]),
        ("HTTPS_PROXY", "http://me:correct%20horse@proxy:3128", ["correct%20horse", "correct horse"]),
        ("DATABASE_URL", "postgres://me@db/x", []),
        ("DATABASE_URL", "http://[broken", []),
        ("GOOSE_PROVIDER", "anthropic", []),
        ("PYTHONPATH", "/a/directory", []),
        ("TIMEOUT_MS", "30000000", []),
        ("SECRET_NUMBER", "30000000", ["30000000"]),
        ("MONKEY_URL", "https://example.org/", []),
    ],
)
def test_a_value_counts_unless_it_is_short_or_called_like_what_nobody_hides(
    name: str, value: str, found: list[str]
) -> None:
    assert [secret for _, secret in Secrets.among({name: value}).values] == found


def test_secrets_are_not_shown_by_accident() -> None:
    assert KEY not in repr(secrets(KEY))


def test_one_value_of_two_variables_is_one_secret() -> None:
    assert Secrets.among({"ONE_KEY": KEY, "OTHER_KEY": KEY}) == Secrets((("ONE_KEY", KEY),))


# ── Texts ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_taken_out_in_every_form() -> None:
    secret = 'sk-"ä"\n\\x/+5'
    hidden = secrets(secret)
    once = json.dumps(secret)
    twice, plainly = json.dumps(once)[3:-3], json.dumps(secret, ensure_ascii=False)[1:-1]
    for form in (secret, once[1:-1], plainly, twice, quote(secret, "")):
        assert hidden.text(f"a {form} b") == f"a {REDACTED} b", form
        assert hidden.within(f"a {form} b") == hidden.within(f"a {form} b".encode()) == {"S0"}


@given(st.binary(max_size=5), st.binary(max_size=5))
def test_of_a_secret_in_base64_less_than_a_letter_of_it_is_left(before: bytes, after: bytes) -> None:
    for encode in (b64encode, urlsafe_b64encode):
        told = secrets(KEY).text(encode(before + KEY.encode() + after).decode())
        assert REDACTED in told
        assert len(told) <= len(REDACTED) + (len(before) + len(after) + 2) * 8 // 6 + 4


def test_a_long_line_of_a_secret_counts_by_itself() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "short", "-----END PRIVATE KEY-----"]
    hidden = secrets("\n".join(lines))
    assert hidden.text("\n".join(f"+ {line}" for line in lines)) == f"+ {lines[0]}\n+ {REDACTED}\n+ short\n+ {lines[3]}"


def test_of_overlapping_secrets_nothing_is_left() -> None:
    assert secrets("abcd1234", "1234cdef").text("xabcd1234cdefx") == f"x{REDACTED}x"
    assert secrets("abcd1234").text("abcd1234abcd1234") == REDACTED * 2
    assert secrets("a" * 8).text("a" * 12) == REDACTED
    assert secrets("a token:", "a token:12345").text("a token:12345") == REDACTED


def test_what_is_too_short_to_be_a_secret_stays() -> None:
    assert secrets("a", "", "and", "seven 7").text("a and b, seven 7") == "a and b, seven 7"


ALPHABET = "ab-"
VALUES = st.lists(st.text(ALPHABET, min_size=7, max_size=11), max_size=4)


@given(st.text(ALPHABET, max_size=90), VALUES)
def test_no_secret_survives_and_nothing_else_goes(text: str, values: list[str]) -> None:
    said = secrets(*values).text(text)
    long = [value for value in values if len(value) >= SECRET_MIN]
    assert not [value for value in long if value in said]
    if not any(value in text for value in long):
        assert said == text
    parts = said.split(REDACTED)
    assert text.startswith(parts[0])
    assert text.endswith(parts[-1])


@given(st.lists(st.text(ALPHABET, max_size=20), max_size=9), VALUES)
def test_pieces_are_redacted_as_the_whole_is(pieces: list[str], values: list[str]) -> None:
    hidden = secrets(*values)
    stream = hidden.stream()
    told = "".join(stream.feed(piece.encode()).decode() for piece in pieces)
    rest = stream.close().decode()
    whole = hidden.text("".join(pieces))
    begun = [v[:n] for v in values for n in range(SECRET_MIN, len(v)) if len(v) > SECRET_MIN]
    if not any("".join(pieces).endswith(form) for form in begun):
        assert told + rest == whole
    assert not [value for value in values if len(value) >= SECRET_MIN and value in told + rest]


def test_what_cannot_become_a_secret_is_said_at_once() -> None:
    stream = secrets(KEY).stream()
    assert stream.feed(b"a line\n") == b"a line\n"
    assert stream.feed(b"a sk-") == b"a "
    assert stream.feed(b"ip\n") == b"sk-ip\n"
    assert stream.feed(KEY[:-1].encode()) == b""
    # Who was killed in the middle of it has said it nearly.
    assert stream.close() == REDACTED.encode()


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_rewritten_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_bytes(b"\0\xff" + KEY.encode() + b"\n" * 3)
    file.chmod(0o750)
    assert redact_file(file, secrets(KEY)) == {"S0"}
    assert file.read_bytes() == b"\0\xff" + REDACTED.encode() + b"\n" * 3
    assert file.stat().st_mode & 0o777 == 0o750
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_without_secrets_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("nothing")
    before = file.stat()
    assert redact_file(file, secrets(KEY)) == set()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("at", [(1 << 20) - 7, (1 << 20) - len(KEY), 1 << 20])
def test_a_secret_across_what_is_read_at_once_is_found(tmp_path: Path, at: int) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"." * at + KEY.encode() + b"." * (1 << 20))
    assert redact_file(file, secrets(KEY)) == {"S0"}
    assert file.read_bytes() == b"." * at + REDACTED.encode() + b"." * (1 << 20)


def test_a_link_leads_elsewhere_and_is_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(KEY)
    link, telling = tmp_path / "link", tmp_path / "telling"
    link.symlink_to(outside)
    telling.symlink_to(f"to/{KEY}")
    assert redact_file(link, secrets(KEY)) == set()
    assert redact_file(telling, secrets(KEY)) == {"S0"}
    assert telling.readlink() == Path(f"to/{REDACTED}")
    assert outside.read_text() == KEY


def test_names_are_redacted_and_none_is_overwritten(tmp_path: Path) -> None:
    hidden = secrets("ab/cd+efgh")
    for name in ("x/ab/cd+efgh/one", f"x/{REDACTED}/one", "two ab", "y/ab/cd+efgh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    told = redact_at(tmp_path, Path("x/ab/cd+efgh/one"), hidden)
    assert told == [Redacted("S0", f"x/{REDACTED}/one")]
    assert str(told[0]) == "the value of S0 in x/[redacted]/one"
    redact_below(tmp_path, hidden)
    assert sorted(str(path.relative_to(tmp_path)) for path in files_below(tmp_path)) == [
        "two ab",
        f"x/{REDACTED}/one",
        f"x/{REDACTED}/one.2",
        f"y/{REDACTED}",
    ]
    assert not (tmp_path / "x/ab").exists()
    assert (tmp_path / f"x/{REDACTED}/one").read_text() == f"x/{REDACTED}/one"


def test_pipes_and_what_is_gone_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert redact_file(tmp_path / "fifo", secrets(KEY)) == set()
    assert redact_file(tmp_path / "gone", secrets(KEY)) == set()
