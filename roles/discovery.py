"""What this machine has to think with: agents' programs, keys by their names, and servers with models of its own.

Only what is found quickly: no program is started, and nobody is asked but servers on this machine. A key's value is
never looked at.
"""

from __future__ import annotations

import json
import shutil
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from refinery.gate import SETTINGS_FILE
from roles.runtimes import RUNTIMES
from roles.runtimes.stream import items, parse, text

SECONDS = 0.3
"""How long a server has for each of its words; all of them are asked at the same time."""

_PATIENCE = 1.0
_ANSWER_MAX = 1 << 20
_MODELS_MAX = 200
_NAME_MAX = 200

OLLAMA_HOST = "OLLAMA_HOST"
"""The variable by which Ollama's own programs know where its server is."""


class Provider(NamedTuple):
    """Somebody who has models for money.

    Attributes:
        name: what people call it.
        variables: where LiteLLM looks for its key.
        model: one of its models, as LiteLLM names it.
    """

    name: str
    variables: tuple[str, ...]
    model: str


PROVIDERS = (
    Provider("Anthropic", ("ANTHROPIC_API_KEY",), "anthropic/claude-sonnet-4-5"),
    Provider("OpenAI", ("OPENAI_API_KEY",), "openai/gpt-5"),
    Provider("Google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "gemini/gemini-2.5-pro"),
    Provider("OpenRouter", ("OPENROUTER_API_KEY",), "openrouter/anthropic/claude-sonnet-4.5"),
    Provider("DeepSeek", ("DEEPSEEK_API_KEY",), "deepseek/deepseek-chat"),
    Provider("Mistral", ("MISTRAL_API_KEY",), "mistral/mistral-large-latest"),
    Provider("xAI", ("XAI_API_KEY",), "xai/grok-4.3"),
    Provider("Groq", ("GROQ_API_KEY",), "groq/openai/gpt-oss-120b"),
)
"""Those whose keys are looked for; LiteLLM knows more."""


def keys_for(model: str) -> tuple[str, ...]:
    """The variables that LiteLLM looks for a model's key in, any of which will do; none where we do not know."""
    of = model.partition("/")[0]
    return next((one.variables for one in PROVIDERS if one.model.partition("/")[0] == of), ())


class Place(NamedTuple):
    """Where a server for models usually is on one's own machine.

    Attributes:
        name: what people call it.
        address: its address, without a slash at the end.
        kind: how it is asked what it has.
    """

    name: str
    address: str
    kind: Literal["ollama", "openai"] = "openai"


PLACES = (
    Place("Ollama", "http://127.0.0.1:11434", "ollama"),
    Place("LM Studio", "http://127.0.0.1:1234"),
    Place("llama.cpp", "http://127.0.0.1:8080"),
    Place("vLLM", "http://127.0.0.1:8000"),
)
"""The ports that these servers have when nobody says otherwise; another one may be there."""


class Program(NamedTuple):
    """An agent's program on the PATH; another program may have its name.

    Attributes:
        runtime: the kind of agent, as ``[agents.NAME] runtime`` has it.
        path: where it is.
        tried: the version that our adapter was run for real with; empty when it was not.
    """

    runtime: str
    path: str
    tried: str


class Key(NamedTuple):
    """A key that is set: the variable's name, and whose key that is."""

    variable: str
    provider: Provider


class Server(NamedTuple):
    """A server that answers on this machine.

    Attributes:
        place: where, and what is usually there.
        models: what it says that it has, by its own names.
    """

    place: Place
    models: tuple[str, ...]

    @property
    def example(self) -> str:
        """One of its models that can be talked to, as LiteLLM names it; empty when there is none."""
        model = next((name for name in self.models if "embed" not in name.lower()), "")
        return f"{'ollama_chat' if self.place.kind == 'ollama' else 'openai'}/{model}" if model else ""

    @property
    def api_base(self) -> str:
        """The address as LiteLLM wants it."""
        return self.place.address if self.place.kind == "ollama" else f"{self.place.address}/v1"

    def __str__(self) -> str:
        number = "1 model" if len(self.models) == 1 else f"{len(self.models)} models"
        # Only Ollama is known by how it answers.
        sure = "" if self.place.kind == "ollama" else "the port of "
        return f"{sure}{self.place.name} at {self.place.address} with {number}"


@dataclass(frozen=True)
class Found:
    """What there is.

    Attributes:
        programs: agents' programs, those first that our adapters were run for real with.
        keys: the keys that are set.
        servers: the servers that answer.
    """

    programs: tuple[Program, ...] = ()
    keys: tuple[Key, ...] = ()
    servers: tuple[Server, ...] = ()

    def in_words(self) -> str:
        """On one line."""
        parts = [
            *(f"{program.runtime} ({program.path})" for program in self.programs),
            *(f"${key.variable}" for key in self.keys),
            *map(str, self.servers),
        ]
        return ", ".join(parts) or "no agent's program, no key that we know of, and no server with models"


def look(environ: Mapping[str, str], places: Sequence[Place] = PLACES) -> Found:
    """Look for everything; takes less than a second, also where nobody answers.

    Args:
        environ: the user's environment: the PATH, the names of keys, and ``OLLAMA_HOST``.
        places: where servers are looked for.
    """
    names = [(one, shutil.which(one.program, path=environ.get("PATH", ""))) for one in RUNTIMES.values() if one.program]
    programs = [Program(one.name, path, one.tried) for one, path in names if path]
    keys = [Key(v, provider) for provider in PROVIDERS for v in provider.variables if environ.get(v, "").strip()]
    at = [_moved(place, environ.get(OLLAMA_HOST, "")) if place.kind == "ollama" else place for place in places]
    return Found(tuple(sorted(programs, key=lambda one: not one.tried)), tuple(keys), _servers(at))


def _moved(place: Place, said: str) -> Place:
    """Where Ollama's own programs would look for it: ``HOST``, ``HOST:PORT`` or a URL; as before where that is none."""
    said = said.strip()
    if not said:
        return place
    try:
        parts = urlsplit(said if "://" in said else f"http://{said}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        return place
    if parts.scheme not in ("http", "https"):
        return place
    # To listen on every address is no address to go to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    usual = 11434 if "://" not in said else 443 if parts.scheme == "https" else 80
    return place._replace(address=f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or usual}")


def _servers(places: Sequence[Place]) -> tuple[Server, ...]:
    """Those that answer, all asked at once. Who takes too long, or never stops, is left alone."""
    answers: dict[Place, tuple[str, ...] | None] = {}

    def ask(place: Place) -> None:
        answers[place] = _models(place)

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
    found = ((place, answers.get(place)) for place in places)
    return tuple(Server(place, models) for place, models in found if models is not None)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: what answers there is on this machine, and may be anything."""

    def redirect_request(self, *_: object) -> None:
        """Never."""


def _models(place: Place) -> tuple[str, ...] | None:
    """What a server says that it has; None when none answers there that speaks as it should."""
    # Without any proxy: that would be somebody else's machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)
    try:
        with opener.open(f"{place.address}{_PATHS[place.kind]}", timeout=SECONDS) as answer:
            said = parse(answer.read(_ANSWER_MAX).decode(errors="replace"))
    except (OSError, HTTPException, ValueError):
        return None
    listed, name = ("models", "name") if place.kind == "ollama" else ("data", "id")
    if said is None or not isinstance(said.get(listed), list):
        return None
    names = (text(item, name) for item in items(said, listed)[:_MODELS_MAX])
    return tuple(name for name in names if name and len(name) <= _NAME_MAX and name.isprintable())


_PATHS = {"ollama": "/api/tags", "openai": "/v1/models"}


# ── Advice ───────────────────────────────────────────────────────────────────────────────────────────────────


def advice(found: Found) -> str:
    """What to put into ``town.toml`` so that the Mayor can think, for each thing that was found; and how to do without.

    The lines can be copied as they are.
    """
    choices = [*map(_of_program, found.programs), *map(_of_key, found.keys), *map(_of_server, found.servers)]
    if choices:
        head = f"Put one of these into {SETTINGS_FILE}, as far as it was found on this machine:"
    else:
        head = f"{_nothing()} With one of them, these lines go into {SETTINGS_FILE}:"
        choices = [_of_program(Program("claude", "", "")), _of_key(Key(PROVIDERS[0].variables[0], PROVIDERS[0]))]
        choices.append(_of_server(Server(PLACES[0], ("qwen3",)), f"{PLACES[0].name} has it"))
    return "\n\n".join([head, *choices, _WITHOUT])


_WITHOUT = """\
Without any model:

    town mayor --plan FILE          # a plan of your own, as docs/plans.md says
    town mayor --plan bugfix --var "summary=…" --var …    # a formula; `bead formula list` shows them"""


def _nothing() -> str:
    programs = ", ".join(runtime.program for runtime in RUNTIMES.values() if runtime.program)
    variables = ", ".join(f"${provider.variables[0]}" for provider in PROVIDERS)
    ports = ", ".join(f"{place.name} ({urlsplit(place.address).port})" for place in PLACES)
    return (
        f"Nothing to think with was found on this machine: none of these programs ({programs}), none of these keys "
        f"({variables}), none of these servers ({ports})."
    )


def _of_program(program: Program) -> str:
    doubt = "" if program.tried or not program.path else "; our adapter has not been run for real"
    note = f"{program.path}{doubt}" if program.path.isprintable() and program.path else "the program is on the PATH"
    name = program.runtime
    return _lines(
        f"[mayor]    # {note}", f"agent = {_quoted(name)}", "", f"[agents.{name}]", f"runtime = {_quoted(name)}"
    )


def _of_key(key: Key) -> str:
    model = f"model = {_quoted(key.provider.model)}    # or another one of {key.provider.name}'s"
    return _lines(f"[mayor]    # ${key.variable} is set", model)


def _of_server(server: Server, note: str = "") -> str:
    if not server.example:
        pull = "; `ollama pull qwen3` gets one" if server.place.kind == "ollama" else ""
        return _lines(f"# {server}, none that can be talked to{pull}")
    return _lines(
        f"[mayor]    # {note or server}", f"model = {_quoted(server.example)}", f"api_base = {_quoted(server.api_base)}"
    )


def _lines(*lines: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in lines)


def _quoted(value: str) -> str:
    """As TOML; what comes from a server has no control characters, and without those JSON's texts are TOML's."""
    return json.dumps(value, ensure_ascii=False)
