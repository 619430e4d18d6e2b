"""Mutated bytes at every door: only the project's own errors may come out, within ten seconds and two gigabytes, and
nothing that a library prints.

    python benchmarks/fuzz.py --minutes 1                              every door, a minute each
    python benchmarks/fuzz.py --minutes 1 --inputs 5000                the same inputs on every machine, as `make fuzz`
    python benchmarks/fuzz.py --door image --seed 3 --minutes 60       one door, an hour
    python benchmarks/fuzz.py --door image --seed 3 --number 1412      that input alone, kept and with its traceback

An input is drawn from (door, seed, number) and nothing else. Those that something else came out of are written to
outputs/fuzz; a small one belongs into tests/findings/DOOR, where it is tried in every test run.

A door is one function here, under `@door(name, seeds)`: it is called with a folder and the mutated file in it.
"""

import argparse
import contextlib
import copy
import faulthandler
import gc
import io
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the repository's own packages, from wherever it is called
# Idle threads do not outlive a fork, and no model is looked for elsewhere.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from wanedit.errors import WaneditError  # noqa: E402

LONGEST = 10.0  # seconds of processor for one input, and three times as many by the clock
MOST = 2 << 30  # bytes of resident memory
ADDRESSES = 12 << 30  # bytes of address space: what asks for more gets a MemoryError instead of the machine
KEPT = 3  # inputs of one finding
STACK = "stack.txt"  # where a child that is to be killed says what it does


# Seeds: folders whose files are mutated one at a time, the others being as they are.


@dataclass(frozen=True)
class Seed:
    """A file and the folder that it is a part of."""

    folder: Path
    file: Path

    def put(self, content: bytes, place: Path) -> Path:
        """The folder at `place`, with this content for the file, whose path is returned."""
        shutil.rmtree(place, ignore_errors=True)
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path != self.file:
                target = place / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
        file = place / self.file.relative_to(self.folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file


Seeds = Callable[[Path], Iterator[Seed]]
Enter = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        seeds: whole inputs, drawn into an empty folder or found in the repository.
        enter: (folder, mutated file) -> anything.
        speaks: what may be printed on the way, a regular expression of lines.
    """

    name: str
    seeds: Seeds
    enter: Enter
    speaks: str = ""


DOORS: dict[str, Door] = {}


def door(name: str, seeds: Seeds, speaks: str = "") -> Callable[[Enter], Enter]:
    """Register a way in."""

    def register(enter: Enter) -> Enter:
        DOORS[name] = Door(name, seeds, enter, speaks)
        return enter

    return register


def files(*patterns: str) -> Seeds:
    """Files of the repository, each alone in its folder."""

    def found(folder: Path) -> Iterator[Seed]:
        for number, path in enumerate(sorted(one for pattern in patterns for one in ROOT.glob(pattern))):
            alone = folder / str(number) / path.name
            alone.parent.mkdir()
            yield Seed(alone.parent, Path(shutil.copyfile(path, alone)))

    return found


def parts(*patterns: str) -> Callable[[Callable[[Path], object]], Seeds]:
    """The files of these names in a folder that the decorated function fills."""

    def make(fill: Callable[[Path], object]) -> Seeds:
        def found(folder: Path) -> Iterator[Seed]:
            fill(folder)
            for pattern in patterns:
                yield from (Seed(folder, path) for path in sorted(folder.glob(pattern)))

        return found

    return make


# Mutations: of bytes, and of the values that JSON, YAML and the header of safetensors hold.

INTEGERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 2**31, 2**63, -(2**63), 10**25, 10**400, 1e308, float("nan"), float("inf"),
    "", "a", "0", "nan", "1e999", "\0", "\ud800", "\u202e", "/", "..", "../../etc/passwd", "~", "x" * 5000, "9" * 5000,
    [], [[]], {}, {"": {}}, [0] * 1000, "{}", "!!python/object:os.system x", "%s%n", "\x1b[31m", "\r\n", "1:2:3", "=",
)  # fmt: skip


def bytewise(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One step: a bit flipped, a number laid over or put in, a piece cut out, doubled or taken from another file."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))
    # Formats are decided by their heads.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
    at, length = rng.randrange(reach), min(len(data), rng.choice((1, 2, 4, 16, 256, 4096)))
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    number = (rng.choice(INTEGERS) % (1 << 8 * size)).to_bytes(size, order)  # pyright: ignore[reportArgumentType]
    match rng.randrange(9):
        case 0 | 1:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 2 | 3:
            return data[:at] + number + data[at + size :]
        case 4:
            return data[:at] + number + data[at:]
        case 5:
            return data[: rng.randrange(len(data))]
        case 6:
            return data[:at] + data[at + length :]
        case 7:
            return data[: at + length] + data[at : at + length] * rng.randrange(1, 4) + data[at + length :]
        case _:
            start = rng.randrange(max(1, len(other)))
            return data[:at] + other[start : start + length] + data[at + length * rng.randrange(2) :]


def valuewise(value: Any, rng: random.Random) -> Any:
    """One value, somewhere inside, exchanged, left out, doubled, nested or under another name."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                walk(node[key])

    value = copy.deepcopy(value)
    walk(value)
    if not places:
        return rng.choice(VALUES)
    node, key = rng.choice(places)
    match rng.randrange(7):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[str(rng.choice(VALUES))] = node.pop(key)
        case 2:
            # Thousands of thousands would fill this program's memory, not wanedit's.
            node[key] = [node[key]] * rng.choice((1, 2, 2 if isinstance(node[key], dict | list) else 1000))
        case 3:
            for _ in range(rng.choice((10, 100, 400))):
                node[key] = [node[key]] if rng.random() < 0.5 else {"a": node[key]}
        case 4:
            other, name = rng.choice(places)
            node[key] = copy.deepcopy(other[name])
        case _:
            node[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def deep(rng: random.Random) -> str:
    """Nested as no library's stack allows, or aliases that spell out more than any memory."""
    if rng.random() < 0.3:
        return "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
    opened = rng.choice(("[", '{"a":', "- ", "(")) * rng.choice((500, 5000, 100_000))
    return opened + rng.choice(("", "]" * 5000, "}" * 5000))


def textwise(data: bytes, rng: random.Random) -> bytes | None:
    """A mutation of what a JSON or YAML text says; None for what is neither."""
    try:
        text = data.decode()
        value = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(value, dict | list):
        return None
    if rng.random() < 0.05:
        return deep(rng).encode()
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            value = valuewise(value, rng)
        text = json.dumps(value)  # which YAML reads, too
    except (ValueError, RecursionError):
        return None
    if len(text) > 1 << 17:  # as long as honest ones are; PyYAML reads 100 kB a second
        return None
    if isinstance(value, dict) and value and rng.random() < 0.1:
        text = text[:-1] + ", " + json.dumps({rng.choice(list(value)): rng.choice(VALUES)})[1:]  # a key twice
    return text.encode("utf-8", "surrogatepass")


def mutated(data: bytes, suffix: str, other: bytes, rng: random.Random) -> bytes:
    """A few steps away from a whole input."""
    found: bytes | None = None
    if suffix == ".safetensors" and rng.random() < 0.7:
        size = struct.unpack("<Q", data[:8])[0]
        header = textwise(data[8 : 8 + size], rng) or b""
        found = struct.pack("<Q", len(header)) + header + data[8 + size :]
    elif suffix in (".json", ".yaml") and rng.random() < 0.7:
        found = textwise(data, rng)
    elif suffix == ".jsonl" and rng.random() < 0.7:
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = textwise(lines[at], rng) or b""
        found = b"\n".join(lines) + b"\n"
    if found is None or rng.random() < 0.1:
        found = data if found is None else found
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            found = bytewise(found, other, rng)
    return found


# Doors.


def picture_seeds(folder: Path) -> Iterator[Seed]:
    """Of every format, as cameras and programs write them, and small ones in every storage that Pillow writes."""
    from PIL import Image

    yield from files("tests/cases/key*", "tests/cases/anim.*", "tests/cases/k0.png")(folder)
    rgb = Image.radial_gradient("L").resize((40, 30))
    rgb = Image.merge("RGB", (rgb, rgb.rotate(90), rgb.rotate(180)))
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("tif", "RGB", {"compression": name})
        for name in ("raw", "tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")
    ]
    ways += [("tif", mode, {}) for mode in ("1", "P", "LA", "CMYK", "I;16", "F")]
    ways += [
        ("bmp", "P", {}),
        ("ppm", "RGB", {}),
        ("gif", "P", {}),
        ("jp2", "RGB", {}),
        ("png", "P", {"bits": 4}),
        ("webp", "RGBA", {}),
    ]
    for number, (suffix, mode, options) in enumerate(ways):
        path = folder / f"drawn{number}" / f"picture.{suffix}"
        path.parent.mkdir()
        rgb.convert("L" if mode in ("I;16", "LA") else mode).convert(mode).save(path, **options)
        yield Seed(path.parent, path)


# libtiff writes to the terminal itself, "function: message", and Pillow has no way to keep it from that.
@door("image", picture_seeds, speaks=r"\w+: .*|\w*\.tif: .*|.*TIFF.*|.* per pixel .*")
def open_image(folder: Path, file: Path) -> None:
    from wanedit.stylists.gemini.pictures import decode
    from wanedit.video.images import count_pictures, load_animation, load_image

    count_pictures(file)
    one(decode, file.read_bytes(), "image/png")
    one(load_image, file)

    def play() -> None:
        seen = 0
        for picture, _ in load_animation(file):
            if (
                seen := seen + picture.pixels.size
            ) > 1 << 26:  # a head may ask for many and large ones, honestly
                break

    one(play)


def one(call: Callable[..., object], *arguments: object) -> None:
    """One of several calls with an input: what it may refuse, the next one is to refuse as well."""
    with contextlib.suppress(WaneditError):
        call(*arguments)


def film_seeds(folder: Path) -> Iterator[Seed]:
    """Cases of cameras and browsers, and small films of every container and codec."""
    import av
    import numpy as np
    from av.error import FFmpegError

    endings = ("mp4", "mov", "mkv", "webm", "avi", "ts", "gif", "webp")
    yield from files(*(f"tests/cases/[!k]*.{ending}" for ending in endings))(folder)
    kinds = {"mp4": "mpeg4", "mkv": "ffv1", "avi": "mjpeg", "flv": "flv", "gif": "gif", "apng": "apng", "ivf": "vp8",
             "wmv": "wmv2", "mxf": "mpeg2video", "h264": "libx264", "y4m": "rawvideo", "mpg": "mpeg2video"}  # fmt: skip
    for suffix, codec in kinds.items():
        path = folder / suffix / f"film.{suffix}"
        path.parent.mkdir()
        try:
            with av.open(path, "w") as film:
                stream: Any = film.add_stream(codec, rate=25)
                stream.width, stream.height = 64, 48
                stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p")
                for shade in range(8):
                    picture = av.VideoFrame.from_ndarray(
                        np.full((48, 64, 3), 30 * shade, np.uint8), format="rgb24"
                    )
                    film.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
                film.mux(stream.encode(None))
        except (FFmpegError, ValueError):  # which this FFmpeg does not write
            continue
        yield Seed(path.parent, path)


@door("film", film_seeds)
def open_film(folder: Path, file: Path) -> None:
    from wanedit.video.formats import FORMATS
    from wanedit.video.sound import sound_of
    from wanedit.video.source import open_source

    def read(salvage: bool) -> None:
        clip = open_source(file, salvage=salvage)
        for _ in clip.frames.read(0, min(3, len(clip.frames))):
            pass
        sound_of(file, clip.clock, None, FORMATS[".mp4"])

    one(read, False)
    one(read, True)


def sound_seeds(folder: Path) -> Iterator[Seed]:
    """A second of every codec."""
    import av
    import numpy as np
    from av.error import FFmpegError

    kinds = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac", "ogg": "libvorbis", "opus": "libopus",
             "m4a": "aac", "aiff": "pcm_s16be", "ac3": "ac3", "caf": "pcm_s16le", "mka": "flac"}  # fmt: skip
    for suffix, codec in kinds.items():
        path = folder / suffix / f"sound.{suffix}"
        path.parent.mkdir()
        try:
            with av.open(path, "w") as file:
                stream: Any = file.add_stream(codec, rate=48_000)
                wave = (8000 * np.sin(np.arange(48_000) / 30)).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                frame.sample_rate = 48_000
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    file.mux(packet)
        except (FFmpegError, ValueError):
            continue
        yield Seed(path.parent, path)


@door("sound", sound_seeds)
def open_sound(folder: Path, file: Path) -> None:
    import numpy as np

    from wanedit.video.encode import write_video
    from wanedit.video.formats import FORMATS
    from wanedit.video.sound import sound_file

    sound, _ = sound_file(file, Fraction(1, 4), FORMATS[".mp4"])
    for suffix in (".mp4", ".mkv"):
        frames = (np.zeros((16, 16, 3), np.uint8) for _ in range(4))
        write_video(folder / f"film{suffix}", frames, 16, sound=sound)


@door("settings", files("examples/*/config.yaml", "configs/*/*.yaml", "tests/cases/*.yaml"), speaks=".*")
def open_settings(folder: Path, file: Path) -> None:
    from wanedit import cli

    for command in ("generate", "edit", "style"):
        call_command(cli.main, command, "--config", str(file), "--output", str(folder / "out"))


def call_command(main: Callable[[Sequence[str]], int], *words: str) -> None:
    """A command up to its plan; it tells its own errors by their exit code."""
    code = main([*words, "--dry_run"])
    assert code in (0, 2, 3, 4), f"exit code {code}"


@door("experiment", files("experiments/0*/grid.yaml"))
def open_experiment(folder: Path, file: Path) -> None:
    from wanedit.jobs.ablate.grid import load_grid, points

    grid = load_grid(folder)
    for _, _ in zip(points(grid), range(1000), strict=False):
        pass


@parts("words.txt")
def word_seeds(folder: Path) -> None:
    for name in ("a.png", "b.png", "1,5:2.png"):
        (folder / name).write_bytes(b"")
    (folder / "words.txt").write_text(
        "a.png:0.0,b.png:3.0, 1,5:2.png:4e0,a.png:7,[[a.png, 1.5], {path: b.png, time: 2}]"
    )


@door("words", word_seeds)
def open_words(folder: Path, file: Path) -> None:
    from wanedit.commands.support import load_yaml
    from wanedit.runtime.inputs import parse_edited, parse_keyframes
    from wanedit.timeline import rate_of

    text = file.read_bytes().decode("utf-8", "surrogateescape")
    one(parse_keyframes, text, [folder])
    one(parse_edited, text, [folder])
    one(rate_of, text)
    try:
        value = load_yaml(text)
    except yaml.YAMLError:  # by which jsonargparse knows a text
        return
    if isinstance(value, list):
        one(parse_keyframes, value, [folder])
        one(parse_edited, value, [folder])


@parts("keyframes.json")
def keyframe_seeds(folder: Path) -> None:
    entries = [{"file": f"{k}.png", "frame": 8 * k, "seconds": k / 2, "size": [4, 4]} for k in range(3)]
    for entry in entries:
        (folder / str(entry["file"])).write_bytes(b"")
    record = {"wanedit": "1.0", "start": 0, "fps": 16.0, "num_frames": 17, "keyframes": entries}
    (folder / "keyframes.json").write_text(json.dumps(record))


@door("keyframes", keyframe_seeds)
def open_keyframes(folder: Path, file: Path) -> None:
    from wanedit.runtime.inputs import parse_edited, parse_keyframes
    from wanedit.runtime.outputs import is_own

    one(parse_keyframes, folder)
    one(parse_edited, str(folder))
    is_own(file)


@parts("scene*.json")
def scene_seeds(folder: Path) -> None:
    edits = (
        None,
        "recolour",
        {"kind": "recolour", "sprite": 0, "value": "blue"},
        {"kind": "background", "value": {"colours": ["red", "blue"]}},
    )
    for number, edit in enumerate(edits):
        values = {
            "seed": 3,
            "split": "test",
            "sprites": 2,
            "duration": 1.0,
            "fps": 16,
            "start": 0.0,
            "edit": edit,
        }
        (folder / f"scene{number}.json").write_text(json.dumps(values))


@door("scene", scene_seeds)
def open_scene(folder: Path, file: Path) -> None:
    import numpy as np

    from wanedit.jobs.evaluate.inputs import read_scene

    truth = read_scene(file, np.zeros((2, 16, 16, 3), np.uint8))
    truth.frames[0:1]


@parts("*.json", "*/*.json", "*.jsonl")
def cache_seeds(folder: Path) -> None:
    """What wanedit keeps for itself, which is never worth an error."""
    import numpy as np

    from wanedit.stylists.cache import Cache
    from wanedit.stylists.protocol import Styled

    (folder / "wanedit").mkdir()
    (folder / "wanedit" / "sha256.json").write_text(json.dumps({"/a|1|2": "0" * 64}))
    Cache(folder).write_styled("0" * 32, Styled(np.zeros((4, 4, 3), np.uint8), {"stylist": "palette"}))
    run = {"run_id": "abcdefgh", "offset": 3, "rows": 1, "artifacts": []}
    (folder / "tracking.json").write_text(json.dumps({"version": 1, "runs": {"csv": run}}))
    (folder / "result.json").write_text(json.dumps({"measures": {"psnr": 3.5}}))
    (folder / "metrics.jsonl").write_text(
        '{"event": "start", "seed": 1}\n{"event": "step", "step": 1, "h": "nan"}\n'
    )


@door("cache", cache_seeds)
def open_cache(folder: Path, file: Path) -> None:
    from wanedit.runtime.events import read_events, recorded_steps
    from wanedit.runtime.pool import read_outcome
    from wanedit.stylists.cache import Cache, Journal, is_journal
    from wanedit.tracking.record import find_record, new_rows, write_metrics_csv
    from wanedit.wan.checkpoint import sha256

    Cache(folder).read_styled("0" * 32)
    find_record(folder, "csv")
    read_outcome(folder / "result.json")
    recorded_steps(read_events(folder / "metrics.jsonl"), None)
    new_rows(folder / "metrics.jsonl", 0)
    write_metrics_csv(folder / "metrics.jsonl", folder / "metrics.csv")
    is_journal(file)
    Journal(file)
    before = os.environ.get("XDG_CACHE_HOME", "")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    sha256(file)
    os.environ["XDG_CACHE_HOME"] = before


@parts("config.yaml", "metrics.jsonl", "segments/progress.json")
def run_seeds(folder: Path) -> None:
    """A real run of two keyframes."""
    from PIL import Image

    from wanedit import GenerationConfig, generate

    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (32, 32), colour).save(folder / f"{name}.png")
    generate(
        GenerationConfig(
            keyframes=[[str(folder / "a.png"), 0.0], [str(folder / "b.png"), 0.25]],
            size="32*32", num_inference_steps=1, base_seed=1, cpu_threads=1, output=folder,
        ),
        verbose=False,
    )  # fmt: skip


@door("run", run_seeds)
def open_run(folder: Path, file: Path) -> None:
    from wanedit.report import write_report
    from wanedit.runtime.directory import Manifest, RunDirectory
    from wanedit.runtime.outputs import is_own
    from wanedit.runtime.record import own_record, read_run

    directory = RunDirectory(folder, folder / "output_final.mp4")
    is_own(file)
    one(own_record, "generate", directory)
    one(lambda: Manifest(directory).complete(list(Manifest(directory).read())))
    one(write_report, folder, None, "none")
    one(read_run, folder)


@parts("*.json", "*.safetensors", "*.pth")
def model_seeds(folder: Path) -> None:
    from tests.wan.folders import write_folder

    write_folder(folder)


@door("model", model_seeds)
def open_model(folder: Path, file: Path) -> None:
    from wanedit.wan import load_wan
    from wanedit.wan.layout import check_folder

    one(check_folder, folder)
    load_wan(folder)


@parts("google/umt5-xxl/*.json")
def tokenizer_seeds(folder: Path) -> None:
    shutil.copytree(ROOT / "wanedit" / "assets" / "wan-tiny" / "google", folder / "google")


@door("tokenizer", tokenizer_seeds, speaks=r"Ignored unknown kwarg option .*")
def open_tokenizer(folder: Path, file: Path) -> None:
    from wanedit.wan.condition import count_tokens, load_tokenizer
    from wanedit.wan.formats.layouts import OfficialFolder

    source = OfficialFolder(folder)
    one(count_tokens, source, ["a red ball", "Füße 风\ud7ff"])
    tokenizer, _ = load_tokenizer(source.tokenizer(), 16)
    tokenizer(["a red ball"], return_mask=True, add_special_tokens=True)


# Trying inputs: a child process enters, its parent watches its time and memory.


@dataclass
class Tally:
    """What came of one door."""

    door: Door
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    findings: Counter[str] = field(default_factory=Counter)

    def row(self) -> str:
        slowest = f"{self.slowest[0]:.2f} (number {self.slowest[1]})"
        cells = (
            self.door.name,
            self.inputs,
            self.refused,
            self.findings.total(),
            f"{self.seconds:.0f}",
            slowest,
            self.peak >> 20,
        )
        return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "| door | inputs | refused | findings | seconds | slowest, s | peak, MB |\n|---|---|---|---|---|---|---|"
)


class Board:
    """What a child shows its parent: the number it is at, since when by the clock and by its own processor time, its
    slowest, and how many were refused."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 48)

    def write(self, number: int, slowest: float, at: int, refused: int) -> None:
        now = time.monotonic(), time.process_time()
        self.memory[:] = struct.pack("<qdddqq", number, *now, slowest, at, refused)

    def read(self) -> tuple[int, float, float, float, int, int]:
        return struct.unpack("<qdddqq", self.memory[:])


def drawn(door: Door, seeds: Sequence[Seed], seed: int, number: int) -> tuple[Seed, bytes]:
    """The input of this number."""
    rng = random.Random(f"{door.name} {seed} {number}")
    chosen, other = rng.choice(seeds), rng.choice(seeds)
    return chosen, mutated(chosen.file.read_bytes(), chosen.file.suffix, other.file.read_bytes(), rng)


def enter(door: Door, seed: Seed, content: bytes, place: Path, noise: Any) -> str:
    """Try an input: "" where it is taken, "refused", or what should not have come out."""
    noise.seek(0)
    noise.truncate()
    file = seed.put(content, place)
    outcome = ""
    try:
        door.enter(place, file)
    except WaneditError:
        outcome = "refused"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/wanedit/" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
        return f"{type(error).__name__} in {where}: {str(error)[:120]}\n{traceback.format_exc()}"
    sys.stdout.flush()
    noise.seek(0)
    for line in noise.read().decode(errors="replace").splitlines():
        if not re.fullmatch(door.speaks, line):
            return f"printed: {line[:200]}"
    return outcome


def tried(door: Door, found: Path, folder: Path) -> str:
    """What comes of a finding that was kept as DOOR-WHY.ENDING or, of one file of a folder, DOOR-WHY--NAME."""
    name = found.name.partition("--")[2]
    (folder / "seeds").mkdir(parents=True)
    seeds = [seed for seed in door.seeds(folder / "seeds") if seed.file.name == name] if name else []
    alone = folder / "alone" / found.name
    with tempfile.TemporaryFile() as noise:
        return enter(
            door,
            seeds[0] if seeds else Seed(alone.parent, alone),
            found.read_bytes(),
            folder / "place",
            noise,
        )


def child(
    door: Door,
    seeds: Sequence[Seed],
    seed: int,
    numbers: range,
    until: float,
    board: Board,
    told: Path,
    place: Path,
) -> None:
    """Enter with one input after the other; a finding is a line of JSON in `told`."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("always")  # those that a user is shown
    for hidden in (ResourceWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", hidden)
    faulthandler.register(signal.SIGUSR1, (place.parent / STACK).open("w"))
    slowest, at, refused = 0.0, 0, 0
    with tempfile.TemporaryFile() as noise, told.open("w") as findings:
        os.dup2(noise.fileno(), 1)
        os.dup2(noise.fileno(), 2)
        for number in numbers:
            start = time.process_time()
            if time.monotonic() > until:
                return
            board.write(number, slowest, at, refused)
            outcome = enter(door, *drawn(door, seeds, seed, number), place, noise)
            took = time.process_time() - start
            slowest, at = max((slowest, at), (took, number))
            refused += outcome == "refused"
            if outcome not in ("", "refused"):
                findings.write(json.dumps([number, outcome]) + "\n")
                findings.flush()
            board.write(number, slowest, at, refused)


def fuzz(door: Door, seed: int, numbers: range, minutes: float, folder: Path, kept: Path) -> Tally:
    """Enter a door for some minutes, in one child after the other: one ends with its time, or with a finding."""
    tally, start = Tally(door), time.monotonic()
    seeds = seeds_of(door, folder / "seeds")
    until, number = time.monotonic() + 60 * minutes, numbers.start
    while time.monotonic() < until and number in numbers:
        board, told = Board(), folder / "findings.jsonl"
        board.write(number, 0.0, 0, 0)
        if (process := os.fork()) == 0:
            try:
                child(door, seeds, seed, range(number, numbers.stop), until, board, told, folder / "place")
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        ended, peak = watched(process, board, folder / STACK)
        at, _, _, slowest, slow, refused = board.read()
        found = [tuple(json.loads(line)) for line in told.read_text().splitlines()]
        found += [(at, ended)] if ended else []
        for place, outcome in found:
            keep(tally, seeds, seed, place, outcome, kept)
        tally.inputs += at - number + 1
        tally.refused += refused
        tally.peak = max(tally.peak, peak)
        tally.slowest = max(tally.slowest, (slowest, slow))
        number = at + 1
    tally.seconds = time.monotonic() - start
    return tally


def watched(process: int, board: Board, stack: Path) -> tuple[str, int]:
    """Why a child had to end, "" if by itself; and the most memory that it held."""
    peak, why, stopped = 0, "", False
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            killed = f"died by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else ""
            return why or killed or ("ended by itself" if status else ""), peak
        try:
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
        peak = max(peak, pages * mmap.PAGESIZE)
        _, since, used, *_ = board.read()
        used = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") - used
        if not why and peak > MOST:
            why = f"more than {MOST >> 20} MB"
        if not why and (used > LONGEST or time.monotonic() - since > 3 * LONGEST):
            why = f"longer than {LONGEST:g} s"
        if why and not stopped:
            stopped = True
            os.kill(process, signal.SIGUSR1)
            time.sleep(0.2)
            os.kill(process, signal.SIGKILL)
            why += f"\n{stack.read_text()}"
        time.sleep(0.05)


def keep(tally: Tally, seeds: Sequence[Seed], seed: int, number: int, outcome: str, kept: Path) -> None:
    """Count a finding, and write the first inputs of its kind."""
    kind, _, trace = outcome.partition("\n")
    chosen, content = drawn(tally.door, seeds, seed, number)
    if "in " not in kind:
        kind += f" ({chosen.file.name})"
    tally.findings[kind.partition(": ")[0]] += 1
    if tally.findings[kind.partition(": ")[0]] > KEPT:
        return
    kept.mkdir(parents=True, exist_ok=True)
    name = kept / f"{tally.door.name}-{seed}-{number}"
    name.with_suffix(chosen.file.suffix).write_bytes(content)
    again = f"python benchmarks/fuzz.py --door {tally.door.name} --seed {seed} --number {number}"
    name.with_suffix(".log").write_text(
        f"{again}\n{chosen.file.name}: {kind}\n{trace}", errors="backslashreplace"
    )
    print(f"{tally.door.name}: {kind}\n    {again}", flush=True)


def seeds_of(door: Door, folder: Path) -> list[Seed]:
    """The seeds of a door, each of which passes through it; what is imported on the way is there for all children."""
    folder.mkdir(parents=True)
    seeds = list(door.seeds(folder))
    assert seeds, f"{door.name} has no seeds"
    quiet = io.StringIO()
    with (
        tempfile.TemporaryFile() as noise,
        contextlib.redirect_stderr(quiet),
        contextlib.redirect_stdout(quiet),
    ):
        for seed in seeds:
            outcome = enter(door, seed, seed.file.read_bytes(), folder.parent / "place", noise)
            assert outcome in ("", "refused"), f"{door.name}: {seed.file.name}: {outcome}"
    # Among what torch and transformers leave behind, every collection in a child takes seconds.
    gc.collect()
    gc.freeze()
    return seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--door", choices=sorted(DOORS), help="one alone; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--number", type=int, help="try this input of the door alone")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each door")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="at most so many of each door")
    parser.add_argument("--jobs", type=int, default=1, help="doors side by side")
    parser.add_argument("--kept", type=Path, default=ROOT / "outputs" / "fuzz", help="where findings go")
    given = parser.parse_args()
    if given.door is None:
        print(f"seed {given.seed}\n\n{HEAD}", flush=True)
        with ThreadPoolExecutor(given.jobs) as pool:
            return max(
                pool.map(
                    lambda name: subprocess.call([sys.executable, __file__, "--door", name, *sys.argv[1:]]),
                    DOORS,
                )
            )
    numbers = range(given.inputs) if given.number is None else range(given.number, given.number + 1)
    with tempfile.TemporaryDirectory() as scratch:
        tally = fuzz(DOORS[given.door], given.seed, numbers, given.minutes, Path(scratch), given.kept)
    print(tally.row(), flush=True)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
