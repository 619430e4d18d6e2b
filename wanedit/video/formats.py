"""The kinds of film that are written, by the ending of their name. Light, for the command line reads it too."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from wanedit.errors import InputError

_CLOCK = Fraction(1, 1000)  # seconds: to which Matroska and others round when a frame is shown


@dataclass(frozen=True)
class Format:
    """One kind of film.

    Attributes:
        codec, pixel_format: of the pictures.
        options: of the codec. muxer: of the container.
        best, worst: the codec's own quality for `crf` 0 and 51; None where it has none.
        even: whether both sides must be even.
        max_fps: more than so many frames a second are not shown as they should be.
        sounds: codecs of sound that its players take, and that are copied therefore; ("*",) for whatever FFmpeg can
            store in it. sound: what any other is encoded as; None where there is no sound.
        hides_lead: whether sound before the first picture can be stored and is not played.
    """

    container: str
    codec: str
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    best: int | None = 0
    worst: int | None = 51
    even: bool = True
    max_fps: Fraction | None = None
    sounds: tuple[str, ...] = ()
    sound: str | None = None
    hides_lead: bool = False

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is written of frames of these sides: an odd last row or column may be left out."""
        return (height // 2 * 2, width // 2 * 2) if self.even else (height, width)

    def require_rate(self, fps: Fraction, shortest: Fraction | None = None) -> None:
        """Raise InputError for more frames a second than such a film can show.

        Args:
            shortest: seconds for which a frame is shown at the least, where they are not shown evenly at `fps`.
        """
        if self.max_fps is not None and fps > self.max_fps:
            raise InputError(
                f"fps is {float(fps):.6g}; a film in {self.container} shows {float(self.max_fps):g} at most: expected "
                "fewer, or another ending of output"
            )
        if self.max_fps is not None and shortest is not None and shortest < 1 / self.max_fps - _CLOCK:
            raise InputError(
                f"a frame is shown for {float(shortest):.3g} s; a film in {self.container} shows each for "
                f"{float(1 / self.max_fps):g} s or longer: expected another ending, or fps to space them evenly"
            )

    def quality(self, crf: int) -> int | None:
        """`crf` on the codec's own scale."""
        if self.best is None or self.worst is None:
            return None
        return round(self.best + crf * (self.worst - self.best) / 51)


# x264's macroblock tree, in its AVX-512 form, reads memory beyond small frames: of 64x64 clips one file in twenty then
# differs from the others. Without it the same frames give the same file.
_H264 = {"x264-params": "mbtree=0"}
# Without the second flag mp4 and mov keep only the keys that they know.
_QUICKTIME = {"movflags": "+faststart+use_metadata_tags"}
_APPLE = ("aac", "mp3", "ac3", "eac3", "alac")

FORMATS: dict[str, Format] = {
    ".mp4": Format(
        "mp4",
        "libx264",
        "yuv420p",
        _H264,
        _QUICKTIME,
        sounds=(*_APPLE, "opus", "flac"),
        sound="aac",
        hides_lead=True,
    ),
    ".mov": Format(
        "mov",
        "libx264",
        "yuv420p",
        _H264,
        _QUICKTIME,
        sounds=(*_APPLE, "pcm_*"),
        sound="aac",
        hides_lead=True,
    ),
    ".mkv": Format("matroska", "libx264", "yuv420p", _H264, sounds=("*",), sound="flac"),
    ".webm": Format(
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        worst=63,
        even=False,
        sounds=("opus", "vorbis"),
        sound="libopus",
    ),
    # Its clock ticks in hundredths of a second, and browsers slow down frames of one tick.
    ".gif": Format("gif", "gif", "pal8", best=None, worst=None, even=False, max_fps=Fraction(50)),
}
KNOWN = ", ".join(FORMATS)


def format_of(path: str | Path) -> Format:
    """How a film of this name is written. Raises InputError for an ending that is none of the table's."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: films are written as {KNOWN}, got {suffix or 'no ending'}")
    return FORMATS[suffix]


def own_names(metadata: dict[str, str]) -> dict[str, str]:
    """A film's metadata by the names it was given: Matroska stores capitals, a GIF has one comment for all."""
    found = {name.lower(): text for name, text in metadata.items()}
    with suppress(ValueError, RecursionError):
        inside = json.loads(found.get("comment", ""))
        found |= inside if isinstance(inside, dict) else {}
    return found
