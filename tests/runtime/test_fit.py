"""What fits a card: the quickest way that does, its words, and what is estimated of it."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runs import EditRun, Inputs, Run, command, edit_command, run_cli
from tests.wan import small
from wanedit import GenerationConfig
from wanedit.errors import InputError, ResourceError
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.methods.sdedit import SDEdit
from wanedit.jobs.generate.plan import make_plan
from wanedit.lit.edit_clip import EditSettings, contexts
from wanedit.lit.tasks import ChainSettings
from wanedit.runtime.cost import cross_bytes, memory
from wanedit.runtime.fit import (
    CARDS,
    CONTEXT,
    GAPS,
    GB,
    UNPACKING,
    Sizes,
    best,
    card_memory,
    fit,
    measure,
    weight_bytes,
)
from wanedit.runtime.launch import World, gpus
from wanedit.runtime.record import read_run
from wanedit.wan.load import default_dtype, open_wan, transformer_dtype

# Of Wan2.1-FLF2V-14B in bfloat16 at 480p, roughly: round numbers, by which everything can be worked out by hand.
SIZES = Sizes(
    text=11 * GB,
    image=2 * GB,
    vae=GB // 2,
    fixed=GB,
    block=GB * 3 // 4,
    blocks=40,
    experts=1,
    contexts=GB // 2,
    activations=3 * GB,
    decoding={None: 9 * GB, 512: 5 * GB, 256: 3 * GB, 128: 2 * GB},
)


def usable(gigabytes: float) -> float:
    return (gigabytes * GB - CONTEXT) * (1 - GAPS)


def test_what_fits_stays_and_the_rest_is_given_up_in_the_order_of_what_it_costs() -> None:
    found = {gigabytes: fit(SIZES, gigabytes) for gigabytes in (80, 48, 36, 24, 12, 8)}
    # 31 GB of weights, the VAE, and 9 GB to decode: all together, or one after the other.
    assert (found[80].resident, found[80].offload_model, found[80].moved, found[80].host) == (40, False, 0, 0)
    assert not found[48].offload_model
    assert (found[36].offload_model, found[36].resident) == (True, 35)
    assert [found[g].t5_cpu for g in (80, 48, 36, 24, 12, 8)] == [False, False, False, False, True, True]
    assert [found[g].tile for g in (80, 24, 12, 8)] == [None, None, None, 512]
    residents = [found[g].resident for g in (48, 36, 24, 12, 8)]
    assert residents == sorted(residents, reverse=True)
    for gigabytes, one in found.items():
        away = 40 - one.resident
        working = SIZES.vae + SIZES.fixed + SIZES.contexts + SIZES.activations
        there = working + (one.resident + (2 if away else 0)) * SIZES.block
        assert there <= one.peak <= usable(gigabytes)
        assert one.moved == away * SIZES.block
        # One block more would not fit.
        assert not away or there + SIZES.block > usable(gigabytes)


def test_an_error_names_the_card_that_would_do_and_that_one_does() -> None:
    with pytest.raises(
        ResourceError, match=r"6 GB do not hold this: .* a card of 8 GB would do, or a smaller size"
    ):
        fit(SIZES, 6)
    assert fit(SIZES, 8).resident == 0
    with pytest.raises(ResourceError, match=r"decoding in tiles of 128 20\.5 GB; a card of 23 GB"):
        fit(replace(SIZES, decoding=dict.fromkeys(SIZES.decoding, 20 * GB)), 16)
    # What stands in the way is sampling alone, with frames decoded whole.
    with pytest.raises(ResourceError, match=r"sampling takes 25\.0 GB, decoding 9\.5 GB; a card of 28 GB"):
        fit(replace(SIZES, block=10 * GB), 16)


def test_what_is_asked_for_is_kept_and_told() -> None:
    tiny = open_wan("tiny")
    asked = fit(measure(tiny, 17, (64, 64), guided=True, tile=32), 8, t5_cpu=True)
    assert (asked.tile, asked.t5_cpu, asked.host) == (32, True, measure(tiny, 17, (64, 64), True).text)
    assert "text encoder on the CPU, VAE in tiles of 32" in asked.words
    # Smaller tiles than these would fit, and are not taken.
    with pytest.raises(ResourceError, match=r"decoding in tiles of 512 5\.5 GB; a card of 7 GB"):
        fit(replace(SIZES, block=GB // 20, activations=GB, decoding={512: 5 * GB}), 4)


# The same model as an fp8 file has it, and rounded to int8: its blocks half as large.
AS_FILE = replace(SIZES, block=GB * 3 // 8, weights="file")
ROUNDED_SIZES = replace(SIZES, block=GB * 3 // 8, weights="int8")


def test_weights_are_as_they_are_or_as_small_as_in_the_file_and_rounded_only_where_nothing_else_fits() -> (
    None
):
    all_three = (SIZES, AS_FILE, ROUNDED_SIZES)
    assert [best(all_three, g).weights for g in (80, 48, 36, 24)] == ["full", "full", "file", "file"]
    # Rounding alone would keep more there, and is not taken.
    exact = best((SIZES, ROUNDED_SIZES), 24)
    assert (exact.weights, exact.resident) == ("full", fit(SIZES, 24).resident)
    # Two blocks in bfloat16 are more than this card has beside what computes.
    large = replace(SIZES, block=2 * GB)
    small = replace(large, block=GB, weights="int8")
    with pytest.raises(ResourceError):
        fit(large, 9)
    found = best((large, small), 9)
    assert (found.weights, found.words.startswith("9 GB: weights in int8, ")) == ("int8", True)
    with pytest.raises(ResourceError, match="4 GB do not hold this"):
        best((large, small), 4)
    # So they are where the host has no room for more.
    assert best((SIZES, ROUNDED_SIZES), 24, host=20 * GB).weights == "int8"
    with pytest.raises(
        ResourceError,
        match=r"this machine has 8\.0 GB of host memory for each process; expected a larger card",
    ):
        best((SIZES, ROUNDED_SIZES), 24, host=8 * GB)


def test_asked_for_weights_are_planned_named_and_hashed_where_they_change_results(
    keyframes: list[Any], tmp_path: Any
) -> None:
    said = " ".join(
        run_cli(*command(keyframes, tmp_path / "out", "--dry_run", "--fit=12", "--weights=int8")).out.split()
    )
    assert "12 GB: weights in int8, all stays on the card" in said
    assert "weights in int8" in said.split("sampler")[1].split("passes")[0]
    config = GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1)
    plans = {way: make_plan(replace(config, weights=way)) for way in ("auto", "full", "file", "int8", "fp8")}
    names = {way: plan.tasks[0].digest for way, plan in plans.items()}
    assert names["auto"] == names["full"] == names["file"]
    assert len(set(names.values())) == 3
    assert any("weights file is full here" in note for note in plans["file"].warnings)
    assert [plans[way].config.weights for way in ("auto", "int8")] == ["auto", "int8"]


def test_an_8_bit_model_is_measured_smaller_and_says_what_rounding_would_do() -> None:
    tiny = open_wan("tiny")
    full, int8 = (measure(tiny, 17, (64, 64), guided=True, weights=way) for way in ("full", "int8"))
    assert 0.5 < int8.block / full.block < 0.55
    assert int8.activations > full.activations
    assert (full.unpacked, int8.unpacked) == (0, (int8.blocks * 192 * (8 * 192 + 2 * 192 + 2 * 768)))


def test_weights_are_counted_in_the_formats_that_they_are_loaded_in() -> None:
    model = small.transformer("flf2v", num_layers=3)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    for dtype in (torch.bfloat16, torch.float32):
        dtype_of = transformer_dtype(dtype)
        held = {name: weight.to(dtype_of(name)) for name, weight in model.named_parameters()}
        sizes = {name: math.prod(shape) * dtype_of(name).itemsize for name, shape in shapes.items()}
        fixed, block, blocks = weight_bytes(sizes)
        assert fixed + block * blocks == sum(one.numel() * one.element_size() for one in held.values())
        assert blocks == 3


@pytest.mark.parametrize("width", [44, 88, 176])
def test_contexts_are_what_a_model_prepares(width: int) -> None:
    model = small.transformer("flf2v", dim=width, num_heads=width // 22)
    values = small.inputs(model, batch=2)
    context = model.prepare(small.GRID, values["text"], values["image_tokens"][:1], values["condition"][:1])
    pairs = [pair for cross in context.cross for pair in (cross.text, cross.image) if pair]
    held = sum(one.numel() * one.element_size() for pair in pairs for one in pair)
    assert cross_bytes(model.config, prompts=2, bytes_per_weight=4) == pytest.approx(held, rel=0.15)


def test_wan_tiny_is_measured_from_its_headers_and_stays_whole_on_any_card() -> None:
    sizes = measure(open_wan("tiny"), 17, (64, 64), guided=True)
    for card in CARDS:
        assert fit(sizes, card.gigabytes).resident == sizes.blocks
    settings = ChainSettings(2, 3.0, 1.0)
    applied = fit(sizes, 8).applied(settings)
    assert (applied.resident, applied.tile, applied.t5_cpu) == (None, None, False)
    streamed = replace(fit(sizes, 8), resident=2, tile=256, t5_cpu=True, offload_model=True).applied(settings)
    assert (streamed.resident, streamed.tile, streamed.t5_cpu, streamed.offload_model) == (2, 256, True, True)


def test_time_is_what_computes_or_what_is_brought_whichever_takes_longer() -> None:
    config = small.config("flf2v")
    card = next(card for card in CARDS if card.name == "RTX 4090")
    found = fit(SIZES, 24)
    waiting = 10 * found.moved / card.bandwidth
    assert found.seconds(card, config, 10, 10) == waiting
    assert found.seconds(card, config, 10**8, 10) > waiting
    # Packed weights are made numbers at each pass, by the card's own memory.
    packed = replace(found, unpacked=10**9)
    more = packed.seconds(card, config, 10**8, 10) - found.seconds(card, config, 10**8, 10)
    assert more == pytest.approx(10 * 10**9 * UNPACKING / card.memory)
    [line] = found.estimates(config, 10, 10, "a segment")
    assert "of sampling a segment on an RTX 4090 (24 GB), from operations" in line


def test_a_plan_shows_what_a_card_would_do_and_says_where_it_changes_nothing(
    keyframes: list[Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run_cli(*command(keyframes, tmp_path / "out", "--dry_run", "--fit=12")).out
    assert "fit        12 GB: bfloat16, all stays on the card, about" in said
    assert "on an RTX 3060 (12 GB), from operations and bandwidth" in said
    if not torch.cuda.is_available():
        assert "fit 12 changes nothing here" in " ".join(said.split())
    config = GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1)
    # It decides no pixel.
    assert make_plan(replace(config, fit=24.0)).tasks[0].digest == make_plan(config).tasks[0].digest
    with pytest.raises(ResourceError, match=r"0\.5 GB do not hold this"):
        make_plan(replace(config, fit=0.5))
    for wrong in ("autp", "-3", 0.0):
        with pytest.raises(InputError, match=r"fit is .*; expected auto, or the gigabytes of a card"):
            make_plan(replace(config, fit=wrong))
    assert card_memory("auto", []) is None


def test_auto_is_the_smallest_of_the_cards_that_a_run_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (80, 24, 12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda gpu: SimpleNamespace(total_memory=sizes[gpu] * GB),
    )

    def found(under_torchrun: int = 0, **asked: Any) -> float | None:
        local = max(1, under_torchrun)
        world = World(size=local, local_size=local, under_torchrun=bool(under_torchrun))
        return card_memory("auto", gpus(GenerationConfig(**asked), world))

    assert found() == 80
    assert found(num_gpus=2) == 24
    assert found(gpu_ids=[1]) == 24
    assert found(num_gpus=2, gpu_ids=[0, 2]) == 12
    # Workers see those that were chosen alone.
    assert found(under_torchrun=2, num_gpus=2, gpu_ids=[1, 2]) == 24
    assert found(under_torchrun=3) == 12


def test_a_negative_prompt_takes_memory_where_it_is_read(keyframes: list[Any]) -> None:
    took = list[int]()
    for guidance in ("cfg", "nag"):
        asked = GenerationConfig(
            keyframes=keyframes, size="32*32", base_seed=1, guidance_scale=1.0, guidance=guidance
        )
        plan = make_plan(asked)
        took.append(memory(plan.folder, plan.tasks[0], plan.settings).sampling)
    width = default_dtype("cuda" if torch.cuda.is_available() else "cpu").itemsize
    one, two = (cross_bytes(plan.folder.config, prompts, width) for prompts in (1, 2))
    assert took[1] - took[0] == two - one


def test_the_plan_of_an_edit_says_what_it_takes_and_what_a_card_would_do(
    inputs: Inputs, tmp_path: Path
) -> None:
    def said(*more: str) -> str:
        return run_cli(*edit_command(inputs, tmp_path / "out", "--dry_run", *more)).out

    shown = said("--fit=12")
    assert "memory     about" in shown
    assert "fit        12 GB: bfloat16, all stays on the card, about" in shown
    assert "s of sampling the edit on an RTX 3060 (12 GB), from operations and bandwidth" in shown
    unasked = said("--fit=12", "--method=copy_source")
    assert "fit 12.0 is not used: copy_source asks the model nothing" in " ".join(unasked.split())
    assert "memory     about" not in unasked


def test_a_finished_run_is_read_where_its_model_would_not_fit(
    run: Run, run_edit: EditRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [run(output=str(tmp_path / "film"), fit=64.0), run_edit(output=str(tmp_path / "edit"), fit=64.0)]

    def too_small(*options: Any) -> None:
        raise ResourceError("this card holds nothing")

    monkeypatch.setattr("wanedit.runtime.fit.best", too_small)
    assert [read_run(one.video.parent).job for one in made] == ["generate", "edit"]


def test_an_edit_holds_a_context_for_each_window_of_both_of_its_clips() -> None:
    settings = EditSettings(2, 3.0, 1.0, source_guidance_scale=1.0)
    whole, windows = (replace(settings, window=window) for window in (None, 9))
    assert contexts(21, whole, ResidualCorrectedFlow()) == 2
    # 9 slots of which 3 are shared: they begin at 0, 6 and 12.
    assert contexts(21, windows, ResidualCorrectedFlow()) == 2 * 3
    assert contexts(21, windows, SDEdit()) == 3
    tiny = open_wan("tiny")
    one, six = (measure(tiny, 17, (64, 64), guided=True, views=views).contexts for views in (1, 6))
    assert six == 6 * one
