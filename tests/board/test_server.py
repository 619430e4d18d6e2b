"""Who may ask the board, what every answer says, and what an upload may be."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.runs import draw_keyframe, moving_square, run_cli
from wanedit.board.server import build
from wanedit.board.session import Session
from wanedit.video import write_video


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def films(tmp_path: Path) -> Session:
    return Session(tmp_path / "films")


@pytest.fixture
def board(films: Session, uploads: Path) -> Iterator[TestClient]:
    with TestClient(build(films, uploads), base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]
        yield client


def ask(board: TestClient, name: str, *values: object) -> dict[str, Any]:
    """As the page's script asks."""
    component = next(
        one["id"]
        for one in board.get("/config").json()["components"]
        if one["props"].get("elem_id") == "board"
    )
    body = {"data": list(values), "component_id": component, "fn_name": name, "session_hash": "x"}
    answer = board.post("/gradio_api/component_server", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sent(board: TestClient, path: Path, name: str) -> str:
    return board.post("/gradio_api/upload", files={"files": (name, path.read_bytes())}).json()[0]


def test_the_page_loads_nothing_from_elsewhere_and_says_so(board: TestClient) -> None:
    page = board.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "googleapis" not in page.text


def test_another_name_or_another_sites_page_is_refused(board: TestClient) -> None:
    assert (
        board.get("/", headers={"host": "evil.example"}).status_code == 403
    )  # a name that was bound to this machine
    crossed = board.post(
        "/gradio_api/upload", headers={"origin": "http://evil.example"}, files={"files": ("a", b"")}
    )
    assert crossed.status_code == 403
    assert board.get("/", headers={"host": "localhost:7860"}).status_code == 200


def test_other_machines_need_the_token(films: Session, uploads: Path) -> None:
    app = build(films, uploads, token="secret")
    with TestClient(app, base_url="http://192.168.1.5:7860", follow_redirects=False) as client:  # type: ignore[arg-type]
        for path in ("/", "/config", "/media/a/film", "/gradio_api/startup-events"):
            assert client.get(path).status_code == 403
        assert client.get("/?token=wrong").status_code == 403
        assert client.get("/", headers={"cookie": "wanedit_board=wrong"}).status_code == 403
        opened = client.get("/?token=secret")
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        assert "HttpOnly" in opened.headers["set-cookie"]
        assert client.get("/").status_code == 200


def test_a_picture_with_a_hostile_name_becomes_a_keyframe(
    board: TestClient, films: Session, tmp_path: Path
) -> None:
    path = draw_keyframe(tmp_path / "a.png", 3)
    at = sent(board, path, "../../<img src=x onerror=alert(1)>.png")
    found = ask(board, "add_picture", "a", at)
    assert (found["width"], found["height"]) == (32, 32)
    assert not Path(at).exists()  # on its way no longer
    shown = board.get(f"/media/a/picture/{found['id']}")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    (kept,) = (films.folder / "a" / "keyframes").iterdir()
    assert kept.stem.isalnum()


@pytest.mark.parametrize("path", ["/etc/passwd", "a.png", "../a.png", "", None])
def test_only_what_was_sent_just_now_is_read(
    board: TestClient, uploads: Path, tmp_path: Path, path: object
) -> None:
    draw_keyframe(tmp_path / "a.png", 3)
    named = str(uploads / "../a.png") if path == "../a.png" else path
    assert "no such upload" in ask(board, "add_picture", "a", named)["error"]
    assert (tmp_path / "a.png").exists()


def test_a_video_with_a_hostile_name_becomes_a_source(
    board: TestClient, films: Session, tmp_path: Path
) -> None:
    write_video(tmp_path / "a.mp4", moving_square(9), 16)
    at = sent(board, tmp_path / "a.mp4", "../../<img src=x onerror=alert(1)>.m<p4")
    found = ask(board, "add_video", "a", at)
    assert found["plan"]["source"]["frames"] == 9
    assert not Path(at).exists()
    (kept,) = (films.folder / "a").glob("source_*")
    assert kept.name.replace("_", "").replace(".", "").isalnum()
    shown = board.get("/media/a/source", headers={"range": "bytes=0-99"})
    assert (shown.status_code, shown.headers["content-type"]) == (206, "video/mp4")
    taken = board.get("/media/a/take/4")
    assert taken.headers["content-disposition"] == 'attachment; filename="0004.png"'
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(taken.content))), films.frame("a", "source", 4))
    assert board.get("/media/a/frame/source/4").headers["content-type"] == "image/jpeg"
    for path in (
        "frame/source/9",
        "take/-1",
        "changes/keyframe/0",
        "changes/film/0",
        "picture/0",
    ):
        answer = board.get(f"/media/a/{path}")
        assert (answer.status_code, answer.headers["content-type"].startswith("text/plain")) == (404, True), (
            path
        )
        assert str(tmp_path) not in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "source.mp4", None])
def test_only_a_video_that_was_sent_just_now_is_read(board: TestClient, path: object) -> None:
    assert "no such upload" in ask(board, "add_video", "a", path)["error"]


def test_no_file_of_the_machine_is_served(board: TestClient, films: Session) -> None:
    films.folder.mkdir()
    (films.folder / "secret.txt").write_text("secret")
    for path in (
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={films.folder}/secret.txt",
        "/media/..%2f..%2fetc/film",
        "/media/a/picture/..%2f..%2fsecret.txt",
        "/media/a/frame/..%2fsecret.txt/0",
        "/media/a/film",
    ):
        answer = board.get(path)
        assert answer.status_code in (403, 404), path
        assert "secret" not in answer.text.replace("secret.txt", "")


def test_a_question_that_is_none_is_answered_in_words(board: TestClient) -> None:
    assert "not understood" in ask(board, "open")["error"]
    assert "the run's name" in ask(board, "open", {"a": 1})["error"]
    assert "no draft" in ask(board, "plan", "a", 3, "")["error"]


def test_what_cannot_be_served_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "expected 0 to 65535" in run_cli("board", str(tmp_path), "--port", "70000").err
    assert "is a file" in run_cli("board", str(tmp_path / "file")).err


def test_what_is_being_sampled_is_shown_while_it_is(board: TestClient, films: Session) -> None:
    assert board.get("/media/a/preview").status_code == 404
    folder = films.run("a").directory.previews
    folder.mkdir(parents=True)
    names = [f"segment_{k:03d}_{k:012x}.png" for k in range(2)]
    first, second = (draw_keyframe(folder / name, k) for k, name in enumerate(names))
    draw_keyframe(folder / "of_somebody.png", 3)
    os.utime(first, (1, 1))
    assert board.get("/media/a/preview").content == second.read_bytes()
    assert ask(board, "status", "a")["preview"] == str(second.stat().st_mtime_ns)
