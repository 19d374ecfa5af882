from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beads import Snapshot, Store, graph
from beads.errors import LostRace, NotFound, Refused
from beads.model import Bead
from beads.ops import Create
from beads.speech import MAYOR
from roles import conversation
from roles.conversation import Thread
from roles.mayor import hear

ADA = "Ada"


@pytest.fixture
def store(repo: Path) -> Store:
    return Store.init(repo, ADA)


def thread(store: Store, name: str) -> Thread:
    return conversation.thread(store.snapshot(), name)


def answer(store: Store, name: str, text: str, *, asks: bool = False, proposal: tuple[str, str] | None = None) -> None:
    heard = [part.id for part in thread(store, name).unanswered]

    def decide(snapshot: Snapshot) -> object:
        found = conversation.thread(snapshot, name)
        return conversation.reply(found, "bt", heard, text, store.clock.now(), asks=asks, proposal=proposal)

    store.commit(MAYOR, decide)  # type: ignore[arg-type]


def said(found: Thread) -> list[tuple[str, str, str]]:
    return [(part.issue_type, part.created_by, part.description) for part in found.parts]


def test_what_a_person_says_waits_for_the_mayor(store: Store) -> None:
    name = hear(store, ADA, "Add slugs\n\nAnd tests.")
    found = thread(store, name)
    assert found.bead.title == "Add slugs And tests."
    assert [part.description for part in found.unanswered] == ["Add slugs\n\nAnd tests."]
    assert (found.question, found.proposal) == (None, None)


def test_saying_the_same_again_goes_on_with_it_and_changes_nothing(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    before = store.snapshot().commit
    assert hear(store, ADA, "Add slugs") == name
    assert store.snapshot().commit == before


def test_saying_the_same_when_all_has_been_said_is_saying_it_again(store: Store) -> None:
    name = hear(store, ADA, "What is stuck?")
    answer(store, name, "Nothing.")
    assert hear(store, ADA, "What is stuck?") == name
    assert [part.description for part in thread(store, name).parts] == ["What is stuck?", "Nothing.", "What is stuck?"]
    assert len(thread(store, name).unanswered) == 1


def test_what_waits_is_answered_in_the_order_in_which_it_was_said(store: Store) -> None:
    name = hear(store, ADA, "one")
    hear(store, "Bob", "two", name)
    assert [part.description for part in thread(store, name).unanswered] == ["one", "two"]


def test_when_that_one_is_over_it_is_another_one(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    store.commit(ADA, lambda snapshot: conversation.end(conversation.thread(snapshot, name)))
    again = hear(store, ADA, "Add slugs")
    assert again != name
    assert not thread(store, again).bead.closed


def test_an_answer_closes_what_it_answers(store: Store) -> None:
    name = hear(store, ADA, "How are things?")
    answer(store, name, "Fine.")
    found = thread(store, name)
    assert found.unanswered == ()
    assert said(found) == [("message", ADA, "How are things?"), ("message", MAYOR, "Fine.")]
    assert all(part.closed for part in found.parts)


def test_nothing_is_answered_twice(store: Store) -> None:
    name = hear(store, ADA, "How are things?")
    heard = [part.id for part in thread(store, name).unanswered]
    answer(store, name, "Fine.")
    with pytest.raises(LostRace, match="was answered in the meantime"):
        conversation.reply(thread(store, name), "bt", heard, "Well.", store.clock.now())


def test_a_question_waits_until_something_is_said(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "With dashes?", asks=True)
    question = thread(store, name).question
    assert question is not None
    assert graph.state(store.snapshot(), question, store.clock.now()).kind == "needs_person"
    hear(store, ADA, "Yes", name)
    found = thread(store, name)
    assert found.question is None
    assert [part.description for part in found.unanswered] == ["Yes"]


def test_a_proposal_waits_and_a_new_one_takes_its_place(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    first = thread(store, name).proposal
    assert first is not None
    assert graph.state(store.snapshot(), first, store.clock.now()).kind == "needs_person"
    hear(store, ADA, "Smaller", name)
    assert thread(store, name).proposal == first
    answer(store, name, "So then:", proposal=("two", "plan 2"))
    found = thread(store, name)
    assert found.proposal is not None
    assert (found.proposal.title, found.proposal.description) == ("two", "plan 2")
    assert store.snapshot().need(first.id).outcome == "superseded"


def test_a_no_and_a_yes_are_said_once(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    found = thread(store, name)
    assert found.proposal is not None
    store.commit(ADA, conversation.refuse(found, "bt", ADA, found.proposal, "too large", store.clock.now()))
    found = thread(store, name)
    assert found.proposal is None
    assert found.parts[-1].description == "No: too large"
    refused = next(part for part in found.parts if part.issue_type == "proposal")
    assert (refused.outcome, refused.close_reason) == ("rejected", "too large")
    with pytest.raises(LostRace, match="rejected already"):
        conversation.settle(found, "bt", ADA, refused, "Yes", store.clock.now())


def answered_twice(store: Store, name: str, **how: object) -> list[Bead]:
    """Two clones answer the same words before either knows of the other; what they say is merged."""
    found, parts = thread(store, name), []
    heard = [part.id for part in found.unanswered]
    for text in ("here", "there"):
        said = {key: (text, text) if key == "proposal" else value for key, value in how.items()}
        operations = conversation.reply(found, "bt", heard, text, store.clock.now(), **said)  # type: ignore[arg-type]
        parts.append([o.bead for o in operations if isinstance(o, Create)][-1])
        store.commit(MAYOR, operations)
    return parts


def test_of_two_proposals_that_answer_the_same_only_one_is_accepted(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    one, other = answered_twice(store, name, proposal=None)
    found = thread(store, name)
    assert {part.id for part in found.proposals} == {one.id, other.id}
    store.commit(ADA, conversation.settle(found, "bt", ADA, one, "Yes", store.clock.now()))
    found = thread(store, name)
    assert found.proposal is None
    assert store.snapshot().need(one.id).outcome == "done"
    assert store.snapshot().need(other.id).close_reason == f"{one.id} was accepted instead"


def test_a_refinement_takes_the_place_of_all_that_was_proposed(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answered_twice(store, name, proposal=None)
    hear(store, ADA, "Smaller", name)
    answer(store, name, "So then:", proposal=("two", "plan 2"))
    assert [part.title for part in thread(store, name).proposals] == ["two"]


def test_an_answer_answers_all_that_was_asked(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answered_twice(store, name, asks=True)
    assert len(thread(store, name).questions) == 2
    hear(store, ADA, "With dashes", name)
    assert thread(store, name).questions == ()


def test_no_is_not_said_to_what_was_accepted(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    found = thread(store, name)
    assert found.proposal is not None
    store.commit(ADA, conversation.settle(found, "bt", ADA, found.proposal, "Yes", store.clock.now()))
    accepted = store.snapshot().need(found.proposal.id)
    with pytest.raises(LostRace, match="done already"):
        conversation.refuse(thread(store, name), "bt", ADA, accepted, "", store.clock.now())


def test_a_no_that_is_said_again_changes_nothing(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    found = thread(store, name)
    assert found.proposal is not None
    store.commit(ADA, conversation.refuse(found, "bt", ADA, found.proposal, "", store.clock.now()))
    refused = store.snapshot().need(found.proposal.id)
    assert conversation.refuse(thread(store, name), "bt", ADA, refused, "", store.clock.now()) == []


def test_the_end_of_a_conversation_closes_all_that_is_open_in_it(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    store.commit(ADA, lambda snapshot: conversation.end(conversation.thread(snapshot, name)))
    assert list(store.snapshot().unclosed()) == []
    with pytest.raises(Refused, match="is over"):
        hear(store, ADA, "More", name)


def test_the_order_is_that_in_which_it_was_said_whatever_the_clock_does(store: Store) -> None:
    name = hear(store, ADA, "one")
    for text in ("two", "three"):
        found = thread(store, name)
        past = found.bead.created_at - timedelta(hours=1)
        store.commit(ADA, conversation.say(found, "bt", ADA, text, past))
    assert [part.description for part in thread(store, name).parts] == ["one", "two", "three"]


def test_after_what_was_said_at_the_end_of_time_it_goes_on(store: Store) -> None:
    name = hear(store, ADA, "one")
    late = thread(store, name).parts[0].evolve(id="bt-late", created_at=datetime.max.replace(tzinfo=UTC))
    store.commit("Eve", [Create(bead=late)])
    hear(store, ADA, "two", name)
    assert sorted(part.description for part in thread(store, name).unanswered) == ["one", "one", "two"]
    answer(store, name, "Well.")
    assert thread(store, name).settled


def test_two_people_who_say_the_same_say_two_things(store: Store) -> None:
    name = hear(store, ADA, "one")
    hear(store, "Bob", "yes", name)
    hear(store, ADA, "yes", name)
    assert [(part.created_by, part.description) for part in thread(store, name).parts[1:]] == [
        ("Bob", "yes"),
        (ADA, "yes"),
    ]


def test_the_latest_is_ones_own_and_still_goes_on(store: Store) -> None:
    mine = hear(store, ADA, "mine")
    hear(store, "Bob", "his")
    found = conversation.latest(store.snapshot(), ADA)
    assert found is not None
    assert found.id == mine
    assert conversation.latest(store.snapshot(), "Eve") is None


def test_nothing_of_it_is_ever_work(store: Store) -> None:
    name = hear(store, ADA, "Add slugs")
    answer(store, name, "So:", proposal=("one", "plan 1"))
    hear(store, ADA, "Well", name)
    snapshot, now = store.snapshot(), store.clock.now()
    assert list(snapshot.ready(now)) == []
    assert graph.ready(snapshot, now) == []
    kinds = {bead.issue_type: graph.state(snapshot, bead, now).kind for bead in snapshot if not bead.closed}
    assert kinds == {"conversation": "waiting", "message": "waiting", "proposal": "needs_person"}


def test_what_is_no_conversation_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no conversation 'bt-nothing'"):
        hear(store, ADA, "Hello", "bt-nothing")


@pytest.mark.parametrize("text", ["\x00\x1b[31m\n", "x" * 10_000, "ü" * 700, "\t"])
def test_any_text_has_a_title(store: Store, text: str) -> None:
    name = hear(store, ADA, f"!{text}")
    assert Bead.model_validate(dict(thread(store, name).bead)).title
    assert thread(store, name).parts[0].description == f"!{text}"
