"""When a provider may be asked again, from the words in which it says so. Pure: now is an argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

DAYS_MAX = 40
"""The longest wait that is believed, in days: limits of a month are the longest there are."""

_ASK = r"(?:try again|retry|retry[-_ ]?after|retry[-_ ]?delay|reset\w*|available|wait|again|until|after)"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_UNIT = r"(milliseconds?|millis|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)(?![A-Za-z])"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_EPOCH = re.compile(
    r"(?:reset\w*|retry\w*|until|limit reached)[\"']?\s*(?:[:=|]|at)?\s*[\"']?(1\d{9}(?:\d{3})?)(?:\.\d+)?\b", re.I
)
_ISO = re.compile(
    _ASK + r"[^\n]{0,60}?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?\d*)?)\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?", re.I
)
_HTTP = re.compile(r"retry-after[\"']?\s*[:=]?\s*[\"']?(\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT)", re.I)
_SECONDS = re.compile(
    r"(?:retry[-_ ]?after|resets?[-_ ]?(?:in|after))(?:[-_ ]?(?:secs|seconds))?[\"']?\s*(?:[:=]|after)\s*[\"']?"
    r"(\d+(?:\.\d+)?)(?![\w.:-])",
    re.I,
)
_MILLIS = re.compile(r"retry[-_ ]?after[-_ ]?ms[\"']?\s*[:=]\s*[\"']?(\d+)", re.I)
_SPAN = re.compile(
    _ASK + r"[\w\"']{0,12}\s*(?:[:=]|in|for|after|about|at least|of|another|\s)*[\"']?"
    r"((?:\d+(?:\.\d+)?\s*" + _UNIT + r"[\s,]*(?:and\s+)?)+)",
    re.I,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*" + _UNIT, re.I)
_CLOCK = re.compile(
    r"(?:reset\w*|try again|again|available|until)\s*:?\s*(?:at|on|@)?\s*"
    r"(?:(?P<month>[A-Z][a-z]{2})[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s*(?:(?P<year>\d{4}),?\s*)?(?:at\s+)?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap]\.?m\b\.?)?\s*(?:\(?(?P<zone>[A-Z]\w+(?:/[\w/+-]+)?)\)?)?",
    re.I,
)


def until(said: str, now: datetime) -> datetime | None:
    """The moment that a message names for the next try, in UTC; None when it names none that can be believed.

    Knows seconds since 1970, ISO 8601, ``Retry-After``, spans such as ``2h 5m``, and times of a day such as
    ``resets Dec 3, 3pm (UTC)``. A time of a day without a zone is one in the zone of ``now``.
    """
    finders: tuple[Callable[[str, datetime], datetime | None], ...] = (_epoch, _iso, _http, _seconds, _span, _clock)
    for find in finders:
        try:
            found = find(said, now)
        except (ValueError, OverflowError, KeyError, OSError):
            continue
        if found is not None and now < found <= now + timedelta(days=DAYS_MAX):
            # Moments are stored in milliseconds, and a part of one too early is too early.
            return found.astimezone(UTC) + timedelta(microseconds=-found.microsecond % 1000)
    return None


def _epoch(said: str, now: datetime) -> datetime | None:
    found = _EPOCH.search(said)
    return datetime.fromtimestamp(int(found[1][:10]) + (1 if len(found[1]) > 10 else 0), UTC) if found else None


def _iso(said: str, now: datetime) -> datetime | None:
    found = _ISO.search(said)
    if not found:
        return None
    zone = (found[2] or "").upper()
    moment = datetime.fromisoformat(found[1] + ("+00:00" if zone in ("Z", "UTC", "GMT") else zone))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _http(said: str, now: datetime) -> datetime | None:
    found = _HTTP.search(said)
    return parsedate_to_datetime(found[1]) if found else None


def _seconds(said: str, now: datetime) -> datetime | None:
    if millis := _MILLIS.search(said):
        return now + timedelta(milliseconds=int(millis[1]))
    found = _SECONDS.search(said)
    return now + timedelta(seconds=float(found[1])) if found else None


def _span(said: str, now: datetime) -> datetime | None:
    found = _SPAN.search(said)
    if not found:
        return None
    total = sum(float(number) * _UNITS[_unit(word)] for number, word in _PART.findall(found[1]))
    return now + timedelta(seconds=total)


def _unit(word: str) -> str:
    lower = word.lower()
    return "ms" if lower.startswith(("ms", "milli")) else lower[0]


def _clock(said: str, now: datetime) -> datetime | None:
    for found in _CLOCK.finditer(said):
        if found["half"] or found["minute"]:
            return _day(found, now)
    return None


def _day(found: re.Match[str], now: datetime) -> datetime | None:
    """The next moment at which it is that time of day, or of that day."""
    local = now.astimezone(_zone(found["zone"], now))
    hour = int(found["hour"])
    if found["half"]:
        hour = hour % 12 + (12 if found["half"][0] in "pP" else 0)
    moment = local.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
    if not found["month"]:
        return moment if moment > local else moment + timedelta(days=1)
    month = _MONTHS.index(found["month"].lower()) + 1
    moment = moment.replace(year=int(found["year"] or local.year), month=month, day=int(found["day"]))
    return moment if found["year"] or moment > local else moment.replace(year=moment.year + 1)


def _zone(named: str | None, now: datetime) -> tzinfo | None:
    if named and named.upper() in ("UTC", "GMT"):
        return UTC
    return ZoneInfo(named) if named and "/" in named else now.tzinfo
