"""config.json of a transformer: official keys in, everything else refused."""

from pathlib import Path

import pytest

from wanedit.errors import InputError, MissingWeightsError
from wanedit.wan.config import WanConfig, read_model_json

OFFICIAL = {
    "_class_name": "WanModel",
    "_diffusers_version": "0.30.0",
    "dim": 5120,
    "eps": 1e-06,
    "ffn_dim": 13824,
    "freq_dim": 256,
    "in_dim": 36,
    "model_type": "flf2v",
    "num_heads": 40,
    "num_layers": 40,
    "out_dim": 16,
    "text_len": 512,
}


def test_an_official_file_is_read() -> None:
    config = WanConfig.from_dict(OFFICIAL)
    assert (config.head_dim, config.condition_channels, config.num_images) == (128, 20, 2)
    assert (config.text_dim, config.image_dim) == (4096, 1280)


@pytest.mark.parametrize(
    ("model_type", "image_tokens", "images"),
    [("t2v", None, 0), ("i2v", None, 1), ("flf2v", None, 2), ("i2v", False, 0)],
)
def test_images(model_type: str, image_tokens: bool | None, images: int) -> None:
    config = WanConfig.from_dict(OFFICIAL | {"model_type": model_type, "image_tokens": image_tokens})
    assert config.num_images == images


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dims": 5}, r"here: unknown keys \['dims'\]"),
        ({"model_type": "v2v"}, "model_type is 'v2v'; expected one of t2v, i2v, flf2v"),
        (
            {"num_heads": 3},
            "dim 5120 over num_heads 3 gives a head of size 1706.67; expected an even integer",
        ),
        ({"dim": 120, "num_heads": 40}, "a head of size 3; expected an even integer"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"patch_size": [1, 4, 4]}, r"here: patch_size is \(1, 4, 4\); expected \(1, 2, 2\)"),
        ({"window_size": [8, 8]}, r"here: window_size is \(8, 8\); expected \(-1, -1\)"),
        ({"add_ref_conv": True}, "here: add_ref_conv is True; expected False; a Fun-Control"),
        ({"add_control_adapter": 1}, "here: add_control_adapter is 1; expected False"),
        ({"qk_norm": False}, "qk_norm and cross_attn_norm must be true"),
        ({"dim": "5120"}, "dim is '5120'; expected a positive integer"),
        ({"num_layers": -1}, "num_layers is -1; expected a positive integer"),
        ({"eps": "small"}, "eps is .small.; expected a number, zero or more"),
        ({"dim": True}, "dim is True; expected a positive integer"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_bad_values_are_named(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        WanConfig.from_dict(OFFICIAL | change, "here")


def test_what_videox_fun_says_of_what_is_off_changes_nothing() -> None:
    extra = {
        "add_control_adapter": False,
        "add_ref_conv": False,
        "cross_attn_type": "cross_attn",
        "downscale_factor_control_adapter": 8,
        "hidden_size": 2048,
        "in_channels": 16,
        "in_dim_control_adapter": 24,
        "in_dim_ref_conv": 16,
        "patch_size": [1, 2, 2],
        "window_size": [-1, -1],
    }
    assert WanConfig.from_dict(OFFICIAL | extra) == WanConfig.from_dict(OFFICIAL)


def test_missing_keys_are_named() -> None:
    values = {key: value for key, value in OFFICIAL.items() if key not in ("dim", "in_dim")}
    with pytest.raises(InputError, match=r"here: missing keys \['dim', 'in_dim'\]"):
        WanConfig.from_dict(values, "here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_unreadable_json(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(MissingWeightsError, match=f"config.json.*{said}"):
        read_model_json(path)
