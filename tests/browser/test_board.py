"""The board as a person uses it: from pictures to a film, one picture replaced, in a real browser on wan-tiny."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Seen
from tests.runs import draw_keyframe, start_process
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
    page.locator("[data-field=size]").fill("32*32")
    page.locator("[data-field=prompt]").fill('a "square" <script>alert(1)</script>')
    page.locator("summary").click()
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
    expect(page.locator(".wb-strip figure.at figcaption")).to_have_text("8")
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
