"""What the town asks of Git, answered in this process, on the files of a real repository.

A run of the simulation asks Git some hundred times for each molecule, and starting a process for each would take most
of its time. Whatever is not known here is asked of the real Git, which finds the files as it would have left them
itself: objects, refs, indices and work trees are in Git's own formats. ``test_simulation.py`` compares the two.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from beads.errors import Unreadable
from refinery.git import ABSENT, Git, Output, Talk

File = tuple[str, str]
"""Mode and object id, as a tree has them."""

Files = dict[str, File]
"""What a tree holds, by path."""

_OID = re.compile(r"[0-9a-f]{40}")


class UnknownCommandError(Exception):
    """Nothing is known here of such a command."""


class Commit(NamedTuple):
    """What a commit says."""

    tree: str
    parents: tuple[str, ...]
    when: int
    message: str


class QuickGit(Git):
    """``git`` in one directory, without starting it where that can be helped.

    Args:
        directory: where commands run.
        environ: the environment to start the real Git from.
        before: told the name of each command that changes more than objects, before it does; what it raises is raised.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str], before: Callable[[str], None] = lambda _: None):
        super().__init__(directory, environ)
        self._before = before
        self.asked: dict[str, int] = {}
        """How often the real Git was asked, by command."""

    def at(self, directory: Path, extra: Mapping[str, str] | None = None) -> QuickGit:
        """The same Git, run in another directory, and with these environment variables too."""
        found = type(self)(directory, self.environ, self._before)
        found.environ |= extra or {}
        found.asked = self.asked
        return found

    def talk(self, *args: str, errors: IO[bytes]) -> Talk:
        """As :meth:`Git.talk`."""
        del args, errors
        return _Mute()

    def run(
        self,
        *args: str,
        stdin: str = "",
        ok: Sequence[int] = (0,),
        extra: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Output:
        """As :meth:`Git.run`."""
        try:
            given = {**self.environ, **(extra or {})}
            place = place_of(self.directory, given)
            status, out, err = _Run(place, stdin, given, self._before).command(_plain(args))
        except UnknownCommandError:
            self.asked[" ".join(args[:2])] = self.asked.get(" ".join(args[:2]), 0) + 1
            if set(_plain(args)[:1]) & _CHANGING:
                self._before(_plain(args)[0])
            return super().run(*args, stdin=stdin, ok=ok, extra=extra, timeout=timeout)
        if status not in ok:
            raise Unreadable(f"git {' '.join(args[:3])} failed in {self.directory} (exit {status}): {err}")
        return Output(status, out, err)


class _Mute(Talk):
    """A process that does not know how to merge many: whoever wants that merges one after the other."""

    def __init__(self) -> None:
        """Nothing is started."""

    def say(self, text: str) -> None:
        raise EOFError(text)

    def close(self) -> int:
        return 129


class ComparedGit(QuickGit):
    """As :class:`QuickGit`, and whatever changes nothing is asked of the real Git, too, which must say the same."""

    def run(
        self,
        *args: str,
        stdin: str = "",
        ok: Sequence[int] = (0,),
        extra: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Output:
        """As :meth:`Git.run`.

        Raises:
            AssertionError: they do not.
        """
        ours = super().run(*args, stdin=stdin, ok=ok, extra=extra, timeout=timeout)
        if not set(_plain(args)[:1]) & {*_CHANGING, "add", "update-index"}:
            real = (
                Git(self.directory, {})
                .at(self.directory, self.environ)
                .run(*args, stdin=stdin, ok=range(256), extra=extra)
            )
            assert (real.status, real.out) == (ours.status, ours.out), (
                f"git {args} in {self.directory}, {extra}: {real} {ours}"
            )
        return ours


_CHANGING = frozenset(("update-ref", "worktree", "read-tree", "clean", "symbolic-ref", "push", "fetch", "stash"))
"""Commands that change more than objects."""


def _plain(args: Sequence[str]) -> list[str]:
    """The arguments without settings that mean nothing here."""
    rest = list(args)
    while rest[:1] == ["-c"]:
        rest = rest[2:]
    return rest


class Place(NamedTuple):
    """Where a command runs: the Git directory, the one all work trees share, the files, and the index."""

    admin: Path
    common: Path
    files: Path
    listed: Path


def place_of(directory: Path, extra: Mapping[str, str]) -> Place:
    admin, files = (Path(extra["GIT_DIR"]), directory) if "GIT_DIR" in extra else _discover(directory)
    pointer = admin / "commondir"
    common = Path(os.path.normpath(admin / pointer.read_text().strip())) if pointer.exists() else admin
    files = Path(extra.get("GIT_WORK_TREE", files))
    return Place(admin, common, files, Path(extra.get("GIT_INDEX_FILE", admin / "index")))


def _discover(directory: Path) -> tuple[Path, Path]:
    for here in (directory, *directory.parents):
        entry = here / ".git"
        if entry.is_dir():
            return entry, here
        if entry.is_file():
            return Path(entry.read_text().removeprefix("gitdir: ").strip()), here
        if (here / "HEAD").is_file() and (here / "objects").is_dir():
            return here, here
    raise UnknownCommandError


# ── Objects ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Objects:
    """The loose objects of a repository; what is in a pack is none of ours."""

    def __init__(self, common: Path) -> None:
        self._folder = common / "objects"
        self._known: dict[str, tuple[str, bytes]] = {}

    def read(self, oid: str) -> tuple[str, bytes]:
        """Kind and content.

        Raises:
            UnknownCommandError: it is not there.
        """
        if oid not in self._known:
            try:
                head, _, data = zlib.decompress(self._file(oid).read_bytes()).partition(b"\0")
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UnknownCommandError from error
            self._known[oid] = head.split(b" ")[0].decode(), data
        return self._known[oid]

    def _file(self, oid: str) -> Path:
        return self._folder / oid[:2] / oid[2:]

    def has(self, oid: str) -> bool:
        """Whether it is there."""
        try:
            self.read(oid)
        except UnknownCommandError:
            return False
        return True

    def write(self, kind: str, data: bytes) -> str:
        """Keep an object; its id."""
        whole = f"{kind} {len(data)}\0".encode() + data
        oid = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        if oid not in self._known:
            path = self._file(oid)
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                scratch = path.with_name(f"{path.name}.{os.getpid()}")
                scratch.write_bytes(zlib.compress(whole, 1))
                scratch.rename(path)
            self._known[oid] = kind, data
        return oid

    def commit(self, oid: str) -> Commit:
        """What a commit says."""
        kind, data = self.read(oid)
        if kind != "commit":
            raise UnknownCommandError
        head, _, message = data.decode("utf-8", "surrogateescape").partition("\n\n")
        said: dict[str, list[str]] = {}
        for line in head.split("\n"):
            name, _, value = line.partition(" ")
            said.setdefault(name, []).append(value)
        when = int(said["committer"][0].rsplit(" ", 2)[1])
        return Commit(said["tree"][0], tuple(said.get("parent", ())), when, message)

    def files(self, tree: str, prefix: str = "") -> Files:
        """What a tree holds, by path."""
        found: Files = {}
        data, at = self.read(tree)[1], 0
        while at < len(data):
            end = data.index(b"\0", at)
            mode, _, name = data[at:end].partition(b" ")
            oid = data[end + 1 : end + 21].hex()
            path = prefix + os.fsdecode(name)
            if mode == b"40000":
                found.update(self.files(oid, f"{path}/"))
            else:
                found[path] = mode.decode(), oid
            at = end + 21
        return found

    def tree(self, files: Mapping[str, File]) -> str:
        """Keep a tree that holds these files; its id."""
        entries: list[tuple[bytes, bytes, str]] = []
        below: dict[str, Files] = {}
        for path, file in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = file
            else:
                entries.append((os.fsencode(name), file[0].encode(), file[1]))
        entries += [(os.fsencode(name) + b"/", b"40000", self.tree(inner)) for name, inner in below.items()]
        lines = (mode + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(oid) for name, mode, oid in sorted(entries))
        return self.write("tree", b"".join(lines))

    def history(self, tips: Iterable[str], without: Iterable[str] = ()) -> dict[str, Commit]:
        """Every commit that these have in their history and those do not."""
        gone = set(self.history(without)) if without else set()
        found: dict[str, Commit] = {}
        todo = [tip for tip in tips if tip not in gone]
        while todo:
            oid = todo.pop()
            if oid not in found:
                found[oid] = self.commit(oid)
                todo += [parent for parent in found[oid].parents if parent not in gone]
        return found

    def bases(self, commits: Sequence[str]) -> list[str]:
        """The best common ancestors, the newest first."""
        shared = set.intersection(*(set(self.history([commit])) for commit in commits))
        older: set[str] = set()
        for oid in shared:
            older |= {parent for parent in self.commit(oid).parents if parent in shared}
        older = set(self.history(older)) if older else set()
        return sorted(shared - older, key=lambda oid: (-self.commit(oid).when, oid))


@cache
def objects_of(common: Path) -> Objects:
    """The objects of the repository with that common Git directory."""
    return Objects(common)


# ── Refs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Refs:
    """The refs of one work tree and of the repository."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def file(self, name: str) -> Path:
        """Where it is kept."""
        own = "/" not in name or name.startswith(("refs/worktree/", "refs/bisect/"))
        return (self._place.admin if own else self._place.common) / name

    def read(self, name: str) -> str | None:
        """The object id that a ref is at, through symbolic ones."""
        try:
            text = self.file(name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._packed().get(name)
        return self.read(text.removeprefix("ref: ")) if text.startswith("ref: ") else text or None

    def _packed(self) -> dict[str, str]:
        try:
            lines = (self._place.common / "packed-refs").read_text().splitlines()
        except FileNotFoundError:
            return {}
        return {line.split(" ")[1]: line.split(" ")[0] for line in lines if _OID.match(line)}

    def below(self, patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The refs that are one of these or below, with what they are at."""
        found = self._packed()
        base = str(self._place.common)
        for at, _, files in os.walk(f"{base}/refs"):
            found.update({f"{at}/{name}"[len(base) + 1 :]: "" for name in files if not name.endswith(".lock")})
        for name in sorted(found):
            if not patterns or any(name == p or name.startswith(p.rstrip("/") + "/") for p in patterns):
                oid = self.read(name)
                if oid:
                    yield name, oid

    def write(self, name: str, oid: str | None) -> None:
        """Put a ref there, or remove it."""
        path = self.file(name)
        if oid is None:
            path.unlink(missing_ok=True)
            packed = self._place.common / "packed-refs"
            if name in self._packed():
                kept = [line for line in packed.read_text().splitlines(True) if not line.endswith(f" {name}\n")]
                packed.write_text("".join(kept))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.lock")
        scratch.write_text(f"{oid}\n")
        scratch.replace(path)


# ── Indices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_index(path: Path) -> Files:
    """What an index has; nothing when there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    signature, version, count = struct.unpack(">4sII", data[:12])
    if signature != b"DIRC" or version != 2:
        raise UnknownCommandError
    found: Files = {}
    at = 12
    for _ in range(count):
        mode = struct.unpack(">I", data[at + 24 : at + 28])[0]
        oid, flags = data[at + 40 : at + 60].hex(), struct.unpack(">H", data[at + 60 : at + 62])[0]
        if flags & 0xF000:
            raise UnknownCommandError
        end = data.index(b"\0", at + 62)
        found[os.fsdecode(data[at + 62 : end])] = f"{mode:o}", oid
        at += (end - at + 8) // 8 * 8
    return found


def write_index(path: Path, files: Files) -> None:
    """Put an index there that knows nothing of times, so that whoever trusts it looks at each file again."""
    parts = [struct.pack(">4sII", b"DIRC", 2, len(files))]
    for name, (mode, oid) in sorted((os.fsencode(name), file) for name, file in files.items()):
        entry = struct.pack(">6I", 0, 0, 0, 0, 0, 0) + struct.pack(">4I", int(mode, 8), 0, 0, 0)
        entry += bytes.fromhex(oid) + struct.pack(">H", min(len(name), 0xFFF)) + name
        parts.append(entry + b"\0" * (8 - len(entry) % 8))
    data = b"".join(parts)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    scratch.write_bytes(data + hashlib.sha1(data, usedforsecurity=False).digest())
    scratch.replace(path)


def on_disk(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Every file below: its name from there, the mode that a tree would give it, and where it is."""
    for at, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(files):
            path = Path(at, name)
            if at == str(root) and name == ".git":
                continue
            if name == ".gitignore" or path.is_symlink():
                raise UnknownCommandError
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            yield str(path.relative_to(root)), mode, path
        if at == str(root) and ".git" in directories:
            directories.remove(".git")
        if any(os.path.lexists(f"{at}/{name}/.git") for name in directories):
            raise UnknownCommandError


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

_Answer = tuple[int, str, str]


class _Run:
    """One command being carried out."""

    def __init__(self, place: Place, stdin: str, extra: Mapping[str, str], before: Callable[[str], None]) -> None:
        self.place = place
        self.stdin = stdin
        self.extra = extra
        self.before = before
        self.objects = objects_of(place.common)
        self.refs = Refs(place)

    def command(self, args: list[str]) -> _Answer:
        """Carry it out.

        Raises:
            UnknownCommandError: that is the real Git's business.
        """
        name, *rest = args
        method = getattr(self, "_" + name.replace("-", "_"), None)
        if method is None:
            raise UnknownCommandError
        answer = method(rest)
        assert isinstance(answer, tuple)
        return answer

    # Names of things

    def _resolve(self, revision: str) -> str | None:
        base, _, path = revision.partition(":")
        if path:
            tree = self._resolve(f"{base}^{{tree}}")
            found = self.objects.files(tree).get(path) if tree else None
            return found[1] if found else None
        match = re.fullmatch(r"(.*?)((?:\^\{\w*\}|\^\d*|~\d*)*)", revision)
        assert match is not None
        name, steps = match.groups()
        oid = name if _OID.fullmatch(name) else None
        if oid is None:
            if not (name.startswith("refs/") or re.fullmatch(r"[A-Z_]+", name)):
                raise UnknownCommandError
            oid = self.refs.read(name)
        for step in re.findall(r"\^\{\w*\}|\^\d*|~\d*", steps):
            oid = self._step(oid, step) if oid else None
        return oid

    def _step(self, oid: str, step: str) -> str | None:
        if step in ("^{commit}", "^{tree}", "^{blob}", "^{object}", "^{}"):
            if not self.objects.has(oid):
                # It may be in a pack.
                raise UnknownCommandError
            kind = self.objects.read(oid)[0]
            if kind == "commit" and step == "^{tree}":
                return self.objects.commit(oid).tree
            return oid if step in (f"^{{{kind}}}", "^{object}", "^{}") else None
        if step.startswith("^"):
            parents, number = self.objects.commit(oid).parents, int(step[1:] or 1)
            return oid if number == 0 else parents[number - 1] if number <= len(parents) else None
        raise UnknownCommandError

    def _rev_parse(self, args: list[str]) -> _Answer:
        match args:
            case ["--verify", "--quiet", "--end-of-options", revision]:
                oid = self._resolve(revision)
                return (0, f"{oid}\n", "") if oid else (1, "", "")
            case ["--verify", revision] if not revision.startswith("-"):
                oid = self._resolve(revision)
                return (0, f"{oid}\n", "") if oid else (128, "", "fatal: Needed a single revision")
            case ["--path-format=absolute", "--git-common-dir"]:
                return 0, f"{self.place.common}\n", ""
            case ["--absolute-git-dir"]:
                return 0, f"{self.place.admin}\n", ""
            case ["--is-bare-repository"]:
                return 0, "false\n", ""
            case [one, parents] if parents == one.replace("^{tree}", "^@"):
                commit = self.objects.commit(one.removesuffix("^{tree}"))
                return 0, "\n".join([commit.tree, *commit.parents]) + "\n", ""
            case [revision] if not revision.startswith("-"):
                oid = self._resolve(revision)
                return (0, f"{oid}\n", "") if oid else (128, "", f"fatal: ambiguous argument {revision!r}")
            case _:
                raise UnknownCommandError

    def _config(self, args: list[str]) -> _Answer:
        match args:
            case ["--get", key]:
                section, _, name = key.rpartition(".")
                text = (self.place.common / "config").read_text()
                wanted = re.search(rf"^\[{re.escape(section)}\](?:\n\s.*)*?\n\s*{re.escape(name)} = (.*)$", text, re.M)
                return (0, f"{wanted[1]}\n", "") if wanted else (1, "", "")
            case _:
                raise UnknownCommandError

    def _check_ref_format(self, args: list[str]) -> _Answer:
        return (0, "", "") if re.fullmatch(r"refs(/[\w.-]+)+", args[-1]) else (1, "", "")

    # Looking

    def _show(self, args: list[str]) -> _Answer:
        match args:
            case [revision] if ":" in revision:
                oid = self._resolve(revision)
                if oid is None:
                    return 128, "", f"fatal: path does not exist in {revision}"
                return 0, self._text(oid), ""
            case _:
                raise UnknownCommandError

    def _text(self, oid: str) -> str:
        return self.objects.read(oid)[1].decode("utf-8", "surrogateescape")

    def _cat_file(self, args: list[str]) -> _Answer:
        match args:
            case ["blob", oid]:
                return 0, self._text(oid), ""
            case ["--batch-check=%(objectname) %(objecttype)"]:
                asked = self.stdin.splitlines()
                return 0, "".join(f"{oid} {self.objects.read(oid)[0]}\n" for oid in asked), ""
            case _:
                raise UnknownCommandError

    def _ls_tree(self, args: list[str]) -> _Answer:
        match args:
            case ["-r", "-z", "--full-tree", tree] | ["-r", "-l", "-z", tree]:
                sizes = "-l" in args
                files = self.objects.files(self._resolve(f"{tree}^{{tree}}") or "")
                lines = []
                for path, (mode, oid) in sorted(files.items()):
                    size = f" {len(self.objects.read(oid)[1]):>7}" if sizes else ""
                    lines.append(f"{mode} blob {oid}{size}\t{path}\0")
                return 0, "".join(lines), ""
            case _:
                raise UnknownCommandError

    def _for_each_ref(self, args: list[str]) -> _Answer:
        options = [arg for arg in args if arg.startswith("-")]
        form = next((o.removeprefix("--format=") for o in options if o.startswith("--format=")), "")
        others = [o for o in options if not o.startswith("--format=") and o != "--sort=-committerdate"]
        if others or not set(re.findall(r"%\((\w+)\)", form)) <= {"refname", "objectname", "parent"}:
            raise UnknownCommandError
        found = list(self.refs.below([arg for arg in args if not arg.startswith("-")]))
        if len(others) < len(options) - 1:
            found.sort(key=lambda pair: -self.objects.commit(pair[1]).when)
        return 0, "".join(f"{self._formatted(form, name, oid)}\n" for name, oid in found), ""

    def _formatted(self, form: str, name: str, oid: str) -> str:
        parents = " ".join(self.objects.commit(oid).parents) if "%(parent)" in form else ""
        text = form.replace("%(refname)", name).replace("%(objectname)", oid)
        return text.replace("%(parent)", parents)

    def _merge_base(self, args: list[str]) -> _Answer:
        ancestry = args[:1] == ["--is-ancestor"]
        names = args[1:] if args[0].startswith("--") else args
        if args[0].startswith("--") and args[0] not in ("--is-ancestor", "--octopus"):
            raise UnknownCommandError
        commits = [self._resolve(f"{name}^{{commit}}") for name in names]
        known = [oid for oid in commits if oid]
        if len(known) < len(commits):
            raise UnknownCommandError
        if ancestry:
            return int(known[0] not in self.objects.history([known[1]])), "", ""
        bases = self.objects.bases(known)
        return (0, f"{bases[0]}\n", "") if bases else (1, "", "")

    def _log(self, args: list[str]) -> _Answer:
        form = next((arg for arg in args if arg.startswith("--format=%H%x01%T%x01%P%x01%(trailers:")), "")
        if "--grep=Merge-Request: " not in args or args[-1] != "--" or not form:
            raise UnknownCommandError
        since, dots, ref = args[-2].rpartition("..")
        tip = self._resolve(ref)
        assert tip is not None
        found = self.objects.history([tip], [since] if dots else [])
        oids = [oid for oid in reversed(_order(found)) if len(found[oid].parents) == 2]
        if "--first-parent" in args:
            oids = [oid for oid in _line(self.objects, tip) if oid in found][::-1]
        lines = []
        for oid in oids:
            tree, parents, _, message = found[oid]
            if "Merge-Request: " in message:
                last = message.rstrip().rpartition("\n\n")[2]
                lists = [re.findall(rf"^{key}: (\S+)$", last, re.M) for key in re.findall(r"key=([\w-]+)", form)]
                lines.append("\x01".join([oid, tree, *(" ".join(words) for words in (parents, *lists))]) + "\n")
        return 0, "".join(lines), ""

    def _rev_list(self, args: list[str]) -> _Answer:
        match args:
            case ["--first-parent", "--parents", "--min-parents=2", span]:
                first, _, here = span.partition("..")
                gone, lines = self.objects.history([first]), []
                while here and here not in gone:
                    parents = self.objects.commit(here).parents
                    lines += [" ".join([here, *parents]) + "\n"] if len(parents) > 1 else []
                    here = parents[0] if parents else ""
                return 0, "".join(lines), ""
            case _:
                raise UnknownCommandError

    # Comparing

    def _diff_tree(self, args: list[str]) -> _Answer:
        split = args.index("--") if "--" in args else len(args)
        options = [arg for arg in args[:split] if arg.startswith("-")]
        sides = [arg for arg in args[:split] if not arg.startswith("-")]
        if len(sides) != 2 or "-r" not in options or "--numstat" in options:
            raise UnknownCommandError
        trees = [self._resolve(f"{side}^{{tree}}") or "" for side in sides]
        old, new = (self.objects.files(tree) for tree in trees)
        return 0, _compared(old, new, options, args[split + 1 :]), ""

    def _diff_index(self, args: list[str]) -> _Answer:
        if "--cached" not in args or args[-1].startswith("-"):
            raise UnknownCommandError
        old = self.objects.files(self._resolve(f"{args[-1]}^{{tree}}") or "")
        return 0, _compared(old, read_index(self.place.listed), args[:-1], []), ""

    # Refs

    def _update_ref(self, args: list[str]) -> _Answer:
        while args[:1] and args[0] in ("-m", "--create-reflog", "--no-deref"):
            args = args[2:] if args[0] == "-m" else args[1:]
        match args:
            case ["--stdin"]:
                orders = [line.split(" ") for line in self.stdin.splitlines()]
            case ["-d", ref, old]:
                orders = [["delete", ref, old]]
            case [ref, new]:
                orders = [["update", ref, new]]
            case [ref, new, old]:
                orders = [["update", ref, new, old]]
            case _:
                raise UnknownCommandError
        self.before("update-ref")
        done: list[tuple[str, str | None]] = []
        for kind, ref, *oids in orders:
            if kind not in ("update", "delete"):
                raise UnknownCommandError
            wanted, expected = (oids[0], oids[1:]) if kind == "update" else (None, oids)
            at = self.refs.read(ref)
            if (expected and (at or ABSENT) != expected[0]) or (kind == "delete" and at is None):
                return 128, "", f"fatal: cannot lock ref '{ref}': is at {at} but expected {expected}"
            done.append((ref, wanted))
        for ref, oid in done:
            self.refs.write(ref, oid)
        return 0, "", ""

    def _symbolic_ref(self, args: list[str]) -> _Answer:
        match args:
            case [name, target] if not name.startswith("-"):
                self.before("symbolic-ref")
                self.refs.file(name).write_text(f"ref: {target}\n")
                return 0, "", ""
            case _:
                raise UnknownCommandError

    # Making objects

    def _commit_tree(self, args: list[str]) -> _Answer:
        tree, parents, rest = "", [], list(args)
        while rest:
            word = rest.pop(0)
            if word == "-p":
                parents.append(rest.pop(0))
            elif word == "-F":
                rest.pop(0)
            elif word.startswith("-"):
                raise UnknownCommandError
            else:
                tree = word
        stamps = []
        for role in ("AUTHOR", "COMMITTER"):
            name, email, date = (self.extra[f"GIT_{role}_{what}"] for what in ("NAME", "EMAIL", "DATE"))
            stamps.append(f"{role.lower()} {name} <{email}> {date.removeprefix('@')}")
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), *stamps, "", self.stdin]
        return 0, self.objects.write("commit", "\n".join(lines).encode("utf-8", "surrogateescape")) + "\n", ""

    def _merge_tree(self, args: list[str]) -> _Answer:
        ours, theirs = args[-2:]
        if args[:-2][:3] != ["--write-tree", "-z", "--name-only"]:
            raise UnknownCommandError
        bases = self.objects.bases([ours, theirs])
        if len(bases) != 1:
            raise UnknownCommandError
        base, left, right = (self.objects.files(self.objects.commit(oid).tree) for oid in (bases[0], ours, theirs))
        merged: Files = {}
        for path in base.keys() | left.keys() | right.keys():
            was, mine, other = base.get(path), left.get(path), right.get(path)
            if mine != other and was not in (mine, other):
                # How it looks is for Git to say.
                raise UnknownCommandError
            file = other if mine == was else mine
            if file:
                merged[path] = file
        if _renamed(base, left) or _renamed(base, right):
            raise UnknownCommandError
        # An empty field comes before the messages, of which there are none.
        return 0, f"{self.objects.tree(merged)}\0" + ("\0" if "--messages" in args else ""), ""

    # Index and files

    def _write_tree(self, args: list[str]) -> _Answer:
        if args:
            raise UnknownCommandError
        return 0, self.objects.tree(read_index(self.place.listed)) + "\n", ""

    def _add(self, args: list[str]) -> _Answer:
        if args != ["--all", "--sparse", "--ignore-errors", "--", "."]:
            raise UnknownCommandError
        there = {
            name: (mode, self.objects.write("blob", path.read_bytes()))
            for name, mode, path in on_disk(self.place.files)
        }
        if there != read_index(self.place.listed) or not self.place.listed.exists():
            write_index(self.place.listed, there)
        return 0, "", ""

    def _read_tree(self, args: list[str]) -> _Answer:
        match args:
            case [tree] if not tree.startswith("-"):
                write_index(self.place.listed, self.objects.files(self._resolve(f"{tree}^{{tree}}") or ""))
                return 0, "", ""
            case ["--reset", "-u", *_, target]:
                files = self.objects.files(self._resolve(f"{target}^{{tree}}") or "")
                self.before("read-tree")
                self._fill(read_index(self.place.listed), files)
                return 0, "", ""
            case _:
                raise UnknownCommandError

    def _fill(self, old: Files, new: Files) -> None:
        """Bring the files to what a tree has. Stopped in the middle, some are the one and some the other."""
        for path in old.keys() - new.keys():
            self._drop(path)
        for number, (path, (mode, oid)) in enumerate(sorted(new.items())):
            place = self.place.files / path
            data = self.objects.read(oid)[1]
            if place.is_dir():
                shutil.rmtree(place)
            if not (place.is_file() and place.read_bytes() == data):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                if number == len(new) // 2:
                    self.before("read-tree half way")
            place.chmod(0o755 if mode == "100755" else 0o644)
        write_index(self.place.listed, new)

    def _drop(self, path: str) -> None:
        place = self.place.files / path
        place.unlink(missing_ok=True)
        for parent in place.parents:
            if parent == self.place.files or any(parent.iterdir()):
                break
            parent.rmdir()

    def _ls_files(self, args: list[str]) -> _Answer:
        listed = read_index(self.place.listed)
        match args:
            case ["-z"]:
                return 0, "".join(f"{path}\0" for path in sorted(listed)), ""
            case ["-v", "-z"]:
                return 0, "".join(f"H {path}\0" for path in sorted(listed)), ""
            case ["-z", "--others", "--exclude-standard"]:
                others = sorted(name for name, _, _ in on_disk(self.place.files) if name not in listed)
                return 0, "".join(f"{path}\0" for path in others), ""
            case ["--others", "--exclude-standard", "--", ":(glob)**/.gitattributes"]:
                others = sorted(name for name, _, _ in on_disk(self.place.files) if name not in listed)
                return 0, "".join(f"{name}\n" for name in others if name.rpartition("/")[2] == ".gitattributes"), ""
            case _:
                raise UnknownCommandError

    def _diff_files(self, args: list[str]) -> _Answer:
        if set(args) - {"-z", "--name-only", "--ignore-submodules=all"}:
            raise UnknownCommandError
        there = {name: (mode, path) for name, mode, path in on_disk(self.place.files)}
        edited = []
        for path, (mode, oid) in sorted(read_index(self.place.listed).items()):
            found = there.get(path)
            if found is None or (found[0], self.objects.write("blob", found[1].read_bytes())) != (mode, oid):
                edited.append(path)
        return 0, "".join(f"{path}\0" for path in edited), ""

    def _update_index(self, args: list[str]) -> _Answer:
        if args[-2:] == ["-z", "--stdin"] and not self.stdin:
            return 0, "", ""
        raise UnknownCommandError

    def _clean(self, args: list[str]) -> _Answer:
        if args != ["-ffdxq"]:
            raise UnknownCommandError
        self.before("clean")
        listed = read_index(self.place.listed)
        for name, _, _ in list(on_disk(self.place.files)):
            if name not in listed:
                self._drop(name)
        for at, directories, files in os.walk(self.place.files, topdown=False):
            if not directories and not files and Path(at) != self.place.files:
                Path(at).rmdir()
        return 0, "", ""

    def _worktree(self, args: list[str]) -> _Answer:
        match args:
            case ["add", "--quiet", "--no-checkout", "--lock", "--reason", reason, *rest]:
                detached = rest[0] == "--detach"
                path, start = Path(rest[-2]), rest[-1]
            case _:
                raise UnknownCommandError
        self.before("worktree")
        number, admin = 0, self.place.common / "worktrees" / path.name
        while admin.exists():
            number += 1
            admin = admin.with_name(f"{path.name}{number}")
        admin.mkdir(parents=True)
        (admin / "locked").write_text("initializing")
        (admin / "gitdir").write_text(f"{path}/.git\n")
        self.before("worktree half way")
        path.mkdir(parents=True, exist_ok=True)
        (path / ".git").write_text(f"gitdir: {admin}\n")
        (admin / "commondir").write_text("../..\n")
        (admin / "HEAD").write_text(f"{start}\n" if detached else f"ref: refs/heads/{start}\n")
        (admin / "locked").write_text(f"{reason}\n")
        return 0, "", ""


def _compared(old: Files, new: Files, options: Sequence[str], pathspecs: Sequence[str]) -> str:
    known = {
        *("-r", "-z", "--raw", "--name-only", "--cached", "--no-renames", "--no-ext-diff", "--no-textconv"),
        *("--ignore-submodules=none", "--diff-filter=A"),
    }
    if set(options) - known:
        raise UnknownCommandError
    end = "\0" if "-z" in options else "\n"
    lines = []
    for path in sorted(old.keys() | new.keys(), key=os.fsencode):
        was, now = old.get(path), new.get(path)
        added_only = "--diff-filter=A" in options and was is not None
        if was == now or added_only or not _matches(path, pathspecs):
            continue
        if "--name-only" in options:
            lines.append(f"{path}{end}")
            continue
        kind = "A" if was is None else "D" if now is None else "M"
        (before, left), (after, right) = was or ("000000", ABSENT), now or ("000000", ABSENT)
        lines.append(f":{before} {after} {left} {right} {kind}\0{path}\0")
    return "".join(lines)


def _matches(path: str, pathspecs: Sequence[str]) -> bool:
    if not pathspecs:
        return True
    found = False
    for spec in pathspecs:
        match = re.fullmatch(r":\(([a-z,]+)\)(.*)", spec)
        if match is None:
            raise UnknownCommandError
        magic, pattern = set(match[1].split(",")), match[2]
        if magic - {"glob", "top", "exclude", "icase"}:
            raise UnknownCommandError
        plain = pattern.removeprefix("**/")
        hit = fnmatch.fnmatch(path, plain) or (plain != pattern and fnmatch.fnmatch(path, f"*/{plain}"))
        hit = hit or path.startswith(f"{pattern.removesuffix('/**')}/")
        if "exclude" in magic and hit:
            return False
        found = found or ("exclude" not in magic and hit)
    return found or all("exclude" in spec for spec in pathspecs)


def _renamed(base: Files, side: Files) -> bool:
    """Whether a side has lost a file and won another, which Git may take for a rename."""
    return bool(base.keys() - side.keys()) and bool(side.keys() - base.keys())


def _line(objects: Objects, tip: str) -> Iterator[str]:
    """A commit and what is behind it along first parents."""
    here = tip
    while here:
        yield here
        parents = objects.commit(here).parents
        here = parents[0] if parents else ""


def _order(found: Mapping[str, Commit]) -> list[str]:
    """Commits, none before one of its children."""
    done: list[str] = []
    seen: set[str] = set()

    def visit(oid: str) -> None:
        if oid in found and oid not in seen:
            seen.add(oid)
            for parent in found[oid].parents:
                visit(parent)
            done.append(oid)

    for oid in sorted(found, key=lambda oid: (found[oid].when, oid)):
        visit(oid)
    return done[::-1]
