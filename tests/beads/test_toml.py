"""TOML in and out: bytes survive, and what a person wrote wrong is found on its line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from beads.errors import InvalidDocument, InvalidInput
from beads.lines import Place, places
from beads.toml import dotted, dumps, line_of, loads, validate

# What has gone wrong in one TOML library or another, more often than chance would bring it up.
AWKWARD = [
    "\r\n", "\r", "\n", "\n\n", '"', '"""', "'''", "\\", "\\\n", "\\u0041", "\x00", "\x1b", "\x7f", "\x85",
    "\u2028", "\u2029", "\ufeff", "\t", " ", "#", "[a]", "[[a]]", "a = 1", "é", "😀", "e\u0301",
]  # fmt: skip

texts = st.lists(
    st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=12
).map("".join)

scalars = st.one_of(
    texts,
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.datetimes(timezones=st.just(None)),
    st.dates(),
    st.times(),
)
tables = st.recursive(
    st.dictionaries(texts, scalars, max_size=4),
    lambda inner: st.dictionaries(
        texts,
        st.one_of(scalars, inner, st.lists(scalars, max_size=3), st.lists(inner, max_size=3)),
        max_size=4,
    ),
    max_leaves=12,
)


@given(texts)
def test_text_survives_byte_for_byte(text: str) -> None:
    assert loads(dumps({"text": text}), "x")["text"].encode() == text.encode()


@given(tables)
def test_tables_survive(table: dict[str, Any]) -> None:
    assert loads(dumps(table), "x") == table


@given(tables)
def test_the_same_table_gives_the_same_bytes(table: dict[str, Any]) -> None:
    first = dumps(table)
    assert dumps(loads(first, "x")) == first


def test_megabytes_survive() -> None:
    text = "".join(f"{number} {AWKWARD[number % len(AWKWARD)]}" for number in range(200_000))
    assert len(text) > 1_500_000
    assert loads(dumps({"text": text, "list": [text[:100_000]]}), "x")["text"] == text


def test_text_of_several_lines_is_written_as_lines() -> None:
    assert dumps({"text": "one\ntwo\n"}) == b'text = """\none\ntwo\n"""\n'


@pytest.mark.parametrize(
    "data",
    [{"text": "\ud800"}, {"text": "ok\n\udcff"}, {"\udfff": 1}, {"list": [{"deep": ["\udc80"]}]}],
    ids=["value", "multi-line", "key", "nested"],
)
def test_lone_surrogates_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="not Unicode text"):
        dumps(data)


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested too deep"):
        dumps({"x": deep})


@given(st.binary(max_size=60))
def test_whatever_is_read_is_a_table_or_an_error_with_a_place(data: bytes) -> None:
    try:
        read = loads(data, "x.toml")
    except InvalidDocument as error:
        refused = error
    else:
        assert isinstance(read, dict)
        return
    assert refused.source == "x.toml"
    assert 0 <= refused.line <= data.count(b"\n") + 1


@pytest.mark.parametrize(
    "data,line",
    [
        (b"a = 1\nb = \n", 2),
        (b"a = 1\n\n\xff = 2\n", 3),
        (b'a = 1\nb = """\n', 3),
        (b"a = 1\na = 2\n", 2),
        (b"a = " + b"9" * 5000, 0),
        (b"a = " + b"[" * 5000, 0),
        (b"\xef\xbb\xbfa = 1\n", 1),
    ],
    ids=["value", "utf-8", "unterminated", "twice", "number", "nested", "byte order mark"],
)
def test_what_is_not_toml_is_named_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(InvalidDocument) as caught:
        loads(data, "plan.toml")
    assert caught.value.line == line
    assert caught.value.message.startswith(f"plan.toml:{line}: " if line else "plan.toml: ")


def _short(name: str) -> str:
    if len(name) > 3:
        raise ValueError("is too long")
    return name


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    needs: list[str] = []
    limits: dict[str, int] = {}


class Molecule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    title: str = Field("", max_length=300)
    steps: list[Step] = []


class Agent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    runtime: str = ""
    timeout: float = 1.0


class Hook(BaseModel):
    model_config = ConfigDict(extra="forbid")

    script: str
    after: list[Hook] = []


class Gate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    commands: list[str] = []
    hook: int | Hook | None = None
    names: Annotated[list[Annotated[str, AfterValidator(_short)]], Field(max_length=2)] = []
    slots: int = Field(1, alias="slot-count")


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plan: str = ""
    gate: Gate | None = None
    agents: dict[str, Agent] = {}
    molecules: list[Molecule] = []


@dataclass
class Case:
    """A document; what is wrong is on the line that ends with ``# HERE``."""

    text: str
    key: str
    problem: str = "unknown key"
    hint: str = ""


CASES = {
    "root": Case("plan = 'x'\nplam = 1 # HERE\n", "plam", hint="Did you mean 'plan'?"),
    "nothing near": Case("zzz = 1 # HERE", "zzz", hint="Known keys: agents, gate, molecules, plan."),
    "table": Case("[gate] # [x]\ncommand = [] # HERE", "gate.command", hint="Did you mean 'commands'?"),
    "alias": Case("[gate]\nslot-cout = 1 # HERE", "gate.slot-cout", hint="Did you mean 'slot-count'?"),
    "sub-table": Case("[agents.a]\n[agents.b]\nrumtime = '' # HERE", "agents.b.rumtime", hint="'runtime'"),
    "sub-table of a quoted key": Case(
        "[agents.'a.b']\n[agents.\"a.c\"]\nrumtime = '' # HERE", "agents.a.c.rumtime", hint="'runtime'"
    ),
    "dotted key": Case("agents.a.timeout = 1\nagents.b.tmeout = 1 # HERE", "agents.b.tmeout", hint="'timeout'"),
    "array of tables": Case(
        "[[molecules]]\nid = 'a'\n[[molecules]]\nid = 'b'\n titel = '' # HERE\n[[molecules]]\nid = 'c'",
        "molecules[1].titel",
        hint="'title'",
    ),
    "array in an array": Case(
        "[[molecules]]\nid = 'a'\n[[molecules.steps]]\nid = 's'\n[[molecules]]\nid = 'b'\n"
        "[[molecules.steps]]\nid = 't'\n[[molecules.steps]]\nid = 'u'\nneed = [] # HERE",
        "molecules[1].steps[1].need",
        hint="'needs'",
    ),
    "missing": Case("[[molecules]]\nid = 'a'\n[[molecules]] # HERE\ntitle = ''", "molecules[1].id", "is missing"),
    "after text of several lines": Case(
        'plan = """\n[gate]\ngate = 1\nplam = 2\n\\"""\n"""\nplam = 1 # HERE', "plam", hint="'plan'"
    ),
    "after a literal of several lines": Case("plan = '''\n[gate]\n\"\"\"\n'''\nplam = 1 # HERE", "plam"),
    "after one-line text that looks long": Case("plan = ' \"\"\" ' # '''\nplam = 1 # HERE", "plam"),
    "after an array of several lines": Case(
        '[gate]\ncommands = [\n  "[agents]", # ]\n  """\n[x]\n""", \'[[y]]\'\n]\ncommand = 1 # HERE', "gate.command"
    ),
    "in an inline table": Case("plan = ''\nagents = { a = { rumtime = '' } } # HERE", "agents.a.rumtime"),
    "in an array of inline tables": Case(
        "molecules = [\n  { id = 'a' },\n  { id = 'b', steps = [\n    { id = 's', need = [] } # HERE\n  ] },\n]",
        "molecules[1].steps[0].need",
        hint="'needs'",
    ),
    "in an array": Case("[gate]\ncommands = [\n  'a',\n  1, # HERE\n]", "gate.commands[1]", "not 1"),
    "hash and bracket in text": Case(
        "plan = '# [gate]'\n\n[gate]#x\ncommands = 'no' # HERE", "gate.commands", "not 'no'"
    ),
    "after separators that end no line": Case("# \u2028 \u0085\nplan = '\u2028\u2029'\nplam = 1 # HERE", "plam"),
    "carriage returns": Case("plan = ''\r\n[gate]\r\ncommand = '' # HERE\r\n", "gate.command"),
    "a branch of a union": Case("[gate]\nhook.scrip = '' # HERE\nhook.script = ''", "gate.hook.scrip", hint="'script'"),
    "deep in a union": Case(
        "[gate.hook]\nscript = ''\n[[gate.hook.after]]\nscript = ''\nscrip = '' # HERE",
        "gate.hook.after[0].scrip",
        hint="'script'",
    ),
    "a value of a union": Case("[gate]\nhook = 'x' # HERE", "gate.hook", "valid integer"),
    "a key that looks like a tag": Case("'function-after[x]' = 1 # HERE", "function-after[x]", hint="Known keys"),
    "a validator": Case("[gate]\nnames = ['a',\n'long'] # HERE", "gate.names[1]", "is too long, not 'long'"),
    "too many": Case("[gate]\nnames = ['a', 'b', 'c'] # HERE", "gate.names", "at most 2"),
    "spaces around": Case("[ gate ]\n  'command'  =  1 # HERE", "gate.command"),
    "escaped key": Case('[gate]\n"comm\\u0061nd" = 1 # HERE', "gate.command"),
    "mapping": Case("[agents.a]\ntimeout = 'x' # HERE", "agents.a.timeout", "not 'x'"),
    "value of a mapping": Case(
        "[[molecules]]\nid = ''\n[[molecules.steps]]\nid = ''\n[molecules.steps.limits]\na = 1\nb = 'x' # HERE",
        "molecules[0].steps[0].limits.b",
        "not 'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_named_with_line_and_key(name: str) -> None:
    case = CASES[name]
    text = case.text.encode()
    line = 1 + next(number for number, line in enumerate(text.split(b"\n")) if line.rstrip().endswith(b"# HERE"))
    with pytest.raises(InvalidDocument) as caught:
        validate(Document, loads(text, "town.toml"), text, "town.toml")
    assert (caught.value.line, caught.value.key) == (line, case.key)
    assert case.problem in caught.value.problem
    assert case.hint in caught.value.hint


def test_a_prefix_says_where_the_table_hangs() -> None:
    text = b"[a]\n\n[gate]\ncommand = 1\n"
    with pytest.raises(InvalidDocument, match=r"^x:4: gate\.command: unknown key 'command'$"):
        validate(Gate, loads(text, "x")["gate"], text, "x", ("gate",))


def test_what_fits_is_returned() -> None:
    text = b"plan = 'x'\n[agents.a]\ntimeout = 2\n"
    assert validate(Document, loads(text, "x"), text, "x").agents["a"].timeout == 2.0


def test_a_long_value_is_cut_in_the_message() -> None:
    text = b"plan = '" + b"x" * 100_000 + b"'\n[[molecules]]\nid = 'a'\ntitle = '" + b"y" * 100_000 + b"'\n"
    with pytest.raises(InvalidDocument) as caught:
        validate(Document, loads(text, "x"), text, "x")
    assert caught.value.line == 4
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "place,text", [((), ""), (("a", 0, "b"), "a[0].b"), (("a", 1, 2), "a[1][2]"), (("gate", "x y"), "gate.x y")]
)
def test_places_read_as_people_write_them(place: Place, text: str) -> None:
    assert dotted(place) == text


@pytest.mark.parametrize(
    "text,place,line",
    [
        (b"", ("a",), 0),
        (b"a = 1\n", (), 0),
        (b"a = 1\n", ("b",), 0),
        (b"[a.b]\nx = 1\n", ("a",), 1),
        (b"[a.b]\nx = 1\n[a]\ny = 1\n", ("a",), 3),
        (b"[a.b]\nx = 1\n[a]\ny = 1\n", ("a", "z"), 3),
        (b"\n[[m]]\nx = 1\n[[m]]\n", ("m",), 2),
        (b"\n[[m]]\nx = 1\n[[m]]\n", ("m", 1, "x"), 4),
        (b"\n[[m]]\nx = 1\n[[m]]\n", ("m", 7), 2),
        (b"a.b.c = 1\n", ("a", "b", "d"), 1),
        (b"x = 1\n'a.b' = 1\n[a]\nb = 1\n", ("a", "b"), 4),
        (b"x = 1\n'a.b' = 1\n[a]\nb = 1\n", ("a.b",), 2),
        (b"a = [ # ]\n\n 1, [\n2]]\n", ("a", 1, 0), 4),
        (b"not = [ toml\n", ("a",), 0),
        (b"a = [ }\nb = 1\n", ("b",), 2),
        (b'"\\x" = 1\nb = 1\n', ("b",), 2),
        (b"[\n[a\n", ("a",), 2),
        (b"[[a.b]]\nx = 1\n[[a.b]]\n", ("a", "b", 1, "y"), 3),
    ],
)
def test_the_nearest_written_ancestor_is_named(text: bytes, place: Place, line: int) -> None:
    assert line_of(text, place) == line


@dataclass
class Written:
    """A document as it grows, and the line of every place in it."""

    text: str = ""
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, text: str) -> None:
        self.text += f"{text}\n"

    def here(self, place: Place) -> None:
        self.lines[place] = self.text.count("\n") + 1


KEYS = {
    "a": "a",
    "b-c": "b-c",
    "'d.e'": "d.e",
    '"f\\"g"': 'f"g',
    '"[h]"': "[h]",
    "'#i'": "#i",
    "1": "1",
    '"j=k"': "j=k",
}
NOISE = ["", "# [x]", "  # a = 1", "\t", '# """', "# '''", "# \u2028 [y]", " "]
SCALARS = [
    "1", "-2.5e3", "2026-01-02T03:04:05.6Z", "true", '"[x] # \\" ="', "'[[y]] # \"\"\" \\'", '""', "''",
    '"""one"""', '"""\n[x]\na = 1\n\\"""\n"" """"', "'''\n[x]\n\"\"\"\n'' ''''", '"""\\\n  a = 1\n"""', "'\u2028'",
]  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> Written:
    """Valid documents with every kind of table, and the line of every key and element as it was written."""
    document = Written()
    _keys(draw, document, ())
    for number in range(draw(st.integers(0, 4))):
        # Numbered names keep tables from being defined twice.
        raw = draw(st.sampled_from([f"t{number}", f"'t.{number}'"]))
        name = raw.strip("'")
        if draw(st.booleans()):
            for index in range(draw(st.integers(1, 3))):
                _header(draw, document, f"[[ {raw}]]", (name, index))
                _keys(draw, document, (name, index))
                for inner in range(draw(st.integers(0, 2))):
                    _header(draw, document, f"[[{raw} . s]]", (name, index, "s", inner))
                    _keys(draw, document, (name, index, "s", inner))
        else:
            _header(draw, document, f"[{raw}]", (name,))
            _keys(draw, document, (name,))
            if draw(st.booleans()):
                _header(draw, document, f"[{raw}.'u v']", (name, "u v"))
                _keys(draw, document, (name, "u v"))
    return document


def _header(draw: st.DrawFn, document: Written, header: str, place: Place) -> None:
    document.here(place)
    document.line(f"{draw(st.sampled_from(['', '  ']))}{header}{draw(st.sampled_from(['', ' # [z]', '#']))}")


def _keys(draw: st.DrawFn, document: Written, table: Place) -> None:
    for raw in draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True, max_size=4)):
        for noise in draw(st.lists(st.sampled_from(NOISE), max_size=2)):
            document.line(noise)
        place = (*table, KEYS[raw])
        document.here(place)
        if draw(st.booleans()):
            document.text += f"{raw}="
        else:
            place = (*place, "dot")
            document.here(place)
            document.text += f" {raw} . dot ="
        _value(draw, document, place, 2)
        document.line(draw(st.sampled_from(["", " # c = 1", "#"])))


def _value(draw: st.DrawFn, document: Written, place: Place, depth: int) -> None:
    kind = draw(st.sampled_from(["scalar", "array", "inline"] if depth else ["scalar"]))
    if kind == "scalar":
        document.text += draw(st.sampled_from(SCALARS))
    elif kind == "array":
        document.text += "["
        for index in range(draw(st.integers(0, 3))):
            document.text += draw(st.sampled_from(["", "\n", "\n # ] [x]\n ", " "]))
            document.here((*place, index))
            _value(draw, document, (*place, index), depth - 1)
            document.text += draw(st.sampled_from([",", " ,", " # ,]\n,"]))
        document.text += draw(st.sampled_from(["]", "\n]"]))
    else:
        document.text += "{ "
        for index, raw in enumerate(draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True, max_size=3))):
            document.text += ", " if index else ""
            document.here((*place, KEYS[raw]))
            document.text += f"{raw} = "
            _value(draw, document, (*place, KEYS[raw]), depth - 1)
        document.text += "}"


@given(documents(), st.data())
@settings(max_examples=60)
def test_the_line_is_never_wrong(document: Written, draw: st.DataObject) -> None:
    data, found = tomllib.loads(document.text), places(document.text)
    for place, line in document.lines.items():
        value: Any = data
        for part in place:
            value = value[part]
        assert found[place] == line, f"{dotted(place)} in\n{document.text}"
    # Each asks for all places anew, so one of them must do.
    for place in [draw.draw(st.sampled_from(list(document.lines)))] if document.lines else []:
        assert line_of(document.text.encode(), place) == document.lines[place]
        assert line_of(document.text.encode(), (*place, "not", 0, "there")) == document.lines[place]


@given(st.binary(max_size=80))
def test_a_line_can_be_asked_of_anything(data: bytes) -> None:
    assert 0 <= line_of(data, ("a", 0, "b")) <= data.count(b"\n") + 1
