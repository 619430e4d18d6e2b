"""Writes each prediction the moment it is done; nothing accumulates in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class TaskWriter(BasePredictionWriter):
    """Hands every prediction to `save`, on the rank that made it."""

    def __init__(self, save: Callable[[Any], None]) -> None:
        super().__init__(write_interval="batch")
        self.save = save

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        self.save(prediction)
