"""What a failed call means: the service refuses this request, or it fails for all, or only a trial request can show it.

Knows nothing of clients and threads. Services have no common error codes, so the texts of the known ones are listed.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from cache.errors import LogitbankError

# "request": this request fails however often it is sent. "service": no request gets an answer now.
Cause = Literal["request", "service", "unclear"]

CONTINUE = "then run the same command again to continue"
# 413: too long. 400, 403 and 422 can have either cause. Every other status is about the service, the key or the model.
REQUEST_STATUSES, UNCLEAR_STATUSES = (413,), (400, 403, 422)
# A later try may succeed. The clients of the services try these again themselves, if they are the status of a reply.
PASSING_STATUSES = (408, 409, 425, 429)
# Reasons for the end of a response that have nothing to do with it: OpenRouter's and DeepSeek's.
INTERRUPTED = ("error", "insufficient_system_resource")

# Texts of services that have run out of credit, or that do not have the model now, whatever the status.
_SERVICE = re.compile(
    "|".join(
        (
            r"insufficient[ _-]?(account[ _-]?)?(user[ _-]?)?(quota|balance|credit|fund)",
            r"credit balance|out of credit|no (money|credits?|quota)( is)? left|arrearage|account is overdue|余额|欠费",
            r"\bbilling\b|billing[ _](hard|soft)|exceed(s|ed)[ _](your |the )?current[ _]quota",
            r"quota[ _-]?(exceeded|exhausted|reached|limit)|(rate|usage|spend(ing)?)[ _-]?limit|too many requests",
            r"overloaded|(over|at) capacity|temporarily|try again later|under maintenance|service unavailable",
            r"(is|was|been|currently) (not|un)[ -]?(loaded|available|ready)|not loaded|no models? (is |are )?loaded",
            r"unloaded|(is|still|currently) loading|no such model",
            r"model[^.]{0,80}(does not exist|not found|not available|unavailable|decommissioned|deprecated)",
            r"api[ _-]?key[^.]{0,20}(invalid|not valid|expired|missing)|(invalid|incorrect|expired)[ _]api[ _-]?key",
            r"account[^.]{0,40}(deactivated|suspended|disabled|good standing)",
            r"(country|region|location)[^.]{0,40}not (supported|available|allowed)",
        )
    ),
    re.IGNORECASE,
)
# Services quote the request in their messages.
_QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`")


class RefusedError(Exception):
    """The service gave no answer to this one request. The message gives the reason, without the key.

    is_certain: the reason is in the request. If False, the whole service may have begun to refuse or to fail.
    """

    def __init__(self, reason: str, is_certain: bool = True) -> None:
        super().__init__(reason)
        self.is_certain = is_certain


class FormError(RefusedError):
    """An answer that does not have the form of its API. The next answers may be like it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, is_certain=False)


class ServiceFailedError(LogitbankError):
    """The service answers no request now. It ends the job. Answers that it has given before are kept.

    status: of the reply; 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def find_cause(status: int, text: str) -> Cause:
    """Find out what a failed call means. text: the error's code, type and message, as the service wrote them."""
    if status in REQUEST_STATUSES:
        return "request"
    if status not in UNCLEAR_STATUSES:
        return "service"
    return "service" if _SERVICE.search(_QUOTED.sub("", text)) else "unclear"


def error_text(body: Any) -> str:
    """The message of the error in the body of a reply; the whole body if it has none."""
    for name in ("error", "message"):
        body = body.get(name) or body if isinstance(body, Mapping) else body
    return str(body)


def error_details(body: Any) -> str:
    """All texts of an error: code, type, message. Used to find its cause, and not shown."""
    error = body.get("error") or body if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return str(error)
    return " ".join(str(error.get(name) or "") for name in ("code", "type", "status", "message", "metadata", "param"))


def embedded_error(answer: Mapping[str, Any]) -> tuple[int, Any] | None:
    """Status and body of an error that came with the status of success, as gateways send it; None if there is none.

    Also for an answer that the service interrupted. An error without a status of its own has 400, an interruption 503.
    """
    error, status, choices = answer.get("error"), 400, answer.get("choices")
    if not error and isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        choice, status = choices[0], 503
        is_interrupted = choice.get("finish_reason") in INTERRUPTED
        error = choice.get("error") or (
            f"the answer was interrupted: {choice['finish_reason']}" if is_interrupted else None
        )
    if not error:
        return None
    code = str(error.get("code")) if isinstance(error, Mapping) else ""
    return int(code) if code.isdecimal() and 400 <= int(code) < 600 else status, {"error": error}
