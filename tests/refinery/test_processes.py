"""Commands with limits: real processes, really killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beads.clock import SystemClock
from beads.errors import InvalidInput, Unreadable
from refinery import strays as finding
from refinery.processes import JOB, LOG_MAX, MARKER, OUTPUT_MIN, Exit, Job, kill_strays, shell, start, strays
from refinery.redaction import NO_SECRETS, Secrets
from tests.world import ROOT

CLOCK = SystemClock()


class Later(SystemClock):
    """The real clock, put forward by some seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


# Starts a process the way a daemon does: forked twice, in a session of its own.
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sh", ["sh", "-c", "echo $$ > {fifo}; exec sleep 1000"])
    os._exit(0)
os.wait()
"""


class Bench:
    """Starts commands of one test, in its directory and under its own marker."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self.environ = environ
        self.marker = f"test {directory}"
        self.clock = Later()
        self.inside = "."
        self.secrets = NO_SECRETS
        self.fifo = directory / "fifo"
        os.mkfifo(self.fifo)

    def start(
        self,
        line: str | list[str],
        timeout: float = 60.0,
        stdin: str = "",
        log: str = "log",
        output_max: int = 16384,
        log_max: int = LOG_MAX,
    ) -> Job:
        argv = shell(line) if isinstance(line, str) else line
        return start(
            argv,
            cwd=self.directory / self.inside,
            environ=self.environ,
            log=self.directory / "logs" / log,
            timeout=timeout,
            marker=self.marker,
            clock=self.clock,
            stdin=stdin,
            output_max=output_max,
            log_max=log_max,
            secrets=self.secrets,
        )

    def run(self, line: str | list[str], stdin: str = "", log_max: int = LOG_MAX) -> Exit:
        return self.start(line, stdin=stdin, log_max=log_max).wait()

    def said(self) -> int:
        """Wait until a command writes a number to ``fifo``; that number."""
        return int(self.fifo.read_text())


@pytest.fixture
def bench(tmp_path: Path, environ: dict[str, str]) -> Iterator[Bench]:
    bench = Bench(tmp_path, environ)
    yield bench
    kill_strays(bench.marker)


def gone(pid: int) -> bool:
    """Wait until a process, which is no child of ours, has ended; whether it has within ten seconds."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.wait(10) is None
    except psutil.NoSuchProcess:
        return True


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ── How a command ends ───────────────────────────────────────────────────────────────────────────────────────


def test_an_exit_says_what_the_command_did(bench: Bench) -> None:
    done = bench.run("echo out; echo err >&2; exit 3")
    assert (done.kind, done.code, done.signal) == ("exited", 3, None)
    assert done.output == "out\nerr\n"
    assert done.size == 8
    assert done.log.read_text() == "out\nerr\n"
    assert done.digest == "sha256:" + hashlib.sha256(b"out\nerr\n").hexdigest()
    assert 0 < done.seconds < 30


def test_the_command_runs_in_its_directory_with_its_environment_only(bench: Bench) -> None:
    bench.environ = {"PATH": bench.environ["PATH"], "GREETING": "hello\nworld"}
    done = bench.run("pwd; env")
    said = dict(line.partition("=")[::2] for line in done.output.splitlines())
    assert done.output.startswith(f"{bench.directory}\n")
    assert said["GREETING"] == "hello"
    assert said[MARKER] == bench.marker
    # The shell sets PWD and the like.
    assert "HOME" not in said


@pytest.mark.parametrize(
    "text", ["", "one line", "umlauts äöü\r\n\x00\x1b and more\n", "\udcff not UTF-8", "x" * 3_000_000]
)
def test_standard_input_arrives_byte_for_byte(bench: Bench, text: str) -> None:
    done = bench.run("cat")
    assert done.output == ""
    done = bench.run("cat", stdin=text)
    assert done.log.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_standard_input_that_nobody_reads_does_no_harm(bench: Bench) -> None:
    assert bench.run("exit 0", stdin="x" * 3_000_000).code == 0


def test_a_command_that_dies_of_a_signal(bench: Bench) -> None:
    done = bench.run("kill -SEGV $$")
    assert (done.kind, done.code, done.signal) == ("signalled", None, signal.SIGSEGV)


@pytest.mark.parametrize(
    "argv,code",
    [
        (["sh", "-c", "no-such-program"], 127),
        (["sh", "-c", "exit 126"], 126),
        (["no-such-program"], 127),
        (["/"], 126),
        (["echo", "a\0b"], 126),
        ([], 126),
    ],
)
def test_what_cannot_be_run_is_no_failure_of_the_command(bench: Bench, argv: list[str], code: int) -> None:
    done = bench.run(argv)
    assert (done.kind, done.code, done.signal) == ("unrunnable", code, None)
    assert argv == ["sh", "-c", "exit 126"] or done.output


def test_a_directory_that_is_not_there(bench: Bench) -> None:
    (bench.directory / "gone").symlink_to("nowhere")
    bench.inside = "gone"
    job = bench.start("true")
    assert job.pid == 0
    done = job.cancel(1.0)
    assert (done.kind, done.code) == ("unrunnable", 127)
    assert "gone" in done.output


def test_each_start_replaces_the_log(bench: Bench) -> None:
    first = bench.run("echo one; echo more")
    second = bench.run("echo two")
    assert first.log == second.log
    assert second.log.read_text() == "two\n"
    assert second.log.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in second.log.parent.iterdir()] == ["log"]


def test_polling_again_says_the_same(bench: Bench) -> None:
    job = bench.start("exit 4")
    done = job.wait()
    assert job.poll() is done
    assert job.wait() is done
    assert job.cancel(1.0) is done


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_is_ended_at_its_time_limit_with_all_its_children(bench: Bench) -> None:
    job = bench.start(f"sleep 1000 & echo $! > {bench.fifo}; wait", timeout=1000)
    child = bench.said()
    assert job.poll() is None
    bench.clock.ahead = 1000.0
    done = job.wait()
    assert (done.kind, done.code, done.signal) == ("timeout", None, signal.SIGTERM)
    assert gone(child)


def test_a_command_that_ignores_term_is_killed(bench: Bench) -> None:
    job = bench.start(f"trap '' TERM; echo $$ > {bench.fifo}; while :; do sleep 0.01; done")
    bench.said()
    done = job.cancel(0.05)
    assert (done.kind, done.signal) == ("cancelled", signal.SIGKILL)
    assert strays(bench.marker) == []


def test_a_stopped_command_can_be_ended(bench: Bench) -> None:
    job = bench.start(f"echo $$ > {bench.fifo}; kill -STOP $$")
    bench.said()
    done = job.cancel(30.0)
    assert done.kind == "cancelled"
    assert done.seconds < 20


def test_poll_never_waits(bench: Bench) -> None:
    job = bench.start(f"trap '' TERM; echo $$ > {bench.fifo}; while :; do sleep 0.01; done")
    bench.said()
    before = CLOCK.monotonic()
    assert job.poll() is None
    job.stop(1000.0)
    assert job.poll() is None
    assert CLOCK.monotonic() - before < 1
    assert job.cancel(0.0).kind == "cancelled"


def test_what_a_shell_started_gets_its_grace_though_the_shell_is_dead(bench: Bench) -> None:
    agent = f"trap 'echo flushed; exit' TERM; echo $$ > {bench.fifo}; while :; do sleep 0.01; done"
    job = bench.start(f'sh -c "{agent.replace("$", chr(92) + "$")}"; true')
    bench.said()
    done = job.cancel(30.0)
    assert done.kind == "cancelled"
    assert done.output.endswith("flushed\n")
    assert done.seconds < 20


def test_cancelling_what_has_ended_says_how_it_ended(bench: Bench) -> None:
    job = bench.start("exit 5")
    os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)
    assert job.cancel(1.0).code == 5


def test_an_end_that_somebody_else_took_is_not_taken_for_a_success(bench: Bench) -> None:
    job = bench.start("setsid sleep 1000 & exit 0")
    os.waitpid(job.pid, 0)
    done = job.wait()
    assert (done.kind, done.code) == ("unrunnable", None)
    assert strays(bench.marker) == []


def test_a_runaway_command_cannot_fill_the_disk(bench: Bench) -> None:
    done = bench.run("yes", log_max=100_000)
    assert (done.kind, done.code, done.signal) == ("signalled", None, signal.SIGXFSZ)
    assert done.size > 100_000
    assert done.log.stat().st_size == 100_000
    assert done.digest == f"sha256:{hashlib.sha256(done.log.read_bytes()).hexdigest()}"
    assert done.output.startswith("y\ny\n")


def test_too_much_output_is_too_much_even_when_the_command_was_faster(bench: Bench) -> None:
    done = bench.run("head -c 5000 /dev/zero", log_max=4999)
    assert (done.kind, done.signal, done.size) == ("signalled", signal.SIGXFSZ, 5000)
    assert bench.run("head -c 4999 /dev/zero", log_max=4999).kind == "exited"


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────────────


KEY = "sk-00112233445566778899"


@pytest.fixture
def discreet(bench: Bench) -> Bench:
    bench.environ = {**bench.environ, "KEY": KEY}
    bench.secrets = Secrets((("KEY", KEY),))
    return bench


def test_a_log_has_no_secrets_while_the_command_runs_nor_afterwards(discreet: Bench) -> None:
    told = 'printf "a${KEY%%77*}" >&2; printf "${KEY##*66}b\\n"'
    job = discreet.start(f"{told}; echo $$ > {discreet.fifo}; read x < {discreet.fifo}")
    discreet.said()
    job.poll()
    log = discreet.directory / "logs" / "log"
    assert log.read_text() == "a[redacted]b\n"
    assert list(log.parent.iterdir()) == [log]
    discreet.fifo.write_text("go on\n")
    done = job.wait()
    assert (done.output, done.size, log.stat().st_mode & 0o777) == ("a[redacted]b\n", len(KEY) + 3, 0o600)
    assert done.digest == f"sha256:{hashlib.sha256(log.read_bytes()).hexdigest()}"


def test_what_somebody_who_was_killed_has_said_of_a_secret_is_not_in_the_log(discreet: Bench) -> None:
    done = discreet.run("printf ${KEY%99}; kill -9 $$")
    assert (done.kind, done.output) == ("signalled", "[redacted]")


def test_a_flood_of_secrets_is_a_flood(discreet: Bench) -> None:
    done = discreet.run("yes x$KEY", log_max=100_000)
    assert (done.kind, done.signal) == ("signalled", signal.SIGXFSZ)
    told = done.log.read_bytes()
    assert len(told) <= 100_000
    assert told.startswith(b"x[redacted]\nx[redacted]\n")
    assert KEY.encode()[:8] not in told
    assert KEY[:8] not in done.output
    assert done.digest == f"sha256:{hashlib.sha256(told).hexdigest()}"


def test_why_a_command_cannot_be_started_has_no_secrets_either(discreet: Bench) -> None:
    assert discreet.run([f"/none/{KEY}"]).output.endswith("'/none/[redacted]'\n")


def test_leaving_the_block_ends_the_command(bench: Bench) -> None:
    job = bench.start(f"echo $$ > {bench.fifo}; exec sleep 1000")
    assert bench.said() == job.pid
    with job:
        assert job.poll() is None
    assert gone(job.pid)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_limit_must_be_one(bench: Bench, timeout: float) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        bench.start("true", timeout)


@pytest.mark.parametrize("marker", ["", "two\nlines", "nul\0"])
def test_a_marker_is_one_line(bench: Bench, marker: str) -> None:
    bench.marker = marker
    with pytest.raises(InvalidInput, match="marker"):
        bench.start("true")
    bench.marker = "fine"


def test_limits_of_output_must_make_sense(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="output_max"):
        bench.start("true", output_max=OUTPUT_MIN - 1)
    with pytest.raises(InvalidInput, match="log_max"):
        bench.start("true", log_max=0)


def test_a_log_that_cannot_be_written(bench: Bench) -> None:
    (bench.directory / "logs").write_text("a file")
    with pytest.raises(Unreadable, match="log"):
        bench.start("true")


def test_where_exit_statuses_are_thrown_away_nothing_is_started(bench: Bench) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(Unreadable, match="SIGCHLD"):
            bench.start("false")
    finally:
        signal.signal(signal.SIGCHLD, before)


# ── Output ───────────────────────────────────────────────────────────────────────────────────────────────────


@example(data=b"\xff" * 3000, output_max=OUTPUT_MIN)
@example(data=b"\xff" * 300, output_max=300)
@example(data="😀é".encode() * 300, output_max=300)
@example(data="x😀é".encode() * 300, output_max=301)
@given(data=st.binary(max_size=3000) | st.text(max_size=2000).map(str.encode), output_max=st.integers(OUTPUT_MIN, 2500))
def test_output_is_head_and_tail_and_says_what_is_missing(data: bytes, output_max: int) -> None:
    with TemporaryDirectory() as name:
        source = Path(name, "source")
        source.write_bytes(data)
        log = Path(name, "log")
        done = start(
            ["cat", str(source)],
            cwd=Path(name),
            environ={"PATH": os.environ["PATH"]},
            log=log,
            timeout=60,
            marker="output",
            clock=CLOCK,
            output_max=output_max,
        ).wait()
    assert done.size == len(data)
    assert len(done.output.encode()) <= output_max
    whole = data.decode("utf-8", "replace")
    if len(whole.encode()) <= output_max:
        assert done.output == whole
        return
    head, _, rest = done.output.partition("\n… ")
    count, _, tail = rest.partition(" bytes left out …\n")
    if "bytes left out" not in whole:
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert 0 < int(count) <= len(data)
    if whole.encode() == data and "bytes left out" not in whole:
        assert len(head.encode()) + int(count) + len(tail.encode()) == len(data)


# ── Nothing outlives a command ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("line", ["sleep 1000 &", "setsid sleep 1000 &", "nohup sleep 1000 &", "(sleep 1000 &);"])
def test_a_background_child_does_not_outlive_the_command(bench: Bench, line: str) -> None:
    done = bench.run(f"{line} exit 0")
    assert done.code == 0
    assert done.seconds < 20
    assert strays(bench.marker) == []


def test_a_child_in_a_session_of_its_own_does_not_outlive_the_command(bench: Bench) -> None:
    job = bench.start([sys.executable, "-c", DAEMON.format(fifo=bench.fifo)])
    daemon = bench.said()
    assert os.getsid(daemon) != job.pid
    assert job.wait().code == 0
    assert gone(daemon)


def test_a_child_that_keeps_the_output_open_cannot_hang_us(bench: Bench) -> None:
    done = bench.run(f"setsid sh -c 'echo $$ > {bench.fifo}; exec sleep 1000' & cat {bench.fifo}; echo done")
    assert done.output.endswith("done\n")
    assert done.seconds < 20


def test_a_child_that_forks_on_and_on_is_caught(bench: Bench) -> None:
    fork = "import os\nfor _ in range(2000):\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    done = bench.run([sys.executable, "-c", fork])
    assert done.code == 0
    assert strays(bench.marker) == []


def test_two_jobs_under_one_marker_leave_each_other_alone(bench: Bench) -> None:
    other = bench.start(f"echo $$ > {bench.fifo}; exec sleep 1000", log="other")
    bench.said()
    assert bench.run("setsid sleep 1000 & exit 0").code == 0
    assert other.poll() is None
    assert strays(bench.marker) == [other.pid]
    assert other.cancel(10.0).kind == "cancelled"


def test_many_commands_at_once(bench: Bench) -> None:
    jobs = [bench.start(f"setsid sleep 1000 & exit {number}", log=str(number)) for number in range(30)]
    assert [job.wait().code for job in jobs] == list(range(30))
    assert strays(bench.marker) == []


# ── Strays ───────────────────────────────────────────────────────────────────────────────────────────────────

STARTER = """
import sys
from pathlib import Path
from beads.clock import SystemClock
from refinery.processes import start
here, marker, *argv = sys.argv[1:]
start(argv, cwd=Path(here), environ={environ!r}, log=Path(here, "log"), timeout=1000, marker=marker,
      clock=SystemClock()).wait()
"""


def starter(bench: Bench, marker: str, *argv: str) -> subprocess.Popen[bytes]:
    """Another process that starts a command, as a polecat would."""
    code = STARTER.format(environ={"PATH": bench.environ["PATH"]})
    return subprocess.Popen([sys.executable, "-c", code, str(bench.directory), marker, *argv], cwd=ROOT)


def test_strays_are_found_after_their_starter_was_killed(bench: Bench) -> None:
    daemon = DAEMON.format(fifo=bench.fifo) + "import time; time.sleep(1000)"
    polecat = starter(bench, bench.marker, sys.executable, "-c", daemon)
    found = bench.said()
    polecat.kill()
    polecat.wait()
    assert found in strays(bench.marker)
    assert strays(bench.marker + "x") == []
    assert kill_strays(bench.marker + "x") == 0
    assert alive(found)
    assert kill_strays(bench.marker) == 2
    assert gone(found)
    assert kill_strays(bench.marker) == 0


def test_we_and_our_ancestors_are_never_strays(bench: Bench) -> None:
    code = "from refinery.processes import *; print(strays('me'), kill_strays('me')); print('alive')"
    line = f'"{sys.executable}" -c "{code}"; echo parent alive'
    done = subprocess.run(
        ["sh", "-c", line], env={**bench.environ, MARKER: "me"}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] 0\nalive\nparent alive\n"


def test_a_town_inside_a_job_of_another_is_found_from_both(bench: Bench) -> None:
    inner = "import os, sys; sys.argv[1:1] = []\n" + STARTER.replace("{environ!r}", "dict(os.environ)")
    argv = [str(bench.directory), "inner", "sh", "-c", f"echo $$ > {bench.fifo}; exec sleep 1000"]
    bench.environ["PYTHONPATH"] = str(ROOT)
    job = bench.start([sys.executable, "-c", inner, *argv])
    innermost = bench.said()
    assert innermost in strays("inner")
    assert innermost in strays(bench.marker)
    assert len(psutil.Process(innermost).environ()[JOB].split("\n")) == 2
    # The inner town dies of TERM and does not clean up after itself.
    assert job.cancel(10.0).kind == "cancelled"
    assert gone(innermost)


def test_killing_strays_goes_on_until_none_is_left(bench: Bench) -> None:
    fork = f"import os\nopen({str(bench.fifo)!r}, 'w').write('1')\nwhile True:\n    if os.fork(): os._exit(0)\n"
    job = bench.start(
        [sys.executable, "-c", "import os; os.setpgid(0, 0) if os.getpid() != os.getsid(0) else 0\n" + fork]
    )
    bench.said()
    job.wait()
    assert strays(bench.marker) == []


def test_a_job_of_this_process_can_be_killed_as_a_stray(bench: Bench) -> None:
    job = bench.start(f"echo $$ > {bench.fifo}; exec sleep 1000")
    bench.said()
    assert kill_strays(bench.marker, CLOCK) == 1
    done = job.wait()
    assert (done.kind, done.signal) == ("signalled", signal.SIGKILL)


def test_ids_below_the_command_are_skipped_only_when_they_cannot_be_its_children() -> None:
    newest = subprocess.Popen(["true"])
    newest.wait()
    assert finding.first_after(newest.pid, 0.0) in (newest.pid + 1, 0)
    # Longer than all ids last, and: the last id handed out is below, so that they have come round.
    assert finding.first_after(newest.pid, 1e9) == 0
    assert finding.first_after(2**22 + 1, 0.0) == 0


def test_a_process_between_two_programs_is_looked_at_again(bench: Bench) -> None:
    # Each exec has a moment in which the process shows no environment.
    script = bench.directory / "again"
    script.write_text(
        f"#!/bin/sh\n[ $1 = 0 ] && exec sleep 1000\n[ $1 = 500 ] && echo $$ > {bench.fifo}\nexec $0 $(($1-1))\n"
    )
    script.chmod(0o755)
    for _ in range(5):
        job = bench.start(f"setsid {script} 501 & cat {bench.fifo}")
        done = job.wait()
        assert done.code == 0
        assert strays(bench.marker) == []


def test_what_has_no_environment_to_show() -> None:
    assert not finding._has_environment(2**22 + 1)
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert not finding._has_environment(zombie.pid)
    zombie.wait()
    assert finding._has_environment(os.getpid()) == sys.platform.startswith("linux")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_users_processes_are_not_ours(bench: Bench) -> None:
    environ = {**bench.environ, MARKER: bench.marker}
    with subprocess.Popen(["sleep", "1000"], user=65534, env=environ, cwd="/") as other:
        assert strays(bench.marker) == []
        other.kill()


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_jobs_can_be_used_from_any_one_thread(bench: Bench) -> None:
    ends: list[Exit] = []
    threads = [in_thread(lambda n=n: ends.append(bench.start(f"exit {n}", log=str(n)).wait())) for n in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert sorted(end.code or 0 for end in ends) == list(range(8))
