"""Both modules under a bare Trainer, with Lightning's own defaults, and without a Trainer at all."""

import doctest
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, IterableDataset

from tests.lit.clips import FAST, edit_task, moving, tiny
from tests.runs import FAST as RUN
from wanedit import GenerationConfig, GenerationResult
from wanedit.errors import InputError
from wanedit.flow.covariance import covariance_product
from wanedit.flow.editing import Metrics, View
from wanedit.flow.keyframes import Covariance
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Step
from wanedit.jobs.generate.plan import make_plan
from wanedit.lit import chain as chain_module
from wanedit.lit import editor as editor_module
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.data import TaskDataModule
from wanedit.lit.editor import FlowMatchingEditor, WanVideoModel
from wanedit.lit.networks import encode_texts
from wanedit.lit.tasks import ChainSettings, SampledSegment, SegmentTask
from wanedit.video import from_uint8
from wanedit.wan.load import open_wan

SETTINGS = ChainSettings(num_inference_steps=2, shift=3.0, guidance_scale=2.0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A bare Trainer writes lightning_logs/ where it stands.
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def segments(count: int = 2) -> list[SegmentTask]:
    frames = from_uint8(moving(9))
    return [
        SegmentTask(k, 5, frames[:, 4 * k], frames[:, 4 * k + 4], f"part {k}", seed=7) for k in range(count)
    ]


def latents(chain: FLF2VChain, task: SegmentTask) -> torch.Tensor:
    """Of a task that is not handed over."""
    made = chain.predict_step(task)
    assert made is not None
    return made.latents


def alone() -> list[torch.Tensor]:
    """The latents of `segments` without a Trainer."""
    chain = FLF2VChain(tiny(), SETTINGS)
    return [latents(chain, task) for task in segments()]


def same(found: Any, expected: list[Any]) -> bool:
    return all(torch.equal(made.latents, latents) for made, latents in zip(found, expected, strict=True))


def test_a_bare_trainer_gives_the_bytes_of_our_own_run(keyframes, finished: GenerationResult) -> None:
    plan = make_plan(GenerationConfig(keyframes=keyframes, **RUN))
    made: Any = Trainer().predict(
        FLF2VChain(plan.folder, plan.settings), datamodule=TaskDataModule(plan.tasks)
    )
    from safetensors.torch import load_file

    stored = [
        load_file(path)["latents"] for path in sorted(finished.video.parent.glob("segments/*.safetensors"))
    ]
    assert made is not None
    assert same(made, stored)
    assert [segment.digest for segment in made] == list(finished.segments)
    assert all(isinstance(segment, SampledSegment) for segment in made)


def test_an_editor_under_a_bare_trainer() -> None:
    method = ResidualCorrectedFlow(Covariance())
    editor, tasks = FlowMatchingEditor(tiny(), method, FAST), [edit_task(), edit_task(index=1, seed=9)]
    made: Any = Trainer(logger=False).predict(editor, datamodule=TaskDataModule(tasks))
    assert made is not None
    assert same(made, [FlowMatchingEditor(tiny(), method, FAST).predict_step(task).latents for task in tasks])
    assert not torch.equal(made[0].latents, made[1].latents)
    assert (editor.networks, editor.encodings.text) == (None, {})


@pytest.mark.parametrize("inference_mode", [True, False])
def test_a_method_may_differentiate_under_any_trainer(inference_mode: bool) -> None:
    task, products = edit_task(), []

    def differentiate(clip: int, step: Step, metrics: Metrics) -> None:
        velocity = WanVideoModel(editor, task.size, task.negative_prompt).velocity(View(task.prompt), 3)
        z = torch.ones(1, 16, 3, 4, 4)
        near = step if step.sigma < 1 else replace(step, sigma=0.9)
        products.append(covariance_product(velocity, z, velocity(z, near), near, "forward")(z))

    editor = FlowMatchingEditor(tiny(), ResidualCorrectedFlow(), FAST, differentiate)
    trainer = Trainer(inference_mode=inference_mode, logger=False)
    trainer.predict(editor, datamodule=TaskDataModule([task]))
    assert len(products) == 2
    assert all(product.isfinite().all() and not product.is_inference() for product in products)


def test_a_step_without_a_trainer() -> None:
    chain, (first, second) = FLF2VChain(tiny(), SETTINGS), segments()
    chain.setup("predict")
    networks = chain.loaded()
    assert same([chain.predict_step(first), chain.predict_step(second)], alone())
    assert chain.loaded() == networks
    chain.teardown("predict")
    assert chain.networks is None
    assert same([chain.predict_step(first)], alone()[:1])


def test_what_two_tasks_share_by_index_is_told_apart_by_content() -> None:
    first, second = segments()
    chain = FLF2VChain(tiny(), SETTINGS)
    chain.predict_step(first)
    twin = SegmentTask(0, 5, second.first, second.last, second.prompt, seed=7)
    assert torch.equal(latents(chain, twin), latents(FLF2VChain(tiny(), SETTINGS), twin))


class _Stream(IterableDataset):
    """Tasks that can be read once."""

    def __init__(self) -> None:
        self.left = iter(segments())

    def __iter__(self) -> Iterator[SegmentTask]:
        return self.left


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(segments(), batch_size=None),  # pyright: ignore[reportArgumentType]
        lambda: DataLoader(segments(), collate_fn=lambda tasks: tasks[0]),  # pyright: ignore[reportArgumentType]
        lambda: DataLoader(_Stream(), batch_size=None),
        lambda: [DataLoader([task], batch_size=None) for task in segments()],  # pyright: ignore[reportArgumentType]
    ],
    ids=["plain", "collated", "stream", "several"],
)
def test_other_loaders_of_tasks(loader) -> None:
    made = Trainer(logger=False).predict(FLF2VChain(tiny(), SETTINGS), loader())
    assert made is not None
    assert same([*chain(*made)] if isinstance(made[0], list) else made, alone())


def test_a_loader_of_batches_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size=None"):
        Trainer(logger=False).predict(FLF2VChain(tiny(), SETTINGS), DataLoader(segments()))  # pyright: ignore[reportArgumentType]


def test_a_trainer_that_would_round_the_model_is_refused(no_weights: None) -> None:
    with pytest.raises(InputError, match=r"precision is bf16-mixed; expected 32-true"):
        Trainer(precision="bf16-mixed").predict(
            FLF2VChain(tiny(), SETTINGS), datamodule=TaskDataModule(segments())
        )


def test_nothing_is_loaded_for_no_task(no_weights: None) -> None:
    for module in (FLF2VChain(tiny(), SETTINGS), FlowMatchingEditor(tiny(), ResidualCorrectedFlow(), FAST)):
        Trainer(logger=False).predict(module, datamodule=TaskDataModule([]))
        Trainer(logger=False, limit_predict_batches=0).predict(module, datamodule=TaskDataModule(segments(1)))


def test_encoders_are_gone_before_the_transformer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    chain = FLF2VChain(tiny(), SETTINGS)
    load_networks = chain.load_networks

    def encode(folder, prompts, *rest):
        order.append(sorted(prompts))
        return encode_texts(folder, prompts, *rest)

    monkeypatch.setattr("wanedit.lit.networks.encode_texts", encode)
    monkeypatch.setattr(
        chain, "load_networks", lambda device: (order.append("networks"), load_networks(device))
    )
    Trainer(logger=False).predict(chain, datamodule=TaskDataModule(segments()))
    # All of this rank's prompts at once; the steps find them encoded.
    assert [what for what in order if what] == [["", "part 0", "part 1"], "networks"]


class _Watcher(Callback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.seen.append(outputs.index)


class _AtTheEnd(BasePredictionWriter):
    def __init__(self) -> None:
        super().__init__("epoch")
        self.written = []

    def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices) -> None:
        self.written = predictions


def test_a_users_callbacks_and_logger_work(tmp_path: Path) -> None:
    watcher, writer = _Watcher(), _AtTheEnd()
    trainer = Trainer(callbacks=[watcher, writer], logger=CSVLogger(tmp_path))
    made: Any = trainer.predict(FLF2VChain(tiny(), SETTINGS), datamodule=TaskDataModule(segments()))
    assert watcher.seen == [0, 1]
    assert made is not None
    assert same(writer.written, [segment.latents for segment in made])


@pytest.mark.parametrize("module", [chain_module, editor_module])
def test_the_example_in_the_docstring(module) -> None:
    video = moving(9)
    frames = from_uint8(video)
    known = {"frames": video, "keyframes": moving(9, (20, 60, 250))[[0, 8]], "first": frames[:, 0]}
    names = known | {"last": frames[:, 8], "Trainer": Trainer, "TaskDataModule": TaskDataModule}
    names |= {"ResidualCorrectedFlow": ResidualCorrectedFlow, "open_wan": open_wan, **vars(module)}
    kind = FLF2VChain if module is chain_module else FlowMatchingEditor
    [example] = [
        test for test in doctest.DocTestFinder(recurse=False).find(kind, globs=names) if test.examples
    ]
    assert doctest.DocTestRunner().run(example).failed == 0


SCRIPT = """
import hashlib, sys
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from tests.lit.test_lightning import SETTINGS, segments
from tests.lit.clips import tiny
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.data import TaskDataModule

tasks = segments(2)
given = {"datamodule": TaskDataModule(tasks[: int(sys.argv[2])])}
if sys.argv[1] == "loader":
    given = {"dataloaders": DataLoader(tasks, batch_size=None)}
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False)
made = trainer.predict(FLF2VChain(tiny(), SETTINGS), **given) or []
names = [f"{s.index}:{hashlib.sha256(s.latents.numpy().tobytes()).hexdigest()}" for s in made]
print(*(f"\\nrank {trainer.global_rank} {name}" for name in names), flush=True)
"""


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("kind", "count"), [("datamodule", 2), ("datamodule", 1), ("loader", 2)])
def test_two_ranks_share_the_tasks_and_give_the_same_bytes(
    kind: str, count: int, repository: Path, tmp_path: Path
) -> None:
    import hashlib
    import os

    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "script.py", kind, str(count)],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sorted(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("rank"))
    expected = [
        f"{k}:{hashlib.sha256(latents.numpy().tobytes()).hexdigest()}"
        for k, latents in enumerate(alone()[:count])
    ]
    assert sorted(name for _, name in lines) == expected
    assert len({rank for rank, _ in lines}) == count
