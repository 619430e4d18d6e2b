"""What a shell is answered that asks for completions, and that this is light."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
        ("wanedit edit --restore ", ["auto", "none", "source", "residual", "keyframes", "fused"]),
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


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    """Types into an interactive bash and reads its terminal until a pattern is there; returns what it read."""
    (tmp_path / "film.mp4").touch()
    program = tmp_path / "bin" / "wanedit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wanedit "$@"\n')
    program.chmod(0o755)
    here = Path(__file__).parents[2]
    env = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(here),
        "PS1": "ready> ",
        "TERM": "dumb",
        "INPUTRC": os.devnull,
        "COLUMNS": "200",
    }
    own, theirs = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(theirs)

    def type_in(keys: str, until: str) -> str:
        os.write(own, keys.encode())
        seen, end = "", time.monotonic() + 60
        while not re.search(until, seen):
            assert time.monotonic() < end, f"{until!r} is not in {seen!r}"
            if select.select([own], [], [], 1)[0]:
                seen += os.read(own, 1 << 16).decode(errors="replace")
        return seen

    try:
        type_in("", "ready> ")
        yield type_in
    finally:
        os.close(own)  # which hangs up
        bash.kill()
        bash.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_tab_completes_in_an_interactive_bash(typed: Callable[[str, str], str]) -> None:
    typed('eval "$(wanedit completion bash)"; echo begun\n', r"\nbegun\r\nready> ")
    clear = "\x15"  # Ctrl-U
    typed("wanedit gen\t", "wanedit generate ")
    typed(f"{clear}wanedit edit film.mp4 --alp\t", "--alpha ")
    typed(f"{clear}wanedit edit --restore resi\t", "--restore residual ")
    typed(f"{clear}wanedit edit fil\t", r"film\.mp4 ")
    # More than one: Tab twice lists them.
    listed = typed(f"{clear}wanedit edit --restore \t\t", r"source[^>]*ready> ")
    assert {"auto", "keyframes", "none", "residual", "source"} <= set(listed.split())
