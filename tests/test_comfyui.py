"""The nodes for ComfyUI: their schema, a film and an edit made by them, cancelling, and the example workflows."""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.comfyui_api import InterruptedByUserError, ProgressBar, installed
from tests.runs import moving_square
from wanedit.errors import InputError
from wanedit.runtime.directory import Manifest, RunDirectory

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / "comfyui" / "workflows").glob("*.json"))
# Of ComfyUI itself, what the workflows use: output types, and how many values their widgets have.
CORE = {
    "LoadImage": (["IMAGE", "MASK"], 2),
    "LoadVideo": (["VIDEO"], 2),
    "GetVideoComponents": (["IMAGE", "AUDIO", "FLOAT"], 0),
    "CreateVideo": (["VIDEO"], 1),
    "SaveVideo": ([], 3),
    "PreviewAny": ([], 0),
}
FAST = {"width": 32, "height": 32, "steps": 2, "guidance_scale": 0.0, "seed": 7}


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, module in installed(tmp_path / "output").items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("comfyui", "comfyui.nodes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("comfyui.nodes")
    for name in ("comfyui", "comfyui.nodes"):
        sys.modules.pop(name, None)


def listed(nodes: Any) -> dict[str, Any]:
    """Every node's class by its schema's id, as ComfyUI asks for them."""

    async def ask() -> list[Any]:
        return await (await sys.modules["comfyui"].comfy_entrypoint()).get_node_list()

    return {one.define_schema().node_id: one for one in asyncio.run(ask())}


def timed(nodes: Any, shades: tuple[int, ...] = (0, 4, 8), /, **inputs: Any) -> Any:
    pictures = {f"image{k}": nodes.image(moving_square(9)[shade][None]) for k, shade in enumerate(shades)}
    given = {"seconds": "", "every": 0.5, "prompts": ""} | inputs
    return nodes.WaneditKeyframes.execute(pictures, **given).args[0]


def film(nodes: Any, keyframes: Any, **inputs: Any) -> Any:
    given = FAST | {"prompt": "a square", "fps": 16.0, "joins": "none", "folder": "a/film"} | inputs
    return nodes.WaneditGenerate.execute(keyframes, **given)


def test_every_node_says_what_it_takes_and_takes_it(nodes: Any) -> None:
    found = listed(nodes)
    assert len(found) == 5
    for node in found.values():
        schema = node.define_schema()
        names = {one.id for one in schema.inputs}
        code = node.execute.__func__.__code__
        arguments = set(code.co_varnames[1 : code.co_argcount])
        # The files of a model are as many as `FILES` names.
        assert names - set(nodes.FILES) == arguments - {"files"}
        assert schema.description


def test_a_film_is_made_and_only_what_changed_is_sampled_again(nodes: Any, tmp_path: Path) -> None:
    ProgressBar.made.clear()
    frames, video, joins = film(nodes, timed(nodes)).args
    assert (tuple(frames.shape), frames.dtype) == ((17, 32, 32, 3), torch.float32)
    assert 0 <= frames.min() < frames.max() <= 1
    root = tmp_path / "output" / "a" / "film"
    assert Path(video.file) == root / "output_final.mp4"
    assert set(json.loads(joins)) == {"8"}
    assert json.loads(joins)["8"]["mse"]["shows"] in (True, False)
    assert [bar.current for bar in ProgressBar.made if bar.total == 2][:1] == [2]
    before = Manifest(RunDirectory(root, root / "output_final.mp4")).read()
    film(nodes, timed(nodes, (0, 4, 6)))
    after = Manifest(RunDirectory(root, root / "output_final.mp4")).read()
    latents = [name for name, entry in after.items() if entry.file.endswith(".safetensors")]
    assert len(latents) == 3
    assert sum(name in before for name in latents) == 2


def test_cancelling_ends_the_work_and_what_is_finished_is_kept(nodes: Any, tmp_path: Path) -> None:
    cancelled = sys.modules["comfy.model_management"].cancelled
    cancelled.at = cancelled.asked + 3
    with pytest.raises(InterruptedByUserError):
        film(nodes, timed(nodes), steps=30)
    assert not (tmp_path / "output" / "a" / "film" / "output_final.mp4").exists()
    cancelled.at = None
    assert film(nodes, timed(nodes), steps=30).args[0].shape[0] == 17


def test_an_edit_follows_its_keyframe(nodes: Any) -> None:
    source, blue = moving_square(9), moving_square(9, (20, 60, 250))
    keyframes = nodes.WaneditKeyframes.execute(
        {"image0": nodes.image(blue[:1]), "image1": None}, seconds="0.25", every=1.0, prompts=""
    ).args[0]
    inputs = FAST | {"prompt": "blue", "source_prompt": "", "fps": 16.0, "restore": "auto", "folder": "edit"}
    with torch.inference_mode():  # in which ComfyUI runs its nodes
        (edited,) = nodes.WaneditEdit.execute(
            nodes.image(source), keyframes, controller="covariance", **inputs
        ).args
    assert edited.shape == (9, 32, 32, 3)
    assert not np.array_equal(nodes.pixels(edited), source)


def test_joins_of_any_frames_are_measured(nodes: Any) -> None:
    frames = np.repeat(np.linspace(0, 200, 24).astype(np.uint8)[:, None, None, None], 3, axis=-1)
    frames = np.broadcast_to(frames, (24, 32, 32, 3)).copy()
    frames[12:] = 255 - frames[12:]
    found, shows = nodes.WaneditEvaluateJoins.execute(nodes.image(frames), "12").args
    assert shows
    assert set(json.loads(found)) == {"12"}
    with pytest.raises(InputError, match="junctions are"):
        nodes.WaneditEvaluateJoins.execute(nodes.image(frames), "")


def test_a_model_is_a_name_and_files_of_comfyui(nodes: Any) -> None:
    own = dict.fromkeys(nodes.FILES, nodes.OWN)
    made = nodes.WaneditModel.execute("Wan2.1-Fun-1.3B-InP", **own | {"transformer": "wan.safetensors"}).args[
        0
    ]
    assert made == {"model": "Wan2.1-Fun-1.3B-InP", "transformer": "/models/diffusion_models/wan.safetensors"}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"seconds": "0, 1"}, "2 numbers for 3 pictures"),
        ({"seconds": "a"}, "expected numbers such as"),
        ({"prompts": "one\ntwo\nthree"}, "3 lines for 2 steps"),
    ],
)
def test_keyframes_that_do_not_agree_are_told(nodes: Any, inputs: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        timed(nodes, **inputs)


@pytest.mark.parametrize("folder", ["", ".", "../elsewhere", "/etc/x"])
def test_a_run_stays_in_the_output_folder(nodes: Any, folder: str) -> None:
    with pytest.raises(InputError, match="inside ComfyUI's output folder"):
        film(nodes, timed(nodes), folder=folder)


def test_there_are_two_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["edit", "generate"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_one_of_these_nodes(nodes: Any, path: Path) -> None:
    found, flow = listed(nodes), json.loads(path.read_text(encoding="utf-8"))
    by_id = {node["id"]: node for node in flow["nodes"]}
    ends = {}
    for node in flow["nodes"]:
        if node["type"] in CORE:
            outputs, widgets = CORE[node["type"]]
        else:
            schema = found[node["type"]].define_schema()
            outputs = [one.io_type for one in schema.outputs]
            # A seed has one value more: what becomes of it after a run.
            widgets = sum(
                1 + ("control_after_generate" in one.given)
                for one in schema.inputs
                if getattr(one, "widget", False)
            )
            names = {one.id for one in schema.inputs}
            assert {one["name"].partition(".")[0] for one in node["inputs"]} <= names
            needed = {
                one.id for one in schema.inputs if not one.optional and not getattr(one, "widget", False)
            }
            assert needed <= {one["name"].partition(".")[0] for one in node["inputs"] if one["link"]}
        assert [one["type"] for one in node["outputs"]] == outputs
        assert len(node["widgets_values"]) == widgets, node["type"]
        ends |= {
            one["link"]: (node["id"], k, one["type"]) for k, one in enumerate(node["inputs"]) if one["link"]
        }
    assert ends.keys() == {link[0] for link in flow["links"]}
    for number, from_node, slot, to_node, to_slot, of in flow["links"]:
        assert ends[number] == (to_node, to_slot, of)
        start = by_id[from_node]["outputs"][slot]
        assert start["type"] == of
        assert number in start["links"]
