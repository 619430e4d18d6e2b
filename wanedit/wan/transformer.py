"""The Wan diffusion transformer: latents, timestep and context in, velocity out.

Equal to the official implementation (tests/wan/test_golden.py), with three differences in form: temporal
positions are an argument, the context is prepared once per sample, and RoPE is real. Wan 2.2 has two of them, one
for high and one for low noise: `Experts`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.wan.attention import Attention, Checked
from wanedit.wan.blocks import (
    Block,
    CrossAttention,
    Head,
    HintBlock,
    ImageEmbedding,
    KeysValues,
    SelfAttention,
    linear,
    rotation,
)
from wanedit.wan.config import ATTENTIONS, IMAGE_TOKENS, PATCH_SIZE, WanConfig
from wanedit.wan.parallel import Group, Share
from wanedit.wan.streaming import BlockStream, Shelf


@dataclass(frozen=True)
class Context:
    """All that a velocity depends on and that does not change over the steps of a sample.

    Attributes:
        cross: keys and values of every block, those of hint blocks after the others.
        cos, sin: (S * h/2 * w/2, head_dim / 2) RoPE tables, float32.
        condition: (C, tokens, dim) the condition's share of the patch embedding, or an embedding of its own for hint
            blocks; None for text-only models.
        grid: latent sizes (S, h, w).
        without: blocks that are left out.
        penalty: (tokens, words), taken off what each token makes of each word before the softmax; None for nothing.
    """

    cross: tuple[KeysValues, ...]
    cos: Tensor
    sin: Tensor
    condition: Tensor | None
    grid: tuple[int, int, int]
    without: tuple[int, ...] = ()
    penalty: Tensor | None = None

    def batch(self) -> int:
        """Rows of text: the batch that a velocity call with this context must have."""
        return self.cross[0].text[0].shape[0]

    def led(self, negative: "Context", lead: Callable[[Tensor, Tensor], Tensor]) -> "Context":
        """The same, whose attention to the words is led away from that to another context's, see `KeysValues`."""
        pairs = zip(self.cross, negative.cross, strict=True)
        cross = tuple(replace(own, negative=other.text, lead=lead) for own, other in pairs)
        return replace(self, cross=cross)


def sinusoidal_embedding(timestep: Float[Tensor, " b"], dim: int) -> Float[Tensor, "b dim"]:
    """[cos, sin] of the timestep at dim / 2 frequencies, computed in float64, returned in float32."""
    exponent = torch.arange(dim // 2, dtype=torch.float64, device=timestep.device) / (dim // 2)
    angles = torch.outer(timestep.double(), 10000.0**-exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def heads_problem(config: WanConfig, ranks: int) -> str:
    """Why so many ranks cannot share a sample's tokens; "" where they can."""
    if config.num_heads % ranks == 0:
        return ""
    able = ", ".join(str(n) for n in range(2, config.num_heads + 1) if config.num_heads % n == 0)
    return (
        f"{ranks} ranks share the tokens of a sample, and the model has {config.num_heads} heads, which they do not "
        f"divide; expected one of {able}"
    )


class WanTransformer(nn.Module):
    """Wan's DiT for any `WanConfig`. Parameter names are the official ones.

    Attributes:
        off_sdpa: the largest relative difference of its attention to sdpa; None where that is not measured (yet).
        group: of the ranks that share its tokens, see `spread`; None for this process alone.
    """

    off_sdpa: float | None = None
    group: Group | None = None

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self._unchecked: str | None = None
        dim, eps = config.dim, config.eps
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 6))
        self.blocks = nn.ModuleList(
            Block(dim, config.ffn_dim, config.num_heads, eps, bool(config.image_tokens))
            for _ in range(config.num_layers)
        )
        self.stream: BlockStream | None = None
        self.head = Head(dim, config.out_dim * 4, eps)
        if config.vace_layers:
            self.vace_patch_embedding = nn.Conv3d(config.vace_in_dim, dim, PATCH_SIZE, stride=PATCH_SIZE)
        self.vace_blocks = nn.ModuleList(
            HintBlock(dim, config.ffn_dim, config.num_heads, eps, takes_in=layer == 0)
            for layer in config.vace_layers
        )
        if config.image_tokens:
            positions = config.num_images * IMAGE_TOKENS if config.model_type == "flf2v" else None
            self.img_emb = ImageEmbedding(config.image_dim, dim, positions)

    def stream_blocks(self, resident: int, shelf: Shelf) -> None:
        """From now on keep only so many blocks on the device, and bring each other one when it is its turn. Blocks of
        hints stay."""
        self.stream = BlockStream(self.block_list(), resident, shelf)

    def bring(self, device: torch.device) -> None:
        """To a device, all but the blocks that are brought in turn."""
        if self.stream is None:
            self.to(device)
            return
        for name, module in self.named_children():
            if name != "blocks":
                module.to(device)
        self.stream.bring(self.block_list(), device)

    def in_turn(self) -> Iterator[Block]:
        """The blocks as they compute, each at hand until the next is asked for."""
        blocks = self.block_list()
        return iter(blocks) if self.stream is None else self.stream.in_turn(blocks)

    def block_list(self) -> list[Block]:
        """The blocks, typed: nn.ModuleList forgets what it holds."""
        return list(self.blocks)  # pyright: ignore[reportReturnType]

    def hint_list(self) -> list[HintBlock]:
        """The hint blocks of a vace, typed; one for each of `vace_layers`."""
        return list(self.vace_blocks)  # pyright: ignore[reportReturnType]

    def set_attention(self, name: str) -> None:
        """Attend by this back end from now on, which the next velocity is computed with twice: first to hold it against
        sdpa. Raises InputError for a name that there is not."""
        self._attend_by(ATTENTIONS[name])
        self._unchecked = None if name == "sdpa" else name

    def _attend_by(self, attention: Attention) -> None:
        for module in self.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                module.attention = attention

    def _check_attention(self, name: str, *inputs: Any) -> None:
        """Compute a velocity whose attention is held against sdpa. Raises as `Checked`."""
        check = Checked(name)
        self._attend_by(check)
        # What compares, and may refuse, is no part of a graph.
        with torch.compiler.set_stance("force_eager"):
            self._velocity(*inputs)
        self.set_attention(name)
        self._unchecked, self.off_sdpa = None, check.worst

    def spread(self, group: Group) -> None:
        """Compute each velocity on all ranks of a group together, which hold the same weights: all ask for the same
        ones in the same order, and all are answered.

        Raises:
            InputError: they do not divide the heads.
        """
        if problem := heads_problem(self.config, dist.get_world_size(group)):
            raise InputError(problem)
        self.group = group

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Have the blocks compiled as they are first called, all by one graph, which leaves the number of tokens open.

        A graph each for one clip and several, for one time and one of each slot, and for hint blocks. What the compiler
        cannot do raises there; nothing goes on uncompiled.
        """
        # Experts, and the models that one process asks one after the other, share the count.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for block in [*self.block_list(), *self.hint_list()]:
            block.compile(fullgraph=True, dynamic=True, backend=backend)

    def prepare(
        self,
        grid: tuple[int, int, int],
        text: Float[Tensor, "b n text_dim"],
        image_tokens: Float[Tensor, "i m image_dim"] | None = None,
        condition: Float[Tensor, "c known s h w"] | None = None,
        frame_ids: Tensor | None = None,
        penalty: Float[Tensor, "s prompts"] | None = None,
    ) -> Context:
        """Compute once per sample what the steps share.

        Args:
            grid: (S, h, w), the latent sizes.
            text: token features, zero-padded here to `text_len`; under a `penalty` those of several prompts, each of
                `text_len` already, one behind the other.
            image_tokens: 257 tokens per image; one row serves every row of `text`.
            condition: `condition_channels` of the known frames; one row serves every row of `text`.
            frame_ids: (S,) temporal position of every slot, in slots; 0 … S-1 by default.
            penalty: taken off what the tokens of each slot make of each prompt's words, before the softmax.

        Raises:
            InputError: an input is missing, superfluous or of another shape than the model needs.
        """
        config = self.config
        if grid[1] % 2 or grid[2] % 2:
            raise InputError(f"latents are {grid[1]}x{grid[2]}; expected even sizes")
        words = config.text_len * (1 if penalty is None else penalty.shape[1])
        few = text.ndim == 3 and (text.shape[1] <= words if penalty is None else text.shape[1] == words)
        if not few or text.shape[2] != config.text_dim:
            most = "<= " if penalty is None else ""
            raise InputError(f"text is {tuple(text.shape)}; expected (B, {most}{words}, {config.text_dim})")
        if penalty is not None and penalty.shape[0] != grid[0]:
            raise InputError(f"penalty is of {penalty.shape[0]} slots; expected {grid[0]}")
        # Shapes of one row; None where this model reads no such input.
        tokens = (config.num_images * IMAGE_TOKENS, config.image_dim) if config.image_tokens else None
        channels = (config.condition_channels, *grid) if config.condition_channels else None
        for name, x, row in ("image_tokens", image_tokens, tokens), ("condition", condition, channels):
            got = None if x is None else tuple(x.shape)
            fits = got is row if got is None or row is None else got[1:] == row and got[0] in (1, len(text))
            if not fits:
                expected = row and (f"1 or {len(text)}", *row)
                raise InputError(f"{name} is {got}; this {config.model_type} model expects {expected}")
        if frame_ids is not None and tuple(frame_ids.shape) != (grid[0],):
            raise InputError(f"frame_ids have shape {tuple(frame_ids.shape)}; expected ({grid[0]},)")
        context = self.assemble(grid, text, image_tokens, condition, frame_ids)
        if penalty is None:
            return context
        of_tokens = penalty.to(text.device).repeat_interleave(grid[1] * grid[2] // 4, dim=0)
        return replace(context, penalty=of_tokens.repeat_interleave(config.text_len, dim=1))

    def assemble(
        self,
        grid: tuple[int, int, int],
        text: Float[Tensor, "b n text_dim"],
        image_tokens: Float[Tensor, "i m image_dim"] | None,
        condition: Float[Tensor, "c known s h w"] | None,
        frame_ids: Tensor | None = None,
    ) -> Context:
        """`prepare` without its checks: image tokens that the model has may be left out, and add nothing then."""
        slots, height, width = grid
        device = text.device
        if frame_ids is None:
            frame_ids = torch.arange(slots, device=device)
        cos, sin = rotation(
            frame_ids.to(device, torch.float64), height // 2, width // 2, self.config.head_dim
        )
        text_context = linear(self.text_embedding, self._padded(text))
        image_context = None if image_tokens is None else self.img_emb(image_tokens)
        cross = tuple(
            block.cross_attn.keys_values(text_context, image_context)
            for block in chain(self.in_turn(), self.hint_list())
        )
        return Context(cross, cos, sin, self.embed_condition(condition), grid)

    def with_text(self, context: Context, text: Float[Tensor, "b n text_dim"]) -> Context:
        """The same context for another prompt, without penalty; image keys, RoPE tables and condition are shared, not
        copied."""
        words = linear(self.text_embedding, self._padded(text))
        cross = tuple(
            replace(old, text=block.cross_attn.keys_values(words, None).text)
            for block, old in zip(chain(self.in_turn(), self.hint_list()), context.cross, strict=True)
        )
        return replace(context, cross=cross, penalty=None)

    def _padded(self, text: Tensor) -> Tensor:
        return F.pad(text, (0, 0, 0, max(0, self.config.text_len - text.shape[1])))

    def embed_condition(self, condition: Tensor | None) -> Tensor | None:
        """The condition's share of patch_embedding, (B, tokens, dim): a convolution is linear in its channels. Or its
        own embedding, which hint blocks begin with."""
        if condition is None:
            return None
        if self.config.vace_layers:
            patches = linear(self.vace_patch_embedding, condition)
        else:
            weight = self.patch_embedding.weight[:, self.config.out_dim :]
            patches = F.conv3d(condition.to(weight.dtype), weight, stride=PATCH_SIZE)
        return patches.flatten(2).transpose(1, 2)

    def _times(
        self, timestep: Float[Tensor, " t"]
    ) -> tuple[Float[Tensor, "t dim"], Float[Tensor, "t 6 dim"]]:
        """The embedding of each time, and what the blocks are modulated by."""
        features = sinusoidal_embedding(timestep, self.config.freq_dim)
        # Times and modulations in float32, outside of the official code's bfloat16 autocast.
        time = linear(self.time_embedding[2], F.silu(linear(self.time_embedding[0], features))).float()
        modulation = linear(self.time_projection[1], F.silu(time)).float().unflatten(1, (6, -1))
        return time, modulation

    def modulation(self, timestep: Float[Tensor, " t"]) -> Float[Tensor, "t 6 dim"]:
        """What the blocks are modulated by at each time."""
        return self._times(timestep.to(self.patch_embedding.weight.device))[1]

    def velocity(
        self,
        latents: Float[Tensor, "b channels s h w"],
        timestep: Float[Tensor, "b *slots"],
        context: Context,
    ) -> Float[Tensor, "b channels s h w"]:
        """The velocity eps - x_0 at `timestep` = 1000 sigma.

        Args:
            timestep: (B,), or (B, S) where slots have different ones: 0 for one that is clean already.

        Returns:
            float32, whatever the dtype of the weights.

        Raises:
            InputError: the latents have another grid or batch than the context was prepared for, or there is
                not one timestep for each of them, or for each of their slots.
            InputError, NumericalError: attention other than sdpa's fails its check, see `Checked`.
        """
        batch = latents.shape[0]
        expected = (context.batch(), self.config.out_dim, *context.grid)
        if tuple(latents.shape[1:]) != expected[1:] or expected[0] not in (1, batch):
            raise InputError(f"latents are {tuple(latents.shape)}; the context was prepared for {expected}")
        if tuple(timestep.shape) not in ((batch,), (batch, context.grid[0])):
            expected = f"({batch},) or ({batch}, {context.grid[0]})"
            raise InputError(f"timestep has shape {tuple(timestep.shape)}; expected {expected}")
        if self._unchecked is not None:
            self._check_attention(self._unchecked, latents, timestep, context)
        return self._velocity(latents, timestep, context)

    def _velocity(
        self,
        latents: Float[Tensor, "b channels s h w"],
        timestep: Float[Tensor, "b *slots"],
        context: Context,
    ) -> Float[Tensor, "b channels s h w"]:
        batch = latents.shape[0]
        time, modulation = self._times(timestep.flatten())
        # (B, times, …) with 1 or S times.
        time, modulation = time.unflatten(0, (batch, -1)), modulation.unflatten(0, (batch, -1))
        weight = self.patch_embedding.weight[:, : self.config.out_dim]
        patches = F.conv3d(latents.to(weight.dtype), weight, self.patch_embedding.bias, stride=PATCH_SIZE)
        # Laid out as what a block returns: else the first block would be compiled by a graph of its own.
        x = patches.flatten(2).transpose(1, 2).float().contiguous()
        c, cos, sin, penalty, share = context.condition, context.cos, context.sin, context.penalty, None
        if self.group is not None:
            # A slot that has a time of its own stays on one rank.
            times, tokens = time.shape[1], x.shape[1]
            share = Share(self.group, tokens, tokens // times if times > 1 else 1)
            x, c, cos, sin, penalty = (
                share.mine(x),
                c if c is None else share.mine(c),
                share.mine(cos, 0),
                share.mine(sin, 0),
                penalty if penalty is None else share.mine(penalty, 0),
            )
            if times > 1:
                time, modulation = (share.mine(one, 1, share.unit) for one in (time, modulation))
        start = x
        own, read = context.cross[: len(self.blocks)], context.cross[len(self.blocks) :]
        hints = dict(zip(self.config.vace_layers, zip(self.hint_list(), read, strict=True), strict=True))
        if c is not None:
            c = c.expand(batch, -1, -1)
            x = x if hints else x + c
        for layer, (block, cross) in enumerate(zip(self.in_turn(), own, strict=True)):
            if layer not in context.without:
                x = block(x, modulation, cross.expand(batch, penalty), cos, sin, share)
            if layer in hints and c is not None:
                # Made where it is given: all at once would be as many copies of the clip's tokens.
                beside, cross = hints[layer]
                hint, c = beside.hint(c, start, modulation, cross.expand(batch, penalty), cos, sin, share)
                x = x + hint
        patches = self.head(x, time).float()
        slots, height, width = context.grid
        return rearrange(
            patches if share is None else share.whole(patches),
            "b (s h w) (p q c) -> b c s (h p) (w q)",
            s=slots,
            h=height // 2,
            w=width // 2,
            p=2,
            q=2,
        )

    def forward(
        self,
        latents: Float[Tensor, "b channels s h w"],
        timestep: Float[Tensor, "b *slots"],
        text: Float[Tensor, "b n text_dim"],
        image_tokens: Float[Tensor, "i m image_dim"] | None = None,
        condition: Float[Tensor, "c known s h w"] | None = None,
        frame_ids: Tensor | None = None,
    ) -> Float[Tensor, "b channels s h w"]:
        """`prepare` and `velocity` in one call; see there for shapes and errors."""
        grid = (latents.shape[2], latents.shape[3], latents.shape[4])
        return self.velocity(latents, timestep, self.prepare(grid, text, image_tokens, condition, frame_ids))


# Wan2.2-I2V-A14B hands over at sigma 0.9 (Wan 2.2, `wan/configs/wan_i2v_A14B.py`, `boundary`).
BOUNDARY_TIMESTEP = 900.0
Contexts = tuple[Context, ...]


class Experts(nn.Module):
    """Called like one transformer; the timestep decides which of several answers, the first at the highest noise.

    After `swap_on(device)` only the expert that answers is on the device, the others in host memory: the two of
    Wan2.2-A14B do not fit one card together. A sample then moves each twice, once for its contexts and once where it
    takes over.

    Args:
        boundaries: falling timesteps, one fewer than experts: the expert before each answers down to it, and at it.
        low_from: which is the first for low noise, where a condition is a pair; None for the last.
    """

    def __init__(
        self,
        *experts: WanTransformer,
        boundaries: Sequence[float] = (BOUNDARY_TIMESTEP,),
        low_from: int | None = None,
    ) -> None:
        super().__init__()
        if len(boundaries) != len(experts) - 1 or list(boundaries) != sorted(set(boundaries), reverse=True):
            raise InputError(
                f"{len(experts)} experts hand over at {list(boundaries)}; expected falling timesteps, one fewer"
            )
        self.experts = nn.ModuleList(experts)
        self.boundaries = tuple(boundaries)
        self.low_from = len(experts) - 1 if low_from is None else low_from
        self.swap_device: torch.device | None = None

    def expert_list(self) -> list[WanTransformer]:
        """The experts, typed: nn.ModuleList forgets what it holds."""
        return list(self.experts)  # pyright: ignore[reportReturnType]

    @property
    def off_sdpa(self) -> float | None:
        """As of a `WanTransformer`, of all that were asked."""
        return max((one.off_sdpa for one in self.expert_list() if one.off_sdpa is not None), default=None)

    def set_attention(self, name: str) -> None:
        """As of a `WanTransformer`, for every expert."""
        for expert in self.expert_list():
            expert.set_attention(name)

    def spread(self, group: Group) -> None:
        """As of a `WanTransformer`, for every expert."""
        for expert in self.expert_list():
            expert.spread(group)

    def compile_blocks(self) -> None:
        """As of a `WanTransformer`, for every expert."""
        for expert in self.expert_list():
            expert.compile_blocks()

    def swap_on(self, device: torch.device) -> None:
        """From now on keep only the answering expert on `device`."""
        self.swap_device = device

    def _answering(self, which: int) -> WanTransformer:
        experts = self.expert_list()
        if self.swap_device is not None:
            for other in experts:
                if other is not experts[which]:
                    other.to("cpu")
            experts[which].bring(self.swap_device)
        return experts[which]

    @property
    def config(self) -> WanConfig:
        return self.expert_list()[0].config

    def _each(self, make: Callable[[int, WanTransformer], Context]) -> Contexts:
        # The lowest noise first: a sample begins with the first expert, which then is on the device already.
        made = [make(k, self._answering(k)) for k in reversed(range(len(self.experts)))]
        return tuple(reversed(made))

    def prepare(
        self,
        grid: tuple[int, int, int],
        text: Float[Tensor, "b n text_dim"],
        image_tokens: Float[Tensor, "i m image_dim"] | None = None,
        condition: Tensor | tuple[Tensor, Tensor] | None = None,
        frame_ids: Tensor | None = None,
        penalty: Float[Tensor, "s prompts"] | None = None,
    ) -> Contexts:
        """One context per expert; see `WanTransformer.prepare`. `condition` may be a pair: of high and of low noise."""
        to_high, to_low = condition if isinstance(condition, tuple) else (condition, condition)
        return self._each(
            lambda k, expert: expert.prepare(
                grid, text, image_tokens, to_high if k < self.low_from else to_low, frame_ids, penalty
            )
        )

    def with_text(self, context: Contexts, text: Float[Tensor, "b n text_dim"]) -> Contexts:
        """As `WanTransformer.with_text`, for every expert."""
        return self._each(lambda k, expert: expert.with_text(context[k], text))

    def velocity(
        self,
        latents: Float[Tensor, "b channels s h w"],
        timestep: Float[Tensor, "b *slots"],
        context: Contexts,
    ) -> Float[Tensor, "b channels s h w"]:
        """The velocity of the expert for this noise level; all rows share the level."""
        which = self._which(timestep)
        return self._answering(which).velocity(latents, timestep, context[which])

    def modulation(self, timestep: Float[Tensor, " t"]) -> Float[Tensor, "t 6 dim"]:
        """As `WanTransformer.modulation`, of the expert for the highest of these times."""
        return self._answering(self._which(timestep)).modulation(timestep)

    def _which(self, timestep: Tensor) -> int:
        # A slot that is clean already is told 0.
        return sum(float(timestep.max()) < boundary for boundary in self.boundaries)

    def forward(
        self,
        latents: Float[Tensor, "b channels s h w"],
        timestep: Float[Tensor, "b *slots"],
        text: Float[Tensor, "b n text_dim"],
        image_tokens: Float[Tensor, "i m image_dim"] | None = None,
        condition: Float[Tensor, "c known s h w"] | None = None,
        frame_ids: Tensor | None = None,
    ) -> Float[Tensor, "b channels s h w"]:
        """As `WanTransformer.forward`."""
        grid = (latents.shape[2], latents.shape[3], latents.shape[4])
        return self.velocity(latents, timestep, self.prepare(grid, text, image_tokens, condition, frame_ids))
