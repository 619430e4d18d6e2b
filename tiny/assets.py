"""wan-tiny in the official directory layout: files written by rename, published whole, read back; its tokenizer."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tiny.flow import IMAGE_CONFIG, TEXT_CONFIG, TRANSFORMER_CONFIG, TinyWan
from tiny.plan import write_json
from tiny.vae import VAE_CONFIG
from wanedit.errors import InputError
from wanedit.files import PARTIAL_SUFFIX, atomic_path
from wanedit.wan.formats.layouts import OFFICIAL_TOKENIZER

# What wan-tiny is sampled with by default; see the model card.
SAMPLING = {
    "num_inference_steps": 12,
    "shift": 3.0,
    "guidance_scale": 1.0,
    "fps": 16.0,
    "max_frames": 33,
    "size": "128*128",
    "full_size": False,
}

VOCABULARY = 1536
SPECIAL = ("<pad>", "</s>", "<unk>")

# Words that prompts to video models are made of; those of the captions come from the captions.
_WORDS = """
the of and to in is that it was for on are as with his they at be this have from or had by not what all were we
when your can said there use each which she how their if will up other about out many then them these so some her
would make like him into time has look two more write go see number no way could people my than first water been
who its now find long down day did get come made may part over new sound take only little work know place year live
back most very after things just name good man think say great where through much before line right too any same
tell boy follow came want show also around three small set put end does another well large must big even such turn
here why asked went men read need land different home us move try kind hand picture again change off play air away
animal house point page letter mother answer found study still learn world high every near add food between own below
camera shot video scene style cinematic realistic slowly quickly smooth steady close wide angle light dark bright
shadow soft colour color shape motion moving walking running flying dancing rotating rising falling city street forest
mountain river lake sea ocean beach sky cloud sun moon star rain snow night morning evening cat dog bird horse fish
tree flower grass field road car train boat plane woman girl child face eyes hair hat coat dress table chair window
door room kitchen paper glass bottle wood metal stone fire smoke painting watercolor cartoon anime sketch blurry low
quality static worst jpeg artifacts ugly deformed text subtitles overexposed background foreground
"""

_VAE = "Wan2.1_VAE.safetensors"
_TRANSFORMER = "diffusion_pytorch_model.safetensors"
_TEXT = "models_t5_umt5-xxl-enc.safetensors"
_IMAGE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors"


def write_weights(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Write a module's tensors as float16 by rename; `prefix` is put before every name."""
    values = module.state_dict().items()
    tensors = {prefix + name: value.detach().to("cpu", torch.float16).contiguous() for name, value in values}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata={"format": "pt"})
        # safetensors writes for its owner alone.
        part.chmod(0o644)


def write_vae(vae: nn.Module, mean: Sequence[float], std: Sequence[float], folder: Path) -> None:
    """The VAE and its config with the statistics of its latents."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(vae, folder / _VAE)
    write_json(
        VAE_CONFIG | {"latents_mean": list(mean), "latents_std": list(std)}, folder / "vae_config.json"
    )


def write_networks(net: TinyWan, folder: Path) -> None:
    """Transformer, text encoder and image encoder with their configs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(net.transformer, folder / _TRANSFORMER)
    write_weights(net.text, folder / _TEXT)
    write_weights(net.image, folder / _IMAGE, prefix="visual.")
    write_json(TRANSFORMER_CONFIG, folder / "config.json")
    write_json(TEXT_CONFIG, folder / "text_encoder_config.json")
    write_json(IMAGE_CONFIG, folder / "image_encoder_config.json")
    write_json(SAMPLING, folder / "sampling.json")


def publish(source: Path, folder: Path) -> None:
    """Copy every file below `source` into `folder`: all under other names first, then all renamed.

    A failed or killed copy therefore leaves `folder` as it was; other files in it stay.
    """
    renames = []
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix not in (".part", PARTIAL_SUFFIX):
            target = folder / path.relative_to(source)
            part = target.with_name(target.name + ".part")
            part.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part)
            part.chmod(0o644)
            renames.append((part, target))
    for part, target in renames:
        part.replace(target)


def check_start(folder: Path) -> None:
    """See that a folder can be trained further.

    Raises:
        InputError: a weight file or the tokenizer is missing.
    """
    needed = (_VAE, _TRANSFORMER, _TEXT, _IMAGE, f"{OFFICIAL_TOKENIZER}/tokenizer.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise InputError(f"start: {folder} lacks {', '.join(missing)}; expected a folder of wan-tiny")


def read_vae(vae: nn.Module, folder: Path) -> None:
    """Load what write_vae wrote, as float32."""
    vae.load_state_dict(_floats(folder / _VAE))


def read_networks(net: TinyWan, folder: Path) -> None:
    """Load what write_networks wrote, as float32."""
    net.transformer.load_state_dict(_floats(folder / _TRANSFORMER))
    net.text.load_state_dict(_floats(folder / _TEXT))
    net.image.load_state_dict(_floats(folder / _IMAGE, "visual."))


def _floats(path: Path, prefix: str = "") -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.float() for name, value in load_file(path).items()}


def train_tokenizer(captions: Iterable[str], folder: Path) -> None:
    """Learn byte pairs from captions and common words; write tokenizer.json and tokenizer_config.json to `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*captions, *[_WORDS.replace("\n", " ")] * 20], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    folder.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(str(folder))
