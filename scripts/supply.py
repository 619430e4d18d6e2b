"""What the project is built on, checked without a network: every package is pinned, and every licence is known.

python scripts/supply.py          # exit 1, and a line for each thing that is wrong
python scripts/supply.py --write  # docs/licences.md anew, from the metadata of what is installed

Known holes need a network: `pip install pip-audit && pip-audit -r constraints.txt --no-deps --disable-pip`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "licences.md"
OWN, UNKNOWN = "wanedit", "not said"
# Not pinned: the installer is whatever made the environment.
UNPINNED = {OWN, "pip"}
# What asks something of who passes it on, or says nothing that can be judged here.
REMARKABLE = re.compile(rf"GPL|MPL|EPL|CDDL|EUPL|BY-SA|Mozilla|Proprietary|NVIDIA|{UNKNOWN}", re.IGNORECASE)

_MPL = "asks that changes to its own files be passed on; there are none"
_NVIDIA = "NVIDIA's own licence; comes with torch for CUDA, and only on Linux"
# By package: also what its wheel holds beside its own code, which its metadata does not say.
REMARKS = {
    "av": "the wheel holds FFmpeg (LGPL 3 or later) with libx264 and libx265 (GPL 2 or later)",
    "certifi": _MPL,
    "cuda-toolkit": _NVIDIA,
    "decord": "the wheel holds FFmpeg with libx264 (GPL 2 or later); an extra",
    "hypothesis": _MPL,
    "imageio-ffmpeg": "the wheel holds the program ffmpeg (GPL 3 or later); comes with diffsynth, never called here",
    "opencv-python-headless": "the wheel holds FFmpeg (LGPL 2.1 or later)",
    "openexr": "BSD-3-Clause by its repository; comes with cvvdp, an extra, never called here",
    "orjson": _MPL,
    "pathspec": _MPL,
    "pillow-heif": "the wheel holds libheif and libde265 (LGPL 3 or later) and libx265 (GPL 2 or later); an extra",
    "tqdm": _MPL,
}
HEAD = """# Licences of what wanedit is built on

Made by `python scripts/supply.py --write` from the metadata of the packages in `constraints.txt`; a test sees that it
is current. wanedit itself is Apache-2.0 and holds no code of theirs. *running*: installed by `pip install .`;
*developing*: by the extras alone.

| package | licence | for | remark |
|---|---|---|---|
"""


def installed() -> dict[str, Distribution]:
    """By canonical name; of two, such as one that setuptools carries along, that which is imported."""
    return {canonicalize_name(one.metadata["Name"]): one for one in reversed([*distributions()])}


def pinned() -> dict[str, str]:
    """Versions of constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pairs}


def licence(package: Distribution) -> str:
    """As its metadata says it: an SPDX expression, else classifiers, else a line of its own words."""
    about = package.metadata
    if said := about.get_all("License-Expression"):
        return said[0]
    classes = [
        name.split(" :: ")[-1] for name in about.get_all("Classifier", []) if name.startswith("License ::")
    ]
    words = "".join(about.get_all("License", [])).strip().splitlines()
    own = words[0] if len(words) == 1 and words[0] != "UNKNOWN" else UNKNOWN
    return " / ".join(name for name in classes if name != "DFSG approved") or own


def needed(packages: dict[str, Distribution], *extras: str) -> set[str]:
    """The installed packages that the project needs, with these extras of it, and those that they need."""
    found: set[str] = set()
    left = [(OWN, extra) for extra in ("", *extras)]
    seen = set(left)
    while left:
        name, extra = left.pop()
        for wanted in map(Requirement, packages[name].requires or ()):
            name = canonicalize_name(wanted.name)
            if name in packages and (wanted.marker is None or wanted.marker.evaluate({"extra": extra})):
                found.add(name)
                new = {(name, extra) for extra in ("", *wanted.extras)} - seen
                seen |= new
                left += new
    return found


def remark(name: str) -> str:
    """What there is to know of a package's licence; "" for nothing."""
    return _NVIDIA if name.startswith("nvidia-") else REMARKS.get(name, "")


def rows(packages: dict[str, Distribution]) -> dict[str, str]:
    """A row of the page for each pinned package that is installed."""
    running = needed(packages)
    found = {}
    for name in sorted(pinned().keys() & packages.keys()):
        use = "running" if name in running else "developing"
        found[name] = f"| {name} | {licence(packages[name])} | {use} | {remark(name)} |"
    return found


def faults() -> Iterator[str]:
    """What is wrong, a line each."""
    packages, pins, page = installed(), pinned(), PAGE.read_text(encoding="utf-8")
    shown = {
        line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")
    }
    extras = packages[OWN].metadata.get_all("Provides-Extra", [])
    # Others may stand in the same environment.
    for name in sorted(needed(packages, *extras) - pins.keys() - UNPINNED):
        yield f"{name} {packages[name].version} is needed and not in constraints.txt"
    for name in sorted(packages.keys() & pins.keys()):
        # A wheel for one kind of device says so behind a plus.
        if (version := packages[name].version.partition("+")[0]) != pins[name]:
            yield f"{name} is installed as {version}; constraints.txt has {pins[name]}"
        if REMARKABLE.search(said := licence(packages[name])) and not remark(name):
            yield f"{name} is under {said!r}, of which scripts/supply.py remarks nothing"
    now = rows(packages)
    for name in sorted(pins):
        if name not in shown:
            yield f"{name} is not in {PAGE.name}: python scripts/supply.py --write"
        elif name in now and shown[name] != now[name]:
            yield f"{name} has another row in {PAGE.name}: python scripts/supply.py --write"
    for name in sorted(shown.keys() - pins.keys() - {"package"}):
        yield f"{name} is in {PAGE.name} and not in constraints.txt: python scripts/supply.py --write"


def main(words: list[str]) -> int:
    """Returns the exit status."""
    if words == ["--write"]:
        PAGE.write_text(HEAD + "\n".join(rows(installed()).values()) + "\n", encoding="utf-8")
        return 0
    found = list(faults())
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    found += check.stdout.splitlines() if check.returncode else []
    print("\n".join(found) or f"{len(pinned())} packages: pinned, their licences known")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
