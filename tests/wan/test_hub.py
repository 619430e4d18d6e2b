"""Models by name: in the hub's cache and ComfyUI's folders, and downloads from a small hub on loopback."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tests.wan import converted
from wanedit import GenerationConfig
from wanedit.cli import main
from wanedit.errors import MissingWeightsError
from wanedit.runtime.record import recorded
from wanedit.wan.catalog import find_known, locate, locate_lora, recognise, twin

COMMIT = "c" * 40
REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
WEIGHTS = bytes(range(256)) * 131072  # 32 MiB: the library writes 10 MB at a time


class Hub(ThreadingHTTPServer):
    """Two files of one repository; it can break off in the middle of the large one, once, and lie about its hash."""

    files: ClassVar = {"config.json": b'{"dim": 1}', "vae/weights.safetensors": WEIGHTS}
    breaks = False
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str, str | None]] = []

    def about(self, name: str) -> dict:
        data = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        lfs = {"lfs": {"sha256": self.sha256, "oid": self.sha256, "size": len(data), "pointerSize": 1}}
        return {"size": len(data), "blobId": blob, "oid": blob} | (lfs if "weights" in name else {})


class Answer(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.server
        hub.asked.append((self.command, self.path, self.headers["Range"]))
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} | hub.about(name) for name in hub.files]
            body = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
            return self.send(200, body, {"Content-Type": "application/json"})
        if "/resolve/" not in self.path:
            return self.send(404, b"", {})
        name = self.path.split("/resolve/")[1].partition("/")[2]
        about, data = hub.about(name), hub.files[name]
        etag = about["lfs"]["sha256"] if "lfs" in about else about["oid"]
        extra = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or ""):
            start, total = int(found[1]), len(data)
            extra["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            return self.send(206, data[start:], extra)
        if hub.breaks and self.command == "GET" and "weights" in name:
            hub.breaks = False
            self.head(200, len(data), extra)
            self.wfile.write(data[: len(data) * 3 // 4])
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return None
        return self.send(200, data, extra)

    def head(self, status: int, length: int, extra: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (extra | {"Content-Length": str(length)}).items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, status: int, body: bytes, extra: dict[str, str]) -> None:
        self.head(status, len(body), extra)
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def download(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library reads its variables once."""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "wanedit", "models", "download", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_a_broken_transfer_goes_on_where_it_broke_and_is_whole(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = True
    done = download(hub, tmp_path / "home", "Wan2.1-T2V-1.3B", "--to", str(tmp_path / "model"))
    if done.returncode == 5:  # the library did not go on by itself
        assert "run again, what has come is kept" in done.stderr
        done = download(hub, tmp_path / "home", "Wan2.1-T2V-1.3B", "--to", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "vae" / "weights.safetensors").read_bytes() == WEIGHTS
    assert "2 files, 0.03 GB" in done.stdout
    assert "complete, every hash as the hub says" in done.stdout
    ranges = [asked for _, path, asked in hub.asked if "weights" in path and asked and asked != "bytes=0-"]
    assert ranges, hub.asked
    before = len(hub.asked)
    assert download(hub, tmp_path / "home", REPOSITORY, "--to", str(tmp_path / "model")).returncode == 0
    assert not [path for command, path, _ in hub.asked[before:] if command == "GET" and "weights" in path]


def test_a_file_of_another_hash_is_refused_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.sha256 = "0" * 64
    done = download(hub, tmp_path / "home", REPOSITORY, "--to", str(tmp_path / "model"))
    assert done.returncode == 3
    assert re.search(r"has the hash \w{64}; the hub says 0{64}\. It is removed", done.stderr)
    assert not (tmp_path / "model" / "vae" / "weights.safetensors").exists()


def test_what_came_to_the_cache_is_found_by_its_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download(hub, tmp_path / "home", "Wan2.1-T2V-1.3B").returncode == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    assert (locate("Wan2.1-T2V-1.3B") / "vae" / "weights.safetensors").read_bytes() == WEIGHTS
    assert locate(REPOSITORY) == locate("Wan2.1-T2V-1.3B")


def test_a_repository_of_diffusers_in_the_cache_is_found_by_its_name_and_by_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeightsError, match="or a repository of the hub, as owner/name, that"):
        locate("Somebody/Wan-Own-Diffusers")
    made = {}
    for repository in ("Somebody/Wan-Own-Diffusers", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"):
        home = tmp_path / f"models--{repository.replace('/', '--')}"
        made[repository] = home / "snapshots" / COMMIT
        made[repository].mkdir(parents=True)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(COMMIT)
        assert locate(repository) == made[repository]
    assert locate("FLF2V-14B") == locate("Wan-AI/Wan2.1-FLF2V-14B-720P") == made[repository]
    known = find_known("FLF2V-14B")
    assert known is not None
    assert recognise(known.config, made[repository]) == known
    config = GenerationConfig(model="Somebody/Wan-Own-Diffusers", output="x")
    assert recorded(config)["model"] == "Somebody/Wan-Own-Diffusers"
    (tmp_path / "models" / "Wan2.1-T2V-14B-Diffusers").mkdir(parents=True)
    assert locate("Wan2.1-T2V-14B").name == "Wan2.1-T2V-14B-Diffusers"


def test_a_hub_that_is_not_there_is_told_in_a_line(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = download(hub, tmp_path / "home", "Wan2.1-T2V-1.3B", "--to", str(tmp_path / "model"))
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "what has come is kept" in done.stderr


def test_names_of_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "download", "nothing"]) == 2
    assert main(["models", "download"]) == 2
    assert main(["models", "check", "tiny", "--to", "x"]) == 2
    assert main(["models", "download", "tiny"]) == 0
    assert "ships with wanedit" in capsys.readouterr().out


def test_comfyui_files_are_found_by_what_their_names_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI", str(tmp_path))
    folder, loras = (tmp_path / "models" / name for name in ("diffusion_models", "loras"))
    folder.mkdir(parents=True)
    loras.mkdir()
    names = (
        "wan2.1_flf2v_720p_14B_fp16",
        "wan2.1_t2v_14B_bf16",
        "wan2.1_fun_inp_1.3B_bf16",
        "wan2.2_i2v_high_noise_14B_fp8_scaled",
        "wan2.2_i2v_low_noise_14B_fp8_scaled",
    )
    for name in names:
        (folder / f"{name}.safetensors").touch()
    assert locate("Wan-AI/Wan2.1-FLF2V-14B-720P").stem == names[0]
    assert locate("Wan2.1-T2V-14B").stem == names[1]
    assert locate("1.3B").stem == names[2]
    assert locate("Wan2.2-I2V-A14B").stem == names[3]
    for name in names[3:]:  # as LightX2V spells it
        (folder / f"{name}.safetensors").rename(folder / f"{name.replace('_14B', '_A14b')}.safetensors")
    assert locate("Wan2.2-I2V-A14B").stem == "wan2.2_i2v_high_noise_A14b_fp8_scaled"
    for name in names[3:]:
        (folder / f"{name.replace('_14B', '_A14b')}.safetensors").rename(folder / f"{name}.safetensors")
    assert twin(folder / f"{names[3]}.safetensors") == folder / f"{names[4]}.safetensors"
    with pytest.raises(MissingWeightsError, match=r"models download Wan2\.1-I2V-14B-480P"):
        locate("Wan2.1-I2V-14B-480P")
    (folder / "wan2.1_flf2v_720p_14B_fp8.gguf").touch()
    with pytest.raises(MissingWeightsError, match=r"may be .*fp16.*fp8.*choose one by --model FILE"):
        locate("Wan2.1-FLF2V-14B-720P")
    (loras / "style.safetensors").touch()
    assert locate_lora(Path("style.safetensors")) == loras / "style.safetensors"
    assert locate_lora(Path("other.safetensors")) == Path("other.safetensors")


def test_check_says_what_parts_without_a_transformer_are(tmp_path: Path, capsys) -> None:
    def checked(place: Path, code: int) -> str:
        assert main(["models", "check", str(place)]) == code
        return re.sub(r"[\s│]+", " ", capsys.readouterr().out)

    root = converted.comfy_folders(tmp_path / "models")
    text = root / "text_encoders" / "umt5.safetensors"
    gguf = converted.gguf_file(
        converted.llama_t5(converted.TEXT), tmp_path / "parts" / "t5.gguf", "F32", "t5encoder"
    )
    gguf.with_suffix(".json").write_bytes(text.with_suffix(".json").read_bytes())
    vae, clip = root / "vae" / "tiny_vae.safetensors", root / "clip_vision" / "clip.safetensors"
    for file, part, kind in (
        (vae, "VAE", "float16"),
        (text, "text encoder", "float16"),
        (clip, "image encoder", "float16"),
        (gguf, "text encoder", "float32"),
    ):
        shown = checked(file, 0)
        assert "single files" in shown
        assert f"{part} {file.name} {kind}" in shown
        assert "1 of 1 parts fit" in shown
    for file in (vae, clip):
        for one in (file, file.with_suffix(".json")):
            (gguf.parent / one.name).write_bytes(one.read_bytes())
    shown = checked(gguf.parent, 3)
    assert "3 of 4 parts fit" in shown
    assert "no file holds the transformer; name one by --transformer FILE" in shown

    # Sizes as the folder's layout says them, in a folder without a transformer and of one file out of it.
    official = tmp_path / "official"
    shutil.copytree(converted.TINY, official, ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    assert "3 of 4 parts fit" in checked(official, 3)
    assert "1 of 1 parts fit" in checked(official / "Wan2.1_VAE.safetensors", 0)
    diffusers = converted.diffusers_folder(tmp_path / "diffusers")
    shutil.rmtree(diffusers / "transformer")
    assert "3 of 4 parts fit" in checked(diffusers, 3)
    assert "1 of 2 parts fit" in checked(diffusers / "vae", 3)
    assert "1 of 1 parts fit" in checked(diffusers / "text_encoder" / "model.safetensors", 0)
    shutil.rmtree(root / "diffusion_models")
    assert "3 of 4 parts fit" in checked(root, 3)


def test_check_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = converted.comfy_folders(tmp_path / "models", converted.fp8_scaled_old)
    assert main(["models", "check", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "single files" in shown
    assert "float8_e4m3fn, scaled" in re.sub(r"\s+", " ", shown)
    (root / "clip_vision" / "clip.safetensors").unlink()
    assert main(["models", "check", str(root)]) == 3
    assert "no file holds the image encoder" in re.sub(r"\s+", " ", capsys.readouterr().out)
    lora = {
        "diffusion_model.blocks.7.self_attn.q.lora_down.weight": torch.zeros(4, 192),
        "diffusion_model.blocks.7.self_attn.q.lora_up.weight": torch.zeros(192, 4),
        "diffusion_model.blocks.7.self_attn.q.alpha": torch.tensor(8.0),
    }
    path = str(converted.save(lora, tmp_path / "style.safetensors"))

    def checked(*words: str, code: int = 0) -> str:
        assert main(["models", "check", path, *words]) == code
        told = capsys.readouterr()
        return re.sub(r"[\s│]+", " ", told.out + told.err)

    for words, beside in ((), ""), (("--model", "tiny"), " 1 of 1"):
        shown = checked(*words)
        assert (
            f"self_attn.q 1 4 2 alpha, down, up diffusion_model.blocks.7.self_attn.q.alpha{beside}" in shown
        )
        assert "made for 8 blocks of 192 fits wan-tiny" in shown
    named = {name.replace("blocks.7", "blocks.8"): tensor for name, tensor in lora.items()}
    converted.save(lora | named, Path(path))
    shown = checked("--model", "tiny", code=3)
    assert "self_attn.q 2 4 2 alpha, down, up diffusion_model.blocks.7.self_attn.q.alpha 1 of 2" in shown
    assert "2 tensors have no place in tiny: diffusion_model.blocks.8.self_attn.q.lora_down.weight" in shown
    assert "fits no known model whole" in shown
    for words in (
        ["check", "tiny", "--model", "tiny"],
        ["--model", "tiny"],
        ["download", "x", "--model", "tiny"],
    ):
        assert main(["models", *words]) == 2
        assert "--model tiny is" in capsys.readouterr().err
