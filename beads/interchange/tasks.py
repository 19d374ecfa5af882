"""The text of a Spec-Kit ``tasks.md``: its phases and tasks, and the checkboxes that are neither. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from beads.errors import InvalidDocument

_TASK = re.compile(
    r"\s*[-*+]\s+\[(?P<mark>[ xX])\]\s+(?P<id>T\d{3,})(?P<tags>(?:\s+\[(?:P|US\d+)\])*)\s+(?P<text>\S.*?)\s*"
)
_BOX = re.compile(r"\s*[-*+]\s+\[[ xX]\](?:\s|$)")
_PHASE = re.compile(r"##\s+Phase\s+(?P<number>\w+)\s*:\s*(?P<title>.+?)\s*#*\s*")
_STORY = re.compile(r"User Story\s+(?P<number>\d+)\b(?:.*\(Priority:\s*P(?P<priority>\d)\))?", re.I)
_DEPENDS = re.compile(r"\(depends on (T\d{3,}(?:\s*(?:,\s*and|,|and|&)\s*T\d{3,})*)\)", re.I)
_FIELD = re.compile(r"\*\*(?P<name>Goal|Purpose|Independent Test|Checkpoint)\*\*\s*:\s*(?P<text>.+?)\s*")
_REFERENCE = re.compile(r"\b(?:FR|SC|NFR)-\d+\b")
_GAP = re.compile(r"\bper\s+.+?\s+\((missing|partial|contradicts|unrequested)\)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")

# Something with a directory and an extension, or a bare name with an extension that files of projects have.
_PATH = re.compile(
    r"(?<![\w/.@:-])(?:\.{0,2}/)?((?:[\w.@\[\]-]+/)+[\w.@\[\]-]*\w\.\w{1,10}"
    r"|[\w.-]*\w\.(?:c|cfg|cpp|cs|css|go|h|html|ini|java|json|kt|lock|md|php|py|rb|rs|sh|sql|swift|toml|tsx?|txt|ya?ml))"
    r"(?![\w/])"
)
# What comes before a file that is written, and between two of them; and a task after which it is gone.
_WRITES = re.compile(
    r"\b(?:add|as|at|build|create|creating|draft|generate|implement|in|inside|into|make|scaffold|to|under|write|writing)"
    r"\s+(?:(?:a|an|its|new|the)\s+)?(?:files?\s+)?[`'\"(]*$",
    re.I,
)
_AND = re.compile(r"[`'\")]*\s*(?:,\s*and|,|and|&|\+)\s*[`'\"(]*", re.I)
_REMOVES = re.compile(r"(?:delete|drop|remove)\b", re.I)
_CODE = re.compile(r"(?P<before>[^`]*)`(?P<code>[^`\n]+)`")
_RUNNERS = frozenset(
    {
        *("bash", "bats", "bazel", "bun", "bundle", "cargo", "composer", "ctest", "deno", "docker", "dotnet", "go"),
        *("gradle", "jest", "just", "make", "mix", "mvn", "mypy", "node", "nox", "npm", "npx", "phpunit", "playwright"),
        *("pnpm", "poetry", "pytest", "python", "python3", "rake", "rspec", "ruff", "sbt", "sh", "swift", "tox", "tsc"),
        *("uv", "vitest", "yarn"),
    }
)
_BIDS_RUN = re.compile(r"\b(?:run|runs|running|execute|executes|executing|via)\s*:?\s*$", re.I)


@dataclass(frozen=True)
class Task:
    """One checkbox with an id.

    Attributes:
        id: such as ``T012``.
        line: where it is, counted from 1.
        done: whether it is ticked.
        free: whether ``[P]`` says that it may be done beside others.
        text: the rest of the line.
        section: the heading of the third level that it stands under.
        story: the user story that it is tagged with, such as ``US1``.
    """

    id: str
    line: int
    done: bool
    free: bool
    text: str
    section: str
    story: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that the text names, but for those that only a command in it does."""
        return tuple(dict.fromkeys(found.group(1) for found in _PATH.finditer(self._prose)))

    @property
    def files(self) -> tuple[str, ...]:
        """Those of them that are inside of the repository."""
        return tuple(path for path, _ in self._inside())

    @property
    def makes(self) -> tuple[str, ...]:
        """Those among :attr:`files` that the task makes, if they are not there: the only one, or where it is to write.

        >>> Task("T001", 1, False, False, "Test src/a.py in tests/a.py and tests/b.py", "", "").makes
        ('tests/a.py', 'tests/b.py')
        """
        if _REMOVES.match(self.text):
            return ()
        found, after, end = [], False, 0
        for path, at in self._inside():
            before = self._prose[end : at.start()]
            after = bool(_WRITES.search(before)) or (after and _AND.fullmatch(before) is not None)
            found += [path] if after else []
            end = at.end()
        return tuple(found) or (self.files if len(self.files) == 1 else ())

    def _inside(self) -> Iterator[tuple[str, re.Match[str]]]:
        seen = set[str]()
        for at in _PATH.finditer(self._prose):
            path = at[1]
            if at[0] in (path, f"./{path}") and ".." not in path.split("/") and path not in seen:
                seen.add(path)
                yield path, at

    @property
    def _prose(self) -> str:
        """The text without the commands in it: what they name is looked at, and not written."""
        text = self.text
        for command in commands(text):
            text = text.replace(f"`{command}`", "").replace(f"`$ {command}`", "")
        return text

    @property
    def needs(self) -> tuple[str, ...]:
        """The tasks that the text says it depends on."""
        return tuple(i for found in _DEPENDS.finditer(self.text) for i in re.findall(r"T\d{3,}", found.group(1)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Its story, the requirements it names, and the gap that a convergence task is about."""
        gap = _GAP.search(self.text)
        said = [self.story, *_REFERENCE.findall(self.text), gap.group(1) if gap else ""]
        return tuple(sorted({label for label in said if label}))


@dataclass
class Phase:
    """A heading of the second level and what stands below it.

    Attributes:
        key: what the heading calls it, such as ``3`` or ``N``; another one of that number is ``3 (2)``.
        title: the rest of the heading; empty for what stands before the first one.
        line: where the heading is.
        tasks: in the order of the file.
        said: its goal, purpose, independent test and checkpoint, with the lines they are on.
    """

    key: str
    title: str
    line: int
    tasks: list[Task] = field(default_factory=list)
    said: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def story(self) -> str:
        """The user story it is about, such as ``US1``; empty when it is about none."""
        found = _STORY.search(self.title)
        return f"US{found['number']}" if found else ""

    @property
    def priority(self) -> int:
        """The priority of its story."""
        found = _STORY.search(self.title)
        return min(int(found["priority"]), 4) if found and found["priority"] else 2

    @property
    def checks(self) -> tuple[tuple[str, str, int], ...]:
        """What is to be looked at when its tasks are done."""
        return tuple(item for item in self.said if item[0] in ("Independent Test", "Checkpoint"))

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands among that, each once."""
        return tuple(dict.fromkeys(c for _, text, _ in self.checks for c in commands(text)))


@dataclass(frozen=True)
class Outline:
    """A whole file: its title, its phases with tasks or something to check, and what could not be read."""

    title: str
    phases: tuple[Phase, ...]
    notes: tuple[str, ...]


def read(text: str, source: str) -> Outline:
    """Read a ``tasks.md``.

    Raises:
        InvalidDocument: two tasks have one id, or there is no task at all.
    """
    title, section, phase = "", "", Phase("", "", 0)
    phases, notes, seen = [phase], [], dict[str, int]()
    for number, line in _prose(text):
        if line.startswith("# ") and not title:
            title = re.sub(r"^#\s+(Tasks\s*:\s*)?", "", line).strip()
        elif heading := _PHASE.fullmatch(line):
            section, phase = "", Phase(_key(heading["number"], phases), heading["title"], number)
            phases.append(phase)
        elif line.startswith("## "):
            # What comes after the phases, such as notes, is no part of the last one.
            section, phase = "", Phase(_key(line.strip("# "), phases), line.strip("# "), number)
            phases.append(phase)
        elif line.startswith("### "):
            section = line.strip("# ")
        elif said := _FIELD.fullmatch(line.strip()):
            phase.said.append((said["name"], said["text"], number))
        elif found := _TASK.fullmatch(line):
            if found["id"] in seen:
                problem = f"{found['id']} is the id of the task on line {seen[found['id']]}, too"
                raise InvalidDocument(source, number, "", problem, "Give each task an id of its own.")
            seen[found["id"]] = number
            phase.tasks.append(_task(found, number, section, phase))
        elif _BOX.match(line):
            notes.append(f"{source}:{number}: not a task: {line.strip()[:100]}")
    if not seen:
        hint = "A task is a line such as `- [ ] T001 Create src/app.py`."
        raise InvalidDocument(source, 0, "", "there is no task in it", hint)
    return Outline(title, tuple(p for p in phases if p.tasks), tuple(notes))


def _key(name: str, phases: Sequence[Phase]) -> str:
    same = sum(re.fullmatch(rf"{re.escape(name)}( \(\d+\))?", phase.key) is not None for phase in phases)
    return f"{name} ({same + 1})" if same else name


def _task(found: re.Match[str], line: int, section: str, phase: Phase) -> Task:
    tags = re.findall(r"\[(\w+)\]", found["tags"])
    story = next((tag for tag in tags if tag != "P"), phase.story)
    return Task(found["id"], line, found["mark"] != " ", "P" in tags, found["text"], section, story)


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither code nor comment, with their numbers."""
    fence, comment = "", False
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff")), start=1):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(mark[1][0]):
                fence = ""
        elif comment or line.lstrip().startswith("<!--"):
            comment = "-->" not in line
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def commands(text: str) -> Iterator[str]:
    """The code in a text that can be run: it starts with a known program or a path, or the text says to run it.

    >>> list(commands("Run `shop list`, see `src/shop.py`; then `pytest -q tests` passes"))
    ['shop list', 'pytest -q tests']
    """
    for found in _CODE.finditer(text):
        code = found["code"].strip().removeprefix("$ ")
        first, blank, _ = code.partition(" ")
        known = first in _RUNNERS or (first.startswith("./") and bool(blank or _BIDS_RUN.search(found["before"])))
        bidden = bool(_BIDS_RUN.search(found["before"])) and re.fullmatch(r"[A-Za-z][\w.-]*", first) is not None
        # A placeholder is for a person to fill in.
        if (known or bidden) and not re.search(r"<\w[^>]*>|\[\w[^]]*\]|…|\.\.\.", code):
            yield code
