"""Edits as data: a change of a scene, the edited scene, the request in words, the pixels it may touch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from wanedit.errors import InputError
from wanedit.sprites.render import STYLES, frame_times, render
from wanedit.sprites.scene import (
    COLOURS,
    SHAPES,
    TEXTURES,
    Background,
    Scene,
    caption,
    describe,
    describe_background,
    held_out,
    sample_background,
)

# Kinds that change one sprite's field -> that field.
_FIELDS = {"recolour": "colour", "reshape": "shape", "retexture": "texture"}
EDITS = (*_FIELDS, "background", "remove", "style")
_STYLE_PROMPTS = {
    "outline": "turn it into a line drawing",
    "night": "make it night",
    "pastel": "paint it in pastel colours",
    "neon": "show it in neon light",
    "sepia": "make it a sepia photograph",
}


@dataclass(frozen=True)
class Edit:
    """One change. `sprite` is the index of the sprite that recolour, reshape, retexture and remove change.

    `value` is the new colour, shape, texture or style by name, a Background, or None for remove.
    """

    kind: str
    sprite: int | None = None
    value: str | Background | None = None

    def __post_init__(self) -> None:
        if self.kind not in EDITS:
            raise InputError(f"edit: got {self.kind!r}, expected one of {', '.join(EDITS)}")
        if (self.sprite is None) != (self.kind in ("background", "style")):
            expected = "none" if self.sprite is not None else "the index of a sprite"
            raise InputError(f"sprite of a {self.kind} edit: got {self.sprite}, expected {expected}")
        wanted = {"background": Background, "remove": type(None)}.get(self.kind, str)
        if not isinstance(self.value, wanted):
            raise InputError(f"value of a {self.kind} edit: got {self.value!r}, expected a {wanted.__name__}")
        if self.kind == "style" and self.value not in _STYLE_PROMPTS:
            raise InputError(f"new style: got {self.value!r}, expected one of {', '.join(_STYLE_PROMPTS)}")


@dataclass(frozen=True)
class Edited:
    """What an edit makes: the scene and its style to render, the request in words and the target's caption."""

    scene: Scene
    style: str
    prompt: str
    caption: str


def apply_edit(scene: Scene, edit: Edit) -> Edited:
    """The ground truth of `edit` on `scene`, which is in style plain.

    Raises InputError for a sprite that the scene lacks, or a value that is unknown or already there.
    """
    _check_fits(scene, edit)
    style = "plain"
    match edit:
        case Edit("style", None, str(style)):
            edited = scene
        case Edit("background", None, Background() as background):
            edited = replace(scene, background=background)
        case Edit("remove", int(index)):
            edited = replace(scene, sprites=scene.sprites[:index] + scene.sprites[index + 1 :])
        case _:
            edited = scene.with_sprite(_index(edit), **{_FIELDS[edit.kind]: edit.value})
    return Edited(edited, style, edit_prompt(scene, edit), caption(edited, style))


def edit_prompt(scene: Scene, edit: Edit) -> str:
    """The request in words: "turn the red star blue".

    A sprite whose colour and shape are not unique is named by all its looks.
    Raises InputError as `apply_edit` does.
    """
    _check_fits(scene, edit)
    if isinstance(edit.value, Background):
        return f"replace the background with {describe_background(edit.value)}"
    if edit.kind == "style":
        return _STYLE_PROMPTS[str(edit.value)]
    sprite = scene.sprites[_index(edit)]
    alone = sum((s.colour, s.shape) == (sprite.colour, sprite.shape) for s in scene.sprites) == 1
    name = f"{sprite.colour} {sprite.shape}" if alone else describe(sprite)
    return {
        "recolour": f"turn the {name} {edit.value}",
        "reshape": f"turn the {name} into a {edit.value}",
        "retexture": f"make the {name} {edit.value}",
        "remove": f"remove the {name}",
    }[edit.kind]


def edit_mask(
    scene: Scene, edit: Edit, seconds: Sequence[float] | np.ndarray, size: tuple[int, int]
) -> Bool[Tensor, "T H W"]:
    """Pixels that the edit may change, at each time, at (height, width): all others stay as they are.

    Raises InputError as `apply_edit` and `render` do.
    """
    after, before = apply_edit(scene, edit).scene, render(scene, seconds, size)
    if edit.kind == "style":
        return torch.ones(before.video.shape[1:], dtype=torch.bool)
    if edit.kind == "background":
        return before.masks.sum(0) < 1
    touched = before.masks[_index(edit)] > 0
    if edit.kind == "reshape":
        touched = touched | (render(after, seconds, size).masks[_index(edit)] > 0)
    return touched


def sample_edit(scene: Scene, seed: int, kinds: Sequence[str] = EDITS) -> Edit:
    """An edit of `scene` that can be seen and named, of one of `kinds`. Same arguments, same edit.

    Touches only sprites that are in view and whose colour and shape name them; gives no sprite a colour of the
    background, the name of another sprite, or a held-out pair. Raises InputError for an unknown kind, or where
    no edit of `kinds` is possible.
    """
    for kind in kinds:
        if kind not in EDITS:
            raise InputError(f"edit: got {kind!r}, expected one of {', '.join(EDITS)}")
    # The constant keeps this stream apart from those that sample_scene draws scenes from.
    rng = np.random.default_rng([97, seed])
    choices = {kind: values for kind in kinds if (values := _choices(kind, scene, rng))}
    if not choices:
        raise InputError(f"edits {', '.join(kinds)}: got a scene that allows none, expected one in view")
    # First the kind, then the edit: there are more colours than textures.
    options = choices[list(choices)[rng.integers(len(choices))]]
    return options[rng.integers(len(options))]


def _index(edit: Edit) -> int:
    assert edit.sprite is not None, "Edit checks this"
    return edit.sprite


def _check_fits(scene: Scene, edit: Edit) -> None:
    if edit.sprite is not None and not 0 <= edit.sprite < len(scene.sprites):
        raise InputError(f"sprite: got index {edit.sprite}, expected 0 to {len(scene.sprites) - 1}")
    if edit.kind in _FIELDS:
        old = getattr(scene.sprites[_index(edit)], _FIELDS[edit.kind])
        known = {"recolour": tuple(COLOURS), "reshape": SHAPES, "retexture": TEXTURES}[edit.kind]
        if edit.value == old or edit.value not in known:
            others = ", ".join(value for value in known if value != old)
            raise InputError(f"new {_FIELDS[edit.kind]}: got {edit.value!r}, expected one of {others}")
    if edit.kind == "background" and edit.value == scene.background:
        raise InputError("new background: got the scene's own, expected another one")


def _choices(kind: str, scene: Scene, rng: np.random.Generator) -> list[Edit]:
    """Every edit of one kind that can be seen and named; of backgrounds one, drawn from `rng`."""
    if kind == "style":
        return [Edit("style", value=style) for style in STYLES if style != "plain"]
    if kind == "background":  # one of another kind, in none of the sprites' colours
        colours = {sprite.colour for sprite in scene.sprites}
        if len(COLOURS) - len(colours) < 2:
            return []
        while True:
            background = sample_background(rng)
            if background.kind != scene.background.kind and not colours & set(background.colours):
                return [Edit("background", value=background)]
    # Sprites that their colour and shape name, and that cover a hundredth of the frame on average.
    masks = render(scene, frame_times(5, fps=4 / scene.duration), (32, 32)).masks
    pairs = [(sprite.colour, sprite.shape) for sprite in scene.sprites]
    targets = [
        (i, sprite)
        for i, sprite in enumerate(scene.sprites)
        if pairs.count(pairs[i]) == 1 and masks[i].mean() > 0.01
    ]
    if kind == "remove":
        return [Edit("remove", i) for i, _ in targets]
    if kind == "retexture":
        return [
            Edit(kind, i, value) for i, sprite in targets for value in TEXTURES if value != sprite.texture
        ]
    # A new name must be free, and one that training shows.
    if kind == "recolour":
        free = [colour for colour in COLOURS if colour not in scene.background.colours]
        names = [(i, colour, colour, sprite.shape) for i, sprite in targets for colour in free]
    else:
        names = [(i, shape, sprite.colour, shape) for i, sprite in targets for shape in SHAPES]
    return [
        Edit(kind, i, value)
        for i, value, colour, shape in names
        if (colour, shape) not in pairs and not held_out(shape, colour)
    ]
