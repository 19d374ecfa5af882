"""Gas Town's formulas as ours: workflows, convoys and expansions, with what extends and composes them.

Whatever has no counterpart here is named in a remark with its file, line and key, and nothing is left out without one.
What an author says of being done is prose there, which nobody evaluates; here it is what a reviewer is asked. A gate
that a person opens becomes a step of its own, which asks for an approval before the step that it guards.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from beads.errors import NotFound
from beads.formula import Formula, Remark, check_formula
from beads.interchange.typed import Typed
from beads.interchange.variables import declared
from beads.plan import nearest
from beads.template import names, texts
from beads.toml import Document

if TYPE_CHECKING:
    from beads.lines import Place

Open = Callable[[str], Document]
"""Finds another formula's document by its name; raises NotFound."""

TYPES = ("workflow", "convoy", "expansion", "aspect")

_FOREIGN = {
    "version", "type", "extends", "legs", "template", "inputs", "synthesis", "compose", "squash", "advice", "pointcuts",
    "aspects", "prompts", "output", "presets", "phase", "pour", "review_only", "contract", "requires", "catalog",
}  # fmt: skip
_OURS = {"criteria", "run", "when", "for_each", "include", "attempts"}
_HANDLED = {
    "formula", "description", "version", "type", "extends", "vars", "inputs", "steps", "template", "legs", "synthesis",
    "compose", "agent",
}  # fmt: skip
_DROPPED = {
    "squash": "nothing is squashed here: what was done stays in the history of the store",
    "pour": "its steps are always beads of their own",
    "phase": "what is poured stays until it is done",
    "review_only": "whether something was changed is for a diff criterion to say",
    "prompts": "an agent is given the goal and its step, and no template of its own",
    "output": "an agent is given no directory to write to; say it in the steps",
    "presets": "all legs are done",
    "aspects": "aspects are not applied",
    "gate": "this kind of gate has no counterpart",
    "labels": "a step has no labels, the molecule has",
    "tags": "a step has no labels, the molecule has",
    "priority": "a step has no priority, the molecule has",
    "assignee": "a step is an agent's, which the key agent would name",
    "parallel": "steps that do not need each other may be done in any order",
    "interactive": "an agent works alone",
    "on_complete": "nothing can be made of what a step put out",
    "description_file": "only the description in the formula is read",
    "required_unless": "it is not required here",
    "hooks": "nothing is attached when a formula is poured",
    "bond_points": "nothing is attached when a formula is poured",
}
_STEP = {
    "id", "title", "description", "needs", "depends_on", "acceptance", "notes", "condition", "expand", "expand_vars",
    "children", "loop", "gate", "waits_for", "retry", "ralph", "check", "type", "focus", "agent",
}  # fmt: skip
_FILLED = ("id", "title", "description", "acceptance", "notes", "needs", "depends_on")
_SINGLE = re.compile(r"(?<!\{)\{([A-Za-z_][\w.]*)\}(?!\})")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def is_foreign(data: Mapping[str, Any]) -> bool:
    """Whether a formula is of Gas Town's kind: by a key that ours do not have, or by neither title nor goal."""
    steps = data.get("steps")
    keys = {key for step in steps if isinstance(step, dict) for key in step} if isinstance(steps, list) else set()
    if not _FOREIGN.isdisjoint(data) or "acceptance" in keys:
        return True
    return data.keys().isdisjoint(("title", "goal")) and _OURS.isdisjoint(keys)


def read_foreign(document: Document, data: dict[str, Any], find: Open) -> Formula:
    """Read one of Gas Town's formulas.

    Args:
        document: where it is written.
        data: what it says.
        find: finds those that it extends and composes.

    Raises:
        InvalidDocument: it is no formula, or an aspect, which changes others and is nothing alone.
    """
    return _Reader(document, data, find).formula()


def _acceptance(text: str) -> dict[str, Any]:
    """What must hold before a step is done, in an author's words: a question to a reviewer."""
    return {"review": f"Does this hold: {text.strip()}"}


def _gate(gate: Mapping[str, Any], title: str) -> dict[str, Any] | None:
    """What a person has to say before a step may begin; None for gates of other kinds."""
    if gate.get("type") not in ("human", "mail"):
        return None
    who = gate.get("await_id") or gate.get("id")
    return {"approval": f"May this begin: {title}" + (f" ({who})" if who else "")}


@dataclass(frozen=True)
class _Step:
    """A step as it is written, and where."""

    facts: Mapping[str, Any]
    document: Document
    place: Place
    needs: tuple[str, ...]

    @property
    def id(self) -> str:
        return str(self.facts["id"])

    def filled(self, values: Mapping[str, str], more: Sequence[str] = ()) -> _Step:
        """With single braces filled, and coming after ``more`` when it came after nothing."""
        facts = {key: _filled(value, values) if key in _FILLED else value for key, value in self.facts.items()}
        needs = tuple(_filled(need, values) for need in self.needs)
        return replace(self, facts=facts, needs=needs or tuple(more))


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    return _SINGLE.sub(lambda found: values.get(found[1], found[0]), value) if isinstance(value, str) else value


@dataclass
class _Reader(Typed):
    data: dict[str, Any]
    find: Open
    chain: tuple[str, ...] = ()
    remarks: list[Remark] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)

    def formula(self) -> Formula:
        """The formula of ours."""
        kind = self._kind()
        name = str(self.data["formula"])
        described = self.text(self.data, "description", ()).strip()
        steps = self._steps(kind)
        steps = [part for step in self._composed(steps) for part in self._guarded(step)]
        variables = self._variables(steps, kind)
        facts: dict[str, Any] = {
            "formula": name,
            "title": "{{title}}" if "title" in variables else name,
            "goal": "\n\n".join(filter(None, ["{{desc}}" if "desc" in variables else described or name, self._told()])),
            "description": described,
            "agent": self.text(self.data, "agent", ()),
            "vars": variables,
            "steps": [self._template(step) for step in steps],
        }
        formula = self.document.check(Formula, facts)
        formula._document, formula._kind, formula._lenient = self.document, kind, True
        formula._origin = _origin(self.document, steps)
        self._drop((), self.data, _HANDLED)
        self._undeclared(formula)
        check_formula(formula)
        formula._remarks = tuple(dict.fromkeys(self.remarks))
        return formula

    def _kind(self) -> str:
        """The type, which those who leave it out show by what there is."""
        found = [("steps", 0), ("extends", 0), ("legs", 1), ("template", 2), ("advice", 3), ("aspects", 3)]
        kind = self.data.get("type") or next((TYPES[index] for key, index in found if key in self.data), "")
        if not isinstance(self.data["formula"], str):
            raise self.document.fault(("formula",), "must be the formula's name, a text")
        if kind not in TYPES:
            problem = f"there is no type {kind!r}" if kind else "has neither steps nor legs nor a template"
            raise self.document.fault(("type",) if kind else (), problem, nearest(str(kind), TYPES[:3]))
        if kind == "aspect":
            problem = "an aspect changes the steps of other formulas and has none of its own"
            raise self.document.fault(("type",), problem, "Put its steps into the formulas that it is for.")
        return str(kind)

    # ── Steps, legs and templates ──

    def _steps(self, kind: str) -> list[_Step]:
        if kind == "convoy":
            return self._convoy()
        if kind == "expansion":
            values = {"target": "{{target}}", "target.id": "{{target}}", "target.title": "{{target_title}}"}
            values |= {"target.description": "{{target_description}}"}
            values |= {name: f"{{{{{name}}}}}" for name in self.table(self.data, "vars", ())}
            return [
                step.filled(values) for step in self._gathered(self.tables(self.data, "template", ()), ("template",))
            ]
        steps = self._parents()
        index = {step.id: number for number, step in enumerate(steps)}
        for step in self._gathered(self.tables(self.data, "steps", ()), ("steps",)):
            if step.id in index:
                steps[index[step.id]] = step
            else:
                steps.append(step)
        if not steps:
            raise self.document.fault(("steps",), "must have at least one step")
        return steps

    def _convoy(self) -> list[_Step]:
        legs = self._gathered(self.tables(self.data, "legs", ()), ("legs",))
        if not legs:
            raise self.document.fault(("legs",), "must have at least one leg")
        synthesis = self.table(self.data, "synthesis", ())
        if not synthesis:
            return legs
        known = [leg.id for leg in legs]
        for position, name in enumerate(self.array(synthesis, "depends_on", ("synthesis",))):
            if name not in known:
                place: Place = ("synthesis", "depends_on", position)
                raise self.document.fault(place, f"there is no leg {name!r}", nearest(name, known))
        last = {"id": "synthesis", **{key: value for key, value in synthesis.items() if key != "depends_on"}}
        return [*legs, _Step(last, self.document, ("synthesis",), tuple(known))]

    def _parents(self) -> list[_Step]:
        extends = self.data.get("extends", [])
        found: list[_Step] = []
        listed = [extends] if isinstance(extends, str) else self.array(self.data, "extends", ())
        for position, name in enumerate(listed):
            parent = self._other(name, ("extends", position) if isinstance(extends, list) else ("extends",))
            found += parent._composed(parent._steps("workflow"))
            # The first parent's variables count, and the child's before any parent's.
            self.data["vars"] = {**parent.table(parent.data, "vars", ()), **self.table(self.data, "vars", ())}
        return found

    def _other(self, name: str, place: Place) -> _Reader:
        chain = (*self.chain, str(self.data["formula"]))
        if name in chain:
            ring = " → ".join((*chain, name))
            raise self.document.fault(place, f"leads back to itself: {ring}", "Take one of these away.")
        try:
            document = self.find(name)
        except NotFound as error:
            raise self.document.fault(place, error.message, error.hint) from error
        data = document.read()
        return _Reader(document, {"formula": name, **data}, self.find, chain, self.remarks, self.moved)

    def _gathered(self, tables: Sequence[dict[str, Any]], place: Place) -> list[_Step]:
        """The steps of an array of tables, with those inside of them before what they are a part of."""
        found: list[_Step] = []
        seen: dict[str, Place] = {}
        for index, facts in enumerate(tables):
            here = (*place, index)
            name = self.text(facts, "id", here)
            if not name:
                raise self.document.fault((*here, "id"), "is missing")
            if name in seen:
                line = self.document.line(seen[name])
                raise self.document.fault((*here, "id"), f"{name!r} is the id of another one already, on line {line}")
            seen[name] = (*here, "id")
            found += self._step(_Step(facts, self.document, here, self._needs(facts, here)))
        return found

    def _step(self, step: _Step) -> list[_Step]:
        if "loop" in step.facts:
            return self._loop(step, self.table(step.facts, "loop", step.place))
        inner = self._gathered(self.tables(step.facts, "children", step.place), (*step.place, "children"))
        below = tuple(child.id for child in inner)
        parts = [replace(child, needs=child.needs or step.needs) for child in inner]
        return [*parts, replace(step, needs=tuple(dict.fromkeys((*step.needs, *below))))]

    def _needs(self, facts: Mapping[str, Any], place: Place) -> tuple[str, ...]:
        spawner = re.fullmatch(r"children-of\((.+)\)", self.text(facts, "waits_for", place))
        if "waits_for" in facts and not spawner:
            self._remark((*place, "waits_for"), "has no counterpart: needs says what a step waits for")
        both = (*self.array(facts, "needs", place), *self.array(facts, "depends_on", place))
        return tuple(dict.fromkeys((*both, *([spawner[1]] if spawner else []))))

    def _loop(self, step: _Step, loop: Mapping[str, Any]) -> list[_Step]:
        """A body that is repeated, each time after the time before."""
        here = (*step.place, "loop")
        body = self._gathered(self.tables(loop, "body", here), (*here, "body"))
        if not body:
            raise self.document.fault((*here, "body"), "must have at least one step")
        if "until" in loop:
            self._remark((*here, "until"), "is not evaluated: the steps are done once")
        self._drop(here, loop, {"count", "until", "max", "range", "var", "body"})
        found: list[_Step] = []
        before = step.needs
        own = {inner.id for inner in body}
        for number, value in enumerate(self._times(loop, here), start=1):
            prefix = f"{step.id}.iter{number}."
            for inner in body:
                facts = {**inner.facts, "id": prefix + inner.id}
                values = {str(loop["var"]): str(value)} if "var" in loop else {}
                needs = tuple(prefix + need if need in own else need for need in inner.needs)
                found.append(replace(inner, facts=facts, needs=needs).filled(values, before))
            before = (found[-1].id,)
        self.moved[step.id] = found[-1].id
        return found

    def _times(self, loop: Mapping[str, Any], place: Place) -> Sequence[int]:
        if "until" in loop:
            return [1]
        if isinstance(loop.get("count"), int) and loop["count"] > 0:
            return range(1, loop["count"] + 1)
        found = re.fullmatch(r"\s*(-?\d{1,9})\s*\.\.\s*(-?\d{1,9})\s*", self.text(loop, "range", place))
        if found is None or int(found[2]) < int(found[1]):
            key = "range" if "range" in loop else "count"
            raise self.document.fault((*place, key), "does not say how often", "Write count = 3, or range = '1..3'.")
        return range(int(found[1]), int(found[2]) + 1)

    # ── Composition ──

    def _composed(self, steps: list[_Step]) -> list[_Step]:
        compose = self.table(self.data, "compose", ())
        for index, rule in enumerate(self.tables(compose, "expand", ("compose",))):
            place: Place = ("compose", "expand", index)
            target = self.text(rule, "target", place)
            if target not in [step.id for step in steps]:
                known = [step.id for step in steps]
                raise self.document.fault((*place, "target"), f"there is no step {target!r}", nearest(target, known))
            steps = self._replaced(steps, lambda step, of=target: step.id == of, rule, place)  # type: ignore[misc]
        for index, rule in enumerate(self.tables(compose, "map", ("compose",))):
            glob = self.text(rule, "select", ("compose", "map", index))
            chosen = [step.id for step in steps if fnmatch.fnmatchcase(step.id, glob)]
            steps = self._replaced(steps, lambda step, of=chosen: step.id in of, rule, ("compose", "map", index))  # type: ignore[misc]
        for step in [step for step in steps if "expand" in step.facts]:
            rule = {"with": step.facts["expand"], "vars": step.facts.get("expand_vars", {})}
            steps = self._replaced(steps, lambda other, of=step: other is of, rule, (*step.place, "expand"))  # type: ignore[misc]
        for index, rule in enumerate(self.tables(compose, "branch", ("compose",))):
            steps = self._branched(steps, rule, ("compose", "branch", index))
        self._drop(("compose",), compose, {"expand", "map", "branch"})
        return [replace(step, needs=tuple(dict.fromkeys(map(self._moved, step.needs)))) for step in steps]

    def _moved(self, name: str) -> str:
        """What takes a step's place for those that need it."""
        seen = {name}
        while (other := self.moved.get(name, name)) not in seen:
            seen.add(name := other)
        return name

    def _replaced(
        self, steps: Iterable[_Step], chosen: Callable[[_Step], bool], rule: Mapping[str, Any], place: Place
    ) -> list[_Step]:
        """The steps, with those chosen replaced by the template of another formula."""
        other = self._other(self.text(rule, "with", place), (*place, "with") if place[0] == "compose" else place)
        if "template" not in other.data:
            raise self.document.fault(place, f"{rule['with']} is no expansion: it has no template")
        defaults = {name: one.get("default", "") for name, one in self._defaults(other).items()}
        given = {**defaults, **{name: str(one) for name, one in self.table(rule, "vars", place).items()}}
        found: list[_Step] = []
        for step in steps:
            if not chosen(step):
                found.append(step)
                continue
            about = {"target": step.id, "target.id": step.id, "target.title": str(step.facts.get("title", step.id))}
            about["target.description"] = str(step.facts.get("description", ""))
            parts = other._gathered(other.tables(other.data, "template", ()), ("template",))
            found += [part.filled({**given, **about}, step.needs) for part in parts]
            if parts:
                self.moved[step.id] = found[-1].id
        return found

    def _defaults(self, other: _Reader) -> dict[str, dict[str, Any]]:
        table = other.table(other.data, "vars", ())
        return {name: {"default": one} if isinstance(one, str) else dict(one) for name, one in table.items()}

    def _branched(self, steps: Sequence[_Step], rule: Mapping[str, Any], place: Place) -> list[_Step]:
        between = self.array(rule, "steps", place)
        first, join = self.text(rule, "from", place), self.text(rule, "join", place)
        more = {**{name: (first,) for name in between if first}, **({join: tuple(between)} if join else {})}
        return [replace(step, needs=(*step.needs, *more.get(step.id, ()))) for step in steps]

    # ── What becomes of it ──

    def _guarded(self, step: _Step) -> list[_Step]:
        """A step, after the question that has to be answered before it begins."""
        gate = self.table(step.facts, "gate", step.place)
        asked = _gate(gate, str(step.facts.get("title", step.id)))
        if asked is None:
            if gate:
                self._remark((*step.place, "gate"), _DROPPED["gate"], step.document)
            return [step]
        name = f"{step.id}-gate"
        # The command runtime without a line has nothing to do: it is a question and nothing else.
        facts = {"id": name, "title": asked["approval"][:400], "agent": "command", "criteria": [asked]}
        self._drop((*step.place, "gate"), gate, {"type", "id", "await_id"}, step.document)
        return [replace(step, facts=facts), replace(step, needs=(name,))]

    def _template(self, step: _Step) -> dict[str, Any]:
        facts, place = step.facts, step.place
        if "criteria" in facts:
            return {**facts, "needs": [_id(need) for need in step.needs], "id": _id(step.id)}
        focus, notes = self.text(facts, "focus", place), self.text(facts, "notes", place)
        parts = [f"Focus: {focus}" if focus else "", self.text(facts, "description", place).strip(), notes.strip()]
        if facts.get("type", "task") != "task":
            self._remark((*place, "type"), "has no counterpart: a step is a step", step.document)
        self._drop(place, facts, _STEP, step.document)
        made: dict[str, Any] = {
            "id": _id(step.id),
            "title": " ".join(self.text(facts, "title", place).split()) or step.id,
            "description": "\n\n".join(filter(None, parts)),
            "needs": [_id(need) for need in step.needs],
            **({"agent": facts["agent"]} if "agent" in facts else {}),
            **({"when": _condition(facts["condition"])} if self.text(facts, "condition", place).strip() else {}),
        }
        tried = self._tried(step)
        if self.text(facts, "acceptance", place).strip():
            tried["criteria"] = [*tried.get("criteria", []), _acceptance(facts["acceptance"])]
        return {**made, **tried}

    def _tried(self, step: _Step) -> dict[str, Any]:
        """How often a step is tried, and the program that says whether it is done."""
        made: dict[str, Any] = {}
        for key in ("retry", "ralph", "check"):
            table = self.table(step.facts, key, step.place)
            if isinstance(table.get("max_attempts"), int):
                made["attempts"] = max(1, table["max_attempts"])
            check = self.table(table, "check", (*step.place, key))
            if check.get("mode") == "exec" and isinstance(check.get("path"), str):
                limit = _seconds(str(check.get("timeout", "")))
                path = check["path"] if names(check["path"]) else shlex.quote(check["path"])
                made["criteria"] = [{"run": path, **({"timeout": limit} if limit else {})}]
                self._drop((*step.place, key, "check"), check, {"mode", "path", "timeout"}, step.document)
            self._drop((*step.place, key), table, {"max_attempts", "check"}, step.document)
        return made

    def _variables(self, steps: Sequence[_Step], kind: str) -> dict[str, Any]:
        used = {name for step in steps for _, text in texts(step.facts) for name in names(text)}
        variables = declared(
            self.table(self.data, "vars", ()), used, lambda key, said: self._remark(("vars", *key), said)
        )
        inputs = self.table(self.data, "inputs", ())
        variables |= declared(inputs, (), lambda key, said: self._remark(("inputs", *key), said))
        if kind == "expansion":
            about = {"target": "main", "target_title": self.data["formula"]}
            about["target_description"] = self.text(self.data, "description", ())
            for name, default in about.items():
                said = "What it is done to." if name == "target" else f"The {name[7:]} of what it is done to."
                variables.setdefault(name, {"description": said, "default": str(default)})
        return variables

    def _told(self) -> str:
        """A convoy's inputs, which its own program would put into prompts."""
        return "\n".join(f"* {name}: {{{{{name}}}}}" for name in self.table(self.data, "inputs", ()))

    def _undeclared(self, formula: Formula) -> None:
        seen: set[str] = set()
        parts: list[tuple[Place, object]] = [(("goal",), formula.goal)]
        parts += [(("steps", index), step.model_dump()) for index, step in enumerate(formula.steps)]
        for place, value in parts:
            for key, text in texts(value):
                for name in names(text):
                    if name not in formula.vars and name not in seen:
                        seen.add(name)
                        problem = f"{{{{{name}}}}} is not declared, and left as it is"
                        self.remarks.append(formula.remark((*place, *key), problem))

    def _drop(
        self, place: Place, facts: Mapping[str, Any], known: Iterable[str], document: Document | None = None
    ) -> None:
        """A remark about every key that has no counterpart."""
        handled = set(known)
        for key in facts:
            if key not in handled:
                self._remark((*place, key), _DROPPED.get(key, "has no counterpart here"), document)

    def _remark(self, place: Place, problem: str, document: Document | None = None) -> None:
        error = (document or self.document).fault(place, problem)
        self.remarks.append(Remark(error.source, error.line, error.key, problem))


def _id(text: str) -> str:
    """An id of ours: dots and other marks become hyphens, what stands for a value stays."""
    return re.sub(r"[^A-Za-z0-9_{}-]", "-", text).lstrip("-_")


def _condition(text: str) -> str:
    """A condition of ours: what is compared with stands without quotes."""
    return re.sub(r"(==|!=)\s*(['\"])(.*)\2\s*$", r"\1 \3", text)


def _seconds(text: str) -> float | None:
    """What a duration such as ``1h30m`` is in seconds; None when it is none."""
    if not re.fullmatch(r"(?:[\d.]+(?:ms|h|m|s))+", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


def _origin(document: Document, steps: Sequence[_Step]) -> Callable[[Place], tuple[Document, Place]]:
    said = {"when": "condition", "goal": "description"}

    def origin(place: Place) -> tuple[Document, Place]:
        if place[:1] != ("steps",) or len(place) < 2:
            return document, tuple(said.get(str(part), part) for part in place)
        step = steps[int(place[1])]
        return step.document, (*step.place, *(said.get(str(part), part) for part in place[2:]))

    return origin
