"""The 20 condition channels: which frames are known, and where their pixels stand."""

import pytest
import torch
from torch import Tensor

from wanedit.errors import InputError
from wanedit.wan import open_wan
from wanedit.wan.condition import TextEncoder, build_condition, frame_mask, load_text_encoder, strengths


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    folder = open_wan("tiny")
    return load_text_encoder(folder.source, folder.config.text_len, torch.float32)


@pytest.mark.parametrize("prompt", ["", "a red ball", "one two three " * 100], ids=["empty", "short", "cut"])
@torch.no_grad()
def test_a_prompt_is_encoded_over_its_own_tokens(text_encoder: TextEncoder, prompt: str) -> None:
    """As `wan/modules/t5.py` encodes it, over all that it is filled up to, and whatever else is asked at once."""
    ids, mask = text_encoder.tokenizer([prompt], return_mask=True, add_special_tokens=True)
    official = text_encoder.model(ids, mask) * mask[..., None]
    seen = []
    block = text_encoder.model.get_submodule("blocks.0")
    with block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1])):
        features = text_encoder([prompt])
        among_others = text_encoder(["a long and winding sentence of many words", prompt])
    assert seen[0] == seen[2] == mask.sum()
    assert features.shape == official.shape
    assert torch.equal(features[:, mask.sum() :], torch.zeros_like(features[:, mask.sum() :]))
    torch.testing.assert_close(features, official, rtol=0, atol=2e-6)
    assert torch.equal(among_others[1:], features)
    # A folder whose tokenizer fills from the left.
    turned = TextEncoder(text_encoder.model, lambda *_, **__: (ids.roll(3, 1), mask.roll(3, 1)))
    if mask.sum() + 3 <= ids.shape[1]:
        assert torch.equal(turned([prompt]), features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_few_bits_are_lost_as_they_are_over_all_tokens(text_encoder: TextEncoder, dtype: torch.dtype) -> None:
    folder, prompt = open_wan("tiny"), "a red ball"
    rounded = load_text_encoder(folder.source, folder.config.text_len, dtype)
    ids, mask = rounded.tokenizer([prompt], return_mask=True, add_special_tokens=True)
    exact, found = text_encoder([prompt]), rounded([prompt])
    official = rounded.model(ids, mask) * mask[..., None]
    off, off_official = ((one - exact).norm() / exact.norm() for one in (found, official))
    assert found.dtype == dtype
    assert off < 1.5 * off_official < 0.02


def mask(known: set[int], num_frames: int) -> list[list[int]]:
    """One row per slot, four channels each; the mask is the same everywhere in a frame."""
    full = frame_mask(known, num_frames, 2, 3)
    assert full.shape == (1, 4, (num_frames - 1) // 4 + 1, 2, 3)
    assert torch.equal(full, full[..., :1, :1].expand_as(full))
    return full[0, :, :, 0, 0].T.int().tolist()


@pytest.mark.parametrize(
    ("known", "num_frames", "rows"),
    [
        ({0, 12}, 13, [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ({0}, 9, [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ({8}, 9, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]),
        ({1, 6}, 9, [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]),
        ({5, 6, 7, 8}, 9, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]),
        ({0}, 1, [[1, 1, 1, 1]]),
        (set(), 5, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_mask(known: set[int], num_frames: int, rows: list[list[int]]) -> None:
    assert mask(known, num_frames) == rows


def test_mask_of_81_frames_equals_the_official_construction() -> None:
    """`wan/first_last_frame2video.py`, where 81 is fixed."""
    msk = torch.ones(1, 81, 2, 3)
    msk[:, 1:-1] = 0
    msk = torch.cat([msk[:, 0:1].repeat_interleave(4, dim=1), msk[:, 1:]], dim=1)
    official = msk.view(1, msk.shape[1] // 4, 4, 2, 3).transpose(1, 2)
    assert torch.equal(frame_mask({0, 80}, 81, 2, 3), official)


@pytest.mark.parametrize("num_frames", [0, -3, 4, 12])
def test_mask_needs_4n_plus_1(num_frames: int) -> None:
    with pytest.raises(InputError, match=f"num_frames is {num_frames}; expected 4n"):
        frame_mask({0}, num_frames, 2, 2)


@pytest.mark.parametrize("frame", [-1, 9])
def test_mask_refuses_frames_outside(frame: int) -> None:
    with pytest.raises(InputError, match=rf"frames \[{frame}\] lie outside 0 … 8"):
        frame_mask({0, frame}, 9, 2, 2)


def test_condition_is_mask_and_encoded_video() -> None:
    seen: list[Tensor] = []

    def encode(video: Tensor) -> Tensor:
        seen.append(video)
        return torch.full((1, 16, 3, 2, 4), 7.0)

    first, last = torch.full((3, 16, 32), 0.5), torch.full((3, 16, 32), -0.5)
    condition = build_condition({0: first, 8: last}, 9, encode)
    assert condition.shape == (1, 20, 3, 2, 4)
    assert torch.equal(condition[:, :4], frame_mask({0, 8}, 9, 2, 4))
    assert (condition[:, 4:] == 7).all()
    (video,) = seen
    assert video.shape == (1, 3, 9, 16, 32)
    assert torch.equal(video[0, :, 0], first)
    assert torch.equal(video[0, :, 8], last)
    assert not video[0, :, 1:8].any()


def test_errors_come_before_encoding() -> None:
    def encode(video: Tensor) -> Tensor:
        raise AssertionError("encoded")

    image, other = torch.zeros(3, 16, 16), torch.zeros(3, 16, 24)
    with pytest.raises(
        InputError, match=r"sizes \[\(3, 16, 16\), \(3, 16, 24\)\]; expected one image or more"
    ):
        build_condition({0: image, 4: other}, 5, encode)
    with pytest.raises(InputError, match=r"sizes \[\]; expected one image or more"):
        build_condition({}, 5, encode)
    with pytest.raises(InputError, match="outside"):
        build_condition({0: image, 5: image}, 5, encode)
    with pytest.raises(InputError, match="num_frames is 6"):
        build_condition({0: image, 5: image}, 6, encode)


@pytest.mark.parametrize(
    ("frames", "soft"),
    [
        ((0, 16), ()),
        ((0, 8, 16), (8,)),
        ((0, 1, 2, 16), ()),  # several start frames
        ((0, 1, 2, 4, 14, 15, 16), (4,)),
        ((3, 16), (3,)),
        ((15,), (15,)),
        (tuple(range(17)), ()),
    ],
)
def test_frames_at_either_end_are_held_whole(frames: tuple[int, ...], soft: tuple[int, ...]) -> None:
    assert strengths(frames, 17, 0.3) == {frame: 0.3 if frame in soft else 1.0 for frame in frames}
    mask = frame_mask(strengths(frames, 17, 0.3), 17, 1, 1)
    plain = frame_mask(set(frames), 17, 1, 1)
    assert torch.equal(mask > 0, plain > 0)
    assert int((mask == plain.new_tensor(0.3)).sum()) == len(soft)
