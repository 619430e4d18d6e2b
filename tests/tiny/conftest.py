"""wan-tiny as it ships, loaded once for all tests of its training and its scorecard."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from wanedit.wan.formats.layouts import OFFICIAL_TOKENIZER
from wanedit.wan.load import Wan, load_wan, open_wan


@pytest.fixture(scope="session")
def wan() -> Wan:
    return load_wan("tiny")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(str(open_wan("tiny").path / OFFICIAL_TOKENIZER))
