"""Every row of `faults.md` has a test, and no test is of a row that there is not."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_fault_has_a_test() -> None:
    table = (TESTS / "faults.md").read_text(encoding="utf-8")
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert rows == list(range(1, len(rows) + 1))
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    marks = (re.findall(r"^@pytest\.mark\.fault\((\d+)\)$", text, re.MULTILINE) for text in texts)
    assert {int(number) for found in marks for number in found} == set(rows)
