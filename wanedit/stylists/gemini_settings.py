"""What a user may choose about the Gemini stylist. No key stands here: keys come from the environment alone."""

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from wanedit.errors import InputError

IMAGE_SIZES = ("1K", "2K", "4K")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
GOOGLE_URL = "https://generativelanguage.googleapis.com/"


@dataclass(frozen=True)
class GeminiSettings:
    """How Gemini is called and what it may cost.

    Attributes:
        image_model: makes the pictures. Ids retire every few months; `wanedit doctor` tells.
        text_model: reads the style reference and judges results.
        image_size: "1K", "2K" or "4K": how large the model draws before the result is brought back to size.
        timeout_s: seconds that one call may take.
        attempts: tries of one call in all, while the service is overloaded or fails.
        max_wait_s: the longest pause, in seconds, that the service may ask for before the run stops instead.
        rephrase: how often an unusable answer is asked for again, in other words.
        concurrency: calls under way at one time.
        max_calls: calls in one run, retries counted; null: no cap.
        max_price: US dollars that one run may spend, by the price table; null: no cap.
        prices: per model id, dollars per million tokens `input`, `output`, `image_output`; over the built-in table.
        base_url: another endpoint, such as a proxy of your own; null: Google's.
        api_version: "v1" or "v1beta"; null: what the SDK takes.
    """

    image_model: str = "gemini-nano-banana-2.1"
    text_model: str = "gemini-3.8-flash"
    image_size: str = "1K"
    timeout_s: float = 300.0
    attempts: int = 5
    max_wait_s: float = 120.0
    rephrase: int = 1
    concurrency: int = 4
    max_calls: int | None = 200
    max_price: float | None = 5.0
    prices: dict[str, dict[str, float]] | None = None
    base_url: str | None = None
    api_version: str | None = None

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: names the field, what was got and what was expected.
        """
        for name, least in (("attempts", 1), ("rephrase", 0), ("concurrency", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        for name in ("timeout_s", "max_wait_s", "max_calls", "max_price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0")
        for name in ("image_model", "text_model"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty; expected a model id")
        if self.image_size not in IMAGE_SIZES:
            raise InputError(f"image_size is {self.image_size!r}; expected one of {', '.join(IMAGE_SIZES)}")
        _check_url(self.base_url)

    def identity(self) -> dict[str, Any]:
        """The settings that decide what comes out: part of cache keys.

        Caps, pauses, prices, `rephrase` and the way to the service decide nothing: who changes one of them to go on
        after a stop must find the answers that were paid for.
        """
        return {name: getattr(self, name) for name in ("image_model", "text_model", "image_size")}


def _check_url(url: str | None) -> None:
    """The key goes with every call, so it may leave this machine only encrypted, and never stand in the address."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        _ = parts.port  # read only when it is asked for
    except ValueError as error:
        # Without the address itself, which may hold a password.
        raise InputError(f"base_url cannot be read ({error}); expected https://host/path") from None
    if parts.username or parts.password or parts.query:
        raise InputError("base_url holds a user, a password or a query; expected https://host/path alone")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or parts.hostname not in LOOPBACK:
        raise InputError(f"base_url is {url!r}; expected https://…, or http:// on this machine")
