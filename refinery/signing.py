"""Sign what lands where the user's Git signs its commits, and only that.

A signature is another one each time, and candidates are to be the same each time; so candidates have none, and what is
tested is their tree. What lands is the candidate once more, with the same trees, parents, messages and dates, and with
signatures. Killed before main has moved, nobody knows of it and it is signed again; afterwards main says what it has.

``git commit-tree`` does not sign by itself, whatever the configuration says. The committer is the one whose key it is,
as far as Git knows who that is: forges take no signature for another one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from beads.clock import Clock
from beads.errors import Refused, Unreadable
from refinery.git import Git
from refinery.merge import Candidate

_SECONDS = 20.0
"""How long one signature may take: a key may want to be touched, but nobody may be there to do it."""

_AGAIN_SECONDS = 60.0
"""How long after a failure it is not tried again."""


@dataclass
class Signer:
    """Signs candidates that land.

    Attributes:
        git: Git in the repository, as the user has it configured.
        clock: what time it is.
    """

    git: Git
    clock: Clock
    _refusal: Refused | None = None
    _not_before: float = 0.0

    def sign(self, candidate: Candidate) -> Candidate:
        """The candidate as it is to land: with signatures where the user's Git signs commits.

        Raises:
            Refused: Git could not sign; says why and what to do.
        """
        if self.git.run("config", "--type=bool", "--get", "commit.gpgSign", ok=(0, 1)).out.strip() != "true":
            return candidate
        if self._refusal is not None and self.clock.monotonic() < self._not_before:
            raise self._refusal
        try:
            return signed(self.git, candidate)
        except Refused as error:
            self._refusal, self._not_before = error, self.clock.monotonic() + _AGAIN_SECONDS
            raise


def signed(git: Git, candidate: Candidate) -> Candidate:
    """The candidate with every commit of it signed that we made; its tree is the same.

    Raises:
        Refused: Git could not sign; says why and what to do.
    """
    # Without an identity Git asks for the key of ours, which nobody has, unless it is told which one.
    person = git.run("var", "GIT_COMMITTER_IDENT", ok=(0, 128)).out.rpartition(">")[0]
    name, _, address = person.partition(" <")
    who = {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": address} if name and address else {}
    put: dict[str, str] = {}
    for commit in (*candidate.chain, candidate.commit):
        put[commit] = _again(git, commit, put, who)
    return replace(candidate, commit=put[candidate.commit], chain=tuple(put[commit] for commit in candidate.chain))


def _again(git: Git, commit: str, put: Mapping[str, str], who: Mapping[str, str]) -> str:
    """The same commit, on what stands for its parents now, signed."""
    header, _, message = git.run("cat-file", "commit", commit).out.partition("\n\n")
    facts = [line.split(" ", 1) for line in header.split("\n")]
    extra = dict(who)
    for key, value in facts:
        if key in ("author", "committer"):
            name, _, rest = value.partition(" <")
            address, _, date = rest.partition("> ")
            own = {"NAME": name, "EMAIL": address, "DATE": f"@{date}"}
            extra = {**{f"GIT_{key.upper()}_{what}": said for what, said in own.items()}, **extra}
    parents = [word for key, value in facts if key == "parent" for word in ("-p", put.get(value, value))]
    tree = next(value for key, value in facts if key == "tree")
    try:
        args = ("-c", "i18n.commitEncoding=UTF-8", "commit-tree", "-S", tree, *parents, "-F", "-")
        return git.run(*args, stdin=message, extra=extra, timeout=_SECONDS).out.strip()
    except Unreadable as error:
        said = " ".join(error.message.rpartition("): ")[2].split()) or error.message
        remedy = "See that `git commit -S` works here without asking anybody, or set commit.gpgSign to false."
        raise Refused(f"Git signs commits here, but cannot: {said}", remedy) from error
