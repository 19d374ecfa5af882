"""Logs of a clone: the oldest ones go when there are too many bytes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beads.model import Usage
from roles.logs import told, trim


def log(logs: Path, molecule: str, name: str, size: int, age: int) -> Path:
    path = logs / molecule / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_the_oldest_logs_of_what_is_over_go_first(tmp_path: Path) -> None:
    open_one = log(tmp_path, "bt-open", "a", 400, age=9)
    old, older = log(tmp_path, "bt-done", "b", 400, age=5), log(tmp_path, "bt-gone", "c", 400, age=7)
    young = log(tmp_path, "bt-done", "d", 400, age=1)
    trim(tmp_path, lambda molecule: molecule != "bt-open", most=1200)
    assert [path.exists() for path in (open_one, older, old, young)] == [True, False, True, True]
    assert not older.parent.exists()
    trim(tmp_path, lambda molecule: molecule != "bt-open", most=0)
    assert [path.exists() for path in (open_one, old, young)] == [True, False, False]


def test_what_fits_stays(tmp_path: Path) -> None:
    path = log(tmp_path, "bt-done", "a", 400, age=9)
    trim(tmp_path, lambda _: True, most=400)
    assert path.exists()
    trim(tmp_path / "nowhere", lambda _: True)


@pytest.mark.parametrize("cost", ["NaN", "-1", "1e999"])
def test_what_cannot_be_a_cost_is_none_that_a_dead_worker_leaves(tmp_path: Path, cost: str) -> None:
    events = tmp_path / "a.events"
    events.write_text(
        f'{{"event": "said", "text": "hi"}}\n{{"event": "used", "usage": {{"input": 5}}, "cost": {cost}}}\n'
    )
    report = told(events, lambda _model, _usage: None)
    assert report is not None
    assert (report.note, report.usage, report.cost) == ("hi", Usage(input=5), None)
