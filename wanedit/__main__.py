"""`python -m wanedit`, which torchrun needs."""

from wanedit.cli import entry

entry()
