"""Which Gemini models a key can use, and what has become of the configured ones."""

import difflib
from dataclasses import dataclass, replace

from wanedit.stylists.gemini_calls import Caller
from wanedit.stylists.gemini_keys import Key
from wanedit.stylists.gemini_settings import GeminiSettings

NEAREST = 3


@dataclass(frozen=True)
class ModelsFound:
    """Ids that the key can use for generateContent, sorted; and each configured id that is not among them, with
    the nearest that are."""

    usable: tuple[str, ...]
    gone: dict[str, tuple[str, ...]]


async def find_models(settings: GeminiSettings, key: Key, timeout_s: float) -> ModelsFound:
    """Ask the service once, for at most `timeout_s` seconds.

    Raises:
        ServiceError: a kind of it; the key is in none.
    """
    caller = Caller(replace(settings, timeout_s=timeout_s, attempts=1), key)
    try:
        listed = await caller.list_models()
    finally:
        await caller.aclose()
    usable = sorted(
        caller.hide(str(model.name or "")).removeprefix("models/")
        for model in listed
        if model.supported_actions is None or "generateContent" in model.supported_actions
    )
    configured = (settings.image_model, settings.text_model)
    gone = {name: nearest(name, usable) for name in configured if name.removeprefix("models/") not in usable}
    return ModelsFound(tuple(usable), gone)


def nearest(wanted: str, usable: list[str]) -> tuple[str, ...]:
    """The usable ids most like a missing one, those of its own trade (drawing or not) first."""
    draws = _draws(wanted)
    trade = [name for name in usable if _draws(name) == draws]
    found = difflib.get_close_matches(wanted, trade, NEAREST, cutoff=0.4)
    return tuple(found or difflib.get_close_matches(wanted, usable, NEAREST, cutoff=0.4))


def _draws(name: str) -> bool:
    """Whether an id is of a model that makes pictures; the list itself does not say."""
    return "image" in name or "banana" in name
