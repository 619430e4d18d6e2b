"""The transformer beyond the golden files: contexts, batches, positions, dtypes, refusals."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.wan import small
from tests.wan.golden import relative_error
from wanedit.errors import InputError
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guidance.nag import NormalizedAttention
from wanedit.flow.guiding import Guide, Pass
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import euler
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.blocks import CrossAttention
from wanedit.wan.transformer import Experts, sinusoidal_embedding

CLOSE = 2e-6
TYPES = ["t2v", "i2v", "flf2v", "vace"]


@pytest.mark.parametrize("model_type", TYPES)
def test_a_prepared_context_serves_every_step(model_type: str) -> None:
    model = small.transformer(model_type)
    values = small.inputs(model)
    rest = {name: x for name, x in values.items() if name not in ("latents", "timestep")}
    context = model.prepare(small.GRID, **rest)
    for timestep in (999.0, 500.5, 3.0):
        t = torch.tensor([timestep])
        velocity = model.velocity(values["latents"], t, context)
        assert relative_error(velocity, model(values["latents"], t, **rest)) < CLOSE
        assert velocity.shape == values["latents"].shape


@pytest.mark.parametrize("model_type", TYPES)
def test_a_batch_of_two_is_two_of_one(model_type: str) -> None:
    model = small.transformer(model_type)
    values = small.inputs(model, batch=2)
    both = model(**values)
    for row in (0, 1):
        alone = model(**{name: x[row : row + 1] for name, x in values.items()})
        assert relative_error(both[row : row + 1], alone) < CLOSE


@pytest.mark.parametrize("shared", [("image_tokens",), ("condition",), ("image_tokens", "condition")])
def test_one_row_of_images_serves_a_batch(shared: tuple[str, ...]) -> None:
    model = small.transformer()
    values = small.inputs(model, batch=2)
    for name in shared:
        values[name] = values[name][:1].expand_as(values[name])
    full = model(**values)
    assert relative_error(model(**{**values, **{name: values[name][:1] for name in shared}}), full) < CLOSE


def test_one_context_serves_a_batch_of_latents() -> None:
    model = small.transformer()
    one = small.inputs(model)
    rest = {name: x for name, x in one.items() if name not in ("latents", "timestep")}
    latents = torch.cat([one["latents"], -one["latents"]])
    both = model.velocity(latents, one["timestep"].expand(2), model.prepare(small.GRID, **rest))
    assert relative_error(both[1:], model(-one["latents"], one["timestep"], **rest)) < CLOSE


def test_default_frame_ids_count_the_slots() -> None:
    model = small.transformer()
    values = small.inputs(model)
    counted = model(**values, frame_ids=torch.arange(small.GRID[0]))
    assert relative_error(model(**values), counted) < CLOSE
    assert relative_error(model(**values), model(**values, frame_ids=torch.arange(4) * 1.5)) > 1e-3


@pytest.mark.parametrize("offset", [7.0, 0.37])
def test_only_differences_of_frame_ids_matter(offset: float) -> None:
    model = small.transformer()
    values = small.inputs(model)
    ids = torch.tensor([0.0, 1.0, 2.5, 3.0], dtype=torch.float64)
    assert relative_error(model(**values, frame_ids=ids + offset), model(**values, frame_ids=ids)) < CLOSE


@pytest.mark.parametrize("ids", [[0.0, 1.0, 2.0, 3.0], [0.0, 1.5, 1.5, 9.0]])
def test_slots_may_be_permuted_with_their_ids(ids: list[float]) -> None:
    """Position comes from `frame_ids` and from nothing else, so the velocity is permuted along."""
    model = small.transformer()
    values, order = small.inputs(model), [2, 0, 3, 1]
    frame_ids = torch.tensor(ids)
    expected = model(**values, frame_ids=frame_ids)[:, :, order]
    moved = {**values, **{name: values[name][:, :, order] for name in ("latents", "condition")}}
    assert relative_error(model(**moved, frame_ids=frame_ids[order]), expected) < CLOSE
    assert relative_error(model(**moved, frame_ids=frame_ids), expected) > 1e-3


def test_slots_of_one_id_and_one_content_get_one_velocity() -> None:
    """A joint sequence [main slots; edit slots] repeats ids; equal twins cannot be told apart."""
    model = small.transformer("t2v")
    values = small.inputs(model)
    joint = {**values, "latents": torch.cat([values["latents"], values["latents"][:, :, [1, 3]]], dim=2)}
    velocity = model(**joint, frame_ids=torch.tensor([0, 1, 2, 3, 1, 3]))
    assert relative_error(velocity[:, :, 4:], velocity[:, :, [1, 3]]) < CLOSE


def test_text_is_padded_with_zeros() -> None:
    model = small.transformer()
    values = small.inputs(model)
    zeros = values["text"].new_zeros(1, 3, values["text"].shape[2])
    padded = {**values, "text": torch.cat([values["text"], zeros], dim=1)}
    assert relative_error(model(**padded), model(**values)) < CLOSE


def test_context_reaches_the_velocity() -> None:
    """Each of text, either image, either end of the condition and the timestep changes the result."""
    model = small.transformer()
    values = small.inputs(model)
    before = model(**values)
    tokens, condition = values["image_tokens"], values["condition"]
    changes = {
        "text": values["text"] + 1,
        "timestep": values["timestep"] / 2,
        "image_tokens": torch.cat([tokens[:, :257].flip(2), tokens[:, 257:]], dim=1),
        "condition": torch.cat([condition[:, :4] + 1, condition[:, 4:]], dim=1),
    }
    for name, value in changes.items():
        assert relative_error(model(**{**values, name: value}), before) > 1e-4, name
    swapped = torch.cat([tokens[:, 257:], tokens[:, :257]], dim=1)  # emb_pos tells first from last
    assert relative_error(model(**{**values, "image_tokens": swapped}), before) > 1e-4


def test_sinusoidal_embedding_keeps_float32_timesteps_apart() -> None:
    a, b = sinusoidal_embedding(torch.tensor([999.0, 999.5]), 256)
    assert a.dtype == torch.float32
    assert torch.allclose(a[:128] ** 2 + a[128:] ** 2, torch.ones(128), atol=1e-6)
    assert float((a - b).abs().max()) > 0.4


@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_inputs_are_named() -> None:
    model = small.transformer()
    values = small.inputs(model, batch=2)
    cases = [
        ({"text": torch.zeros(2, 11, 12)}, r"text is \(2, 11, 12\); expected \(B, <= 10, 12\)"),
        ({"text": torch.zeros(2, 7, 13)}, r"text is \(2, 7, 13\)"),
        ({"text": torch.zeros(7, 12)}, r"text is \(7, 12\)"),
        (
            {"image_tokens": torch.zeros(2, 257, 14)},
            r"image_tokens is \(2, 257, 14\); this flf2v model expects \('1 or 2', 514, 14\)",
        ),
        ({"image_tokens": None}, "image_tokens is None; this flf2v model expects"),
        ({"image_tokens": torch.zeros(3, 514, 14)}, r"image_tokens is \(3, 514, 14\)"),
        (
            {"condition": torch.zeros(2, 16, *small.GRID)},
            r"condition is \(2, 16, 4, 4, 6\).*expects \('1 or 2', 20, 4, 4, 6\)",
        ),
        ({"condition": torch.zeros(2, 20, 3, 4, 6)}, r"condition is \(2, 20, 3, 4, 6\)"),
        ({"condition": None}, "condition is None"),
        ({"frame_ids": torch.arange(5)}, r"frame_ids have shape \(5,\); expected \(4,\)"),
        ({"latents": torch.zeros(2, 16, 4, 5, 6)}, r"latents are 5x6; expected even sizes"),
    ]
    for change, said in cases:
        with pytest.raises(InputError, match=said):
            model(**{**values, **change})


def test_t2v_takes_no_images() -> None:
    model = small.transformer("t2v")
    values = small.inputs(model)
    with pytest.raises(InputError, match="this t2v model expects None"):
        model(**values, image_tokens=torch.zeros(1, 257, 14))
    with pytest.raises(InputError, match="this t2v model expects None"):
        model(**values, condition=torch.zeros(1, 20, *small.GRID))


@pytest.mark.usefixtures("as_users_run_it")
def test_latents_must_fit_the_context() -> None:
    model = small.transformer("t2v")
    context = model.prepare(small.GRID, torch.zeros(2, 3, 12))
    for shape in ((3, 16, *small.GRID), (1, 16, *small.GRID), (2, 16, 5, 4, 6), (2, 12, *small.GRID)):
        with pytest.raises(
            InputError, match=r"latents are .*; the context was prepared for \(2, 16, 4, 4, 6\)"
        ):
            model.velocity(torch.zeros(shape), torch.zeros(shape[0]), context)
    with pytest.raises(InputError, match=r"timestep has shape \(1,\); expected \(2,\)"):
        model.velocity(torch.zeros(2, 16, *small.GRID), torch.zeros(1), context)


def test_bfloat16_weights_give_a_close_float32_velocity() -> None:
    model = small.transformer()
    values = small.inputs(model)
    exact = model(**values)
    for name, parameter in model.named_parameters():
        if not any(part in name for part in ("time_", "modulation", "norm", "head.", "emb_pos")):
            parameter.data = parameter.data.bfloat16()
    rounded = model(**values)
    assert rounded.dtype == torch.float32
    assert 1e-6 < relative_error(rounded, exact) < 0.02


def _guided(guidance: float, batched: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[GuidedVelocity, Tensor]:
    monkeypatch.setattr("wanedit.lit.velocity.BATCHED_UP_TO", 8192 if batched else 0)
    model = small.transformer()
    values = small.inputs(model)
    negative = -values["text"]
    tokens, condition = values["image_tokens"], values["condition"]
    velocity = GuidedVelocity(model, small.GRID, values["text"], negative, tokens, condition, guidance)
    return velocity, values["latents"]


STEP = Step(0, 0.5, 0.4, 500.0)


@pytest.mark.fault(15)
def test_guidance_of_one_skips_the_unconditional_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    velocity, x = _guided(1.0, True, monkeypatch)
    values = small.inputs(small.transformer())
    del values["latents"], values["timestep"]
    conditional = small.transformer()(x, torch.tensor([500.0]), **values)
    assert relative_error(velocity(x, STEP), conditional) < CLOSE
    assert velocity.evaluations == 1
    euler(velocity, x, schedule(3, 3.0))
    assert velocity.evaluations == 4
    # The formula at 1.0 gives the same: nothing but the cost changes.
    nearly, _ = _guided(1.0 + 1e-9, True, monkeypatch)
    assert relative_error(nearly(x, STEP), conditional) < CLOSE


def test_both_passes_in_one_batch_equal_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    (one, x), (two, _) = (_guided(5.0, batched, monkeypatch) for batched in (True, False))
    assert (len(one.contexts), len(two.contexts)) == (1, 2)
    assert relative_error(one(x, STEP), two(x, STEP)) < 5 * CLOSE
    assert one.evaluations == two.evaluations == 2


@pytest.mark.parametrize("model_type", TYPES)
def test_another_prompt_shares_all_but_its_keys(model_type: str) -> None:
    model = small.transformer(model_type)
    values = small.inputs(model)
    rest = {name: x for name, x in values.items() if name not in ("latents", "timestep")}
    context = model.prepare(small.GRID, **rest)
    other = {**rest, "text": rest["text"].flip(1)}
    swapped, fresh = model.with_text(context, other["text"]), model.prepare(small.GRID, **other)
    one, two = (model.velocity(values["latents"], values["timestep"], c) for c in (swapped, fresh))
    assert relative_error(one, two) < CLOSE
    assert swapped.condition is context.condition
    assert all(new.image is old.image for new, old in zip(swapped.cross, context.cross, strict=True))


def test_two_passes_equal_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.transformer()
    values = small.inputs(model)
    arguments = (
        small.GRID,
        values["text"],
        values["text"].flip(1),
        values["image_tokens"],
        values["condition"],
    )
    step = next(iter(schedule(4, 5.0)))
    together = GuidedVelocity(model, *arguments, 3.0)(values["latents"], step)
    monkeypatch.setattr("wanedit.lit.velocity.BATCHED_UP_TO", 0)
    apart = GuidedVelocity(model, *arguments, 3.0)
    assert len(apart.contexts) == 2
    assert relative_error(apart(values["latents"], step), together) < CLOSE


@pytest.mark.parametrize("model_type", ["flf2v", "vace"])
def test_nag_attends_away_from_the_negative_prompt_in_every_block(model_type: str) -> None:
    model, lead = small.transformer(model_type), NormalizedAttention(strength=3.0).lead
    values = small.inputs(model)
    x, text = values.pop("latents"), values.pop("text")
    timestep, negative = values.pop("timestep"), -text
    told = model.prepare(small.GRID, text, **values)
    led = told.led(model.with_text(told, negative), lead)
    plain = model.velocity(x, timestep, told)
    # Away from the same words: nowhere.
    same = model.velocity(x, timestep, told.led(model.with_text(told, text), lead))
    assert relative_error(same, plain) < CLOSE
    # By hand: cross-attention's output before its projection, of the words alone.
    attended = CrossAttention.forward

    def by_hand(self, hidden, context):
        q = self.heads(self.norm_q(self.q(hidden)))
        z, away = self.attend(q, *context.text), self.attend(q, *context.negative)
        out = lead(z, away)
        return self.o(out if context.image is None else out + self.attend(q, *context.image))

    found = model.velocity(x, timestep, led)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossAttention, "forward", by_hand)
        assert relative_error(model.velocity(x, timestep, led), found) < CLOSE
    assert CrossAttention.forward is attended
    assert relative_error(found, plain) > 1e-3


def test_a_block_that_is_left_out_passes_its_input_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.transformer("vace")
    values = small.inputs(model)
    x, timestep = values.pop("latents"), values.pop("timestep")
    told = model.prepare(small.GRID, **values)
    without = model.velocity(x, timestep, replace(told, without=(1,)))
    monkeypatch.setattr(model.blocks[1], "forward", lambda x, *rest: x)
    assert torch.equal(without, model.velocity(x, timestep, told))


@pytest.mark.parametrize("name", list(GUIDANCES))
@pytest.mark.parametrize("experts", [1, 2])
def test_every_guidance_is_its_formula_of_the_transformers_own_passes(name: str, experts: int) -> None:
    models = [small.transformer(seed=seed) for seed in range(experts)]
    model = models[0] if experts == 1 else Experts(*models)
    guidance = GUIDANCES[name]().of_model("small", 2)
    values = small.inputs(models[0])
    x, text = values["latents"], values["text"]
    rest = values["image_tokens"], values["condition"]
    step = Step(4, 0.5, 0.4, 500.0, 10, (4, 10))
    velocity = GuidedVelocity(model, small.GRID, text, -text, *rest, 3.0, guide=Guide(guidance))
    low = models[-1]  # who answers at 0.5
    told, other = (low.prepare(small.GRID, one, *rest) for one in (text, -text))

    def ask(one: Pass) -> Tensor:
        context = other if one.negative else told
        context = context.led(other, one.led) if one.led else replace(context, without=one.without)
        return low.velocity(x, torch.tensor([500.0]), context)

    asked = guidance.asks(step, 3.0)
    answers = {one: ask(one) for one in asked}
    expected = guidance.combine(answers, 3.0, x, step, guidance.remember(answers, step, None))
    assert relative_error(velocity(x, step), expected) < CLOSE
    assert velocity.evaluations == len(asked)
