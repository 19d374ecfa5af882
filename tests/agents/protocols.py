"""How model providers speak: Anthropic's messages, OpenAI's chat completions and responses, Gemini's contents."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, assert_never
from typing import Protocol as Shape

from beads.model import Usage

Json = dict[str, Any]
Call = tuple[str, Json]
Failure = Literal["quota", "overloaded", "context"]
Refusal = tuple[int, Json, dict[str, str]]

ASIDE = Usage(input=7, output=3)
"""What an answer aside, such as a title, uses."""

MODELS = ("claude-sonnet-4-5", "gpt-5", "gemini-2.5-pro", "fake-model")

_SHELLS = ("Bash", "bash", "exec_command", "shell_command", "shell", "local_shell", "run_shell_command")


@dataclass(frozen=True)
class Answer:
    """One answer of the model: some text or one tool call, and what it used; ``number`` makes its ids."""

    model: str
    text: str
    call: Call | None
    usage: Usage
    number: int


class Protocol(Shape):
    """One provider's way to be asked and to answer."""

    def tools(self, asked: Json) -> list[str]: ...

    def whole(self, answer: Answer) -> Json: ...

    def events(self, answer: Answer) -> Iterator[bytes]: ...

    def failure(self, kind: Failure, reset: int) -> Refusal: ...


def of(path: str) -> Protocol | None:
    """The protocol that is spoken at a path, or None."""
    if path.endswith("/messages"):
        return Messages()
    if path.endswith("/chat/completions"):
        return Chat()
    if path.endswith("/responses"):
        return Responses()
    if path.endswith((":generateContent", ":streamGenerateContent")):
        return Contents()
    return None


def asked(path: str, body: Json) -> Json:
    """What was asked, with the model and whether to stream, which one protocol has in the path."""
    found = re.search(r"/models/([^/]+):(stream)?[Gg]enerateContent$", path)
    return {**body, "model": found[1], "stream": bool(found[2])} if found else body


def elsewhere(path: str) -> tuple[int, Json]:
    """The answer to what is no question to a model."""
    if path.endswith("/count_tokens"):
        return 200, {"input_tokens": 100}
    if path.endswith(":countTokens"):
        return 200, {"totalTokens": 100}
    return 404, {"error": {"message": f"nothing at {path}", "type": "not_found_error"}}


def models(path: str, gemini: bool) -> Json:
    """The list of models, or the one that the path names."""
    if gemini:
        found = [{"name": f"models/{name}", "inputTokenLimit": 1_000_000} for name in MODELS]
        return {"models": found} if path.endswith("/models") else found[0]
    listed = [
        {"id": name, "type": "model", "object": "model", "display_name": name, "created": 1, "owned_by": "tests"}
        for name in MODELS
    ]
    name = path.rpartition("/models/")[2]
    return {**listed[0], "id": name} if "/models/" in path else {"object": "list", "data": listed, "has_more": False}


def shell_tool(names: Iterable[str]) -> str:
    """The offered tool that runs a shell command."""
    return next((tool for tool in _SHELLS if tool in set(names)), "bash")


def arguments(tool: str, command: str) -> Json:
    """That tool's arguments for a command."""
    match tool:
        case "exec_command":
            return {"cmd": command}
        case "shell" | "local_shell":
            return {"command": ["bash", "-lc", command]}
        case "shell_command":
            return {"command": command}
        case _:
            return {"command": command, "description": "do the work"}


def _wait(reset: int) -> int:
    return max(1, reset - int(time.time())) if reset else 1


def _sse(data: Json, event: str = "") -> bytes:
    return (f"event: {event}\n" if event else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


class Messages:
    """Anthropic's messages."""

    def tools(self, asked: Json) -> list[str]:
        return [tool["name"] for tool in asked.get("tools") or ()]

    def _usage(self, usage: Usage) -> Json:
        return {
            "input_tokens": usage.input - usage.cached - usage.written,
            "cache_creation_input_tokens": usage.written,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.output,
        }

    def _block(self, answer: Answer) -> Json:
        if answer.call:
            tool, given = answer.call
            return {"type": "tool_use", "id": f"toolu_{answer.number}", "name": tool, "input": given}
        return {"type": "text", "text": answer.text}

    def whole(self, answer: Answer) -> Json:
        return {
            "id": f"msg_{answer.number}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [self._block(answer)],
            "stop_reason": "tool_use" if answer.call else "end_turn",
            "stop_sequence": None,
            "usage": self._usage(answer.usage),
        }

    def events(self, answer: Answer) -> Iterator[bytes]:
        message, block = self.whole(answer), self._block(answer)
        begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
        if answer.call:
            empty, delta = (
                {**block, "input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        else:
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": answer.text}
        ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        for event in (
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": empty},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": message["usage"]},
            {"type": "message_stop"},
        ):
            yield _sse(event, str(event["type"]))

    def failure(self, kind: Failure, reset: int) -> Refusal:
        match kind:
            case "quota":
                said = 429, "rate_limit_error", "This request would exceed your account's rate limit. Try again later."
            case "overloaded":
                said = 529, "overloaded_error", "Overloaded"
            case "context":
                said = 400, "invalid_request_error", "prompt is too long: 205000 tokens > 200000 maximum"
            case _:
                assert_never(kind)
        status, name, text = said
        headers = {
            "retry-after": str(_wait(reset)),
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-reset": str(reset),
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
        }
        return status, {"type": "error", "error": {"type": name, "message": text}}, headers if reset else {}


class Chat:
    """OpenAI's chat completions."""

    def tools(self, asked: Json) -> list[str]:
        return [tool["function"]["name"] for tool in asked.get("tools") or () if "function" in tool]

    def _usage(self, usage: Usage) -> Json:
        return {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.total,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        }

    def _message(self, answer: Answer) -> Json:
        if not answer.call:
            return {"role": "assistant", "content": answer.text}
        tool, given = answer.call
        function = {"name": tool, "arguments": json.dumps(given)}
        call = {"index": 0, "id": f"call_{answer.number}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def _frame(self, answer: Answer, kind: str, choices: list[Json], **more: object) -> Json:
        name = f"chatcmpl-{answer.number}"
        return {"id": name, "object": kind, "created": 1_700_000_000, "model": answer.model, "choices": choices, **more}

    def whole(self, answer: Answer) -> Json:
        ended = "tool_calls" if answer.call else "stop"
        choice = {"index": 0, "finish_reason": ended, "message": self._message(answer)}
        return self._frame(answer, "chat.completion", [choice], usage=self._usage(answer.usage))

    def events(self, answer: Answer) -> Iterator[bytes]:
        kind, ended = "chat.completion.chunk", "tool_calls" if answer.call else "stop"
        first = {"index": 0, "delta": self._message(answer), "finish_reason": None}
        yield _sse(self._frame(answer, kind, [first]))
        yield _sse(self._frame(answer, kind, [{"index": 0, "delta": {}, "finish_reason": ended}]))
        yield _sse(self._frame(answer, kind, [], usage=self._usage(answer.usage)))
        yield b"data: [DONE]\n\n"

    def failure(self, kind: Failure, reset: int) -> Refusal:
        match kind:
            case "quota":
                text = "You exceeded your current quota, please check your plan and billing details."
                said = 429, "insufficient_quota", "insufficient_quota", text
            case "overloaded":
                said = 503, "server_error", "server_error", "The engine is currently overloaded, please try again later"
            case "context":
                text = (
                    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000."
                )
                said = 400, "invalid_request_error", "context_length_exceeded", text
            case _:
                assert_never(kind)
        status, name, code, text = said
        headers = {"retry-after": str(_wait(reset))} if kind == "quota" and reset else {}
        return status, {"error": {"message": text, "type": name, "param": None, "code": code}}, headers


class Responses:
    """OpenAI's responses."""

    def tools(self, asked: Json) -> list[str]:
        return [str(tool.get("name", tool["type"])) for tool in asked.get("tools") or ()]

    def _item(self, answer: Answer) -> Json:
        if answer.call:
            tool, given = answer.call
            name = f"call_{answer.number}"
            return {
                "type": "function_call",
                "id": f"fc_{answer.number}",
                "call_id": name,
                "name": tool,
                "arguments": json.dumps(given),
                "status": "completed",
            }
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        name = f"msg_{answer.number}"
        return {"type": "message", "id": name, "role": "assistant", "status": "completed", "content": [part]}

    def whole(self, answer: Answer) -> Json:
        usage = answer.usage
        return {
            "id": f"resp_{answer.number}",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": "completed",
            "model": answer.model,
            "output": [self._item(answer)],
            "usage": {
                "input_tokens": usage.input,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.total,
            },
        }

    def events(self, answer: Answer) -> Iterator[bytes]:
        whole, item = self.whole(answer), self._item(answer)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        said: list[Json] = [{"type": "response.created", "response": begun}]
        said.append({"type": "response.output_item.added", "output_index": 0, "item": item})
        if not answer.call:
            where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
            said.append({"type": "response.output_text.delta", **where, "delta": answer.text})
        said.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        said.append({"type": "response.completed", "response": whole})
        for number, event in enumerate(said):
            yield _sse({**event, "sequence_number": number}, event["type"])

    def failure(self, kind: Failure, reset: int) -> Refusal:
        match kind:
            case "quota":
                error: Json = {"type": "usage_limit_reached", "message": "The usage limit has been reached"}
                return 429, {"error": {**error, "plan_type": "plus", "resets_at": reset}}, {}
            case "overloaded":
                error = {
                    "type": "server_error",
                    "code": "server_is_overloaded",
                    "message": "Our servers are overloaded.",
                }
                return 503, {"error": error}, {}
            case "context":
                text = "Your input exceeds the context window of this model. Please adjust your input and try again."
                error = {"type": "invalid_request_error", "code": "context_length_exceeded", "message": text}
                return 400, {"error": {**error, "param": "input"}}, {}


class Contents:
    """Gemini's contents."""

    def tools(self, asked: Json) -> list[str]:
        groups = asked.get("tools") or ()
        return [one["name"] for group in groups for one in group.get("functionDeclarations", ())]

    def whole(self, answer: Answer) -> Json:
        part: Json = {"text": answer.text}
        if answer.call:
            part = {"functionCall": {"name": answer.call[0], "args": answer.call[1]}}
        usage = answer.usage
        return {
            "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [part]}}],
            "usageMetadata": {
                "promptTokenCount": usage.input,
                "cachedContentTokenCount": usage.cached,
                "candidatesTokenCount": usage.output - usage.reasoning,
                "thoughtsTokenCount": usage.reasoning,
                "totalTokenCount": usage.total,
            },
            "modelVersion": answer.model,
            "responseId": f"r{answer.number}",
        }

    def events(self, answer: Answer) -> Iterator[bytes]:
        yield _sse(self.whole(answer))

    def failure(self, kind: Failure, reset: int) -> Refusal:
        match kind:
            case "quota":
                wait = _wait(reset)
                text = f"You exceeded your current quota, please check your plan. Please retry in {wait}s."
                google = "type.googleapis.com/google.rpc."
                day = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"}
                details = [{"@type": f"{google}QuotaFailure", "violations": [day]}]
                details += [{"@type": f"{google}RetryInfo", "retryDelay": f"{wait}s"}]
                return 429, {"error": _google(429, "RESOURCE_EXHAUSTED", text, details)}, {}
            case "overloaded":
                text = "The model is overloaded. Please try again later."
                return 503, {"error": _google(503, "UNAVAILABLE", text)}, {}
            case "context":
                text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
                return 400, {"error": _google(400, "INVALID_ARGUMENT", text)}, {}


def _google(code: int, status: str, message: str, details: object = ()) -> Json:
    return {"code": code, "status": status, "message": message, "details": details}
