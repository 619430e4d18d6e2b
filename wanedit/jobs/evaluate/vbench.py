"""A video added to a folder as VBench reads it.

    DIR/videos/{prompt}-{index}.mp4     the video; the index is the first free one of its prompt; a video is added once
    DIR/prompt_file.json                {file name: prompt}
    DIR/images/{prompt}.png             the picture that it was made from, for VBench-I2V

    vbench evaluate --mode=custom_input --videos_path DIR/videos --prompt_file DIR/prompt_file.json --dimension …

VBench takes every mp4, gif, jpg and png of `videos` for a video and, in its standard mode, the suffix of the first file
for that of all, so nothing else lies there (Vchitect/VBench, `vbench/__init__.py`; VBench-I2V's README, section 4).
"""

import hashlib
import json
import os
import re
from filecmp import cmp
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.files import read_json, system_errors, temporary, write_text
from wanedit.runtime.outputs import check_outputs
from wanedit.video import write_png, write_video
from wanedit.video.arrays import Clip
from wanedit.video.formats import format_of

# Bytes of a file name on common file systems, and what of them an index and a suffix may take.
LONGEST, RESERVED = 255, 16
# The quality with which VBench-I2V's README has videos written.
CRF = 10
# A separator, what Windows refuses, and control characters.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


@system_errors()
def export(
    folder: Path,
    frames: Clip,
    fps: Fraction | float,
    prompt: str,
    picture: UInt8[np.ndarray, "_ _ 3"] | None = None,
) -> tuple[str, ...]:
    """Add one video, unless it is there already. Returns what a person should know: where it is, and what its name or
    size could not keep.

    Raises:
        InputError: no prompt; or a folder that cannot be one, or whose prompt file is not one.
    """
    prompt = " ".join(prompt.split())
    if not prompt:
        raise InputError("vbench: the video has no prompt; expected one, by which VBench names it")
    stem, videos = file_stem(prompt), folder / "videos"
    prompts = _prompts(folder / "prompt_file.json")
    videos.mkdir(parents=True, exist_ok=True)
    image, names = folder / "images" / f"{stem}.png", (f"{stem}-{k}.mp4" for k in count())
    check_outputs([] if picture is None else [image])
    with temporary(folder / f".{os.getpid()}.mp4") as made:
        write_video(made, frames, fps, crf=CRF)
        height, width = format_of(made).fitted(*frames.shape[1:3])
        # The same film again, as after a call that was cut short, is in its place already.
        name = next(
            name for name in names if not (place := videos / name).exists() or cmp(place, made, shallow=False)
        )
        os.replace(made, videos / name)
    write_text(
        folder / "prompt_file.json", json.dumps(prompts | {name: prompt}, ensure_ascii=False, indent=1) + "\n"
    )
    if picture is not None:
        image.parent.mkdir(exist_ok=True)
        write_png(image, picture)
    notes = [f"vbench: {videos / name}"]
    if stem != prompt:
        notes.append(
            "vbench: the file's name cannot hold the whole prompt, which VBench would read from it; give it "
            "prompt_file.json"
        )
    if (height, width) != frames.shape[1:3]:
        notes.append(
            f"vbench: {frames.shape[2]}x{frames.shape[1]} is odd; the last row or column is left out"
        )
    return tuple(notes)


def file_stem(prompt: str) -> str:
    """The prompt as a file's name: itself where that is possible, else without what a name cannot hold.

    A changed name ends with the beginning of the prompt's hash, so that two prompts never share one.
    """
    safe = _UNSAFE.sub("_", prompt).lstrip(".")
    if safe == prompt and len(prompt.encode()) <= LONGEST - RESERVED:
        return prompt
    mark = " " + hashlib.sha256(prompt.encode()).hexdigest()[:8]
    kept = safe.encode()[: LONGEST - RESERVED - len(mark)].decode(errors="ignore")
    return kept.rstrip() + mark


def _prompts(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return read_json(path, "file names and prompts, as VBench reads them")
