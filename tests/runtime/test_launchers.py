"""Workers that SLURM's submitit or a Ray cluster starts on a run, and what is refused before any is."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.jobs.test_faults import hashes, journal, segments_done, wait_for_segments
from tests.runs import command, run_cli, start_process
from wanedit import EditConfig, EditResult, GenerationConfig, GenerationResult
from wanedit.errors import InputError, ResourceError
from wanedit.jobs.edit.run import begin as begin_edit
from wanedit.jobs.edit.run import edit
from wanedit.jobs.generate.run import begin
from wanedit.runtime.claims import LEASE_VARIABLE
from wanedit.runtime.launchers import Actor, run_actors, slurm_script, submit, versions, work
from wanedit.runtime.record import read_settings, recorded_config
from wanedit.video import read_frames
from wanedit.wan.catalog import locate


@pytest.fixture
def begun(finished: GenerationResult, tmp_path: Path) -> Path:
    """A run of the settings of `finished`, of which nothing is sampled yet."""
    home = finished.video.parent
    config = recorded_config(GenerationConfig, read_settings(home / "config.yaml"), home)
    begin(replace(config, output=str(tmp_path / "out")), verbose=False)
    return tmp_path / "out"


def test_the_plan_ends_with_the_script_that_slurm_would_get(keyframes, tmp_path: Path) -> None:
    words = command(keyframes, out := tmp_path / "out", "--launcher=slurm", "--workers=3", "--dry_run")
    shown = run_cli(*words, "--slurm", '{"partition": "gpu", "time": 600}')
    assert shown.code == 0, shown.err
    for line in (
        "--array=0-2%3",
        "--partition=gpu",
        "--time=600",
        "--gpus-per-node=1",
        "--job-name=wanedit-out",
    ):
        assert f"#SBATCH {line}\n" in shown.out
    assert f"-m submitit.core._submit {out / 'slurm'}" in shown.out
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--workers=2"], "workers is given, launcher is local; expected slurm or ray"),
        (["--launcher=slurm", "--address=auto"], "address is given, launcher is slurm; expected ray"),
        (["--launcher=ray", "--slurm", '{"time": 3}'], "slurm is given, launcher is ray; expected slurm"),
    ],
)
def test_flags_of_another_launcher_are_refused(
    keyframes, tmp_path: Path, words: list[str], expected: str
) -> None:
    told = run_cli(*command(keyframes, tmp_path / "out", *words))
    assert (told.code, expected in told.err) == (2, True), told.err


def test_what_slurm_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"slurm: .*'queue'; expected options of sbatch as submitit names them"
    ):
        slurm_script(tmp_path, 1, {"queue": "gpu"})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="there is no srun on this machine"):
        submit(tmp_path, 1, {})


def test_a_node_that_is_not_as_the_driver_works_at_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the node .* has wanedit .*, the driver has 0\.0\.1; all need one"):
        Actor().work(str(tmp_path), {"wanedit": "0.0.1"}, str(tmp_path))
    with pytest.raises(InputError, match=r"has the device cpu .*, the driver has cuda; all need one"):
        Actor().check({"the device": "cuda"})
    assert Actor().work(str(tmp_path), versions(), str(tmp_path / "gone")) == os.uname().nodename


@pytest.mark.slow
def test_a_run_begun_by_one_launcher_is_finished_by_another(
    keyframes, finished: GenerationResult, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = start_process(["-m", "wanedit", *command(keyframes, out, "--num_gpus=2")])
    wait_for_segments(first, out, 1)
    first.terminate()
    first.communicate(timeout=60)
    jobs = submit(out, 2, {"gpus_per_node": 0}, cluster="local")
    assert [job.result() for job in jobs] == [None, None]
    assert hashes(out) == hashes(finished.video.parent)
    assert segments_done(out) == 6
    assert not list(out.rglob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_ray_cluster_finishes_the_run_though_it_loses_a_node(
    begun: Path, finished: GenerationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(LEASE_VARIABLE, "20")
    memory = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    said: list[str] = []
    try:
        second = cluster.add_node(num_cpus=1, **memory)  # pyright: ignore[reportArgumentType]

        def lose() -> None:
            while not journal(begun):
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)

        losing = threading.Thread(target=lose, daemon=True)
        losing.start()
        run_actors(begun, 2, cluster.address, lambda: "", said.append)
        losing.join(60)
        assert not losing.is_alive()
    finally:
        cluster.shutdown()
    assert hashes(begun) == hashes(finished.video.parent)
    events = [json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert len([event for event in events if event["event"] == "segment"]) <= 4  # of three, one may be lost
    assert said[-1] == f"{begun}: complete"


class BlindNode:
    """A node of Ray whose processes find nothing in a folder but what a line of shell puts there: they have a view of
    mounts of their own."""

    def __init__(self, address: str, hidden: Path, put: str = "true") -> None:
        import ray

        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("this process may not have a view of mounts of its own")
        start = f"{sys.executable} -m ray.scripts.scripts start --address {address} --num-cpus 1 --block"
        words = f"mount -t tmpfs none {hidden} && {put} && exec {start} --object-store-memory {80 << 20}"
        ray.init(address, log_to_driver=False)
        before = len(ray.nodes())
        self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", words], stdout=subprocess.DEVNULL)
        while len(ray.nodes()) == before:
            assert self.process.poll() is None
            time.sleep(0.2)
        ray.shutdown()

    def kill(self) -> None:
        """It, and all that it started."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            one.kill()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without room for any worker."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(LEASE_VARIABLE, "20")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_that_do_not_see_the_folder_make_the_same_bytes_though_one_is_lost(
    begun: Path, finished: GenerationResult, cluster: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    blind = [BlindNode(cluster.address, tmp_path_factory.getbasetemp()) for _ in range(2)]
    said: list[str] = []

    def lose() -> None:
        while not journal(begun):
            time.sleep(0.05)
        blind[0].kill()

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    run_actors(begun, 2, cluster.address, lambda: "", said.append)
    losing.join(60)
    blind[1].kill()
    assert not losing.is_alive()
    assert said == [
        f"{os.uname().nodename} does not see {begun}: what it makes comes back through Ray"
    ] * 2 + [f"{begun}: complete"]
    assert hashes(begun) == hashes(finished.video.parent)
    assert np.array_equal(read_frames(begun / "output_final.mp4"), read_frames(finished.video))
    events = [json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert len([event for event in events if event["event"] == "segment"]) == 3
    assert not list(begun.rglob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_blind_node_with_other_weights_is_refused_and_one_with_the_same_goes_on(
    keyframes,
    finished: GenerationResult,
    cluster: Any,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model, home = tmp_path / "model", finished.video.parent
    shutil.copytree(locate("tiny"), model)
    config = recorded_config(GenerationConfig, read_settings(home / "config.yaml"), home)
    begin(replace(config, model=str(model), output=str(tmp_path / "out")), verbose=False)
    weights, said = model / "diffusion_pytorch_model.safetensors", list[str]()
    base = tmp_path_factory.getbasetemp()
    put = f"mkdir {tmp_path} && cp -r {locate('tiny')} {model}"
    other = BlindNode(
        cluster.address, base, f"{put} && printf x | dd of={weights} bs=1 seek=10000000 conv=notrunc"
    )
    with pytest.raises(
        ResourceError, match=r"the node .*: .*safetensors of .* is another than .*; expected the same"
    ):
        run_actors(tmp_path / "out", 1, cluster.address, lambda: "", said.append)
    assert not journal(tmp_path / "out")
    other.kill()
    same = BlindNode(cluster.address, base, put)
    run_actors(tmp_path / "out", 1, cluster.address, lambda: "", said.append)
    same.kill()
    assert hashes(tmp_path / "out") == hashes(home)


@pytest.mark.slow
def test_torchrun_goes_on_with_a_run_from_its_folder(begun: Path, finished: GenerationResult) -> None:
    words = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "wanedit",
        "work",
        str(begun),
    ]
    process = start_process(words)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out.count("keyframes at") == 1
    assert hashes(begun) == hashes(finished.video.parent)
    events = [json.loads(line) for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert len([event for event in events if event["event"] == "segment"]) == 3
    assert not list(begun.rglob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_edit_is_handed_to_ray(edit_config: Callable[..., EditConfig], edited: EditResult) -> None:
    config, said = edit_config(save_latents=True), list[str]()
    begin_edit(config, verbose=False)
    assert "0 of 1 edit; nobody is at work" in run_cli("status", str(config.folder)).out
    run_actors(config.folder, 1, None, lambda: "", said.append)
    assert said == [f"{config.folder}: complete"]
    made = read_frames(next((config.folder / "segments").glob("*.mkv")))
    assert np.array_equal(made, edited.frames)


def test_an_edit_that_is_begun_anew_is_made_anew_by_who_goes_on(
    edit_config: Callable[..., EditConfig],
) -> None:
    config = edit_config(method="copy_source", controller="residual")
    edit(config, verbose=False)
    (made,) = (config.folder / "segments").glob("*.mkv")
    before = made.stat().st_mtime_ns
    begin_edit(config, verbose=False)
    work(config.folder, verbose=False)
    assert made.stat().st_mtime_ns == before
    begin_edit(replace(config, force_regenerate=True), verbose=False)
    work(config.folder, verbose=False)
    assert made.stat().st_mtime_ns > before


def test_what_several_processes_take_is_not_said_of_one(keyframes, tmp_path: Path) -> None:
    told = run_cli(*command(keyframes, tmp_path / "out", "--launcher=slurm", "--num_gpus=2"))
    assert (told.code, "num_gpus is 2, launcher is slurm; expected workers" in told.err) == (2, True), (
        told.err
    )
