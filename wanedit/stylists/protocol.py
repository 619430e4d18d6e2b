"""What a stylist is: it reads a style reference, restyles keyframes one by one, and judges what came of it.

What became of a keyframe on its way is a sequence of states, each one line of the run's journal:

    analysed                                        once
    restyled -> accepted                            for each keyframe, the first one before all others
             -> rejected -> restyled -> …           at most `retries` times again, told the reasons
             -> rejected -> given_up | kept          after the last attempt
    failed, cancelled                               where a run ends early
    spent                                           once, by a stylist that costs: what this run was billed
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from wanedit.errors import WaneditError

Picture = UInt8[np.ndarray, "h w 3"]
Record = dict[str, Any]  # JSON values by name


@dataclass(frozen=True, eq=False)
class StyleReference:
    """What the keyframes shall look like: a picture, words, or both. RGB, uint8."""

    image: Picture | None = None
    description: str = ""


class StyleGuide(BaseModel):
    """A style in words that every keyframe is made by.

    Attributes:
        summary: one sentence.
        palette: colours as "#rrggbb", the most important first.
        line, texture, light: how each is drawn; "" where the reference says nothing.
        do, dont: short rules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str
    palette: list[str] = Field(default_factory=list)
    line: str = ""
    texture: str = ""
    light: str = ""
    do: list[str] = Field(default_factory=list)
    dont: list[str] = Field(default_factory=list)


class Verdict(BaseModel):
    """Whether a restyled keyframe will do. `reasons` say why not, in words that the next attempt is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    structure_kept: bool
    style_matched: bool
    consistent: bool
    reasons: list[str] = Field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """All three."""
        return self.structure_kept and self.style_matched and self.consistent


@dataclass(frozen=True, eq=False)
class Request:
    """One keyframe to restyle.

    Attributes:
        keyframes: every source keyframe, for a stylist that makes one map for all of them.
        position: which of them.
        first: the first keyframe as it was restyled; None for the first itself.
        reasons: why earlier attempts at this keyframe were rejected.
    """

    keyframes: tuple[Picture, ...]
    position: int
    reference: StyleReference
    guide: StyleGuide
    first: Picture | None = None
    reasons: tuple[str, ...] = ()

    @property
    def source(self) -> Picture:
        """The keyframe itself."""
        return self.keyframes[self.position]


@dataclass(frozen=True, eq=False)
class Styled:
    """A restyled keyframe, of exactly its source's size, and where it came from (JSON values)."""

    image: Picture
    provenance: Record = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """What a workflow may cost: the least and the most calls of the service, and the price in US dollars."""

    calls: tuple[int, int]
    price: tuple[float, float]


class MakesStylist(Protocol):
    """What the name of a stylist leads to: its class, or whatever makes one of the options when called."""

    def __call__(self, **options: Any) -> "Stylist": ...


@runtime_checkable
class Stylist(Protocol):
    """Every method may take long and may be awaited beside others of its kind.

    Further members are looked for, and may be absent:

    - `pools_keyframes`, a bool: False says that a result depends on its own keyframe, the first result, the guide and
      the reference alone, and that a guide read for some keyframes serves others, so that a further keyframe leaves
      what is cached valid. Absent: True.
    - `advice`, a text: what to do about keyframes that never pass, where more attempts would not help.
    - `check_reference(reference)`: raises InputError at once for a reference that cannot be used.
    - `ready()`: raises InputError at once where something, such as a key, is missing.
    - `spent`: requests sent and US dollars of this run. `aclose()`: called at the end of a run.
    """

    @property
    def settings(self) -> Record:
        """All that decides what it makes, as JSON values: part of every cache key. Never a key of a service."""
        ...

    async def analyse(self, reference: StyleReference, keyframes: tuple[Picture, ...]) -> StyleGuide:
        """Read the reference."""
        ...

    async def restyle(self, request: Request) -> Styled:
        """Restyle one keyframe."""
        ...

    async def verify(self, request: Request, styled: Styled, previous: Picture | None) -> Verdict:
        """Judge one: `previous` is the keyframe before it as it was restyled."""
        ...

    def estimate(self, keyframes: int, retries: int) -> Estimate:
        """What restyling so many keyframes costs when nothing, or everything, is retried."""
        ...


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Analysed(_State):
    """The reference was read."""

    state: Literal["analysed"] = "analysed"
    key: str
    cached: bool
    guide: StyleGuide


class _OfKeyframe(_State):
    frame: int
    attempt: int = Field(ge=1)


class Restyled(_OfKeyframe):
    """A picture was made, or taken from the cache under `key`."""

    state: Literal["restyled"] = "restyled"
    key: str
    cached: bool
    provenance: Record = Field(default_factory=dict)


class Accepted(_OfKeyframe):
    """The picture passed; done."""

    state: Literal["accepted"] = "accepted"
    key: str
    cached: bool
    verdict: Verdict


class Rejected(_OfKeyframe):
    """The picture did not pass; a next attempt is told the reasons, if there is one."""

    state: Literal["rejected"] = "rejected"
    key: str
    cached: bool
    verdict: Verdict


class Kept(_OfKeyframe):
    """No attempt passed, and the best one is used as asked for; done."""

    state: Literal["kept"] = "kept"
    reasons: tuple[str, ...]


class GivenUp(_OfKeyframe):
    """No attempt passed; ends the run."""

    state: Literal["given_up"] = "given_up"
    reasons: tuple[str, ...]


class Failed(_State):
    """The stylist failed; the run can be taken up again."""

    state: Literal["failed"] = "failed"
    frame: int | None
    error: str


class Cancelled(_State):
    """The run was told to stop; it can be taken up again."""

    state: Literal["cancelled"] = "cancelled"


class Spent(_State):
    """What one run was billed, however it ended; those of a journal add up to what all of its runs cost."""

    state: Literal["spent"] = "spent"
    calls: int
    price_usd: float


RETRY = "run again with more --retries, or with --on_reject keep to use the best attempt"


class RejectedKeyframesError(WaneditError):
    """Keyframes that passed in none of their attempts. Exit code 1.

    Attributes:
        rejected: frame -> reasons of its last attempt.
        accepted: frames that passed; their pictures stay in the cache.
    """

    def __init__(
        self,
        rejected: dict[int, tuple[str, ...]],
        accepted: tuple[int, ...],
        attempts: int,
        advice: str = RETRY,
    ) -> None:
        self.rejected, self.accepted = rejected, accepted
        causes = "; ".join(
            f"frame {frame}: {', '.join(why) or 'no reason given'}" for frame, why in rejected.items()
        )
        kept = f"frames {', '.join(map(str, accepted))} passed and are kept" if accepted else "none passed"
        super().__init__(f"rejected after {attempts} attempts: {causes}. {kept}: {advice}")


class WrongResultError(WaneditError):
    """A stylist broke its promise: a picture of another size or type, or the source itself. Exit code 1."""


def reword(error: WaneditError, message: str) -> None:
    """Give an error other words; its class, by which it is caught, and its attributes stay."""
    error.args = (message, *error.args[1:])
