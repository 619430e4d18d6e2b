"""Tasks as a LightningDataModule: every rank gets its own share, each task exactly once."""

from collections.abc import Sequence

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from wanedit.lit.tasks import Work, shares


class TaskDataModule(LightningDataModule):
    """Yields tasks one by one: segments to sample, or clips to edit.

    Lightning's own distributed sampler repeats items to fill ranks, or fails when there are fewer items than
    ranks; tasks are shared here by cost instead, and a rank may have none.
    """

    def __init__(self, tasks: Sequence[Work]) -> None:
        super().__init__()
        # Lightning's name for: a rank may have no task.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.tasks = list(tasks)

    def predict_dataloader(self) -> DataLoader:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        return DataLoader(shares(self.tasks, world)[rank], batch_size=None, shuffle=False)  # pyright: ignore
