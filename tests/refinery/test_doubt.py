"""Whatever keeps the gate from judging, nothing lands and nobody is sent back; when it is mended, landing goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from refinery.git import Git
from refinery.train import MAIN_ERRS, MAIN_FAILS
from refinery.workshop import Workshop
from tests.refinery.test_refinery import Queue
from tests.world import commit, git

Trouble = Callable[[Queue], AbstractContextManager[object]]


def on_main(text: str) -> Trouble:
    """Settings that main has for a while; none at all when empty."""

    @contextmanager
    def trouble(queue: Queue) -> Iterator[None]:
        before = (queue.repository / "town.toml").read_text()
        if not text:
            git(queue.repository, "rm", "--quiet", "town.toml")
        commit(queue.repository, {"town.toml": text} if text else {}, "Change the gate")
        yield
        commit(queue.repository, {"town.toml": before}, "Mend the gate")

    return trouble


def gate(table: str) -> Trouble:
    return on_main(f"[gate]\n{table}\n")


@contextmanager
def no_branch(queue: Queue) -> Iterator[None]:
    git(queue.repository, "branch", "--move", "main", "other")
    yield
    git(queue.repository, "branch", "--move", "other", "main")


@contextmanager
def no_sandbox(queue: Queue) -> Iterator[None]:
    before = queue.refinery.sandbox
    nowhere = replace(before.host, search=())
    queue.refinery.sandbox = replace(before, choice="bubblewrap", host=nowhere)
    yield
    queue.refinery.sandbox = before


@contextmanager
def no_work_tree(queue: Queue) -> Iterator[None]:
    before = queue.refinery.workshop
    (queue.repository / "README").write_text("a file\n")
    queue.refinery.workshop = Workshop(Git(queue.repository, queue.refinery.environ), queue.repository / "README")
    yield
    queue.refinery.workshop = before
    (queue.repository / "README").unlink()


@contextmanager
def no_logs(queue: Queue) -> Iterator[None]:
    logs = queue.store.directory / "logs"
    logs.mkdir(exist_ok=True)
    elsewhere = logs.rename(logs.with_name("elsewhere"))
    logs.write_text("a file\n")
    yield
    logs.unlink()
    elsewhere.rename(logs)


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "no file": (on_main(""), "main has no town.toml, so there is no gate"),
    "no table": (on_main("[town]\n"), "main's town.toml has no [gate]"),
    "no commands": (gate("commands = []"), "gate.commands"),
    "a blank command": (gate('commands = ["true", " "]'), "a gate command is blank"),
    "a misspelt key": (gate('comands = ["true"]'), "comands"),
    "no TOML": (gate("commands = [true"), "town.toml:"),
    "no name of a variable": (gate('commands = ["true"]\nenvironment = ["A*B"]'), "'A*B' is not the name"),
    "no branch": (no_branch, "the branch main is gone"),
    "no sandbox": (no_sandbox, "nothing can contain"),
    "no work tree": (no_work_tree, "the gate has no place to run in"),
    "no place for logs": (no_logs, "the gate has no place to run in"),
    "no such program, at once": (gate('commands = ["true", "no-such-program-here"]\nparallel = true'), MAIN_ERRS),
    "main is red": (gate('commands = ["exit 1"]'), MAIN_FAILS),
}


def test_in_doubt_nothing_lands_and_nobody_is_sent_back(tmp_path: Path, environ: dict[str, str]) -> None:
    queue = Queue(tmp_path, 1, environ)
    queue.submit("a")
    for case, (trouble, reason) in TROUBLES.items():
        with trouble(queue):
            queue.run()
            assert reason in queue.refinery.halted, case
            assert queue.refinery.remedy, case
            assert queue.ended(None) == {"a"}, case
            assert not queue.refinery.busy, case
    queue.run()
    queue.refinery.close()
    assert queue.ended("landed") == {"a"}
    queue.assert_green()
