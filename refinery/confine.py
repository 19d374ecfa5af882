"""A program of its own: give up what the rules do not name, by Landlock, and become the command.

Run as ``python -I -S confine.py RULES -- COMMAND…``, and otherwise only asked for the version. It knows no other file
of ours, so that it starts quickly. It ends with 126 when it cannot confine itself, and 127 when there is no such
command, as a shell would.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import stat
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_NO_NEW_PRIVS = 38
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_TCP = 0b11
_SCOPES = 0b11

_TOOLS = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup", "PYENV_ROOT": ".pyenv", "NVM_DIR": ".nvm"}

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that this kernel has; less than 1 for none."""
    return max(0, int(_libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def confine(read: list[str], write: list[str], network: bool) -> None:
    """Give up, for good, all access to files but to these, and TCP unless there is to be ``network``.

    Raises:
        OSError: the kernel refused.
    """
    have = version()
    every = (1 << 13) - 1 | (_REFER if have >= 2 else 0) | (_TRUNCATE if have >= 3 else 0)
    asked = _Ruleset(every, _TCP if have >= 4 and not network else 0, _SCOPES if have >= 6 else 0)
    # Older kernels know fewer fields, and refuse those that they do not know.
    size = 8 if have < 4 else 16 if have < 6 else 24
    ruleset = _call(_CREATE_RULESET, ctypes.byref(asked), ctypes.c_size_t(size), ctypes.c_uint32(0))
    for paths, access in ((read, _READ), (write, every)):
        for path in paths:
            _allow(ruleset, path, access & every)
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # It has gone meanwhile, or never was: then there is nothing to allow.
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        rule = _Beneath(access, place)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(place)


def _call(number: int, *args: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *args))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _limit(limits: dict[str, int]) -> None:
    for name, value in {"CORE": 0, **limits}.items():
        which = getattr(resource, f"RLIMIT_{name}")
        soft, hard = resource.getrlimit(which)
        # Where a limit is stricter already, it stays.
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        least = most if soft == resource.RLIM_INFINITY else min(most, soft)
        resource.setrlimit(which, (least, most))


def _tools_stay(home: str) -> None:
    """Let the tools that are installed in the home be found there when it is another one."""
    for name, place in _TOOLS.items():
        if os.path.isdir(f"{home}/{place}"):  # noqa: PTH112 - this program starts for every command
            os.environ.setdefault(name, f"{home}/{place}")


def main() -> None:
    """Confine this process as the first argument says, and become the command after the second."""
    rules, command = json.loads(sys.argv[1]), sys.argv[3:]
    private = rules["private"]
    try:
        if private:
            os.environ["TMPDIR"] = private
            at = os.path.realpath(os.environ.get("HOME", ""))
            if not any(at == given or at.startswith(given + "/") for given in rules["write"]):
                _tools_stay(at)
                os.environ["HOME"] = private
        _limit(rules["limits"])
        confine(rules["read"], rules["write"], rules["network"])
    except Exception as error:  # noqa: BLE001 - Whatever it is: the command must not run.
        sys.stderr.write(f"cannot be confined by Landlock: {error}\n")
        sys.exit(126)
    # Python does not want to hear of these, and what it ignores stays ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
