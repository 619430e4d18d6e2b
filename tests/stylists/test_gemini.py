"""The Gemini stylist on a service that behaves: what is sent, what comes back, what is counted."""

import asyncio
import json
import math
import pickle

import numpy as np
import pytest

from tests.stylists.fake_gemini import (
    IMAGE_MODEL,
    PASSED,
    TEXT_MODEL,
    FakeGemini,
    Reply,
    answer,
    encoded,
    negative,
    picture_part,
    structured,
)
from tests.stylists.gemini_bench import Bench, bench, request_for, scene
from wanedit.errors import InputError, ResourceError
from wanedit.stylists.gemini.client import new_client
from wanedit.stylists.gemini.faults import BudgetExceededError, MissingKeyError
from wanedit.stylists.gemini.settings import GeminiSettings, find_key
from wanedit.stylists.gemini.stylist import GeminiStylist
from wanedit.stylists.protocol import Styled, StyleGuide, StyleReference, Stylist

pytestmark = pytest.mark.network
__all__ = ["bench"]


def test_it_is_a_stylist_and_its_settings_are_json() -> None:
    stylist = GeminiStylist()
    assert isinstance(stylist, Stylist)
    assert json.loads(json.dumps(stylist.settings))["image_model"] == IMAGE_MODEL
    same = GeminiSettings(
        max_calls=7, timeout_s=9, rephrase=4, base_url="https://example.com", api_version="v1"
    )
    assert GeminiStylist(same).settings == stylist.settings
    assert GeminiStylist(GeminiSettings(image_size="2K")).settings != stylist.settings


def test_the_guide_is_read_from_picture_and_words(bench: Bench) -> None:
    reference = StyleReference(scene(64, 48), "gouache")
    guide = bench.run(lambda one: one.analyse(reference, tuple(scene(64, 48) for _ in range(9))))
    assert isinstance(guide, StyleGuide)
    assert guide.palette == ["#102030", "#f0e0d0"]
    (call,) = bench.fake.calls
    assert call.path.endswith(f"/models/{TEXT_MODEL}:generateContent")
    assert "gouache" in call.text
    assert len(call.pictures) == 4
    assert call.body["generationConfig"]["responseJsonSchema"]["required"] == list(StyleGuide.model_fields)


def test_an_empty_reference_is_refused_before_any_call(bench: Bench) -> None:
    with pytest.raises(InputError, match="empty"):
        bench.run(lambda one: one.analyse(StyleReference(None, " "), ()))
    assert bench.fake.calls == []


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (101, 77)])
def test_a_keyframe_comes_back_in_place_with_its_provenance(bench: Bench, width: int, height: int) -> None:
    source = scene(width, height)
    styled = bench.run(lambda one: one.restyle(request_for(source)))
    assert isinstance(styled, Styled)
    assert styled.image.shape == source.shape
    assert np.abs(styled.image.astype(int) - negative(source)).mean() < 4
    (call,) = bench.fake.calls
    assert call.body["generationConfig"]["imageConfig"]["imageSize"] == "1K"
    assert call.pictures[0].shape[1::-1] == tuple(styled.provenance["transform"]["canvas"])
    record = json.loads(json.dumps(styled.provenance))
    assert record["model_version"] == f"{IMAGE_MODEL}-001"
    assert record["usage"] == {"input": 1000, "output": 0, "image_output": 1120, "total": 2120}
    assert record["price_usd"] == pytest.approx(1000 * 1.5e-6 + 1120 * 30e-6)
    assert (record["attempts"], record["unusable"], len(record["prompt_sha256"])) == (1, [], 64)


def test_later_keyframes_are_shown_the_first_the_reference_and_the_reasons(bench: Bench) -> None:
    source = scene(160, 90)
    asked = request_for(source, first=negative(source), image=scene(40, 40), reasons=("the cup moved",))
    bench.run(lambda one: one.restyle(asked))
    (call,) = bench.fake.calls
    assert [picture.shape[:2] for picture in call.pictures] == [(768, 1376), (768, 1376), (40, 40)]
    assert "the cup moved" in call.text


def test_a_verdict_is_read_and_a_rejection_always_has_a_reason(bench: Bench) -> None:
    source = scene(160, 90)
    styled = Styled(negative(source))
    bench.fake.then(structured(PASSED), structured({**PASSED, "consistent": False}))
    good, bad = (bench.run(lambda one: one.verify(request_for(source), styled, source)) for _ in range(2))
    assert good.accepted
    assert not bad.accepted
    assert "other restyled frames" in bad.reasons[0]
    assert [len(call.pictures) for call in bench.fake.calls] == [3, 3]


def test_drafts_of_the_model_are_passed_over(bench: Bench) -> None:
    source = scene(160, 90)

    def with_draft(call) -> Reply:
        draft = {**picture_part(encoded(call.pictures[0])), "thought": True}
        return answer(picture_part(encoded(negative(call.pictures[0]))), draft)

    bench.fake.then(with_draft)
    styled = bench.run(lambda one: one.restyle(request_for(source)))
    assert np.abs(styled.image.astype(int) - negative(source)).mean() < 4


def test_no_more_calls_at_once_than_allowed(bench: Bench) -> None:
    bench.settings["concurrency"] = 2
    slow = Reply(structured(PASSED).body, delay=0.05)
    bench.fake.default = slow
    source = scene(32, 32)

    async def many(one: GeminiStylist) -> None:
        await asyncio.gather(*(one.verify(request_for(source), Styled(source), None) for _ in range(6)))

    bench.run(many)
    assert (len(bench.fake.calls), bench.fake.most_at_once) == (6, 2)


@pytest.mark.parametrize("cap", [{"max_calls": 3}, {"max_price": 0.075}])
def test_the_budget_stops_before_the_call_that_would_pass_it(bench: Bench, cap: dict) -> None:
    bench.settings.update(cap)
    source = scene(32, 32)

    async def many(one: GeminiStylist) -> tuple:
        calls = (one.verify(request_for(source), Styled(source), None) for _ in range(9))
        return await asyncio.gather(*calls, return_exceptions=True), one.spent

    outcomes, (calls, dollars) = bench.run(many)
    stopped = [one for one in outcomes if isinstance(one, BudgetExceededError)]
    assert len(bench.fake.calls) == calls == 9 - len(stopped)
    assert calls == 3 if "max_calls" in cap else 0.04 < dollars <= 0.075
    assert stopped[0].exit_code == ResourceError.exit_code
    assert next(iter(cap)) in str(stopped[0])
    assert "again" in str(stopped[0])


def test_the_estimate_covers_what_is_spent(bench: Bench) -> None:
    stylist = GeminiStylist()
    estimate = stylist.estimate(10, 2)
    assert estimate.calls == (21, 122)
    assert 0.5 < estimate.price[0] < 1.5
    assert estimate.price[0] < estimate.price[1] < 10
    assert stylist.estimate(1, 0).calls == (3, 6)


def test_settings_that_cannot_work_are_refused_with_the_field() -> None:
    wrong = [
        ({"image_size": "512"}, "image_size"),
        ({"attempts": 0}, "attempts"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_price": -1.0}, "max_price"),
        ({"image_model": " "}, "image_model"),
        ({"base_url": "http://example.com"}, "https"),
        ({"base_url": "https://me:secret@example.com"}, "password"),
        ({"image_model": "gemini-new-image"}, "no price is known for gemini-new-image"),
        ({"base_url": "http://[::1"}, "base_url cannot be read"),
        ({"base_url": "http://localhost:port"}, "base_url cannot be read"),
        ({"prices": {IMAGE_MODEL: {"input": 1.0}}}, "prices of"),
        ({"prices": {IMAGE_MODEL: {"input": 1.0, "output": 2.0}}}, "expected image_output too"),
    ]
    for values, words in wrong:
        with pytest.raises(InputError, match=words):
            GeminiStylist(GeminiSettings(**values))
    GeminiStylist(GeminiSettings(image_model="gemini-new-image", max_price=None))
    prices = {"gemini-new-image": {"input": 1.0, "output": 2.0, "image_output": 3.0}}
    GeminiStylist(GeminiSettings(image_model="gemini-new-image", prices=prices))


@pytest.mark.parametrize("price", ["1", True, None, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["input", "output", "image_output"])
def test_a_price_that_is_no_number_is_refused(kind: str, price) -> None:
    prices = {IMAGE_MODEL: {"input": 1.0, "output": 2.0, "image_output": 3.0, kind: price}}
    settings = GeminiSettings()
    object.__setattr__(settings, "prices", prices)  # past the types, which are checked in tests alone
    with pytest.raises(InputError, match="each a number of at least 0"):
        GeminiStylist(settings)


def test_a_missing_key_is_told_before_any_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(MissingKeyError, match=r"GOOGLE_API_KEY nor GEMINI_API_KEY.*aistudio") as stop:
        bench.run(lambda one: one.analyse(StyleReference(None, "ink"), ()))
    assert stop.value.exit_code == 2
    assert bench.fake.calls == []
    with pytest.raises(MissingKeyError):
        GeminiStylist().ready()
    GeminiStylist().estimate(3, 1)  # a dry run needs none


def test_of_two_keys_google_api_key_is_used_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", " one ")
    monkeypatch.setenv("GEMINI_API_KEY", "two")
    key = find_key()
    assert key.secret == "one"
    assert key.note == "key from GOOGLE_API_KEY (GEMINI_API_KEY is set too, and not used)"
    assert "one" not in repr(key).replace("None", "")
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_one_stylist_serves_one_event_loop_after_another(bench: Bench) -> None:
    source = scene(32, 32)
    with bench.stylist() as one:
        for _ in range(2):
            asyncio.run(one.verify(request_for(source), Styled(source), None))
        assert one.spent[0] == 2
        assert [record.purpose for record in one.records] == ["verify", "verify"]
        asyncio.run(one.aclose())


def test_the_environment_cannot_turn_it_to_vertex(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    bench.run(lambda one: one.analyse(StyleReference(None, "ink"), ()))
    assert FakeGemini.count(bench.fake, "analyse") == 1


def test_the_environment_cannot_turn_it_to_another_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", bench.fake.url)
    client = new_client(find_key(), GeminiSettings())
    assert client._api_client._http_options.base_url == "https://generativelanguage.googleapis.com/"
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    bench.run(lambda one: one.analyse(StyleReference(None, "ink"), ()))
    assert bench.fake.count("analyse") == 1


@pytest.mark.parametrize("key", ["AIza…", "AIza\nSy", "AIza Sy", "AIza\x7fSy", "AIza\u00a0Sy", '"AIzaSy"'])
def test_what_cannot_be_a_key_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", key)
    with pytest.raises(InputError, match=r"^GEMINI_API_KEY holds \d characters that are no key") as stop:
        find_key()
    assert "AIza" not in str(stop.value)
    assert stop.value.exit_code == 2
