"""Back ends of attention: how one is found and refused, what is asked of it, and what a compiled block gives."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.wan import small
from wanedit.errors import InputError, NumericalError
from wanedit.wan import attention
from wanedit.wan.attention import Wants, chosen
from wanedit.wan.config import ATTENTIONS
from wanedit.wan.transformer import Experts

# Modules of the names and signatures that the packages have, which record how they are called. They compute by sums and
# exponentials, so that what a layout mixes up shows.
PLAIN = """
import torch
CALLS = []
def plain(q, k, v, **given):
    assert q.shape[-2:] == k.shape[-2:] == v.shape[-2:]
    CALLS.append(given)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)
"""
STAND_INS = {
    "flash": (
        "flash_attn/flash_attn_interface.py",
        """
def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    return plain(q, k, v)
""",
    ),
    "flash3": (
        "flash_attn_interface.py",
        """
def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
                    v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
                    pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False):
    return plain(q, k, v)
""",
    ),
    "flash4": (
        "flash_attn/cute/__init__.py",
        """
def flash_attn_func(q, k, v, softmax_scale=None, causal=False, window_size=(None, None)):
    return plain(q, k, v), None
""",
    ),
    "sage": (
        "sageattention/__init__.py",
        """
def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs):
    assert tensor_layout == "NHD"
    return plain(q, k, v)
""",
    ),
}
TOPS = ("flash_attn", "flash_attn_interface", "sageattention")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs the stand-ins of these names; they are gone afterwards."""

    def install(*names: str) -> None:
        for name in names:
            file, text = STAND_INS[name]
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PLAIN + text)
            if name == "flash":
                (path.parent / "__init__.py").write_text("from .flash_attn_interface import flash_attn_func")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    for name in [name for name in sys.modules if name.split(".")[0] in TOPS]:
        del sys.modules[name]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Has torch say that there is a CUDA device of this capability."""

    def pretend(major: int, minor: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, minor))

    return pretend


@pytest.mark.parametrize("name", STAND_INS)
def test_each_is_called_as_its_package_wants_and_held_against_sdpa(name: str, installed) -> None:
    installed(name)
    model = small.transformer()
    inputs = small.inputs(model, batch=2)
    expected = model(**inputs)
    model.set_attention(name)
    got = model(**inputs)
    module = sys.modules[STAND_INS[name][0].removesuffix(".py").removesuffix("/__init__").replace("/", ".")]
    # Two blocks, each with its own tokens, the text's and the pictures'; once to compare, once to compute.
    assert len(module.CALLS) == 2 * 2 * 3
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert model.off_sdpa is not None
    assert 0 <= model.off_sdpa < 1e-5
    model(**inputs)
    assert len(module.CALLS) == 3 * 2 * 3


def test_what_is_not_installed_is_refused_in_words_and_nothing_of_it_imported(installed, card) -> None:
    for name, (_, _) in STAND_INS.items():
        with pytest.raises(InputError, match=f"attention {name} needs the module .*not installed: .*sdpa"):
            chosen(name, 128)
    installed(*STAND_INS)
    with pytest.raises(InputError, match=r"flash3 computes on a CUDA device of capability 9\.0 .* has none"):
        chosen("flash3", 128)
    card(8, 9)
    with pytest.raises(
        InputError, match=r"flash4 .* capability 9\.0 or above, and this machine has one of 8\.9"
    ):
        chosen("flash4", 128)
    with pytest.raises(InputError, match="sage takes heads of 128 at most, and this model's are 256 wide"):
        chosen("sage", 256)
    assert [chosen(name, 128) for name in ("flash", "sage", "flex", "sdpa")] == [
        "flash",
        "sage",
        "flex",
        "sdpa",
    ]
    assert not [name for name in sys.modules if name.split(".")[0] in TOPS]


def test_a_folder_that_another_release_left_is_not_taken_for_the_package(installed, card) -> None:
    installed("flash4")
    card(9, 0)
    assert chosen("flash4", 128) == "flash4"
    with pytest.raises(InputError, match="flash needs the module"):
        chosen("flash", 128)


def test_auto_is_what_was_written_for_the_card_and_never_sage(installed, card) -> None:
    assert chosen("auto", 128) == "sdpa"
    installed(*STAND_INS)
    assert chosen("auto", 128) == "sdpa"
    for capability, name in (((8, 0), "sdpa"), ((9, 0), "flash3"), ((10, 0), "flash4"), ((12, 0), "sdpa")):
        card(*capability)
        assert chosen("auto", 128) == name
    assert chosen("auto", 512) == "sdpa"


def test_every_name_is_held_to_what_it_says(installed) -> None:
    assert set(ATTENTIONS) == {"auto", "flash", "flash3", "flash4", "flex", "sage", "sdpa"}
    for name in ATTENTIONS:
        wants = getattr(ATTENTIONS[name], "wants", Wants())
        assert bool(wants.module) == bool(wants.install) == (name in STAND_INS)


MODULE = """
import torch
import torch.nn.functional as F
def right(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
def off(q, k, v): return right(q, k, v) * 1.01
def nothing(q, k, v): return torch.full_like(q, torch.nan)
def other(q, k, v): return right(q, k, v).flatten(2)
def fails(q, k, v): raise TypeError("no kernel for this")
"""


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("off", NumericalError, r"off is 0\.01 off sdpa .*expected 0\.001 at most.*sdpa"),
        ("nothing", NumericalError, "is nan off sdpa"),
        ("other", InputError, "returns .*Size.*; expected .*as sdpa"),
        (
            "fails",
            InputError,
            r"TypeError: no kernel for this \(.*line \d+\); attention sdpa is always there",
        ),
    ],
)
def test_one_from_outside_is_taken_or_refused_by_the_same_check(
    name: str, error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "attending.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "attending", raising=False)
    model = small.transformer("i2v")
    inputs = small.inputs(model)
    expected = model(**inputs)
    model.set_attention("attending:right")
    assert torch.equal(model(**inputs), expected)
    assert model.off_sdpa == 0
    model.set_attention(f"attending:{name}")
    with pytest.raises(error, match=said):
        model(**inputs)
    # And at every call until it is another one.
    with pytest.raises(error, match=said):
        model(**inputs)
    model.set_attention("sdpa")
    assert torch.equal(model(**inputs), expected)


def test_experts_and_hint_blocks_attend_by_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape[1])
        return attention.sdpa(q, k, v)

    monkeypatch.setitem(ATTENTIONS._own, "flex", counting)
    vace = small.transformer("vace")
    vace.set_attention("flex")
    vace(**small.inputs(vace))
    assert len(calls) == 2 * 2 * (3 + 2)
    experts = Experts(small.transformer("i2v"), small.transformer("i2v", seed=1))
    experts.set_attention("flex")
    assert experts.off_sdpa is None
    for timestep in (950.0, 100.0):
        calls.clear()
        inputs = small.inputs(experts.expert_list()[0]) | {"timestep": torch.tensor([timestep])}
        experts(**inputs)
        assert calls
        assert experts.off_sdpa == 0


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    model = small.transformer()
    inputs = small.inputs(model)
    expected = model(**inputs)
    model.set_attention("flex")
    torch.testing.assert_close(model(**inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_flex_compiled_computes_the_same() -> None:
    q, k = torch.randn(2, 50, 3, 32), torch.randn(2, 81, 3, 32)
    with torch.no_grad():
        found = ATTENTIONS["flex"](q, k, k)
    torch.testing.assert_close(found, attention.sdpa(q, k, k), rtol=1e-5, atol=1e-5)
