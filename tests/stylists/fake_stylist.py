"""A stylist that does as its script says, counts what it is asked, and breaks where it is told to."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from wanedit.errors import ServiceError
from wanedit.stylists.protocol import (
    RETRY,
    Estimate,
    Picture,
    Request,
    Styled,
    StyleGuide,
    StyleReference,
    Verdict,
)

PASS = Verdict(structure_kept=True, style_matched=True, consistent=True)


def reject(*reasons: str, structure: bool = False) -> Verdict:
    """A verdict against the style, or against style and structure."""
    return Verdict(structure_kept=not structure, style_matched=False, consistent=True, reasons=list(reasons))


class FakeStylist:
    """Implements `Stylist`.

    Args:
        verdicts: position -> verdicts of its attempts, the last one repeated; others pass.
        break_at: called with the kind of call and the position before it is answered; may raise.
        alter: makes a result from what it would have been.
    """

    pools_keyframes = False
    advice = RETRY

    def __init__(
        self,
        verdicts: dict[int, list[Verdict]] | None = None,
        break_at: Callable[[str, int], None] = lambda kind, position: None,
        alter: Callable[[np.ndarray, Request], Any] = lambda image, request: image,
        model: str = "fake-1",
    ) -> None:
        self.verdicts, self.break_at, self.alter, self.model = verdicts or {}, break_at, alter, model
        self.calls: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.previous: list[tuple[int, np.ndarray | None]] = []
        self.tries: Counter[int] = Counter()
        self.running = self.most_running = 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"stylist": "fake", "model": self.model}

    async def _enter(self, kind: str, position: int) -> None:
        self.calls[f"{kind} {position}"] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            self.break_at(kind, position)
            await asyncio.sleep(0.002 * (position % 3))
        finally:
            self.running -= 1

    async def analyse(self, reference: StyleReference, keyframes: tuple[Picture, ...]) -> StyleGuide:
        await self._enter("analyse", 0)
        return StyleGuide(summary=reference.description or "a picture", palette=["#102030"])

    async def restyle(self, request: Request) -> Styled:
        self.requests.append(request)
        await self._enter("restyle", request.position)
        image = 255 - request.source
        image[0, 0, 0] ^= len(request.reasons) + 1  # every attempt another picture
        return Styled(self.alter(image, request), {"model": self.model, "told": list(request.reasons)})

    async def verify(self, request: Request, styled: Styled, previous: Picture | None) -> Verdict:
        self.previous.append((request.position, previous))
        await self._enter("verify", request.position)
        script = self.verdicts.get(request.position, [PASS])
        attempt = self.tries[request.position] = max(
            self.tries[request.position] + 1, 1 + len(request.reasons)
        )
        return script[min(attempt, len(script)) - 1]

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        return Estimate(
            (1 + 2 * keyframes, 1 + 2 * keyframes * (1 + retries)), (0.1 * keyframes, 0.5 * keyframes)
        )


def outage(kind: str, position: int) -> Callable[[str, int], None]:
    """A service that fails at one call."""

    def break_at(asked: str, place: int) -> None:
        if (asked, place) == (kind, position):
            raise ServiceError("the service is down")

    return break_at
