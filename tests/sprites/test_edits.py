"""An edit changes what it says, nowhere else, and its words name the change."""

import pytest
import torch

from wanedit.errors import InputError
from wanedit.sprites import (
    COLOURS,
    EDITS,
    STYLES,
    Background,
    Edit,
    Scene,
    Sprite,
    apply_edit,
    caption,
    edit_mask,
    edit_prompt,
    frame_times,
    held_out,
    render,
    sample_edit,
    sample_scene,
)

SKY = Background("horizon", ("blue", "green"))
PAIR = Scene(SKY, (Sprite("star", "red", 0.3), Sprite("ring", "yellow", 0.45, "striped")))
SEEDS = range(12)


@pytest.mark.parametrize("kind", EDITS)
def test_only_the_pixels_of_the_mask_change(kind):
    for seed in SEEDS:
        scene = sample_scene(seed, num_sprites=2)
        edit = sample_edit(scene, seed, [kind])
        target = apply_edit(scene, edit)
        before = render(scene, frame_times(5), (48, 48)).video
        after = render(target.scene, frame_times(5), (48, 48), target.style).video
        changed = ((before - after).abs() > 1e-5).any(0)
        mask = edit_mask(scene, edit, frame_times(5), (48, 48))
        assert changed.any()
        assert not changed[~mask].any()


def test_the_mask_is_tight_where_the_whole_sprite_changes():
    scene = sample_scene(4, num_sprites=2)
    for kind in ("recolour", "remove"):
        edit = sample_edit(scene, 0, [kind])
        clips = (render(s, [0.5], (48, 48)) for s in (scene, apply_edit(scene, edit).scene))
        before, after = (clip.video for clip in clips)
        solid = render(scene, [0.5], (48, 48)).masks[edit.sprite] > 0.5
        assert (before - after).abs().amax(0)[solid].gt(0.02).float().mean() > 0.8


@pytest.mark.parametrize("kind", EDITS)
def test_the_words_name_the_edit(kind):
    for seed in SEEDS:
        scene = sample_scene(seed, num_sprites=2)
        edit = sample_edit(scene, seed, [kind])
        target = apply_edit(scene, edit)
        assert target.caption == caption(target.scene, target.style) != caption(scene)
        assert target.prompt == edit_prompt(scene, edit)
        if edit.sprite is not None:
            old = scene.sprites[edit.sprite]
            assert f"{old.colour} {old.shape}" in target.prompt
        if isinstance(edit.value, str) and kind != "style":
            assert edit.value in target.prompt
            # Captions do not mention a plain texture.
            assert edit.value in target.caption or edit.value == "plain"


def test_prompts_and_captions_read_well():
    assert apply_edit(PAIR, Edit("recolour", 0, "purple")).prompt == "turn the red star purple"
    assert edit_prompt(PAIR, Edit("reshape", 1, "heart")) == "turn the yellow ring into a heart"
    assert edit_prompt(PAIR, Edit("retexture", 1, "plain")) == "make the yellow ring plain"
    assert edit_prompt(PAIR, Edit("remove", 0)) == "remove the red star"
    night = Background("horizon", ("purple", "brown"))
    words = edit_prompt(PAIR, Edit("background", value=night))
    assert words == "replace the background with a purple sky over brown ground"
    neon = apply_edit(PAIR, Edit("style", value="neon"))
    assert (neon.prompt, neon.style) == ("show it in neon light", "neon")
    assert neon.caption.startswith("in neon light, a red star stands still and")
    twins = Scene(SKY, (Sprite("star", "red", 0.2), Sprite("star", "red", 0.5)))
    assert edit_prompt(twins, Edit("remove", 1)) == "remove the large red star"


def test_edits_give_the_scene_they_name():
    assert apply_edit(PAIR, Edit("recolour", 0, "purple")).scene == PAIR.with_sprite(0, colour="purple")
    assert apply_edit(PAIR, Edit("remove", 0)).scene.sprites == PAIR.sprites[1:]
    assert apply_edit(PAIR, Edit("style", value="sepia")).scene == PAIR
    assert (
        caption(apply_edit(Scene(SKY, PAIR.sprites[:1]), Edit("remove", 0)).scene)
        == "a blue sky over green ground."
    )


def test_sampled_edits_are_the_same_again_varied_and_fit_to_train_on():
    scenes = [sample_scene(seed) for seed in range(60)]
    edits = [sample_edit(scene, seed) for seed, scene in enumerate(scenes)]
    assert edits == [sample_edit(scene, seed) for seed, scene in enumerate(scenes)]
    assert {edit.kind for edit in edits} == set(EDITS)
    for scene, edit in zip(scenes, edits, strict=True):
        after = apply_edit(scene, edit).scene
        assert not any(held_out(sprite.shape, sprite.colour) for sprite in after.sprites)
        assert not {sprite.colour for sprite in after.sprites} & set(after.background.colours)


def test_no_edit_is_named_where_none_is_possible():
    for scene in (Scene(SKY, ()), Scene(SKY, (Sprite("star", "red", 0.3),) * 2)):
        with pytest.raises(InputError, match="allows none"):
            sample_edit(scene, 0, ["recolour", "remove"])
        assert sample_edit(scene, 0).kind in ("background", "style")


def test_every_style_has_words_and_keeps_the_masks():
    plain = render(PAIR, [0.0], (32, 32))
    captions = {caption(PAIR, style) for style in STYLES}
    assert len(captions) == len(STYLES)
    for style in STYLES:
        other = render(PAIR, [0.0], (32, 32), style)
        assert torch.equal(other.masks, plain.masks)
        assert style == "plain" or not torch.equal(other.video, plain.video)


def test_sepia_has_one_hue_and_neon_glows_around_its_sprites():
    red, green, blue = render(PAIR, [0.0], (32, 32), "sepia").video
    assert (red >= green).all()
    assert (green >= blue).all()
    alone, none = (render(Scene(SKY, sprites), [0.0], (32, 32), "neon") for sprites in (PAIR.sprites[1:], ()))
    outside = alone.masks[0, 0] == 0
    brighter = (alone.video - none.video).sum(0)[0][outside]
    assert brighter.min() >= 0
    assert brighter.max() > 0.3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Edit("blur", 0),
        lambda: Edit("recolour", None, "red"),
        lambda: Edit("recolour", 0, SKY),
        lambda: Edit("remove", 0, "red"),
        lambda: Edit("style", 0, "neon"),
        lambda: Edit("style", value="plain"),
        lambda: Edit("style", value="cubist"),
        lambda: apply_edit(PAIR, Edit("remove", 2)),
        lambda: apply_edit(PAIR, Edit("remove", -1)),
        lambda: apply_edit(Scene(SKY, ()), Edit("remove", 0)),
        lambda: apply_edit(PAIR, Edit("recolour", 0, "red")),
        lambda: edit_prompt(PAIR, Edit("recolour", 0, "mauve")),
        lambda: apply_edit(PAIR, Edit("background", value=SKY)),
        lambda: edit_mask(PAIR, Edit("reshape", 0, "star"), [0.0], (8, 8)),
        lambda: sample_edit(PAIR, 0, ["blur"]),
        lambda: caption(PAIR, "cubist"),
    ],
)
def test_bad_edits_are_named(make):
    with pytest.raises(InputError, match=r"got .*expected"):
        make()


def test_every_colour_can_be_asked_for():
    for colour in COLOURS:
        if colour != "red":
            assert apply_edit(PAIR, Edit("recolour", 0, colour)).scene.sprites[0].colour == colour
