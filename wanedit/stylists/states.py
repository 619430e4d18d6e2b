"""What a keyframe can be on its way through the workflow, and how the workflow can end badly.

A run is a sequence of transitions, each one line of the journal:

    analysed                                        once
    restyled -> accepted                            for each keyframe, the first one before all others
             -> rejected -> restyled -> …           at most `retries` times again, told the reasons
             -> rejected -> given_up | kept          after the last attempt
    failed, cancelled                               where a run ends early
    spent                                           once, by a stylist that costs: what this run was billed
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wanedit.errors import WaneditError
from wanedit.stylists.protocol import StyleGuide, Verdict


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
    provenance: dict[str, Any] = Field(default_factory=dict)


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


State = Annotated[
    Analysed | Restyled | Accepted | Rejected | Kept | GivenUp | Failed | Cancelled | Spent,
    Field(discriminator="state"),
]
STATE: TypeAdapter[Any] = TypeAdapter(State)


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
