"""``town.toml``: the agent squad as code, versioned at the repository's root. Parsed text in, frozen types out.

Secrets are never in it: only names of environment variables that are passed on.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from beads.errors import InvalidInput
from beads.model import Fact, Terms
from beads.toml import loads, validate
from refinery.containment import Bounds, Choice
from refinery.gate import SETTINGS_FILE, Gate
from refinery.landing import LandingTable
from refinery.space import size_of
from refinery.styles import Merging


class TownTable(Fact):
    """``[town]``: how many polecats run at once, which branch is main, and what a day may cost.

    ``budget_day`` is in US dollars, for all agents and reviews together; a day is one in UTC. ``notify`` is a program
    and its arguments, never a shell line, that is run when something new needs a person; it counts as it is on main.
    ``stall`` is for how many seconds a polecat may not move at all, as when it is stopped or hangs, before it is killed
    and another one takes over; how long agents may say nothing is theirs (``silence``).
    """

    polecats: int = Field(default=2, ge=1, le=256)
    branch: str = "main"
    agent: str = "command"
    budget_day: float | None = Field(None, gt=0)
    notify: tuple[str, ...] = ()
    stall: float = Field(default=600.0, ge=5, le=86_400)

    @field_validator("notify")
    @classmethod
    def _is_a_program(cls, notify: tuple[str, ...]) -> tuple[str, ...]:
        if notify and (not notify[0].strip() or ("/" in notify[0] and not notify[0].startswith("/"))):
            raise ValueError(f"{notify[0]!r} must be the name of a program on the PATH, or an absolute path")
        if any("\0" in argument for argument in notify):
            raise ValueError("an argument has a NUL in it, which no program can be given")
        return notify


class WorktreeTable(Fact):
    """``[worktree]``: where work trees are, and what makes a new one ready.

    Attributes:
        root: their directory, relative to the repository; empty means the user's state directory.
        copies: paths and patterns of files of the main checkout that Git does not have; called ``copy`` there.
        setup: a shell line, run once in each new work tree.
        setup_timeout: seconds for it.
        ready: a shell line that ends well when a work tree can be worked in.
        ready_timeout: seconds for it.
        network: whether the set-up line and the check have the network.
        keep: paths that Git ignores, such as ``.venv``, and that the next molecule finds in its work tree.
        disk_max: bytes that all work trees may take together, also written as ``"20G"``.
        disk_free: bytes that have to stay free where they are.
    """

    root: str = ""
    copies: tuple[str, ...] = Field((), alias="copy")
    setup: str = ""
    setup_timeout: float = Field(default=600.0, gt=0)
    ready: str = ""
    ready_timeout: float = Field(default=60.0, gt=0, le=86_400)
    network: bool = False
    keep: tuple[str, ...] = ()
    disk_max: int | None = Field(None, gt=0)
    disk_free: int = Field(256 << 20, ge=0)

    @field_validator("disk_max", "disk_free", mode="before")
    @classmethod
    def _in_bytes(cls, size: object) -> object:
        try:
            return size_of(size) if isinstance(size, str) else size
        except InvalidInput as error:
            raise ValueError(f"{error.message}; {error.hint}") from error

    @field_validator("copies", "keep")
    @classmethod
    def _inside(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            parts = path.split("/")
            if not path.strip() or not path.isprintable() or path.startswith("/") or {"..", ".git"} & {*parts}:
                raise ValueError(f"{path!r} must be a path inside the repository, and none of Git's own")
        return paths


class StoreTable(Fact):
    """``[store]``: the remote that the issue store is shared through, by its name in Git's configuration.

    With one, a claim counts only once the remote has accepted it. ``remote_ref`` is where the store is on it.
    """

    # A name and no URL: whoever can change this file must not decide where the issues are sent.
    remote: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    remote_ref: str = Field(default="", pattern=r"^(refs/[A-Za-z0-9._/-]+)?$")


class SandboxTable(Fact):
    """``[sandbox]``: what contains agents, criteria and gates, and what they may touch and use.

    Attributes:
        kind: ``auto`` for the best that works: bubblewrap, else Landlock; ``none`` for no sandbox at all.
        read: more paths to be seen, such as programs that are in the home without being on the PATH. ``~/`` is the
            home; what is relative is so to the repository.
        write: more paths that may be changed, such as caches. Whoever can write there can leave something for the
            next.
        network: whether commands of criteria have the network. Those of agents and gates have settings of their own.
        memory: MiB of data of one process. All limits: 0 for none.
        processes: how many in one sandbox, with their threads; not counted for root.
        cpu: seconds of processor time of one process.
        file: MiB of the largest file that is written.
    """

    kind: Choice = "auto"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    memory: int = Field(default=Bounds.memory, ge=0, le=1 << 30)
    processes: int = Field(default=Bounds.processes, ge=0, le=1 << 22)
    cpu: int = Field(default=Bounds.cpu, ge=0)
    file: int = Field(default=Bounds.file, ge=0, le=1 << 30)

    def bounds(self) -> Bounds:
        """The limits of each process."""
        return Bounds(self.memory, self.processes, self.cpu, self.file)


RuntimeName = Literal[
    "command",
    "plain",
    "claude",
    "codex",
    "gemini",
    "opencode",
    "copilot",
    "aider",
    "mini",
    "cursor",
    "goose",
    "amp",
    "jsonl",
    "builtin",
]
"""The kinds of agents; ``roles/runtimes`` has a file for each."""


Dotted = Annotated[str, Field(pattern=r"^([^.\s]+(\.[^.\s]+)*)?$", max_length=200)]
"""A place in a JSON object: keys and places in lists, with dots between; empty for none."""


class Mark(Fact):
    """What shows that a line of JSON says something.

    Attributes:
        at: the place that is looked at.
        equals: the values that show it; without any, whatever is there does, unless it is null or false.
        text: where the words to it are.
        final: whether the program stops there.
    """

    at: Dotted = Field(min_length=1)
    equals: tuple[bool | int | str, ...] = ()
    text: Dotted = ""
    final: bool = True


class EventsTable(Fact):
    """``[agents.NAME.events]``, of runtime ``jsonl``: what is where in the JSON lines that a program prints.

    Attributes:
        session: the conversation's name.
        model: the model's name.
        text: something that the agent says.
        tool: the name of a tool that it uses, and ``what`` for.
        what: what a tool is used for.
        input: tokens that were sent, and likewise ``output``, ``cached`` and ``written``, from and to the cache.
        cached: see ``input``.
        written: see ``input``.
        output: see ``input``.
        cost: US dollars.
        counts: what tokens and costs are of: what this ``run`` used so far, what this ``line`` is about, or the whole
            ``conversation``, with what was used before it was gone on with.
        apart: whether what was cached and written is not in ``input``.
        done: what shows that the program is through.
        error: what shows that something is wrong.
        resume: arguments that make the program go on with a conversation, one of them ``{session}``.
    """

    session: Dotted = ""
    model: Dotted = ""
    text: Dotted = ""
    tool: Dotted = ""
    what: Dotted = ""
    input: Dotted = ""
    cached: Dotted = ""
    written: Dotted = ""
    output: Dotted = ""
    cost: Dotted = ""
    counts: Literal["run", "line", "conversation"] = "run"
    apart: bool = False
    done: Mark | None = None
    error: Mark | None = None
    resume: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_resume(self) -> Self:
        if self.resume and ("{session}" not in self.resume or not self.session):
            raise ValueError("'resume' needs an argument '{session}', and 'session' to know its name from")
        return self


# There are files of that name.
AgentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Prices(Fact):
    """``[agents.NAME] prices``: what a million tokens cost, in US dollars.

    Those from and to the cache cost what others cost, unless they have prices of their own.
    """

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(None, ge=0, allow_inf_nan=False)
    written: float | None = Field(None, ge=0, allow_inf_nan=False)


class Agent(Fact):
    """``[agents.NAME]``: something that can do a step.

    Attributes:
        runtime: ``command`` runs the step's ``run`` line; ``plain`` runs ``command`` with the prompt on its
            standard input, or in place of an argument that is exactly ``{prompt}``; the others know one program each.
        command: the program and its first arguments, where it is not the one that the runtime knows; never a shell
            line.
        arguments: more arguments, after those of the runtime.
        timeout: seconds for one attempt.
        silence: seconds without a byte of output after which an attempt is stopped.
        environment: names of variables it may see besides the usual ones, such as an API key's; when not given, those
            that the runtime names.
        model: the model it works with, as ``[review] models`` would name it; that one does not review its work.
        capabilities: what it is good for; a step may ask for some of these words.
        budget: US dollars that one attempt may cost.
        tokens: how many one attempt may use, sent and generated together.
        network: whether it has the network; when not given, what the runtime needs.
        budget_day: US dollars that all its attempts of a day may cost, in UTC.
        tokens_day: how many tokens they may use.
        at_once: how many attempts of it may go on at the same time.
        escalate: who takes over after it has failed ``tries`` times at a step, one after the other.
        tries: how often it may fail at a step before that.
        resume: whether an attempt goes on with the conversation of the one before, instead of a fresh one.
        prices: what its tokens cost, where it does not say so itself and LiteLLM's list does not know it.
        events: of runtime ``jsonl``: what its lines mean.
        models: for ``builtin``: those to ask in their order when ``model`` is unavailable or out of quota.
        api_base: for ``builtin``: the address of the server that has ``model``, and those of ``models`` that begin
            with the same provider's name; empty for where each provider has them.
        window: for ``builtin``: tokens that a conversation may have; when not given, what LiteLLM knows of the model.
        steps: for ``builtin``: how often a model may be asked in one attempt.
    """

    runtime: RuntimeName = "command"
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    timeout: float = Field(default=3600.0, gt=0, le=86_400)
    silence: float = Field(default=1800.0, gt=0, le=86_400)
    environment: tuple[str, ...] | None = None
    model: str = ""
    capabilities: tuple[str, ...] = ()
    budget: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    network: bool | None = None
    budget_day: float | None = Field(None, gt=0)
    tokens_day: int | None = Field(None, gt=0)
    at_once: int | None = Field(None, ge=1)
    escalate: tuple[str, ...] = ()
    tries: int = Field(2, ge=1)
    resume: bool = False
    prices: Prices | None = None
    events: EventsTable | None = None
    models: tuple[str, ...] = ()
    api_base: str = Field(default="", pattern=r"^(https?://\S+)?$")
    window: int | None = Field(None, ge=2_000)
    steps: int = Field(default=150, gt=0)

    def on(self, terms: Terms) -> Agent:
        """The same agent on the terms of a step."""
        changes = {"model": terms.model or self.model, "timeout": terms.timeout or self.timeout}
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _has_a_program(self) -> Self:
        if self.runtime in ("plain", "jsonl") and not self.command:
            raise ValueError(f"runtime {self.runtime!r} needs a 'command', a list of the program and its arguments")
        if (self.runtime == "jsonl") != (self.events is not None):
            raise ValueError("runtime 'jsonl' needs a table 'events', and only that one has it")
        if self.runtime == "builtin" and not self.model:
            raise ValueError("runtime 'builtin' needs a 'model', as LiteLLM names it, such as 'ollama_chat/qwen3'")
        return self


class ReviewTable(Fact):
    """``[review]``: who looks at what a ``review`` criterion asks about.

    Attributes:
        models: as LiteLLM names them; the first one that is not the author's is asked.
        agent: one of ``[agents]`` in place of a model; the last thing it says is its verdict.
        api_base: the address of the server that has the models; empty for where each provider has them.
        timeout: seconds for one review.
        environment: names of variables that asking a model may see besides the usual ones, such as an API key's.
    """

    models: tuple[str, ...] = ()
    agent: str = ""
    api_base: str = ""
    timeout: float = Field(default=600.0, gt=0, le=86_400)
    environment: tuple[str, ...] = ()


class MayorTable(Fact):
    """``[mayor]``: what thinks for the Mayor. With neither a model nor an agent, it takes plans from files only.

    Attributes:
        model: as LiteLLM names it, such as ``anthropic/claude-sonnet-4-5``.
        models: those to ask in their order when that one is unavailable or out of quota.
        api_base: the address of the server that has ``model``, and those of ``models`` that begin with the same
            provider's name; empty for where each provider has them.
        agent: one of ``[agents]`` whose program thinks in place of a model.
        window: tokens that a conversation may have; when not given, what LiteLLM knows of the model.
        budget: US dollars that one answer may cost.
        tokens: how many one answer may use, sent and generated together.
        steps: how often a model may be asked for one answer.
        timeout: seconds for one answer.
        prices: what the model's tokens cost, where LiteLLM's list does not know it.
    """

    model: str = ""
    models: tuple[str, ...] = ()
    api_base: str = Field(default="", pattern=r"^(https?://\S+)?$")
    agent: str = ""
    window: int | None = Field(None, ge=2_000)
    budget: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    steps: int = Field(default=40, gt=0)
    timeout: float = Field(default=600.0, gt=0, le=86_400)
    prices: Prices | None = None

    @model_validator(mode="after")
    def _has_one_mind(self) -> Self:
        if self.agent and (self.model or self.models):
            raise ValueError("has a 'model' and an 'agent'; only one of them can think for the Mayor")
        if self.models and not self.model:
            raise ValueError("'models' are asked after 'model', which is missing")
        return self

    def asked(self) -> Agent:
        """The models as those of an agent of runtime ``builtin``, which asks them in the same way."""
        return Agent(runtime="builtin", model=self.model, models=self.models, api_base=self.api_base)


class Settings(Fact):
    """The whole file; what is left out has a default, except the gate, without which nothing can land."""

    town: TownTable = TownTable()
    store: StoreTable = StoreTable()
    worktree: WorktreeTable = WorktreeTable()
    agents: dict[AgentName, Agent] = {}
    review: ReviewTable = ReviewTable()
    mayor: MayorTable = MayorTable()
    sandbox: SandboxTable = SandboxTable()
    gate: Gate | None = None
    landing: LandingTable = LandingTable()
    merge: Merging = Merging()

    def agent(self, name: str) -> Agent:
        """The agent of that name; ``command`` is always there.

        Raises:
            InvalidInput: no such agent; names the nearest.
        """
        name = name or self.town.agent
        if name in self.agents:
            return self.agents[name]
        if name == "command":
            return Agent()
        known = self.known_agents()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known agents: {', '.join(known)}."
        raise InvalidInput(f"there is no agent {name!r} in {SETTINGS_FILE}", hint)

    def agent_for(self, named: str, capabilities: Collection[str]) -> str:
        """The name of the agent for a step: the one it names, or the first that is able, the default one before all.

        Raises:
            InvalidInput: there is no such agent, or none that has all of these capabilities.
        """
        names = [named] if named else [self.town.agent, *self.known_agents()]
        able = [name for name in names if set(capabilities) <= set(self.agent(name).capabilities)]
        if not able:
            missing = sorted(set(capabilities) - set(self.agent(named).capabilities)) if named else sorted(capabilities)
            who = f"the agent {named!r} is not" if named else "no agent is"
            hint = f"Name them in [agents.{named or 'NAME'}] capabilities of {SETTINGS_FILE}."
            raise InvalidInput(f"{who} capable of {', '.join(missing)}", hint)
        return able[0]

    def known_agents(self) -> list[str]:
        """The names that a plan may ask for."""
        return sorted({"command", *self.agents})


def read_settings(text: bytes, source: str = SETTINGS_FILE) -> Settings:
    """Parse ``town.toml``.

    Raises:
        InvalidDocument: not TOML, an unknown key (with the nearest known one), a wrong value; with its line.
        InvalidInput: an agent that is named is not defined, or the one that reviews or thinks for the Mayor cannot.
    """
    settings = validate(Settings, loads(text, source), text, source)
    for name in (settings.town.agent, *(other for agent in settings.agents.values() for other in agent.escalate)):
        settings.agent(name)
    if settings.review.agent and settings.agent(settings.review.agent).runtime == "command":
        raise InvalidInput(f"the agent {settings.review.agent!r} cannot review", "Name one that takes a prompt.")
    if settings.mayor.agent and settings.agent(settings.mayor.agent).runtime == "command":
        raise InvalidInput(f"the agent {settings.mayor.agent!r} cannot be the Mayor's", "Name one that takes a prompt.")
    return settings
