"""The forge's own command line: open a request there, and see what became of it. Words and answers only; pure.

``gh`` and ``glab`` know where the forge is and who we are: from their own configuration, or from variables such as
``GH_TOKEN`` and ``GITLAB_TOKEN``. No secret is ever an argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from beads.errors import Unreadable
from beads.model import Bead

Name = Literal["github", "gitlab"]

TITLE_MAX = 200
BODY_MAX = 60_000
"""Characters; GitHub takes 65,536, and one argument of a process may have twice that in bytes."""

_LISTED_MAX = "50"


class Seen(NamedTuple):
    """A request on the forge.

    Attributes:
        number: what it is called there.
        url: where a person finds it.
        state: whether it is still to be merged, was merged, or was closed without that.
        head: the commit that it asks for, by the last push.
        merged: the commit that main got for it; empty where it got none of its own.
    """

    number: int
    url: str
    state: Literal["open", "merged", "closed"]
    head: str
    merged: str


@dataclass(frozen=True)
class Forge:
    """One kind of forge.

    Attributes:
        program: its command line.
        install: where one gets it.
        login: what a person types to be known to it.
        quiet: variables that keep it from asking and from looking for newer versions of itself.
    """

    name: Name
    program: str
    install: str
    login: str
    quiet: Mapping[str, str]

    def seek(self, where: str, branch: str, base: str) -> list[str]:
        """The command that lists what there is of a branch, merged and closed ones too."""
        if self.name == "github":
            fields = "number,url,state,headRefOid,mergeCommit"
            args = ["--head", branch, "--base", base, "--state", "all", "--limit", _LISTED_MAX, "--json", fields]
            return [self.program, "pr", "list", *self._repository(where), *args]
        args = ["--source-branch", branch, "--target-branch", base, "--all", "--per-page", _LISTED_MAX]
        return [self.program, "mr", "list", *self._repository(where), *args, "--output", "json"]

    def open(self, where: str, branch: str, base: str, title: str, body: str) -> tuple[list[str], str]:
        """The command that opens one, and what it reads."""
        title, body = title[:TITLE_MAX], body[:BODY_MAX]
        if self.name == "github":
            args = ["--head", branch, "--base", base, "--title", title, "--body-file", "-"]
            return [self.program, "pr", "create", *self._repository(where), *args], body
        args = ["--source-branch", branch, "--target-branch", base, "--title", title, "--description", body, "--yes"]
        return [self.program, "mr", "create", *self._repository(where), *args], ""

    def read(self, output: str) -> list[Seen]:
        """What :meth:`seek` found, newest first.

        Raises:
            Unreadable: it is no list of requests.
        """
        line = next((line for line in output.splitlines() if line.startswith("[")), "")
        try:
            found = [self._seen(item) for item in json.loads(line)] if line else []
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"{self.program} lists what is no list of requests: {line[:200]!r}") from error
        if not line and output.strip() and not re.search("no (open )?(pull|merge) requests", output, re.IGNORECASE):
            raise Unreadable(f"{self.program} lists what is no list of requests: {output.strip()[:200]!r}")
        return sorted(found, key=lambda seen: -seen.number)

    def _repository(self, where: str) -> Sequence[str]:
        """Which one is meant. Where there is no name for it, the program finds it by the clone it runs in."""
        # Groups of GitLab's have groups, so that only a whole address says what is the host.
        return ("--repo", where if self.name == "github" else f"https://{where}") if where else ()

    def _seen(self, item: Mapping[str, object]) -> Seen:
        if self.name == "github":
            states: Mapping[object, Literal["open", "merged", "closed"]] = {"OPEN": "open", "MERGED": "merged"}
            merged = item["mergeCommit"]
            commit = str(merged.get("oid", "")) if isinstance(merged, dict) else ""
            facts = item["number"], item["url"], item["headRefOid"]
            state = states.get(item["state"], "closed")
        else:
            states = {"opened": "open", "locked": "open", "merged": "merged"}
            # With neither, main was moved to the head itself.
            commit = str(item.get("merge_commit_sha") or item.get("squash_commit_sha") or "")
            facts = item["iid"], item["web_url"], item["sha"]
            state = states.get(item["state"], "closed")
        number, url, head = facts
        return Seen(int(str(number)), str(url), state, str(head or ""), commit)


FORGES: Mapping[Name, Forge] = {
    "github": Forge(
        "github",
        "gh",
        "https://cli.github.com",
        "gh auth login",
        {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"},
    ),
    "gitlab": Forge(
        "gitlab",
        "glab",
        "https://gitlab.com/gitlab-org/cli",
        "glab auth login",
        {"NO_PROMPT": "1", "GLAB_CHECK_UPDATE": "false", "NO_COLOR": "1"},
    ),
}


def place_of(url: str) -> str:
    """``HOST/OWNER/NAME`` of a remote's URL; empty where it has none, as a path on this machine."""
    found = re.fullmatch(r"(?:https?|ssh|git)://(?:[^/@]*@)?([^/:]+)(?::\d+)?/(.+?)(?:\.git)?/?", url) or re.fullmatch(
        r"(?:[^/@:]+@)?([A-Za-z0-9.-]+):([^/].*?)(?:\.git)?/?", url
    )
    return f"{found[1]}/{found[2]}" if found and "/" in found[2] else ""


def body_of(molecule: Bead, steps: Sequence[Bead], request: Bead) -> str:
    """What a request says: the goal, what was promised, and what was proven.

    Args:
        molecule: whose work it is.
        steps: the steps of it.
        request: the merge request, which has the gate's verdicts.
    """
    promised = [str(criterion) for step in steps for criterion in step.criteria]
    proven = [e for step in steps for e in step.evidence if e.verdict == "pass"]
    gate = [e for e in request.evidence if e.gate and e.verdict == "pass"]
    parts = [molecule.description.strip() or molecule.title]
    if promised:
        parts.append("## Promised\n\n" + "\n".join(f"- {_code(text)}" for text in dict.fromkeys(promised)))
    if proven or gate:
        lines = [f"- {_code(e.subject)}: {e.detail or e.verdict}, on tree {e.tree[:12]}" for e in (*proven, *gate)]
        parts.append("## Proven\n\n" + "\n".join(dict.fromkeys(lines)))
    return "\n\n".join([*parts, f"Bead: {molecule.id}\nMerge-Request: {request.id}"]) + "\n"


def _code(text: str) -> str:
    """A text as code, in one line, whatever it has in it: it calls nobody's name and makes no link."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"
