"""The page and what answers it, brought together: Gradio carries questions and uploads, some addresses serve pictures.

Nothing is loaded from another machine. Who is not asked in stays out: another site's page in the same browser by Host
and Origin, and, where the board listens to other machines, whoever has no token.
"""

import hmac
import inspect
import io
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wanedit.board.session import Session, StaleError
from wanedit.errors import InputError, WaneditError
from wanedit.files import Json, system_errors
from wanedit.stylists.protocol import reword

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("board.js", "edit.js")  # one after the other
COOKIE = "wanedit_board"
MAX_UPLOAD = 2 * 2**30  # bytes
JPEG_QUALITY = 88
WIDEST = 640
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Gradio compiles the page's script and puts styles inline; all else comes from here alone.
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Guard:
    """Around the whole application: who may ask, and what every answer says.

    Args:
        token: what a browser must bring once, in the address; "" for a board of this machine alone, which instead
            answers only to this machine's names, so that no other site's page can reach it under its own.
    """

    def __init__(self, app: App, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (refused := self._refused(headers, scope)) is not None:
            await _say(send, *refused)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(n, v) for n, v in message["headers"] if n.lower().decode() not in HEADERS]
                kept += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": kept}
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, headers: dict[str, str], scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        host = headers.get("host", "")
        if not self.token and urlsplit(f"//{host}").hostname not in LOOPBACK:
            return 403, "This board answers to this machine alone.", {}
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Asked by a page of another site.", {}
        if not self.token:
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if _same(given, self.token):
            # Out of the address, where others may read it over a shoulder.
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return 303, "", {"location": scope["path"], "set-cookie": cookie}
        brought = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        if brought is None or not _same(brought.value, self.token):
            return (
                403,
                "This board asks for the token that its command printed: open the address with it.",
                {},
            )
        return None


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


async def _say(send: Any, status: int, text: str, headers: dict[str, str]) -> None:
    every = HEADERS | {"content-type": "text/plain; charset=utf-8"} | headers
    raw = [(name.encode(), value.encode("latin-1")) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": text.encode()})


def answering(ask: Callable[..., Json]) -> Callable[[list[object]], Json]:
    """A method of the session as the page calls it: what is wrong is an answer too."""

    def answer(arguments: list[object]) -> Json:
        try:
            inspect.signature(ask).bind(*arguments)
        except TypeError as error:
            return {"error": f"not understood: {error}"}
        try:
            with system_errors():
                return ask(*arguments)
        except WaneditError as error:
            return {"error": str(error), "stale": isinstance(error, StaleError)}

    answer.__name__ = ask.__name__
    return answer


def build(session: Session, uploads: Path, token: str = "") -> App:
    """The application.

    Args:
        uploads: an empty folder, for files on their way.
        token: see `Guard`.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    import gradio as gr
    import gradio.themes
    from fastapi import FastAPI, Request
    from fastapi.responses import FileResponse, PlainTextResponse, Response
    from PIL import Image

    @contextmanager
    def upload(sent: object) -> Iterator[Path]:
        """What was sent just now, which then goes; of other files of this machine the page may name none."""
        path = Path(str(sent)).resolve()
        if not path.is_relative_to(uploads.resolve()) or not path.is_file():
            raise InputError("no such upload; expected a file that was sent just now")
        try:
            yield path
        except WaneditError as error:
            reword(error, str(error).replace(f"{path.parent}{os.sep}", ""))
            raise
        finally:
            path.unlink(missing_ok=True)

    def add_picture(name: object, sent: object) -> Json:
        with upload(sent) as path:
            return session.add_picture(name, path)

    def add_video(name: object, sent: object) -> Json:
        with upload(sent) as path:
            return session.add_video(name, path)

    asked = [session.runs, session.open, session.plan, session.start, session.cancel, session.status]
    asked += [session.measures, session.style, add_picture, add_video]
    with gr.Blocks(title="wanedit board", analytics_enabled=False) as blocks:
        gr.HTML(
            html_template=(PAGE / "board.html").read_text(encoding="utf-8"),
            js_on_load="".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS),
            server_functions=[answering(ask) for ask in asked],
            apply_default_css=False,
            elem_id="board",
        )
    app = FastAPI(title="wanedit board", docs_url=None, redoc_url=None, openapi_url=None)

    def drawn(image: Image.Image) -> Response:
        image.thumbnail((WIDEST, WIDEST))
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
        # Named by what it shows, it never changes.
        return Response(
            file.getvalue(), media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"}
        )

    @app.exception_handler(WaneditError)
    def refused(_: Request, error: WaneditError) -> Response:
        return PlainTextResponse(str(error), 404)

    @app.get("/media/{name}/film")
    def film(name: str) -> FileResponse:
        return FileResponse(session.film(name))

    @app.get("/media/{name}/preview")
    def preview(name: str) -> Response:
        with system_errors():
            return Response(session.preview(name).read_bytes(), media_type="image/png")

    @app.get("/media/{name}/source")
    def source(name: str) -> FileResponse:
        with system_errors():
            return FileResponse(session.source(name))

    @app.get("/media/{name}/picture/{picture}")
    def picture(name: str, picture: str) -> Response:
        from wanedit.video import load_image

        return drawn(Image.fromarray(load_image(session.picture(name, picture)).pixels))

    @app.get("/media/{name}/frame/{piece}/{index}")
    def frame(name: str, piece: str, index: int) -> Response:
        return drawn(Image.fromarray(session.frame(name, piece, index)))

    @app.get("/media/{name}/changes/{of}/{index}")
    def changes(name: str, of: str, index: int) -> Response:
        return drawn(Image.fromarray(session.changes(name, of, index)))

    @app.get("/media/{name}/take/{index}")
    def take(name: str, index: int) -> Response:
        """A frame of the source as it is, under the name by which a folder of keyframes tells its place."""
        file = io.BytesIO()
        Image.fromarray(session.frame(name, "source", index)).save(file, "PNG")
        saved = f'attachment; filename="{index:04d}.png"'
        return Response(file.getvalue(), media_type="image/png", headers={"content-disposition": saved})

    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
    theme = gradio.themes.Base(font=sans, font_mono=["ui-monospace", "monospace"])
    mounted = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        # Not as css, whose rules Gradio confines to its own container.
        head=f"<style>{(PAGE / 'board.css').read_text(encoding='utf-8')}</style>",
    )
    return Guard(mounted, token)


def serve(session: Session, host: str, port: int, opened: Callable[[str], None]) -> None:
    """Answer until Ctrl-C.

    Args:
        port: 0 for a free one.
        opened: told the address once it answers.

    Raises:
        ResourceError: the port is taken.
    """
    import asyncio
    import socket

    import uvicorn

    token = "" if host in LOOPBACK else secrets.token_urlsafe(24)
    with system_errors(session.folder):
        session.folder.mkdir(parents=True, exist_ok=True)
        uploads = Path(tempfile.mkdtemp(prefix=".board-", dir=session.folder))
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen()  # who comes before the first answer waits for it
            except OSError as error:
                raise InputError(
                    f"port {port} of {host} cannot be had: {error.strerror}; choose another port"
                ) from None
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
            config = uvicorn.Config(
                build(session, uploads, token), log_level="error", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            opened(address)
            asyncio.run(server.serve(sockets=[listener]))
    finally:
        shutil.rmtree(uploads, ignore_errors=True)
    sys.stdout.flush()
