"""What both commands do when something goes wrong, and what they load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli.bead
from beads.errors import InvalidDocument, NeedsPerson, Refused, TownError
from cli.main import BEAD_COMMANDS, TOWN_COMMANDS, Root, bead, town
from cli.session import Session, command
from tests.cli.commands import PROGRAM, Beads, process

ERRORS: dict[str, BaseException] = {
    "refused": Refused("the rule says no", "Ask for less."),
    "person": NeedsPerson("somebody must look"),
    "document": InvalidDocument("town.toml", 3, "gate.slots", "must be a number"),
    "bug": ZeroDivisionError("division by zero"),
    "disk": OSError(28, "No space left on device", "out.json"),
    "interrupt": KeyboardInterrupt(),
    "pipe": BrokenPipeError(),
    "declined": click.Abort(),
}


@command("fail")
@click.argument("how")
def fail(how: str) -> None:
    """Fail in some way."""
    raise ERRORS[how]


@command("who")
@click.pass_obj
def who(session: Session) -> None:
    """Say who acts, and where."""
    click.echo(f"{session.actor} in {session.start}")


failing = Root("failing", {"All": {"fail": f"{__name__}:fail", "who": f"{__name__}:who"}}, "Fail.")


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(failing, list(args))
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    "how,code,said",
    [
        ("refused", 5, "error: the rule says no\nhint: Ask for less.\n"),
        ("person", 7, "error: somebody must look\n"),
        ("document", 2, "error: town.toml:3: gate.slots: must be a number\n"),
        ("bug", 1, "error: internal error: ZeroDivisionError: division by zero, run again with --debug\n"),
        ("disk", 1, "error: No space left on device: out.json\n"),
        ("interrupt", 130, "\nerror: interrupted\n"),
        ("declined", 1, "error: aborted\n"),
        ("pipe", 141, ""),
    ],
)
def test_each_error_has_its_words_and_code(how: str, code: int, said: str) -> None:
    assert run("fail", how) == (code, "", said)


def test_errors_can_be_json() -> None:
    for args in (["--json", "fail", "refused"], ["fail", "refused", "--json"]):
        code, out, err = run(*args)
        assert (code, out) == (5, "")
        assert json.loads(err) == {"error": "the rule says no", "hint": "Ask for less.", "exit_code": 5}
    assert json.loads(run("fail", "--json")[2])["exit_code"] == 2
    assert json.loads(run("fail", "interrupt", "--json")[2])["exit_code"] == 130
    assert run("fail", "--", "--json")[2].startswith("error: internal error: KeyError")


def test_debug_shows_where_it_came_from() -> None:
    for args in (["--debug", "fail", "refused"], ["fail", "refused", "--debug"]):
        said = run(*args)[2]
        assert said.startswith("Traceback (most recent call last):")
        assert said.endswith("error: the rule says no\nhint: Ask for less.\n")
    body = json.loads(run("fail", "bug", "--debug", "--json")[2])
    assert "ZeroDivisionError" in body["traceback"]


def test_without_debug_there_is_no_traceback() -> None:
    assert all("Traceback" not in run("fail", how)[2] for how in ERRORS)


@pytest.mark.parametrize(
    "args", [["nothing"], ["fail"], ["--nothing"], ["fail", "a", "b"], ["-C", "/nowhere", "fail", "bug"]]
)
def test_usage_is_exit_code_2(args: list[str]) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "hint: Usage: failing" in err


def test_no_command_prints_the_help() -> None:
    code, _, err = run()
    assert code == 2
    assert err.startswith("Usage: failing")


def test_a_mistyped_command_is_met_with_the_nearest() -> None:
    assert "there is no command 'fial'; did you mean 'fail'?" in run("fial")[2]


def test_help_and_version() -> None:
    assert run("--help")[0] == run("fail", "--help")[0] == 0
    code, out, _ = run("--version")
    assert (code, out.split()[0]) == (0, "failing")


def test_errors_cannot_play_with_the_terminal() -> None:
    ERRORS["escape"] = TownError("red \x1b[31m text")
    try:
        assert run("fail", "escape")[2] == "error: red \\x1b[31m text\n"
    finally:
        del ERRORS["escape"]


def test_the_actor_is_named_or_found(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def actor(*args: str) -> str:
        return run("-C", str(repo), "who", *args)[1].split(" in ")[0]

    assert actor() == "Test Person <test@example.org>"
    monkeypatch.setenv("BEADTOWN_ACTOR", "nux")
    assert actor() == "nux"
    assert actor("--actor", "zoe") == "zoe"
    monkeypatch.delenv("BEADTOWN_ACTOR")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    monkeypatch.setenv("LOGNAME", "somebody")
    assert actor() == "somebody"
    monkeypatch.setenv("PATH", "")
    assert actor() == "somebody"


def test_the_directory_can_be_given_anywhere(repo: Path) -> None:
    assert run("-C", str(repo), "who")[1].endswith(f" in {repo}\n")
    assert run("who", "-C", str(repo))[1].endswith(f" in {repo}\n")
    assert run("-C", "/", "who", "--directory", str(repo))[1].endswith(f" in {repo}\n")


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, err = run("who", "--actor", "zoe")
    assert (code, err.splitlines()[0]) == (6, "error: the working directory is gone")


def commands(root: Root) -> Iterator[tuple[str, click.Command]]:
    """Every command there is, with its whole name."""

    def walk(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
        context = click.Context(group)
        for child in group.list_commands(context):
            found = group.get_command(context, child)
            assert found is not None
            yield f"{name} {child}", found
            if isinstance(found, click.Group):
                yield from walk(found, f"{name} {child}")

    return walk(root, root.name or "")


@pytest.mark.parametrize("root", [bead, town])
def test_every_command_is_there_and_explains_itself(root: Root) -> None:
    for name, found in commands(root):
        done = CliRunner().invoke(root, [*name.split()[1:], "--help"])
        assert done.exit_code == 0, name
        first, _, rest = (found.help or "").partition("\n")
        assert first.endswith("."), f"{name} does not begin with a sentence"
        assert "Example:" in rest, f"{name} has no example"
        assert root is not bead or "..." not in found.get_short_help_str(62), f"{name} begins with too long a sentence"


def test_every_example_is_of_its_command() -> None:
    for name, found in commands(bead):
        example = (found.help or "").split("Example:")[1]
        assert name in example or name.replace("bead ", "bead -C . ") in example, f"the example of {name} is of another"


def test_the_table_names_each_command_once() -> None:
    for sections in (BEAD_COMMANDS, TOWN_COMMANDS):
        names = [name for commands in sections.values() for name in commands]
        assert len(names) == len(set(names))


LOADED = """\
import sys
from cli.main import {name}
try:
    {name}({args})
except SystemExit as end:
    print(*sys.modules)
    sys.exit(end.code)
"""


def loaded(name: str, *args: str, cwd: Path, environ: Mapping[str, str]) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = LOADED.format(name=name, args=list(args))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, env=dict(environ), capture_output=True, check=True
    )
    return set(done.stdout.decode().splitlines()[-1].split())


def test_help_loads_next_to_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    for name in ("bead", "town"):
        for args in (["--help"], ["init", "--help"], ["--version"]):
            modules = loaded(name, *args, cwd=tmp_path, environ=environ)
            assert not modules & {"pydantic", "dulwich", "litellm", "watchfiles", "psutil", "beads.store"}, args


def test_ready_loads_what_it_needs(beads: Beads, environ: dict[str, str]) -> None:
    modules = loaded("bead", "ready", cwd=beads.repository, environ=environ)
    assert not modules & {"litellm", "watchfiles", "psutil", "roles", "refinery", "cli.town", "cli.bead_write"}
    assert "beads.store" in modules


def test_a_reader_that_stops_is_no_error(beads: Beads, environ: dict[str, str]) -> None:
    lines = "\n".join(json.dumps({"op": "create", "bead": {"title": f"{n} {'x' * 400}"}}) for n in range(500))
    beads.run("batch", "-", stdin=lines)
    # Unbuffered, Python takes what was written in part for written, and does not notice that the rest was not.
    environ.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(
        [*PROGRAM, "list", "--json"], cwd=beads.repository, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 141


def test_an_output_that_is_full_is_an_error(beads: Beads, environ: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    beads.create("One")
    with open("/dev/full", "w") as full:  # noqa: PTH123 - It is no file.
        done = subprocess.run(
            [*PROGRAM, "list"], cwd=beads.repository, env=environ, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: No space left on device\n")


def test_answers_are_utf8_in_every_locale(beads: Beads, environ: dict[str, str]) -> None:
    beads.create("Pfeil → über", "--id", "bt-one")
    ascii_only = {**environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX"}
    done = process("list", cwd=beads.repository, environ=ascii_only)
    assert (done.returncode, done.stdout.decode().split("\t")[-1]) == (0, "Pfeil → über\n")
    done = process("show", "bt-one", "--json", cwd=beads.repository, environ=ascii_only)
    assert json.loads(done.stdout)[0]["title"] == "Pfeil → über"


def test_control_c_is_130(beads: Beads, environ: dict[str, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "batch")
    with subprocess.Popen(
        [*PROGRAM, "batch", str(tmp_path / "batch")],
        cwd=beads.repository,
        env=environ,
        stderr=subprocess.PIPE,
        # Tests that run in the background are started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stderr is not None
        # Opened as soon as it is there to read; a signal before that would test the interpreter.
        with (tmp_path / "batch").open("wb"):
            running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"\nerror: interrupted\n"
        assert running.wait() == 130


def test_exit_codes_of_real_processes(repo: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    def ends(*args: str, cwd: Path = repo) -> int:
        done = process(*args, cwd=cwd, environ=environ)
        assert bool(done.stderr) == bool(done.returncode)
        return done.returncode

    assert ends("ready", cwd=tmp_path) == 6
    assert ends("ready") == 3
    assert ends("init") == 0
    assert ends("create", "One", "--id", "bt-one", "--criterion", "run: false") == 0
    assert ends("show", "bt-no") == 3
    assert ends("show", "b t") == 2
    assert ends("close", "bt-one") == 5
    assert ends("dep", "add", "bt-one", "bt-one") == 5
    assert ends("nothing") == 2


def test_the_answer_to_a_person_and_to_a_program_agree(beads: Beads) -> None:
    beads.create("One")
    (found,) = beads.json("list")
    assert beads.run("list").split("\t") == [found["id"], "P2", "ready", "task", "One"]
    assert set(cli.bead.KINDS) >= {found["state"]["kind"]}
