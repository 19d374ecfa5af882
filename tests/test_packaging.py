"""What a user gets: the wheel has all of ours and nothing else, and is what gets imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from tests.world import PACKAGES, ROOT, project_files

HOSTILE = "raise SystemExit('the working directory was imported')\n"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from what Git would commit and from nothing else that lies about."""
    tree = tmp_path_factory.mktemp("tree")
    for name in project_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    return _build("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an index's users would."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    return _build("wheel", tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a directory, to be put on ``sys.path``."""
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {name for name in project_files() if name.split("/")[0] in PACKAGES}
    assert {name.split("/")[0] for name in ours} == set(PACKAGES), "not all packages were found"
    assert packed == ours, f"missing: {sorted(ours - packed)}, too many: {sorted(packed - ours)}"


def test_the_source_distribution_can_be_tested(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    needed = {name for name in project_files() if name.split("/")[0] in {*PACKAGES, "tests", "docs", "LICENSE"}}
    assert packed >= needed, f"missing: {sorted(needed - packed)}"


def test_the_metadata_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = _headers(archive, "METADATA")
        (entry_points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        scripts = archive.read(entry_points).decode()
    assert metadata["Name"] == "beadtown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert scripts == "[console_scripts]\nbead = cli.main:bead\ntown = cli.main:town\n"


def test_the_lock_is_of_these_dependencies() -> None:
    """``uv sync --frozen`` asks no questions: a lock that was forgotten would install the old versions in silence."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (ours,) = (package for package in _locked() if package["name"] == "beadtown")
    locked = ours["metadata"]
    assert ours["version"] == wanted["project"]["version"], "run uv lock"
    assert _parts(locked["requires-dist"]) == _clauses(wanted["project"]["dependencies"]), "run uv lock"
    assert _parts(locked["requires-dev"]["dev"]) == _clauses(wanted["dependency-groups"]["dev"]), "run uv lock"


def test_the_lock_names_only_the_public_index() -> None:
    text = (ROOT / "uv.lock").read_text("utf-8")
    hosts = set(re.findall(r"[a-z+]+://[^/\"]+", text))
    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}
    assert {next(iter(package["source"])) for package in _locked()} == {"editable", "registry"}


def test_the_wheel_runs_without_the_checkout(site: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """A module that is only there because the checkout is on the path would be found missing here."""
    assert _origin("cli.main", tmp_path, {**environ, "PYTHONPATH": str(site)}) == site / "cli" / "main.py"


@pytest.mark.parametrize("name", ["cli", "beads", "roles", "refinery"])
def test_a_module_of_our_name_in_the_working_directory_is_not_imported(
    name: str, environ: dict[str, str], tmp_path: Path
) -> None:
    _plant(tmp_path, name)
    assert _origin("cli.main", tmp_path, environ) == ROOT / "cli" / "main.py"


@pytest.mark.parametrize("command", ["bead", "town"])
def test_the_commands_are_ours_in_a_hostile_directory(command: str, environ: dict[str, str], tmp_path: Path) -> None:
    for name in PACKAGES:
        _plant(tmp_path, name)
    script = Path(sys.executable).with_name(command)
    done = subprocess.run([script, "--help"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command in done.stdout


def test_the_trap_works(environ: dict[str, str], tmp_path: Path) -> None:
    """Without ``-P`` the hostile module is imported: the tests above test something."""
    _plant(tmp_path, "cli")
    done = subprocess.run(
        [sys.executable, "-c", "import cli"], cwd=tmp_path, env=environ, capture_output=True, check=False
    )
    assert b"the working directory was imported" in done.stderr


def _build(kind: str, tree: Path, into: Path) -> Path:
    # In this environment and not in an isolated one, which would be filled from the network.
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(into)]
    done = subprocess.run(command, cwd=tree, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the {kind} was not built:\n{done.stdout}{done.stderr}"
    (built,) = into.iterdir()
    return built


def _locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    return packages


def _parts(locked: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {entry["name"]: {*entry.get("specifier", "").split(","), *entry.get("extras", ())} for entry in locked}


def _clauses(dependencies: list[str]) -> dict[str, set[str]]:
    """``name[extra]>=1,<2`` as the name, and the set of extras and bounds."""
    split = (re.fullmatch(r"([\w-]+)(?:\[([^\]]*)\])?(.*)", line) for line in dependencies)
    return {found[1]: {*found[3].split(","), *filter(None, [found[2]])} for found in split if found}


def _headers(archive: zipfile.ZipFile, file: str) -> Message:
    (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))
    return Parser().parsestr(archive.read(name).decode())


def _plant(directory: Path, name: str) -> None:
    (directory / f"{name}.py").write_text(HOSTILE)


def _origin(module: str, directory: Path, environ: dict[str, str]) -> Path:
    """The file that ``python -P`` imports a module from when it stands in ``directory``."""
    code = f"import {module}; print({module}.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=directory, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
