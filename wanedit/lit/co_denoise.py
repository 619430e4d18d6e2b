"""CoDenoiser: all windows of a chain denoised as one state, on one process or with the windows shared over ranks."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import all_there
from wanedit.flow.path import Step
from wanedit.lit.chain import ChainModule
from wanedit.lit.tasks import Answers, CoDenoising, SampledSegment, shares
from wanedit.progress import counted
from wanedit.rng import noise

# Window, state, step -> the velocity of the window.
Answer = Callable[[int, Tensor, Step], Tensor]


class CoDenoiser(ChainModule[CoDenoising]):
    """Denoises one state by the velocities of overlapping windows (MultiDiffusion, arXiv 2302.08113, equation 5).

    Under several ranks each is given the same task. Rank 0 runs the solver; at every evaluation it sends the state to
    all, each answers for its share of the windows, and rank 0 adds up in the order of the windows: the same bytes on
    any number of ranks.

    Args:
        folder, settings, on_step, watch: as of `FLF2VChain`; the index is the task's.
        kept: what the velocities of the state go through, on rank 0, as `Kept`.
    """

    def shares(self, task: CoDenoising) -> list[list[int]]:
        """For every rank the windows that it answers for."""
        ranks = 1 if self._trainer is None else self.trainer.world_size
        return shares([window.task for window in task.windows], ranks)

    def mine(self, task: CoDenoising) -> list[int]:
        """Those of this rank."""
        return self.shares(task)[self.global_rank]

    def texts(self, task: CoDenoising) -> set[str]:
        return {text for i in self.mine(task) for text in self.told(task.windows[i].task)}

    def pictures(self, task: CoDenoising) -> list[Tensor]:
        return [one for i in self.mine(task) for one in self.looked_at(task.windows[i].task)]

    def load(self, tasks: Sequence[CoDenoising], device: torch.device | str = "cpu") -> None:
        """As of `WanModule`; nothing on a rank that has no window."""
        super().load([task for task in tasks if self.mine(task)], device)

    def predict_step(
        self, batch: CoDenoising, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> SampledSegment | None:
        """The state at the noise level where the task ends, from noise that the task alone decides; None on ranks > 0.

        Raises:
            NumericalError, ResourceError: see `working_on`.
            WaneditError: another rank was lost.
        """
        task, mine, device = batch, self.mine(batch), self.device
        with self.working_on(task.name, task, "What was evaluated stays; lower size or fps"):
            if mine:
                device = self.ready(task).vae.mean.device
            started = time.perf_counter()
            # On the CPU, as the keyframes of a long chain would fill the device.
            shown = {
                i: self.shown(task.windows[i].task).to("cpu")
                for i in counted(mine, "encoding keyframes", "windows")
            }
            if mine:
                self.bring(device)

            def answer(i: int, x: Tensor, step: Step) -> Tensor:
                window = task.windows[i]
                # Its context is made anew at every step, for the same reason.
                velocity = self.velocity(window.task, shown[i])
                return velocity(x[:, :, window.places].to(device), step)

            if self.global_rank:
                self.serve(task, answer)
                return None
            levels = task.levels(self.schedule)
            x = levels.start * self.start(task).to(device)
            with self.kept(task.digest) as answers:
                x = self.solve(self.averaged(task, answer, answers), x, levels, self.seen(task))
            if len(self.shares(task)) > 1:
                _exchange_step(None)
        seconds = time.perf_counter() - started
        state, off = x[0].float().cpu(), self.off_sdpa
        return SampledSegment(task.index, task.digest, task.tokens, state, None, seconds, off_sdpa=off)

    def start(self, task: CoDenoising) -> Float[Tensor, "1 channels slots h w"]:
        """Noise: in every segment that which it has apart, in what a bridge has for itself the bridge's."""
        x = torch.zeros(1, task.latent_space.channels, *task.grid)
        for window in reversed(task.windows):
            one = window.task
            shape = (1, one.latent_space.channels, *one.grid)
            x[:, :, window.places] = noise(shape, one.seed, one.kind, one.index)
        return x

    def averaged(
        self, task: CoDenoising, answer: Answer, answers: Answers
    ) -> Callable[[Tensor, Step], Tensor]:
        """On rank 0: the velocity of the state, sum w_i v_i / sum w_i, whose weights are divided already."""

        def total(x: Tensor, step: Step) -> Tensor:
            total = torch.zeros_like(x)
            for window, v in zip(task.windows, self.gather(task, answer, x, step), strict=True):
                weights = torch.tensor(window.weights, dtype=x.dtype, device=x.device)
                total[:, :, window.places] += weights[:, None, None] * v.to(x)
            return total

        return lambda x, step: answers(lambda: total(x, step)).to(x)

    def gather(self, task: CoDenoising, answer: Answer, x: Tensor, step: Step) -> Iterator[Tensor]:
        """On rank 0: the velocities of all windows, in their order."""
        own, *others = self.shares(task)
        if others:
            _exchange_step(step)
            with all_there():
                dist.broadcast(_travelling(x), src=0)
        # Before it waits for the others, who are at theirs.
        velocities = {i: answer(i, x, step) for i in own}
        rank_of = {i: rank for rank, share in enumerate(others, start=1) for i in share}
        for i, window in enumerate(task.windows):
            if i in velocities:
                yield velocities[i]
                continue
            v = _travelling(x[:, :, window.places])
            with all_there():
                dist.recv(v, src=rank_of[i])
            yield v

    def serve(self, task: CoDenoising, answer: Answer) -> None:
        """On every other rank: answer for its windows until rank 0 is done."""
        x = _travelling(torch.zeros(1, task.latent_space.channels, *task.grid))
        while (step := _exchange_step(None)) is not None:
            with all_there():
                dist.broadcast(x, src=0)
            for i in self.mine(task):
                v = _travelling(answer(i, x, step))
                with all_there():
                    dist.send(v, dst=0)


def _exchange_step(step: Step | None) -> Step | None:
    """Rank 0's step, on every rank; None for the end."""
    box = [step]
    with all_there():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def _travelling(x: Tensor) -> Tensor:
    """A tensor as the ranks can exchange it: gloo takes those of the CPU, NCCL those of a GPU."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return x.to(device, torch.float32).contiguous()
