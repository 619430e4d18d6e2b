"""Equality with the official implementation, on its own tensors (tests/golden/README.md).

`WANEDIT_GOLDEN` names another folder of such files; every size and setting is read from them.
"""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.wan import golden
from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.condition import build_condition

VELOCITY_RELATIVE = 1e-5
VAE_ABSOLUTE = 1e-5
SAMPLING_RELATIVE = 1e-4

PREFIXES = ("dit_", "vae", "flf2v_sampling")


def _names(path: Path) -> str:
    return path.stem


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]):
    """Print a measured error past pytest's capture: the figures go into reports."""

    def say(what: str, error: float) -> None:
        with capsys.disabled():
            print(f"\n  golden {what}: {error:.2e}", end="")

    return say


@pytest.fixture
def two_threads():
    """Equality to the bit needs the threads that the files were made with: a convolution's sums depend on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_there_are_golden_files() -> None:
    assert any(golden.files(prefix) for prefix in PREFIXES), f"{golden.FOLDER} holds none of {PREFIXES}"


def test_the_projects_own_copy_is_whole() -> None:
    own = {path.stem for path in (Path(__file__).parent.parent / "golden").glob("*.safetensors")}
    assert own == {"dit_t2v", "dit_i2v", "dit_flf2v", "vae", "flf2v_sampling"}


@pytest.mark.parametrize("path", golden.files("dit_"), ids=_names)
def test_velocity(path: Path, tmp_path: Path, report) -> None:
    file = golden.read(path)
    latents, timestep, text = (file.input(name) for name in ("latents", "timestep", "text"))
    assert latents is not None
    assert timestep is not None
    assert text is not None
    model = golden.transformer(path, tmp_path)
    velocity = model(latents, timestep, text, file.input("image_tokens"), file.input("condition"))
    error = golden.relative_error(velocity, file.output("velocity"))
    report(f"{path.stem} velocity, relative", error)
    assert error <= VELOCITY_RELATIVE


@pytest.mark.parametrize("path", golden.files("vae"), ids=_names)
def test_vae(path: Path, tmp_path: Path, report) -> None:
    file, vae = golden.read(path), golden.vae(path, tmp_path)
    video = file.tensors["inputs.video"]
    results = {
        "latents": vae.encode(video),
        "first_frame_latents": vae.encode(video[:, :, :1]),
        "video": vae.decode(file.output("latents")),
    }
    for name, result in results.items():
        error = golden.absolute_error(result, file.output(name))
        report(f"{path.stem} {name}, absolute", error)
        assert error <= VAE_ABSOLUTE, name


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("path", golden.files("flf2v_sampling"), ids=_names)
def test_condition(path: Path, tmp_path: Path) -> None:
    file = golden.read(path)
    vae = golden.vae(path.with_name("vae.safetensors"), tmp_path)
    frames = int(file.metadata["num_frames"])
    images = {
        0: file.tensors["inputs.first_frame"][0],
        frames - 1: file.tensors["inputs.last_frame"][0],
    }
    condition, official = build_condition(images, frames, vae.encode), file.output("condition")
    assert torch.equal(condition[:, :4], official[:, :4])
    assert golden.absolute_error(condition[:, 4:], official[:, 4:]) <= VAE_ABSOLUTE


def _sampling_cases() -> list[tuple[Path, str]]:
    """(file, solver) for every solver that a sampling file has latents of."""
    cases = []
    for path in golden.files("flf2v_sampling"):
        names = " ".join(golden.read(path).tensors)
        cases += [(path, solver) for solver in re.findall(r"outputs\.(\S+)\.latents", names)]
    return cases


def _guided(file: golden.Golden, folder: Path) -> GuidedVelocity:
    """Both prompts zero-padded to one length, as the text encoder returns them."""
    model = golden.transformer(file.path.with_name("dit_flf2v.safetensors"), folder)
    prompts = [file.tensors["inputs.text"], file.tensors["inputs.negative_text"]]
    text, negative = (F.pad(p, (0, 0, 0, model.config.text_len - p.shape[1])) for p in prompts)
    slots, height, width = file.tensors["inputs.noise"].shape[2:]
    condition = file.output("condition")
    guidance = float(file.metadata["guidance"])
    tokens = file.input("image_tokens")
    return GuidedVelocity(model, (slots, height, width), text, negative, tokens, condition, guidance)


@pytest.mark.parametrize(
    ("path", "solver"), _sampling_cases(), ids=lambda value: getattr(value, "stem", value)
)
def test_sampling(path: Path, solver: str, tmp_path: Path, report) -> None:
    file = golden.read(path)
    plan = schedule(int(file.metadata["steps"]), float(file.metadata["shift"]), solver)
    assert torch.equal(torch.tensor(plan.timesteps, dtype=torch.float32), file.output(f"{solver}.timesteps"))

    velocity = _guided(file, tmp_path)
    latents = SOLVERS[solver](velocity, file.tensors["inputs.noise"], plan)
    error = golden.relative_error(latents, file.output(f"{solver}.latents"))
    report(f"{path.stem} {solver} latents, relative", error)
    assert error <= SAMPLING_RELATIVE
    assert velocity.evaluations == 2 * len(plan)


@pytest.mark.parametrize(
    ("path", "solver"),
    [(p, s) for p, s in _sampling_cases() if f"outputs.{s}.video" in golden.read(p).tensors],
    ids=lambda value: getattr(value, "stem", value),
)
def test_sampled_video(path: Path, solver: str, tmp_path: Path, report) -> None:
    file = golden.read(path)
    vae = golden.vae(path.with_name("vae.safetensors"), tmp_path)
    error = golden.absolute_error(
        vae.decode(file.output(f"{solver}.latents")), file.output(f"{solver}.video")
    )
    report(f"{path.stem} {solver} video, absolute", error)
    assert error <= VAE_ABSOLUTE
