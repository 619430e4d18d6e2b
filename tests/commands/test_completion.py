"""What a shell is answered that asks for completions, and that this is light."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import run_cli
from wanedit import commands


def answered(line: str, folder: Path) -> list[str]:
    """The words for the end of a line, as argcomplete's part in the shell asks for them."""
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1"}
    asked |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "answer")}
    command = [sys.executable, "-X", "importtime", "-m", "wanedit"]
    ran = subprocess.run(
        command, env=os.environ | asked, cwd=folder, check=True, timeout=60, capture_output=True
    )
    # A person waits for it.
    assert b"torch" not in {line.rpartition(b"|")[2].strip() for line in ran.stderr.splitlines()}
    return [word.strip() for word in (folder / "answer").read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wanedit gen", ["generate"]),
        ("wanedit edit --method resid", ["residual_corrected"]),
        ("wanedit edit --restore ", ["auto", "none", "source", "residual", "keyframes"]),
        ("wanedit init e", ["edit"]),
        ("wanedit edit fi", ["film.mp4"]),
        ("wanedit edit film.mp4 --alp", ["--alpha"]),
    ],
)
def test_words_are_completed(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "film.mp4").touch()
    assert answered(line, tmp_path) == words


def test_every_command_is_offered(tmp_path: Path) -> None:
    assert set(commands.names()) <= set(answered("wanedit ", tmp_path))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_ask(shell: str) -> None:
    assert "wanedit" in run_cli("completion", shell).out


def test_another_shell_is_named(tmp_path: Path) -> None:
    assert "expected one of bash, zsh, fish" in run_cli("completion", "powershell").err
