"""What Gemini is told, and what is in its answers: a picture, a structured text, or a reason why not.

PROMPTS_VERSION is part of every cache key: raise it with any change of the words.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from wanedit.stylists.gemini.faults import (
    BlockedImageError,
    BlockedPromptError,
    NoImageError,
    SchemaError,
)
from wanedit.stylists.gemini.pictures import decode
from wanedit.stylists.protocol import Request, StyleGuide
from wanedit.video.arrays import AnyFrame

if TYPE_CHECKING:
    from google.genai import types

PROMPTS_VERSION = 1
MAX_ANALYSED = 3


@dataclass(frozen=True)
class Prompt:
    """Words, and pictures each after its label."""

    text: str
    pictures: tuple[tuple[str, AnyFrame], ...]

    def sha256(self) -> str:
        """Of the words alone; what the pictures were stands in the caller's own hashes."""
        return hashlib.sha256(
            "\n".join([self.text, *(label for label, _ in self.pictures)]).encode()
        ).hexdigest()


ANALYSE = """You prepare a consistent restyling of the frames of one video. Write a style guide.
{reference}
The pictures labelled as video frames show what will be restyled; the guide is about style only, never about
their content. Give: a one-sentence summary; the palette as hex colours, the most important first; line, texture
and light, each in one sentence, or "" if the reference says nothing about it; short rules of what to do and what
not to do. Do not name artists, studios or works."""

RESTYLE = """Restyle the picture labelled "keyframe". It is one frame of a video, and its result must fit back
over it exactly.

Style: {summary}
{rules}

Keep, to the pixel: framing, perspective, the outline, place, size and pose of every object and person, and
whatever they look at. Add nothing, remove nothing, write nothing, draw no border. Parts of the frame near its
edges may look mirrored: restyle them like the rest.
{first}{reference}{reasons}"""

FIRST = """
The picture labelled "first result" is an earlier frame of the same video, already restyled. Use the same
colours for the same things, the same line and the same texture. Take nothing else from it."""

REFERENCE = """
The picture labelled "style reference" shows the style. Take no object, person or text from it."""

VERIFY = """You check one restyled frame of a video. Compare "source" with "result".
structure_kept: every object, person, pose and outline of the source is in the result at the same place and size,
and nothing was added.
style_matched: the result is in this style: {summary} {rules}
consistent: {consistent}
reasons: for each that is false, one short instruction on what the next attempt must do; otherwise an empty list.
Be strict: say true only for what you see."""

NEIGHBOURS = (
    'the same things have the same colours, line and texture in "result" as in the other restyled frames.'
)
NO_NEIGHBOURS = "no other restyled frame exists yet; say true."

# Neutral words for a prompt that was blocked: the style by its visible properties alone.
SAFER = """Please make an ordinary, family-friendly illustration of the picture labelled "keyframe".
Redraw it with this look: {palette}{line}{texture}{light}
Keep the framing and the outline of everything in it. Add nothing. No violence, no nudity, no real person's
likeness, no trademark, no text."""


def analyse_prompt(description: str, image: AnyFrame | None, keyframes: Sequence[AnyFrame]) -> Prompt:
    """Asks for a StyleGuide."""
    words = []
    if image is not None:
        words.append('The picture labelled "style reference" shows the style.')
    if description:
        words.append(f"The user describes the style so: {description}")
    pictures = [("style reference", image)] if image is not None else []
    if len(keyframes) > MAX_ANALYSED:  # evenly over the video
        last = len(keyframes) - 1
        keyframes = [keyframes[round(n * last / (MAX_ANALYSED - 1))] for n in range(MAX_ANALYSED)]
    pictures += [(f"video frame {n + 1}", frame) for n, frame in enumerate(keyframes)]
    return Prompt(ANALYSE.format(reference="\n".join(words)), tuple(pictures))


def restyle_prompt(
    request: Request, canvas: AnyFrame, first: AnyFrame | None, hints: Sequence[str]
) -> Prompt:
    """Asks for the picture; `canvas` and `first` are padded already, `hints` come from unusable answers."""
    reference = request.reference.image
    reasons = [*request.reasons, *hints]
    text = RESTYLE.format(
        summary=request.guide.summary,
        rules=_rules(request.guide),
        first=FIRST if first is not None else "",
        reference=REFERENCE if reference is not None else "",
        reasons="\n".join(["\nAn earlier attempt was rejected:", *(f"- {reason}" for reason in reasons)])
        if reasons
        else "",
    )
    return Prompt(
        text, _labelled(("keyframe", canvas), ("first result", first), ("style reference", reference))
    )


def safer_prompt(request: Request, canvas: AnyFrame) -> Prompt:
    """The same wish in neutral words, without the user's and without other pictures."""
    guide = request.guide
    parts = {
        "palette": f"colours {', '.join(guide.palette)}. " if guide.palette else "calm, harmonious colours. ",
        "line": f"Line: {guide.line} " if guide.line else "",
        "texture": f"Texture: {guide.texture} " if guide.texture else "",
        "light": f"Light: {guide.light} " if guide.light else "",
    }
    return Prompt(SAFER.format(**parts), (("keyframe", canvas),))


def verify_prompt(request: Request, result: AnyFrame, previous: AnyFrame | None) -> Prompt:
    """Asks for a Verdict."""
    others = _labelled(("first restyled frame", request.first), ("previous restyled frame", previous))
    text = VERIFY.format(
        summary=request.guide.summary,
        rules=_rules(request.guide),
        consistent=NEIGHBOURS if others else NO_NEIGHBOURS,
    )
    shown = _labelled(
        ("source", request.source), ("result", result), ("style reference", request.reference.image)
    )
    return Prompt(text, (*shown, *others))


def again(prompt: Prompt, problem: str) -> Prompt:
    """The same question after an answer that did not fit."""
    return Prompt(f"{prompt.text}\n\nYour last answer did not fit the schema: {problem}", prompt.pictures)


def _rules(guide: StyleGuide) -> str:
    lines = [f"Palette: {', '.join(guide.palette)}"] if guide.palette else []
    for name in ("line", "texture", "light"):
        if getattr(guide, name):
            lines.append(f"{name.capitalize()}: {getattr(guide, name)}")
    lines += [f"Do: {rule}" for rule in guide.do]
    lines += [f"Do not: {rule}" for rule in guide.dont]
    return "\n".join(lines)


def _labelled(*pairs: tuple[str, AnyFrame | None]) -> tuple[tuple[str, AnyFrame], ...]:
    return tuple((label, picture) for label, picture in pairs if picture is not None)


Model = TypeVar("Model", bound=BaseModel)
Hide = Callable[[str], str]

WITHHELD = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "ESCALATION",
    "MODEL_ARMOR",
}
SHOWN = 200


class Drawn(NamedTuple):
    """A picture as it came: its pixels, the type it was said to be, the format it is, why the model stopped."""

    pixels: AnyFrame
    mime: str
    format: str
    finish: str


def check_prompt(response: "types.GenerateContentResponse") -> None:
    """Raises BlockedPromptError for HTTP 200 with a block reason."""
    feedback = getattr(response, "prompt_feedback", None)
    reason = _name(getattr(feedback, "block_reason", None))
    if reason:
        raise BlockedPromptError(
            f"Gemini blocked the prompt ({reason}) and made nothing. Change the style description; if it is "
            "harmless, the keyframe or the reference picture is what it objects to: take others"
        )


def read_picture(response: "types.GenerateContentResponse", hide: Hide) -> Drawn:
    """The last picture of an answer that is not one of the model's drafts. `hide` takes the key out of its words.

    Raises:
        BlockedPromptError, BlockedImageError, NoImageError, WrongImageError.
    """
    check_prompt(response)
    finish = hide(_finish(response))
    if finish in WITHHELD:
        raise BlockedImageError(
            f"Gemini withheld the picture that it made ({finish}). {_advice(finish)}, or leave this keyframe out"
        )
    blobs = [part.inline_data for part in _parts(response) if part.inline_data]
    pictures = [(blob.data, blob.mime_type) for blob in blobs if blob.data]
    if not pictures:
        # The key is hidden before the words are shortened, since half a key would not be found.
        said = " ".join(hide(" ".join(part.text for part in _parts(response) if part.text)).split())
        words = f": {said[:SHOWN]!r}" if said else ""
        raise NoImageError(
            f"Gemini answered without a picture ({finish or 'no reason given'}{words}). Check that "
            "image_model is a model that draws (`wanedit doctor --gemini`), and say in the description what to draw"
        )
    data, said_type = pictures[-1]
    mime = hide(said_type or "no type")
    pixels, kind = decode(data, mime)
    return Drawn(pixels, mime, kind, finish)


def read_structured(response: "types.GenerateContentResponse", model: type[Model], hide: Hide) -> Model:
    """The answer as `model`: all of its fields, of exactly their types.

    The SDK says nothing when an answer does not fit (`parsed` is None), so its text is checked here. `hide` takes the
    key out of it: a guide or a verdict is written to disk.

    Raises:
        BlockedPromptError, BlockedImageError.
        SchemaError: anything but a whole, valid answer.
    """
    check_prompt(response)
    finish = _finish(response)
    if finish in WITHHELD:
        raise BlockedImageError(f"Gemini withheld its answer ({finish}). {_advice(finish)}")
    text = hide("".join(part.text for part in _parts(response) if part.text))
    if not text:
        raise SchemaError(f"{model.__name__}: the answer is empty ({finish or 'no reason given'})")
    try:
        # Strict: "yes" or 1 would otherwise pass for true.
        made = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        # Where and what, never the offending text itself.
        problems = error.errors(include_input=False, include_url=False)[:3]
        found = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg'][:SHOWN]}" for one in problems]
        raise SchemaError(f"{model.__name__}: {'; '.join(found)} ({finish})") from None
    missing = set(model.model_fields) - set(json.loads(text))
    if missing:
        raise SchemaError(f"{model.__name__}: {', '.join(sorted(missing))} missing")
    # Once more, since the key may have stood there in JSON escapes.
    return model.model_validate_json(hide(made.model_dump_json()), strict=True)


def json_schema(model: type[BaseModel]) -> dict[str, object]:
    """The JSON schema that is sent: every field required, so that a model may not leave one out."""
    schema = model.model_json_schema()
    properties = {
        name: {key: value for key, value in values.items() if key not in ("default", "title")}
        for name, values in schema["properties"].items()
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _advice(finish: str) -> str:
    if "RECITATION" in finish:
        return "It came too near to an existing work: describe the style without naming a work or an artist"
    if finish == "SPII":
        return "It saw personal data: take a keyframe without documents, names or faces of private persons"
    return "It judged the result unsafe: word the style more mildly"


def _candidate(response: "types.GenerateContentResponse") -> "types.Candidate | None":
    return next(iter(getattr(response, "candidates", None) or []), None)


def _finish(response: "types.GenerateContentResponse") -> str:
    return _name(getattr(_candidate(response), "finish_reason", None))


def _parts(response: "types.GenerateContentResponse") -> "list[types.Part]":
    content = getattr(_candidate(response), "content", None)
    return [part for part in getattr(content, "parts", None) or [] if not part.thought]


def _name(value: object) -> str:
    """An enum's value, or the text of one that this SDK does not know yet."""
    return "" if value is None else str(getattr(value, "value", value))
