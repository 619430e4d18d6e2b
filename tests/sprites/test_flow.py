"""The flow is exact: it carries one frame onto another, undoes itself, and has its closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wanedit.errors import InputError
from wanedit.sprites import (
    MOTIONS,
    Background,
    Camera,
    Motion,
    Scene,
    Sprite,
    frame_times,
    optical_flow,
    render,
    sample_scene,
)

SIZE = (96, 128)
CLOUDS = Background("noise", ("white", "brown"), period=1.0, seed=5)
RIGHT = Motion("linear", (-0.5, 0.1), (0.5, -0.2))
FAR = Motion("linear", (0.5, 0.2), (0.2, 0.5))
SHIFTING = Camera(pan=(0.3, -0.2), zoom=0.25, origin=0.5)


def moving(kind):
    return Motion(kind, (-0.4, 0.3), (0.3, -0.1), bulge=(0.4, -0.6), radius=0.3, rate=2.0)


def textured(motion=RIGHT, **changes):
    return Sprite("square", "blue", 0.5, "shaded", motion=motion, **changes)


def warped(picture, displacement, mode="bicubic", beyond="border"):
    """Samples picture (C, T, H, W) where displacement (T, 2, H, W) points to."""
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    there = displacement + torch.stack([x, y])
    grid = there.movedim(1, -1) * 2 / torch.tensor([width, height]) - 1
    return F.grid_sample(picture.transpose(0, 1), grid, mode, beyond, align_corners=False).transpose(0, 1)


def layers(rendered):
    """Alpha of every sprite and of the background: (N + 1, T, H, W)."""
    return torch.cat([rendered.masks, 1 - rendered.masks.sum(0, keepdim=True)])


def interior(here, there, flow):
    """Visible pixels whose neighbours show the same layer, here and around their place in the other frame."""
    own, other = (-F.max_pool2d(-layers(rendered), 3, 1, 1) > 0.999 for rendered in (here, there))
    landed = warped(other.float(), flow.displacement, "bilinear", "zeros") > 0.999
    return flow.visible & (own & landed).any(0)


SCENES = {
    **{kind: Scene(CLOUDS, (textured(moving(kind)),)) for kind in MOTIONS},
    "spin": Scene(CLOUDS, (textured(spin=1.4),)),
    "zoom": Scene(CLOUDS, (textured(zoom=-0.6),)),
    "camera": Scene(CLOUDS, (textured(),), SHIFTING),
    "occlusion": Scene(CLOUDS, (textured(), Sprite("star", "yellow", 0.6, "shaded", spin=0.5))),
    "all": Scene(
        CLOUDS, (textured(spin=1.0, zoom=0.5), Sprite("ring", "red", 0.4, "shaded", motion=FAR)), SHIFTING
    ),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("way", [1, -1])
def test_the_flow_carries_one_frame_onto_another(name, way):
    scene, ends = SCENES[name], np.array([[0.2, 0.35], [0.45, 0.75]])[::way]
    here, there = (render(scene, seconds, SIZE) for seconds in ends)
    flow = optical_flow(scene, ends[0], ends[1], SIZE)
    inner = interior(here, there, flow)
    assert inner.float().mean() > 0.5
    if way == 1:
        assert layers(here)[0][inner].sum() > 100, "no sprite pixels are compared"
    error = (warped(there.video, flow.displacement) - here.video).abs()[:, inner]
    # One grey level of 255 is 2 / 255; a field that is wrong by half a pixel misses this bound.
    assert error.max() < 2 / 255
    assert error.mean() < 0.2 / 255


def test_the_bound_of_the_warp_test_notices_half_a_pixel():
    scene = SCENES["all"]
    here, there = (render(scene, [seconds], SIZE) for seconds in (0.2, 0.45))
    flow = optical_flow(scene, 0.2, 0.45, SIZE)
    off = warped(there.video, flow.displacement + 0.5)
    assert (off - here.video).abs()[:, interior(here, there, flow)].max() > 4 / 255


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_sampled_scenes_warp_too(seed):
    scene, size = sample_scene(seed), (192, 192)
    clip = render(scene, [0.4, 0.5], size)
    here, there = (render(scene, [seconds], size) for seconds in (0.4, 0.5))
    flow = clip.flow()
    inner = interior(here, there, flow)
    error = (warped(there.video, flow.displacement) - here.video).abs()[:, inner]
    # Stripes, dots and rims have hard edges that interpolation blurs; they are few.
    assert error.median() < 0.5 / 255
    assert (error > 8 / 255).float().mean() < 0.12


@pytest.mark.parametrize("name", SCENES)
def test_there_and_back_again(name):
    """Where the place a pixel goes to is visible, the flow from there leads back to the pixel."""
    scene = SCENES[name]
    out, back = optical_flow(scene, 0.2, 0.7, SIZE), optical_flow(scene, 0.7, 0.2, SIZE)
    here, there = render(scene, [0.2], SIZE), render(scene, [0.7], SIZE)
    inner = interior(here, there, out)
    returned = warped(back.displacement.transpose(0, 1), out.displacement, "bilinear").transpose(0, 1)
    # Within one layer the flow is an affine map of the pixel, which bilinear interpolation does not change.
    loop = (out.displacement + returned).movedim(1, -1)[inner]
    assert loop.abs().max() < 1e-3
    seen_back = warped(back.visible.float()[None], out.displacement, "nearest")[0]
    assert (seen_back[inner] > 0.5).float().mean() > 0.98


def test_linear_motion_in_pixels_per_frame():
    sprite = Sprite("square", "red", 0.4, motion=Motion("linear", (-0.5, 0.0), (0.5, 0.25), duration=2.0))
    clip = render(Scene(CLOUDS, (sprite,), duration=2.0), frame_times(5, fps=8), (64, 64))
    flow = clip.flow()
    assert flow.displacement.shape == (4, 2, 64, 64)
    # 1.0 and 0.25 world units of 32 pixels in two seconds of eight frames.
    on = clip.masks[0, :-1] > 0.5
    seen = flow.displacement.movedim(1, -1)
    assert torch.allclose(seen[on], torch.tensor([1.0, 0.25]) * 32 / 16, atol=1e-5)
    assert seen[~on].abs().max() < 1e-5
    assert torch.allclose(seen[on].mean(0), (clip.centres[0, 1] - clip.centres[0, 0]), atol=1e-4)
    back = clip.flow(backward=True).displacement.movedim(1, -1)
    assert torch.allclose(back[clip.masks[0, 1:] > 0.5], -seen[on][0], atol=1e-5)


def test_camera_pan_and_zoom_in_pixels():
    pan = optical_flow(Scene(CLOUDS, (), Camera(pan=(0.5, -0.25))), 0.0, 0.5, (32, 64))
    assert torch.allclose(pan.displacement, torch.tensor([-4.0, 2.0])[:, None, None].expand(1, 2, 32, 64))
    # Four columns leave at the left, two rows at the bottom.
    assert pan.visible.sum() == 60 * 30
    zoom = optical_flow(Scene(CLOUDS, (), Camera(zoom=math.log(2))), 0.0, 1.0, (32, 64))
    assert torch.allclose(zoom.displacement[0, :, 5, 9], torch.tensor([9.5 - 32, 5.5 - 16]))
    assert zoom.visible[0].sum() == 16 * 32


def test_spin_and_zoom_of_a_sprite():
    turned = Scene(CLOUDS, (Sprite("circle", "red", 0.9, spin=math.pi / 2),))
    moved = optical_flow(turned, 0.0, 1.0, (64, 64)).displacement[0, :, 31, 40]
    # From (8.5, -0.5) off the centre a quarter turn clockwise leads to (0.5, 8.5).
    assert torch.allclose(moved, torch.tensor([0.5 - 8.5, 8.5 + 0.5]), atol=1e-5)
    grown = Scene(CLOUDS, (Sprite("circle", "red", 0.6, zoom=math.log(2)),))
    moved = optical_flow(grown, 0.0, 1.0, (64, 64)).displacement[0, :, 31, 40]
    assert torch.allclose(moved, torch.tensor([8.5, -0.5]), atol=1e-5)


def test_hidden_and_uncovered_points_are_not_visible():
    """A blue square comes into the frame and stops over a smaller red one."""
    passing = Motion("linear", (-1.5, 0.0), (0.0, 0.0))
    scene = Scene(CLOUDS, (Sprite("square", "red", 0.4), Sprite("square", "blue", 0.5, motion=passing)))
    behind, shown = (render(scene, [seconds], (64, 64)).masks[:, 0] > 0.5 for seconds in (0.0, 1.0))
    hides, shows = optical_flow(scene, 0.0, 1.0, (64, 64)), optical_flow(scene, 1.0, 0.0, (64, 64))
    assert behind[0].any()
    assert not hides.visible[0][behind[0]].any()
    assert torch.equal(hides.visible[0], ~shown[1])
    # Backwards the blue square leaves the frame and uncovers the rest.
    assert torch.equal(shows.visible[0], ~shown[1])


def test_standing_still_is_zero_and_everything_is_visible():
    flow = optical_flow(sample_scene(2, num_sprites=3), [0.1, 0.9], [0.1, 0.9], (40, 56))
    assert flow.displacement.abs().max() < 1e-5
    assert flow.visible.all()
    assert render(sample_scene(2), [0.5], (8, 8)).flow().displacement.shape == (0, 2, 8, 8)


@pytest.mark.parametrize(
    ("start", "end", "size"), [([0.0, 1.0], [0.0], (8, 8)), ([[0.0]], [[0.0]], (8, 8)), (0.0, 1.0, (0, 8))]
)
def test_bad_flow_arguments_are_named(start, end, size):
    with pytest.raises(InputError, match="got"):
        optical_flow(sample_scene(0), np.array(start), np.array(end), size)
