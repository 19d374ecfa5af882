"""What the Mayor's model or program may answer: words, questions, a plan, or changes. Values only; nothing is done.

A plan in an answer is a sketch: the keys of a plan file that a planner needs, with limits on how much there may be.
It becomes a plan by way of the same text that a person would write, so that the same checks hold for both.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from beads.errors import InvalidInput
from beads.model import Fact
from beads.toml import Document, dumps

MOLECULES_MAX = 60
"""How many molecules one plan of a model may have; more than a person reads before they say yes."""

STEPS_MAX = 20
QUESTIONS_MAX = 5
CHANGES_MAX = 50

TOUCHES_MAX = 24_000
"""Characters of all paths and patterns of a plan together, and twenty for each: all are compared with each other."""

Line = Annotated[str, StringConstraints(max_length=500)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
Id = Annotated[str, StringConstraints(max_length=128)]


class SketchedCriterion(Fact):
    """One thing that shows that a step is done; exactly one of run, file, diff, review and approval."""

    run: Text = Field("", description="A shell line that exits with 0 when it is done, such as a test.")
    timeout: float | None = Field(None, gt=0, description="Seconds for run.")
    file: Line = Field("", description="A path that must be there.")
    matches: Line = Field("", description="A regular expression that must be found in file.")
    absent: bool = Field(False, description="Whether file must not be there.")
    diff: tuple[Line, ...] = Field((), max_length=50, description="Patterns of paths; nothing else may change.")
    lines: int | None = Field(None, ge=0, description="How many lines may change, with diff.")
    review: Text = Field("", description="A question to a reviewer who sees the change.")
    approval: Text = Field("", description="A question to a person.")


class SketchedStep(Fact):
    """One thing to do, and how one sees that it is done."""

    id: Line = Field(description="A short name: letters, digits, - and _.")
    title: Line
    description: Text = Field("", description="What whoever does it has to know besides.")
    run: Text = Field("", description="The shell line that does it; only for an agent that runs commands.")
    agent: Line = ""
    needs: tuple[Line, ...] | None = Field(
        None, max_length=STEPS_MAX, description="Steps of this molecule; the one before when left out."
    )
    criteria: tuple[SketchedCriterion, ...] = Field(min_length=1, max_length=20)


class SketchedMolecule(Fact):
    """One unit of work that lands on main as a whole, small enough for one sitting."""

    id: Line = Field(description="A short name: letters, digits, - and _.")
    title: Line
    goal: Text = Field(min_length=1, description="What is to be true in the end.")
    touches: tuple[Line, ...] = Field((), max_length=100, description="Paths or patterns that it will change.")
    needs: tuple[Line, ...] = Field((), max_length=100, description="Molecules of this plan, or ids of beads.")
    replaces: tuple[Id, ...] = Field(
        (), max_length=50, description="Ids of molecules that it is in place of; they are given up."
    )
    priority: int = Field(2, ge=0, le=4, description="0 is the most urgent.")
    agent: Line = ""
    steps: tuple[SketchedStep, ...] = Field(min_length=1, max_length=STEPS_MAX)


class Sketch(Fact):
    """A plan: what is to be done, in molecules that are chained where one needs the other."""

    plan: Line = Field(description="A short name: letters, digits, - and _.")
    title: Line = ""
    description: Text = ""
    molecules: tuple[SketchedMolecule, ...] = Field(min_length=1, max_length=MOLECULES_MAX)

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        if sum(len(path) + 20 for molecule in self.molecules for path in molecule.touches) > TOUCHES_MAX:
            raise ValueError("'touches' are too many to be compared with each other: name directories")
        return self


class Change(Fact):
    """A change to something that is planned already, for a person to decide."""

    do: Literal["priority", "cancel"]
    id: Id
    priority: int | None = Field(None, ge=0, le=4)
    reason: Line = Field(min_length=1)

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if (self.do == "priority") != (self.priority is not None):
            raise ValueError("'priority' needs a priority, and 'cancel' has none")
        return self


class Reply(Fact):
    """Answer the person. Nothing in it happens before they accept it."""

    say: Text = Field(min_length=1, description="What you tell them, in plain words.")
    questions: tuple[Line, ...] = Field(
        (), max_length=QUESTIONS_MAX, description="What you must know before you can plan; else empty."
    )
    plan: Sketch | None = Field(None, description="The plan that you propose, if you do.")
    changes: tuple[Change, ...] = Field((), max_length=CHANGES_MAX, description="Changes that you propose, if you do.")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if [bool(self.questions), self.plan is not None, bool(self.changes)].count(True) > 1:
            raise ValueError("give at most one of 'questions', 'plan' and 'changes'")
        if not self.say.strip():
            raise ValueError("'say' must not be empty")
        return self

    @property
    def words(self) -> str:
        """What is said, with the questions."""
        return "\n".join([self.say.strip(), *(f"{n}. {text}" for n, text in enumerate(self.questions, 1))])


class Changes(Fact):
    """A proposal to change what is planned already."""

    changes: tuple[Change, ...] = Field(min_length=1, max_length=CHANGES_MAX)


def plan_text(sketch: Sketch, name: str) -> str:
    """The plan as a file would have it.

    Args:
        sketch: what the model said.
        name: what it is called instead.

    Raises:
        InvalidInput: something in it is no text.
    """
    return _text({**sketch.model_dump(mode="json", exclude_defaults=True, exclude_none=True), "plan": name})


def changes_text(changes: tuple[Change, ...]) -> str:
    """The changes as text; raises as :func:`plan_text` does."""
    return _text({"changes": [change.model_dump(mode="json", exclude_none=True) for change in changes]})


def read_changes(text: str, source: str) -> Changes:
    """The changes that a text says.

    Raises:
        InvalidDocument: it says none; names the line and the key.
    """
    document = Document(text.encode(), source)
    return document.check(Changes, document.read())


def is_plan(text: str) -> bool:
    """Whether a proposal is a plan and not changes; what cannot be read is a plan that is wrong."""
    try:
        return "changes" not in Document(text.encode(), "proposal").read()
    except InvalidInput:
        return True


def _text(value: dict[str, object]) -> str:
    try:
        return dumps(value).decode()
    except UnicodeEncodeError as error:
        raise InvalidInput("there are halves of characters in it, which are no text") from error
