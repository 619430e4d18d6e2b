"""The key goes into the request's header and nowhere else: a canary is looked for in everything that is made."""

import asyncio
import json
import logging
import traceback
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.stylists.fake_gemini import (
    BLOCKED,
    CANARY,
    GUIDE,
    HTML,
    PASSED,
    RESET,
    Reply,
    answer,
    encoded,
    error,
    negative,
    picture_part,
    structured,
)
from tests.stylists.gemini_bench import Bench, bench, request_for, scene
from wanedit.stylists.protocol import Styled, StyleReference

pytestmark = pytest.mark.network
__all__ = ["bench"]

SOURCE = scene(160, 90)
# Google's answer to a suspended key quotes it; the padding puts it across the place where messages are cut.
SUSPENDED = error(403, "x" * 285 + f" Consumer 'api_key:{CANARY}' has been suspended.", "PERMISSION_DENIED")
FAULTS = {
    "suspended": SUSPENDED,
    "quoted": error(400, f"API key not valid: {CANARY}", "INVALID_ARGUMENT"),
    "server": error(500, f"cannot serve {CANARY}", "INTERNAL"),
    "page": Reply(f"<html>{CANARY}</html>".encode(), 200, content_type="text/html"),
    "words": answer({"text": f"Your key is {CANARY}"}),
    "long words": answer({"text": "x" * 180 + CANARY}),
    "html": HTML,
    "reset": RESET,
    "blocked": BLOCKED,
}


def all_text(error: BaseException) -> str:
    """An exception, its traceback, and everything that it is chained to."""
    text = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    for inner in (error.__cause__, error.__context__):
        text += all_text(inner) if inner is not None else ""
    return text


@pytest.mark.fault(33)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_failure_shows_the_key(
    bench: Bench, fault: Reply, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bench.settings["attempts"] = 2
    bench.fake.default = fault

    async def fail(one) -> str:
        outcomes = [
            *await asyncio.gather(one.restyle(request_for(SOURCE)), return_exceptions=True),
            *await asyncio.gather(
                one.verify(request_for(SOURCE), Styled(SOURCE), None), return_exceptions=True
            ),
        ]
        records = json.dumps([asdict(record) for record in one.records])
        return records + repr(one.ready()) + str(one.settings) + "".join(map(all_text, outcomes))

    text = bench.run(fail)
    assert "Error" in text
    assert {call.key for call in bench.fake.calls} == {CANARY}
    assert all(CANARY not in call.path for call in bench.fake.calls)
    out, err = capfd.readouterr()
    for place in (text, out, err, caplog.text):
        assert CANARY not in place
        assert CANARY[:12] not in place


def test_no_result_shows_the_key(bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench.fake.then(error(503, f"busy for {CANARY}"))

    async def work(one) -> list:
        styled = await one.restyle(request_for(SOURCE))
        verdict = await one.verify(request_for(SOURCE), styled, None)
        return [styled.provenance, verdict.model_dump(), one.settings, [asdict(r) for r in one.records]]

    (tmp_path / "all.json").write_text(json.dumps(bench.run(work)))
    assert CANARY not in (tmp_path / "all.json").read_text()
    assert "[key hidden]" in (tmp_path / "all.json").read_text()
    assert CANARY not in "".join(capfd.readouterr())


def test_a_structured_answer_that_quotes_the_key_does_not_show_it(bench: Bench) -> None:
    bench.fake.default = structured({CANARY: CANARY})
    with pytest.raises(Exception, match="schema") as stop:
        bench.run(lambda one: one.verify(request_for(SOURCE), Styled(SOURCE), None))
    assert CANARY not in all_text(stop.value)


ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in CANARY)


@pytest.mark.parametrize("spelling", [CANARY, ESCAPED], ids=["plain", "escaped"])
def test_a_valid_answer_that_quotes_the_key_is_used_without_it(
    bench: Bench, spelling: str, capfd: pytest.CaptureFixture[str]
) -> None:
    named = {"modelVersion": f"of {CANARY}", "responseId": CANARY}
    guide = json.dumps({**GUIDE, "summary": "flat KEY"}).replace("KEY", spelling)
    verdict = json.dumps({**PASSED, "consistent": False, "reasons": ["for KEY"]}).replace("KEY", spelling)
    picture = picture_part(encoded(negative(SOURCE.repeat(8, 0).repeat(8, 1))), f"image/{CANARY}")
    bench.fake.then(answer({"text": guide}, **named), answer(picture, **named))
    bench.fake.then(answer({"text": verdict}, **named))

    async def work(one) -> list:
        guide = await one.analyse(StyleReference(None, "ink"), ())
        styled = await one.restyle(request_for(SOURCE))
        verdict = await one.verify(request_for(SOURCE), styled, None)
        assert (guide.summary, verdict.reasons) == ("flat [key hidden]", ["for [key hidden]"])
        assert styled.provenance["model_version"] == "of [key hidden]"
        assert styled.provenance["response_id"] == "[key hidden]"
        assert styled.provenance["mime"] == "image/[key hidden]"
        records = [asdict(record) for record in one.records]
        return [guide.model_dump(), styled.provenance, verdict.model_dump(), records]

    assert CANARY not in json.dumps(bench.run(work)) + "".join(capfd.readouterr())
    assert len(bench.fake.calls) == 3
