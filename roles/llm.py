"""Models that LiteLLM reaches: asked for a text of some structure, or talked to with tools. The one file that loads it.

LiteLLM takes seconds and 160 MB to load, so that only the process which really asks a model loads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from beads.clock import Clock
from beads.errors import InvalidInput, Unreadable
from beads.model import Usage
from roles.builtin.talk import Call, Entry, NotServed, Turn, refusal

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


# ── With tools ───────────────────────────────────────────────────────────────────────────────────────────────

WINDOW_UNKNOWN = 32_768
"""Tokens that a conversation may have with a model of which nobody says it."""

_PLACEHOLDER = "none"
"""The key for a server that asks for none: OpenAI's library does not start without one."""

_CACHED: list[dict[str, object]] = [{"location": "message", "role": "system"}, {"location": "message", "index": -1}]
"""Up to where Anthropic is to keep what it has read; the others find that out by themselves."""


@dataclass(frozen=True)
class LiteTalker:
    """A :class:`roles.builtin.talk.Talker` that LiteLLM reaches; names and keys as for :func:`lite`.

    Attributes:
        name: the model.
        clock: what times that a provider tells in seconds are counted from.
        api_base: the address of its server; empty for where its provider has it.
        window_max: how many tokens a conversation may have; None for what is known of the model.
    """

    name: str
    clock: Clock
    api_base: str = ""
    window_max: int | None = None

    @cached_property
    def window(self) -> int:
        """How many tokens a conversation with it may have.

        Ollama forgets the beginning of a longer one without a word, so that it is told to make room for as many.
        """
        if self.window_max:
            return self.window_max
        import litellm

        try:
            known = litellm.get_model_info(self.name).get("max_input_tokens")
        except Exception:  # noqa: BLE001 - Of a model that is not in its tables LiteLLM raises all kinds.
            known = None
        most = WINDOW_UNKNOWN if self._local else known
        return min(int(known or WINDOW_UNKNOWN), int(most or WINDOW_UNKNOWN))

    @property
    def _local(self) -> bool:
        return self.name.startswith(("ollama/", "ollama_chat/"))

    def say(self, talk: Sequence[Entry], tools: Sequence[Entry], timeout: float) -> Turn:
        """What it says next.

        Raises:
            NotServed: it did not answer.
        """
        import litellm

        litellm.suppress_debug_info = True
        try:
            # What is tried again, and when, is the caller's: LiteLLM would do it at once and whatever was wrong.
            response = litellm.completion(
                model=self.name,
                messages=[dict(entry) for entry in talk],
                tools=[dict(tool) for tool in tools],
                timeout=timeout,
                num_retries=0,
                max_retries=0,
                **self._extras(),
            )
            return self._turn(response)
        except Exception as error:
            raise self._refusal(error) from error

    def _turn(self, response: Any) -> Turn:
        choice, usage = response.choices[0], _usage(response)
        calls = [call for call in choice.message.tool_calls or [] if call.function]
        for number, call in enumerate(calls):
            # Some local servers do not name them.
            call.id = call.id or f"call-{number}"
        return Turn(
            entry={**_pruned(choice.message.model_dump(mode="json")), "content": choice.message.content},
            text=str(choice.message.content or ""),
            calls=tuple(Call(call.id, str(call.function.name), str(call.function.arguments)) for call in calls),
            usage=usage,
            cost=self._cost(response._hidden_params.get("response_cost"), usage),
            cut=choice.finish_reason == "length",
        )

    def _extras(self) -> dict[str, object]:
        extras: dict[str, object] = {}
        if self.api_base:
            extras["api_base"] = self.api_base
            if self._keyless():
                extras["api_key"] = _PLACEHOLDER
        if self._local:
            extras["num_ctx"] = self.window
        if "claude" in self.name:
            extras["cache_control_injection_points"] = [dict(point) for point in _CACHED]
        return extras

    def _keyless(self) -> list[str]:
        """The variables with keys that LiteLLM looks for and that are not set."""
        import litellm

        return list(litellm.validate_environment(model=self.name)["missing_keys"])

    def _cost(self, told: float | None, usage: Usage | None) -> float | None:
        """What an answer cost. LiteLLM says 0 also where its table has the model and no price for it.

        What Ollama runs on one's own machine costs nothing.
        """
        import litellm

        if self._local:
            return 0.0
        entries = [litellm.model_cost.get(key, {}) for key in (self.name, self.name.partition("/")[2])]
        priced = any("input_cost_per_token" in entry for entry in entries)
        return None if told is None or usage is None or (not told and not priced) else float(told)

    def _refusal(self, error: Exception) -> NotServed:
        import litellm

        status, headers = getattr(error, "status_code", None), getattr(error, "litellm_response_headers", None)
        if isinstance(error, litellm.exceptions.ContextWindowExceededError):
            return NotServed(f"{self.name}: {str(error)[:500]}", "context_exhausted")
        missing = self._keyless() if headers is None and re.search("key|credential", str(error), re.I) else []
        if missing:
            said = f"{' or '.join(missing)} is not set: name it in the agent's `environment`, and set it"
            return refusal(self.name, said, None, {}, self.clock.now())
        told = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
        said = str(error) or type(error).__name__
        return refusal(self.name, said, status, told, self.clock.now())


def _pruned(value: Any) -> Any:
    """A value without what is empty in it: OpenAI refuses what LiteLLM adds to its answers when it comes back."""
    if isinstance(value, dict):
        pruned = {name: _pruned(inner) for name, inner in value.items()}
        return {name: inner for name, inner in pruned.items() if inner not in (None, {}, [])}
    return [_pruned(inner) for inner in value] if isinstance(value, list) else value


def _usage(response: Any) -> Usage | None:
    """The tokens that an answer took, where the provider told."""
    told = getattr(response, "usage", None)
    if told is None or not told.prompt_tokens:
        return None
    sent, made = told.prompt_tokens_details, told.completion_tokens_details
    return Usage(
        input=told.prompt_tokens,
        cached=getattr(sent, "cached_tokens", None) or 0,
        written=getattr(sent, "cache_creation_tokens", None) or getattr(told, "cache_creation_input_tokens", None) or 0,
        output=told.completion_tokens,
        reasoning=getattr(made, "reasoning_tokens", None) or 0,
    )
