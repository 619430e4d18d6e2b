"""The transformer block of Wan: self-attention under RoPE, cross-attention, feed-forward, all under modulation.

Parameter names and shapes are those of the official checkpoints. The residual stream and the modulation
stay in float32 and matrix products run in the dtype of their weights, as the official code does under
autocast.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.wan.attention import Attention, sdpa
from wanedit.wan.parallel import Share

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Split a head over (time, height, width): `d - 4 (d // 6)`, `2 (d // 6)`, `2 (d // 6)`.

    Source: Wan 2.1, `wan/modules/model.py`, the tables that `WanModel.__init__` concatenates.
    """
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def _angles(positions: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n pairs"]:
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return torch.outer(positions.double(), THETA**-exponent)


def rotation(
    frame_ids: Float[Tensor, " s"], height: int, width: int, head_dim: int
) -> tuple[Float[Tensor, "length pairs"], Float[Tensor, "length pairs"]]:
    """Cosine and sine of every token's angle, tokens in the order (slot, row, column).

    Args:
        frame_ids: temporal position of every latent slot, in slots; integer or fractional.
        height, width: patches, not pixels.

    Returns:
        Two float32 tensors of shape (S * height * width, head_dim / 2), computed in float64.
    """
    time_dim, row_dim, column_dim = axis_dims(head_dim)
    device = frame_ids.device
    time = _angles(frame_ids, time_dim)
    rows = _angles(torch.arange(height, dtype=torch.float64, device=device), row_dim)
    columns = _angles(torch.arange(width, dtype=torch.float64, device=device), column_dim)
    shape = (len(frame_ids), height, width, -1)
    angles = torch.cat(
        [
            time[:, None, None].expand(shape),
            rows[None, :, None].expand(shape),
            columns[None, None, :].expand(shape),
        ],
        dim=-1,
    ).flatten(0, 2)
    return angles.cos().float(), angles.sin().float()


def rotate(
    x: Float[Tensor, "b length heads d"],
    cos: Float[Tensor, "length pairs"],
    sin: Float[Tensor, "length pairs"],
) -> Float[Tensor, "b length heads d"]:
    """Turn neighbouring channel pairs by the tabulated angles (RoFormer, arXiv 2104.09864, equation 34).

    A product of complex numbers, one pass over memory; on real pairs where it is compiled, as torch.compile fuses
    that into the projection before it, and a complex view would break the graph. The arithmetic is float32 whatever
    the dtype of `x`.
    """
    pairs = x.float().contiguous().unflatten(-1, (-1, 2))
    cos, sin = cos[:, None], sin[:, None]
    if torch.compiler.is_compiling():
        even, odd = pairs.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return turned.flatten(-2).to(x.dtype)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer, or a chain of them, in the dtype of its own first weight."""
    return layer(x.to(next(layer.parameters()).dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width, before it is split into heads.

    Rounded to the dtype of `x` before the float32 weight is applied, as the official code does; the result is
    float32 and is rounded once more, after RoPE, by `attend`.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype) * self.weight


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, returned in float32."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.float() if self.elementwise_affine else None
        bias = self.bias.float() if self.elementwise_affine else None
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps)


class _Projections(nn.Module):
    """The q, k, v, o projections and q, k norms that both kinds of attention have."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention: Attention = sdpa
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    def heads(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n heads d"]:
        return x.unflatten(-1, (self.num_heads, -1))

    def attend(
        self,
        q: Float[Tensor, "b n heads d"],
        k: Float[Tensor, "b m heads d"],
        v: Float[Tensor, "b m heads d"],
    ) -> Float[Tensor, "b n width"]:
        """Softmax attention in the dtype of `v`, heads joined again."""
        return self.attention(q.to(v.dtype), k.to(v.dtype), v).flatten(2)


class SelfAttention(_Projections):
    """Attention among the latent tokens, their positions turned into q and k by RoPE."""

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        cos: Float[Tensor, "n pairs"],
        sin: Float[Tensor, "n pairs"],
        share: Share | None = None,
    ) -> Float[Tensor, "b n width"]:
        # A weight that is packed has another format than it computes in; the bias has that.
        x = x.to(self.q.bias.dtype)
        q = rotate(self.heads(self.norm_q(self.q(x))), cos, sin)
        k = rotate(self.heads(self.norm_k(self.k(x))), cos, sin)
        v = self.heads(self.v(x))
        if share is None:
            return self.o(self.attend(q, k, v))
        # One exchange for all three.
        heads = share.by_heads(torch.cat([q.to(v.dtype), k.to(v.dtype), v], dim=-1))
        attended = self.attention(*(part.contiguous() for part in heads.chunk(3, dim=-1)))
        return self.o(share.by_tokens(attended).flatten(2))


@dataclass(frozen=True)
class KeysValues:
    """Keys and values that one block's cross-attention reads: (B, tokens, heads, d) each.

    Attributes:
        negative: of other words, for guidance inside of attention.
        lead: what is made of the attention to `text` and of that to `negative`, (B, N, width) each.
        penalty: (N, tokens), taken off what the latent tokens make of each of `text` before the softmax.
    """

    text: tuple[Tensor, Tensor]
    image: tuple[Tensor, Tensor] | None = None
    negative: tuple[Tensor, Tensor] | None = None
    lead: Callable[[Tensor, Tensor], Tensor] | None = None
    penalty: Tensor | None = None

    def expand(self, batch: int, penalty: Tensor | None) -> "KeysValues":
        """One row of text, or of images, for every row of a batch, and the penalty of all; a view."""

        def each(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return pair[0].expand(batch, -1, -1, -1), pair[1].expand(batch, -1, -1, -1)

        image, negative = (None if pair is None else each(pair) for pair in (self.image, self.negative))
        return KeysValues(each(self.text), image, negative, self.lead, penalty)


class CrossAttention(_Projections):
    """Attention to the text tokens plus, where the model has them, attention to the image tokens.

    The two kinds of tokens come apart, so no length decides where one ends and the other begins.
    """

    def __init__(self, dim: int, num_heads: int, eps: float, image_tokens: bool) -> None:
        super().__init__(dim, num_heads, eps)
        if image_tokens:
            self.k_img, self.v_img = nn.Linear(dim, dim), nn.Linear(dim, dim)
            self.norm_k_img = RMSNorm(dim, eps)

    def keys_values(
        self, text: Float[Tensor, "b n width"], image: Float[Tensor, "c m width"] | None
    ) -> KeysValues:
        """Project the context. It does not change over the steps, so this runs once per sample."""
        words = self._pair(self.norm_k(linear(self.k, text)), linear(self.v, text))
        if image is None:
            return KeysValues(words)
        return KeysValues(
            words, self._pair(self.norm_k_img(linear(self.k_img, image)), linear(self.v_img, image))
        )

    def _pair(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        # Kept in the dtype in which attention will read them.
        return self.heads(keys.to(values.dtype)), self.heads(values)

    def forward(self, x: Float[Tensor, "b n width"], context: KeysValues) -> Float[Tensor, "b n width"]:
        q = self.heads(self.norm_q(linear(self.q, x)))
        if context.penalty is None:
            out = self.attend(q, *context.text)
        else:
            # No back end but PyTorch's own adds to the logits.
            keys, values = context.text
            out = sdpa(q.to(values.dtype), keys, values, -context.penalty.to(values.dtype)).flatten(2)
        if context.negative is not None and context.lead is not None:
            out = context.lead(out, self.attend(q, *context.negative))
        if context.image is not None:
            out = out + self.attend(q, *context.image)
        return self.o(out)


def timed(
    factor: Float[Tensor, "b times 1 width"],
    x: Float[Tensor, "b n width"],
    shift: Float[Tensor, "b times 1 width"] | None = None,
) -> Float[Tensor, "b n width"]:
    """factor * x + shift, both by the time that each token is told: equal stretches of tokens share one."""
    x = factor * x.unflatten(1, (factor.shape[1], -1))
    return (x if shift is None else x + shift).flatten(1, 2)


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last shifted, scaled and gated by the time.

    The time is one for all tokens (times 1), or one for those of each slot. Under a `share` the tokens, positions and
    times are this rank's.
    """

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, eps: float, image_tokens: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = SelfAttention(dim, num_heads, eps)
        self.norm3 = LayerNorm(dim, eps)
        self.cross_attn = CrossAttention(dim, num_heads, eps, image_tokens)
        self.norm2 = LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU("tanh"), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x: Float[Tensor, "b n width"],
        modulation: Float[Tensor, "b times 6 width"],
        context: KeysValues,
        cos: Float[Tensor, "n pairs"],
        sin: Float[Tensor, "n pairs"],
        share: Share | None = None,
    ) -> Float[Tensor, "b n width"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation.float() + modulation).split(1, dim=2)
        x = x + timed(gate1, self.self_attn(timed(1 + scale1, self.norm1(x), shift1), cos, sin, share))
        x = x + self.cross_attn(self.norm3(x), context)
        return x + timed(gate2, linear(self.ffn, timed(1 + scale2, self.norm2(x), shift2)))


class HintBlock(Block):
    """A block beside the main ones, of which a layer of theirs is given what it makes of the known frames.

    Source: VACE (arXiv 2503.07598, context adapter tuning); diffusers, `transformer_wan_vace.py`.

    Args:
        takes_in: the first of them, where the embedded frames meet the embedded latents.
    """

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, eps: float, takes_in: bool) -> None:
        super().__init__(dim, ffn_dim, num_heads, eps, image_tokens=False)
        self.before_proj = nn.Linear(dim, dim) if takes_in else None
        self.after_proj = nn.Linear(dim, dim)

    def hint(
        self,
        c: Float[Tensor, "b n width"],
        x: Float[Tensor, "b n width"],
        modulation: Float[Tensor, "b times 6 width"],
        context: KeysValues,
        cos: Float[Tensor, "n pairs"],
        sin: Float[Tensor, "n pairs"],
        share: Share | None = None,
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "b n width"]]:
        """What the main layer is given, and the stream that the next hint block goes on from.

        Args:
            c: that stream, at first the embedded frames. x: the embedded latents, read by the first block alone.
        """
        if self.before_proj is not None:
            c = linear(self.before_proj, c) + x
        c = self(c, modulation, context, cos, sin, share)
        return linear(self.after_proj, c), c


class Head(nn.Module):
    """Last norm and projection to patches, modulated by the time embedding itself, in float32."""

    def __init__(self, dim: int, out_features: int, eps: float) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, eps, elementwise_affine=False)
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(
        self, x: Float[Tensor, "b n width"], time: Float[Tensor, "b times width"]
    ) -> Float[Tensor, "b n patch"]:
        shift, scale = (self.modulation.float() + time[:, :, None]).split(1, dim=2)
        return linear(self.head, timed(1 + scale, self.norm(x), shift))


class ImageEmbedding(nn.Module):
    """Image tokens to the width of the transformer; flf2v first adds a position per token."""

    def __init__(self, image_dim: int, dim: int, positions: int | None) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            LayerNorm(dim),
        )
        self.emb_pos = nn.Parameter(torch.zeros(1, positions, image_dim)) if positions else None

    def forward(self, tokens: Float[Tensor, "b n image_dim"]) -> Float[Tensor, "b n width"]:
        if self.emb_pos is not None:
            tokens = tokens + self.emb_pos
        norm_in, widen, activation, narrow, norm_out = self.proj
        return norm_out(linear(narrow, activation(linear(widen, norm_in(tokens)))))
