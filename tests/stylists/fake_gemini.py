"""A small Gemini on loopback: answers from a script, call by call, and remembers what it was asked."""

import base64
import io
import json
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

CANARY = "AIzaCANARY0123456789_not-a-key"
IMAGE_MODEL = "gemini-nano-banana-2.1"
TEXT_MODEL = "gemini-3.8-flash"


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `reset`: the connection is torn down instead. `delay`: seconds before it."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    reset: bool = False
    delay: float = 0.0


@dataclass(frozen=True)
class Call:
    """One request as the server saw it."""

    method: str
    path: str
    body: dict[str, Any]
    key: str

    @property
    def pictures(self) -> list[np.ndarray]:
        """The pictures in it, decoded."""
        parts = self.body["contents"][0]["parts"]
        data = [
            base64.urlsafe_b64decode(part["inlineData"]["data"]) for part in parts if "inlineData" in part
        ]
        return [np.array(Image.open(io.BytesIO(one)).convert("RGB")) for one in data]

    @property
    def text(self) -> str:
        """All words in it."""
        return "\n".join(part.get("text", "") for part in self.body["contents"][0]["parts"])

    @property
    def kind(self) -> str:
        """analyse, restyle, verify, models."""
        if self.method == "GET":
            return "models"
        if "imageConfig" in self.body.get("generationConfig", {}):
            return "restyle"
        schema = self.body["generationConfig"]["responseJsonSchema"]
        return "verify" if "structure_kept" in schema["properties"] else "analyse"


Script = Reply | Callable[[Call], Reply]


class FakeGemini:
    """Scripted answers, then `default` for every further call."""

    def __init__(self, default: Script | None = None) -> None:
        self.calls: list[Call] = []
        self.script: list[Script] = []
        self.default: Script = default or well_behaved
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.url = ""

    def then(self, *replies: Script) -> "FakeGemini":
        """Append to the script."""
        self.script += replies
        return self

    def reply(self, call: Call) -> Reply:
        """The next answer."""
        with self._lock:
            self.calls.append(call)
            scripted = self.script.pop(0) if self.script else self.default
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        made = scripted if isinstance(scripted, Reply) else scripted(call)
        time.sleep(made.delay)
        with self._lock:
            self._now -= 1
        return made

    def count(self, kind: str) -> int:
        """How many calls of a kind came."""
        return sum(call.kind == kind for call in self.calls)


@contextmanager
def serve(fake: FakeGemini) -> Iterator[FakeGemini]:
    """Run it on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            self._answer(fake.reply(Call("POST", self.path, body, self.headers.get("x-goog-api-key", ""))))

        def do_GET(self) -> None:
            self._answer(fake.reply(Call("GET", self.path, {}, self.headers.get("x-goog-api-key", ""))))

        def _answer(self, reply: Reply) -> None:
            if reply.reset:
                # Lingering for no time makes close() send RST.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.rfile.close()
                self.wfile.close()
                self.connection.close()
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.content_type, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                self.close_connection = True  # the client gave up waiting

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), OSError):
                traceback.print_exc()  # a fault of this fake, not one of its script

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def encoded(picture: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def answer(
    *parts: dict[str, Any], finish: str | None = "STOP", model: str = IMAGE_MODEL, **more: Any
) -> Reply:
    """A generateContent answer of these parts."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": 1000,
        "candidatesTokenCount": 1120,
        "totalTokenCount": 2120,
        "candidatesTokensDetails": [
            {"modality": "IMAGE" if model == IMAGE_MODEL else "TEXT", "tokenCount": 1120}
        ],
    }
    body = {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": f"{model}-001",
        "responseId": "fake",
        **more,
    }
    return Reply(body)


def picture_part(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    """An inline picture."""
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}}


def negative(picture: np.ndarray) -> np.ndarray:
    """A restyling that keeps geometry exactly: each level x becomes 255 - x."""
    return 255 - picture


def drawn(call: Call) -> Reply:
    """The first picture of the question, as a negative."""
    return answer(picture_part(encoded(negative(call.pictures[0]))))


def structured(value: Any) -> Reply:
    """A text model's JSON."""
    return answer({"text": value if isinstance(value, str) else json.dumps(value)}, model=TEXT_MODEL)


GUIDE = {
    "summary": "Flat gouache in two colours.",
    "palette": ["#102030", "#f0e0d0"],
    "line": "none",
    "texture": "paper grain",
    "light": "even",
    "do": ["flat fills"],
    "dont": ["gradients"],
}
PASSED = {"structure_kept": True, "style_matched": True, "consistent": True, "reasons": []}


def well_behaved(call: Call) -> Reply:
    """Answers every kind of call as it should be."""
    if call.kind == "models":
        return models(IMAGE_MODEL, TEXT_MODEL, "gemini-3.7-flash")
    if call.kind == "restyle":
        return drawn(call)
    return structured(PASSED if call.kind == "verify" else GUIDE)


def models(*names: str) -> Reply:
    """A page of the list of models."""
    listed = [{"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]} for name in names]
    return Reply({"models": listed})


def error(
    status: int, message: str, reason: str = "", details: list[dict[str, Any]] | None = None, **more
) -> Reply:
    """Google's error body."""
    body = {"error": {"code": status, "message": message, "status": reason, "details": details or []}}
    return Reply(body, status, **more)


def rate_limited(delay: str | None = None, quota: str = "", **more: Any) -> Reply:
    """HTTP 429, with RetryInfo where `delay` is given ("7s")."""
    details: list[dict[str, Any]] = []
    if quota:
        violation = {"quotaId": quota}
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return error(429, "Resource has been exhausted", "RESOURCE_EXHAUSTED", details, **more)


HTML = Reply(b"<!DOCTYPE html><html><body>Sign in to the network</body></html>", content_type="text/html")
RESET = Reply(reset=True)
BLOCKED = Reply(
    {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": f"{IMAGE_MODEL}-001"}
)
