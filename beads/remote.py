"""The store's ref on a remote: fetch it, and move it there by compare-and-swap. Runs ``git`` for that.

Git's own transports know the user's credentials, ssh configuration, proxies and ``insteadOf``, and the other side's
Git is the arbiter of every race (docs/decisions/0007-git-carries-the-refs.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from beads import heartbeat
from beads.errors import InvalidInput, Unreadable
from beads.git import Oid, Repository
from beads.heartbeat import Renewed
from beads.ids import check_id

REMOTE_REF = "refs/beads/main"
"""Where the store is on a remote, unless its owner forbids such refs."""

NETWORK_SECONDS = 300.0
"""How long a remote may take to answer."""

_BUSY_MAX = 20

REDIRECTIONS = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""What a hook or an alias has told Git about another repository than the one that is meant."""

_RACED = re.compile(r"stale info|fetch first|non-fast-forward|failed to update|cannot lock|incorrect old value|exists")
_BUSY = re.compile(r"cannot lock ref|[Uu]nable to create '.*\.lock'|unable to update local ref")
_ABSENT = re.compile(r"couldn't find remote ref|[Rr]emote ref does not exist")


class _Output(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What Git and the other side complained of, without what Git only advises."""
        lines = [line.strip() for line in self.err.splitlines()]
        told = [line for line in lines if re.match(r"fatal:|error:|remote: *\S|ssh:", line)]
        return "; ".join(told[:5]) or " ".join(lines[:3]) or f"git ended with {self.status}"


_CHECKED = ("-c", "fetch.fsckObjects=true", "-c", "maintenance.auto=false", "-c", "gc.auto=0")
_QUIET = ("--quiet", "--no-tags", "--no-prune", "--no-write-fetch-head", "--no-recurse-submodules")
_FETCH = (*_CHECKED, "fetch", *_QUIET)


class Remote:
    """A remote of a repository, with the store's ref on it.

    Args:
        repository: this clone.
        name: the remote's name in Git's configuration, or its URL or path.
        ref: where the store is on it.
        environ: the user's environment; Git finds credentials and configuration through it.
        interactive: whether somebody is at the terminal whom Git may ask for a password.
        timeout: seconds that one exchange with the remote may take.

    Raises:
        InvalidInput: the name or the ref is none.
    """

    def __init__(
        self,
        repository: Repository,
        name: str,
        ref: str = REMOTE_REF,
        *,
        environ: Mapping[str, str],
        interactive: bool = False,
        timeout: float = NETWORK_SECONDS,
    ) -> None:
        self.repository = repository
        self.name = check_remote(name)
        self.ref = check_ref(ref)
        self._interactive = interactive
        self._timeout = timeout
        kept = {key: value for key, value in environ.items() if key not in REDIRECTIONS}
        asking = {} if interactive else {"GIT_TERMINAL_PROMPT": "0"}
        self._environ = {**kept, **asking, "LC_ALL": "C", "GIT_PAGER": "cat"}
        simple = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)
        key = name if simple else hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
        self.tracking = f"refs/beads/remotes/{key}/main"
        self._workers = f"refs/beads/remotes/{key}/worker/"
        self.work = f"refs/beads/remotes/{key}/work/"

    @property
    def worker_refs(self) -> str:
        """What the refs of workers on the remote start with."""
        return self._beside("worker")

    @property
    def work_refs(self) -> str:
        """What the refs of proven but not landed work on the remote start with."""
        return self._beside("work")

    def _beside(self, what: str) -> str:
        # Beside the store's, so that who allows one allows all.
        return self.ref.removesuffix("main") + f"{what}/" if self.ref.endswith("/main") else f"{self.ref}-{what}/"

    def fetch(self) -> Oid | None:
        """Bring the remote's store and signs of life here; the commit it is at, None when it has no store.

        Raises:
            Unreadable: the remote cannot be reached or read.
        """
        refs = [f"+{self.ref}:{self.tracking}", f"+{self.worker_refs}*:{self._workers}*"]
        done = self._run(*_FETCH, "--", self.name, *refs)
        for _ in range(_BUSY_MAX):
            if not _BUSY.search(done.err):
                break
            # Another process of this clone fetches too, or one was killed and left its lock file.
            self.repository.sweep()
            done = self._run(*_FETCH, "--", self.name, *refs)
        if done.status == 0:
            return self.repository.head(self.tracking)
        if _ABSENT.search(done.err):
            return None
        raise Unreadable(
            f"the remote {self.name!r} cannot be read: {done.said}",
            "Nothing was changed here. Try again later, or see with `git remote -v` whether it is the right one.",
        )

    def push(self, new: Oid, old: Oid | None) -> bool:
        """Move the remote's store from ``old`` (None: there is none) to ``new``; False when it was elsewhere.

        Raises:
            Unreadable: the remote cannot be reached, or does not take it.
        """
        done = self._push(f"--force-with-lease={self.ref}:{old or ''}", f"{new}:{self.ref}")
        line = next((line for line in done.out.splitlines() if line.endswith(")") and line.startswith("!")), "")
        if done.status == 0 and not line:
            self._track(new)
            return True
        if line and _RACED.search(line.rsplit("\t", 1)[-1]):
            return False
        raise self._refused(line.rsplit("\t", 1)[-1], done)

    def _refused(self, why: str, done: _Output) -> Unreadable:
        if not why:
            return Unreadable(f"the remote {self.name!r} cannot be written: {done.said}", "Try again later.")
        hint = f"Let it take {self.ref}, or keep the store elsewhere on it: `bead sync --ref refs/heads/beads`."
        if "hidden ref" in why:
            hint = f"Its transfer.hideRefs or receive.hideRefs hides the ref. {hint}"
        elif "hook declined" in why:
            hint = f"A hook on the remote (pre-receive or update) forbids it. {hint}"
        return Unreadable(f"the remote {self.name!r} refuses {self.ref}: {why} {done.said}", hint)

    def beat(self, commit: Oid, name: str) -> None:
        """Put a worker's sign of life on the remote, in place of the one before.

        Args:
            commit: the sign.
            name: what the worker's ref is called below :attr:`worker_refs`.

        Raises:
            Unreadable: it could not be put there.
        """
        done = self._push(f"+{commit}:{check_ref(self.worker_refs + name)}")
        if done.status:
            raise Unreadable(f"no sign of life could be put on {self.name!r}: {done.said}")

    def offer(self, commit: str, name: str) -> None:
        """Put work on the remote, from where any clone can :meth:`obtain` it.

        Args:
            commit: the commit that has the work.
            name: what the ref is called below :attr:`work_refs`: the bead's id and, after a slash, the epoch, so that a
                worker that has been fenced does not overwrite what its successor has put there.

        Raises:
            Unreadable: it could not be put there.
        """
        done = self._push(f"+{commit}:{check_ref(self.work_refs + name)}")
        if done.status:
            raise Unreadable(f"the work on {name} could not be put on {self.name!r}: {done.said}")

    def obtain(self, bead_id: str) -> None:
        """Bring here what :meth:`offer` has put on the remote for a bead, to refs below :attr:`work`.

        Raises:
            Unreadable: the remote cannot be reached or read.
        """
        where = f"{check_id(bead_id)}/*"
        done = self._run(*_FETCH, "--", self.name, f"+{self.work_refs}{where}:{self.work}{where}")
        if done.status:
            raise Unreadable(f"the work on {bead_id} cannot be read from {self.name!r}: {done.said}")

    def discard(self, bead_id: str) -> None:
        """Remove what was offered for a bead, here and there.

        Raises:
            Unreadable: the remote cannot be reached, or does not let go; here it is gone then.
        """
        here = self._run("for-each-ref", "--format=delete %(refname)", f"{self.work}{check_id(bead_id)}/").out
        self._run("update-ref", "--stdin", stdin=here)
        listed = self._run("ls-remote", "--refs", "--", self.name, f"{self.work_refs}{bead_id}/*")
        there = [line.partition("\t")[2] for line in listed.out.splitlines()]
        done = self._push(*(f":{check_ref(ref)}" for ref in there)) if there else listed
        if done.status:
            raise Unreadable(f"the work on {bead_id} cannot be removed from {self.name!r}: {done.said}")

    def renewed(self) -> Renewed:
        """Until when leases are good by the workers' signs of life, as of the last fetch."""
        done = self._run("for-each-ref", "--format=%(contents)%00", self._workers)
        return heartbeat.read(text.strip("\n") for text in done.out.split("\0") if text.strip())

    def bases(self, *commits: Oid) -> list[Oid]:
        """The best common ancestors of the first commit and all the others together, in a fixed order.

        Raises:
            Unreadable: a part of the history is missing.
        """
        done = self._run("merge-base", "--all", *commits)
        if done.status not in (0, 1):
            raise Unreadable(f"the history of the store cannot be read: {done.said}", "Run `git fsck`.")
        return [Oid(line) for line in sorted(done.out.split())]

    def sizes(self, oids: Iterable[Oid]) -> dict[Oid, int]:
        """How large these blobs are, in bytes; what is missing or is no blob is not among the answers."""
        asked = "".join(f"{oid}\n" for oid in oids)
        if not asked:
            return {}
        done = self._run("cat-file", "--batch-check=%(objecttype) %(objectname) %(objectsize)", stdin=asked)
        rows = (line.split(" ") for line in done.out.splitlines())
        return {Oid(row[1]): int(row[2]) for row in rows if row[0] == "blob"}

    def _push(self, *what: str) -> _Output:
        # The user's pre-push hook is about code, and a claim must not wait for a test suite.
        options = ["--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no"]
        leases = [part for part in what if part.startswith("--")]
        return self._run("push", *options, *leases, "--", self.name, *(part for part in what if part not in leases))

    def _track(self, new: Oid) -> None:
        with contextlib.suppress(Unreadable):
            self.repository.swap(self.tracking, self.repository.head(self.tracking), new)

    def _run(self, *args: str, stdin: str = "") -> _Output:
        """Run ``git ARGS`` in this repository; every part of it is killed when it takes too long."""
        try:
            process = subprocess.Popen(
                ["git", f"--git-dir={self.repository.common}", *args],
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Only the foreground may read from the terminal.
                process_group=None if self._interactive else 0,
            )
        except OSError as error:
            raise Unreadable(f"git cannot be run: {error}", "Install Git 2.38 or newer.") from error
        with process:
            try:
                out, err = process.communicate(stdin.encode(), self._timeout)
            except subprocess.TimeoutExpired as error:
                raise Unreadable(f"the remote {self.name!r} did not answer within {self._timeout:.0f} s") from error
            finally:
                _end(process, whole_group=not self._interactive)
        return _Output(process.returncode, _text(out), _text(err))


def _end(process: subprocess.Popen[bytes], *, whole_group: bool) -> None:
    """Leave nothing running that a Git which did not come to its end has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if whole_group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()


def check_remote(name: str) -> str:
    """``name`` if it can be a remote's name, URL or path, and cannot be taken for an option.

    Raises:
        InvalidInput: it is not.
    """
    if not name.strip() or name.startswith("-") or not name.isprintable():
        raise InvalidInput(f"{name[:200]!r} is not a remote", "`git remote -v` lists those that there are.")
    return name


def check_ref(ref: str) -> str:
    """``ref`` if it is the full name of a ref.

    Raises:
        InvalidInput: it is not.
    """
    parts: Sequence[str] = ref.split("/")
    good = all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) and not part.endswith((".", ".lock")) for part in parts
    )
    if parts[0] != "refs" or len(parts) < 3 or not good or ".." in ref:
        raise InvalidInput(
            f"{ref[:200]!r} is not a full ref name", f"It is one such as {REMOTE_REF} or refs/heads/beads."
        )
    return ref


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
