"""Bytes from anywhere: whatever they are, one of our errors comes out, at once, and names the file."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import fuzz
from tests.video.test_sound import film
from wanedit import files
from wanedit.errors import InputError, MissingWeightsError, ResourceError, WaneditError
from wanedit.files import at_home, parse_yaml, read_json, read_yaml, reading
from wanedit.jobs.evaluate.inputs import read_scene
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.inputs import parse_edited, parse_keyframes
from wanedit.runtime.record import read_settings
from wanedit.runtime.settingsfile import read_lines
from wanedit.video import decode, display, images, libav, load_image, probe, read_frames, sound, write_video
from wanedit.video.formats import FORMATS
from wanedit.video.sound import sound_file
from wanedit.wan.checkpoint import Part, sha256
from wanedit.wan.config import read_model_json
from wanedit.wan.formats.layouts import OfficialFolder
from wanedit.wan.formats.tensors import read_file

READERS: dict[str, Callable[[Path], object]] = {
    "picture.png": load_image,
    "film.mp4": probe,
    "sound.wav": lambda path: sound_file(path, fuzz.Fraction(1), FORMATS[".mp4"]),
    "settings.yaml": read_lines,
    "config.yaml": read_settings,
    "progress.json": lambda path: Manifest(journal_at(path)).read(),
    "scene.json": lambda path: read_scene(path, np.zeros((1, 8, 8, 3), np.uint8)),
    "config.json": read_model_json,
    "weights.safetensors": read_file,
    "weights.pth": read_file,
    "weights.gguf": read_file,
}


def journal_at(path: Path) -> RunDirectory:
    """The folder of a run whose journal stands there."""
    folder = RunDirectory(path.parent, path.parent / "film.mp4")
    return mock.Mock(spec=RunDirectory, progress=path, segments=path.parent, queue=folder.queue)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)  # whose own name may be too long for a socket's
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_what_is_no_file(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    KINDS[kind](path)
    with pytest.raises((InputError, MissingWeightsError), match=f"{name}.*{kind}"):
        READERS[name](path)


def test_a_file_that_may_not_be_read_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"x" * 100)
    # Whoever runs the tests as root may read everything.
    refused = PermissionError(13, "Permission denied", str(path))
    with (
        mock.patch("builtins.open", side_effect=refused),
        pytest.raises(ResourceError, match=r"picture\.png: Permission denied; allow it"),
    ):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 5000])
@pytest.mark.parametrize("name", READERS)
def test_what_parses_as_nothing_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WaneditError, match=name):
        READERS[name](path)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("t"),
        RecursionError(),
        MemoryError(),
        SystemError(),
        IndexError(),
        KeyError("k"),
        OSError("o"),
    ],
)
def test_whatever_a_parser_raises_is_told_as_an_error_about_its_file(error: Exception) -> None:
    with (
        pytest.raises(MissingWeightsError, match=r"^here: .*; expected a thing$") as caught,
        reading("here", "a thing", MissingWeightsError),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_our_own_errors_and_interrupts_pass_as_they_are() -> None:
    for error in (ResourceError("full"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, reading("here", "a thing"):
            raise error
        assert caught.value is error


PLANTED: dict[str, tuple[object, str, Callable[[Path], object]]] = {
    "picture.png": (images, "_eight_bits", load_image),
    "film.mp4": (decode, "scan", probe),
    "shown.mp4": (decode, "display_of", probe),
    "heard.mp4": (sound, "_tracks", READERS["sound.wav"]),
}
MISTAKES = {
    "nothing_of_that_name": NameError,
    "assert False": AssertionError,
    "from wanedit import nothing_of_it": ImportError,
    "import os; os.nothing": AttributeError,
}


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.parametrize("name", PLANTED)
def test_a_mistake_of_ours_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    path, (module, function, read) = tmp_path / name, PLANTED[name]
    if path.suffix == ".png":
        Image.new("RGB", (16, 16)).save(path)
    else:
        write_video(path, np.zeros((5, 32, 32, 3), np.uint8), 16)
    wrong = {"__name__": "wanedit.planted"}
    exec(f"def one(*_): {line}", wrong)
    monkeypatch.setattr(module, function, wrong["one"])
    with pytest.raises(MISTAKES[line]):
        read(path)


def sound_of_a_film(path: Path) -> None:
    with av.open("/dev/null", "w", format="mp4") as out:
        list(sound.sound_packets(sound.Sound(path, fuzz.Fraction(0), fuzz.Fraction(1)), out, FORMATS[".mp4"]))


@pytest.mark.parametrize(
    ("module", "function", "read"),
    [
        (libav, "packets", probe),
        (decode, "display_of", probe),
        (libav, "display_of", read_frames),
        (display, "_upright", read_frames),
        (sound, "_end", READERS["sound.wav"]),
        (sound, "_names", sound_of_a_film),
        (sound._Copied, "take", sound_of_a_film),
    ],
)
def test_whatever_our_own_work_on_a_film_raises_is_no_damage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    function: str,
    read: Callable[[Path], object],
) -> None:
    path = tmp_path / "film.mp4"
    film(path, seconds=0.3)
    read(path)
    wrong = {"__name__": "wanedit.planted"}
    exec("def one(*_): [][1]", wrong)
    monkeypatch.setattr(module, function, wrong["one"])
    with pytest.raises(IndexError):
        read(path)


def test_whatever_our_own_work_on_a_picture_raises_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (16, 16)).save(path)
    monkeypatch.setattr(images, "_eight_bits", mock.Mock(side_effect=TypeError("ours")))
    with pytest.raises(TypeError, match="ours"):
        load_image(path)


def test_the_mistakes_of_parsers_are_damage() -> None:
    def parse() -> None:
        raise AssertionError("of a library")

    with pytest.raises(InputError, match="of a library"), reading("here", "a thing"):
        parse()


def test_aliases_that_spell_out_billions_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = [f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 60)]
    path.write_text("\n".join(["a0: &a0 [x]", *lines]))
    for read in (read_lines, lambda path: read_yaml(path, "settings")):
        with pytest.raises(InputError, match=r"bomb\.yaml: .*more than 100000 values"):
            read(path)
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [" + "1," * 200_000 + "1]", "it has more than 100000 values"),
        ("- " * 300_000, "is nested too deeply"),
        ("# a\n" * (1 << 20) + "\n", "has 4194305 bytes; .* of 4194304 bytes at most"),
    ],
)
def test_settings_that_take_a_minute_to_read_are_refused_in_seconds(
    tmp_path: Path, text: str, said: str
) -> None:
    (path := tmp_path / "long.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(InputError, match=rf"long\.yaml: {said}"):
        read_lines(path)
    assert time.process_time() - began < 10


def test_a_text_larger_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "endless.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        InputError, match=f"has {1 << 40} bytes; expected a record, of {files.MAX_TEXT} bytes"
    ):
        read_json(path, "a record")


def test_a_cache_that_cannot_be_read_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept, weights = tmp_path / "wanedit" / "sha256.json", tmp_path / "weights"
    weights.write_bytes(b"abc")
    right = sha256(weights)
    (key,) = json.loads(kept.read_text())
    for damaged in (
        "[1, 2]",
        "[" * 100_000,
        "nonsense",
        json.dumps({key: ["not", "a", "hash"]}),
        json.dumps({key: "0"}),
    ):
        kept.write_text(damaged)
        assert sha256(weights) == right
        assert json.loads(kept.read_text()) == {key: right}


@pytest.mark.parametrize(
    "words", ["~\0/a.png:0", "~nobody-of-this-name/a.png:0.5", [["a.png", 10**400]], "\udcff:1"]
)
def test_keyframes_that_name_no_path_or_time_are_refused(words: str | list, tmp_path: Path) -> None:
    for parse in (parse_keyframes, parse_edited):
        with pytest.raises(InputError, match="keyframe"):
            parse(words, [tmp_path])


def test_a_home_that_there_is_not_is_a_name_like_any_other() -> None:
    assert at_home("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert at_home("~/x") == Path.home() / "x"


FOUND = sorted((Path(__file__).parent / "findings").iterdir())
# Doors behind which a model's libraries are imported.
HEAVY = ("model-", "run-", "tokenizer-")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * path.name.startswith(HEAVY), id=path.name)
        for path in FOUND
    ],
)
def test_nothing_that_was_found_at_a_door_is_found_again(path: Path, tmp_path: Path) -> None:
    door = fuzz.DOORS[path.name.partition("-")[0]]
    assert fuzz.tried(door, path, tmp_path) in ("", "refused")


def test_a_model_of_a_billion_layers_is_refused_before_it_is_built(tmp_path: Path) -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(10**9)))

    source = mock.Mock(spec=OfficialFolder)
    source.config.return_value = {}, tmp_path / "config.json"
    with pytest.raises(MissingWeightsError, match=r"config\.json: VAE has over 10000 tensors"):
        Part("VAE", source, build).module()


def fuzz_for_a_moment(door: fuzz.Door, tmp_path: Path, count: int = 1) -> fuzz.Tally:
    with mock.patch.multiple(fuzz, LONGEST=3.0, MOST=1 << 30):
        return fuzz.fuzz(door, 0, range(count), 1, tmp_path / "scratch", tmp_path / "kept")


def hang(folder: Path, file: Path) -> None:
    while file.read_bytes() != b"whole":
        pass


def eat(folder: Path, file: Path) -> None:
    if file.read_bytes() != b"whole":
        eaten = bytearray(3 << 30)
        eaten[::4096] = b"x" * len(eaten[::4096])


def die(folder: Path, file: Path) -> None:
    if file.read_bytes() != b"whole":
        os.kill(os.getpid(), 11)


def say(folder: Path, file: Path) -> None:
    if file.read_bytes() != b"whole":
        os.write(2, b"a library's own words\n")


def stumble(folder: Path, file: Path) -> None:
    if file.read_bytes() != b"whole":
        raise IndexError("a parser's")


def refuse(folder: Path, file: Path) -> None:
    if file.read_bytes() != b"whole":
        raise InputError("as it should")


@pytest.mark.parametrize(
    ("enter", "kind"),
    [
        (hang, "longer than"),
        (eat, "more than"),
        (die, "died by SIGSEGV"),
        (say, "printed"),
        (stumble, "IndexError"),
    ],
)
def test_the_fuzzer_finds(enter: fuzz.Enter, kind: str, tmp_path: Path) -> None:
    tally = fuzz_for_a_moment(fuzz.Door("own", whole, enter), tmp_path)
    assert [name.startswith(kind) for name in tally.findings] == [True]
    assert tally.findings.total() == tally.inputs == 1
    (log,) = (tmp_path / "kept").glob("*.log")
    assert f"--door own --seed 0 --number 0\nbytes.bin: {kind}" in log.read_text()
    (kept,) = (tmp_path / "kept").glob("*.bin")
    assert kept.read_bytes() == fuzz.drawn(tally.door, list(whole(tmp_path / "again")), 0, 0)[1]


def test_the_fuzzer_goes_on_after_what_is_refused(tmp_path: Path) -> None:
    tally = fuzz_for_a_moment(fuzz.Door("own", whole, refuse), tmp_path, 50)
    assert (tally.inputs, tally.findings.total()) == (50, 0)
    assert tally.refused > 40


def whole(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bytes.bin").write_bytes(b"whole")
    yield fuzz.Seed(folder, folder / "bytes.bin")
