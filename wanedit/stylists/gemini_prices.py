"""What calls cost. Prices change: the table is configuration (`prices` in the settings), with date and source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wanedit.errors import InputError
from wanedit.stylists.gemini_settings import GeminiSettings

MILLION = 1_000_000
PRICES_OF = "2026-11-21"
SOURCE = "https://ai.google.dev/gemini-api/docs/pricing, as quoted by LiteLLM (discussions 44983 and 39357)"

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


def _given(model: str, values: Any) -> Price:
    kinds = set(values) if isinstance(values, Mapping) else set()
    whole = {"input", "output"} <= kinds <= set(Price.__dataclass_fields__)
    if not whole or not all(map(_is_price, values.values())):
        raise InputError(
            f"prices of {model}: {values!r}; expected input, output, image_output, each a number of at least 0"
        )
    return Price(**values)


def _is_price(value: object) -> bool:
    """A finite number of at least 0; under a nan no cap would ever be passed."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def expected_cost(price: Price, pictures: int, image_size: str | None) -> float:
    """Dollars of a call before it is made: `pictures` go in; one of `image_size` comes out, or words only."""
    tokens = (TEXT_TOKENS_IN + pictures * IMAGE_TOKENS_IN) * price.input + TEXT_TOKENS_OUT * price.output
    if image_size is not None:
        tokens += IMAGE_TOKENS_OUT[image_size] * price.image_output
    return tokens / MILLION


def usage_of(metadata: Any) -> dict[str, int]:
    """Tokens that an answer says it used: input, output (with thinking), image_output, total."""
    by_kind = getattr(metadata, "candidates_tokens_details", None) or []
    image = sum(
        part.token_count or 0 for part in by_kind if str(getattr(part.modality, "value", "")) == "IMAGE"
    )
    candidates = getattr(metadata, "candidates_token_count", None) or 0
    thoughts = getattr(metadata, "thoughts_token_count", None) or 0
    return {
        "input": getattr(metadata, "prompt_token_count", None) or 0,
        "output": max(0, candidates - image) + thoughts,
        "image_output": image,
        "total": getattr(metadata, "total_token_count", None) or 0,
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
