"""How Gemini fails. Each class says what to do; none carries a key or an answer's raw body."""

from wanedit.errors import InputError, ResourceError, ServiceError

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
