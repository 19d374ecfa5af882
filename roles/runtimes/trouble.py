"""What is wrong when an agent's program fails, by its exit and by the words that providers use for it.

The words are those of people who did not think of being read by programs, and they change. Whatever is not known here
is ``environment``: something that is neither the work nor the provider.
"""

from __future__ import annotations

import re
from datetime import datetime

from beads.model import Ending
from refinery.processes import Exit
from roles.events import Ended
from roles.runtimes.until import until

TEXT_MAX = 500
"""Characters that are kept of what a program says is wrong."""

_LOOKED_AT = 20_000

_CONTEXT = """
prompt is too long
input is too long for requested model
context.{0,20}length.{0,20}exceed
context.?window.?exceeded
model_context_window_exceeded
exceed\\w*.{0,40}context (window|limit|size|length)
maximum context length
maximum number of tokens allowed
exceeds the available context size
context (window )?(is full|limit reached|overflow)
has hit a token limit
ran out of room in the model.s context
reduce the length of (the|your) (messages|prompt|input)
conversation is too long
request too large for model
input token count.{0,40}exceeds
total tokens.{0,40}exceed
"""

_SIGN_IN = """
(invalid|incorrect|missing|no|unset|malformed|expired|revoked|deactivated|wrong).{0,12}(api.?key|x-api-key|auth|token)
api.?key.{0,40}(not valid|invalid|missing|not (set|found|provided|configured)|required|expired|disabled|revoked)
(authentication|permission)_error
authentication.{0,20}(failed|required|error)
(not|are not|aren't) (logged|signed) in
please (run /login|log ?in|sign in|re-?authenticate|set an auth method)
oauth token (has |is )?(been )?(expired|revoked|invalid)
unauthorized
forbidden
PERMISSION_DENIED|UNAUTHENTICATED
does not have access to
must specify the .* environment variable
could not resolve authentication
no authentication information found
"""

_MODEL = """
model.{0,80}(not found|does not exist|not supported|is not available|unknown|not_found)
(unknown|invalid|unsupported|unrecognized) model
no such model
provider not found
providermodelnotfound
not_found_error
"""

_QUOTA = """
(rate|usage|request|session|weekly|opus|spend\\w*|plan|daily|monthly|hour)[ _]?limits?[ _]?(has been |have been |is )?\
(reached|exceeded|hit|error)
rate.?limit
(hit|reached|exceeded) (your|the|its|a) .{0,30}(limit|quota|allowance)
too many requests
insufficient[_ ](quota|credits|balance|funds)
exceeded your .{0,30}quota
quota.{0,20}(exceeded|exhausted|reached|will reset)
resource.?(has been )?exhausted
exhausted your (capacity|.{0,20}quota)
credit balance is too low
out of (credits|extra usage|usage)
payment required
billing hard limit
throttl(ed|ing)
extra usage is required
"""

_UNAVAILABLE = """
overloaded
over capacity|at capacity|capacity constraints
high demand
service (is )?(temporarily )?unavailable
temporarily unavailable
server (is )?(busy|overloaded)
internal.?server.?error
(bad|unknown) gateway
gateway time-?out
server_error|api_error
UNAVAILABLE
connection (was )?(refused|reset|closed|error|aborted|timed out|lost)
connectionrefused|apiconnectionerror|connecterror
(unable|failed|could not|cannot|can't) to? ?(connect|reach)
E(CONN(REFUSED|RESET|ABORTED)|TIMEDOUT|NOTFOUND|AI_AGAIN|HOSTUNREACH|NETUNREACH|PIPE)
getaddrinfo
(temporary failure in )?name resolution
could not resolve host
no such host
network (is unreachable|error)
fetch failed
socket hang up
(request|read|connect\\w*|operation) time(d |-)?out
stream (disconnected|closed) before completion
error sending request
"""

_LIMITS = """
(reached|exceeded|hit).{0,20}max\\w*.{0,20}(turns|steps|iterations|session turns)
(max_turns|max_budget|step_?limit|cost_?limit|limits_?exceeded)
maximum (session )?(turns|cost|budget)
budget (has been )?(exceeded|exhausted|reached)
"""

_GONE = """
no conversation found
(session|thread|conversation|chat|rollout).{0,100}(not found|does not exist|no longer exists|could not be found)
no (saved |recorded |rollout |matching )?(session|thread|rollout|conversation).{0,60}(found|with|matches|matched)
(invalid|unknown) (session|thread)( id(entifier)?)?
error resuming session
"""


def _any(lines: str) -> re.Pattern[str]:
    return re.compile("|".join(lines.strip().splitlines()), re.IGNORECASE)


_KINDS: tuple[tuple[Ending, re.Pattern[str]], ...] = (
    ("context_exhausted", _any(_CONTEXT)),
    ("quota", _any(_QUOTA)),
    ("environment", _any(_SIGN_IN)),
    ("environment", _any(_MODEL)),
    ("provider_unavailable", _any(_UNAVAILABLE)),
    ("limits", _any(_LIMITS)),
)

_LOST = _any(_GONE)

# A number alone is nothing: files have lines and tests have counts.
_STATUS = re.compile(
    r"(?:status(?:[ _-]?code)?|http(?:/[\d.]+)?|api error|code|error)[\"']?\s*[:=]?\s*\(?\[?(\d{3})\b"
    r"|\b(\d{3}) (?:status code|\{)",
    re.IGNORECASE,
)
_CODES: dict[int, Ending] = {
    401: "environment",
    402: "quota",
    403: "environment",
    404: "environment",
    413: "context_exhausted",
    429: "quota",
}


def ending_of(exit: Exit) -> Ending:
    """How a process ended that said nothing of it itself."""
    match exit.kind:
        case "timeout":
            return "limits"
        case "unrunnable":
            return "environment"
        case "cancelled" | "signalled":
            return "cancelled"
        case "exited":
            return "finished"


def known(said: str, now: datetime, status: int | None = None) -> Ended | None:
    """What is wrong, by what a program says of it, with until when to wait; None when that says nothing known.

    Args:
        said: its words, such as an error message or what it wrote to standard error.
        now: what times in it without a date are counted from.
        status: the HTTP status that the provider answered with, where that is told.
    """
    looked = said[-_LOOKED_AT:]
    ending = next((kind for kind, words in _KINDS if words.search(looked)), None)
    codes = [status] if status else [int(a or b) for a, b in _STATUS.findall(looked)]
    by_code = next((found for code in codes if (found := _of_status(code))), None)
    # What was overloaded is no longer a matter of its words, and neither is a limit of theirs.
    if ending is None or (status and by_code in ("quota", "provider_unavailable")):
        ending = ending if ending == "context_exhausted" else by_code or ending
    if ending is None:
        return None
    when = until(looked, now) if ending in ("quota", "provider_unavailable") else None
    return Ended(ending, shortened(said), when)


def failed(said: str, now: datetime, status: int | None = None) -> Ended:
    """What is wrong with a program that says that it failed."""
    return known(said, now, status) or Ended("environment", shortened(said))


def after(exit: Exit, words: str, now: datetime, said: str = "") -> Ended:
    """How a program ended that did not say so: by its exit status, and where that is bad, by its last words.

    Args:
        exit: how its process ended.
        words: what it wrote besides what it was asked to.
        now: when it was started.
        said: what the agent said last.
    """
    ending = ending_of(exit)
    if ending == "finished" and exit.code != 0:
        return failed(words or said, now)
    return Ended(ending, shortened(words) if ending == "environment" else said)


def gone(said: str) -> bool:
    """Whether a program says that the conversation it was to go on with is not there."""
    return bool(_LOST.search(said[-_LOOKED_AT:]))


def shortened(said: str) -> str:
    """The end of what was said, where programs say what was the matter."""
    line = said.strip()
    return line if len(line) <= TEXT_MAX else f"…{line[-TEXT_MAX:]}"


def _of_status(code: int) -> Ending | None:
    return _CODES.get(code) or ("provider_unavailable" if code in (408, 409, 425) or 500 <= code < 600 else None)
