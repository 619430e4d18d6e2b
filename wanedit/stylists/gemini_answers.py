"""What is in an answer: a picture, a structured text, or a reason why not."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from wanedit.stylists.gemini_errors import (
    BlockedImageError,
    BlockedPromptError,
    NoImageError,
    SchemaError,
)
from wanedit.stylists.gemini_images import decode
from wanedit.video.arrays import AnyFrame

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


def check_prompt(response: Any) -> None:
    """Raises BlockedPromptError for HTTP 200 with a block reason."""
    feedback = getattr(response, "prompt_feedback", None)
    reason = _name(getattr(feedback, "block_reason", None))
    if reason:
        raise BlockedPromptError(
            f"Gemini blocked the prompt ({reason}) and made nothing. Change the style description; if it is "
            "harmless, the keyframe or the reference picture is what it objects to: take others"
        )


def read_picture(response: Any, hide: Hide) -> Drawn:
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
    pictures = [part.inline_data for part in _parts(response) if part.inline_data and part.inline_data.data]
    if not pictures:
        raise NoImageError(
            f"Gemini answered without a picture ({finish or 'no reason given'}{_words(response, hide)}). Check that "
            "image_model is a model that draws (`wanedit doctor --gemini`), and say in the description what to draw"
        )
    mime = hide(pictures[-1].mime_type or "no type")
    pixels, kind = decode(pictures[-1].data, mime)
    return Drawn(pixels, mime, kind, finish)


def read_structured(response: Any, model: type[Model], hide: Hide) -> Model:
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
        raise SchemaError(f"{model.__name__}: {_first_problems(error)} ({finish})") from None
    missing = set(model.model_fields) - set(json.loads(text))
    if missing:
        raise SchemaError(f"{model.__name__}: {', '.join(sorted(missing))} missing")
    # Once more, since the key may have stood there in JSON escapes.
    return model.model_validate_json(hide(made.model_dump_json()), strict=True)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
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


def _first_problems(error: ValidationError) -> str:
    """Where and what, never the offending text itself."""
    problems = error.errors(include_input=False, include_url=False)[:3]
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg'][:SHOWN]}" for one in problems
    )


def _advice(finish: str) -> str:
    if "RECITATION" in finish:
        return "It came too near to an existing work: describe the style without naming a work or an artist"
    if finish == "SPII":
        return "It saw personal data: take a keyframe without documents, names or faces of private persons"
    return "It judged the result unsafe: word the style more mildly"


def _candidate(response: Any) -> Any:
    return next(iter(getattr(response, "candidates", None) or []), None)


def _finish(response: Any) -> str:
    return _name(getattr(_candidate(response), "finish_reason", None))


def _parts(response: Any) -> list[Any]:
    content = getattr(_candidate(response), "content", None)
    return [part for part in getattr(content, "parts", None) or [] if not part.thought]


def _name(value: Any) -> str:
    """An enum's value, or the text of one that this SDK does not know yet."""
    return "" if value is None else str(getattr(value, "value", value))


def _words(response: Any, hide: Hide) -> str:
    """What it said instead, without the key before it is shortened, since half a key would not be found."""
    text = " ".join(hide(" ".join(part.text for part in _parts(response) if part.text)).split())
    return f": {text[:SHOWN]!r}" if text else ""
