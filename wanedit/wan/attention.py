"""Back ends of attention: one function each, called as `attention(q, k, v)`, found by name, chosen for a whole run.

`sdpa` is PyTorch's own, which on a card picks FlashAttention 2 or cuDNN's kernel by itself. What all others answer is
held against it on their first call, see `Checked`.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError, NumericalError
from wanedit.outside import named_error
from wanedit.wan.config import ATTENTIONS

Made = TypeVar("Made", bound=Callable[..., Tensor])


@runtime_checkable
class Attention(Protocol):
    """softmax(q k^T / sqrt(d)) v of every head; no mask, all of one number format.

    One that needs more than PyTorch, or is less exact, says so by `wants`.
    """

    def __call__(
        self,
        q: Float[Tensor, "b n heads d"],
        k: Float[Tensor, "b m heads d"],
        v: Float[Tensor, "b m heads d"],
    ) -> Float[Tensor, "b n heads d"]: ...


@dataclass(frozen=True)
class Wants:
    """What a back end needs, and how near it comes to sdpa.

    Attributes:
        module: that it imports; to look whether it is there, nothing is imported.
        install: how one gets it.
        capability: of a CUDA device, the least that has its kernels; None for one that runs anywhere.
        widest: of a head that it takes.
        tolerance: of the relative difference to sdpa; None for what the number format alone explains, see `Checked`.
    """

    module: str = ""
    install: str = ""
    capability: tuple[int, int] | None = None
    widest: int = 1 << 16
    tolerance: float | None = None


def wants(**what: Any) -> Callable[[Made], Made]:
    """A decorator that says what a back end needs, by the fields of `Wants`."""

    def told(attention: Made) -> Made:
        attention.wants = Wants(**what)  # pyright: ignore[reportFunctionMemberAccess]
        return attention

    return told


@ATTENTIONS.register("sdpa")
def sdpa(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None = None) -> Tensor:
    """PyTorch's `scaled_dot_product_attention`; `added` to q k^T / sqrt(d), (n, m)."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), added)
    return out.transpose(1, 2)


@ATTENTIONS.register("auto")
def auto(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What `chosen` makes of this name is asked in a run; this itself is sdpa."""
    return sdpa(q, k, v)


@ATTENTIONS.register("flash")
@wants(
    # Not flash_attn alone, of which FlashAttention 4 installs a folder, too.
    module="flash_attn.flash_attn_interface",
    install="pip install flash-attn --no-build-isolation",
    capability=(8, 0),
    widest=256,
)
def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 2 (arXiv 2307.08691), in 16 bits."""
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

    return flash_attn_func(q, k, v)


@ATTENTIONS.register("flash3")
@wants(
    module="flash_attn_interface",
    install="build it from the folder hopper of github.com/Dao-AILab/flash-attention",
    capability=(9, 0),
    widest=256,
)
def flash3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 3 (arXiv 2407.08608), for Hopper."""
    from flash_attn_interface import flash_attn_func  # pyright: ignore[reportMissingImports]

    return _first(flash_attn_func(q, k, v))


@ATTENTIONS.register("flash4")
@wants(module="flash_attn.cute", install="pip install flash-attn-4", capability=(9, 0), widest=256)
def flash4(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 4, for Hopper and Blackwell."""
    from flash_attn.cute import flash_attn_func  # pyright: ignore[reportMissingImports]

    return _first(flash_attn_func(q, k, v))


@ATTENTIONS.register("sage")
@wants(
    module="sageattention",
    install="pip install sageattention, or build version 2 from github.com/thu-ml/SageAttention",
    capability=(8, 0),
    widest=128,
    tolerance=0.1,
)
def sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SageAttention (arXiv 2411.10958): q k^T in 8 bits. Flashes at joins are reported of it: it must be asked for."""
    from sageattention import sageattn  # pyright: ignore[reportMissingImports]

    return sageattn(q, k, v, tensor_layout="NHD")


@ATTENTIONS.register("flex")
def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's `flex_attention`, compiled at its first call: as it stands it would hold all scores at once."""
    return _compiled_flex()(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _first(made: Any) -> Tensor:
    """Of what some releases return, the result, and beside it the logarithms of the softmax's sums."""
    return made[0] if isinstance(made, tuple) else made


# By the major compute capability of a card: the kernel written for it, where that is installed. On others sdpa is
# FlashAttention 2 already.
MADE_FOR = {9: "flash3", 10: "flash4"}


def chosen(name: str, head_dim: int) -> str:
    """The back end that a run asks: for "auto" the kernel that was written for this machine's card, if it is
    installed, else sdpa.

    Raises:
        InputError: it is not installed, or cannot compute on this machine or with heads of this size.
    """
    if name != "auto":
        if said := _problem(name, head_dim):
            raise InputError(f"attention {name} {said}; or attention sdpa, which is always there")
        return name
    found = MADE_FOR.get(torch.cuda.get_device_capability()[0]) if torch.cuda.is_available() else None
    return found if found and not _problem(found, head_dim) else "sdpa"


def _problem(name: str, head_dim: int) -> str:
    """Why a back end cannot be asked here; "" where it can."""
    needs = getattr(ATTENTIONS[name], "wants", Wants())
    if needs.module and not _is_there(needs.module):
        return f"needs the module {needs.module}, which is not installed: {needs.install}"
    if head_dim > needs.widest:
        return f"takes heads of {needs.widest} at most, and this model's are {head_dim} wide"
    if needs.capability is None:
        return ""
    has = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if has is None or has < needs.capability:
        here, (major, minor) = "none" if has is None else f"one of {has[0]}.{has[1]}", needs.capability
        return (
            f"computes on a CUDA device of capability {major}.{minor} or above, and this machine has {here}"
        )
    return ""


def _is_there(module: str) -> bool:
    """Whether a module could be imported. Of a package's submodule its file is looked for: to ask importlib for it
    would import the package, which of kernels takes seconds."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for k, _ in enumerate(inner):
        name = ".".join([top, *inner[: k + 1]])
        spec = spec and PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec is not None


class Checked:
    """A back end that is held against sdpa at every call.

    The relative difference |a - b| / |b| may be what its `Wants` say; else twice the spacing of numbers in its format
    (0.016 in bfloat16, 0.002 in float16), of which each of the two rounds its result, and 0.001 at least.

    Attributes:
        worst: the largest difference so far.

    Raises:
        InputError: the back end fails, or returns something else than a result of this shape and number format.
        NumericalError: a difference beyond that.
    """

    def __init__(self, name: str) -> None:
        self.name, self.worst = name, 0.0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with named_error(f"attention {self.name}", "; attention sdpa is always there"):
            found = ATTENTIONS[self.name](q, k, v)
        expected = sdpa(q, k, v)
        got, meant = (
            (type(one), getattr(one, "shape", None), getattr(one, "dtype", None)) for one in (found, expected)
        )
        if got != meant:
            raise InputError(f"attention {self.name} returns {got}; expected {meant}, as sdpa")
        size = expected.float().norm().clamp_min(1e-30)
        difference = float((found.float() - expected.float()).norm() / size)
        allowed = getattr(ATTENTIONS[self.name], "wants", Wants()).tolerance
        if allowed is None:
            allowed = max(2 * torch.finfo(v.dtype).eps, 1e-3)
        if not difference <= allowed:
            raise NumericalError(
                f"attention {self.name} is {difference:.2g} off sdpa on its first call (relative difference over q "
                f"{tuple(q.shape)}, k {tuple(k.shape)} in {v.dtype}); expected {allowed:.2g} at most: install another "
                "release of it, or take attention sdpa"
            )
        self.worst = max(self.worst, difference)
        return found
