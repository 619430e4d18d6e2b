"""A real browser without a window, pages of clips whose frames say their own number, and reports of real runs."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

# Fixtures are found by name in this module.
from tests.runs import edited, finished, inputs, keyframes  # noqa: F401
from wanedit.report.clips import Pane, player
from wanedit.report.page import Header
from wanedit.report.page import page as whole_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
BITS, BLOCK = 6, 16
FPS, FRAMES, KEYS = 16.0, 48, (0, 20, 47)


# Of this folder only: the driver holds a running event loop in the thread, in which no other test could start its own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"none of {', '.join(NAMES)} is on this machine"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Seen:
    """A page, and what should not have happened on it."""

    page: Page
    trouble: list[str] = field(default_factory=list)

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait for a condition. (Playwright's own way evaluates a string inside the page, which the page forbids.)"""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}"
            self.page.wait_for_timeout(20)

    def settle(self) -> None:
        """Wait until every clip shows the frame that it was told to."""
        self.page.evaluate("document.querySelector('.player').report.ready")
        self.until("[...document.querySelectorAll('video')].every(v => !v.seeking && v.readyState >= 2)")
        self.page.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")

    def frames(self) -> list[int]:
        """The number that every clip's pixels say."""
        self.settle()
        return self.page.evaluate(f"() => {{ {READ} return readAll(); }}")


# Reads the blocks of a frame back through a canvas.
READ = f"""
const readOne = (video) => {{
  const canvas = document.createElement('canvas');
  canvas.width = {BITS * BLOCK}; canvas.height = {2 * BLOCK};
  const pen = canvas.getContext('2d', {{ willReadFrequently: true }});
  pen.drawImage(video, 0, 0, canvas.width, canvas.height);
  let number = 0;
  for (let bit = 0; bit < {BITS}; bit += 1) {{
    const [r] = pen.getImageData(bit * {BLOCK} + {BLOCK // 2}, {BLOCK}, 1, 1).data;
    if (r > 127) number += 2 ** bit;
  }}
  return number;
}};
const readAll = () => [...document.querySelectorAll('video')].map(readOne);
"""


@pytest.fixture
def look(browser: Browser) -> Callable[..., Any]:
    """Open a file as a person would, from disk, and fail if it complains or asks a network for anything."""

    @contextmanager
    def open_file(path: Path, **context: Any) -> Iterator[Seen]:
        made = browser.new_context(**context)
        page = made.new_page()
        seen = Seen(page)

        def refuse(dialog: Dialog) -> None:
            seen.trouble.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("console", lambda m: seen.trouble.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda e: seen.trouble.append(f"error: {e}"))
        page.on("dialog", refuse)
        page.on(
            "request", lambda r: seen.trouble.append(f"request: {r.url[:80]}") if foreign(r.url) else None
        )
        page.goto(path.as_uri())
        try:
            yield seen
        finally:
            made.close()
        assert seen.trouble == []

    return open_file


def foreign(url: str) -> bool:
    """Whether an address leads out of the file."""
    return not url.startswith(("file:", "data:", "blob:"))


def counting(frames: int) -> np.ndarray:
    """A clip each frame of which spells its number in black and white blocks, lowest bit on the left."""
    bits = (np.arange(frames)[:, None] >> np.arange(BITS)) & 1
    blocks = np.repeat(bits, BLOCK, axis=1)[:, None, :, None] * 255
    return np.broadcast_to(blocks, (frames, 2 * BLOCK, BITS * BLOCK, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of four clips: three alike, and one at half the rate."""
    clip, half = counting(FRAMES), counting(FRAMES // 2)
    panes = [Pane(name, clip, FPS, "note", name == "Edited") for name in ("Source", "Edited", "Difference")]
    panes.append(Pane("Half the rate", half, FPS / 2))
    path = tmp_path_factory.mktemp("counted") / "page.html"
    text = whole_page("Counted", Header("clips", "Counted"), {"player": player(panes, KEYS, (20, 30))})
    path.write_text(text, encoding="utf-8")
    return path
