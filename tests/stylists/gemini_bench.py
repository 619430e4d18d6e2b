"""A stylist against the fake service: no real pauses, jitter always at its upper end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.stylists.fake_gemini import CANARY, GUIDE, FakeGemini, serve
from wanedit.stylists.gemini.settings import GeminiSettings
from wanedit.stylists.gemini.stylist import GeminiStylist
from wanedit.stylists.protocol import Picture, Request, StyleGuide, StyleReference


@dataclass
class Bench:
    """The fake, the settings of stylists made here, and the pauses that they asked for, in seconds."""

    fake: FakeGemini
    settings: dict[str, Any] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)

    @contextmanager
    def stylist(self) -> Iterator[GeminiStylist]:
        """A stylist on the fake."""

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        values = {"base_url": self.fake.url, "timeout_s": 20.0, **self.settings}
        yield GeminiStylist(GeminiSettings(**values), sleep=sleep, uniform=lambda low, high: high)

    def run(self, action: Callable[[GeminiStylist], Awaitable[Any]]) -> Any:
        """What an action of a fresh stylist gives, its connections closed after."""

        async def whole(one: GeminiStylist) -> Any:
            try:
                return await action(one)
            finally:
                await one.aclose()

        with self.stylist() as one:
            return asyncio.run(whole(one))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A fake service, and a key that must show nowhere."""
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve(FakeGemini()) as fake:
        yield Bench(fake)


def scene(width: int, height: int) -> Picture:
    """A smooth picture with some shapes in it."""
    rng = np.random.default_rng(width * height)
    coarse = rng.integers(30, 220, (4, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def request_for(
    source: Picture,
    first: Picture | None = None,
    image: Picture | None = None,
    reasons: tuple[str, ...] = (),
) -> Request:
    """A request for one keyframe."""
    reference = StyleReference(image, "gouache")
    return Request((source,), 0, reference, StyleGuide(**GUIDE), first, reasons)
