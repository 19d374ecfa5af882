"""What the end of a command means: real test runners, and workers who want to get by them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from beads.clock import SystemClock
from refinery.gate import Gate, collected_nothing, environment_digest, judge, tells_of_no_test
from refinery.processes import shell, start

PYTEST = f"{sys.executable} -m pytest -p no:cacheprovider"
PASSES = "def test_it():\n    assert True\n"
FAILS = "def test_it():\n    assert False\n"


def judged(place: Path, line: str, files: dict[str, str], expected: int = 0) -> tuple[str, str]:
    """What comes of running a shell line among these files."""
    for name, text in files.items():
        (place / name).write_text(text)
    job = start(
        shell(line),
        cwd=place,
        environ={"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        log=place / "log",
        timeout=60.0,
        marker=f"test {place}",
        clock=SystemClock(),
    )
    return judge(job.wait(), line, expected)


@pytest.mark.parametrize(
    "options", ["", " -q", " -qq", " -v", " -q --no-header --no-summary", " -q -x test_a.py::test_it"]
)
def test_pytest_is_believed_when_tests_passed(tmp_path: Path, options: str) -> None:
    assert judged(tmp_path, PYTEST + options, {"test_a.py": PASSES}) == ("pass", "exit 0")


LIES = {
    "an exit in conftest": {"test_a.py": FAILS, "conftest.py": "import os\nos._exit(0)\n"},
    "a polite exit in conftest": {"test_a.py": FAILS, "conftest.py": "import pytest\npytest.exit('fine', 0)\n"},
    "an exit in the test": {"test_a.py": f"import os\nos._exit(0)\n{FAILS}"},
    "no test": {},
    "nothing but skipped tests": {"test_a.py": f"import pytest\n@pytest.mark.skip\n{FAILS}"},
    "nothing but expected failures": {"test_a.py": f"import pytest\n@pytest.mark.xfail\n{FAILS}"},
    "everything deselected": {"test_a.py": FAILS, "pytest.ini": "[pytest]\naddopts = -k nothing\n"},
    "an exit at the end": {
        "test_a.py": FAILS,
        "conftest.py": "import os\ndef pytest_runtest_logreport(report):\n    os._exit(0)\n",
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_pytest_is_not_believed_without_a_test_that_passed(tmp_path: Path, lie: str) -> None:
    for options in ("", " -qq"):
        verdict, _ = judged(tmp_path, PYTEST + options, LIES[lie])
        assert verdict != "pass"


def test_a_test_that_fails_is_no_error(tmp_path: Path) -> None:
    assert judged(tmp_path, f"{PYTEST} -q", {"test_a.py": FAILS}) == ("fail", "exit 1")
    assert judged(tmp_path, f"{PYTEST} -q", {}, expected=1) == ("pass", "exit 1")


UNIT = "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        pass\n"


def test_unittest(tmp_path: Path) -> None:
    line = f"{sys.executable} -m unittest"
    assert judged(tmp_path, line, {"test_u.py": UNIT}) == ("pass", "exit 0")
    assert judged(tmp_path, f"{line} -q", {}) == ("pass", "exit 0")
    assert judged(tmp_path, line, {"test_u.py": "import os\nos._exit(0)\n"})[0] == "error"
    assert judged(tmp_path, line, {"test_u.py": ""})[0] != "pass"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_node(tmp_path: Path) -> None:
    good = "require('node:test').test('it', () => {})\n"
    assert judged(tmp_path, "node --test a.test.js", {"a.test.js": good}) == ("pass", "exit 0")
    assert judged(tmp_path, "node --test none.test.js", {})[0] != "pass"


SAID = {
    "go, a package": ("go test ./...", "ok  \texample.org/a\t0.002s\n", "pass"),
    "go, nothing in it": ("go test ./...", "?   \texample.org/a\t[no test files]\n", "error"),
    "go, one of two": ("go test ./...", "?   \texample.org/a\t[no test files]\nok  \texample.org/b\t0.1s\n", "pass"),
    "go, none of that name": ("go test -run X ./...", "ok  \texample.org/a\t0.002s [no tests to run]\n", "error"),
    "go, of one of two": ("make test", "ok  \ta\t0.1s [no tests to run]\nok  \tb\t0.1s\n", "pass"),
    "go, by a script": ("make test", "ok  \texample.org/a\t(cached) [no tests to run]\n", "error"),
    "go, not a word": ("go test ./...", "", "error"),
    "cargo": ("cargo test", "running 2 tests\ntest result: ok. 2 passed; 0 failed\n", "pass"),
    "cargo, none": ("cargo test", "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored\n", "error"),
    "jest": ("npx jest", "Tests:       3 passed, 3 total\n", "pass"),
    "jest, none": ("npx jest --passWithNoTests", "No tests found, exiting with code 0\n", "error"),
    "jest, not a word": ("cd web && npx jest", "", "error"),
    "node": ("node --test", "# tests 3\n# pass 3\n# fail 0\n", "pass"),
    "node, as people read it": ("node --test", "\u2139 tests 3\n\u2139 pass 3\n", "pass"),
    "node, none": ("node --test", "# tests 0\n# pass 0\n", "error"),
    "node, none, by a script": ("npm test", "\u2139 tests 0\n\u2139 pass 0\n", "error"),
    "node, by a script": ("npm test", "\u2139 tests 2\n\u2139 pass 2\n", "pass"),
    "vitest": ("npx vitest run", " Test Files  1 passed (1)\n      Tests  1 passed | 2 skipped (3)\n", "pass"),
    "vitest, all skipped": ("npx vitest run", " Test Files  1 skipped (1)\n      Tests  3 skipped (3)\n", "error"),
    "vitest, none": ("npm test", "\nNo test files found, exiting with code 0\n", "error"),
    "mocha": ("npx mocha", "\n  1 passing (14ms)\n", "pass"),
    "mocha, none": ("npm test", "\n\n  0 passing (2ms)\n", "error"),
    "mocha, only failing ones": ("npm test", "\n  0 passing (2ms)\n  2 failing\n", "pass"),
    "two runners": ("pytest -q && cargo test", "3 passed in 0.1s\n", "error"),
    "pytest, all skipped": ("pytest", "collected 1 item\na.py s   [100%]\n=== 1 skipped in 0.1s ===\n", "error"),
    "somebody else's": ("make test", "", "pass"),
    "a name like one": ("./pytest-like.sh && cat my-unittest", "", "pass"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_a_runner_says(case: str) -> None:
    line, output, verdict = SAID[case]
    nothing = collected_nothing(output) or tells_of_no_test(line, output)
    assert ("error" if nothing else "pass") == verdict


def test_a_verdict_counts_for_the_network_and_the_sandbox_that_it_was_found_with() -> None:
    alone, connected = (Gate(commands=("true",), network=network) for network in (False, True))
    assert alone.digest() != connected.digest()
    environ = {"PATH": "/bin"}
    assert len({environment_digest(environ, kind) for kind in ("bubblewrap", "landlock", "none")}) == 3
