"""The example that modernises a package: its plan, its care with strangers' archives, and a run from end to end."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from beads.plan import Molecule, read_plan
from tests.world import ROOT, git

SCRIPT = ROOT / "examples" / "modernize" / "modernize.py"

STRANGE = [
    "pkg/two words.py",
    "pkg/it's.py",
    'pkg/"quoted".py',
    "pkg/$(touch owned).py",
    "pkg/`touch owned`.py",
    "pkg/semi;colon && touch owned.py",
    "pkg/star*.py",
    "pkg/back\\slash.py",
    "pkg/new\nline.py",
    "pkg/carriage\rreturn.py",
    "pkg/ünï.py",
    "pkg/--fix.py",
    "-rf.py",
    f"pkg/{'long' * 50}.py",
]

# A package in the style of ten years ago. What `names` imports is used by nobody but the tests, so that removing it
# as unused breaks them: the second attempt has to find that out.
PACKAGE = {
    "pkg/__init__.py": "",
    "pkg/names.py": "import os\nfrom shlex import quote\n\n\nclass Name(object):\n    pass\n",
    "pkg/it's old.py": "class Old(object):\n    pass\n",
    "pkg/two.py": "print 'for Python 2'\n",
    "pkg/new.py": "class New:\n    pass\n",
    "tests/__init__.py": "",
    "tests/test_names.py": """\
import unittest

from pkg.names import Name, quote


class TestNames(unittest.TestCase):
    def test_names(self):
        self.assertEqual(quote("a b"), "'a b'")
        self.assertTrue(Name())
""",
}


@pytest.fixture(scope="module")
def modernize() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("modernize", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look their annotations up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A pyupgrade that has nothing to add to what ruff does; ruff and Python are those of the tests."""
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "pyupgrade").write_text("#!/bin/sh\nexit 0\n")
    (directory / "pyupgrade").chmod(0o755)
    return directory


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The source tree of a package."""
    for name, text in PACKAGE.items():
        path = tmp_path / "pkg-1.0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg-1.0"


def molecules(modernize: ModuleType, paths: list[str], files: tuple[str, ...] = ()) -> tuple[Molecule, ...]:
    text = modernize.make_plan("strange 1.0", paths, files, modernize.Rules(9, modernize.PYTEST))
    return read_plan(text.encode(), "plan.toml").molecules


def test_a_plan_for_strange_file_names_can_be_read(modernize: ModuleType) -> None:
    found = molecules(modernize, STRANGE)
    assert len({molecule.id for molecule in found}) == len(STRANGE)
    assert all(molecule.criteria and molecule.run and molecule.rework for molecule in found)


@pytest.mark.parametrize("path", STRANGE)
def test_a_file_name_is_one_word_of_every_line(modernize: ModuleType, path: str) -> None:
    (molecule,) = molecules(modernize, [path])
    name = path if not path.startswith("-") else f"./{path}"
    lines = [*(criterion.run for criterion in molecule.criteria if "pytest" not in criterion.run), molecule.run]
    for line in lines:
        assert name in shlex.split(line)
    assert f"main:{path}" in shlex.split(molecule.rework)


def test_a_shell_runs_nothing_that_a_file_name_says(modernize: ModuleType, tmp_path: Path, tools: Path) -> None:
    environ = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "BEADTOWN_ATTEMPT": "1"}
    (tmp_path / "pkg").mkdir()
    for molecule, path in zip(molecules(modernize, STRANGE[:-1]), STRANGE, strict=False):
        (tmp_path / path).write_text("class A(object):\n    pass\n")
        for line in (molecule.run, *(criterion.run for criterion in molecule.criteria[:-1])):
            done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environ, capture_output=True, check=False)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert (tmp_path / path).read_text() == "class A:\n    pass\n"
    assert not list(tmp_path.rglob("owned*"))


def test_names_that_look_alike_get_ids_of_their_own(modernize: ModuleType) -> None:
    found = molecules(modernize, ["a/b.py", "a b.py", "a-b.py", "???.py", "a" * 80 + "/x.py", "b" * 80 + "/x.py"])
    assert [molecule.id for molecule in found][:4] == ["a-b", "a-b-2", "a-b-3", "module"]


def test_a_module_is_judged_by_its_own_tests_where_there_are_any(modernize: ModuleType) -> None:
    paths, files = ["pkg/one.py", "pkg/two.py"], ("tests/test_one.py", "tests/sub/test_one.py", "pkg/two.py")
    last = [molecule.criteria[-1].run for molecule in molecules(modernize, paths, files)]
    assert last == ["python -m pytest -q tests/sub/test_one.py tests/test_one.py", "python -m pytest -q"]


def test_another_test_command_is_taken_as_it_is(modernize: ModuleType) -> None:
    rules = modernize.Rules(9, "make test")
    assert rules.tests("pkg/one.py", ["tests/test_one.py"]) == ("make test",)
    assert modernize.Rules(9, "make test", quick=True).tests("pkg/one.py", []) == ()


def test_modules_are_what_is_not_about_the_package(modernize: ModuleType) -> None:
    ours = ["pkg/__init__.py", "pkg/sub/deep.py", "single.py", "src/pkg/testing.py"]
    others = ["setup.py", "docs/conf.py", "tests/data.py", "pkg/tests/x.py", "test_single.py", "a_test.py", "README.md"]
    assert list(modernize.modules([*others, *reversed(ours)])) == ours
    assert list(modernize.modules(ours, "pkg/*")) == ours[:2]


def test_files_are_listed_without_git_and_links(modernize: ModuleType, tmp_path: Path) -> None:
    for name in (".git/hooks/x.py", "pkg/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.py").symlink_to("pkg/a.py")
    assert list(modernize.files_of(tmp_path)) == ["pkg/a.py"]


def test_a_name_that_no_plan_can_hold_is_left_out(modernize: ModuleType, tmp_path: Path) -> None:
    assert modernize.parse("\udcff.py", tmp_path) is None


@pytest.mark.parametrize(
    "path,text,kept",
    [
        ("pkg/__init__.py", "", True),
        ("pkg/a.py", "import os\n", False),
        ("pkg/a.py", "try:\n    import readline\nexcept Exception:\n    there = False\n", True),
        ("pkg/a.py", "try:\n    pass\nexcept Exception:\n    if True:\n        from os import path\n", True),
        ("pkg/a.py", "try:\n    import fast as f\nexcept ImportError:\n    import slow as f\nf()\n", False),
        ("pkg/a.py", "import os\ntry:\n    os.stat('x')\nexcept OSError:\n    pass\n", False),
    ],
)
def test_imports_that_try_what_there_is_are_kept(modernize: ModuleType, path: str, text: str, kept: bool) -> None:
    assert modernize.imports_to_keep(path, ast.parse(text)) is kept


def test_unused_imports_are_looked_for_unless_they_are_to_be_kept(modernize: ModuleType) -> None:
    rules = modernize.Rules(9, "make test", keep=frozenset({"pkg/a.py"}))
    assert (rules.codes("pkg/a.py"), rules.codes("pkg/b.py")) == ("UP,I", "UP,I,F401")


def archive(path: Path, members: dict[str, str | None]) -> Path:
    """A source distribution with these files; one that has no text is a link to ``/etc``."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text or "")
            if text is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(member, io.BytesIO((text or "").encode()))
    return path


def test_a_source_distribution_is_unpacked(modernize: ModuleType, tmp_path: Path) -> None:
    good = archive(tmp_path / "pkg-1.0.tar.gz", {"pkg-1.0/pkg.py": "x = 1\n"})
    assert (modernize.unpack(good, tmp_path / "out") / "pkg.py").read_text() == "x = 1\n"


@pytest.mark.parametrize(
    "members",
    [
        {"pkg-1.0/../../evil.py": ""},
        {"../evil.py": ""},
        {"pkg-1.0/link": None},
        {"pkg-1.0/a.py": "", "other/b.py": ""},
        {"evil.py": ""},
        {},
    ],
)
def test_what_is_no_source_distribution_is_refused(
    modernize: ModuleType, tmp_path: Path, members: dict[str, str | None]
) -> None:
    bad = archive(tmp_path / "bad.tar.gz", members)
    (tmp_path / "in" / "out").mkdir(parents=True)
    with pytest.raises(modernize.Problem, match=r"bad\.tar\.gz"):
        modernize.unpack(bad, tmp_path / "in" / "out")
    assert not (tmp_path / "evil.py").exists()
    assert not (tmp_path / "in" / "evil.py").exists()


def test_what_is_no_archive_is_refused(modernize: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "page.tar.gz").write_text("<html>")
    (tmp_path / "out").mkdir()
    with pytest.raises(modernize.Problem, match="was not unpacked"):
        modernize.unpack(tmp_path / "page.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    "argv,said",
    [
        ([], "give either"),
        (["pkg==1", "--package-dir", "."], "give either"),
        (["--package-dir", "missing"], "missing is not a directory"),
        (["pkg"], "'pkg' is not PACKAGE==VERSION"),
        (["pkg>=1"], "is not PACKAGE==VERSION"),
        (["pkg==1 ; python_version"], "is not PACKAGE==VERSION"),
        (["--", "--index-url=x"], "is not PACKAGE==VERSION"),
    ],
)
def test_only_an_exact_version_is_downloaded(
    modernize: ModuleType, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        modernize.arguments(argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def run(package: Path, tools: Path, *options: str) -> subprocess.CompletedProcess[str]:
    into = package.parent / "run"
    test = ("--test", "python -m unittest -q")
    places = ("--package-dir", str(package), "--tools", str(tools), "--into", str(into))
    argv = [sys.executable, str(SCRIPT), *places, *test, *options]
    return subprocess.run(argv, cwd=package.parent, capture_output=True, text=True, check=False)


def test_a_package_is_modernised_from_end_to_end_and_once(package: Path, tools: Path) -> None:
    done = run(package, tools)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out, not Python that this Python reads: 'pkg/two.py'" in done.stdout
    said = dict(line.split(None, 1) for line in done.stdout.splitlines()[-10:] if " " in line)
    assert (said["molecules"], said["landed"], said["open"]) == ("2", "2", "0")
    assert said["attempts"] == "3, of which 1 did not meet the criteria"

    repository = package.parent / "run" / "package"
    assert git(repository, "show", "main:pkg/it's old.py") == "class Old:\n    pass"
    names = git(repository, "show", "main:pkg/names.py")
    assert "class Name:" in names
    assert "quote  # noqa: F401" in names
    assert git(repository, "show", "main:pkg/new.py") == PACKAGE["pkg/new.py"].rstrip()
    assert git(repository, "status", "--short") == ""

    before = git(repository, "rev-parse", "main", "refs/beads/main")
    again = run(package, tools)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with it" in again.stdout
    assert git(repository, "rev-parse", "main", "refs/beads/main") == before


def test_a_package_whose_tests_fail_is_refused(package: Path, tools: Path) -> None:
    (package / "pkg" / "names.py").write_text("")
    done = run(package, tools)
    assert done.returncode == 1
    assert "the tests fail before anything is changed" in done.stderr
    assert "cannot import name 'Name'" in done.stderr
    assert not (package.parent / "run" / "plan.toml").exists()


def test_the_gate_finds_what_quick_criteria_do_not(package: Path, tools: Path) -> None:
    prepared = run(package, tools, "--quick", "--only", "pkg/names.py", "--prepare-only")
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    assert "unittest" not in (package.parent / "run" / "plan.toml").read_text()
    done = run(package, tools, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sent back            1" in done.stdout
