"""Reports of real runs, opened from disk: whole, quiet, readable at every width and in both colours, harmless."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from wanedit import EditResult, GenerationResult
from wanedit.report import write_comparison, write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Look = Callable[..., Any]
WICKED = "<script>alert(1)</script><img src=x onerror=alert(2)> \"quoted\" 'single' & {{title}}"

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}

# Relative luminance and contrast as WCAG 2 defines them, over the nearest background that is not transparent.
CONTRAST = """
(selector) => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  return [...document.querySelectorAll(selector)].slice(0, 20).map((element) => {
    let below = element, back = [0, 0, 0, 0];
    while (below && back[3] === 0) {
      const found = numbers(getComputedStyle(below).backgroundColor);
      back = [...found.slice(0, 3), found.length > 3 ? found[3] : 1];
      below = below.parentElement;
    }
    const pair = [luminance(numbers(getComputedStyle(element).color)), luminance(back)].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}
"""
TEXTS = "body, h1, h2, h3, p, td, th, dt, dd, a, .hint, .kind, .shows, .best, .readout, summary, small"


@pytest.fixture(scope="session")
def reports(
    edited: EditResult,
    finished: GenerationResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """One report of each kind."""
    folder = tmp_path_factory.mktemp("reports")
    twin = folder / "twin"
    shutil.copytree(edited.video.parent, twin)
    runs = [edited.video.parent, twin]
    return {
        "edit": write_report(runs[0], folder / "edit.html"),
        "generation": write_report(finished.video.parent, folder / "generation.html"),
        "comparison": write_comparison(runs, folder / "comparison.html"),
    }


KINDS = ("edit", "generation", "comparison")
CLIPS = {"edit": 4, "generation": 2, "comparison": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_there(kind: str, reports: dict[str, Path], look: Look) -> None:
    with look(reports[kind]) as seen:
        seen.settle()
        assert seen.page.locator("video").count() == CLIPS[kind]
        sizes = seen.page.evaluate(
            "[...document.querySelectorAll('video, img')].map(e => [e.videoWidth ?? e.naturalWidth, e.clientWidth])"
        )
        assert all(natural > 0 and width > 0 for natural, width in sizes)
        charts = seen.page.locator("figure.chart svg")
        assert charts.count() == {"generation": 0, "edit": 4, "comparison": 4}[kind]
        for k in range(charts.count()):
            box = charts.nth(k).bounding_box()
            assert box["width"] > 100
            assert box["height"] > 50
        assert seen.page.locator("main table").count() > 0
        assert seen.page.locator(".strip li").count() == (18 if kind == "generation" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_scrolls_only_down(kind: str, reports: dict[str, Path], look: Look) -> None:
    with look(reports[kind], **PHONE) as seen:
        seen.settle()
        for part in seen.page.locator("details").all():
            part.locator("summary").click()
        widths = seen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [390, 390]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_stands_out_in_both_colours(
    kind: str, scheme: str, reports: dict[str, Path], look: Look
) -> None:
    with look(reports[kind], color_scheme=scheme) as seen:
        found = seen.page.evaluate(CONTRAST, TEXTS)
        assert min(found) >= 4.5
        shade = seen.page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
        )
        assert (shade > 200) == (scheme == "light")


def test_the_theme_can_be_chosen(reports: dict[str, Path], look: Look) -> None:
    with look(reports["edit"], color_scheme="light") as seen:
        button = seen.page.get_by_role("button", name="Colour theme")
        for expected in ("light", "dark"):
            button.click()
            assert seen.page.get_attribute("html", "data-theme") == expected
        assert min(seen.page.evaluate(CONTRAST, TEXTS)) >= 4.5


def test_a_still_of_a_join_is_shown_in_the_player(reports: dict[str, Path], look: Look) -> None:
    with look(reports["generation"]) as seen:
        seen.settle()
        still = seen.page.locator(".strip li.at button").first
        still.click()
        seen.settle()
        assert seen.page.inner_text(".readout .frame") == still.get_attribute("data-frame")


def test_controls_have_names_and_the_page_has_landmarks(reports: dict[str, Path], look: Look) -> None:
    with look(reports["edit"]) as seen:
        unnamed = seen.page.evaluate(
            "[...document.querySelectorAll('button, input, select')].filter(e => !(e.ariaLabel || e.textContent.trim() "
            "|| e.labels?.length)).length"
        )
        assert unnamed == 0
        for role in ("banner", "main", "contentinfo", "navigation"):
            assert seen.page.get_by_role(role).count() == 1
        assert seen.page.locator("h1").count() == 1


def test_what_a_config_says_is_text_and_nothing_else(edited: EditResult, tmp_path: Path, look: Look) -> None:
    folder = tmp_path / "a \"b\" 'c' <img src=x onerror=alert(3)>"
    shutil.copytree(edited.video.parent, folder)
    record = folder / "config.yaml"
    values = yaml.safe_load(record.read_text(encoding="utf-8"))
    values |= {"prompt": WICKED, "negative_prompt": WICKED, WICKED: WICKED}
    values["keyframes"] = [[f"/secret/place/{WICKED}.png", 0], ["/secret/place/\"x'.png", 8]]
    record.write_text(yaml.safe_dump(values), encoding="utf-8")
    with look(write_report(folder)) as seen:
        seen.settle()
        seen.page.wait_for_timeout(200)
        assert seen.page.inner_text(".prompt") == WICKED
        assert seen.page.inner_text("h1") == folder.name
        assert seen.page.locator("img[src=x]").count() == 0
        assert "/secret" not in seen.page.content()
        assert "Not all is here" in seen.page.inner_text(".notice")


def test_a_script_from_elsewhere_would_not_run(reports: dict[str, Path], tmp_path: Path, look: Look) -> None:
    page = tmp_path / "page.html"
    text = reports["edit"].read_text(encoding="utf-8")
    injected = "<main id=\"main\"><script>document.title = 'owned'</script>"
    page.write_text(text.replace('<main id="main">', injected), encoding="utf-8")
    with look(page) as seen:
        seen.settle()
        assert seen.page.title() != "owned"
        assert any("Content Security Policy" in line for line in seen.trouble)
        seen.trouble.clear()
