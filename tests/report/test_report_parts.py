"""The parts of a report that need no run: escaping, paths, the recursion, charts, clips, tables."""

import base64
import io
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wanedit.flow.path import schedule
from wanedit.jobs.evaluate.metric import Inputs, measure
from wanedit.jobs.evaluate.run import Evaluation
from wanedit.report import charts, clips, facts
from wanedit.report.measures import flat, metric_tables
from wanedit.report.page import render
from wanedit.runtime.privacy import HIDDEN, Discreet

ALPHA = 6.0


def test_every_text_is_escaped_once() -> None:
    wicked = "<script>\"'&"
    text = render("config.html.j2", part={"head": [wicked, wicked], "rows": [[wicked, wicked]]})
    assert text.count("&lt;script&gt;&#34;&#39;&amp;") == 4
    assert wicked not in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("no /root/.cache/hub/a.pth; fetch it", "no a.pth; fetch it"),
        ("see https://host.org/a/b.pth", "see https://host.org/a/b.pth"),
        ("'/x/y z/b.png' and ~/c/d", "'b.png' and d"),
        (r"C:\Users\me\a.png", "a.png"),
        ("1/2 of a ratio, and/or", "1/2 of a ratio, and/or"),
        ("/x/y z", "y z"),
    ],
)
def test_messages_lose_their_folders(told: str, expected: str) -> None:
    assert Discreet(["/x/y z"]).text(told) == expected


def test_settings_keep_names_and_hide_secrets() -> None:
    values = {
        "video": "/a/b.mp4", "keyframes": [["/a/b c/k.png", 0]], "api_key": "abc", "nested": {"hub_token": "x"},
        "alpha": 1.0, "none": None,
    }  # fmt: skip
    assert Discreet().value(values) == {
        "video": "b.mp4", "keyframes": [["k.png", 0]], "api_key": HIDDEN, "nested": {"hub_token": HIDDEN},
        "alpha": 1.0, "none": None,
    }  # fmt: skip


def simulated(errors: list[np.ndarray], gain: float = ALPHA) -> list[dict]:
    """The steps that the recursion itself would log, for vectors d and e."""
    steps, d = [], np.zeros_like(errors[0])
    for step, e in zip(schedule(len(errors), 3.0), errors, strict=True):
        rho = step.sigma_next / step.sigma
        r = rho * d + (1 - rho) * e
        steps.append(
            {
                "step": step.index, "sigma": step.sigma, "h": step.h, "alpha_h": ALPHA * step.h,
                "r_k_norm_relative": float(np.linalg.norm(r)), "keyframe_error": float(np.linalg.norm(e)),
            }
        )  # fmt: skip
        d = (1 - gain * step.h) * r
    return steps


METHOD = {"controller": {"kind": "Residual", "alpha": ALPHA, "beta": 0.0}, "edit_branch": "analytic"}


def test_a_run_of_the_recursion_lies_within_its_band() -> None:
    draw = np.random.default_rng(0)
    errors = [draw.normal(size=5) for _ in range(12)]
    found = charts.read_steps(simulated(errors), METHOD)
    assert found is not None
    assert (found.within, found.unpredicted) == (1, None)
    assert len(found.low) == len(found.high) == 11
    # With another gain it does not: the band says something.
    wrong = charts.read_steps(simulated(errors, gain=20.0), METHOD)
    assert wrong is not None
    assert wrong.within < 1


def test_without_a_drive_the_residual_follows_the_predicted_product() -> None:
    errors = [np.ones(3)] + [np.zeros(3)] * 9
    found = charts.read_steps(simulated(errors), METHOD)
    assert found is not None
    for (_, measured), (_, predicted) in zip(found.residual, found.decay, strict=True):
        assert measured == pytest.approx(predicted, abs=1e-12)
    assert found.decay[-1][1] == 0


@pytest.mark.parametrize(
    "other",
    [
        {"edit_branch": "denoised"},
        {"controller": {"kind": "Residual", "alpha": ALPHA, "beta": 1.0}},
        {"controller": {"kind": "Covariance"}},
        {"controller": None},
    ],
)
def test_report_and_evaluation_agree_on_what_is_predicted(other: dict) -> None:
    """Both ask `metrics.functional.convergence`, whose own tests hold it against the method itself."""
    steps = simulated([np.ones(3)] * 6)
    recorded = tuple({**step, "r_k_norm": 2 * step["r_k_norm_relative"]} for step in steps)
    clip = np.zeros((2, 8, 8, 3), np.uint8)
    for method, expected in ((METHOD | other, False), (METHOD | {"renew_noise": True}, True)):
        found = charts.read_steps(steps, method)
        assert found is not None
        assert bool(found.decay and found.low and found.high) == expected
        assert (found.unpredicted is None, math.isnan(found.within)) == (expected, not expected)
        measured = measure(Inputs(clip, steps=recorded, method=method), ["convergence"])[0]["convergence"]
        assert ("predicted_rate" in measured) == expected


def test_a_step_that_is_missing_ends_the_prediction() -> None:
    steps = simulated([np.ones(3)] * 8)
    found = charts.read_steps([*steps[:4], *steps[5:]], METHOD)
    assert found is not None
    assert (len(found.residual), len(found.decay), len(found.low)) == (7, 4, 3)


def test_steps_without_numbers_make_no_curve() -> None:
    assert charts.read_steps([{"step": 0, "sigma": "nan", "h": 1, "r_k_norm_relative": "inf"}], {}) is None
    assert charts.read_steps([], {}) is None


def drawn(**options: Any) -> ET.Element:
    lines = [charts.Line("a & b", [(0, 1.0), (1, 0.1), (2, 0.0), (3, math.nan)], 1)]
    made = charts.Chart("name", "Title <1>", "Described", lines, **options)
    return ET.fromstring(render("chart.html.j2", chart=made))


@pytest.mark.parametrize("log", [True, False])
def test_a_chart_is_well_formed_and_named(log: bool) -> None:
    figure = drawn(log=log, levels=[] if log else [(2.0, "limit")])
    picture = figure.find("svg")
    assert picture is not None
    assert picture.get("role") == "img"
    named = [
        element.get("id") for element in (picture.find("title"), picture.find("desc")) if element is not None
    ]
    assert (picture.get("aria-labelledby") or "").split() == named
    line = picture.find("polyline")
    assert line is not None
    places = [tuple(map(float, pair.split(","))) for pair in (line.get("points") or "").split()]
    assert len(places) == (2 if log else 3)  # zero has no logarithm, NaN no place
    assert all(0 <= x <= charts.Axes.WIDTH and 0 <= y <= charts.Axes.HEIGHT for x, y in places)
    assert [y for _, y in places] == sorted(y for _, y in places)


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [1e-9, 1e9], [-1.0, 1.0]])
def test_odd_values_are_drawn_too(values: list[float]) -> None:
    for log in (True, False):
        made = charts.Chart("n", "t", "d", [charts.Line("x", list(enumerate(values)))], log=log)
        ET.fromstring(render("chart.html.j2", chart=made))


def decoded(uri: str) -> list[av.VideoFrame]:
    kind, content = uri.split(",", 1)
    assert kind == "data:video/mp4;base64"
    with av.open(io.BytesIO(base64.b64decode(content)), "r") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        return list(container.decode(stream))


def test_an_embedded_clip_has_every_frame_at_its_time_and_short_groups() -> None:
    frames = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.full((1, 32, 48, 3), 20, np.uint8)
    found = decoded(clips.embed_video(frames, 25).uri)
    assert [round(frame.time * 25, 6) for frame in found] == list(range(11))
    assert [k for k, frame in enumerate(found) if frame.key_frame] == [0, 4, 8]
    levels = [frame.to_ndarray(format="rgb24").mean() for frame in found]
    assert levels == pytest.approx([20 * k for k in range(11)], abs=3)


def test_wide_clips_shrink_and_odd_sides_are_filled() -> None:
    wide = clips.embed_video(np.zeros((2, 540, 1920, 3), np.uint8), 16)
    assert wide.reduced
    assert wide.size == (960, 270)
    odd = clips.fitted(np.full((31, 33, 3), 7, np.uint8))
    assert odd.shape == (32, 34, 3)
    assert (odd == 7).all()


def test_keyframes_are_held_until_the_next() -> None:
    pictures = {2: np.full((8, 8, 3), 20, np.uint8), 5: np.full((8, 8, 3), 50, np.uint8)}
    found = clips.held(clips.Clips(16.0, np.zeros((8, 8, 8, 3), np.uint8), keyframes=pictures))
    assert found is not None
    assert [int(frame[0, 0, 0]) for frame in found] == [20, 20, 20, 20, 20, 50, 50, 50]


@pytest.mark.parametrize("most", [4, 7, 9, 14, 17, 28, 34, 56, 200])
def test_the_share_on_the_scale_is_numpys_percentile(most: int) -> None:
    """Of every number of levels, although it is counted frame by frame."""
    for seed in range(20):
        levels = np.random.default_rng(seed).integers(0, most, (2, 3, 3 + seed), dtype=np.uint8)
        top = np.percentile(levels, clips.ON_SCALE)
        expected = next((factor for factor in clips.FACTORS if factor * top <= 255), clips.FACTORS[-1])
        assert clips.factor_for(levels) == expected


def test_a_difference_is_amplified_as_far_as_it_stays_on_the_scale() -> None:
    source = np.full((2, 8, 8, 3), 100, np.uint8)
    result = source.copy()
    result[:, :4, :, 1] = 93
    levels = clips.difference(clips.Clips(16.0, result, source))
    assert levels is not None
    assert set(np.unique(np.asarray(levels))) == {0, 7}
    assert clips.factor_for(levels) == 32
    assert clips.factor_for(np.full((1, 8, 8), 30, np.uint8)) == 8
    assert clips.factor_for(np.full((1, 8, 8), 255, np.uint8)) == 4
    painted = clips.painted(levels[0], 32)
    assert painted[7, 0].sum() < 10 < painted[0, 0].sum()
    assert clips.difference(clips.Clips(16.0, result)) is None


SCORE = {"value": 3.0, "typical": 2.0, "ratio": 1.5, "shows": True}


def test_measures_of_any_depth_are_listed() -> None:
    values = {
        "psnr": 30.0,
        "deep": {"er": {"x": 1}},
        "at": SCORE,
        "series": {str(k): k / 2 for k in range(9)},
        "no": None,
    }
    found = flat(values)
    assert {name: cell.text for name, cell in found.items()} == {
        "psnr": "30", "deep · er · x": "1", "at": "1.5×", "series": "0 … 4",
    }  # fmt: skip
    assert found["at"].shows
    assert len(found["series"].series) == 9


def evaluation(psnr: float, **groups: dict) -> Evaluation:
    metrics = {"fidelity": {"psnr": psnr}, "lpips": {"reference": 1 / psnr}} | groups
    return Evaluation("x", 9, (32, 32), metrics, {"mask": "no <mask> at /a/b/c.png"})


def tables(names: list[str], found: list) -> str:
    return render("metrics.html.j2", part=metric_tables(names, found, Discreet()))


def test_a_table_names_what_was_not_measured() -> None:
    found = tables(["one"], [(evaluation(30.0, joins={"8": {"mse": SCORE}}), None)])
    assert "no &lt;mask&gt; at c.png" in found
    assert 'class="shows"' in found
    assert ">frame 8<" in found


def test_a_table_of_runs_marks_the_best_where_the_group_says_what_is_better() -> None:
    found = [(evaluation(30.0, other={"speed": 1.0}), None), (evaluation(20.0, other={"speed": 2.0}), None)]
    text = tables(["one", "two"], found)
    assert text.count('class="best"') == 2
    assert text.index('class="best"') < text.index("other")
    three = tables(["one", "two", "three"], [*found, (None, "broken")])
    assert "all (three)" in three
    assert "mask (one, two)" in three


def test_templates_are_packed_with_the_code(repository: Path) -> None:
    assert '"report/templates/*"' in (repository / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("recorded", ["2026-11-28T17:09:44.123+00:00", "2026-11-28T17:09:44+00:00"])
def test_a_recorded_time_is_told_to_the_second(recorded: str) -> None:
    assert facts.when(recorded) == "2026-11-28 17:09:44 UTC"
