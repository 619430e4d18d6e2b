"""A stand-in for ComfyUI: the classes of its V3 schema that `comfyui/nodes.py` uses, no more, and as strict.

Arguments are those of `comfy_api.latest` (ComfyUI, `comfy_api/latest/_io.py`); another is a TypeError here as there.
"""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

BASE = {"display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced"}
WIDGET = BASE | {"default", "socketless", "force_input"}


class InterruptedByUserError(Exception):
    """As `InterruptProcessingException`."""


class Input:
    """An input of a node."""

    known = BASE

    def __init__(self, id: str, **given: Any) -> None:
        if unknown := set(given) - self.known:
            raise TypeError(f"{type(self).__name__} {id}: unexpected {sorted(unknown)}")
        self.id, self.given = id, given
        self.optional = given.get("optional", False)


class Output:
    """An output of a node."""

    def __init__(
        self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None
    ) -> None:
        self.id, self.display_name = id, display_name


def kind(io_type: str, *own: str, widget: bool = False) -> Any:
    """A type of values: its `Input` and its `Output`."""
    known = (WIDGET if widget else BASE) | set(own)
    made = type(io_type, (Input,), {"known": known, "io_type": io_type, "widget": widget})
    return SimpleNamespace(Input=made, Output=type(io_type, (Output,), {"io_type": io_type}), io_type=io_type)


class TemplatePrefix:
    """Inputs that grow: prefix0, prefix1, …"""

    def __init__(self, input: Input, prefix: str, min: int = 1, max: int = 10) -> None:
        assert min >= 0
        assert 1 <= max <= 100
        self.input, self.prefix, self.min, self.max = input, prefix, min, max


class Schema:
    """What a node says of itself."""

    def __init__(
        self,
        node_id: str,
        display_name: str,
        category: str,
        inputs: list[Input],
        outputs: list[Output],
        description: str = "",
    ) -> None:
        assert len({one.id for one in inputs}) == len(inputs)
        self.node_id, self.display_name, self.category = node_id, display_name, category
        self.inputs, self.outputs, self.description = inputs, outputs, description


class NodeOutput:
    """What a node gives."""

    def __init__(self, *args: Any) -> None:
        self.args = self.result = args


class VideoFromFile:
    """A VIDEO that lies in a file."""

    def __init__(self, file: str) -> None:
        self.file = file


class ProgressBar:
    """ComfyUI's bar; every one that was made is kept."""

    made: ClassVar[list["ProgressBar"]] = []

    def __init__(self, total: int) -> None:
        self.total, self.current = total, 0
        self.made.append(self)

    def update(self, value: int) -> None:
        self.current += value


def _given(**members: Any) -> ModuleType:
    made = ModuleType("stand_in")
    made.__dict__.update(members)
    return made


def installed(output: Path) -> dict[str, ModuleType]:
    """Modules by name, as ComfyUI has them."""
    api = _given(
        Image=kind("IMAGE"),
        Video=kind("VIDEO"),
        Int=kind("INT", "min", "max", "step", "control_after_generate", "display_mode", widget=True),
        Float=kind("FLOAT", "min", "max", "step", "round", "display_mode", widget=True),
        String=kind("STRING", "multiline", "placeholder", "dynamic_prompts", widget=True),
        Boolean=kind("BOOLEAN", "label_on", "label_off", widget=True),
        Combo=kind(
            "COMBO", "options", "control_after_generate", "upload", "image_folder", "remote", widget=True
        ),
        Custom=kind,
        Autogrow=SimpleNamespace(
            Input=kind("COMFY_AUTOGROW_V3", "template").Input, TemplatePrefix=TemplatePrefix
        ),
        ComfyNode=object,
        Schema=Schema,
        NodeOutput=NodeOutput,
        Input=Input,
    )
    latest = _given(io=api, ComfyExtension=object, InputImpl=SimpleNamespace(VideoFromFile=VideoFromFile))
    cancelled = SimpleNamespace(at=None, asked=0)

    def throw() -> None:
        cancelled.asked += 1
        if cancelled.at is not None and cancelled.asked >= cancelled.at:
            raise InterruptedByUserError

    management = _given(throw_exception_if_processing_interrupted=throw, cancelled=cancelled)
    utils = _given(ProgressBar=ProgressBar)
    folders = _given(
        get_output_directory=lambda: str(output),
        get_filename_list=lambda kind: ["wan.safetensors"] if kind == "diffusion_models" else [],
        get_full_path_or_raise=lambda kind, name: f"/models/{kind}/{name}",
    )
    return {
        "comfy": _given(model_management=management, utils=utils),
        "comfy.model_management": management,
        "comfy.utils": utils,
        "comfy_api": _given(latest=latest),
        "comfy_api.latest": latest,
        "folder_paths": folders,
    }
