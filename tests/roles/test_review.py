"""Reviews: a verdict of a fixed form by somebody who is not the author, from real processes and a real server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from beads import Bead, graph
from beads.errors import InvalidInput
from roles import llm
from roles.review import Verdict, launch
from roles.settings import Agent, ReviewTable, Settings, read_settings
from tests.providers import provider
from tests.towns import BEAD, SETTINGS, assert_settled, make_town, molecule, pour, run, sandboxed, snapshot
from tests.world import git

GOOD = json.dumps({"verdict": "approve", "summary": "It is kind."})
BAD = json.dumps(
    {
        "verdict": "reject",
        "summary": "It is not kind.",
        "remarks": [{"path": "parts/voice", "line": 2, "problem": "It shouts."}, {"problem": "No reason is given."}],
    }
)
ASKED = '{ review = "Is it kind?" }'
SHOUT = "printf 'ok\\nSHOUT\\n' > parts/voice"

# Prints one answer after the other, and keeps what it was asked.
REVIEWER = """\
import sys
from pathlib import Path

place = Path(sys.argv[1])
number = len(list(place.glob("asked-*")))
(place / f"asked-{number}").write_text(sys.stdin.read())
answers = sorted(place.glob("answer-*"))
print("Let me see. {not json}\\n```json")
print(answers[min(number, len(answers) - 1)].read_text())
print("```")
"""


def with_reviewer(path: Path, *answers: str, more: str = "") -> Path:
    """A town in which a program of ours reviews, with these answers one after the other."""
    for number, answer in enumerate(answers):
        (path / f"answer-{number}").write_text(answer)
    (path / "reviewer.py").write_text(REVIEWER)
    command = json.dumps([sys.executable, str(path / "reviewer.py"), str(path)])
    table = f'[review]\nagent = "critic"\n[agents.critic]\nruntime = "plain"\ncommand = {command}\n'
    return make_town(path, sandboxed(f'write = ["{path}"]') + table + more)


def with_model(path: Path, base: str, table: str) -> Path:
    return make_town(path, f'{SETTINGS}\n[review]\napi_base = "{base}"\ntimeout = 120\n{table}\n')


def step_of(repository: Path) -> Bead:
    return [bead for bead in snapshot(repository) if bead.issue_type == "step"][-1]


def up(repository: Path) -> str:
    done = run(repository, "up", "--until-idle", ok=(0, 7))
    return done.stdout + done.stderr


def test_what_a_reviewer_approves_of_lands(tmp_path: Path) -> None:
    repository = with_reviewer(tmp_path, GOOD)
    pour(repository, molecule("voice", SHOUT, limits=ASKED))
    up(repository)
    assert_settled(repository, landed=1)
    asked = (tmp_path / "asked-0").read_text()
    for part in ("Is it kind?", "voice is done.", "- run: test -f parts/voice", "parts/voice", "+SHOUT"):
        assert part in asked
    (said,) = [e for e in step_of(repository).evidence if e.subject == "review: Is it kind?"]
    assert (said.verdict, said.detail, said.cost) == ("pass", "It is kind.", None)
    logs = repository / ".git/beads/logs" / str(step_of(repository).parent)
    assert "It is kind." in (logs / f"{said.digest.removeprefix('sha256:')[:16]}.log").read_text()


def test_remarks_are_what_the_next_attempt_is_told(tmp_path: Path) -> None:
    repository = with_reviewer(tmp_path, BAD, GOOD)
    pour(repository, molecule("voice", f"{SHOUT}; cat >> parts/voice", limits=ASKED))
    up(repository)
    assert_settled(repository, landed=1)
    text = git(repository, "show", "main:parts/voice")
    assert "It is not kind." in text
    assert "parts/voice:2: It shouts.\nNo reason is given." in text
    assert [a.end for a in step_of(repository).attempts] == ["unmet", "satisfied"]


def test_nobody_reviews_what_a_test_says_no_to_or_what_was_not_begun(tmp_path: Path) -> None:
    repository = with_reviewer(tmp_path, GOOD)
    pour(repository, molecule("voice", SHOUT, "false", limits=ASKED))
    run(repository, "polecat", "run", ok=(7,))
    head = '[[molecules]]\nid = "only"\ntitle = "Do it"\ngoal = "It is done."\n'
    pour(repository, f"{head}run = {json.dumps(SHOUT)}\ncriteria = [{ASKED}]\n")
    up(repository)
    assert "+SHOUT" in (tmp_path / "asked-0").read_text()
    assert not (tmp_path / "asked-1").exists()


def test_the_same_files_are_not_reviewed_twice(tmp_path: Path) -> None:
    repository = with_reviewer(tmp_path, GOOD, BAD)
    pour(repository, molecule("voice", SHOUT, limits=ASKED + ', { approval = "Ship it?" }'))
    up(repository)
    run(repository, "approve", step_of(repository).id)
    up(repository)
    assert_settled(repository, landed=1)
    assert not (tmp_path / "asked-1").exists()


@pytest.mark.parametrize(
    "answer, problem",
    [
        ("I like it!", "no verdict: there is no JSON object in it"),
        ('{"verdict": "fine", "summary": "x"}', "no verdict: verdict: Input should be 'approve' or 'reject'"),
        ('{"verdict": "reject", "summary": "x"}', "no verdict: Value error, a rejection needs at least one remark"),
    ],
)
def test_what_is_no_verdict_lands_nothing_and_has_nobody_work_in_vain(
    tmp_path: Path, answer: str, problem: str
) -> None:
    repository = with_reviewer(tmp_path, answer)
    pour(repository, molecule("voice", f"echo >> parts/voice; {SHOUT}; echo begun >> {tmp_path}/begun", limits=ASKED))
    run(repository, "polecat", "run", ok=(7,))
    assert problem in step_of(repository).attempts[-1].reason
    assert (tmp_path / "begun").read_text() == "begun\n"
    assert len(graph.failed(step_of(repository))) == 3


def test_without_anybody_to_review_it_says_what_to_configure(tmp_path: Path) -> None:
    repository = make_town(tmp_path)
    # The Mayor would not let it be poured.
    plan = tmp_path / "plan.toml"
    plan.write_text('plan = "test"\n' + molecule("voice", SHOUT, limits=ASKED))
    run(repository, "pour", str(plan), program=BEAD)
    run(repository, "polecat", "run", ok=(7,))
    assert "nobody is there to review. Name a model or an agent in [review] of town.toml" in (
        step_of(repository).attempts[-1].reason
    )


# ── Through LiteLLM, from a server that speaks the protocol ──────────────────────────────────────────────────


def test_a_model_is_asked_again_when_its_answer_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key")
    monkeypatch.setenv("OTHER_SECRET", "planted-and-not-allowed")
    with provider(503, '{"verdict": "reject", "summary": "x"}', GOOD) as server:
        table = 'models = ["openai/gpt-4o-mini"]\nenvironment = ["OPENAI_API_KEY"]'
        repository = with_model(tmp_path, server.base, table)
        pour(repository, molecule("voice", SHOUT, limits=ASKED))
        up(repository)
    assert_settled(repository, landed=1)
    assert set(server.keys) == {"Bearer planted-key"}
    first, *_, last = server.requests
    assert first["response_format"]["type"] == "json_schema"
    assert "a rejection needs at least one remark" in last["messages"][-1]["content"]
    said = next(e for e in step_of(repository).evidence if e.subject.startswith("review"))
    # Two answers that were paid for, at the price that LiteLLM's own table has; the failure cost nothing.
    assert said.cost == pytest.approx(2 * (1000 * 0.15 + 100 * 0.6) / 1e6)
    assert said.model == "openai/gpt-4o-mini"
    assert "planted-key" not in git(repository, "log", "-p", "refs/beads/main")


@pytest.mark.slow
def test_the_author_does_not_review_and_an_unknown_price_stays_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key")
    with provider(GOOD) as server:
        table = 'models = ["openai/writer", "openai/critic"]\nenvironment = ["OPENAI_API_KEY"]'
        table += '\n[agents.command]\nruntime = "command"\nmodel = "openai/writer"'
        repository = with_model(tmp_path, server.base, table)
        pour(repository, molecule("voice", SHOUT, limits=ASKED))
        up(repository)
    assert_settled(repository, landed=1)
    assert [request["model"] for request in server.requests] == ["critic"]
    assert next(e for e in step_of(repository).evidence if e.subject.startswith("review")).cost is None


@pytest.mark.slow
def test_a_model_that_cannot_be_asked_lands_nothing(tmp_path: Path) -> None:
    repository = with_model(tmp_path, "http://127.0.0.1:9/v1", 'models = ["openai/critic"]')
    step = f'  [[molecules.steps]]\n  id = "a"\n  title = "A"\n  attempts = 1\n  criteria = [{ASKED}]\n'
    pour(repository, f'[[molecules]]\nid = "voice"\ntitle = "Do it"\ngoal = "It is done."\n{step}')
    up(repository)
    assert "openai/critic cannot be asked" in step_of(repository).attempts[-1].reason


def test_the_first_model_that_is_not_the_author_reviews() -> None:
    settings = Settings(review=ReviewTable(models=("openai/writer", "openai/critic")))
    request = json.loads(launch(settings, Agent(model="openai/writer"), "Is it kind?").stdin)
    assert (request["model"], request["prompt"]) == ("openai/critic", "Is it kind?")


def test_the_only_model_does_not_review_its_own_work(tmp_path: Path) -> None:
    table = '\n[review]\nmodels = ["m"]\n[agents.command]\nruntime = "command"\nmodel = "m"\n'
    repository = make_town(tmp_path, SETTINGS + table)
    pour(repository, molecule("voice", SHOUT, limits=ASKED))
    run(repository, "polecat", "run", ok=(7,))
    assert "m does not review its own work" in step_of(repository).attempts[-1].reason


# ── Structures ───────────────────────────────────────────────────────────────────────────────────────────────


class Answer(BaseModel):
    number: int


def scripted(*replies: llm.Reply) -> tuple[llm.Model, list[str]]:
    left, heard = list(replies), []

    def model(messages: object, schema: object) -> llm.Reply:
        heard.append(f"{messages} {schema}")
        return left.pop(0)

    return model, heard


def test_asking_ends_with_the_first_answer_that_fits() -> None:
    model, heard = scripted(llm.Reply("no", 0.1), llm.Reply('{"number": "x"}', 0.2), llm.Reply('{"number": 3}', 0.3))
    answer, cost = llm.ask(model, "How many?", Answer)
    assert answer.number == 3
    assert cost == pytest.approx(0.6)
    assert "there is no JSON object in it" in heard[1]
    assert "number: Input should be a valid integer" in heard[2]


def test_asking_is_bounded_and_an_unknown_price_makes_the_sum_unknown() -> None:
    with pytest.raises(InvalidInput, match="did not fit in 3 tries"):
        llm.ask(scripted(*[llm.Reply("no", None)] * 3)[0], "How many?", Answer)
    model, _ = scripted(llm.Reply("no", None), llm.Reply('{"number": 3}', 0.3))
    assert llm.ask(model, "How many?", Answer)[1] is None


@pytest.mark.parametrize(
    "text",
    [
        '{"number": 3}',
        'So: {"number": 1} or {"number": 3} it is.',
        '```json\n{"number": 3}\n```\n{oops} {"other": 1}',
        '{"number": 3, "why": {"number": 9}}',
    ],
)
def test_the_last_object_that_fits_is_the_answer(text: str) -> None:
    assert llm.read(text, Answer).number == 3


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "{" * 1_000_000, "{x " * 100_000 + '{"number": 3}'])
def test_braces_without_end_are_no_answer(text: str) -> None:
    with pytest.raises(InvalidInput):
        llm.read(text, Answer)


def test_a_rejection_says_what_is_wrong_and_where() -> None:
    assert Verdict.model_validate_json(BAD).in_words() == "parts/voice:2: It shouts.\nNo reason is given."


@pytest.mark.parametrize(
    "table, problem",
    [
        ('agent = "nobody"', "there is no agent 'nobody'"),
        ('agent = "command"', "the agent 'command' cannot review"),
        ('model = "x"', "Did you mean 'models'?"),
    ],
)
def test_a_review_table_that_cannot_be(table: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_settings(f"[review]\n{table}\n".encode())
    assert problem in f"{caught.value.message} {caught.value.hint}"
