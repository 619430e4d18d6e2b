"""What the page asks, without a page: drafts, plans, pictures, and what it may not ask."""

import json
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import draw_keyframe, moving_square
from wanedit import EditConfig, EditResult, GenerationConfig, GenerationResult, edit, generate
from wanedit.board.edits import WAYS
from wanedit.board.films import presets
from wanedit.board.runs import is_run
from wanedit.board.session import PROGRESS, Session, StaleError, finite
from wanedit.board.worker import Progress, Took
from wanedit.errors import InputError
from wanedit.files import read_yaml
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.video import read_frames, write_video
from wanedit.video.decode import probe
from wanedit.wan.catalog import KNOWN_MODELS, KnownModel

SETTINGS = {"size": "32*32", "num_inference_steps": 2, "base_seed": 7, "prompt": "a square"}
EDIT = {"num_inference_steps": 2, "base_seed": 7, "size": "32*32", "prompt": "a blue square"}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "films")


def added(session: Session, tmp_path: Path, shades: tuple[int, ...] = (0, 4, 8)) -> list[list[Any]]:
    """Pictures taken into the film `a`, half a second apart."""
    found = [session.add_picture("a", draw_keyframe(tmp_path / f"{shade}.png", shade)) for shade in shades]
    return [[picture["id"], k / 2] for k, picture in enumerate(found)]


def draft(keyframes: list[list[Any]], **changes: Any) -> dict[str, Any]:
    return {"keyframes": keyframes, "settings": SETTINGS | changes}


def kept_settings(root: Path, **changes: str) -> GenerationConfig:
    """What `--config board.yaml` gives."""
    values: Any = read_yaml(root / "board.yaml", "settings")
    return GenerationConfig(**values | changes)


def test_a_draft_is_kept_as_a_file_that_the_command_line_takes(session: Session, tmp_path: Path) -> None:
    told = session.plan("a", draft(added(session, tmp_path)), "")
    assert told["error"] is None
    assert told["num_frames"] == 17
    assert told["keyframe_frames"] == [0, 8, 16]
    assert [(one["frames"], one["sampled"], one["todo"]) for one in told["segments"]] == [
        (9, 9, "sample")
    ] * 2
    assert told["cost"]["segments"] == 2
    assert told["cost"]["flops"] > 0
    assert told["cost"]["seconds"] is None  # nothing was sampled here by which it could be told
    assert kept_settings(session.folder / "a").prompt == "a square"
    again = Session(session.folder).open("a")["plan"]  # a server that was killed
    assert (again["keyframes"], again["settings"]["prompt"]) == (told["keyframes"], "a square")


def test_what_is_wrong_is_an_answer_and_no_plan(session: Session, tmp_path: Path) -> None:
    keyframes = added(session, tmp_path)
    keyframes[1][1] = 0.01  # falls on the frame of the first
    told = session.plan("a", draft(keyframes), "")
    assert "both fall on frame 0" in told["error"]
    assert "cost" not in told
    told = session.plan("a", draft(keyframes, size="33*32"), told["version"])
    assert "size" in told["error"]


def test_a_run_that_is_removed_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "board.yaml").write_text("job: generate\n")

    def looked(root: Path) -> bool:
        found = is_run(root)
        if root.name == "gone":
            shutil.rmtree(root)
        return found

    monkeypatch.setattr("wanedit.board.session.is_run", looked)
    assert [run["name"] for run in Session(tmp_path).runs()["runs"]] == ["kept"]


def test_a_run_of_the_command_line_opens_and_only_a_changed_segment_is_sampled(
    finished: GenerationResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.video.parent, tmp_path / "films" / "made")
    session = Session(tmp_path / "films")
    assert [(run["name"], run["job"]) for run in session.runs()["runs"]] == [("made", "generate")]
    found = session.open("made")
    plan, film = found["plan"], found["film"]
    assert [one["todo"] for one in plan["segments"]] == ["kept"] * 3
    assert [one["digest"] for one in plan["segments"]] == list(finished.segments)
    assert film["joins"] == list(finished.keyframe_frames[1:-1])
    assert film["frames"] == finished.num_frames
    piece = plan["segments"][1]["piece"]
    assert session.frame("made", piece, 0).shape == (32, 32, 3)
    # Another picture in the middle: two segments.
    other = session.add_picture("made", draw_keyframe(tmp_path / "other.png", 11))
    keyframes = [*plan["keyframes"][:1], [other["id"], plan["keyframes"][1][1]], *plan["keyframes"][2:]]
    page = {"keyframes": keyframes, "settings": plan["settings"] | {"shift": 3, "guidance_scale": 2}}
    assert (plan["settings"]["shift"], plan["settings"]["guidance_scale"]) == (3.0, 2.0)
    changed = session.plan("made", page, plan["version"])
    # The third is decoded behind another second one.
    assert [one["todo"] for one in changed["segments"]] == ["sample", "sample", "decode"]
    assert changed["segments"][2]["digest"] == plan["segments"][2]["digest"]
    assert changed["cost"]["segments"] == 2
    assert changed["cost"]["seconds"] > 0  # by how long the others took
    assert changed["cost"]["whole"] is None  # of loading and stitching nothing is known
    took = {
        "starting": Took("", 1, 30, 0),
        "sampling": Took("steps", 8, 12, 1),
        "stitching": Took("frames", 5, 1, 4),
    }
    (tmp_path / "films" / "made" / PROGRESS).write_text(json.dumps(asdict(Progress(took=took))))
    cost = session.open("made")["plan"]["cost"]
    # A model is loaded before the first step; the first frame takes as long as each that follows.
    assert cost["whole"] == pytest.approx(30 + 12 + cost["seconds"] + film["frames"])


def test_a_picture_that_is_put_in_costs_two_segments_and_one_that_is_taken_out_one(
    finished: GenerationResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.video.parent, tmp_path / "films" / "made")
    session = Session(tmp_path / "films")
    plan, root = session.open("made")["plan"], session.folder / "made"
    picture = session.add_picture("made", draw_keyframe(tmp_path / "put.png", 11))["id"]

    def kept() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "segments").glob("*_*")}

    def made(keyframes: list[list[Any]]) -> tuple[list[str], list[str]]:
        """What the page says is to be done of each segment, and their hashes once it is."""
        told = session.plan(
            "made",
            {"keyframes": keyframes, "settings": plan["settings"]},
            session.open("made")["plan"]["version"],
        )
        generate(kept_settings(root), verbose=False)
        after = session.open("made")["plan"]
        assert [one["todo"] for one in after["segments"]] == ["kept"] * (len(keyframes) - 1)
        assert [one["digest"] for one in after["segments"]] == [one["digest"] for one in told["segments"]]
        assert all(one["piece"] and one["takes"] for one in after["segments"])
        return [one["todo"] for one in told["segments"]], [one["digest"] for one in told["segments"]]

    before, (first, second, *rest) = kept(), plan["keyframes"]
    todo, put = made([first, second, [picture, 0.4], *rest])
    assert todo == ["kept", "sample", "sample", "decode"]
    assert (put[0], put[3]) == (finished.segments[0], finished.segments[2])
    assert before.items() <= kept().items()
    # The last segment stands at another place, under its own number.
    assert session.open("made")["film"]["keyframes"] == [0, 4, 6, 8, 13]
    assert made(plan["keyframes"]) == (["kept"] * 3, list(finished.segments))
    todo, out = made([first, *rest])
    assert (todo, out[1]) == (["sample", "decode"], finished.segments[2])


def test_what_is_changed_while_a_run_is_at_work_stands_when_it_ends(
    finished: GenerationResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.video.parent, tmp_path / "films" / "made")
    session, root = Session(tmp_path / "films"), tmp_path / "films" / "made"
    plan = session.open("made")["plan"]
    page = {"keyframes": plan["keyframes"], "settings": plan["settings"] | {"prompt": "meanwhile"}}
    session.plan("made", page, plan["version"])
    (root / "config.yaml").touch()  # as the run's end does
    assert session.open("made")["plan"]["settings"]["prompt"] == "meanwhile"
    # What is started later stands, whoever did.
    time.sleep(1)
    config = kept_settings(root, prompt="by hand")
    generate(config, verbose=False)
    assert session.open("made")["plan"]["settings"]["prompt"] == "by hand"


def test_another_take_of_one_segment_samples_it_alone_and_going_back_nothing(
    finished: GenerationResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.video.parent, tmp_path / "films" / "made")
    session = Session(tmp_path / "films")
    plan = session.open("made")["plan"]
    assert [[one["take"] for one in segment["takes"]] for segment in plan["segments"]] == [[0]] * 3

    def taking(takes: list[int], **changes: Any) -> dict[str, Any]:
        settings = plan["settings"] | {"takes": takes} | changes
        return session.plan(
            "made",
            {"keyframes": plan["keyframes"], "settings": settings},
            session.open("made")["plan"]["version"],
        )

    told = taking([0, 1, 0])
    assert [one["todo"] == "sample" for one in told["segments"]] == [False, True, False]
    generate(kept_settings(session.folder / "made"), verbose=False)
    told = session.open("made")["plan"]
    assert told["cost"]["segments"] == 0
    assert [[one["take"] for one in segment["takes"]] for segment in told["segments"]] == [[0], [0, 1], [0]]
    before, after = (session.frame("made", one["piece"], 2) for one in told["segments"][1]["takes"])
    assert not np.array_equal(before, after)
    back = taking([])
    assert [one["digest"] for one in back["segments"]] == list(finished.segments)
    assert back["cost"]["segments"] == 0
    # What cannot be is told: two steps are too few for a bridge.
    assert "bridge_sigma is 0.7; expected at least" in taking([], bridge_takes=[1, 0])["error"]


def test_joins_that_cannot_be_measured_are_told_with_the_reason(
    finished: GenerationResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.video.parent, tmp_path / "films" / "made")
    measured = Session(tmp_path / "films").measures("made")
    assert measured["joins"] == {}
    assert "expected a clip of at least" in measured["note"]


def test_numbers_without_a_word_in_json_are_null() -> None:
    assert finite({"8": {"mse": math.inf, "warp": math.nan, "turn": 0.5, "shows": True}}) == {
        "8": {"mse": None, "warp": None, "turn": 0.5, "shows": True}
    }


def test_a_page_of_earlier_settings_changes_nothing(session: Session, tmp_path: Path) -> None:
    keyframes = added(session, tmp_path)
    first = session.plan("a", draft(keyframes), "")
    second = session.plan("a", draft(keyframes, prompt="of another window"), first["version"])
    with pytest.raises(StaleError, match="another window"):
        session.plan("a", draft(keyframes, prompt="too late"), first["version"])
    assert session.open("a")["plan"]["settings"]["prompt"] == "of another window"
    assert session.plan("a", draft(keyframes), second["version"])["settings"]["prompt"] == "a square"


def test_a_start_that_resolves_the_draft_is_no_other_page(session: Session, tmp_path: Path) -> None:
    keyframes = added(session, tmp_path)
    told = session.plan("a", draft(keyframes), "")
    generate(kept_settings(session.folder / "a"), verbose=False)
    assert told["version"] != session.open("a")["plan"]["version"]
    after = session.plan("a", draft(keyframes), told["version"])
    assert [one["todo"] for one in after["segments"]] == ["kept", "kept"]


@pytest.mark.parametrize(
    "name", ["", "..", ".", "/etc", "a/b", "../a", ".hidden", "a\0", None, 3, "x" * 200, "a\n"]
)
def test_a_run_is_a_plain_name(session: Session, name: object) -> None:
    with pytest.raises(InputError, match="the run's name"):
        session.open(name)


def test_only_the_run_that_is_shown_is_answered(tmp_path: Path) -> None:
    session = Session(tmp_path, "a")
    assert session.runs()["only"] == "a"
    with pytest.raises(InputError, match="not shown here"):
        session.open("b")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"output": "/tmp/elsewhere"}, "output cannot be set here"),
        ({"audio": "/etc/passwd"}, "audio cannot be set here"),
        ({"tracking": "wandb"}, "tracking cannot be set here"),
        ({"model": "/srv/weights"}, "model is '/srv/weights'"),
        ({"model": "os:system"}, "model is 'os:system'"),
        ({"solver": "os:system"}, "solver is 'os:system'"),
    ],
)
def test_a_page_names_no_file_module_or_service(
    session: Session, tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        session.plan("a", {"keyframes": added(session, tmp_path), "settings": settings}, "")


@pytest.mark.parametrize("keyframe", [["/etc/passwd", 0], ["0" * 16, 0], "a", None, [1]])
def test_a_keyframe_is_a_picture_of_this_run(session: Session, tmp_path: Path, keyframe: object) -> None:
    keyframes = [*added(session, tmp_path), keyframe]
    with pytest.raises(InputError, match="expected a picture of this film"):
        session.plan("a", {"keyframes": keyframes, "settings": {}}, "")
    with pytest.raises(InputError, match="there is no picture"):
        session.picture("a", "/etc/passwd")


def test_what_is_no_picture_or_too_large_is_refused(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(InputError):
        session.add_picture("a", tmp_path / "a.png")
    monkeypatch.setattr("wanedit.board.session.MAX_PICTURE", 500)
    Image.new("RGB", (32, 32)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match="pixels"):
        session.add_picture("a", tmp_path / "large.png")
    assert not (session.folder / "a" / "keyframes").exists()


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_presets_are_sizes_that_every_model_takes(model: KnownModel) -> None:
    found = presets(model.sampling)
    assert found[0]["settings"] == {"size": None, "fps": None, "num_inference_steps": None}
    for one in found[1:]:
        width, height = map(int, one["settings"]["size"].split("*"))
        assert (width % 32, height % 32) == (0, 0) or one["words"] == "Upright"
    assert found[-1]["settings"]["num_inference_steps"] * 2 <= model.sampling.num_inference_steps


def test_a_preset_is_what_is_made(session: Session, tmp_path: Path) -> None:
    keyframes = added(session, tmp_path)
    told = session.plan("a", {"keyframes": keyframes, "settings": {"model": "wan-tiny"}}, "")
    draft = {"keyframes": keyframes, "settings": told["settings"] | told["presets"][-1]["settings"]}
    assert session.plan("a", draft, told["version"])["size"] == [64, 64]


def test_another_model_takes_settings_of_its_own(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanedit.board.session.installed_models", lambda: ["wan-tiny", "Wan2.1-Fun-1.3B-InP"])
    told = session.plan("a", draft(added(session, tmp_path)), "")
    other = draft(told["keyframes"], **told["settings"] | {"model": "Wan2.1-Fun-1.3B-InP"})
    told = session.plan("a", other, told["version"])
    assert told["settings"].keys() == {"prompt", "base_seed", "sub_prompts", "model"}
    assert told["resolved"]["num_inference_steps"] == 50


def test_a_living_run_is_seen_whoever_started_it(session: Session, tmp_path: Path) -> None:
    session.plan("a", draft(added(session, tmp_path)), "")
    assert not session.status("a")["status"]["running"]
    directory = RunDirectory(session.folder / "a", session.folder / "a" / "output_final.mp4")
    with directory.lock():
        status = session.status("a")["status"]
        assert (status["running"], status["stage"]["label"]) == (True, "at work elsewhere")
        with pytest.raises(InputError, match="being made already"):
            session.start(
                "a", draft(session.open("a")["plan"]["keyframes"]), session.open("a")["plan"]["version"]
            )
    assert not session.status("a")["status"]["running"]


@pytest.mark.slow
def test_a_run_is_started_cancelled_and_goes_on_to_the_same_bytes(session: Session, tmp_path: Path) -> None:
    keyframes = added(session, tmp_path, (0, 4, 8, 12))
    # Enough for the last segment to be at work when the first is seen to be done.
    settings = draft(keyframes, num_inference_steps=80)
    told = session.plan("a", settings, "")
    session.start("a", settings, told["version"])
    directory = RunDirectory(session.folder / "a", session.folder / "a" / "output_final.mp4")

    def until(condition: Any) -> None:
        end = time.monotonic() + 200
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    until(lambda: session.status("a")["status"].get("stage", {}).get("label") == "sampling")
    until(lambda: Manifest(directory).read())
    stopped = session.cancel("a")
    assert (stopped["running"], stopped["stopped"], stopped["error"]) == (False, True, None)
    kept = Manifest(directory).read()
    assert 0 < len(kept) < 6
    told = session.open("a")["plan"]
    assert told["cost"]["segments"] == 3 - len(kept)
    # Another server goes on.
    after = Session(session.folder)
    after.start("a", settings, told["version"])
    until(lambda: not after.status("a")["status"]["running"])
    assert after.status("a")["film"]["frames"] == 25
    whole = generate(kept_settings(session.folder / "a", output=str(tmp_path / "b")), verbose=False)
    ours = {name: entry.latents_sha256 for name, entry in Manifest(directory).read().items()}
    theirs = Manifest(RunDirectory(tmp_path / "b", whole.video)).read()
    assert {name: ours[name] for name in whole.segments} == {
        n: theirs[n].latents_sha256 for n in whole.segments
    }


def edit_draft(told: dict[str, Any], keyframes: list[list[Any]], **changes: Any) -> dict[str, Any]:
    return {"keyframes": keyframes, "settings": told["settings"] | EDIT | changes}


@pytest.fixture
def dropped(session: Session, tmp_path: Path) -> dict[str, Any]:
    """What is answered when a video of nine frames was dropped on the page."""
    write_video(tmp_path / "a.mkv", moving_square(9), 16)
    return session.add_video("a", tmp_path / "a.mkv")


def test_a_video_is_edited_by_a_frame_that_was_taken_out_and_put_back(
    session: Session, dropped: dict[str, Any], tmp_path: Path
) -> None:
    told = dropped["plan"]
    assert (told["job"], told["source"]["frames"], told["source"]["size"]) == ("edit", 9, [32, 32])
    assert (told["keyframes"], told["error"]) == ([], None)
    frame = session.frame("a", "source", 4)
    Image.fromarray(np.where(frame > 200, 255 - frame, frame)).save(tmp_path / "0004.png")
    picture = session.add_picture("a", tmp_path / "0004.png")
    told = session.plan("a", edit_draft(told, [[picture["id"], 4]]), told["version"])
    assert told["error"] is None
    assert (told["cost"]["segments"], told["cost"]["passes"] > 0, told["cost"]["memory"] > 1e8) == (
        1,
        True,
        True,
    )
    kept: Any = read_yaml(session.folder / "a" / "board.yaml", "settings")
    made = edit(EditConfig(**kept), verbose=False)  # as the command line does
    after = session.open("a")
    assert (after["plan"]["digest"], after["film"]["digest"]) == (made.digest, made.digest)
    assert after["plan"]["cost"]["segments"] == 0
    assert not any("negative_prompt" in warning for warning in after["plan"]["warnings"])
    assert (after["film"]["start"], after["film"]["frames"], after["film"]["joins"]) == (0, 9, [])
    # What it changes: the square, and little else.
    changed = session.changes("a", "keyframe", 4).astype(int).sum(axis=-1)
    assert changed[8:20, 6:18].mean() > 3 * changed[24:].mean()
    assert session.changes("a", "film", 4).shape == (32, 32, 3)
    with pytest.raises(InputError, match="no picture at frame 5"):
        session.changes("a", "keyframe", 5)


def test_the_source_is_shown_frame_by_frame_and_encoded_once(
    session: Session, dropped: dict[str, Any], tmp_path: Path
) -> None:
    shown = session.source("a")
    written = shown.stat().st_mtime_ns
    assert probe(shown).frames == 9
    assert (session.source("a"), shown.stat().st_mtime_ns) == (shown, written)
    told = dropped["plan"]
    session.plan("a", edit_draft(told, [], start=2, num_frames=5), told["version"])
    assert probe(session.source("a")).frames == 5
    assert not shown.exists()
    (kept,) = (session.folder / "a").glob("source_*")
    assert np.array_equal(session.frame("a", "source", 0), read_frames(kept, [2])[0])


def test_frames_are_restyled_alike_and_become_keyframes(session: Session, dropped: dict[str, Any]) -> None:
    assert session.runs()["edit"]["stylists"] == ["palette"]
    (first,) = session.style("a", 0, {"stylist": "palette", "words": "autumn"})["keyframes"]
    both = session.style("a", 8, {"stylist": "palette", "words": "autumn"})["keyframes"]
    assert [frame for _, frame in both] == [0, 8]
    told = session.plan("a", edit_draft(dropped["plan"], both), dropped["plan"]["version"])
    assert (told["error"], told["keyframes"]) == (None, both)
    (other,) = session.style("a", 0, {"stylist": "palette", "words": "noir"})["keyframes"]
    assert other[0] != first[0]
    for asked in ({"stylist": "gemini", "words": "autumn"}, {"stylist": "os:system", "words": "a"}, 3):
        with pytest.raises(InputError, match="expected one of palette"):
            session.style("a", 0, asked)
    with pytest.raises(InputError, match="frame 9"):
        session.style("a", 9, {"stylist": "palette", "words": "autumn"})
    with pytest.raises(InputError, match="style"):
        session.style("a", 0, {"stylist": "palette", "words": ""})


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_every_way_of_editing_that_is_offered_can_be_planned(
    session: Session, dropped: dict[str, Any], tmp_path: Path, way: int
) -> None:
    picture = session.add_picture("a", draw_keyframe(tmp_path / "k.png", 3))
    settings = session.runs()["edit"]["ways"][way]["settings"]
    told = session.plan(
        "a",
        edit_draft(dropped["plan"], [[picture["id"], 0]], num_inference_steps=4, **settings),
        dropped["plan"]["version"],
    )
    assert told["error"] is None
    assert {name: told["settings"][name] for name in settings} == settings


def test_an_edit_of_the_command_line_opens_and_is_changed(edited: EditResult, tmp_path: Path) -> None:
    shutil.copytree(edited.video.parent, tmp_path / "films" / "made")
    session = Session(tmp_path / "films")
    found = session.open("made")
    plan = found["plan"]
    assert (plan["job"], plan["digest"], plan["cost"]["segments"]) == ("edit", edited.digest, 0)
    assert [frame for _, frame in plan["keyframes"]] == [0, 8]
    told = session.plan(
        "made", {"keyframes": plan["keyframes"][:1], "settings": plan["settings"]}, plan["version"]
    )
    assert (told["error"], told["cost"]["segments"], told["keyframe_frames"]) == (None, 1, [0])
    assert told["cost"]["seconds"] > 0
    for settings in (
        {"video": "/etc/passwd"},
        {"method": "os:system"},
        {"controller": "a.b:C"},
        {"decoder": "x"},
    ):
        with pytest.raises(InputError, match=next(iter(settings))):
            session.plan("made", {"keyframes": [], "settings": settings}, told["version"])


def test_a_video_longer_than_the_model_is_good_for_is_begun_with_as_much(
    session: Session, tmp_path: Path
) -> None:
    write_video(tmp_path / "long.mp4", np.zeros((90, 16, 16, 3), np.uint8), 16)
    source = session.add_video("a", tmp_path / "long.mp4")["plan"]["source"]
    assert (source["frames"], source["total"]) == (33, 90)


def test_what_is_no_video_is_refused_and_pictures_stay_a_film(session: Session, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    with pytest.raises(InputError):
        session.add_video("a", tmp_path / "a.mp4")
    assert not (session.folder / "a").exists()
    session.plan("a", draft(added(session, tmp_path)), "")
    write_video(tmp_path / "b.mp4", moving_square(9), 16)
    with pytest.raises(InputError, match="made of pictures"):
        session.add_video("a", tmp_path / "b.mp4")


def test_a_transparent_picture_leaves_the_source_there(
    session: Session, dropped: dict[str, Any], tmp_path: Path
) -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16, :, 1:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    picture = session.add_picture("a", tmp_path / "half.png")
    told = session.plan("a", edit_draft(dropped["plan"], [[picture["id"], 0]]), dropped["plan"]["version"])
    assert told["error"] is None
    changed = session.changes("a", "keyframe", 0).astype(int)
    grey = session.frame("a", "source", 0).mean(axis=-1) * 0.35
    assert np.abs(changed[20:] - grey[20:, :, None]).max() < 2
    assert changed[:12].max() > 150


@pytest.mark.parametrize("keyframes", ["a.png:0", [3], [["a.png"]], [[None, 0]], {"a": 1}])
def test_settings_that_somebody_wrote_are_told_as_they_are_wrong(
    session: Session, dropped: dict[str, Any], keyframes: object
) -> None:
    values: Any = read_yaml(session.folder / "a" / "board.yaml", "settings")
    (session.folder / "a" / "board.yaml").write_text(
        json.dumps(values | {"keyframes": keyframes, "decoder": [1]})
    )
    assert "expected" in session.open("a")["plan"]["error"]
