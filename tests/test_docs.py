"""What the documents say is so: commands are all described, links lead somewhere, and examples run."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import reference
from tests.world import ROOT, make_repository, project_files

# A prompt is given to a model as it is; its brackets are no links of ours.
PAGES = [name for name in project_files() if name.endswith(".md") and not name.startswith("roles/prompts/")]
EXAMPLE_SECONDS_MAX = 120

FENCE = re.compile(r"^ {0,3}(?P<fence>```+|~~~+)(?P<info>[^\n]*)\n(?P<body>.*?)^ {0,3}(?P=fence)[ \t]*$", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?(?P<target>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]^]+\]:\s*<?(?P<target>[^\s>]+)", re.M)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(?P<text>.+?)\s*#*\s*$", re.M)
MARK = re.compile(r"<!-- run(?:: exit (?P<code>\d+)|: (?P<output>output))? -->")


class Example(NamedTuple):
    """A console block that is run.

    Attributes:
        line: where its mark is.
        script: what is typed in it.
        exit_code: what it must end with.
        output: what it must print, where ``…`` stands for anything; None when that is not compared.
    """

    line: int
    script: str
    exit_code: int = 0
    output: str | None = None


def test_every_command_is_in_the_reference() -> None:
    written = reference.PAGE.read_text("utf-8") if reference.PAGE.exists() else ""
    changed = list(
        difflib.unified_diff(written.splitlines(), reference.page().splitlines(), "written", "help", lineterm="")
    )
    assert not changed, "docs/commands.md does not say what --help says; run make fix\n" + "\n".join(changed[:60])


def test_every_command_has_help_with_an_example() -> None:
    found = reference.commands()
    assert {"bead", "town"} < {command.path for command in found}, "no command was found below bead and town"
    missing = [command.path for command in found if "Example" not in command.help]
    assert not missing, f"the help of these has no section that starts with Example: {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = [target for target in links(read(page)) if not resolves(page, target)]
    assert not broken, f"{page} links to what is not there: {', '.join(broken)}"


def test_every_page_is_in_the_index() -> None:
    index = "docs/README.md"
    listed = {(ROOT / "docs" / target.split("#")[0]).resolve() for target in links(read(index))}
    pages = [page for page in PAGES if page.startswith("docs/") and page != index]
    assert pages, "no page was found in docs/"
    missing = [page for page in pages if (ROOT / page).resolve() not in listed]
    assert not missing, f"docs/README.md does not link to {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """The blocks of one page run one after another in one repository, as a reader would type them."""
    repository = make_repository(tmp_path / "project")
    for example in examples(read(page)):
        exit_code, out, err = run(example.script, repository, environ)
        place = f"{page}:{example.line}"
        assert exit_code == example.exit_code, (
            f"{place}: ended with exit code {exit_code}, not {example.exit_code}\n{out[-4000:]}\n{err[-4000:]}"
        )
        assert example.output is None or pattern(example.output).fullmatch(out), f"{place}: printed instead\n{out}"


@pytest.mark.parametrize("page", [page for page in PAGES if "```pycon\n" in (ROOT / page).read_text("utf-8")])
def test_python_sessions_are_as_shown(page: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """The ``pycon`` blocks of one page are one session in one repository, and print what is written there."""
    repository = make_repository(tmp_path / "project")
    session = tmp_path / Path(page).name
    session.write_text(python_session(read(page)), "utf-8")
    exit_code, out, err = run(f"python3 -m doctest {shlex.quote(str(session))}", repository, environ)
    assert exit_code == 0, f"{page} (the lines are those of the page):\n{out[-4000:]}\n{err[-4000:]}"


def test_a_python_session_keeps_its_lines() -> None:
    text = "a\n\n```pycon\n>>> 1\n1\n```\n\n>>> no\n```pycon\n>>> 2\n2\n```\n"
    assert python_session(text).splitlines() == ["", "", "", ">>> 1", "1", "", "", "", "", ">>> 2", "2"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_only_shown_exist(page: str) -> None:
    """Blocks that cannot be run, such as those about a repository of the reader's, must still be right."""
    known = {command.path: command.options for command in reference.commands()}
    for words in shown(read(page)):
        path = next(" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in known)
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        assert len(path.split()) > 1 or options, f"{page}: {' '.join(words)}: there is no such command"
        unknown = set(options) - known[path] - {"--help"}
        assert not unknown, f"{page}: {' '.join(words)}: no such option: {unknown}"


def test_the_readme_has_an_example_that_runs() -> None:
    assert examples(read("README.md")), "README.md has no console block marked with <!-- run -->"


@pytest.mark.parametrize("page", PAGES)
def test_every_mark_is_understood(page: str) -> None:
    """A mark with a slip in it would silently run nothing."""
    text = read(page)
    marks = [line for line in FENCE.sub("", text).splitlines() if line.startswith("<!-- run")]
    assert len(marks) == len(examples(text)), f"{page}: not all of these stand right before a console block: {marks}"


@pytest.mark.parametrize(
    "text,expected",
    [
        ("<!-- run -->\n```console\n$ true\nout\n$ false\n```\n", [Example(1, "true\nfalse")]),
        ("a\n\n<!-- run: exit 5 -->\n```console\n$ a \\\n  b\nno\n```\n", [Example(3, "a \\\n  b", 5)]),
        ("<!-- run -->\n```console\n$ cat <<E\n> one\n> E\none\n```\n", [Example(1, "cat <<E\none\nE")]),
        ("<!-- run: output -->\n```console\n$ a\nb\n```\n", [Example(1, "a", 0, "b\n")]),
        ("<!-- run: exit five -->\n```console\n$ a\n```\n", []),
        ("<!-- run -->\n\n```console\n$ a\n```\n", []),
        ("````markdown\n<!-- run -->\n```console\n$ a\n```\n````\n", []),
    ],
)
def test_an_example_is_its_prompted_lines(text: str, expected: list[Example]) -> None:
    assert examples(text) == expected


def test_an_ellipsis_stands_for_anything() -> None:
    expected = pattern("landed bt-… in … s\n…\ndone.\n")
    assert expected.fullmatch("landed bt-7f in 1.5 s\none\ntwo\ndone.\n")
    assert expected.fullmatch("landed bt-7f in 1.5 s\ndone.\n")
    assert not expected.fullmatch("landed bt-7f in 1.5 s\none\n")


def test_links_are_found_outside_of_code() -> None:
    text = "[a](b.md#c) ![d](<e f.png>) `[no](no)` [g][h]\n\n```text\n[no](no)\n```\n\n[h]: i.md\n"
    assert list(links(text)) == ["b.md#c", "i.md"]


def read(page: str) -> str:
    """The text of a page of the project."""
    return (ROOT / page).read_text("utf-8")


def examples(text: str) -> list[Example]:
    """The blocks of a page that are marked to be run."""
    found = []
    for block in FENCE.finditer(text):
        before = text[: block.start()].splitlines() or [""]
        mark = MARK.fullmatch(before[-1])
        if mark and block["info"].strip() == "console":
            typed, printed = transcript(block["body"])
            found.append(Example(len(before), typed, int(mark["code"] or 0), printed if mark["output"] else None))
    return found


def python_session(text: str) -> str:
    """The ``pycon`` blocks of a page, on the lines where they are."""
    lines: list[str] = []
    for block in FENCE.finditer(text):
        if block["info"].strip() == "pycon":
            lines += [""] * (text.count("\n", 0, block.start("body")) - len(lines))
            lines += block["body"].splitlines()
    return "".join(f"{line}\n" for line in lines)


def shown(text: str) -> Iterator[list[str]]:
    """The words of every ``bead`` and ``town`` line in the shell blocks of a page, without comments."""
    for block in FENCE.finditer(text):
        if block["info"].strip() in ("sh", "console"):
            for line in block["body"].splitlines():
                words = line.removeprefix("$ ").split(" #")[0].split()
                if words and words[0] in ("bead", "town"):
                    yield words


def transcript(body: str) -> tuple[str, str]:
    """What was typed in a console block (the lines after ``$``, and those that continue them), and the rest."""
    typed: list[str] = []
    printed: list[str] = []
    goes_on = False
    for line in body.splitlines():
        prompted = line.startswith(("$ ", "> "))
        (typed if prompted or goes_on else printed).append(line[2:] if prompted else line)
        goes_on = (prompted or goes_on) and line.endswith("\\")
    assert typed, f"a block marked to be run has no line that starts with '$ ':\n{body}"
    return "\n".join(typed), "".join(f"{line}\n" for line in printed)


def pattern(output: str) -> re.Pattern[str]:
    """What matches ``output``, with ``…`` for anything in a line, and for any lines where it stands alone."""
    lines = (
        "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        for line in output.splitlines()
    )
    return re.compile("".join(lines))


def run(script: str, directory: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """Run a block in a shell that stops at the first command that fails; returns exit code, output and trace."""
    started = subprocess.Popen(
        ["sh", "-exc", script],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = started.communicate(timeout=EXAMPLE_SECONDS_MAX)
    finally:
        # Also when all went well: an example that leaves a process behind must not hold up the next test.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    return started.returncode, out, err


def links(text: str) -> Iterator[str]:
    """The targets of a page's links that are not in code and do not leave the project."""
    prose = re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))
    for pattern in (LINK, REFERENCE):
        for found in pattern.finditer(prose):
            if not re.match(r"[a-z][a-z0-9+.-]*:", found["target"]):
                yield found["target"]


def resolves(page: str, target: str) -> bool:
    """Whether a link of ``page`` leads to a file, and to a heading of it where it names one."""
    name, _, anchor = target.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    if not path.exists():
        return False
    return not anchor or path.suffix != ".md" or anchor in anchors(path.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """The names that forges give to a page's headings."""
    found: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading["text"].lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found
