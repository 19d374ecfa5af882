"""A forge of one directory, and the two programs that people talk to one with, as far as we use them.

Called as ``gh`` or ``glab`` in a clone, it finds its bare repository through ``origin`` and keeps what was opened
beside it. It is as strict as they are: an option that they do not know is an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def git(place: Path, *args: str) -> str:
    """Run Git there; what it says."""
    done = subprocess.run(["git", "-C", str(place), *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Forge:
    """What a bare repository and the file beside it say."""

    def __init__(self, hub: Path) -> None:
        self.hub = hub
        self._file = hub / "forge.json"
        self.requests: list[dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else []

    def save(self) -> None:
        """Keep it."""
        self._file.write_text(json.dumps(self.requests))

    def head(self, branch: str) -> str:
        """Where a branch is; empty when it is not."""
        return git(self.hub, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def open(self, branch: str, base: str, title: str, body: str) -> str:
        """Open one; where it is to be seen."""
        if not self.head(branch):
            sys.exit(f"pull request create failed: No commits between {base} and {branch}")
        if any(one["branch"] == branch and one["state"] == "open" for one in self.requests):
            sys.exit(f'a pull request for branch "{branch}" into branch "{base}" already exists')
        number = len(self.requests) + 1
        new = {"number": number, "branch": branch, "base": base, "title": title, "body": body, "state": "open"}
        self.requests.append({**new, "head": "", "merged": None, "squashed": None})
        self.save()
        return self.url(number)

    def url(self, number: int) -> str:
        """Where a person would look at it."""
        return f"https://forge.invalid/our/project/{number}"

    def find(self, branch: str, base: str) -> list[dict[str, Any]]:
        """Those of a branch, newest first."""
        found = [one for one in self.requests[::-1] if (one["branch"], one["base"]) == (branch, base)]
        return [{**one, "head": one["head"] or self.head(branch)} for one in found]

    def close(self, number: int, how: str) -> None:
        """End one as a person would: ``merge`` it, ``squash`` it, or ``decline`` it."""
        one = self.requests[number - 1]
        head, base = self.head(one["branch"]), one["base"]
        one |= {"head": head, "state": "closed" if how == "decline" else "merged"}
        if how != "decline":
            tree = git(self.hub, "merge-tree", "--write-tree", base, head)
            parents = ["-p", base] + (["-p", head] if how == "merge" else [])
            who = ["-c", "user.name=Forge", "-c", "user.email=forge@example.org"]
            commit = git(self.hub, *who, "commit-tree", tree, *parents, "-m", f"{one['title']} (#{number})")
            git(self.hub, "update-ref", f"refs/heads/{base}", commit)
            one["merged" if how == "merge" else "squashed"] = commit
        git(self.hub, "update-ref", "-d", f"refs/heads/{one['branch']}")
        self.save()


def gh(forge: Forge, args: list[str]) -> None:
    """``gh pr list`` and ``gh pr create``."""
    if not (forge.hub / "logged-in").exists():
        sys.stderr.write("To get started with GitHub CLI, please run:  gh auth login\n")
        sys.exit(4)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--repo", "--head", "--base", "--state", "--limit", "--json", "--title", "--body-file"):
        parser.add_argument(option)
    given = parser.parse_args(args[2:])
    if args[:2] == ["pr", "create"]:
        assert given.body_file == "-"
        sys.stdout.write(forge.open(given.head, given.base, given.title, sys.stdin.read()))
        return
    assert args[:2] == ["pr", "list"]
    assert given.state == "all"
    found = []
    for one in forge.find(given.head, given.base):
        commit = one["merged"] or one["squashed"]
        facts = {
            "number": one["number"],
            "url": forge.url(one["number"]),
            "state": one["state"].upper(),
            "headRefOid": one["head"],
            "mergeCommit": {"oid": commit} if commit else None,
        }
        found.append({name: facts[name] for name in given.json.split(",")})
    json.dump(found, sys.stdout)


def glab(forge: Forge, args: list[str]) -> None:
    """``glab mr list`` and ``glab mr create``."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in (
        "--repo",
        "--source-branch",
        "--target-branch",
        "--output",
        "--per-page",
        "--title",
        "--description",
    ):
        parser.add_argument(option)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--yes", action="store_true")
    given = parser.parse_args(args[2:])
    if args[:2] == ["mr", "create"]:
        assert given.yes
        sys.stdout.write(forge.open(given.source_branch, given.target_branch, given.title, given.description))
        return
    assert args[:2] == ["mr", "list"]
    assert given.all
    found = [
        {
            "iid": one["number"],
            "web_url": forge.url(one["number"]),
            "state": "opened" if one["state"] == "open" else one["state"],
            "sha": one["head"],
            "merge_commit_sha": one["merged"],
            "squash_commit_sha": one["squashed"],
        }
        for one in forge.find(given.source_branch, given.target_branch)
    ]
    json.dump(found, sys.stdout)


def install(place: Path) -> Path:
    """Make both programs in a directory; the directory."""
    place.mkdir()
    for name in ("gh", "glab"):
        path = place / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" {name} "$@"\n')
        path.chmod(0o755)
    return place


def main() -> None:
    """Be one of the programs."""
    name, *args = sys.argv[1:]
    where = Path(git(Path.cwd(), "remote", "get-url", "origin"))
    forge = Forge(Path.cwd() / where)
    gh(forge, args) if name == "gh" else glab(forge, args)


if __name__ == "__main__":
    main()
