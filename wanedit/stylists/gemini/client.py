"""Calls: limited in number, within the budget, retried by our rules, recorded; the list of models."""

import asyncio
import difflib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, cast

from wanedit.stylists.gemini.faults import (
    BILLED,
    MAX_TIMEOUTS,
    Failure,
    UnavailableError,
    Uniform,
    classify,
    final_error,
    wait_before,
)
from wanedit.stylists.gemini.settings import (
    GOOGLE_URL,
    Budget,
    GeminiSettings,
    Key,
    cost,
    expected_cost,
    price_of,
    usage_of,
)

if TYPE_CHECKING:
    from google import genai
    from google.genai import types

Answer = TypeVar("Answer")

NEAREST = 3
GUARD = 1.1  # the SDK's own timeout comes first; some transports apply it to each phase and not to the whole


@dataclass
class CallRecord:
    """What one call was; without a model_version it was never answered. JSON values; never a key.

    Attributes:
        purpose: analyse, restyle, verify.
        model, model_version: asked for, and what answered.
        seconds: with every retry and pause.
        attempts: requests sent.
        price: dollars of this call. A timed-out try before it adds its expected price to `may_be_billed`.
        notes: one line for each failed try.
    """

    purpose: str
    model: str
    prompt_sha256: str
    model_version: str = ""
    response_id: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    price: float = 0.0
    may_be_billed: float = 0.0
    seconds: float = 0.0
    attempts: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """A request to be sent.

    Attributes:
        contents, config: as the SDK takes them.
        pictures: how many pictures go in, for the expected price.
        image_size: "1K" … where a picture is to come out; None for words.
    """

    purpose: str
    model: str
    contents: "list[types.Content]"
    config: "types.GenerateContentConfig"
    pictures: int
    prompt_sha256: str
    image_size: str | None = None


def new_client(key: Key, settings: GeminiSettings) -> "genai.Client":
    """The SDK's client: Gemini API whatever the environment says of Vertex, its own retries off."""
    from google import genai
    from google.genai import types

    options = types.HttpOptions(
        # Never null: the SDK would take GOOGLE_GEMINI_BASE_URL, and the key would go wherever that says.
        base_url=settings.base_url or GOOGLE_URL,
        api_version=settings.api_version,
        timeout=int(settings.timeout_s * 1000),
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    return genai.Client(vertexai=False, api_key=key.secret, http_options=options)


class Caller:
    """Sends requests. Safe to use from many tasks, and from one event loop after another.

    Attributes:
        budget: what was spent so far.
        records: every call, in the order in which they ended.
    """

    def __init__(
        self,
        settings: GeminiSettings,
        key: Key,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        uniform: Uniform | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = Budget(settings.max_calls, settings.max_price)
        self.records: list[CallRecord] = []
        self._settings, self._key = settings, key
        self._sleep, self._clock = sleep, clock
        self._uniform = uniform or random.SystemRandom().uniform
        self._client: genai.Client | None = None
        self._limits: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def send(self, ask: Ask) -> "tuple[types.GenerateContentResponse, CallRecord]":
        """The service's answer to one request, and its record.

        Raises:
            BudgetExceededError: before a call that would pass a cap.
            ServiceError: a kind of it that says what to do; nothing in it holds the key.
        """
        record = CallRecord(ask.purpose, ask.model, ask.prompt_sha256)
        start, loop = self._clock(), asyncio.get_running_loop()
        if self._limits is None or self._limits[0] is not loop:
            # A semaphore belongs to the loop that it was first waited in.
            self._limits = (loop, asyncio.Semaphore(self._settings.concurrency))
        try:
            async with self._limits[1]:
                response = await self._with_retries(ask, record)
        finally:
            record.seconds = round(self._clock() - start, 3)
            if record.attempts:
                self.records.append(record)
        record.model_version = self.hide(str(getattr(response, "model_version", None) or ""))
        record.response_id = self.hide(str(getattr(response, "response_id", None) or ""))
        return response, record

    async def list_models(self) -> "list[types.Model]":
        """Every model that the key can use, in one try."""
        client, result = self._open(), cast("list[types.Model]", [])

        async def read() -> None:
            async for model in await client.aio.models.list():
                result.append(model)

        failure = await self._try(read)
        if isinstance(failure, Failure):
            stop = final_error(failure, 1, MAX_TIMEOUTS, 1, self._settings.max_wait_s)
            raise stop or UnavailableError(failure.text)
        return result

    def hide(self, text: str) -> str:
        """`text` without the key."""
        return self._key.hide(text)

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aio.aclose()

    async def _with_retries(self, ask: Ask, record: CallRecord) -> "types.GenerateContentResponse":
        price = price_of(ask.model, self._settings)
        expected = expected_cost(price, ask.pictures, ask.image_size)
        timeouts = 0
        while True:
            self.budget.reserve(expected)
            record.attempts += 1
            outcome = await self._one(ask, expected)
            if not isinstance(outcome, Failure):
                record.usage = usage_of(getattr(outcome, "usage_metadata", None))
                record.price = cost(price, record.usage, expected, ask.image_size is not None)
                self.budget.settle(expected, record.price)
                return outcome
            timed_out = outcome.kind == "timeout"
            timeouts += timed_out
            self.budget.settle(expected, expected if timed_out else 0.0)
            record.may_be_billed += expected if timed_out else 0.0
            # Raised here and not where the SDK's error was caught: that error, which may quote the request, stays out
            # of the chain.
            own = self._settings
            if stop := final_error(outcome, record.attempts, timeouts, own.attempts, own.max_wait_s):
                raise stop
            wait = wait_before(record.attempts, outcome, self._uniform)
            billed = f"; {BILLED}" if timed_out else ""
            record.notes.append(f"try {record.attempts}: {outcome.text}{billed}; again after {wait:.2f} s")
            await self._sleep(wait)

    async def _one(self, ask: Ask, expected: float) -> "types.GenerateContentResponse | Failure":
        """One request; its reservation is kept as spent if it is cancelled, since it may be billed."""
        client = self._open()  # outside the guard of time: the SDK takes a second to import

        async def generate() -> "types.GenerateContentResponse":
            contents = cast("types.ContentListUnionDict", ask.contents)
            return await client.aio.models.generate_content(
                model=ask.model, contents=contents, config=ask.config
            )

        try:
            return await self._try(generate)
        except BaseException:
            self.budget.settle(expected, expected)
            raise

    async def _try(self, action: Callable[[], Awaitable[Answer]]) -> Answer | Failure:
        """What the action gives, or the Failure that it met; an error of our own making passes through."""
        try:
            return await asyncio.wait_for(action(), self._settings.timeout_s * GUARD)
        except Exception as error:
            failure = classify(error, self._settings.timeout_s, self._key.hide)
            if failure is None:
                raise
            return failure

    def _open(self) -> "genai.Client":
        if self._client is None:
            self._client = new_client(self._key, self._settings)
        return self._client


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
