"""From keyframes and a style reference to restyled keyframes: a plain state machine, journalled and resumable.

The reference is read once. The first keyframe is restyled and judged alone, for all others are made to agree with it.
The others go in rounds: all that are open are restyled at once, then judged at once, each beside the version of its
neighbour in that round; those rejected form the next round. In rounds nothing depends on which answer comes first, so
a run that was killed asks the very same questions again and finds their answers in the cache.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

import numpy as np

from wanedit.errors import InputError, WaneditError
from wanedit.stylists.cache import Cache, Journal, key_of, picture_hash
from wanedit.stylists.protocol import (
    RETRY,
    Accepted,
    Analysed,
    Cancelled,
    Failed,
    GivenUp,
    Kept,
    Picture,
    Record,
    Rejected,
    RejectedKeyframesError,
    Request,
    Restyled,
    Spent,
    Styled,
    StyleGuide,
    StyleReference,
    Stylist,
    Verdict,
    WrongResultError,
    reword,
)

OnReject = Literal["error", "keep"]
Item = TypeVar("Item")
Result = TypeVar("Result")

PLAIN_RANGE = 8  # levels: a picture of less, such as a black one, may come out as it was


@dataclass(frozen=True)
class Rules:
    """How the workflow goes.

    Attributes:
        retries: further attempts at a keyframe that was rejected.
        concurrency: questions to the stylist at one time.
        on_reject: what to do when no attempt passed: `error`, or `keep` the best one.
    """

    retries: int = 2
    concurrency: int = 4
    on_reject: OnReject = "error"

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InputError(f"retries is {self.retries}; expected 0 or more")
        if self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}; expected 1 or more")
        if self.on_reject not in ("error", "keep"):
            raise InputError(f"on_reject is {self.on_reject!r}; expected error or keep")


@dataclass(frozen=True, eq=False)
class Attempt:
    """One picture for a keyframe, and what was thought of it."""

    number: int
    styled: Styled
    verdict: Verdict
    cached: bool


@dataclass(eq=False)
class Track:
    """A keyframe on its way: its attempts so far, the latest last."""

    position: int
    frame: int
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether its last attempt passed."""
        return bool(self.attempts) and self.attempts[-1].verdict.accepted

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why its attempts were rejected so far, each reason once."""
        return tuple(dict.fromkeys(reason for a in self.attempts for reason in a.verdict.reasons))

    @property
    def best(self) -> Attempt:
        """The attempt that passed, or the one that passed most of the three tests; of equals the latest."""

        def passed(attempt: Attempt) -> tuple[bool, int, int]:
            v = attempt.verdict
            return v.accepted, v.structure_kept + v.style_matched + v.consistent, attempt.number

        return max(self.attempts, key=passed)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a workflow made: the guide, and for every keyframe its track."""

    guide: StyleGuide
    tracks: tuple[Track, ...]


@dataclass(eq=False)
class Workflow:
    """One run.

    Args:
        stylist: who restyles and judges.
        keyframes: uint8 RGB, all of one size. frames: their numbers, for the journal and messages.
        reference: the style. cache, journal: where everything is kept.
        made_by: all that the stylist's answers depend on, besides what it is asked; None for its own `settings`.
        done: called for each keyframe that is finished.
    """

    stylist: Stylist
    keyframes: tuple[Picture, ...]
    frames: Sequence[int]
    reference: StyleReference
    rules: Rules
    cache: Cache
    journal: Journal
    made_by: Record | None = None
    done: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if not self.keyframes or len(self.keyframes) != len(self.frames):
            raise InputError(f"{len(self.keyframes)} keyframes and {len(self.frames)} frame numbers")
        hashes = [picture_hash(picture) for picture in self.keyframes]
        self._hashes = hashes
        self._style = {"image": picture_hash(self.reference.image), "words": self.reference.description}
        self._by = self.stylist.settings if self.made_by is None else self.made_by
        # A stylist that looks at one keyframe at a time may say so: then further keyframes cost only themselves.
        pools = getattr(self.stylist, "pools_keyframes", True)
        self._others = hashes if pools else []

    async def run(self) -> Outcome:
        """Restyle all keyframes.

        Raises:
            RejectedKeyframesError: keyframes that passed in no attempt, with `on_reject` error.
            WrongResultError: the stylist gave a picture of another size, or the source itself.
            ServiceError, InputError and others of the stylist: after what was under way has ended and been kept;
                their messages begin with the frame.
        """
        try:
            guide = await self._analyse()
            tracks = [Track(k, frame) for k, frame in enumerate(self.frames)]
            # The first alone: all others are shown it, so that one style runs through the video.
            await self._rounds(tracks[:1], guide, tracks)
            await self._rounds(tracks[1:], guide, tracks)
            self._count()
            return Outcome(guide, tuple(tracks))
        except BaseException as error:
            # That it cannot be written down, too, is not the news.
            with suppress(WaneditError):
                if isinstance(error, asyncio.CancelledError):
                    self.journal.append(Cancelled())
                self._count()
            raise

    def _count(self) -> None:
        if spent := getattr(self.stylist, "spent", None):
            self.journal.append(Spent(calls=spent[0], price_usd=spent[1]))

    async def _analyse(self) -> StyleGuide:
        # The guide is part of every later key: one that was read anew would have all keyframes paid for again.
        key = key_of(ask="analyse", by=self._by, style=self._style, keyframes=self._others)
        guide = self.cache.read_model(key, StyleGuide)
        cached = guide is not None
        if guide is None:
            guide = await self._asked(None, self.stylist.analyse(self.reference, self.keyframes))
            self.cache.write_model(key, guide)
        self.journal.append(Analysed(key=key, cached=cached, guide=guide))
        return guide

    async def _rounds(self, tracks: list[Track], guide: StyleGuide, all_tracks: list[Track]) -> None:
        """Attempt after attempt at these keyframes, until all are done."""
        open_tracks = tracks
        for number in range(1, self.rules.retries + 2):
            if not open_tracks:
                return
            await self._round(number, open_tracks, guide, all_tracks)
            open_tracks = [track for track in open_tracks if not track.accepted]
        keep = self.rules.on_reject == "keep"
        for track in open_tracks:
            best = track.best
            state = Kept if keep else GivenUp
            reasons = tuple(best.verdict.reasons)
            self.journal.append(state(frame=track.frame, attempt=best.number, reasons=reasons))
            if keep:
                self.done()
        if open_tracks and not keep:
            rejected = {t.frame: tuple(t.attempts[-1].verdict.reasons) for t in open_tracks}
            passed = tuple(t.frame for t in all_tracks if t.accepted)
            advice = getattr(self.stylist, "advice", RETRY)
            raise RejectedKeyframesError(rejected, passed, 1 + self.rules.retries, advice)

    async def _round(
        self, number: int, tracks: list[Track], guide: StyleGuide, all_tracks: list[Track]
    ) -> None:
        first = all_tracks[0].best.styled.image if all_tracks[0] not in tracks else None
        requests = {
            t.position: Request(self.keyframes, t.position, self.reference, guide, first, t.reasons)
            for t in tracks
        }
        # All drawn before one is judged: each is judged beside the one before it.
        made = await self._all(tracks, lambda t: self._restyle(number, t, requests[t.position]))
        pictures = {t.position: styled.image for t, (styled, _, _) in zip(tracks, made, strict=True)}

        def judge(track: Track) -> Awaitable[Attempt]:
            place = track.position
            before = pictures.get(place - 1)
            if before is None and place > 0:
                before = all_tracks[place - 1].best.styled.image
            styled, key, cached = made[tracks.index(track)]
            return self._judge(number, track, requests[place], styled, key, before, cached)

        for track, attempt in zip(tracks, await self._all(tracks, judge), strict=True):
            track.attempts.append(attempt)
            if attempt.verdict.accepted:
                self.done()

    async def _restyle(self, number: int, track: Track, request: Request) -> tuple[Styled, str, bool]:
        key = key_of(
            ask="restyle",
            by=self._by,
            style=self._style,
            guide=request.guide.model_dump(mode="json"),
            source=self._hashes[request.position],
            others=self._others,
            first=picture_hash(request.first),
            reasons=list(request.reasons),
            attempt=number,  # told the same reasons again, a stylist shall try again
        )
        styled = self.cache.read_styled(key)
        cached = styled is not None and styled.image.shape == request.source.shape
        if styled is None or not cached:
            styled = await self._asked(track.frame, self.stylist.restyle(request))
            _require_result(styled, request.source, track.frame)
            self.cache.write_styled(key, styled)
        note = Restyled(
            frame=track.frame, attempt=number, key=key, cached=cached, provenance=styled.provenance
        )
        self.journal.append(note)
        return styled, key, cached

    async def _judge(
        self,
        number: int,
        track: Track,
        request: Request,
        styled: Styled,
        made_as: str,
        before: Picture | None,
        cached_picture: bool,
    ) -> Attempt:
        seen = {"picture": picture_hash(styled.image), "before": picture_hash(before)}
        key = key_of(ask="verify", request=made_as, **seen)
        verdict = self.cache.read_model(key, Verdict)
        cached = verdict is not None
        if verdict is None:
            verdict = await self._asked(track.frame, self.stylist.verify(request, styled, before))
            self.cache.write_model(key, verdict)
        kind = Accepted if verdict.accepted else Rejected
        self.journal.append(kind(frame=track.frame, attempt=number, key=key, cached=cached, verdict=verdict))
        return Attempt(number, styled, verdict, cached and cached_picture)

    async def _asked(self, frame: int | None, answer: Awaitable[Result]) -> Result:
        """The stylist's answer; its failure is journalled, and told with the frame, before it is passed on."""
        try:
            return await answer
        except Exception as error:
            with suppress(WaneditError):
                self.journal.append(Failed(frame=frame, error=f"{type(error).__name__}: {error}"))
            if isinstance(error, WaneditError) and frame is not None:
                reword(error, f"frame {frame}: {error}")
            raise

    async def _all(self, items: list[Item], ask: Callable[[Item], Awaitable[Result]]) -> list[Result]:
        """Ask about all, `concurrency` at a time. After a failure nothing new is asked, but what is under way, and
        perhaps billed, is waited for and kept."""
        gate, failures = asyncio.Semaphore(self.rules.concurrency), list[BaseException]()

        async def one(item: Item) -> Result | None:
            async with gate:
                if failures:
                    return None
                try:
                    return await ask(item)
                except Exception as error:
                    failures.append(error)
                    return None

        # Errors are collected, not raised in `one`: gather would pass the first on and leave the others running.
        found = await asyncio.gather(*map(one, items))
        if failures:
            raise failures[0]
        return cast("list[Result]", found)


def _require_result(styled: Styled, source: Picture, frame: int) -> None:
    """Refuse what cannot be a result."""
    image: object = styled.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != source.shape:
        got = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise WrongResultError(f"frame {frame}: the stylist gave {got}; expected uint8 {source.shape}")
    if np.array_equal(image, source) and int(np.ptp(source)) > PLAIN_RANGE:
        raise WrongResultError(
            f"frame {frame}: the stylist gave the source back; it is not taken for a result"
        )
