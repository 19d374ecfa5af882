"""Words, not code: the prompt of one attempt at one step."""

from __future__ import annotations

from collections.abc import Sequence

from roles.task import Task

PROMPT_MAX = 60_000
"""Characters; what is over is cut from the feedback's middle, and the cut is said."""


def compose(task: Task) -> str:
    """The whole prompt: goal, step, criteria, what came before, and what did not hold last time."""
    sections = [
        ("Goal", task.goal),
        ("Your step", task.step),
        ("Done means", "\n".join(f"- {criterion}" for criterion in task.criteria)),
        ("Already done in this branch", "\n".join(f"- {line}" for line in task.earlier)),
        (f"Attempt {task.attempt - 1} did not meet the criteria", _cut(task.feedback)),
        ("Rules", _RULES),
    ]
    return in_sections(sections)


def in_sections(sections: Sequence[tuple[str, str]]) -> str:
    """Titles and texts as one prompt; what has no text is left out."""
    return "\n\n".join(f"# {title}\n{text.strip()}" for title, text in sections if text.strip()) + "\n"


_RULES = """\
Work only in the current directory. Edit files; do not commit, push or switch branches: that is done for you.
The criteria above are run by another program after you stop. Do not change tests to make them pass."""


def _cut(text: str) -> str:
    if len(text) <= PROMPT_MAX:
        return text
    half = PROMPT_MAX // 2
    return f"{text[:half]}\n[… {len(text) - PROMPT_MAX} characters left out …]\n{text[-half:]}"
