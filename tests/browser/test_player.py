"""The clips of a report keep together to the frame, whatever moves them."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import FPS, FRAMES, READ, Seen, counting
from tests.video.test_sound import film
from wanedit.report.clips import Pane, player
from wanedit.report.page import Header
from wanedit.report.page import page as whole_page
from wanedit.video.sound import Sound

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Look = Callable[..., Any]

SAMPLE = f"""
async (seconds) => {{
  {READ}
  const videos = [...document.querySelectorAll('video')];
  const samples = [];
  const start = performance.now();
  while (performance.now() - start < 1000 * seconds) {{
    const times = videos.map((v) => v.currentTime);
    const from = performance.now();
    const frames = readAll();
    samples.push({{ times, frames, took: (performance.now() - from) / 1000 }});
    await new Promise(requestAnimationFrame);
  }}
  return samples;
}}
"""


def shown(frame: int) -> list[int]:
    """What the four clips show at a frame of the time line; the last has half as many, each twice as long."""
    return [frame, frame, frame, frame // 2]


def test_all_clips_play_in_step(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.settle()
        seen.page.keyboard.press("Space")
        seen.until("document.querySelector('video').currentTime > 0.1")
        samples = seen.page.evaluate(SAMPLE, 1.2)
    times = [sample["times"] for sample in samples]
    assert len(samples) > 15
    assert max(at for row in times for at in row) - times[0][0] > 0.6
    assert max(max(row) - min(row) for row in times) <= 1 / FPS
    # The pictures themselves, which are read one after the other and, where the cores are taken, drawn late: at most
    # a frame apart, those of half the rate one of their own, but for the time that the reading took.
    together = []
    for sample in samples:
        *alike, half = sample["frames"]
        late = math.ceil(sample["took"] * FPS) if sample["took"] > 0.5 / FPS else 0
        together.append(max(alike) - min(alike) <= 1 + late and abs(half - alike[0] / 2) <= 1.5 + late)
    assert sum(together) >= 0.9 * len(together)


def test_a_key_lands_exactly_on_its_frame(counted: Path, look: Look) -> None:
    steps = [
        ("ArrowRight", 1), ("ArrowRight", 2), ("Shift+ArrowRight", 12), ("ArrowLeft", 11), ("Shift+ArrowLeft", 1),
        ("End", FRAMES - 1), ("ArrowRight", FRAMES - 1), ("Home", 0), ("ArrowLeft", 0),
    ]  # fmt: skip
    with look(counted) as seen:
        for key, expected in steps:
            seen.page.keyboard.press(key)
            assert seen.frames() == shown(expected), key
            assert seen.page.inner_text(".readout .frame") == str(expected)


def test_every_frame_can_be_stepped_to(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        found = [seen.frames()]
        for _ in range(FRAMES - 1):
            seen.page.keyboard.press("ArrowRight")
            found.append(seen.frames())
    assert found == [shown(frame) for frame in range(FRAMES)]


def test_slider_and_markers_jump(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.page.locator(".scrub").fill("31")
        assert seen.frames() == shown(31)
        seen.page.get_by_role("button", name="Keyframe 1, frame 20, 1.25 s").click()
        assert seen.frames() == shown(20)
        assert seen.page.locator(".at-key").is_visible()
        seen.page.get_by_role("button", name="Join at frame 30, 1.88 s").click()
        assert seen.frames() == shown(30)
        assert not seen.page.locator(".at-key").is_visible()
        # A slider that has the focus steps by one frame, not by two.
        seen.page.locator(".scrub").focus()
        seen.page.keyboard.press("ArrowRight")
        assert seen.frames() == shown(31)


def test_a_pause_stands_on_one_frame_for_all(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.settle()
        play = seen.page.locator("[data-do=play]")
        play.click()
        seen.until("document.querySelector('video').currentTime > 0.4")
        assert play.get_attribute("aria-label") == "Pause"
        play.click()
        frame = int(seen.page.inner_text(".readout .frame"))
        assert frame >= 6
        assert seen.frames() == shown(frame)
        assert paused(seen)


def test_the_end_begins_again_only_when_asked(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.page.get_by_label("Loop").uncheck()
        seen.page.locator(".scrub").fill(str(FRAMES - 4))
        seen.settle()
        seen.page.locator("[data-do=play]").click()
        seen.until("!document.querySelector('.player').report.playing()")
        assert seen.frames() == shown(FRAMES - 1)
        seen.page.get_by_label("Loop").check()
        seen.page.locator(".scrub").fill(str(FRAMES - 4))
        seen.settle()
        seen.page.locator("[data-do=play]").click()
        seen.until("document.querySelector('.player').report.now() < 10")
        # The clips start again once all of them have reached the first frame.
        seen.until("[...document.querySelectorAll('video')].every(video => !video.paused)")


def test_speed_and_enlarging(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.settle()
        narrow = seen.page.locator("video").first.bounding_box()
        seen.page.get_by_role("button", name="Enlarge Source").click()
        wide = seen.page.locator("video").first.bounding_box()
        assert wide["width"] > 1.8 * narrow["width"]
        seen.page.get_by_label("Speed").select_option("0.25")
        seen.page.locator("[data-do=play]").click()
        seen.page.wait_for_timeout(800)
        assert 0 < int(seen.page.inner_text(".readout .frame")) < 8


def test_sound_is_heard_of_one_clip_and_only_when_asked(tmp_path: Path, look: Look) -> None:
    # From the middle of a file on: what its decoder needs before the first picture lies before it in the page too.
    sound = Sound(film(tmp_path / "film.mp4", seconds=4.0), Fraction(7, 10), Fraction(FRAMES) / Fraction(FPS))
    clip = counting(FRAMES)
    panes = [Pane("Source", clip, FPS), *(Pane(name, clip, FPS, sound=sound) for name in ("a", "b"))]
    path = tmp_path / "page.html"
    text = whole_page("Heard", Header("clips", "Heard"), {"player": player(panes)})
    path.write_text(text, encoding="utf-8")
    muted = "[...document.querySelectorAll('video')].map(v => v.muted)"
    with look(path) as seen:
        seen.settle()
        assert seen.page.evaluate(muted) == [True, True, True]
        for frame in (0, 1, 20, FRAMES - 1):
            seen.page.locator(".scrub").fill(str(frame))
            assert seen.frames() == [frame] * 3
        seen.page.keyboard.press("m")
        assert seen.page.evaluate(muted) == [True, False, True]
        assert seen.page.locator(".sound").input_value() == "a"
        seen.page.locator(".sound").select_option("Sound: b")
        assert seen.page.evaluate(muted) == [True, True, False]
        seen.page.locator("[data-do=play]").click()
        seen.until("document.querySelector('video').currentTime > 0.4")
        assert seen.page.evaluate(
            "[...document.querySelectorAll('video')].map(v => v.webkitAudioDecodedByteCount > 0)"
        ) == [False, True, True]
        seen.page.locator("h1").click()
        seen.page.keyboard.press("m")
        assert seen.page.evaluate(muted) == [True, True, True]


def test_a_page_without_sound_offers_none(counted: Path, look: Look) -> None:
    with look(counted) as seen:
        seen.settle()
        assert seen.page.locator(".sound").count() == 0
        seen.page.keyboard.press("m")


def paused(seen: Seen) -> bool:
    return seen.page.evaluate("[...document.querySelectorAll('video')].every(v => v.paused)")
