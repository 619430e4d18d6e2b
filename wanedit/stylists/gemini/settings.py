"""What a user may choose about the Gemini stylist, what it costs, and its key, which stands in the environment alone.

Prices change: the table is configuration (`prices`); its values are of https://ai.google.dev/gemini-api/docs/pricing
on 2026-11-21, as quoted by LiteLLM (discussions 44983 and 39357).
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wanedit.errors import InputError
from wanedit.stylists.gemini.faults import RESUME, BudgetExceededError, MissingKeyError

if TYPE_CHECKING:
    from google.genai import types

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
        if self.base_url is not None:
            _check_url(self.base_url)

    def identity(self) -> dict[str, object]:
        """The settings that decide what comes out: part of cache keys.

        Caps, pauses, prices, `rephrase` and the way to the service decide nothing: who changes one of them to go on
        after a stop must find the answers that were paid for.
        """
        return {name: getattr(self, name) for name in ("image_model", "text_model", "image_size")}


def _check_url(url: str) -> None:
    """The key goes with every call, so it may leave this machine only encrypted, and never stand in the address."""
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


VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
HIDDEN = "[key hidden]"
HOW_TO_GET = (
    "get one at https://aistudio.google.com/apikey and put it into the environment: export GEMINI_API_KEY=…"
)


@dataclass(frozen=True)
class Key:
    """A key and the variable it came from; its text shows in no repr, and pickling it is refused."""

    variable: str
    secret: str = field(repr=False, compare=False)
    ignored: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Which variable is used, and which was set and is not."""
        also = f" ({' and '.join(self.ignored)} is set too, and not used)" if self.ignored else ""
        return f"key from {self.variable}{also}"

    def hide(self, text: str) -> str:
        """`text` without the key, whoever repeated it."""
        return text.replace(self.secret, HIDDEN)

    def __reduce__(self):
        raise TypeError("a key is not written anywhere")


def find_key() -> Key:
    """The key of this process; GOOGLE_API_KEY wins, as in Google's own client.

    Raises:
        MissingKeyError: neither variable holds one.
        InputError: what it holds cannot be a key; names the variable, never the text.
    """
    found = [(name, os.environ.get(name, "").strip()) for name in VARIABLES]
    found = [(name, secret) for name, secret in found if secret]
    if not found:
        raise MissingKeyError(f"no Gemini key: neither {' nor '.join(VARIABLES)} is set; {HOW_TO_GET}")
    (variable, secret), *others = found
    # It must fit into an HTTP header, and stand in JSON as it is, so that `hide` finds it there.
    if not (secret.isascii() and secret.isprintable()) or set(secret) & set(" \"'\\"):
        raise InputError(
            f"{variable} holds {len(secret)} characters that are no key; expected letters, digits and signs of ASCII, "
            f"without spaces, line breaks, quotes and backslashes; {HOW_TO_GET}"
        )
    return Key(variable, secret, tuple(name for name, _ in others))


MILLION = 1_000_000

# Tokens of one picture: as input at the default resolution, and as output at each size.
IMAGE_TOKENS_IN = 1120
IMAGE_TOKENS_OUT = {"1K": 1120, "2K": 1680, "4K": 2520}
TEXT_TOKENS_IN = 900
TEXT_TOKENS_OUT = 1500  # thinking counts as output


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    image_output: float = 0.0


# gemini-3.8-flash is half of this until 2026-12-31; a cap must not rest on a discount that ends.
PRICES = {
    "gemini-nano-banana-2.1": Price(1.50, 7.50, 30.0),
    "gemini-3.8-flash": Price(1.50, 7.50),
}


def price_of(model: str, settings: GeminiSettings) -> Price:
    """The price of a model: the user's, the table's, or that of the dearest model of the table.

    Raises:
        InputError: unknown model under a price cap, which could not be kept; or a malformed price.
    """
    name = model.removeprefix("models/")
    given = (settings.prices or {}).get(name)
    if given is not None:
        return _given(name, given)
    if name in PRICES:
        return PRICES[name]
    if settings.max_price is not None:
        raise InputError(
            f"no price is known for {name} (known: {', '.join(PRICES)}), so max_price cannot be kept; give "
            'prices: {"' + name + '": {"input": …, "output": …, "image_output": …}} in dollars per million '
            "tokens, or max_price: null"
        )
    return max(PRICES.values(), key=lambda price: price.image_output)


def check_prices(settings: GeminiSettings) -> None:
    """Refuse prices under which a cap could not be kept.

    Raises:
        InputError: a malformed price, none for a model under a cap, or an image model whose pictures would be free.
    """
    for name, values in (settings.prices or {}).items():
        _given(name, values)
    price_of(settings.text_model, settings)
    price_of(settings.image_model, settings)
    given = (settings.prices or {}).get(settings.image_model.removeprefix("models/"))
    if given is not None and "image_output" not in given:
        raise InputError(
            f"prices of {settings.image_model}: {given}; expected image_output too: it makes pictures"
        )


def _given(model: str, values: object) -> Price:
    if isinstance(values, Mapping) and {"input", "output"} <= set(values) <= set(Price.__dataclass_fields__):
        numbers = [v for v in values.values() if isinstance(v, int | float) and not isinstance(v, bool)]
        # Finite: under a nan no cap would ever be passed.
        if len(numbers) == len(values) and all(0 <= number < math.inf for number in numbers):
            return Price(**values)
    raise InputError(
        f"prices of {model}: {values!r}; expected input, output, image_output, each a number of at least 0"
    )


def expected_cost(price: Price, pictures: int, image_size: str | None) -> float:
    """Dollars of a call before it is made: `pictures` go in; one of `image_size` comes out, or words only."""
    tokens = (TEXT_TOKENS_IN + pictures * IMAGE_TOKENS_IN) * price.input + TEXT_TOKENS_OUT * price.output
    if image_size is not None:
        tokens += IMAGE_TOKENS_OUT[image_size] * price.image_output
    return tokens / MILLION


def usage_of(metadata: "types.GenerateContentResponseUsageMetadata | None") -> dict[str, int]:
    """Tokens that an answer says it used: input, output (with thinking), image_output, total."""

    def count(name: str) -> int:
        return getattr(metadata, name, None) or 0

    by_kind = getattr(metadata, "candidates_tokens_details", None) or []
    image = sum(
        part.token_count or 0 for part in by_kind if str(getattr(part.modality, "value", "")) == "IMAGE"
    )
    return {
        "input": count("prompt_token_count"),
        "output": max(0, count("candidates_token_count") - image) + count("thoughts_token_count"),
        "image_output": image,
        "total": count("total_token_count"),
    }


def cost(price: Price, usage: Mapping[str, int], expected: float, makes_image: bool) -> float:
    """Dollars of an answered call; what was expected, where the answer does not say what it used."""
    if usage["total"] == 0:
        return expected
    # An answer that does not split its output by kind: all of it counts as the dearer kind.
    output, image = usage["output"], usage["image_output"]
    if makes_image and image == 0:
        output, image = 0, output
    return (usage["input"] * price.input + output * price.output + image * price.image_output) / MILLION


@dataclass
class Budget:
    """Counts what was spent and what is reserved for calls under way.

    Attributes:
        max_calls, max_price: the caps; None for none.
        calls: requests sent, retries counted.
        spent: dollars of answered calls, and of calls that may be billed though no answer came.
        reserved: dollars set aside for calls under way.
    """

    max_calls: int | None
    max_price: float | None
    calls: int = 0
    spent: float = 0.0
    reserved: float = 0.0

    def reserve(self, dollars: float) -> None:
        """Count one call and set its expected price aside.

        Raises:
            BudgetExceededError: it would pass a cap; nothing is counted then.
        """
        if self.max_calls is not None and self.calls + 1 > self.max_calls:
            raise BudgetExceededError(
                f"stopped before call {self.calls + 1}: max_calls is {self.max_calls}. {RESUME}"
            )
        if self.max_price is not None and self.spent + self.reserved + dollars > self.max_price:
            raise BudgetExceededError(
                f"stopped before call {self.calls + 1}: ${self.spent + self.reserved:.4f} spent or under way and "
                f"${dollars:.4f} expected for it would pass max_price ${self.max_price:g}. {RESUME}"
            )
        self.calls += 1
        self.reserved += dollars

    def settle(self, reserved: float, actual: float) -> None:
        """Replace a reservation by what the call cost; 0 for one that failed unbilled."""
        self.reserved = max(0.0, self.reserved - reserved)
        self.spent += actual
