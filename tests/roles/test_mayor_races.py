"""Several who speak at once to the Mayor, or for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from beads.errors import LostRace
from beads.model import Usage
from beads.spending import costs
from cli.config import open_site
from roles import conversation, mayor
from roles.builtin.talk import Turn, scripted_turn
from roles.site import Site
from tests.roles.test_mayor import ADA, PLAN, Minded, answer, changed
from tests.towns import make_town


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return open_site(make_town(tmp_path))


def test_one_process_at_a_time_answers_and_it_answers_what_is_said_meanwhile(site: Site) -> None:
    name, other = mayor.hear(site.store, ADA, "one"), Minded(site, [])

    def replies() -> Iterator[Turn]:
        mayor.hear(site.store, "Bob", "two", name)
        with pytest.raises(LostRace, match="is being answered by another process"):
            other.mayor.answer(name)
        yield answer(say="First.")
        yield answer(say="Second.")

    found = Minded(site, replies()).mayor.answer(name)
    assert other.model.heard == []
    assert [part.description for part in found.parts] == ["one", "two", "First.", "Second."]
    assert found.settled
    assert other.mayor.answer(name) == found


def test_what_an_answer_cost_that_came_too_late_is_in_the_books(site: Site) -> None:
    name = mayor.hear(site.store, ADA, "one")
    found = conversation.thread(site.store.snapshot(), name)

    def replies() -> Iterator[Turn]:
        heard = [part.id for part in found.unanswered]
        # As a sync brings it from another clone.
        site.store.commit("mayor", conversation.reply(found, "bt", heard, "There.", site.clock.now()))
        yield replace(answer(say="Here."), usage=Usage(input=10, output=1), cost=0.5)

    with pytest.raises(LostRace, match="was answered in the meantime"):
        Minded(site, replies()).mayor.answer(name)
    (line,) = costs(site.store.snapshot(), "agent")
    assert (line.what, line.cost) == ("(mayor)", 0.5)
    assert conversation.thread(site.store.snapshot(), name).settled


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b'{"entry": {"role": "sys',
        b'{"entry": {"role": "system", "content": "You are the Mayor."}}\n',
        b'{"entry": {"role": "system", "content": "You are the Mayor."}}\n{"entry": {"role": "user", "cont',
        b"\xff\xfe\x00\n",
        b"{}\n{}\n",
    ],
)
def test_what_a_killed_run_left_without_the_question_is_begun_afresh(site: Site, left: bytes) -> None:
    name = mayor.hear(site.store, ADA, "What is stuck?")
    (message,) = conversation.thread(site.store.snapshot(), name).unanswered
    path = site.store.directory / "mayor" / f"{message.id}.jsonl"
    path.parent.mkdir()
    path.write_bytes(left)
    minded = Minded(site, [answer(say="Nothing.")])
    assert minded.mayor.answer(name).parts[-1].description == "Nothing."
    (heard,) = minded.model.heard
    assert "What is stuck?" in str(heard[-1]["content"])
    assert [entry["role"] for entry in heard] == ["system", "user"]
    assert not path.exists()


@pytest.mark.parametrize(
    "second",
    [
        {"say": "Or:", "plan": changed(PLAN, "molecules.0.needs", ["nowhere"])},
        {"say": "Or:", "plan": None, "questions": ["Which?"]},
        {"say": "No."},
    ],
)
def test_of_two_answers_at_once_the_first_that_can_be_used_is_taken(site: Site, second: dict[str, object]) -> None:
    both = [("answer", json.dumps({"say": "So:", "plan": PLAN})), ("answer", json.dumps(second))]
    found = Minded(site, [scripted_turn("", *both)]).ask("Add beta")
    assert found.parts[1].description.startswith("So:")
    assert found.proposal is not None
    assert found.question is None
