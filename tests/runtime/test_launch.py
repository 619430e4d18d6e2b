"""Which devices a run takes, decided without having any."""

import pytest
import torch

from wanedit.errors import InputError, ResourceError, WaneditError
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.runtime import launch
from wanedit.runtime.launch import World


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_devices() -> None:
    choose = launch.choose_devices
    assert choose(GenerationConfig(), World()) == ("cuda", 1)
    assert choose(GenerationConfig(gpu_ids="2"), World()) == ("cuda", [2])
    assert choose(GenerationConfig(num_gpus=2, gpu_ids="2,3"), World()) == ("cuda", [2, 3])
    with pytest.raises(InputError, match="has 4 GPU"):
        choose(GenerationConfig(gpu_ids="4"), World())
    with pytest.raises(InputError, match="has 4 GPU"):
        choose(GenerationConfig(num_gpus=5), World())


@pytest.mark.usefixtures("four_gpus")
def test_workers_judge_only_what_they_see() -> None:
    # The recorded ids are the parent's; its workers see the chosen devices as 0 and 1, here of two nodes.
    config = GenerationConfig(num_gpus=2, gpu_ids="6,7")
    world = World(rank=3, size=4, local_size=2, under_torchrun=True)
    assert launch.choose_devices(config, world) == ("cuda", 2)
    assert world.nodes == 2


@pytest.mark.parametrize(
    ("ids", "inherited", "visible"),
    [([0, 2], None, "0,2"), ([0, 1], "4,5,6", "4,5"), ([1], "GPU-a,GPU-b", "GPU-b")],
)
def test_device_ids_count_within_what_is_visible(ids: list[int], inherited: str | None, visible: str) -> None:
    assert launch.visible_devices(ids, inherited) == visible


def test_a_workers_error_keeps_its_class(tmp_path) -> None:
    record = tmp_path / "config.yaml"
    launch.report_error(record, 1, ResourceError("disk full"))
    launch.report_error(record, 0, InputError("later"))
    error = launch._worker_error(tmp_path / launch.WORKER_ERROR, 1)
    assert isinstance(error, ResourceError)
    assert "rank 1: disk full" in str(error)
    assert type(launch._worker_error(tmp_path / launch.WORKER_ERROR, 7)) is WaneditError
