"""What a velocity is conditioned on: the prompt's tokens, the images' tokens, and the known frames as channels."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import Json, reading
from wanedit.timeline import STRIDE
from wanedit.wan.checkpoint import Part
from wanedit.wan.config import IMAGE, MASK_CHANNELS, TEXT, WanConfig, checked
from wanedit.wan.formats.layouts import Source
from wanedit.wan.formats.tensors import read_file

Image = Float[Tensor, "3 height width"]
# One for every transformer of a model, or one for the high-noise and one for the low-noise expert.
Condition = Tensor | tuple[Tensor, Tensor]

# UMT5-XXL as Wan 2.1 uses it (`wan/modules/t5.py`, `umt5_xxl`).
OFFICIAL_TEXT: Json = {
    "vocab": 256384,
    "dim": 4096,
    "dim_attn": 4096,
    "dim_ffn": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "num_buckets": 32,
    "shared_pos": False,
    "dropout": 0.0,
}
# The vision half as Wan 2.1 uses it (`wan/modules/clip.py`, `clip_xlm_roberta_vit_h_14`).
OFFICIAL_IMAGE: Json = {
    "image_size": 224,
    "patch_size": 14,
    "dim": 1280,
    "mlp_ratio": 4.0,
    "out_dim": 1024,
    "num_heads": 16,
    "num_layers": 32,
    "pool_type": "token",
    "pre_norm": True,
    "post_norm": False,
    "activation": "gelu",
}
# CLIP's pixel statistics (arXiv 2103.00020; also in `wan/modules/clip.py`).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder(nn.Module):
    """Prompts to token features: `encoder(prompts)`, by UMT5 and the tokenizer beside it."""

    def __init__(self, model: nn.Module, tokenizer: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def forward(self, prompts: list[str]) -> Float[Tensor, "b n dim"]:
        """Encode prompts, each over its own tokens alone; features after its last one are zero.

        What fills a prompt up to text_len is never attended to and is zero in the end, so it is not computed: of a
        prompt of 40 tokens that is a twelfth of the work, and no other prompt of a call has a say in its values.

        Source: Wan 2.1, `wan/modules/t5.py`, `T5EncoderModel.__call__`, which cuts every prompt to its own
        length, and `WanModel.forward`, which pads it with zeros.

        Returns:
            (B, text_len, dim) in the dtype of the encoder; prompts beyond text_len tokens are cut, as there.
        """
        ids, mask = self.tokenizer(prompts, return_mask=True, add_special_tokens=True)
        device = next(self.model.parameters()).device
        features = []
        for row, own in zip(ids, mask > 0, strict=True):
            tokens = row[own].to(device)
            features.append(F.pad(self.model(tokens[None]), (0, 0, 0, len(row) - len(tokens))))
        return torch.cat(features)


def build_text_encoder(config: Json) -> nn.Module:
    """The bare encoder, uninitialised, on whatever device is current."""
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    encoder: Any = WanTextEncoder(**config)
    for block in encoder.blocks:
        block.ffn.gate[1] = nn.GELU("tanh")  # the same function, in one pass over memory
    return encoder


def text_part(source: Source) -> Part:
    """The text encoder of a model, of the sizes that its config says, or the official ones."""
    said, path = source.config(TEXT)
    return Part(TEXT, source, lambda: build_text_encoder(OFFICIAL_TEXT | checked(said, path, OFFICIAL_TEXT)))


class SentencePieces:
    """The tokenizer that ComfyUI's text encoder files hold in themselves, called as diffsynth's is."""

    def __init__(self, file: Path, seq_len: int) -> None:
        from sentencepiece import SentencePieceProcessor

        tensor = read_file(file).get("spiece_model")
        if tensor is None:
            raise MissingWeightsError(
                f"{file} holds no tokenizer (spiece_model); name its folder by --tokenizer"
            )
        with reading(file, "a tokenizer as spiece_model", MissingWeightsError):
            self.pieces = SentencePieceProcessor(model_proto=bytes(tensor.read().numpy()))
        self.seq_len = seq_len

    def count(self, prompt: str) -> int:
        """Tokens of a prompt, the end mark included."""
        return len(self.pieces.encode(prompt)) + 1

    def __call__(self, prompts: list[str], **_) -> tuple[Tensor, Tensor]:
        """Ids (B, seq_len), and a mask that is 1 on tokens: cut to the length, the end mark last, zeros after it."""
        ids = torch.zeros(len(prompts), self.seq_len, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            tokens = self.pieces.encode(_one_line(prompt))[: self.seq_len - 1]
            tokens.append(self.pieces.eos_id())
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
        return ids, mask


def _one_line(prompt: str) -> str:
    return " ".join(prompt.split())


def load_text_encoder(
    source: Source, text_len: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load encoder and tokenizer of a model.

    Raises:
        MissingWeightsError: weights or tokenizer are absent or do not fit.
    """
    place = source.tokenizer()
    tokenizer, size = load_tokenizer(place, text_len)
    model = text_part(source).load(lambda _: dtype, device)
    vocabulary = model.get_parameter("token_embedding.weight").shape[0]
    if size > vocabulary:
        raise MissingWeightsError(
            f"{place} has {size} tokens; expected no more than the text encoder's {vocabulary}"
        )
    return TextEncoder(model, tokenizer)


def load_tokenizer(place: Path, text_len: int) -> tuple[Callable[..., tuple[Tensor, Tensor]], int]:
    """The tokenizer of `Source.tokenizer`, which cuts and fills to `text_len`, and how many tokens it knows.

    Raises:
        MissingWeightsError: it cannot be read, or lacks what encoding needs.
    """
    if place.is_file():
        pieces = SentencePieces(place, text_len)
        return pieces, pieces.pieces.vocab_size()
    from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer

    with reading(place, "the UMT5 tokenizer", MissingWeightsError):
        # Nothing outside of the folder: its files may name another repository, or code to run.
        tokenizer = HuggingfaceTokenizer(
            str(place), text_len, "whitespace", local_files_only=True, trust_remote_code=False
        )
        tokenizer("")
        return tokenizer, len(tokenizer.tokenizer)


def count_tokens(source: Source, prompts: list[str]) -> list[int]:
    """Tokens of every prompt, the end mark included, before any cut. Loads the tokenizer's table and no more.

    Raises:
        MissingWeightsError: no tokenizer, or one that cannot be read.
    """
    place, lines = source.tokenizer(), [_one_line(prompt) for prompt in prompts]
    if place.is_file():
        return [SentencePieces(place, 1).count(line) for line in lines]
    from tokenizers import Tokenizer

    with reading(place, "the UMT5 tokenizer", MissingWeightsError):
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(lines)]


def prompt_doubts(source: Source, limit: int, prompts: list[str]) -> list[str]:
    """A note for every prompt of which the model does not read the end: `limit` is its text_len."""
    different = list(dict.fromkeys(prompts))
    return [
        f"a prompt of {count} tokens is cut to the model's {limit}: {prompt[:60]!r} …"
        for prompt, count in zip(different, count_tokens(source, different), strict=True)
        if count > limit
    ]


class ImageEncoder(nn.Module):
    """Images to 257 tokens each, by the vision half of CLIP (open-clip XLM-RoBERTa-Large, ViT-H/14).

    `encoder(images)` gives the features of the last block but one, class token first.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.side = int(model.image_size)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b 257 dim"]:
        """Encode pixels in [-1, 1], resized here by bicubic interpolation to the encoder's own size."""
        images = F.interpolate(images, size=(self.side, self.side), mode="bicubic", align_corners=False)
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        pixels = (images * 0.5 + 0.5 - mean) / std
        weight = next(self.model.parameters())
        return self.model(pixels.to(weight.device, weight.dtype), use_31_block=True)


def build_image_encoder(config: Json) -> nn.Module:
    """The bare vision transformer, uninitialised, on whatever device is current."""
    if config["image_size"] % config["patch_size"]:
        raise InputError(
            f"image_size {config['image_size']} is no multiple of patch_size {config['patch_size']}; expected one"
        )
    from diffsynth.models.wan_video_image_encoder import VisionTransformer

    return VisionTransformer(**config)


def image_part(source: Source) -> Part:
    """The image encoder of a model. Its tokens come out of the last block but one, so that not all of it is read."""
    said, path = source.config(IMAGE)
    config = OFFICIAL_IMAGE | checked(said, path, OFFICIAL_IMAGE)
    return Part(
        IMAGE, source, lambda: build_image_encoder(config), ("head", "post_norm.weight", "post_norm.bias")
    )


def load_image_encoder(
    source: Source, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """Load the image encoder of a model.

    Raises:
        MissingWeightsError: weights are absent or do not fit.
    """
    return ImageEncoder(image_part(source).load(lambda _: dtype, device))


def frame_mask(
    known: Collection[int] | Mapping[int, float], num_frames: int, height: int, width: int
) -> Float[Tensor, "1 4 s h w"]:
    """1, or a strength, where a frame is known. Slot 0 repeats frame 0 in its four channels; slot j holds frames
    4j-3 … 4j.

    So with a known last frame only channel 3 of the last slot is 1: its three frames before are free.
    Source: Wan 2.1, `wan/first_last_frame2video.py`, without its fixed length of 81.

    Args:
        known: frame indices, 0 <= p < num_frames, perhaps each with a strength from 0 to 1.
        num_frames: 4n+1.
        height, width: of the latents.
    """
    if num_frames < 1 or (num_frames - 1) % STRIDE:
        raise InputError(f"num_frames is {num_frames}; expected 4n+1")
    outside = sorted(p for p in known if not 0 <= p < num_frames)
    if outside:
        raise InputError(f"frames {outside} lie outside 0 … {num_frames - 1}")
    frames = torch.zeros(num_frames)
    for frame, strength in (known if isinstance(known, Mapping) else dict.fromkeys(known, 1.0)).items():
        frames[frame] = strength
    slots = torch.cat([frames[:1].repeat(MASK_CHANNELS), frames[1:]]).view(-1, MASK_CHANNELS)
    return slots.T[None, :, :, None, None].expand(-1, -1, -1, height, width).contiguous()


def strengths(frames: Iterable[int], num_frames: int, middle: float) -> dict[int, float]:
    """How firmly each frame is held: `middle`, and 1 from the first frame on, and up to the last, as long as every
    frame is known."""
    ordered = sorted(frames)
    last = num_frames - len(ordered)
    return {frame: 1.0 if frame in (k, last + k) else float(middle) for k, frame in enumerate(ordered)}


def known_frames(
    config: WanConfig,
    images: Mapping[int, Image],
    num_frames: int,
    encode: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    middle: Sequence[float] = (1.0,),
    clip: tuple[Float[Tensor, "3 t height width"], Float[Tensor, "t height width"]] | None = None,
    references: Sequence[Image] = (),
) -> Condition:
    """What a model reads of known frames: `build_condition`, or the `build_hints` of a vace.

    Args:
        images, num_frames, encode: as `build_condition`.
        size: (height, width) of the clip.
        middle: how firmly a frame that is in the middle of the clip is held, see `strengths`; for two experts perhaps
            one number each. A frame held at 0 is left out.
        clip: for a vace, what lies around the images: pixels, and a mask that is 1 where they are to be changed.
        references: for a vace, as of `build_hints`.

    Returns:
        One condition, or one for each expert where these differ.
    """
    held = [strengths(images, num_frames, one) for one in middle]

    def build(strength: Mapping[int, float]) -> Tensor:
        shown = {frame: image for frame, image in images.items() if strength[frame]}
        if config.model_type != "vace":
            return build_condition(shown, num_frames, encode, size, strength)
        if clip is None:
            like = next(iter(images.values()), torch.empty(0))
            video, mask = like.new_zeros(3, num_frames, *size), like.new_ones(num_frames, *size)
        else:
            video, mask = clip[0].clone(), clip[1].clone()
        for frame, image in shown.items():
            video[:, frame], mask[frame] = image, 1 - strength[frame]
        return build_hints(video[None], mask[None, None], encode, references)

    if len(held) == 1 or held[0] == held[1]:
        return build(held[0])
    return build(held[0]), build(held[1])


def told_of_latents(
    config: WanConfig, latents: Float[Tensor, "1 c k h w"], unknown: Float[Tensor, "1 channels k h w"]
) -> Float[Tensor, "1 channels k h w"]:
    """What a model reads of slots that are known whole, each of one frame.

    Args:
        unknown: what it reads of such slots of which nothing is known.
    """
    count = latents.shape[1]
    if config.model_type == "vace":
        mask = torch.zeros_like(unknown[:, 2 * count :])
        return torch.cat([latents, unknown[:, count : 2 * count], mask], dim=1)
    return torch.cat([torch.ones_like(unknown[:, :-count]), latents], dim=1)


def build_condition(
    images: Mapping[int, Image],
    num_frames: int,
    encode: Callable[[Tensor], Tensor],
    size: tuple[int, int] | None = None,
    strength: Mapping[int, float] | None = None,
) -> Float[Tensor, "1 known s h w"]:
    """Mask (4 channels) and latents of a video that shows the known images at their frames and zeros elsewhere.

    Args:
        images: frame index -> pixels in [-1, 1], all of one size; {0: first, T-1: last} for FLF2V.
        num_frames: 4n+1.
        encode: video (1, 3, T, H, W) to normalised latents.
        size: (height, width), for a clip of which nothing is known; otherwise that of the images.
        strength: what the mask says of each image; None for 1.

    Raises:
        InputError: images of different sizes, neither image nor size, an index outside the clip.
    """
    sizes = {tuple(image.shape) for image in images.values()}
    if not sizes and size is not None:
        sizes = {(3, *size)}
    if len(sizes) != 1:
        raise InputError(
            f"condition images have sizes {sorted(sizes)}; expected one image or more, of one size"
        )
    like = next(iter(images.values()), torch.empty(0))
    video = like.new_zeros(1, 3, num_frames, *sizes.pop()[1:])
    mask = frame_mask({frame: strength[frame] if strength else 1.0 for frame in images}, num_frames, 1, 1)
    for frame, image in images.items():
        video[0, :, frame] = image
    latents = encode(video)
    return torch.cat([mask.to(latents).expand(-1, -1, -1, *latents.shape[3:]), latents], dim=1)


def build_hints(
    video: Float[Tensor, "1 3 t height width"],
    mask: Float[Tensor, "1 1 t height width"],
    encode: Callable[[Tensor], Tensor],
    references: Sequence[Image] = (),
) -> Float[Tensor, "1 channels _ h w"]:
    """What the hint blocks of a vace read: 16 latents of what to keep, 16 of what to change, 64 of mask.

    The mask of every pixel of an 8 x 8 patch is a channel, in time that of the frame nearest to the middle of a slot's
    share of the clip: of a single known frame it may say nothing, which then stands in the latents alone.
    Source: VACE (arXiv 2503.07598), `vace/models/wan/wan_vace.py`; diffusers, `pipeline_wan_vace.py`.

    Args:
        video: in [-1, 1], grey (0) where nothing is known.
        mask: 1 where the clip is to be made, 0 where `video` is to be kept; between them the latents go by the nearer.
        encode: pixels to normalised latents.
        references: pictures that are no frames: R slots that are kept, before those of the clip.
    """
    changed = (mask > 0.5).to(video)
    latents = torch.cat([encode(video * (1 - changed)), encode(video * changed)], dim=1)
    slots, height, width = latents.shape[2:]
    patch = video.shape[3] // height, video.shape[4] // width
    shares = rearrange(mask.to(latents), "b 1 t (h p) (w q) -> b (p q) t h w", p=patch[0], q=patch[1])
    hints = torch.cat([latents, F.interpolate(shares, (slots, height, width), mode="nearest-exact")], dim=1)
    for picture in references:
        kept = encode(picture[None, :, None])
        hints = torch.cat([F.pad(kept, (0, 0, 0, 0, 0, 0, 0, hints.shape[1] - kept.shape[1])), hints], dim=2)
    return hints
