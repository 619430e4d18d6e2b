"""FiVE-Bench's measures against closed forms, and against the libraries that its code calls."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.models import squeezenet1_1
from transformers import CLIPModel, ViTModel

from tests.metrics.test_encoders import (  # noqa: F401  (fixtures)
    cache,
    clip_model,
    dino_model,
    normalised,
    publish,
)
from tests.metrics.test_perceptual import hub, state, trunk_file  # noqa: F401
from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.evaluate.five import blackened
from wanedit.jobs.evaluate.metric import Inputs, measure
from wanedit.metrics import weights
from wanedit.metrics.functional.fidelity import structure_distance

GREY = 51  # a fifth of white


@dataclass
class Half:
    """Frames that differ by `value` in the left half; the upper quarter is masked."""

    frames: int = 9
    value: int = GREY

    def __post_init__(self) -> None:
        self.reference = np.full((self.frames, 32, 32, 3), 100, np.uint8)
        self.video, self.mask = self.reference.copy(), np.zeros((self.frames, 32, 32), bool)
        self.video[:, :, :16] += np.uint8(self.value)
        self.mask[:, :8, :] = True

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.video, reference=self.reference, mask=self.mask, prompt="a disc")

    def taken(self, group: str) -> dict[str, Any]:
        return measure(self.inputs, [group])[0][group]

    def outside(self, frame: int = 0) -> list[np.ndarray]:
        """Video and reference as the benchmark's code has them."""
        return [blackened(one[frame], ~self.mask[frame]) for one in (self.video, self.reference)]


def test_background_is_of_the_whole_blackened_picture() -> None:
    """Half of the columns and three quarters of the rows are off by 0.2: the mean square is 0.04 * 3 / 8."""
    half = Half()
    found = half.taken("five_background")
    assert found["mse"] == pytest.approx(1e4 * 0.04 * 3 / 8)
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.04 * 3 / 8))
    a, b = (torch.from_numpy(one).permute(2, 0, 1)[None] / 255 for one in half.outside())
    ssim = torch.as_tensor(structural_similarity_index_measure(a, b, data_range=1.0)).item()
    assert 0 < ssim < 0.99
    assert found["ssim"] == pytest.approx(100 * ssim)
    same = Half(value=0).taken("five_background")
    assert same == {"psnr": 100.0, "mse": 0.0, "ssim": pytest.approx(100.0)}


def test_every_eighth_frame_counts_and_what_is_masked_does_not() -> None:
    half = Half(value=0)
    half.video[1:8] = 255
    half.video[8, :8] = 255
    assert half.taken("five_background")["mse"] == 0
    half.video[8, 8, 0] = 0
    assert half.taken("five_background")["mse"] > 0


def test_a_frame_that_is_masked_wholly_has_no_background() -> None:
    half = Half()
    half.mask[0], half.video[0] = True, 255
    assert half.taken("five_background")["mse"] == pytest.approx(1e4 * 0.04 * 3 / 8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of lpips, which asks torchvision by a former name
def test_lpips_is_squeezenets_of_the_blackened_pictures(
    hub: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    features = squeezenet1_1(weights=None).features
    monkeypatch.setattr("wanedit.metrics.networks.SQUEEZENET", trunk_file(hub, state(features)))
    rng, half = np.random.default_rng(0), Half(frames=1, value=0)
    half.video[:, :8] = rng.integers(0, 256, half.video[:, :8].shape)
    assert half.taken("five_lpips") == {"outside": 0.0}
    from lpips import LPIPS

    half.video[:, 8:] = rng.integers(0, 256, half.video[:, 8:].shape)
    own = LPIPS(net="squeeze", pnet_rand=True, verbose=False).eval()
    names = {name: "features." + name.split(".", 1)[1] for name in own.net.state_dict()}
    own.net.load_state_dict({name: state(features)[source] for name, source in names.items()})
    a, b = (torch.from_numpy(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in half.outside())
    expected = 1000 * float(own(a, b).detach())
    assert expected > 1
    assert half.taken("five_lpips")["outside"] == pytest.approx(expected, rel=1e-4)


def test_dino_is_shown_levels_up_to_255(
    cache: Path,  # noqa: F811
    dino_model: ViTModel,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wanedit.metrics.networks import IMAGENET_MOMENTS, Dino

    dino = Dino.load(publish(cache, dino_model))
    monkeypatch.setattr(Dino, "for_structure", lambda: dino)
    half = Half(frames=1)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET_MOMENTS)
    seen = []
    handle = dino.network.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    found = half.taken("five_structure")["distance"]
    handle.remove()
    levels = torch.from_numpy(half.video[0]).permute(2, 0, 1).float()
    np.testing.assert_allclose(seen[0][0], (levels - mean) / deviation, rtol=1e-5)
    keys = [dino.keys(one[0], white=255.0) for one in (half.video, half.reference)]
    assert found == pytest.approx(1000 * structure_distance(*keys))
    assert Half(frames=1, value=0).taken("five_structure")["distance"] == 0


def test_clip_score_is_100_times_the_cosine_of_picture_and_prompt(
    cache: Path,  # noqa: F811
    clip_model: CLIPModel,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = publish(cache, clip_model)
    words = Tokenizer(BPE({"a": 3, "d": 4, "i": 5, "s": 6, "c": 7, " ": 8}, []))
    words.save(str(next(cache.rglob("config.json")).with_name("tokenizer.json")))
    monkeypatch.setattr(weights, "CLIP_L14", model)
    from wanedit.metrics.networks import ClipTexts

    made = ClipTexts.load(model)
    monkeypatch.setattr(ClipTexts, "load", lambda model: made)
    half = Half(frames=1)
    found = half.taken("five_clip")
    ids = torch.tensor([made.tokenizer("a disc")["input_ids"]])
    inside = blackened(half.video[0], half.mask[0])
    with torch.no_grad():
        out = clip_model(input_ids=ids, pixel_values=normalised(np.stack([half.video[0], inside])))
        scores = (100 * out.image_embeds @ out.text_embeds.T).clamp(min=0)[:, 0]
    assert [found["whole"], found["inside"]] == pytest.approx(scores.tolist(), abs=1e-3)
    with pytest.raises(InputError, match="no prompt and mask are given"):
        measure(Inputs(half.video, mask=half.mask), ["five_clip"])


def test_a_tokenizer_that_lacks_is_told_with_how_to_fetch_it(
    cache: Path,  # noqa: F811
    clip_model: CLIPModel,  # noqa: F811
) -> None:
    publish(cache, clip_model)
    lacking = weights.HubModel("own/tiny", 1, beside=("config.json", "tokenizer.json"))
    with pytest.raises(MissingWeightsError, match=r"hf download own/tiny config\.json tokenizer\.json"):
        weights.require_model(lacking)


def test_they_are_taken_only_where_they_are_named() -> None:
    metrics, skipped = measure(Half().inputs)
    assert not {name for name in {*metrics, *skipped} if name.startswith("five") or name == "cvvdp"}
