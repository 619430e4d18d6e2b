"""What the palette stylist can be told: settings and plain words. The command line reads it: nothing heavy."""

import math
import re
from dataclasses import dataclass, replace

from wanedit.errors import InputError

MAX_LEVELS = 32


@dataclass(frozen=True)
class PaletteSettings:
    """How the palette stylist works. Null is decided by the words of the description, else by a mild default.

    Attributes:
        strength: how far colours go to the reference's, above 0 to 1.
        paint: size of the brush, 0 (none) to 1.
        outline: how dark the ink lines are, 0 (none) to 1.
        posterise: levels of lightness, 2 to 32; 0 for none.
        paper: how much of the paper shows, 0 (none) to 1; it stays in its place while the picture moves.
        seed: of the paper, and of the directions along which colours are transported.
    """

    strength: float = 1.0
    paint: float | None = None
    outline: float | None = None
    posterise: int | None = None
    paper: float | None = None
    seed: int = 0


def check_palette(settings: PaletteSettings) -> None:
    """Refuse values out of range.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    if not (0 < settings.strength <= 1):
        raise InputError(f"palette.strength is {settings.strength}; expected above 0, up to 1")
    for name in ("paint", "outline", "paper"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise InputError(f"palette.{name} is {value}; expected 0 to 1, or null")
    levels = settings.posterise
    if levels is not None and levels != 0 and not 2 <= levels <= MAX_LEVELS:
        raise InputError(
            f"palette.posterise is {levels}; expected 2 to {MAX_LEVELS} levels, 0 for none, or null"
        )
    if settings.seed < 0:
        raise InputError(f"palette.seed is {settings.seed}; expected a number >= 0")


@dataclass(frozen=True)
class Look:
    """A way of drawing, and the colours for it where no picture gives them.

    Attributes:
        colours: pairs of "#rrggbb" and its share, from dark to light; empty where a picture decides.
        tone: how far lightness follows the palette's, 0 to 1.
        paint, outline, posterise, paper: as in `PaletteSettings`.
    """

    colours: tuple[tuple[str, float], ...] = ()
    tone: float = 0.5
    paint: float = 0.45
    outline: float = 0.0
    posterise: int = 0
    paper: float = 0.15
    line: str = ""
    texture: str = "soft brush"
    light: str = ""


PLAIN = Look()

LOOKS = {
    "watercolour": Look(
        (
            ("#2f4858", 1), ("#3f7f93", 2), ("#7fb3a8", 2), ("#d98f7a", 2), ("#e9c9a0", 3), ("#f6ecdc", 5),
        ),
        tone=0.6, paint=0.7, outline=0.35, paper=0.7,
        line="thin, broken", texture="washes on rough paper", light="bright, the paper shines through",
    ),
    "noir": Look(
        (("#08090b", 5), ("#22252a", 4), ("#52565c", 2), ("#9a9c9e", 2), ("#eceae4", 2)),
        tone=0.75, paint=0.3, outline=0.15, paper=0.25,
        line="hidden in shadow", texture="fine grain", light="hard, low, black shadows",
    ),
    "sunset": Look(
        (
            ("#241332", 2), ("#5b2352", 3), ("#a63a50", 3), ("#e2703a", 4), ("#f5a94f", 3), ("#ffe3a6", 3),
        ),
        tone=0.5, paint=0.4, paper=0.1, texture="smooth gradients", light="low sun, warm",
    ),
    "ink": Look(
        (("#14161a", 3), ("#4a4d50", 2), ("#a39d90", 3), ("#e4dccb", 5), ("#f4eee0", 6)),
        tone=0.6, paint=0.5, outline=0.9, posterise=6, paper=0.5,
        line="black ink, swelling", texture="diluted ink on cream paper", light="flat",
    ),
    "neon": Look(
        (
            ("#07061a", 5), ("#1c1147", 4), ("#5a189a", 3), ("#c81d97", 2), ("#17c3d6", 2), ("#d9f7ff", 1),
        ),
        tone=0.55, paint=0.3, outline=0.0, paper=0.0, texture="smooth, wet", light="night, coloured lamps",
    ),
    "autumn": Look(
        (
            ("#2b1a12", 2), ("#6b2d1a", 3), ("#a8501f", 4), ("#8a7a3a", 3), ("#d89b3c", 3), ("#f3dfb0", 3),
        ),
        tone=0.5, paint=0.5, paper=0.25, texture="oil on canvas", light="late afternoon",
    ),
    "pastel": Look(
        (
            ("#6d6a8c", 2), ("#a7b8d8", 3), ("#b9dcc8", 3), ("#f3c6cf", 3), ("#fbe7c6", 4), ("#fdf8f2", 3),
        ),
        tone=0.7, paint=0.5, paper=0.45, texture="chalk on tinted paper", light="high key",
    ),
    "comic": Look(
        (
            ("#16161d", 2), ("#1f4e9c", 3), ("#c7342b", 3), ("#f0b429", 3), ("#f4d9b8", 3), ("#fbf6ea", 4),
        ),
        tone=0.55, paint=0.6, outline=1.0, posterise=5, paper=0.1,
        line="bold, black, closed", texture="flat fields", light="graphic",
    ),
    "sepia": Look(
        (("#1d130b", 3), ("#4a3422", 3), ("#856546", 4), ("#c3a57c", 4), ("#f0e0c2", 4)),
        tone=0.5, paint=0.15, paper=0.35, texture="old photograph", light="soft",
    ),
    "winter": Look(
        (
            ("#16232f", 2), ("#35566b", 3), ("#7fa3b5", 4), ("#b9cdd4", 4), ("#e3ecef", 4), ("#fbfdfe", 3),
        ),
        tone=0.6, paint=0.4, paper=0.2, texture="soft, matt", light="cold, overcast",
    ),
    "oil": Look(
        (
            ("#1b1a17", 3), ("#4b3b2a", 3), ("#3c5a5e", 2), ("#9a6b3f", 3), ("#c9a66b", 3), ("#efe2c4", 3),
        ),
        tone=0.4, paint=1.0, paper=0.35, texture="thick brush strokes on canvas", light="warm key, deep shade",
    ),
}  # fmt: skip

SYNONYMS = {
    "watercolor": "watercolour",
    "aquarelle": "watercolour",
    "dusk": "sunset",
    "dawn": "sunset",
    "sumi": "ink",
    "drawing": "ink",
    "sketch": "ink",
    "cyberpunk": "neon",
    "fall": "autumn",
    "pastels": "pastel",
    "cartoon": "comic",
    "vintage": "sepia",
    "snow": "winter",
    "painting": "oil",
}


def known_words() -> str:
    """The words, for messages and help."""
    return ", ".join(LOOKS)


# From a word that says no to the end of what it is said of: "not noir", "without ink or neon", "neither ink nor sepia".
_REFUSED = re.compile(
    r"\b(?:not(?! only)|no|non|never|without|neither|nor|avoid|instead of|rather than|anything but|\w+n['’]t)\b"
    r".*?(?=\bbut\b|[,;.:!?()]|$)",
    re.IGNORECASE | re.DOTALL,
)


def refused_words(description: str) -> list[str]:
    """What a description says that it does not want of the looks, in its words: "not noir"."""
    return [part.strip() for part in _REFUSED.findall(description) if _looks_in(part)]


def find_words(description: str) -> list[str]:
    """The looks that a description asks for, in its order, each once; not those of which it says no."""
    return _looks_in(_REFUSED.sub(" ", description))


def _looks_in(description: str) -> list[str]:
    tokens = re.findall(r"[^\W\d_]+", description.lower())
    return list(dict.fromkeys(name for t in tokens if (name := SYNONYMS.get(t, t)) in LOOKS))


# They hold a sentence together and say nothing of a style.
GRAMMAR = frozenset(
    [
        "a",
        "an",
        "and",
        "as",
        "at",
        "by",
        "for",
        "from",
        "in",
        "into",
        "like",
        "of",
        "on",
        "or",
        "style",
        "the",
        "to",
        "with",
    ]
)


def unknown_words(description: str) -> list[str]:
    """What a description says that is not understood, in its order: "Van Gogh" of "a sunset by Van Gogh"."""
    found: list[list[str]] = [[]]
    for refused in refused_words(description):
        description = description.replace(refused, ",")
    for token in re.findall(r"[^\W\d_]+", description):
        if _looks_in(token) or token.lower() in GRAMMAR:
            found.append([])
        else:
            found[-1].append(token)
    return [" ".join(run) for run in found if run]


def look_of(description: str, has_image: bool) -> Look:
    """How to draw by a description: the first word that is known gives the colours, further ones add their lines.

    With a picture the colours are the picture's, and words that are not known are left to it.

    Raises:
        InputError: no picture, and no word that is known.
    """
    names = find_words(description)
    if not names and has_image:
        return PLAIN
    if not names:
        said = f"the description {description!r} names none that it knows" if description else "there is none"
        raise InputError(
            f"the palette stylist needs a picture (--style.image) or a word for it, and {said}; it knows "
            f"{known_words()}. The gemini stylist reads free text (--stylist gemini)"
        )
    look = LOOKS[names[0]]
    for other in (LOOKS[name] for name in names[1:]):
        stronger = {name: max(getattr(look, name), getattr(other, name)) for name in ("outline", "paper")}
        look = replace(look, **stronger, posterise=look.posterise or other.posterise)
    return replace(look, colours=()) if has_image else look
