"""The paper's sources as arXiv takes them: `python -m paper.make.arxiv outputs/paper/wanedit-arxiv.tar.gz`.

main.tex, what it takes in, and what that takes in; the bibliography stands in main.tex.
"""

import argparse
import gzip
import io
import re
import tarfile
from pathlib import Path

from paper.make.records import PAPER
from wanedit.files import atomic_path

TAKEN = re.compile(r"\\(input|includegraphics)(?:\[[^]]*\])?\{([^}]*)\}")


def sources(name: str, folder: Path = PAPER) -> list[Path]:
    """The file of this name below `folder`, then all that it takes in.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    path = folder / name
    if path.suffix != ".tex":
        return [path]
    text = re.sub(r"(?<!\\)%.*", "", path.read_text(encoding="utf-8"))
    # \input may leave the ending out; what a macro puts together is no name.
    taken = [
        other if kind != "input" or other.endswith(".tex") else f"{other}.tex"
        for kind, other in TAKEN.findall(text)
        if "#" not in other
    ]
    return list(dict.fromkeys([path, *(found for other in taken for found in sources(other, folder))]))


def archive(folder: Path = PAPER) -> bytes:
    """A gzipped tar file of the sources: the same bytes for the same sources, without dates, owners or absolute paths.

    Raises:
        FileNotFoundError: a source is not there.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sources("main.tex", folder):
            content = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(whole.getvalue(), mtime=0)


def main(words: list[str] | None = None) -> None:
    """Write it."""
    parser = argparse.ArgumentParser(prog="python -m paper.make.arxiv", description=__doc__)
    parser.add_argument("out", type=Path, help="the archive to write")
    out = parser.parse_args(words).out
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as path:
        path.write_bytes(archive())
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
