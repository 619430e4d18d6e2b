"""What both modules share: the parts of one Wan, loaded late, kept where they are needed, let go early."""

import contextlib
import gc
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from wanedit.errors import InputError, NumericalError, ResourceError
from wanedit.lit.data import Stream
from wanedit.lit.tasks import SamplerSettings, Task
from wanedit.progress import counted
from wanedit.video.arrays import pixels_sha256
from wanedit.wan.condition import load_image_encoder, load_text_encoder
from wanedit.wan.formats.numbers import trim
from wanedit.wan.load import WanFolder, default_dtype, load_transformer, load_vae, text_dtype
from wanedit.wan.parallel import ALONE
from wanedit.wan.streaming import HostMemory
from wanedit.wan.transformer import Experts, WanTransformer
from wanedit.wan.vae import WanVAE


@dataclass(frozen=True)
class Encodings:
    """What tasks say and show, as the transformer reads it; on the CPU, a few MB a task at most.

    Attributes:
        text: prompt -> features (1, N, text_dim).
        pictures: `picture_key` -> 257 tokens (1, 257, dim); empty where the model reads none.
    """

    text: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Networks(NamedTuple):
    """What velocities and latents are computed with."""

    transformer: WanTransformer | Experts
    vae: WanVAE


class Worker(LightningModule, Generic[Task]):
    """Does one task a `predict_step`, under a Trainer or without one."""

    @contextlib.contextmanager
    def working_on(self, name: str, task: Task, advice: str) -> Iterator[None]:
        """Compute without gradients, and say whose task an error belongs to.

        Not in the Trainer's inference mode, whose tensors torch.func.jvp and compiled graphs refuse.

        Raises:
            NumericalError: a velocity or the decoded video is not finite; names task, rank and step.
            ResourceError: out of memory; names the settings that lower it. Or the compiler cannot do it.
        """
        try:
            with torch.inference_mode(False), torch.no_grad():
                yield
        except NumericalError as error:
            raise NumericalError(f"{name}, rank {self.global_rank}: {error}") from None
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"out of memory in {name} ({task.tokens} tokens): {str(error).splitlines()[0]} "
                f"{advice}, or set fit (auto, or fewer GB than the card has), offload_model, t5_cpu or tile"
            ) from None
        except Exception as error:
            # The compiler's classes are told by their home, whose import takes seconds.
            if any(
                kind.__module__.startswith(("torch._dynamo", "torch._inductor"))
                for kind in type(error).__mro__
            ):
                said = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
                raise ResourceError(
                    f"{name}: torch.compile: {said}; the same run goes on without compile"
                ) from error
            raise

    def transfer_batch_to_device(self, batch: Task, device: torch.device, dataloader_idx: int) -> Task:
        """Leave the task on the CPU: what is needed is moved when it is needed."""
        return batch


class WanModule(Worker[Task], ABC):
    """Encoders, VAE and transformer of one model, for tasks that come one a `predict_step`.

    `setup("predict")` reads the tasks that this rank will be given, uses each encoder on all of them and drops it,
    then loads VAE and transformer: the text encoder, the largest part but one, never shares memory with the
    transformer. A rank without a task loads nothing. Of a stream that knows its tasks beforehand (`Stream`) all are
    encoded when the first one comes; a task that could not be read ahead, of another stream or in a `predict_step`
    without a Trainer, is encoded when it comes itself. `teardown("predict")` lets all of it go.

    Args:
        folder: an opened model.
        computing: where its parts are, and how they compute.
    """

    def __init__(self, folder: WanFolder, computing: SamplerSettings) -> None:
        super().__init__()
        self.folder, self.computing = folder, computing
        self.crew = ALONE  # who makes each sample together with this process
        self.encodings = Encodings()
        self.ahead: Sequence[Task] = ()  # to be encoded with the first task
        # In a tuple, so that they are no submodules: Lightning would copy a rank's weights to all others, and bring a
        # transformer to the device that is kept off it.
        self.networks: Networks | None = None

    @abstractmethod
    def texts(self, task: Task) -> set[str]:
        """Every prompt of a task that the model is told."""

    @abstractmethod
    def pictures(self, task: Task) -> list[Float[Tensor, "3 height width"]]:
        """Every picture of a task that the model may look at."""

    def setup(self, stage: str) -> None:
        """Load what predicting needs: under a Trainer on its device, for its tasks; else VAE and transformer here.

        Raises:
            InputError: a Trainer that would change the networks' number formats, or a loader that makes batches.
        """
        if stage != "predict":
            return
        if self._trainer is None:
            self.load_networks(self.device)
            return
        if self.trainer.precision != "32-true":
            raise InputError(
                f"the Trainer's precision is {self.trainer.precision}; expected 32-true, its default: each part of "
                "the model runs in the number format of the official code, whatever the Trainer"
            )
        # As Lightning's documentation has it for a loop's data in `setup`; prediction itself asks for them anew.
        self.trainer.predict_loop.setup_data()
        loaders = self.trainer.predict_dataloaders
        tasks: list[Task] = []
        for loader in CombinedLoader([] if loaders is None else loaders, "sequential").flattened:
            if getattr(loader, "collate_fn", None) is default_collate:
                raise InputError("the loader makes batches; expected one task a step: batch_size=None")
            dataset = getattr(loader, "dataset", loader)
            # A stream may be readable only once: its tasks are encoded as they come.
            if isinstance(dataset, Stream):
                self.ahead = [*self.ahead, *dataset.tasks.tasks]  # pyright: ignore[reportAttributeAccessIssue]
            elif hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
                tasks += loader
        self.load(tasks, self.trainer.strategy.root_device)

    def load(self, tasks: Sequence[Task], device: torch.device | str = "cpu") -> None:
        """Encode what is new in `tasks`, then load VAE and transformer if they are not; nothing for no task."""
        if not tasks:
            return
        device = torch.device(device)
        text_device = torch.device("cpu") if self.computing.t5_cpu else device
        texts = {text for task in tasks for text in self.texts(task)} - self.encodings.text.keys()
        # By their tasks: of a long chain the pictures themselves would fill the memory.
        found = {
            picture_key(shown): (task, k) for task in tasks for k, shown in enumerate(self.pictures(task))
        }
        new = {key: place for key, place in found.items() if key not in self.encodings.pictures}
        # Ordinary tensors, also under a Trainer in inference mode: they outlive it.
        with torch.inference_mode(False):
            if texts or new:
                self._send_away(device)
            # In the device's number format also under t5_cpu, as officially.
            dtype = text_dtype(self.folder.source, device) if texts else default_dtype(device)
            self.encodings.text.update(encode_texts(self.folder, texts, text_device, dtype))
            shown = (self.pictures(task)[k] for task, k in new.values())
            self.encodings.pictures.update(encode_pictures(self.folder, shown, len(new), device))
            if self.networks is None:
                self.load_networks(device)

    def load_networks(self, device: torch.device) -> None:
        """VAE to the device, transformer there too or to host memory."""
        home = torch.device("cpu") if self._offloading(device) else device
        vae = load_vae(self.folder, device)
        boundary = self.computing.boundary_timestep
        weights = self.computing.weights
        transformer = load_transformer(self.folder, home, default_dtype(device), boundary, weights)
        transformer.set_attention(self.computing.attention)
        if self.crew.tokens is not None:
            transformer.spread(self.crew.tokens)
        if self.computing.resident is not None and self._offloading(device):
            for one in transformer.expert_list() if isinstance(transformer, Experts) else [transformer]:
                one.stream_blocks(self.computing.resident, HostMemory(device))
        if self.computing.compile:
            transformer.compile_blocks()
            vae.compile_decoding()
        self.networks = Networks(transformer, vae)

    def ready(self, task: Task) -> Networks:
        """The networks, with everything encoded that `task` says and shows."""
        device = self.device if self.networks is None else self.networks.vae.mean.device
        self.load([task, *self.ahead], device)
        self.ahead = ()
        return self.loaded()

    def loaded(self) -> Networks:
        """The networks.

        Raises:
            RuntimeError: nothing is loaded.
        """
        if self.networks is None:
            raise RuntimeError('nothing is loaded; call setup("predict") or load() first')
        return self.networks

    @property
    def off_sdpa(self) -> float | None:
        """As of its transformer; None while none is loaded."""
        return None if self.networks is None else self.networks.transformer.off_sdpa

    def encode(self, video: Tensor) -> Tensor:
        """Latents of pixels, on the VAE's device; an offloaded transformer leaves it meanwhile."""
        _, vae = self.loaded()
        self._send_away(vae.mean.device)
        return vae.encode(video.to(vae.mean.device), self.computing.tile)

    def encode_first(self, images: Mapping[int, Tensor]) -> Tensor | None:
        """The latent (1, channels, 1, h, w) of the picture at frame 0, where the model is shown one in place."""
        if not self.folder.config.first_in_place or 0 not in images:
            return None
        return self.encode(images[0][None, :, None])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, T, H, W) in [-1, 1]; the transformer leaves the device meanwhile if offloading."""
        _, vae = self.loaded()
        self._send_away(latents.device)
        return vae.decode(latents, self.computing.tile)

    def _offloading(self, device: torch.device) -> bool:
        return self.computing.offload_model and device.type != "cpu"

    def bring(self, device: torch.device) -> None:
        """The transformer to the device, or only the expert that will answer."""
        if not self._offloading(device):
            return
        transformer, _ = self.loaded()
        if isinstance(transformer, Experts):
            transformer.swap_on(device)
        else:
            transformer.bring(device)

    def _send_away(self, device: torch.device) -> None:
        """Off the device, while another part works."""
        if self._offloading(device) and self.networks is not None:
            self.networks.transformer.to("cpu")
            release(device)

    def teardown(self, stage: str) -> None:
        """Let go of the weights and of what was encoded."""
        device = self.device if self.networks is None else self.networks.vae.mean.device
        self.networks, self.ahead = None, ()
        self.encodings = Encodings()
        release(device)


def encode_texts(
    folder: WanFolder, prompts: Iterable[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Prompt -> features (1, N, text_dim), on the CPU; the encoder is gone afterwards."""
    prompts = sorted(set(prompts))
    if not prompts:
        return {}
    encoder = load_text_encoder(folder.source, folder.config.text_len, dtype, device)
    with torch.no_grad():
        features = {p: encoder([p]).cpu() for p in counted(prompts, "reading prompts", "prompts")}
    del encoder
    release(device)
    return features


def encode_pictures(
    folder: WanFolder, images: Iterable[Float[Tensor, "3 height width"]], count: int, device: torch.device
) -> dict[str, Tensor]:
    """`picture_key` -> 257 tokens (1, 257, dim), on the CPU; empty for a model that reads none.

    Args:
        images: `count` of them, one in memory at a time.
    """
    if not count or not folder.config.image_tokens:
        return {}
    # In float32: it is gone before the transformer comes, and official float16 would only round.
    encoder = load_image_encoder(folder.source, torch.float32, device)
    with torch.no_grad():
        tokens = {
            picture_key(image): encoder(image[None].to(device)).cpu()
            for image in counted(images, "looking at keyframes", "pictures", count)
        }
    del encoder
    release(device)
    return tokens


def picture_key(image: Float[Tensor, "3 height width"]) -> str:
    """A picture's name by content: two frames of equal pixels are encoded once."""
    return pixels_sha256(image.detach().to("cpu", torch.float32).numpy())


def release(device: torch.device) -> None:
    """Give freed weights back to the system or the device's allocator."""
    gc.collect()
    trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()
