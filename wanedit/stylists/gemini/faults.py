"""How Gemini fails: what a failed call means, whether to try again and after how long, and what to tell the user.

google-genai 3.4 reads no RetryInfo, and repeats a call after a lost connection unless it is given retry options
(`_api_client.py`, `_async_request_once`); so its own retries are off and these rules are the only ones. No error here
carries a key or an answer's raw body.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wanedit.errors import InputError, ResourceError, ServiceError

if TYPE_CHECKING:
    from google.genai import errors

RESUME = "What is done is kept: run the same command again to go on"


class MissingKeyError(InputError):
    """No key in the environment. Exit code 2."""


class BudgetExceededError(ResourceError):
    """The next call would pass the cap on calls or price. Raised before the call. Exit code 4."""


class RateLimitedError(ServiceError):
    """HTTP 429 to the last attempt, or with a longer pause than allowed. Resumable."""


class UnavailableError(ServiceError):
    """HTTP 5xx, a lost connection or an answer that is not JSON, to the last attempt. Resumable."""


class TimedOutError(ServiceError):
    """No answer in time, twice. Both calls may be billed. Resumable."""


class RefusedRequestError(ServiceError):
    """HTTP 4xx: the same request would be refused again. Never retried."""


class KeyRejectedError(RefusedRequestError):
    """The key is wrong, revoked, or may not do this."""


class ModelGoneError(RefusedRequestError):
    """HTTP 404: no such model for this key."""


class UnusableAnswerError(ServiceError):
    """The service answered, and the answer cannot be used. `hint` is what the next prompt is told."""

    hint = ""


class BlockedPromptError(UnusableAnswerError):
    """The prompt was blocked before anything was made (HTTP 200 with a block reason)."""


class BlockedImageError(UnusableAnswerError):
    """The service made a picture and withheld it (IMAGE_SAFETY, PROHIBITED_CONTENT, RECITATION …)."""


class NoImageError(UnusableAnswerError):
    """The answer holds no picture: NO_IMAGE, or words only."""

    hint = "Answer with the picture itself, not with words about it."


class WrongImageError(UnusableAnswerError):
    """The picture cannot be decoded, or has another shape than was asked for."""

    hint = "Keep the exact framing and aspect ratio of the first picture."


class UnchangedError(UnusableAnswerError):
    """The picture is the source again."""

    hint = (
        "The last attempt gave the picture back unchanged. The style must be plain to see everywhere in it."
    )


class SchemaError(UnusableAnswerError):
    """A structured answer does not fit its schema; it counts as a failure, never as a pass."""


FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
MAX_TIMEOUTS = 2
SHOWN = 300
BILLED = "a call that timed out may be billed"

Uniform = Callable[[float, float], float]


@dataclass(frozen=True)
class Failure:
    """One failed call.

    Attributes:
        kind: rate, server, connection, body, timeout, or refused.
        text: what happened, in one short line.
        code: the HTTP status; None where there was no answer.
        pause: seconds that the service asked to wait; None if it said nothing.
        daily: a quota of the day is used up, so that waiting is of no use.
        key_fault: the service blames the key.
    """

    kind: str
    text: str
    code: int | None = None
    pause: float | None = None
    daily: bool = False
    key_fault: bool = False


def classify(error: Exception, timeout_s: float, hide: Callable[[str], str]) -> Failure | None:
    """What an exception of the SDK or its transport means; None for one that is no fault of the service.

    `hide` takes the key out of the service's words, before they are shortened: Google's own 403 for a suspended
    key quotes it.
    """
    from google.genai import errors
    from pydantic import ValidationError

    # TimeoutError is an OSError, and each transport has its own: they are asked for first.
    if isinstance(error, (asyncio.TimeoutError, *_of_transports("TimeoutException"))):
        return Failure("timeout", f"no answer within {timeout_s:g} s")
    if isinstance(error, errors.APIError):
        return _from_status(error, hide)
    if isinstance(
        error, (errors.UnknownApiResponseError, json.JSONDecodeError, ValidationError, UnicodeDecodeError)
    ):
        return Failure("body", "the answer is not the JSON that was expected (a proxy's page?)")
    if isinstance(error, (OSError, *_of_transports("TransportError", "ClientError"))):
        return Failure("connection", f"the connection failed ({type(error).__name__})")
    return None


def _of_transports(*names: str) -> tuple[type[BaseException], ...]:
    """Exception classes of these names in whichever HTTP library the SDK uses here."""
    import importlib
    import importlib.util

    found = []
    for library in ("aiohttp", "httpx", "httpx2"):
        if importlib.util.find_spec(library):
            module = importlib.import_module(library)
            found += [getattr(module, name) for name in names if hasattr(module, name)]
    return tuple(found)


def _from_status(error: "errors.APIError", hide: Callable[[str], str]) -> Failure:
    code, body = error.code, error.details
    # The `error.details` list of the body, whatever shape that has.
    inner = body.get("error", body) if isinstance(body, dict) else {}
    listed = inner.get("details", []) if isinstance(inner, dict) else []
    details = [part for part in listed if isinstance(part, dict)] if isinstance(listed, list) else []
    said = " ".join(hide(str(error.message or "")).split())
    if re.match(r"<(!doctype|html)", said, re.IGNORECASE):
        said = "an HTML page"
    text = f"HTTP {code} {error.status or ''}: {said if len(said) <= SHOWN else said[:SHOWN] + '…'}"
    if code == 429:
        # A google.rpc.QuotaFailure names a quota per day while its RetryInfo still says seconds.
        quotas = [one for part in details for one in part.get("violations") or [] if isinstance(one, dict)]
        daily = any("perday" in str(quota.get("quotaId", "")).lower() for quota in quotas)
        return Failure("rate", text, code, _pause(error, details), daily)
    if code == 504:
        return Failure("timeout", text, code)
    if code == 408 or code >= 500:
        return Failure("server", text, code, _pause(error, details))
    reasons = {str(part.get("reason")) for part in details}
    key_fault = code in (401, 403) or "API_KEY_INVALID" in reasons or "API key" in str(error.message)
    return Failure("refused", text, code, key_fault=key_fault)


def _pause(error: "errors.APIError", details: list[dict[str, object]]) -> float | None:
    """Seconds of google.rpc.RetryInfo, else of the Retry-After header."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    for part in details:
        if str(part.get("@type", "")).endswith("google.rpc.RetryInfo"):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(part.get("retryDelay", "")))
            if match:
                return float(match[1])
    headers = getattr(error.response, "headers", None) or {}
    # Retry-After is a number of seconds, or a date.
    value = headers.get("Retry-After")
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def wait_before(attempt: int, failure: Failure, uniform: Uniform) -> float:
    """Seconds before the next try, after `attempt` tries.

    Full jitter over an exponential bound; never earlier than the service asked, with the jitter on top, so that
    calls refused together do not come back together.
    """
    bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
    return (failure.pause or 0.0) + uniform(0.0, bound)


def final_error(
    failure: Failure, attempt: int, timeouts: int, attempts: int, max_wait_s: float
) -> ServiceError | None:
    """The error to stop with after `attempt` tries, `timeouts` of them without an answer; None: try again."""
    if failure.kind == "refused":
        return _refusal(failure)
    tries = f"{attempt} {'try' if attempt == 1 else 'tries'}"
    if failure.kind == "timeout":
        over = timeouts >= MAX_TIMEOUTS or attempt >= attempts
        return TimedOutError(f"Gemini: {failure.text}, {tries}; {BILLED}. {RESUME}") if over else None
    if failure.daily:
        return RateLimitedError(
            f"Gemini: the quota of the day is used up ({failure.text}). {RESUME} tomorrow"
        )
    if failure.pause is not None and failure.pause > max_wait_s:
        kind = RateLimitedError if failure.kind == "rate" else UnavailableError
        return kind(
            f"Gemini asks to wait {failure.pause:g} s, max_wait_s is {max_wait_s:g} ({failure.text}). {RESUME} then"
        )
    if attempt < attempts:
        return None
    kind = RateLimitedError if failure.kind == "rate" else UnavailableError
    return kind(f"Gemini: {failure.text}, after {tries}. {RESUME} later")


def _refusal(failure: Failure) -> ServiceError:
    """The advice for a request that would be refused again."""
    if failure.key_fault:
        return KeyRejectedError(
            f"Gemini rejects the key ({failure.text}). Check it at https://aistudio.google.com/apikey: whether it "
            "is whole, not revoked, and its project may use this model; then `wanedit doctor --gemini`"
        )
    if failure.code == 404:
        return ModelGoneError(
            f"Gemini does not know the model ({failure.text}). Ids retire every few months: `wanedit doctor "
            "--gemini` lists those that your key can use"
        )
    return RefusedRequestError(
        f"Gemini refuses the request ({failure.text}); the same request would be refused again. Check the model, "
        "its image_size, and whether billing is on for the key's project; if a field is unknown to the service, try "
        "api_version: v1beta"
    )
