"""Tasks into a Trainer and predictions out of it: every rank gets its own, each task exactly once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from wanedit.lit.tasks import TaskStream, Work, shares

Prediction = TypeVar("Prediction")


class TaskDataModule(LightningDataModule):
    """Yields this rank's tasks one by one: segments to sample, or clips to edit.

    A stream is gone through as it gives them. Others are shared by cost, and a rank may have none, where Lightning's
    own sampler refuses fewer items than ranks.

    Args:
        tasks: all of them, the same on every rank.
        together: every rank gets all of them, since they work at each of them together.
    """

    def __init__(self, tasks: Sequence[Work] | TaskStream, together: bool = False) -> None:
        super().__init__()
        # Lightning's name for: a rank may have no task.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.tasks, self.together = tasks if isinstance(tasks, TaskStream) else list(tasks), together

    def predict_dataloader(self) -> DataLoader:
        if isinstance(self.tasks, TaskStream):
            return DataLoader(Stream(self.tasks), batch_size=None)
        trainer = self.trainer
        rank, world = 0, 1
        if trainer is not None and not self.together:
            rank, world = trainer.global_rank, trainer.world_size
        sampler = _ShareSampler(self.tasks, rank, world)
        return DataLoader(self.tasks, batch_size=None, sampler=sampler)  # pyright: ignore[reportArgumentType]


class Stream(IterableDataset[Work]):
    """Tasks as they come. It has a length, or Lightning would ask for the next one before the one before is done: more
    than there are, since one that was handed over may come back."""

    def __init__(self, tasks: TaskStream) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Work]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return 2 * len(self.tasks.tasks)


class _ShareSampler(DistributedSampler):
    """Indices of one rank's share. Lightning shares out no loader whose sampler is a distributed one already."""

    def __init__(self, tasks: list[Work], rank: int, world_size: int) -> None:
        super().__init__(tasks, world_size, rank, shuffle=False)  # pyright: ignore[reportArgumentType]
        self.indices = shares(tasks, world_size)[rank]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class TaskWriter(BasePredictionWriter, Generic[Prediction]):
    """Hands every prediction to `save` when its step ends, on the rank that made it; nothing accumulates."""

    def __init__(self, save: Callable[[Prediction], None]) -> None:
        super().__init__(write_interval="batch")
        self.save = save

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Prediction,
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        self.save(prediction)
