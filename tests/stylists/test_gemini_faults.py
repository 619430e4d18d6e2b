"""Every fault that the service can show: what is raised, how many calls the server saw, how long was waited."""

import asyncio
import traceback

import numpy as np
import pytest
from PIL import Image

from tests.stylists.fake_gemini import (
    BLOCKED,
    HTML,
    IMAGE_MODEL,
    PASSED,
    RESET,
    Reply,
    answer,
    encoded,
    error,
    negative,
    picture_part,
    rate_limited,
    structured,
)
from tests.stylists.gemini_bench import Bench, bench, request_for, scene
from wanedit.errors import ServiceError
from wanedit.stylists.gemini import faults as errors
from wanedit.stylists.gemini.stylist import GeminiStylist
from wanedit.stylists.protocol import Styled, StyleReference

pytestmark = pytest.mark.network
__all__ = ["bench"]

SOURCE = scene(160, 90)
BUSY = error(503, "overloaded", "UNAVAILABLE")
BROKEN = error(500, "internal", "INTERNAL")


@pytest.fixture(params=["aiohttp", "httpx2", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each HTTP library that the SDK may find: they raise differently, and must end alike."""
    if request.param != "aiohttp":
        monkeypatch.setattr("google.genai._api_client.has_aiohttp", False)
        monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", request.param)
    return request.param


def restyle(bench: Bench) -> Styled:
    return bench.run(lambda one: one.restyle(request_for(SOURCE)))


def verify(bench: Bench):
    return bench.run(lambda one: one.verify(request_for(SOURCE), Styled(negative(SOURCE)), None))


def fails(bench: Bench, kind: type[ServiceError], action=restyle) -> str:
    """The message of the failure, which must be of exactly this class, exit code 5, and cause-free."""
    with pytest.raises(kind) as stop:
        action(bench)
    assert type(stop.value) is kind
    assert stop.value.exit_code == 5
    assert stop.value.__cause__ is None
    assert stop.value.__context__ is None
    return str(stop.value)


# -- overloaded, broken, unreachable ---------------------------------------------------------------------------


@pytest.mark.fault(17)
def test_retry_info_is_honoured_with_jitter_on_top(bench: Bench) -> None:
    bench.fake.then(rate_limited("7s"), rate_limited("1.5s"))
    styled = restyle(bench)
    assert len(bench.fake.calls) == 3
    assert bench.pauses == [7.0 + 1.0, 1.5 + 2.0]
    assert styled.provenance["attempts"] == 3
    assert len(styled.provenance["notes"]) >= 2


def test_retry_after_is_honoured(bench: Bench, transport: str) -> None:
    bench.fake.then(
        rate_limited(headers={"Retry-After": "4"}), error(503, "busy", headers={"Retry-After": "2"})
    )
    restyle(bench)
    assert bench.pauses == [4.0 + 1.0, 2.0 + 2.0]


def test_without_a_hint_the_pauses_double_to_a_bound(bench: Bench) -> None:
    bench.settings["attempts"] = 9
    bench.fake.then(*[rate_limited()] * 8)
    restyle(bench)
    assert bench.pauses == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.fault(17)
def test_too_many_429_stop_and_say_that_the_run_resumes(bench: Bench) -> None:
    bench.fake.then(*[rate_limited("3s")] * 5)
    said = fails(bench, errors.RateLimitedError)
    assert (len(bench.fake.calls), len(bench.pauses)) == (5, 4)
    assert "run the same command again" in said
    assert "5 tries" in said


def test_a_pause_longer_than_allowed_stops_at_once(bench: Bench) -> None:
    bench.fake.then(rate_limited("3600s"))
    assert "3600 s" in fails(bench, errors.RateLimitedError)
    assert (len(bench.fake.calls), bench.pauses) == (1, [])


def test_a_used_up_quota_of_the_day_is_not_waited_for(bench: Bench) -> None:
    bench.fake.then(rate_limited("9s", quota="GenerateRequestsPerDayPerProjectPerModel"))
    assert "tomorrow" in fails(bench, errors.RateLimitedError)
    assert (len(bench.fake.calls), bench.pauses) == (1, [])


@pytest.mark.fault(18)
@pytest.mark.parametrize("fault", [BROKEN, BUSY, RESET, HTML], ids=["500", "503", "reset", "html"])
def test_a_passing_fault_costs_one_retry(bench: Bench, transport: str, fault: Reply) -> None:
    bench.fake.then(fault)
    assert restyle(bench).image.shape == SOURCE.shape
    assert (len(bench.fake.calls), bench.pauses) == (2, [1.0])


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (BROKEN, "HTTP 500"),
        (BUSY, "HTTP 503"),
        (RESET, "connection"),
        (HTML, "not the JSON"),
        (Reply(HTML.body, 502, content_type="text/html"), "HTTP 502"),
        (Reply(b"{", 200), "not the JSON"),
    ],
    ids=["500", "503", "reset", "html", "502-html", "cut"],
)
def test_a_lasting_fault_ends_in_a_resumable_stop(bench: Bench, fault: Reply, words: str) -> None:
    bench.settings["attempts"] = 3
    bench.fake.default = fault
    said = fails(bench, errors.UnavailableError)
    assert words in said
    assert "run the same command again" in said
    assert "<html" not in said
    assert (len(bench.fake.calls), bench.pauses) == (3, [1.0, 2.0])


def test_the_sdk_repeats_nothing_by_itself(bench: Bench, transport: str) -> None:
    bench.settings["attempts"] = 1
    bench.fake.default = RESET
    fails(bench, errors.UnavailableError)
    assert len(bench.fake.calls) == 1


def test_no_server_at_all(bench: Bench) -> None:
    bench.settings |= {"base_url": "http://127.0.0.1:9", "attempts": 2}
    assert "connection" in fails(bench, errors.UnavailableError)
    assert bench.pauses == [1.0]


@pytest.mark.fault(19)
def test_a_timeout_is_retried_once_and_noted_as_perhaps_billed(bench: Bench, transport: str) -> None:
    bench.settings["timeout_s"] = 1.5
    bench.fake.then(Reply(structured(PASSED).body, delay=2.5))
    bench.fake.default = structured(PASSED)

    async def once(one: GeminiStylist) -> tuple:
        verdict = await one.verify(request_for(SOURCE), Styled(negative(SOURCE)), None)
        return verdict, one.records[0], one.spent

    verdict, record, (calls, dollars) = bench.run(once)
    assert verdict.accepted
    assert calls == len(bench.fake.calls) == 2
    assert "may be billed" in record.notes[0]
    assert dollars == pytest.approx(record.price + record.may_be_billed)
    assert record.may_be_billed > 0


def test_a_second_timeout_stops(bench: Bench) -> None:
    bench.settings["timeout_s"] = 1.5
    bench.fake.default = Reply(structured(PASSED).body, delay=2.5)
    said = fails(bench, errors.TimedOutError, verify)
    assert len(bench.fake.calls) == 2
    assert "1.5 s" in said
    assert "may be billed" in said


# -- refused ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (error(400, "bad field", "INVALID_ARGUMENT"), errors.RefusedRequestError, "refused again"),
        (error(400, "API key not valid", "INVALID_ARGUMENT"), errors.KeyRejectedError, "aistudio"),
        (
            error(400, "no", "INVALID_ARGUMENT", [{"@type": "x", "reason": "API_KEY_INVALID"}]),
            errors.KeyRejectedError,
            "aistudio",
        ),
        (error(403, "denied", "PERMISSION_DENIED"), errors.KeyRejectedError, "aistudio"),
        (error(404, "no such model", "NOT_FOUND"), errors.ModelGoneError, "wanedit doctor"),
        (Reply(HTML.body, 407, content_type="text/html"), errors.RefusedRequestError, "HTML page"),
    ],
)
def test_a_refusal_is_never_retried(bench: Bench, reply: Reply, kind: type, words: str) -> None:
    bench.fake.default = reply
    assert words in fails(bench, kind)
    assert (len(bench.fake.calls), bench.pauses) == (1, [])


# -- answers that cannot be used -------------------------------------------------------------------------------


def withheld(finish: str) -> Reply:
    return answer(finish=finish)


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (BLOCKED, errors.BlockedPromptError, "PROHIBITED_CONTENT"),
        (withheld("IMAGE_SAFETY"), errors.BlockedImageError, "more mildly"),
        (withheld("PROHIBITED_CONTENT"), errors.BlockedImageError, "PROHIBITED_CONTENT"),
        (withheld("IMAGE_RECITATION"), errors.BlockedImageError, "without naming"),
        (withheld("NO_IMAGE"), errors.NoImageError, "NO_IMAGE"),
        (answer({"text": "I cannot draw."}), errors.NoImageError, "I cannot draw."),
        (Reply({}), errors.NoImageError, "without a picture"),
    ],
    ids=["prompt", "image", "prohibited", "recitation", "no-image", "words", "empty"],
)
def test_an_answer_without_a_picture_is_rephrased_so_often_and_no_more(
    bench: Bench, reply: Reply, kind: type, words: str
) -> None:
    bench.settings["rephrase"] = 2
    bench.fake.default = reply
    assert words in fails(bench, kind)
    assert (len(bench.fake.calls), bench.pauses) == (3, [])
    first, second, third = (call.text for call in bench.fake.calls)
    assert first != second
    assert third == second or kind is errors.NoImageError


def test_a_blocked_prompt_is_restated_in_safer_words(bench: Bench) -> None:
    bench.fake.then(BLOCKED)
    asked = request_for(SOURCE, image=scene(20, 20))
    styled = bench.run(lambda one: one.restyle(asked))
    before, after = bench.fake.calls
    assert "family-friendly" in after.text
    assert "Flat gouache" in before.text
    assert "Flat gouache" not in after.text
    assert [len(call.pictures) for call in bench.fake.calls] == [2, 1]
    assert "BlockedPromptError" in styled.provenance["unusable"][0]


def test_without_rephrasing_there_is_one_call(bench: Bench) -> None:
    bench.settings["rephrase"] = 0
    bench.fake.default = BLOCKED
    fails(bench, errors.BlockedPromptError)
    assert len(bench.fake.calls) == 1


@pytest.mark.fault(20)
@pytest.mark.parametrize("quality", [None, 70])
def test_the_source_is_never_passed_off_as_a_result(bench: Bench, quality: int | None) -> None:
    def echo(call) -> Reply:
        if quality is None:
            return answer(picture_part(encoded(call.pictures[0])))
        return answer(picture_part(encoded(call.pictures[0], "JPEG", quality=quality), "image/jpeg"))

    bench.fake.default = echo
    assert "unchanged" in fails(bench, errors.UnchangedError)
    assert len(bench.fake.calls) == 2
    assert "unchanged" in bench.fake.calls[1].text


@pytest.mark.parametrize("levels", [0, 4])
def test_a_source_larger_than_its_canvas_is_known_too(bench: Bench, levels: int) -> None:
    def echo(call) -> Reply:
        brighter = np.clip(call.pictures[0].astype(int) + levels, 0, 255).astype(np.uint8)
        return answer(picture_part(encoded(brighter)))

    bench.settings["rephrase"] = 0
    bench.fake.default = echo
    noise = np.random.default_rng(0).integers(20, 236, (1080, 1920, 3), np.uint8)
    with pytest.raises(errors.UnchangedError, match="unchanged"):
        bench.run(lambda one: one.restyle(request_for(noise)))


@pytest.mark.fault(21)
def test_another_size_of_the_same_ratio_is_mapped_back(bench: Bench) -> None:
    def large(call) -> Reply:
        image = Image.fromarray(negative(call.pictures[0])).resize((1920, 1080), Image.Resampling.LANCZOS)
        return answer(picture_part(encoded(np.array(image))))

    bench.fake.default = large
    styled = restyle(bench)
    assert styled.image.shape == SOURCE.shape
    assert np.abs(styled.image.astype(int) - negative(SOURCE)).mean() < 4
    assert styled.provenance["transform"]["answer"] == [1920, 1080]
    assert "off" in styled.provenance["notes"][0]


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("data", "mime", "words"),
    [
        (encoded(np.zeros((512, 512, 3), np.uint8)), "image/png", "512x512"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "image/svg"),
        (encoded(scene(1376, 768))[:9000], "image/png", "truncated"),
    ],
    ids=["ratio", "svg", "truncated"],
)
def test_another_shape_or_type_is_rejected(bench: Bench, data: bytes, mime: str, words: str) -> None:
    bench.fake.default = answer(picture_part(data, mime))
    assert words in fails(bench, errors.WrongImageError)
    assert len(bench.fake.calls) == 2
    assert "aspect ratio" in bench.fake.calls[1].text


def test_a_wrong_mime_of_a_good_picture_is_accepted_and_noted(bench: Bench) -> None:
    def mislabelled(call) -> Reply:
        return answer(picture_part(encoded(negative(call.pictures[0]), "JPEG", quality=95), "image/png"))

    bench.fake.default = mislabelled
    assert "said to be image/png, is JPEG" in restyle(bench).provenance["notes"]


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "",
        {"structure_kept": True},
        {**PASSED, "structure_kept": "yes"},
        {**PASSED, "consistent": 1},
        {**PASSED, "accepted": True},
        {name: value for name, value in PASSED.items() if name != "reasons"},
        [PASSED],
    ],
)
def test_a_verdict_that_violates_its_schema_is_a_failure(bench: Bench, bad) -> None:
    bench.fake.default = structured(bad)
    assert "counts as a failure" in fails(bench, errors.SchemaError, verify)
    assert len(bench.fake.calls) == 2
    assert "did not fit the schema" in bench.fake.calls[1].text


def test_a_valid_verdict_after_an_invalid_one_counts(bench: Bench) -> None:
    bench.fake.then(structured({"structure_kept": True}), structured(PASSED))
    assert verify(bench).accepted
    assert len(bench.fake.calls) == 2


def test_a_blocked_analysis_is_told_apart(bench: Bench) -> None:
    bench.fake.default = BLOCKED
    with pytest.raises(errors.BlockedPromptError):
        bench.run(lambda one: one.analyse(StyleReference(None, "ink"), ()))


# -- cancelled -------------------------------------------------------------------------------------------------


def test_a_cancelled_call_is_not_retried_and_counts_as_spent(bench: Bench) -> None:
    bench.fake.default = Reply(structured(PASSED).body, delay=0.5)

    async def cancel(one: GeminiStylist) -> tuple:
        task = asyncio.ensure_future(one.verify(request_for(SOURCE), Styled(SOURCE), None))
        while not bench.fake.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return one.spent

    calls, dollars = bench.run(cancel)
    assert calls == len(bench.fake.calls) == 1
    assert dollars > 0


def test_a_traceback_of_a_failure_is_short_and_ours(bench: Bench) -> None:
    bench.fake.default = error(404, "no such model", "NOT_FOUND")
    with pytest.raises(errors.ModelGoneError) as stop:
        restyle(bench)
    text = "".join(traceback.format_exception(stop.value))
    assert "google/genai" not in text
    assert IMAGE_MODEL not in text
