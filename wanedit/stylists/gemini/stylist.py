"""A stylist over Gemini: an image model draws, a text model reads the reference and judges the results."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from wanedit.errors import InputError
from wanedit.stylists import STYLISTS
from wanedit.stylists.gemini.client import Ask, Caller, CallRecord
from wanedit.stylists.gemini.faults import (
    BlockedImageError,
    BlockedPromptError,
    SchemaError,
    UnchangedError,
    Uniform,
    UnusableAnswerError,
)
from wanedit.stylists.gemini.messages import (
    MAX_ANALYSED,
    PROMPTS_VERSION,
    Drawn,
    Prompt,
    again,
    analyse_prompt,
    json_schema,
    read_picture,
    read_structured,
    restyle_prompt,
    safer_prompt,
    verify_prompt,
)
from wanedit.stylists.gemini.pictures import (
    RATIO_TOLERANCE,
    REFERENCE_SIDE,
    Transform,
    is_unchanged,
    plan,
    to_png,
)
from wanedit.stylists.gemini.settings import GeminiSettings, check_prices, expected_cost, find_key, price_of
from wanedit.stylists.protocol import (
    Estimate,
    Picture,
    Record,
    Request,
    Styled,
    StyleGuide,
    StyleReference,
    Verdict,
)
from wanedit.video.arrays import AnyFrame

if TYPE_CHECKING:
    from google.genai import types

SCHEMA_TRIES = 2
MOST_PICTURES_DRAWN = 3  # keyframe, first result, style reference
MOST_PICTURES_JUDGED = 5  # and the result, and the one before it

Model = TypeVar("Model", bound=BaseModel)
Unusable = TypeVar("Unusable", bound=UnusableAnswerError)


@STYLISTS.register("gemini")
class GeminiStylist:
    """Restyles keyframes with Gemini. A `Stylist`; its key is read from the environment at the first call.

    Args:
        config: models, caps and pauses.
        sleep, uniform, clock: for tests; how to wait, where jitter comes from, and the seconds that pass.

    Raises:
        InputError: settings that cannot work, or a price cap over a model without a price.
    """

    # A restyled keyframe depends on its own source alone, so further keyframes cost only themselves.
    pools_keyframes = False

    def __init__(
        self,
        config: GeminiSettings | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        uniform: Uniform | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or GeminiSettings()
        self.config.check()
        check_prices(self.config)
        self._sleep, self._uniform, self._clock = sleep, uniform, clock
        self._caller: Caller | None = None

    @property
    def settings(self) -> Record:
        """What decides the result, as JSON values: models, size and the version of the prompts."""
        return {"stylist": "gemini", "prompts": PROMPTS_VERSION, **self.config.identity()}

    @property
    def records(self) -> list[CallRecord]:
        """Every call so far, for a journal."""
        return self._caller.records if self._caller else []

    @property
    def spent(self) -> tuple[int, float]:
        """Requests sent, and US dollars by the price table, of this run."""
        return (self._caller.budget.calls, self._caller.budget.spent) if self._caller else (0, 0.0)

    def ready(self) -> Caller:
        """Find the key now instead of at the first call.

        Raises:
            MissingKeyError: no key; says how to get and set one.
        """
        if self._caller is None:
            self._caller = Caller(
                self.config, find_key(), sleep=self._sleep, uniform=self._uniform, clock=self._clock
            )
        return self._caller

    async def aclose(self) -> None:
        """Close the connections; the stylist can still be used."""
        if self._caller is not None:
            await self._caller.aclose()

    async def analyse(self, reference: StyleReference, keyframes: tuple[Picture, ...]) -> StyleGuide:
        """Read the reference.

        Raises:
            InputError: the reference holds neither picture nor words.
            SchemaError: no valid guide, twice.
            ServiceError: the service failed.
        """
        if reference.image is None and not reference.description.strip():
            raise InputError("the style reference is empty; expected a picture, a description, or both")
        prompt = analyse_prompt(reference.description.strip(), reference.image, keyframes)
        return await self._structured("analyse", prompt, StyleGuide)

    async def restyle(self, request: Request) -> Styled:
        """Draw one keyframe, of exactly its source's size.

        An unusable answer is asked for again `rephrase` times: a blocked one in neutral words, any other with
        what was wrong. The source is never handed back as a result.

        Raises:
            UnusableAnswerError: a kind of it, after the last rephrasing.
            ServiceError, BudgetExceededError: no further call is possible now.
        """
        from google.genai import types

        transform = plan(request.source, self.config.image_size)
        canvas = transform.apply(request.source)
        first = None
        if request.first is not None:
            first = plan(request.first, self.config.image_size).apply(request.first)
        size = self.config.image_size
        config = types.GenerateContentConfig(
            response_modalities=["IMAGE"],
            image_config=types.ImageConfig(aspect_ratio=transform.ratio, image_size=size),
            automatic_continuation=False,  # the SDK would send, and bill, more calls than were counted
        )
        problems: list[UnusableAnswerError] = []
        records: list[CallRecord] = []
        for _ in range(1 + self.config.rephrase):
            if any(isinstance(problem, BlockedPromptError | BlockedImageError) for problem in problems):
                prompt = safer_prompt(
                    request, canvas
                )  # once anything was blocked the wish stays in neutral words
            else:
                prompt = restyle_prompt(request, canvas, first, [problem.hint for problem in problems])
            response, record = await self._send("restyle", self.config.image_model, prompt, config, size)
            records.append(record)
            try:
                drawn = read_picture(response, self.ready().hide)
                image = _back_in_place(drawn, transform, canvas, request.source)
            except UnusableAnswerError as error:
                problems.append(self._hidden(error))
                continue
            return Styled(image, _provenance(prompt, records, transform, drawn, problems))
        raise problems[-1]

    async def verify(self, request: Request, styled: Styled, previous: Picture | None) -> Verdict:
        """Judge one result against its source, the style and its neighbours.

        Raises:
            SchemaError: no valid verdict, twice; never taken for a pass.
            ServiceError: the service failed.
        """
        prompt = verify_prompt(request, styled.image, previous)
        verdict = await self._structured("verify", prompt, Verdict)
        if verdict.accepted or verdict.reasons:
            return verdict
        # A rejection always has a reason, since the next attempt is told it.
        words = {
            "structure_kept": "keep the structure of the keyframe",
            "style_matched": "follow the style guide more closely",
            "consistent": "use the colours, line and texture of the other restyled frames",
        }
        reasons = [text for name, text in words.items() if not getattr(verdict, name)]
        return verdict.model_copy(update={"reasons": reasons})

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        """Calls and dollars at the least and at the most; tries repeated for an overloaded service come on top."""
        drawing = price_of(self.config.image_model, self.config)
        reading = price_of(self.config.text_model, self.config)
        read = expected_cost(reading, MAX_ANALYSED + 1, None)
        draw = expected_cost(drawing, MOST_PICTURES_DRAWN, self.config.image_size)
        judge = expected_cost(reading, MOST_PICTURES_JUDGED, None)
        rounds, draws = keyframes * (1 + retries), 1 + self.config.rephrase
        calls = (1 + 2 * keyframes, SCHEMA_TRIES + rounds * (draws + SCHEMA_TRIES))
        most = SCHEMA_TRIES * read + rounds * (draws * draw + SCHEMA_TRIES * judge)
        return Estimate(calls, (round(read + keyframes * (draw + judge), 4), round(most, 4)))

    def _hidden(self, error: Unusable) -> Unusable:
        """The same error without the key, should an endpoint repeat it in its answer."""
        return type(error)(self.ready().hide(str(error)))

    async def _structured(self, purpose: str, prompt: Prompt, model: type[Model]) -> Model:
        from google.genai import types

        config = types.GenerateContentConfig(
            response_mime_type="application/json",
            response_json_schema=json_schema(model),
            automatic_continuation=False,
        )
        problem = SchemaError(f"{purpose}: no answer")
        for attempt in range(SCHEMA_TRIES):
            asked = again(prompt, str(problem)) if attempt else prompt
            response, _ = await self._send(purpose, self.config.text_model, asked, config, None)
            try:
                return read_structured(response, model, self.ready().hide)
            except SchemaError as error:
                problem = self._hidden(error)
        raise SchemaError(
            f"Gemini's answer to {purpose} does not fit its schema, {SCHEMA_TRIES} times ({problem}); it counts as "
            "a failure. Run again, or take another text_model"
        )

    async def _send(
        self,
        purpose: str,
        model: str,
        prompt: Prompt,
        config: "types.GenerateContentConfig",
        image_size: str | None,
    ) -> "tuple[types.GenerateContentResponse, CallRecord]":
        caller = self.ready()
        contents = await asyncio.to_thread(_contents, prompt)
        pictures, digest = len(prompt.pictures), prompt.sha256()
        return await caller.send(Ask(purpose, model, contents, config, pictures, digest, image_size))


def _back_in_place(drawn: Drawn, transform: Transform, canvas: AnyFrame, source: Picture) -> Picture:
    """The picture of an answer at its source's place and size; never the source itself.

    It is compared with the canvas too: a source larger than that lost its fine detail on the way there.
    """
    image = transform.undo(drawn.pixels)
    if is_unchanged(canvas, drawn.pixels) or is_unchanged(source, image):
        raise UnchangedError(
            "Gemini gave the keyframe back unchanged; it is not taken for a result. Describe the style more "
            "strongly, or give a reference picture"
        )
    return image


def _contents(prompt: Prompt) -> "list[types.Content]":
    from google.genai import types

    parts = [types.Part.from_text(text=prompt.text)]
    for label, picture in prompt.pictures:
        # The keyframe and the first result lie on the canvas already and must not be shrunk.
        side = None if label in ("keyframe", "first result") else REFERENCE_SIDE
        parts.append(types.Part.from_text(text=f'The picture labelled "{label}":'))
        parts.append(types.Part.from_bytes(data=to_png(picture, side), mime_type="image/png"))
    return [types.Content(role="user", parts=parts)]


def _provenance(
    prompt: Prompt,
    records: list[CallRecord],
    transform: Transform,
    drawn: Drawn,
    problems: list[UnusableAnswerError],
) -> Record:
    """Where a picture came from, all of its calls together."""
    last = records[-1]
    placed = transform.record(drawn.pixels)
    notes = [note for record in records for note in record.notes]
    if (off := round(transform.ratio_error(drawn.pixels), 6)) > 0:
        notes.append(f"the answer's ratio is {off:.2%} off (at most {RATIO_TOLERANCE:.1%} allowed)")
    if drawn.format != drawn.mime.removeprefix("image/").upper():
        notes.append(f"said to be {drawn.mime}, is {drawn.format}")
    return {
        "stylist": "gemini",
        "model": last.model,
        "model_version": last.model_version,
        "response_id": last.response_id,
        "prompt_sha256": prompt.sha256(),
        "prompts_version": PROMPTS_VERSION,
        "usage": {name: sum(r.usage.get(name, 0) for r in records) for name in last.usage},
        "price_usd": round(sum(record.price for record in records), 6),
        "may_be_billed_usd": round(sum(record.may_be_billed for record in records), 6),
        "seconds": round(sum(record.seconds for record in records), 3),
        "attempts": sum(record.attempts for record in records),
        "unusable": [f"{type(problem).__name__}: {problem}" for problem in problems],
        "notes": notes,
        "finish_reason": drawn.finish,
        "mime": drawn.mime,
        "transform": placed,
    }
