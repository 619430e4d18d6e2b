"""The palette stylist: colours go to the reference, shapes stay, one map for all, the same bytes every time."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from tests.stylists.paintings import PAINTINGS
from tests.stylists.test_extract import scenery
from wanedit.errors import InputError
from wanedit.stylists.palette.looks import LOOKS, PaletteSettings, check_palette, find_words, look_of
from wanedit.stylists.palette.stylist import PaletteStylist, ink, judge, paint, paper, structure
from wanedit.stylists.palette.transport import (
    cloud_of,
    cloud_of_colours,
    colour_map,
    in_gamut,
    sliced_distance,
    soft_steps,
    tone_curve,
    transport,
)
from wanedit.stylists.protocol import Request, Styled, StyleReference, Stylist, Verdict
from wanedit.video.colour import lab_to_rgb, rgb_to_lab

SOURCES = tuple(scenery(11, 3, 40.0, (180, 320)))
DUSK = StyleReference(PAINTINGS["dusk"]())
PLAIN: dict[str, Any] = {"paint": 0.0, "outline": 0.0, "paper": 0.0}


def restyle(
    reference: StyleReference = DUSK,
    sources: tuple[np.ndarray, ...] = SOURCES,
    reasons: tuple[str, ...] = (),
    **settings,
) -> list[tuple[Styled, Verdict]]:
    stylist = PaletteStylist(PaletteSettings(**settings))

    async def go() -> list[tuple[Styled, Verdict]]:
        guide = await stylist.analyse(reference, sources)
        found = []
        for k in range(len(sources)):
            request = Request(sources, k, reference, guide, reasons=reasons)
            styled = await stylist.restyle(request)
            found.append((styled, await stylist.verify(request, styled, None)))
        return found

    return asyncio.run(go())


def hashes(found: list[tuple[Styled, Verdict]]) -> list[str]:
    return [hashlib.sha256(styled.image.tobytes()).hexdigest() for styled, _ in found]


def test_it_is_a_stylist_that_costs_nothing() -> None:
    stylist = PaletteStylist()
    assert isinstance(stylist, Stylist)
    assert stylist.estimate(10, 2).calls == (0, 0)


@pytest.mark.parametrize("name", PAINTINGS)
def test_it_passes_its_own_judgement_on_a_picture(name: str) -> None:
    reference = PAINTINGS[name]()
    for (styled, verdict), source in zip(restyle(StyleReference(reference)), SOURCES, strict=True):
        assert verdict.accepted, verdict.reasons
        assert styled.image.shape == source.shape
        measured = styled.provenance["measured"]
        assert measured["palette_after"] < measured["palette_before"]
        assert measured["structure"] > 0.6


@pytest.mark.parametrize("word", LOOKS)
def test_it_passes_its_own_judgement_on_every_word(word: str) -> None:
    for _, verdict in restyle(StyleReference(None, f"a {word.upper()} of it"), SOURCES[:1]):
        assert verdict.accepted, verdict.reasons


def test_it_is_deterministic_to_the_byte() -> None:
    assert hashes(restyle()) == hashes(restyle())
    assert hashes(restyle(paper=1.0)) != hashes(restyle(paper=1.0, seed=1))


def test_one_map_serves_all_keyframes() -> None:
    found = restyle(**PLAIN)
    pairs: dict[bytes, set[bytes]] = {}
    for (styled, _), source in zip(found, SOURCES, strict=True):
        for before, after in zip(source.reshape(-1, 3), styled.image.reshape(-1, 3), strict=True):
            pairs.setdefault(before.tobytes(), set()).add(after.tobytes())
    assert max(map(len, pairs.values())) == 1
    assert len({styled.provenance["map"] for styled, _ in found}) == 1


def test_what_another_map_made_is_not_consistent() -> None:
    stylist = PaletteStylist()
    guide = asyncio.run(stylist.analyse(DUSK, SOURCES))
    alone = asyncio.run(stylist.restyle(Request(SOURCES[:1], 0, DUSK, guide)))
    verdict = asyncio.run(stylist.verify(Request(SOURCES, 0, DUSK, guide), alone, None))
    assert not verdict.consistent
    assert "colour map" in verdict.reasons[0]


def test_another_picture_has_not_kept_the_structure() -> None:
    stylist = PaletteStylist()
    guide = asyncio.run(stylist.analyse(DUSK, SOURCES))
    request = Request(SOURCES, 0, DUSK, guide)
    styled = asyncio.run(stylist.restyle(request))
    turned = Styled(np.ascontiguousarray(styled.image[::-1, ::-1]), styled.provenance)
    verdict = asyncio.run(stylist.verify(request, turned, None))
    assert not verdict.structure_kept
    assert verdict.consistent
    assert not verdict.accepted


def test_reasons_soften_the_drawing_and_leave_the_colours() -> None:
    first, second = (restyle(reasons=why, outline=0.8)[0][0] for why in ((), ("too rough",)))
    assert second.provenance["map"] == first.provenance["map"]
    assert second.provenance["drawing"]["outline"] == first.provenance["drawing"]["outline"] / 2


@pytest.mark.parametrize("shade", [0, 255, 90])
def test_a_frame_of_one_colour(shade: int) -> None:
    flat = (np.full((90, 160, 3), shade, np.uint8),)
    ((styled, verdict),) = restyle(sources=flat, **PLAIN)
    assert verdict.structure_kept
    assert np.ptp(styled.image.reshape(-1, 3), axis=0).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (33, 17)])
def test_references_and_frames_of_any_size(size: tuple[int, int]) -> None:
    tiny = StyleReference(np.full((*size, 3), 120, np.uint8))
    restyle(tiny, SOURCES[:1])
    restyle(DUSK, (np.zeros((*size, 3), np.uint8) + 7,), outline=0.5, paper=0.5)


def test_noise_is_not_amplified_much() -> None:
    flat = np.full((120, 160, 3), (120, 110, 100), np.float32)
    noisy = flat + np.random.default_rng(2).normal(0, 3, flat.shape)
    sources = (noisy.clip(0, 255).astype(np.uint8), SOURCES[0][:120, :160].copy())
    for name in PAINTINGS:
        colour_only, _ = restyle(StyleReference(PAINTINGS[name]()), sources, **PLAIN)[0]
        assert colour_only.image.std(axis=(0, 1)).max() < 2.5 * 3
        brushed, _ = restyle(StyleReference(PAINTINGS[name]()), sources, paper=0.0)[0]
        assert brushed.image.std(axis=(0, 1)).max() < 3


def test_a_ramp_has_no_bands() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    for name in PAINTINGS:
        styled, _ = restyle(StyleReference(PAINTINGS[name]()), (ramp,), **PLAIN)[0]
        lightness = rgb_to_lab(styled.image)[0, :, 0]
        assert np.diff(lightness).min() > -0.6  # monotone but for rounding
        assert np.abs(np.diff(styled.image[0].astype(int), axis=0)).max() <= 5


def test_highlights_are_not_blown() -> None:
    for name in PAINTINGS:
        for styled, _ in restyle(StyleReference(PAINTINGS[name]())):
            assert (styled.image.min(-1) == 255).mean() < 0.01


def test_transport_reaches_the_other_cloud() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal((50, 0, 0), (10, 5, 5), (3000, 3)).astype(np.float32)
    y = generator.normal((40, 20, -30), (20, 9, 3), (2500, 3)).astype(np.float32)
    assert sliced_distance(transport(x, y, 0), y) < 0.05 * sliced_distance(x, y)
    assert sliced_distance(x, x) == 0


def test_an_equal_palette_moves_hardly_anything() -> None:
    pooled = cloud_of(SOURCES)
    made = colour_map(pooled, pooled, 1.0, 1.0)
    gap = np.linalg.norm(rgb_to_lab(made(SOURCES[0])) - rgb_to_lab(SOURCES[0]), axis=-1)
    assert np.median(gap) < 3


def test_strength_is_a_share_of_the_way() -> None:
    distances = [
        sliced_distance(cloud_of([restyle(strength=s, **PLAIN)[0][0].image]), cloud_of([SOURCES[0]]))
        for s in (0.25, 0.5, 1.0)
    ]
    assert distances[0] < 0.7 * distances[1] < 0.7 * distances[2]


def test_the_tone_curve_is_monotone_and_bounded() -> None:
    generator = np.random.default_rng(0)
    dark, light = (generator.normal(m, 8, 4000).astype(np.float32) for m in (15, 92))
    for x, y in ((dark, light), (light, dark), (dark, dark)):
        curve = tone_curve(x, y, 1.0)
        assert curve.min() >= 0
        assert curve.max() <= 100
        assert np.diff(curve).min() > 0
        assert np.diff(curve).max() < 1.7
    assert np.abs(tone_curve(dark, light, 0.0) - np.arange(101)).max() < 1.5


def test_steps_are_monotone_and_few() -> None:
    lightness = np.linspace(0, 100, 1001, dtype=np.float32)
    stepped = soft_steps(lightness, 5)
    assert np.diff(stepped).min() >= 0
    assert (np.diff(stepped) < 0.06).mean() > 0.35
    assert np.abs(stepped - lightness).max() < 10


def test_gamut_keeps_lightness_and_hue() -> None:
    lab = np.array([[50, 90, 90], [80, -100, 20], [50, 5, 5], [100, 10, 0], [0, 0, -20]], np.float32)
    inside = in_gamut(lab)
    assert np.allclose(inside[:, 0], lab[:, 0])
    assert np.allclose(inside[2], lab[2])
    back = rgb_to_lab(lab_to_rgb(inside))
    assert np.abs(back - inside).max() < 1.5
    turn = np.arctan2(inside[:2, 2], inside[:2, 1]) - np.arctan2(lab[:2, 2], lab[:2, 1])
    assert np.abs(turn).max() < 1e-3


def test_paint_removes_noise_and_keeps_edges() -> None:
    picture = np.zeros((120, 160, 3), np.float32) + 60
    picture[:, 80:] = 190
    noisy = (picture + np.random.default_rng(1).normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    painted = paint(noisy, 0.7)
    assert painted[:, :70].std() < 2
    assert abs(int(painted[60, 77].mean()) - 60) < 8
    assert abs(int(painted[60, 82].mean()) - 190) < 8
    assert paint(noisy, 0.0) is noisy


def test_ink_lies_on_edges_only() -> None:
    picture = np.full((120, 160, 3), 200, np.uint8)
    cv2.circle(picture, (80, 60), 30, (60, 60, 60), -1)
    lines = ink(picture)
    assert lines[10, 10] == 1
    assert lines[60, 80] == 1
    assert lines.min() < 0.5
    assert (lines < 0.9).mean() < 0.1


def test_paper_belongs_to_the_screen() -> None:
    sheet = paper(90, 160, 3)
    assert np.array_equal(sheet, paper(90, 160, 3))
    assert abs(float(sheet.mean())) < 1e-3
    assert not np.array_equal(sheet, paper(90, 160, 4))


def test_structure_is_one_for_itself_and_falls_with_a_shift() -> None:
    source = SOURCES[0]
    assert structure(source, source) == pytest.approx(1)
    assert structure(source, np.roll(source, 25, 1)) < 0.5
    assert structure(source, 255 - source) > 0.9


def test_words_and_their_synonyms() -> None:
    assert find_words("A Watercolor, on ink; watercolour!") == ["watercolour", "ink"]
    both = look_of("noir ink", False)
    assert both.colours == LOOKS["noir"].colours
    assert both.outline == LOOKS["ink"].outline
    assert look_of("ink", True).colours == ()
    assert look_of("like nothing on earth", True).outline == 0
    for look in LOOKS.values():
        check_palette(PaletteSettings(1.0, look.paint, look.outline, look.posterise, look.paper))
        assert len(cloud_of_colours(look.colours, 0)) > 3000


@pytest.mark.parametrize("words", ["", "in the manner of nobody", "新しい"])
def test_words_that_it_does_not_know(words: str) -> None:
    with pytest.raises(InputError, match=r"watercolour, noir.*gemini"):
        PaletteStylist().check_reference(StyleReference(None, words))


@pytest.mark.parametrize(
    ("name", "value"),
    [("strength", 0.0), ("strength", 1.5), ("strength", float("nan")), ("paint", -0.1), ("outline", 2.0),
     ("paper", float("inf")), ("posterise", 1), ("posterise", 99), ("seed", -1)],
)  # fmt: skip
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"palette.{name} is"):
        PaletteStylist(replace(PaletteSettings(), **{name: value}))


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.5])
def test_a_little_strength_is_asked_for_little(strength: float) -> None:
    for _, verdict in restyle(sources=SOURCES[:1], strength=strength):
        assert verdict.accepted, verdict.reasons
    untouched = judge(1.0, (10.0, 10.0), True, strength)
    assert not untouched.style_matched
    assert f"{1 - 0.1 * strength:.1%} of that" in untouched.reasons[0]
    assert "retries" not in PaletteStylist.advice


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("watercolour", []),
        ("a Sunset in the style of Van Gogh", ["Van Gogh"]),
        ("swirling skies, ink and thick impasto", ["swirling skies", "thick impasto"]),
        ("", []),
    ],
)
def test_words_that_it_does_not_understand_are_named(words: str, lost: list[str]) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    notes = PaletteStylist().check_reference(StyleReference(picture, words))
    assert len(notes) == bool(lost)
    assert all(f'"{one}"' in notes[0] for one in lost)


@pytest.mark.parametrize(
    ("words", "asked", "refused"),
    [
        ("a watercolour, not noir", ["watercolour"], ["not noir"]),
        ("not noir but sunset", ["sunset"], ["not noir"]),
        ("neither ink nor comic, pastel", ["pastel"], ["neither ink nor comic"]),
        ("Without any neon or ink: oil", ["oil"], ["Without any neon or ink"]),
        ("it isn't sepia; winter", ["winter"], ["isn't sepia"]),
        ("pastel rather than neon", ["pastel"], ["rather than neon"]),
        ("not only ink, also neon", ["ink", "neon"], []),
        ("a noirish notion of snow", ["winter"], []),
    ],
)
def test_a_look_of_which_is_said_no_is_left_out_and_told(
    words: str, asked: list[str], refused: list[str]
) -> None:
    notes = PaletteStylist().check_reference(StyleReference(None, words))
    assert find_words(words) == asked
    assert [note for note in notes if "as it is told" in note] == [
        f'"{one}": the palette stylist leaves this look out, as it is told' for one in refused
    ]


def test_only_looks_that_are_not_wanted_are_no_style() -> None:
    with pytest.raises(InputError, match="names none that it knows"):
        PaletteStylist().check_reference(StyleReference(None, "not noir"))
