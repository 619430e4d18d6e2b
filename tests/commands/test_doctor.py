"""`wanedit doctor`: quick, honest about the machine, and silent about keys."""

import time

import pytest

from tests.stylists.fake_gemini import (
    CANARY,
    IMAGE_MODEL,
    TEXT_MODEL,
    FakeGemini,
    Reply,
    error,
    models,
    serve,
)
from wanedit.cli import main
from wanedit.commands import doctor
from wanedit.commands.doctor import WRONG, Check
from wanedit.errors import MissingWeightsError
from wanedit.stylists.gemini.client import nearest

WANDB_CANARY = "wandb-canary-0123456789"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "WANDB_API_KEY",
        "WANDB_MODE",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def only_gemini(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the machine's own checks, which one test runs."""
    monkeypatch.setattr(doctor, "LOCAL", ())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    with serve(FakeGemini()) as running:
        yield running


def examine(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and all that was printed."""
    code = main(["doctor", *words])
    text = "".join(capfd.readouterr())
    assert CANARY not in text
    return code, text


def test_without_a_key_all_that_the_default_needs_works(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", WANDB_CANARY)
    start = time.process_time()
    code, text = examine(capfd)
    assert code == 0
    assert time.process_time() - start < 15
    assert WANDB_CANARY not in text
    for words in (
        "python",
        "wan-tiny",
        "ffv1 writer",
        "WANDB_API_KEY",
        "aistudio.google.com",
        "Wan2.1-FLF2V-14B",
    ):
        assert words in text


@pytest.mark.usefixtures("only_gemini")
def test_required_without_a_key_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    code, text = examine(capfd, "--gemini")
    assert code == 5
    assert "GOOGLE_API_KEY nor GEMINI_API_KEY" in text


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
def test_with_a_key_it_lists_the_models(capfd: pytest.CaptureFixture[str], fake: FakeGemini) -> None:
    code, text = examine(capfd, "--gemini", "--base_url", fake.url)
    assert code == 0
    assert "3 models" in text
    assert "key from GEMINI_API_KEY" in text
    assert [call.kind for call in fake.calls] == ["models"]


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
def test_the_flags_of_style_are_taken_too(capfd: pytest.CaptureFixture[str], fake: FakeGemini) -> None:
    flags = ["--gemini.base_url", fake.url, "--gemini.api_version=v1"]
    code, text = examine(capfd, "--gemini", *flags)
    assert code == 0, text
    assert fake.calls[0].path.startswith("/v1/models")
    fake.calls.clear()
    assert examine(capfd, "--base_url", fake.url, "--api_version", "v1beta")[0] == 0
    assert fake.calls[0].path.startswith("/v1beta/models")


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
def test_a_listed_id_that_quotes_the_key_does_not_show_it(
    capfd: pytest.CaptureFixture[str], fake: FakeGemini
) -> None:
    fake.default = models(f"gemini-{CANARY}", TEXT_MODEL)
    assert "gemini-[key hidden]" in examine(capfd, "--base_url", fake.url)[1]


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
def test_a_gone_id_is_named_with_the_nearest(capfd: pytest.CaptureFixture[str], fake: FakeGemini) -> None:
    fake.default = models("gemini-nano-banana-2.2", "gemini-3.9-flash", TEXT_MODEL)
    code, text = examine(capfd, "--base_url", fake.url)
    assert code == 0
    assert f"{IMAGE_MODEL} is gone; nearest: gemini-nano-banana-2.2. Set gemini.image_model" in text
    assert f"{TEXT_MODEL} is gone" not in text
    assert examine(capfd, "--gemini", "--base_url", fake.url)[0] == 5


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            error(403, f"Consumer 'api_key:{CANARY}' has been suspended.", "PERMISSION_DENIED"),
            "rejects the key",
        ),
        (error(503, "busy", "UNAVAILABLE"), "HTTP 503"),
        (Reply(b"<html>", content_type="text/html"), "not the JSON"),
        (Reply(reset=True), "connection failed"),
    ],
)
def test_a_service_that_fails_is_told_in_one_try(
    capfd: pytest.CaptureFixture[str], fake: FakeGemini, reply: Reply, words: str
) -> None:
    fake.default = reply
    code, text = examine(capfd, "--gemini", "--base_url", fake.url)
    assert code == 5
    assert words in text
    # aiohttp itself repeats a GET once on a lost connection, which costs nothing.
    assert len(fake.calls) <= 1 + reply.reset
    assert examine(capfd, "--base_url", fake.url)[0] == 0


@pytest.mark.network
@pytest.mark.usefixtures("only_gemini")
def test_a_service_that_says_nothing_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], fake: FakeGemini, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "GEMINI_TIMEOUT_S", 0.3)
    fake.default = Reply({}, delay=0.6)
    code, text = examine(capfd, "--gemini", "--base_url", fake.url)
    assert code == 5
    assert "no answer within 0.3 s" in text


def test_a_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    def check_lens():
        raise RuntimeError("cracked")

    def check_weights():
        yield Check("weights", WRONG, "[gone]", MissingWeightsError.exit_code)

    monkeypatch.setattr(doctor, "LOCAL", (check_weights, check_lens))
    code, text = examine(capfd)
    assert code == 3
    assert "RuntimeError: cracked" in text
    assert "[gone]" in text


def test_the_nearest_are_of_the_same_trade() -> None:
    usable = ["gemini-3.9-flash", "gemini-3.1-pro-preview", "gemini-nano-banana-3", "gemini-3-pro-image"]
    assert nearest(IMAGE_MODEL, usable)[0] == "gemini-nano-banana-3"
    assert "gemini-3-pro-image" not in nearest(TEXT_MODEL, usable)
    assert nearest(TEXT_MODEL, usable)[0] == "gemini-3.9-flash"
