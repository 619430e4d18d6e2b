"""Reading images, alone or a folder of them as a clip, and bringing them to a size. What is changed is recorded."""

import io
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange
from jaxtyping import Float32, UInt8
from PIL import Image, ImageCms, ImageFile, ImageOps

from wanedit.errors import InputError
from wanedit.files import reading, require_file
from wanedit.video.arrays import AnyFrame, Frame, require_frame, size_text
from wanedit.video.light import UNSPECIFIED, colour_notes, converts, is_known, to_bt709

Size = tuple[int, int]

MAX_PIXELS = 100_000_000

# Formats that decode inside Pillow. EPS, for one, would start Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")

# FFmpeg's demuxers of films. Playlists, which open other files and addresses, and text rendered as video are left out.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif,apng,ivf,asf,mxf,h264,hevc,obu,yuv4mpegpipe"

_PLAYED = ("GIF", "PNG", "WEBP", "AVIF")
_ORIENTATION = 0x0112
_NAMED = 3  # at most, in an error
_WHOLE = "a whole image; export it anew, as PNG"
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_ROUNDING = 2  # levels by which sRGB's own profiles, of several makers, differ

OVER_WHITE = "transparent places laid over white"


@dataclass(frozen=True)
class LoadedImage:
    """An image as uint8 RGB, upright; where it is transparent, over white.

    size: (height, width) as stored, before any rotation. mode: Pillow's name of the stored pixels.
    notes: one line for each thing that was normalised; empty if the file was plain 8-bit RGB.
    alpha: opacity (H, W), 0 to 255; None where all of it is opaque.
    """

    pixels: Frame
    path: Path
    size: Size
    mode: str
    notes: tuple[str, ...]
    alpha: UInt8[np.ndarray, "h w"] | None = None


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Read and fully decode one image.

    EXIF rotation is applied, alpha is laid over white, 16-bit levels are scaled (not clipped), grey, palette
    and CMYK become RGB, an embedded colour profile is converted to sRGB, and so are HDR and wide colours that tags say
    (cICP, cHRM and gAMA of PNG, nclx of AVIF and HEIC). Of an animation the first frame counts.

    Raises:
        InputError: no such file, not an image, truncated, tagged with colours that nothing here converts, or of more
            than `max_pixels` pixels; the last is read in the header, before any pixel is decoded. HEIC where
            pillow-heif is not installed.
    """
    path = Path(path)
    require_file(path, "an image")
    return _loaded(_opened(path, max_pixels), path)


def require_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """See by its header that a file is an image. Raises InputError as `load_image`, but for damage of its pixels."""
    require_file(path, "an image")
    _opened(path, max_pixels).close()


def from_pillow(image: Image.Image, name: str = "image") -> LoadedImage:
    """The same for an image in memory: its pixels are those that a file of it would have.

    Raises:
        InputError: it cannot be decoded, naming it by `name`.
    """
    return _loaded(image, Path(name))


def is_animation(path: Path) -> bool:
    """Whether a file is an animation for Pillow: WebP, or AVIF with opacity, of which FFmpeg sees the colours alone.

    Others, such as GIF and APNG, are read as videos.
    """
    if not path.is_file():
        return False
    with reading(path, "a picture or a video"), path.open("rb") as file:
        head = file.read(21)
        if (
            head[4:12] == b"ftypavis"
        ):  # ISO/IEC 23000-22, section 4.1: how an auxiliary picture or track says so
            return b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha" in file.read()
    # RIFF container, extended WebP; the second bit of its flags says that it is animated (RFC 9649, section 2.7.1).
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 2)


def is_animated_png(path: Path) -> bool:
    """Whether a PNG plays more than one picture."""
    with reading(path, "a picture or a video"), path.open("rb") as file:
        begins = file.read(8) == b"\x89PNG\r\n\x1a\n"
    return begins and count_pictures(path) > 1


def count_pictures(path: Path) -> int:
    """How many pictures an image file plays one after the other; 0 for what is no image, such as a video."""
    if not path.is_file():
        return 0
    try:
        with reading(path, "a picture"), _by_pillow(path) as image:
            # Pages of a TIFF and the two views of a stereo photograph are not played.
            return getattr(image, "n_frames", 1) if image.format in _PLAYED else 1
    except InputError as error:
        return int(isinstance(error.__cause__, Image.DecompressionBombError) or _is_heic(path))


def load_animation(path: Path) -> Iterator[tuple[LoadedImage, int]]:
    """The pictures of an animation in order, each with the milliseconds for which it is shown.

    Raises:
        InputError: truncated, or of too many pixels a picture.
    """
    image, expected = _opened(path, MAX_PIXELS), "a whole animation"
    with reading(path, expected):
        count = getattr(image, "n_frames", 1)
    for number in range(count):
        with reading(f"{path}: frame {number}", expected):
            image.seek(number)
            image.load()
            shown, duration = image.copy(), int(image.info.get("duration", 0))
            shown.info = image.info
        yield _loaded(shown, path), duration


def over_white(rgb: AnyFrame, alpha: UInt8[np.ndarray, "_ _"]) -> AnyFrame:
    """RGB (H, W, 3) of that opacity (H, W) on white paper, with Pillow's rounding."""
    white = Image.new("RGB", (rgb.shape[1], rgb.shape[0]), (255, 255, 255))
    white.paste(Image.fromarray(rgb), mask=Image.fromarray(alpha))
    return np.array(white)


def under(
    over_white: AnyFrame, share: Float32[np.ndarray, "h w 1"], frame: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """What lies over white to that share, 0 to 1, over a frame instead."""
    # a * colour + (1 - a) * 255, of which the white is exchanged for the frame.
    mixed = over_white + (1 - share) * (frame.astype(np.float32) - 255)
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)


def by_profile(rgb: AnyFrame, icc: bytes) -> tuple[AnyFrame, list[str]]:
    """RGB (H, W, 3) of an embedded colour profile as sRGB, and a note where something was done or could not be."""
    notes: list[str] = []
    return np.array(_to_srgb(Image.fromarray(rgb), icc, notes)), notes


def suffixes() -> set[str]:
    """Endings of the names of images that are read, with their dot."""
    formats = known_formats()
    ours = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    # Known without pillow-heif too: opening one tells what to do.
    return ours | {".heic", ".heif"}


def known_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read on this machine."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _opened(path: Path, max_pixels: int) -> Image.Image:
    formats = known_formats()
    try:
        with reading(path, "an image"):
            image = _by_pillow(path)
    except InputError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise InputError(f"{path}: too many pixels ({error.__cause__})") from error
        if getattr(error.__cause__, "errno", None):  # it cannot even be opened
            raise
        if "HEIF" not in formats and _is_heic(path):
            raise InputError(
                f"{path}: is HEIC, as iPhones save, which needs pillow-heif: pip install 'wanedit[heif]'; or export it "
                "as JPEG or PNG"
            ) from error
        with reading(path, "an image"), path.open("rb") as file:
            head = file.read(16)
            tests = {name: Image.OPEN[name][1] for name in formats if name in Image.OPEN}
            begun = [name for name, begins in tests.items() if begins and begins(head)]
        if begun:
            raise InputError(f"{path}: begins as {begun[0]} does, and is truncated or damaged") from error
        if _is_video(path):
            raise InputError(
                f"{path}: is a video; expected a picture, such as its first one, which "
                f"`ffmpeg -i {shlex.quote(str(path))} -frames:v 1 {shlex.quote(path.stem)}.png` takes, or with -ss 1.5 "
                "before -i the one at 1.5 s"
            ) from error
        raise InputError(f"{path}: not an image of a known format ({', '.join(formats)})") from error
    if image.width * image.height > max_pixels:
        got = f"{image.width}x{image.height}"
        image.close()
        raise InputError(f"{path}: {got} is more than the {max_pixels} pixels allowed; shrink it first")
    return image


def _by_pillow(path: Path) -> Image.Image:
    """An opened image. A GIF only where FFmpeg finds one, too: Pillow goes through anything else byte by byte."""
    with path.open("rb") as file:
        if file.read(4) == b"GIF8" and not _is_video(path):
            raise SyntaxError("no picture follows its head")
    return Image.open(path, formats=known_formats())


def _is_video(path: Path) -> bool:
    """Whether FFmpeg finds a film in a file."""
    only_files = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        with reading(path, "a video"), av.open(os.path.abspath(path), container_options=only_files) as film:
            return any(not stream.disposition & Disposition.attached_pic for stream in film.streams.video)
    except InputError:
        return False


def _is_heic(path: Path) -> bool:
    # ISO/IEC 23008-12, annex B: the brands of still pictures and sequences in HEVC.
    with reading(path, "an image"), path.open("rb") as file:
        head = file.read(64)
    brands = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    return head[4:8] == b"ftyp" and any(brand in head[8:] for brand in brands)


def _loaded(image: Image.Image, path: Path) -> LoadedImage:
    size, mode = (image.height, image.width), image.mode
    tags = _colour_tags(image, path)  # while its file is still open
    # Pillow keeps only the high byte of each level of 16-bit colour while it decodes; it tells beforehand only.
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", [])]
    deep = not image.mode.startswith("I") and any(";16" in raw for raw in raw_modes)
    notes = ["16-bit colour reduced to 8 bits"] if deep else []
    with reading(path, _WHOLE):
        # Pillow turns a TIFF upright itself while it decodes it, and says nothing afterwards.
        turned = image.getexif().get(_ORIENTATION, 1) if image.format == "TIFF" else 1
        image.load()
        count, icc = getattr(image, "n_frames", 1), image.info.get("icc_profile")
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation in range(2, 9):
            image = ImageOps.exif_transpose(image)
    if turned in range(5, 9):
        size = (size[1], size[0])
    if count > 1:
        notes.append(f"first of {count} frames taken")
    applied = orientation if orientation in range(2, 9) else turned
    if applied in range(2, 9):
        notes.append(f"EXIF orientation {applied} applied")
    image, alpha = _without_alpha(_eight_bits(image, path, notes), path)
    if image.mode in ("P", "RGBX"):
        image = _to_rgb(image, path, notes)
    if tags:
        notes += colour_notes(*tags)
    if tags and converts(*tags):
        levels = np.asarray(_to_rgb(image, path, [])).astype(np.uint16) * 257
        image = Image.fromarray(to_bt709(levels, *tags))
    elif icc and not tags:
        image = _to_srgb(image, icc, notes)
    pixels = np.array(_to_rgb(image, path, notes))
    if alpha is not None and alpha.min() == 255:
        alpha = None
    if alpha is not None:
        notes.append(OVER_WHITE)
        pixels = over_white(pixels, alpha)
    return LoadedImage(pixels, path, size, mode, tuple(notes), alpha)


def _without_alpha(image: Image.Image, path: Path) -> tuple[Image.Image, UInt8[np.ndarray, "h w"] | None]:
    """The colours of an image, and its opacity; None where it has none."""
    with reading(path, _WHOLE):
        if not image.has_transparency_data:
            return image, None
        rgba = image.convert("RGBA")
        # The profile is of the colours as stored, which of grey with alpha is grey.
        colours = image.convert("L") if image.mode in ("LA", "La") else rgba.convert("RGB")
        return colours, np.array(rgba.getchannel("A"))


def _to_rgb(image: Image.Image, path: Path, notes: list[str]) -> Image.Image:
    if image.mode == "RGB":
        return image
    notes.append(f"{image.mode} converted to RGB")
    with reading(path, _WHOLE):  # whose palette it is
        return image.convert("RGB")


def _colour_tags(image: Image.Image, path: Path) -> tuple[int, int] | None:
    """(primaries, transfer) of ITU-T H.273 where it is they that count, and not an embedded profile.

    In a PNG cICP comes before a profile, and that before sRGB, gAMA and cHRM (PNG, third edition, section 4.3). In AVIF
    and HEIC a profile comes first, and nclx then says how YCbCr was made (ISO/IEC 23000-22).
    """
    with reading(path, _WHOLE):
        data = _bytes_of(image) if image.format in ("PNG", "AVIF") else b""
    if image.info.get("icc_profile") and b"cICP" not in data[: max(0, data.find(b"IDAT"))]:
        return None
    primaries, transfer, narrow = UNSPECIFIED, UNSPECIFIED, False
    if image.format == "HEIF":
        nclx = image.info.get("nclx_profile") or {}
        primaries = int(nclx.get("color_primaries", UNSPECIFIED))
        transfer = int(nclx.get("transfer_characteristics", UNSPECIFIED))
    elif data:
        kind = "png_pipe" if image.format == "PNG" else "mov"
        try:
            with reading(path, _WHOLE), av.open(io.BytesIO(data), format=kind) as container:
                codec = container.streams.video[0].codec_context
                primaries, transfer = int(codec.color_primaries), int(codec.color_trc)
                narrow = image.format == "PNG" and codec.color_range == ColorRange.MPEG
        except InputError:
            return None  # what is damaged is told when the pixels are read
    if (primaries, transfer) == (UNSPECIFIED, UNSPECIFIED):
        return None
    if narrow or not is_known(primaries, transfer):
        got = f"primaries {primaries}, transfer {transfer}{', narrow range' if narrow else ''}"
        raise InputError(
            f"{path}: its colours are tagged as {got} (ITU-T H.273), which nothing here converts; export it as sRGB, "
            "Display P3, or HDR (PQ, HLG) of full range"
        )
    return primaries, transfer


def _bytes_of(image: Image.Image) -> bytes:
    """The file of an image; none where it was decoded before from one that has no name or is gone."""
    if not isinstance(image, ImageFile.ImageFile):
        return b""
    if image.tile and image.fp:
        at = image.fp.tell()
        image.fp.seek(0)
        data = image.fp.read()
        image.fp.seek(at)
        return data
    path = Path(str(image.filename))
    return path.read_bytes() if path.is_file() else b""


def _eight_bits(image: Image.Image, path: Path, notes: list[str]) -> Image.Image:
    """16-bit grey scaled to 8 bits; Pillow's own conversion clips everything above 255 to white."""
    if image.mode == "F":
        raise InputError(
            f"{path}: floating-point pixels have no defined range; convert to 8 or 16 bits first"
        )
    if not image.mode.startswith("I"):
        return image
    if image.mode == "I" and image.format not in (
        "PPM",
        "PNG",
    ):  # whose 16 bits some versions of Pillow hold in 32
        low, high = image.getextrema()
        raise InputError(
            f"{path}: 32-bit whole numbers have no defined range ({low} to {high} here); convert to 8 or 16 bits first"
        )
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise InputError(f"{path}: levels from {levels.min()} to {levels.max()}; expected 0 to 65535")
    notes.append("16-bit grey scaled to 8 bits")
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if (clear := image.info.get("transparency")) is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))))


def _to_srgb(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    """Follow an embedded colour profile, if it can be read; phones save in Display P3."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile).strip()
        # The profile may be of RGB where the picture, to save space, is stored as grey.
        space = getattr(profile.profile, "xcolor_space", "")
        if space.strip() == "RGB" and image.mode in ("L", "1"):
            image = image.convert("RGB")
        if image.mode == "RGB" and _is_srgb(profile):
            return image
        converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notes.append(f"colour profile ignored, it cannot be used ({error})")
        return image
    notes.append(f"{image.mode} converted to sRGB by the embedded profile {name!r}")
    return converted or image


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile does nothing to speak of, whatever its name: linear light is called sRGB by some."""
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    converted = ImageCms.profileToProfile(Image.fromarray(levels), profile, _SRGB, outputMode="RGB")
    return int(np.abs(np.asarray(converted).astype(int) - levels).max()) <= _ROUNDING


def list_images(folder: str | Path) -> tuple[Path, ...]:
    """The images of a folder, `frame_2` before `frame_10`. Frame i of the clip is entry i, whatever its name.

    Files and folders whose names begin with a dot do not count.

    Raises:
        InputError: no such folder; no image in it; something in it that is no image by its name; two images
            whose names differ in the suffix only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")

    def natural(path: Path) -> tuple[list[str | int], str]:
        # Numbers by their value: text and numbers alternate in the list, so that like is compared with like.
        parts = re.split(r"(\d+)", path.stem.casefold())
        return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name

    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural)
    known = suffixes()
    others = [p.name for p in entries if p.is_dir() or p.suffix.lower() not in known]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise InputError(
            f"{folder}: expected nothing but images and hidden files, found {', '.join(others[:_NAMED])}{more}; "
            "take them out, or give the path of a folder that holds the frames alone"
        )
    if not entries:
        raise InputError(f"{folder}: no images")
    seen: dict[str, str] = {}
    for path in entries:
        if path.stem in seen:
            raise InputError(
                f"{folder}: {seen[path.stem]} and {path.name} would be the same frame; keep one of them"
            )
        seen[path.stem] = path.name
    return tuple(entries)


def numbering_gaps(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Neighbours between which the numbering of a folder's images breaks off.

    Only where at least half of the numbers go up by one, and nothing else in the names varies: those of others, such as
    every tenth frame or times of day, are no numbering.
    """
    parts = [re.split(r"(\d+)", path.stem) for path in paths]
    varied = [column for column in zip(*parts, strict=False) if len(set(column)) > 1]
    if len(varied) != 1 or len(set(map(len, parts))) > 1 or not varied[0][0].isdecimal():
        return []
    steps = [int(b) - int(a) for a, b in pairwise(varied[0])]
    if 2 * steps.count(1) < len(steps):
        return []
    return [pair for pair, step in zip(pairwise(paths), steps, strict=True) if step > 1]


def load_images(paths: Iterable[Path], *, max_pixels: int = MAX_PIXELS) -> Iterator[LoadedImage]:
    """Load images one by one, as `load_image` does, all of one size once they are upright.

    Raises:
        InputError: as `load_image`; or at the first image of another size than the first, naming both.
    """
    first: LoadedImage | None = None
    for path in paths:
        image = load_image(path, max_pixels=max_pixels)
        first = first or image
        if image.pixels.shape != first.pixels.shape:
            raise InputError(
                f"{path.parent}: {first.path.name} is {size_text(first.pixels)}, "
                f"{path.name} is {size_text(image.pixels)}; expected images of one size"
            )
        yield image


Box = tuple[float, float, float, float]
POLICIES = ("crop", "pad", "stretch")
ASPECT_TOLERANCE = 0.2


@dataclass(frozen=True)
class FitRecord:
    """How an image was brought to its target size; goes into the run's record.

    scale: (vertical, horizontal) magnification. crop: the part of the source that is seen, (left, top, right,
    bottom) in source pixels. aspect_change: 0 where source and target have one aspect ratio, 0.25 where one
    is 1.25 times the other. warning: text for the user, or None.
    """

    policy: str
    source: Size
    target: Size
    scale: tuple[float, float]
    crop: tuple[float, float, float, float]
    aspect_change: float
    warning: str | None


def fit(
    image: UInt8[np.ndarray, "h w 3"], size: Size, policy: str = "crop", fill: int = 0
) -> tuple[UInt8[np.ndarray, "H W 3"], FitRecord]:
    """Bring an image to `size` = (height, width), antialiased (Lanczos).

    crop: scaled until it covers the target, the middle kept. pad: scaled until it fits inside, levels of `fill` around
    it. stretch: each side scaled by itself. If the aspect ratio changes by more than 20 % the record
    carries a warning, which the caller shows.

    Raises:
        InputError: unknown policy, or a side that is not positive.
    """
    require_frame(image, "fit")
    if min(size) < 1:
        raise InputError(f"fit: expected positive sides (height, width), got {size}")
    if policy not in POLICIES:
        raise InputError(f"fit: unknown policy {policy!r}, expected one of: {', '.join(POLICIES)}")
    height, width = image.shape[:2]
    scale, crop = (size[0] / height, size[1] / width), (0.0, 0.0, float(width), float(height))
    if policy == "stretch":
        pixels = _resize(image, size, crop)
    elif policy == "crop":
        scale = (max(scale), max(scale))
        seen_h, seen_w = min(size[0] / scale[0], float(height)), min(size[1] / scale[1], float(width))
        left, top = (width - seen_w) / 2, (height - seen_h) / 2
        crop = (left, top, left + seen_w, top + seen_h)
        pixels = _resize(image, size, crop)
    else:
        inner = max(1, round(height * min(scale))), max(1, round(width * min(scale)))
        scale = inner[0] / height, inner[1] / width
        top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        pixels = np.full((*size, 3), fill, np.uint8)
        pixels[top : top + inner[0], left : left + inner[1]] = _resize(image, inner, crop)
    ratio = (size[1] / size[0]) / (width / height)
    change = max(ratio, 1 / ratio) - 1
    warning = None
    if change > ASPECT_TOLERANCE:
        sizes = f"{size_text(image)} to {size[1]}x{size[0]}"
        warning = f"aspect ratio changes by {change:.0%}: {sizes} by policy {policy!r}"
    return pixels, FitRecord(policy, (height, width), size, scale, crop, change, warning)


def _resize(image: AnyFrame, size: Size, box: Box) -> AnyFrame:
    if (size[0], size[1]) == image.shape[:2] and box == (0, 0, size[1], size[0]):
        return image.copy()
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return np.array(resized)
