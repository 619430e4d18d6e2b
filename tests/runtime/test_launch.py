"""Which devices a run takes, decided without having any."""

import json
from pathlib import Path

import pytest
import torch

from wanedit.errors import InputError, ResourceError, WaneditError
from wanedit.jobs.generate import worker
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.runtime import launch, workers
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.launch import World
from wanedit.runtime.outputs import LOG_MARK
from wanedit.runtime.record import write_record


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


def test_a_workers_error_keeps_its_class(tmp_path: Path) -> None:
    record, report, log = (tmp_path / name for name in ("config.yaml", workers.ERROR_FILE, workers.LOG_FILE))
    log.write_text(
        f"{LOG_MARK}ValueError: of a library\nW1127 19:00:00.1 torch/x.py:1] Sending process 7 closing signal\n"
    )
    workers.report_error(record, 1, ResourceError("disk full"))
    workers.report_error(record, 0, InputError("later"))
    error = workers._worker_error(report, log, str)
    assert isinstance(error, ResourceError)
    assert str(error) == "rank 1: disk full"
    # One that could not tell: its report is gone.
    silent = workers._worker_error(report, log, str)
    assert type(silent) is WaneditError
    assert str(silent) == (
        "a worker failed. Run the same command again: it goes on. Its last words, of "
        f"{log}:\n  ValueError: of a library"
    )


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (-9, "was ended by SIGKILL"),
        (143, "was ended by SIGTERM"),
        (3, "ended with exit code 3"),
        (255, "ended with exit code 255"),
    ],
)
def test_a_signal_is_told_by_its_name_whoever_took_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, how: str
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def run(words: object) -> None:
        raise ChildFailedError(
            "wanedit", {1: ProcessFailure(local_rank=1, pid=7, exitcode=code, error_file="")}
        )

    monkeypatch.setattr("torch.distributed.run.run", run)
    report = tmp_path / workers.ERROR_FILE
    assert workers._torchrun(str(report), "script.py") == 1
    assert json.loads(report.read_text())["error"] == {"rank": 1, "how": how}


def test_the_rank_that_a_signal_ended_is_told_not_one_that_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def run(words: object) -> None:
        ended = {0: 1, 1: -9}
        raise ChildFailedError(
            "wanedit",
            {
                rank: ProcessFailure(local_rank=rank, pid=7, exitcode=code, error_file="")
                for rank, code in ended.items()
            },
        )

    monkeypatch.setattr("torch.distributed.run.run", run)
    report = tmp_path / workers.ERROR_FILE
    assert workers._torchrun(str(report), "script.py") == 1
    assert json.loads(report.read_text())["error"] == {"rank": 1, "how": workers.KILLED}


def test_a_worker_that_lost_another_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(tmp_path, tmp_path / "output_final.mp4")
    write_record(directory, GenerationConfig(output=str(tmp_path)))
    lost = WaneditError("another process of this run was lost")

    def plan(config: object) -> None:
        raise lost

    monkeypatch.setattr(worker, "make_plan", plan)
    lost.told = True
    assert worker.main(str(directory.config)) == 1
    assert not (tmp_path / workers.ERROR_FILE).exists()
    lost.told = False
    assert worker.main(str(directory.config)) == 1
    assert (tmp_path / workers.ERROR_FILE).exists()


def test_torchruns_table_shows_our_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    workers.tell_torchrun("segment 0 needs 51 frames")
    failure = ProcessFailure(local_rank=0, pid=7, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert "traceback : segment 0 needs 51 frames" in str(ChildFailedError("wanedit", {0: failure}))


def test_a_process_that_is_lost_to_the_others_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: object, **options: object) -> None:
        raise RuntimeError(
            "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242\nmore"
        )

    monkeypatch.setattr("torch.distributed.barrier", lost)
    with pytest.raises(
        WaneditError, match=r"another process of this run was lost \(.*closed by peer"
    ) as found:
        launch.barrier(World(rank=0, size=2, local_size=2, under_torchrun=True))
    assert found.value.told
