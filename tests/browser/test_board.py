"""The board as a person uses it: from pictures to a film, one picture replaced, in a real browser on wan-tiny."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import Seen
from tests.runs import draw_keyframe, start_process
from tests.video.test_sound import film, packets
from wanedit.files import read_yaml
from wanedit.runtime.directory import Manifest, RunDirectory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.network]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    process = start_process(["-m", "wanedit", "board", str(tmp_path / "film"), "--port", "0", "--quiet"])
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) in (0, 130)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture
def board(browser: Browser, address: str) -> Iterator[Seen]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    seen = Seen(page)
    page.on("console", lambda m: seen.trouble.append(f"console {m.type}: {m.text}"))
    page.on("pageerror", lambda e: seen.trouble.append(f"error: {e}"))
    page.on("dialog", lambda d: seen.trouble.append(f"dialog: {d.message}"))
    page.on(
        "request",
        lambda r: seen.trouble.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None,
    )
    page.goto(address)
    expect(page.locator("[data-id=go]")).to_be_visible(timeout=30_000)
    yield seen
    context.close()
    assert seen.trouble == []


def part(page: Page, name: str):
    return page.locator(f"[data-id={name}]")


def digests(root: Path) -> dict[str, str]:
    """The latents of every segment that is complete, by the segment's hash."""
    entries = Manifest(RunDirectory(root, root / "output_final.mp4")).read()
    return {
        name: entry.latents_sha256 for name, entry in entries.items() if entry.file.endswith(".safetensors")
    }


def made(page: Page, button: str = "") -> None:
    (page.get_by_role("button", name=button) if button else part(page, "go")).click()
    expect(part(page, "cancel")).to_be_visible(timeout=20_000)
    expect(part(page, "cancel")).to_be_hidden(timeout=150_000)
    expect(part(page, "notice")).to_be_hidden()


def test_from_pictures_to_a_film_and_one_picture_replaced(board: Seen, tmp_path: Path) -> None:
    page, root = board.page, tmp_path / "film"
    expect(part(page, "empty")).to_be_visible()
    expect(part(page, "go")).to_be_disabled()
    names = ["1 <img src=x onerror=alert(1)>.png", "2.png", "10.png"]  # in the order of their numbers
    pictures = [draw_keyframe(tmp_path / name, 4 * k) for k, name in enumerate(names)]
    part(page, "files").set_input_files([pictures[2], pictures[0], pictures[1]])
    keyframes = page.locator(".wb-keyframe")
    expect(keyframes).to_have_count(3, timeout=20_000)
    page.locator("[data-field=prompt]").fill('a "square" <script>alert(1)</script>')
    page.locator("[data-field=preset]").select_option(label="Draft: half the size and steps")
    page.locator("summary").click()
    expect(page.locator("[data-field=size]")).to_have_value("64*64")
    # What is wrong is told in the words of the page, not of the command line.
    page.locator("[data-field=size]").fill("33*32")
    expect(part(page, "warnings")).to_contain_text("“Size” is 33*32; expected", timeout=20_000)
    page.locator("[data-field=size]").fill("32*32")
    page.locator("[data-field=num_inference_steps]").fill("2")
    page.locator("[data-field=base_seed]").fill("7")
    # Dragged and nudged along the ruler, from frames 16 and 32 to 8 and 15.
    keyframes.nth(1).focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowLeft")
    expect(keyframes.nth(1)).to_contain_text("· 8")
    box, first = keyframes.nth(2).bounding_box(), keyframes.nth(0).bounding_box()
    assert box is not None
    assert first is not None
    step = (box["x"] - first["x"]) / 32
    page.mouse.move(box["x"] + 30, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 30 - 17 * step, box["y"] + 20, steps=6)
    page.mouse.up()
    expect(keyframes.nth(2)).to_contain_text("· 15")
    expect(page.locator(".wb-segment").nth(1)).to_contain_text("8 → 9")
    expect(part(page, "cost")).to_contain_text("2 of 2 segments to sample")
    made(page)
    expect(part(page, "film")).to_be_visible()
    expect(part(page, "readout")).to_contain_text("/ 15")
    expect(page.locator(".wb-segment.kept")).to_have_count(2)
    expect(part(page, "cost")).to_contain_text("Everything is made")
    before = digests(root)
    assert len(before) == 2

    # A join, with its frames and measures.
    page.locator("[data-key=join-1]").click()
    expect(page.locator(".wb-measures")).to_be_visible(timeout=60_000)
    # Whatever is selected, the time line stays where it is.
    tops = []
    for selected in ("[data-key=join-1]", "[data-key=segment-0]", "[data-key=keyframe-1]"):
        page.locator(selected).click()
        tops.append(part(page, "scroll").evaluate("one => one.getBoundingClientRect().top + scrollY"))
    assert len({*tops}) == 1
    page.locator("[data-key=join-1]").click()
    expect(page.locator(".wb-strip figure.at figcaption")).to_have_text("8")
    # The line stands at the frame that is shown, in a window that was made narrower too.
    page.set_viewport_size({"width": 1000, "height": 900})
    board.until(
        "(middle => Math.abs(middle('[data-id=head]') - middle('[data-key=join-1]')) < 1.5)"
        "(one => (box => box.left + box.width / 2)(document.querySelector(one).getBoundingClientRect()))"
    )
    page.set_viewport_size({"width": 1280, "height": 900})
    # The first segment sampled again, it alone; both takes are there, and going back samples nothing.
    page.locator("[data-key=segment-0]").click()
    made(page, "Sample again")
    again = digests(root)
    assert len(again) == 3
    assert {name: again[name] for name in before} == before
    expect(page.locator(".wb-take")).to_have_count(2)
    made(page, "Take 0")
    assert digests(root) == again
    # The last picture replaced: one segment is sampled, the other is the same bytes.
    keyframes.nth(2).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Replace").click()
    chooser.value.set_files(draw_keyframe(tmp_path / "other.png", 10))
    expect(part(page, "cost")).to_contain_text("1 of 2 segments to sample", timeout=20_000)
    made(page)
    after = digests(root)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before

    # Another window, narrow and dark, shows the same; nothing hangs out of it.
    second = page.context.new_page()
    second.emulate_media(color_scheme="dark")
    second.set_viewport_size({"width": 390, "height": 800})
    second.goto(page.url)
    expect(second.locator(".wb-segment.kept")).to_have_count(2, timeout=30_000)
    assert second.evaluate("document.documentElement.scrollWidth") <= 390
    ground = second.evaluate("getComputedStyle(document.querySelector('#board')).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60
    second.locator("[data-field=prompt]").fill("of the second window")
    expect(second.locator("[data-id=cost]")).to_contain_text("2 of 2", timeout=20_000)
    expect(page.locator("[data-id=cost]")).to_contain_text("2 of 2", timeout=20_000)
    # Of two that change it at once one is told, and both show what stands.
    page.get_by_role("button", name="Film settings").click()
    prompts = [one.locator("[data-field=prompt]") for one in (page, second)]
    for words, prompt in zip(("of the first", "of the second"), prompts, strict=True):
        prompt.fill(words)
    told = [one.locator("[data-id=notice]") for one in (page, second)]
    for _ in range(200):
        if any(one.is_visible() for one in told) and len({one.input_value() for one in prompts}) == 1:
            break
        page.wait_for_timeout(100)
    assert [one.is_visible() and "in another window" in one.inner_text() for one in told].count(True) == 1
    kept: Any = read_yaml(root / "board.yaml", "settings")
    assert [one.input_value() for one in prompts] == [kept["prompt"]] * 2


def test_from_a_video_to_its_edit_by_a_frame_that_was_taken_out(board: Seen, tmp_path: Path) -> None:
    page, root = board.page, tmp_path / "film"
    source = film(tmp_path / 'a "<b>" source.mp4', seconds=0.75)
    part(page, "videofile").set_input_files(source)
    expect(part(page, "views")).to_be_visible(timeout=20_000)
    expect(part(page, "readout")).to_contain_text("0 / 17")
    expect(part(page, "cost")).to_contain_text("Put one edited frame")
    part(page, "scrub").fill("4")
    expect(part(page, "readout")).to_contain_text("4 / 17")
    with page.expect_download() as taking:
        page.get_by_role("link", name="Take out").click()
    assert taking.value.suggested_filename == "0004.png"
    taking.value.save_as(tmp_path / "0004.png")
    frame = np.array(Image.open(tmp_path / "0004.png"))
    frame[:, 30:] = 255 - frame[:, 30:]
    Image.fromarray(frame).save(tmp_path / "0004.png")
    # Back to its frame by its name, whichever is shown.
    part(page, "scrub").fill("9")
    part(page, "files").set_input_files(tmp_path / "0004.png")
    keyframes = page.locator(".wb-keyframe")
    expect(keyframes).to_contain_text("· 4", timeout=20_000)
    expect(page.locator(".wb-side h2")).to_have_text("Picture at frame 4")
    page.get_by_role("button", name="Edit settings").click()
    page.locator("[data-field=prompt]").fill('a "<script>alert(1)</script>"')
    page.locator("summary", has_text="Advanced").click()
    page.locator("[data-field=base_seed]").fill("7")
    page.locator("[data-field=num_inference_steps]").fill("60")
    expect(part(page, "cost")).to_contain_text("18 frames, 120 passes", timeout=20_000)
    part(page, "go").click()
    expect(part(page, "stage")).to_contain_text("of 60 steps", timeout=90_000)
    part(page, "cancel").click()
    expect(part(page, "go")).to_have_text("Go on", timeout=30_000)
    page.locator("[data-field=num_inference_steps]").fill("2")
    expect(part(page, "cost")).to_contain_text("4 passes", timeout=20_000)
    made(page)
    assert packets(root / "output_final.mp4") == packets(source)  # the sound
    # The record has both prompts; what was left empty goes on to mean the same.
    expect(page.locator("[data-field=prompt]")).to_have_value('a "<script>alert(1)</script>"')
    expect(page.locator("[data-field=source_prompt]")).to_have_value("")
    # The source left of the line, the result right of it; what is changed; and the line moves.
    expect(part(page, "seam")).to_be_visible()
    assert "50%" in part(page, "film").evaluate("one => one.style.clipPath")
    part(page, "wipe").focus()
    page.keyboard.press("Home")
    assert part(page, "film").evaluate("one => one.style.clipPath").endswith(" 0%)")
    part(page, "scrub").fill("4")
    page.get_by_role("button", name="Changes").click()
    board.until("document.querySelector('[data-id=changes]').naturalWidth === 64")
    # Another frame restyled here, and the first moved on: a plan of two, not made yet.
    part(page, "scrub").fill("12")
    page.locator("summary", has_text="Restyle").click()
    page.locator("[data-field=words]").fill("autumn")
    page.get_by_role("button", name="Restyle frame 12").click()
    expect(keyframes).to_have_count(2, timeout=40_000)
    keyframes.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(keyframes.nth(0)).to_contain_text("· 5")
    expect(part(page, "cost")).to_contain_text("18 frames", timeout=20_000)
    expect(part(page, "go")).to_have_text("Edit anew")
    # Narrow, it fits.
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_board_that_was_killed_is_told_and_goes_on_once_it_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    words, page = ["-m", "wanedit", "board", str(tmp_path / "film"), "--quiet"], browser.new_page()
    process = start_process([*words, "--port", "0"])
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        page.goto(address)
        expect(part(page, "runs").locator("option")).to_have_count(1, timeout=30_000)
        process.kill()
        process.wait()
        expect(part(page, "notice")).to_contain_text("does not answer", timeout=20_000)
        process = start_process([*words, "--port", str(urlsplit(address).port)])
        assert process.stdout is not None
        assert process.stdout.readline().strip() == address  # on a busy machine it starts for longer
        expect(part(page, "notice")).to_be_hidden(timeout=30_000)
    finally:
        process.kill()
        page.close()


def test_what_is_typed_stays_with_its_film_where_another_is_opened_at_once(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()  # a folder of several
    words = ["-m", "wanedit", "board", str(tmp_path / "films"), "--port", "0", "--quiet"]
    process, page = start_process(words), browser.new_page()
    assert process.stdout is not None
    try:
        page.goto(process.stdout.readline().strip())
        expect(part(page, "runs")).to_have_value("film", timeout=30_000)
        part(page, "files").set_input_files([draw_keyframe(tmp_path / f"{k}.png", k) for k in (0, 4)])
        expect(part(page, "cost")).to_contain_text("1 of 1 segment to sample", timeout=20_000)
        # While a change is reckoned, what stood there before does not pass for its cost.
        held: list[Route] = []
        page.route("**/*", lambda route: held.append(route))
        page.locator(".wb-keyframe").nth(1).press("ArrowLeft")
        expect(part(page, "cost")).to_contain_text("Reckoning", timeout=20_000)
        for route in held:
            route.continue_()
        page.unroute("**/*")
        expect(part(page, "cost")).to_contain_text("1 of 1 segment to sample", timeout=20_000)
        page.on("dialog", lambda dialog: dialog.accept("another"))
        page.locator("[data-field=prompt]").fill("typed and left")
        part(page, "new").click()
        part(page, "files").set_input_files([draw_keyframe(tmp_path / "8.png", 8)])
        expect(page.locator(".wb-keyframe")).to_have_count(1, timeout=20_000)
        expect(part(page, "hint")).to_contain_text("One more picture")
        kept: Any = [
            read_yaml(tmp_path / "films" / name / "board.yaml", "settings") for name in ("film", "another")
        ]
        assert [(one.get("prompt", ""), len(one["keyframes"])) for one in kept] == [
            ("typed and left", 2),
            ("", 1),
        ]
        # A picture that is put between two costs two segments.
        page.locator("[data-id=runs]").select_option("film")
        expect(page.locator(".wb-keyframe")).to_have_count(2, timeout=20_000)
        expect(page.locator("[data-field=prompt]")).to_have_value("typed and left")
        with page.expect_file_chooser() as chooser:
            page.locator(".wb-insert").click()
        chooser.value.set_files(tmp_path / "8.png")
        expect(part(page, "cost")).to_contain_text("2 of 2 segments to sample", timeout=20_000)
        expect(page.locator(".wb-side h2")).to_have_text("Picture 1")
        (tmp_path / "words.png").write_text("no picture")
        part(page, "files").set_input_files(tmp_path / "words.png")
        expect(part(page, "notice")).to_have_text(re.compile("^words.png: not an image"), timeout=20_000)
    finally:
        page.close()
        process.send_signal(signal.SIGINT)
        process.wait(20)
