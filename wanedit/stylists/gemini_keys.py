"""The API key: found in the environment, hidden everywhere else."""

import os
from dataclasses import dataclass, field

from wanedit.errors import InputError
from wanedit.stylists.gemini_errors import MissingKeyError

VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
HIDDEN = "[key hidden]"
HOW_TO_GET = (
    "get one at https://aistudio.google.com/apikey and put it into the environment: export GEMINI_API_KEY=…"
)


@dataclass(frozen=True)
class Key:
    """A key and the variable it came from; its text shows in no repr, and pickling it is refused."""

    variable: str
    secret: str = field(repr=False, compare=False)
    ignored: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Which variable is used, and which was set and is not."""
        also = f" ({' and '.join(self.ignored)} is set too, and not used)" if self.ignored else ""
        return f"key from {self.variable}{also}"

    def hide(self, text: str) -> str:
        """`text` without the key, whoever repeated it."""
        return text.replace(self.secret, HIDDEN)

    def __reduce__(self):
        raise TypeError("a key is not written anywhere")


def find_key() -> Key:
    """The key of this process; GOOGLE_API_KEY wins, as in Google's own client.

    Raises:
        MissingKeyError: neither variable holds one.
        InputError: what it holds cannot be a key; names the variable, never the text.
    """
    found = [(name, os.environ.get(name, "").strip()) for name in VARIABLES]
    found = [(name, secret) for name, secret in found if secret]
    if not found:
        raise MissingKeyError(f"no Gemini key: neither {' nor '.join(VARIABLES)} is set; {HOW_TO_GET}")
    (variable, secret), *others = found
    if not _may_be_key(secret):
        raise InputError(
            f"{variable} holds {len(secret)} characters that are no key; expected letters, digits and signs of ASCII, "
            f"without spaces, line breaks, quotes and backslashes; {HOW_TO_GET}"
        )
    return Key(variable, secret, tuple(name for name, _ in others))


def _may_be_key(text: str) -> bool:
    """Whether it fits into an HTTP header, and stands in JSON as it is, so that `hide` finds it there."""
    return text.isascii() and text.isprintable() and not set(text) & set(" \"'\\")
