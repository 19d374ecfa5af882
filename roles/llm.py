"""Models behind one small function type: a conversation goes in, a text comes out. The one file that loads LiteLLM.

LiteLLM takes seconds and 160 MB to load, so that only the process which really asks a model loads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from beads.errors import InvalidInput, Unreadable

TRIES = 3
"""How often a model is asked for one structure."""

SURROUNDINGS = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
"""What LiteLLM has to find in its environment: prices come from its own files, and it reads no ``.env`` file."""

_MISSES_MAX = 1_000
"""How many braces that begin no object are looked at: each may take as long as the text is."""

Structure = TypeVar("Structure", bound=BaseModel)


class Message(NamedTuple):
    """One turn of a conversation; the role is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


class Reply(NamedTuple):
    """What a model said, and what that cost in US dollars; None where the price is not known."""

    text: str
    cost: float | None


Model = Callable[[Sequence[Message], Mapping[str, Any]], Reply]
"""Answers a conversation, with a text that fits the JSON schema where the model can promise that."""


def ask(model: Model, prompt: str, structure: type[Structure], tries: int = TRIES) -> tuple[Structure, float | None]:
    """Let a model fill in a structure; an answer that does not fit is sent back with what is wrong with it.

    Returns the structure, and what all the asking cost; None where a part of that is not known.

    Raises:
        InvalidInput: it never fitted; says what was wrong the last time.
        Unreadable: the model could not be asked.
    """
    schema = structure.model_json_schema()
    form = f"Answer with one JSON object and nothing else. Its JSON schema:\n{json.dumps(schema)}"
    talk = [Message("user", f"{prompt}\n\n{form}")]
    costs: list[float | None] = []
    problem = ""
    for _ in range(tries):
        reply = model(talk, schema)
        costs.append(reply.cost)
        try:
            return read(reply.text, structure), _sum(costs)
        except InvalidInput as error:
            problem = error.message
        talk += [Message("assistant", reply.text), Message("user", f"That does not fit: {problem}\n\n{form}")]
    raise InvalidInput(f"the model's answer did not fit in {tries} tries: {problem}", "Use a more able model.")


def read(text: str, structure: type[Structure]) -> Structure:
    """The structure in what a model or an agent said: the last JSON object that fits, whatever stands around it.

    Raises:
        InvalidInput: there is none; says what is wrong with the last object.
    """
    problems: list[str] = []
    for found in reversed(list(_objects(text))):
        try:
            return structure.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problems.append(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": "))
    raise InvalidInput(problems[0] if problems else "there is no JSON object in it")


def _objects(text: str) -> Iterator[object]:
    """The JSON objects in a text that are not inside another one, in order; of a text full of braces, some."""
    decoder, at, misses = json.JSONDecoder(), text.find("{"), 0
    while at >= 0 and misses < _MISSES_MAX:
        try:
            found, end = decoder.raw_decode(text, at)
            yield found
        except RecursionError:
            return
        except ValueError:
            end, misses = at + 1, misses + 1
        at = text.find("{", end)


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def lite(name: str, api_base: str = "", timeout: float = 300.0, tokens_max: int = 8000) -> Model:
    """A model as LiteLLM names it, such as ``anthropic/claude-sonnet-4-5``, or ``openai/NAME`` at ``api_base``.

    Keys are where LiteLLM looks for them, in the environment. What fails on the way is tried twice again.
    """

    def complete(messages: Sequence[Message], schema: Mapping[str, Any]) -> Reply:
        import litellm

        litellm.suppress_debug_info = True
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}
        try:
            able = litellm.supports_response_schema(model=name)
            response = litellm.completion(
                model=name,
                messages=[message._asdict() for message in messages],
                timeout=timeout,
                num_retries=2,
                max_tokens=tokens_max,
                **({"response_format": form} if able else {}),
                **({"api_base": api_base} if api_base else {}),
            )
        except Exception as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            problem = f"{name} cannot be asked: {said[0][:500]}"
            raise Unreadable(problem, "Check its name, its key and the network.") from error
        choice = response.choices[0]
        if choice.finish_reason == "length":
            raise Unreadable(f"{name} did not come to an end within {tokens_max} tokens")
        cost = response._hidden_params.get("response_cost")
        return Reply(str(choice.message.content or ""), cost)

    return complete
