"""Training of the transformer with its text and image encoders by flow matching."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tiny.data import SeededStream
from tiny.fit import Budget, WeightAverage, fit
from tiny.latents import LatentSet
from tiny.muon import Muon, split_parameters
from wanedit.sprites.sets import to_float
from wanedit.wan.condition import ImageEncoder, build_image_encoder, build_text_encoder, frame_mask
from wanedit.wan.config import IMAGE_TOKENS, WanConfig
from wanedit.wan.transformer import Context, WanTransformer

TRANSFORMER_CONFIG = {
    "model_type": "flf2v",
    "patch_size": [1, 2, 2],
    "text_len": 64,
    "in_dim": 36,
    "dim": 192,
    "ffn_dim": 768,
    "freq_dim": 256,
    "text_dim": 128,
    "image_dim": 128,
    "out_dim": 16,
    "num_heads": 6,
    "num_layers": 8,
    "eps": 1e-6,
}
TEXT_CONFIG = {
    "vocab": 1536,
    "dim": 128,
    "dim_attn": 128,
    "dim_ffn": 256,
    "num_heads": 4,
    "num_layers": 2,
    "num_buckets": 32,
    "shared_pos": False,
    "dropout": 0.0,
}
IMAGE_CONFIG = {
    "image_size": 224,
    "patch_size": 14,
    "dim": 128,
    "mlp_ratio": 2,
    "out_dim": 64,
    "num_heads": 4,
    "num_layers": 3,
    "pool_type": "token",
    "pre_norm": True,
    "post_norm": False,
    "activation": "gelu",
}


class TinyWan(nn.Module):
    """The three networks that train together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = WanTransformer(WanConfig.from_dict(TRANSFORMER_CONFIG))
        self.text = build_text_encoder(TEXT_CONFIG)
        self.image = build_image_encoder(IMAGE_CONFIG)
        # The official initialisation (Wan 2.1, `WanModel.init_weights`), and image values zero: see FlowTraining.
        model = self.transformer
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
        for sequence in (model.text_embedding, model.time_embedding):
            for module in sequence:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(model.head.head.weight)
        if model.img_emb.emb_pos is not None:
            nn.init.normal_(model.img_emb.emb_pos, std=0.02)
        zero_image_values(model)

    def features(self, ids: Int[Tensor, "B n"]) -> Float[Tensor, "B n dim"]:
        """Token features, zero after the end mark."""
        mask = ids != 0
        return self.text(ids, mask) * mask[..., None]

    def image_tokens(self, keyframes: Float[Tensor, "B 3 2 H W"]) -> Float[Tensor, "B 514 dim"]:
        """257 tokens of the first keyframe, then 257 of the last."""
        return (
            ImageEncoder(self.image)(keyframes.transpose(1, 2).flatten(0, 1))
            .unflatten(0, (-1, 2))
            .flatten(1, 2)
        )

    def context(self, text: Tensor, condition: Tensor, image_tokens: Tensor | None) -> Context:
        """As WanTransformer.prepare; without image tokens their attention is left out, which costs half as much."""
        grid = (condition.shape[2], condition.shape[3], condition.shape[4])
        return self.transformer.assemble(grid, text, image_tokens, condition)


def zero_image_values(model: WanTransformer) -> None:
    """Make the image tokens add nothing, so that a training may leave them out at first."""
    for block in model.block_list():
        nn.init.zeros_(block.cross_attn.v_img.weight)
        nn.init.zeros_(block.cross_attn.v_img.bias)


class BatchStream(SeededStream):
    """Endless batches from sets of latents; every batch from one set, chosen by weight."""

    def __init__(
        self, sets: Sequence[LatentSet], weights: Sequence[float], batches: Sequence[int], seed: int
    ) -> None:
        super().__init__(seed)
        self.sets, self.weights, self.batches = sets, np.array(weights) / sum(weights), batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = self.generator()
        while True:
            which = rng.choice(len(self.sets), p=self.weights)
            part = self.sets[which]
            rows = torch.from_numpy(rng.integers(len(part.latents), size=self.batches[which]))
            yield {field.name: getattr(part, field.name)[rows] for field in fields(part)}


def masks(frames: Bool[Tensor, "B T"], height: int, width: int) -> Float[Tensor, "B 4 S h w"]:
    """`frame_mask` of every row."""
    rows = [
        frame_mask(set(row.nonzero()[:, 0].tolist()), frames.shape[1], height, width) for row in frames.cpu()
    ]
    return torch.cat(rows).to(frames.device)


def shifted_sigma(u: Float[Tensor, " B"], shift: float) -> Float[Tensor, " B"]:
    """Wan's time shift: sigma = shift u / (1 + (shift - 1) u)."""
    return shift * u / (1 + (shift - 1) * u)


def multiplies_halves(device: torch.device) -> bool:
    """Whether products are faster in bfloat16 than in float32: on GPUs, and on CPUs with avx512_bf16."""
    if device.type == "cpu":
        return torch.cpu.get_capabilities().get("avx512_bf16", False)
    return device.type == "cuda"


class FlowTraining(L.LightningModule):
    """Velocity matching on cached latents. `net` is a TinyWan. Products are in bfloat16 where that is faster.

    The first `image_from` of the budget leaves the image tokens out: image values start at zero, so that is exact, and
    a step costs half. A share `text_only` of the clips is shown nothing; `empty` holds their known-latents, those of a
    grey clip, for every latent grid. The image tokens of a keyframe that is not shown are zero.
    """

    def __init__(
        self,
        net: TinyWan,
        learning_rate: float,
        budget: Budget,
        drop_ids: Int[Tensor, "K text_len"],
        empty: Mapping[tuple[int, ...], Tensor],
        shift: float = 3.0,
        image_from: float = 0.7,
        drop_text: float = 0.1,
        text_only: float = 0.12,
    ) -> None:
        super().__init__()
        self.net, self.learning_rate, self.budget = net, learning_rate, budget
        self.drop_ids, self.empty = drop_ids, empty
        self.shift, self.image_from, self.drop_text, self.text_only = shift, image_from, drop_text, text_only

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        clean = batch["latents"]
        count, device = len(clean), clean.device
        # One stratified draw of sigma per batch: less variance than independent ones.
        u = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        sigma = shifted_sigma(u.clamp(1e-3, 1), self.shift)
        at = sigma.view(-1, 1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = (1 - at) * clean + at * noise
        blind = torch.rand(count, device=device) < self.text_only
        halves = multiplies_halves(device)
        # A CPU's fused attention takes longer to go back through in bfloat16 than all the rest of the step.
        plain = halves and device.type == "cpu"
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=halves),
            sdpa_kernel(SDPBackend.MATH) if plain else nullcontext(),
        ):
            velocity = self.net.transformer.velocity(noisy, 1000 * sigma, self._context(batch, blind))
        loss = (velocity.float() - (noise - clean)).square().mean(dim=(1, 2, 3, 4))
        self.log_dict(
            {
                "loss": loss.mean(),
                "loss_high": loss[count // 2 :].mean(),
                "loss_low": loss[: count // 2].mean(),
            }
        )
        return loss.mean()

    def _context(self, batch: dict[str, Tensor], blind: Tensor) -> Context:
        ids = batch["ids"]
        dropped = torch.rand(len(ids), device=ids.device) < self.drop_text
        other = self.drop_ids.to(ids.device)[
            torch.randint(len(self.drop_ids), (len(ids),), device=ids.device)
        ]
        text = self.net.features(torch.where(dropped[:, None], other, ids))
        seeing = (~blind).view(-1, 1, 1, 1, 1)
        frames = batch["frames"] & ~blind[:, None]
        known = torch.where(seeing, batch["known"], self.empty[tuple(batch["known"].shape[2:])].to(text))
        condition = torch.cat([masks(frames, *known.shape[3:]), known], dim=1)
        tokens = None
        if self.budget.progress(self.trainer.global_step) >= self.image_from:
            seen = frames[:, [0, -1]].repeat_interleave(IMAGE_TOKENS, dim=1)
            tokens = self.net.image_tokens(to_float(batch["keyframes"])) * seen[..., None]
        return self.net.context(text, condition, tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        model, image = self.net.transformer, cast(Any, self.net.image)
        outer = [model.patch_embedding.weight, model.head.head.weight, image.patch_embedding.weight]
        matrices, others = split_parameters(self.net, outer)
        return Muon(matrices, others, lr=self.learning_rate, weight_decay=0.01)


def train_flow(
    net: TinyWan,
    stream: BatchStream,
    drop_ids: Tensor,
    empty: Mapping[tuple[int, ...], Tensor],
    out: Path,
    *,
    max_steps: int,
    minutes: float,
    learning_rate: float,
    seed: int,
    callbacks: Sequence[L.Callback] = (),
    accelerator: str = "auto",
    compiled: bool = True,
    every_n_train_steps: int = 50,
    **settings,
) -> TinyWan:
    """Train and return the averaged networks; see `fit` for what `out` holds and how a stopped training goes on.

    `settings` are those of FlowTraining.
    """
    budget, average = Budget(max_steps, minutes, learning_rate), WeightAverage(net, 0.998)
    if compiled:
        for block in net.transformer.blocks:
            block.compile(dynamic=True)
    fit(
        FlowTraining(net, learning_rate, budget, drop_ids, empty, **settings),
        stream,
        out,
        budget=budget,
        average=average,
        seed=seed,
        accelerator=accelerator,
        log_every=10,
        every_n_train_steps=every_n_train_steps,
        callbacks=callbacks,
    )
    return cast(TinyWan, average.average)
