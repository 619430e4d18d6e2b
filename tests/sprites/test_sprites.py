"""Scenes are data, rendering is a pure function of them, captions name what is seen."""

import time

import numpy as np
import pytest
import torch

from wanedit.errors import InputError
from wanedit.sprites import (
    COLOURS,
    MOTIONS,
    SHAPES,
    STYLES,
    Background,
    Camera,
    Motion,
    Scene,
    Sprite,
    caption,
    centres,
    frame_times,
    held_out,
    render,
    sample_scene,
)
from wanedit.sprites.sets import DEMO_SECONDS, demo_scene, write_keyframes

GREY = Background("gradient", ("white", "white"))


def test_same_seed_same_pixels_and_splits_differ():
    first, again = (render(sample_scene(7), frame_times(5), (32, 32)).video for _ in range(2))
    assert torch.equal(first, again)
    assert sample_scene(7) != sample_scene(8)
    assert sample_scene(7) != sample_scene(7, "test")


def test_training_never_shows_held_out_pairs_and_test_does():
    def pairs(split):
        return [(s.shape, s.colour) for i in range(150) for s in sample_scene(i, split).sprites]

    assert not any(held_out(*pair) for pair in pairs("train") + pairs("validation"))
    assert any(held_out(*pair) for pair in pairs("test"))
    assert all(any(not held_out(shape, colour) for colour in COLOURS) for shape in SHAPES)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_style_renders_in_range_at_any_size(style, size):
    for seed in range(6):
        out = render(sample_scene(seed), frame_times(5), size, style)
        assert out.video.shape == (3, 5, *size)
        assert out.video.min() >= -1.001
        assert out.video.max() <= 1.001
        assert out.masks.shape[1:] == (5, *size)
        assert out.masks.sum(0).max() <= 1 + 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_colour_and_no_jagged_edge(shape):
    out = render(Scene(GREY, (Sprite(shape, "red", 0.7),)), [0.0], (64, 64))
    mask = out.masks[0, 0]
    area = mask.mean()
    assert 0.03 < area < 0.5
    assert ((mask > 0.02) & (mask < 0.98)).sum() > 8
    shown = (out.video[:, 0][:, mask > 0.99].mean(1) + 1) / 2
    assert torch.allclose(shown, torch.tensor(COLOURS["red"]), atol=0.01)


def test_centres_follow_motion_and_camera():
    motion = Motion("linear", (-0.5, 0.0), (0.5, 0.25), duration=1.0)
    scene = Scene(GREY, (Sprite("circle", "blue", 0.3, motion=motion),), Camera(pan=(0.5, 0.0), zoom=0.2))
    seconds = np.array([0.0, 0.5, 1.0])
    out = render(scene, seconds, (64, 96))
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    weight = out.masks[0] / out.masks[0].sum((1, 2), keepdim=True)
    seen = torch.stack([(weight * x).sum((1, 2)), (weight * y).sum((1, 2))], dim=1)
    assert torch.allclose(seen, out.centres[0], atol=0.05)
    assert torch.equal(out.centres, centres(scene, seconds, (64, 96)))


def test_the_front_sprite_hides_the_one_behind():
    scene = Scene(GREY, (Sprite("square", "red", 0.3), Sprite("square", "blue", 0.6)))
    masks = render(scene, [0.0], (64, 64)).masks
    assert masks[0].max() < 1e-4
    assert masks[1].max() == 1


def test_an_edit_changes_only_its_sprite():
    scene = sample_scene(3, num_sprites=1)
    edited = scene.with_sprite(0, colour=next(c for c in COLOURS if c != scene.sprites[0].colour))
    before, after = (render(s, frame_times(5), (64, 64)) for s in (scene, edited))
    outside = (before.masks[0] == 0).expand(3, -1, -1, -1)
    assert torch.equal(before.video[outside], after.video[outside])
    assert not torch.equal(before.video, after.video)


def test_captions_name_what_is_seen():
    for seed in range(40):
        scene = sample_scene(seed)
        words = caption(scene)
        for sprite in scene.sprites:
            assert f"{sprite.colour} {sprite.shape}" in words
        assert all(colour in words for colour in scene.background.colours)
        assert len(words.split()) < 64
    right = Motion("linear", (-0.5, 0.0), (0.5, 0.0))
    scene = Scene(GREY, (Sprite("pill", "orange", 0.3, outline=True, motion=right, spin=1.0),))
    assert caption(scene).startswith("an outlined orange pill moves right while spinning, in front of")


def test_rendering_reaches_500_frames_a_second_on_one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        render(sample_scene(0), frame_times(17), (64, 64))
        # Processor time: what else runs on the machine does not count.
        began = time.process_time()
        for seed in range(10):
            render(sample_scene(seed), frame_times(17), (64, 64))
        spent = time.process_time() - began
    finally:
        torch.set_num_threads(threads)
    assert 170 / spent > 500


def test_a_scene_without_sprites():
    scene = sample_scene(0, num_sprites=0)
    assert scene.sprites == ()
    assert render(scene, frame_times(3), (16, 16)).masks.shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sprite("blob", "red", 0.3),
        lambda: Sprite("star", "mauve", 0.3),
        lambda: Background("forest", ("red", "blue")),
        lambda: sample_scene(0, "training"),
        lambda: Sprite("star", "red", 0.0),
        lambda: Motion("linear", duration=0.0),
        lambda: Background("checker", ("red", "mauve")),
        lambda: Background("checker", ("red", "blue"), period=0.0),
        lambda: sample_scene(0, duration=0.0),
        lambda: sample_scene(0, num_sprites=-1),
        lambda: render(sample_scene(0), [0.0], (8, 8), "cubist"),
        lambda: render(sample_scene(0), [0.0], (0, 8)),
    ],
)
def test_bad_values_are_named(make):
    with pytest.raises(InputError, match="got"):
        make()


def test_demo_keyframes(tmp_path):
    paths = write_keyframes(tmp_path, 64)
    assert [path.stem for path in paths] == list(DEMO_SECONDS)
    assert "yellow star" in caption(demo_scene())


def test_sampled_scenes_move_in_every_way_of_the_list():
    scenes = [sample_scene(seed) for seed in range(100)]
    sprites = [sprite for scene in scenes for sprite in scene.sprites]
    assert {sprite.motion.kind for sprite in sprites} == set(MOTIONS)
    assert any(sprite.spin for sprite in sprites)
    assert any(sprite.zoom for sprite in sprites)
    assert any(scene.camera.pan != (0.0, 0.0) for scene in scenes)
    assert any(scene.camera.zoom for scene in scenes)


def hidden_share(scene):
    """Largest share of a sprite's area in view that nearer sprites hide, over sprites and times."""
    seconds = np.linspace(0, scene.duration, 9)
    seen = render(scene, seconds, (32, 32)).masks.sum((2, 3))
    alone = [render(Scene(GREY, (s,), scene.camera), seconds, (32, 32)).masks for s in scene.sprites]
    whole = torch.cat(alone).sum((2, 3))
    # A sprite with less than four pixels in view does not count.
    return ((whole - seen) / whole.clamp(min=4)).max()


def test_sprites_do_occlude_each_other():
    shares = torch.stack([hidden_share(sample_scene(seed)) for seed in range(100)])
    several = torch.tensor([len(sample_scene(seed).sprites) > 1 for seed in range(100)])
    assert shares[~several].max() < 1e-6
    # Three quarters of the scenes with several sprites, and every fifth of all scenes hides half of a sprite.
    assert (shares[several] > 0.1).float().mean() > 0.6
    assert (shares > 0.5).float().mean() > 0.1
