"""scripts/supply.py, and that nothing which wanedit imports opens the network by being imported."""

import json
import subprocess
import sys
import types
from importlib.metadata import PackageMetadata, packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_floors import modules
from tests.test_repository import project


@pytest.fixture
def supply(repository: Path) -> types.ModuleType:
    spec = spec_from_file_location("supply", repository / "scripts" / "supply.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_is_needed_is_pinned_and_its_licence_known(supply: types.ModuleType) -> None:
    assert list(supply.faults()) == []


def test_what_is_not_pinned_or_pinned_otherwise_is_found(
    supply: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = supply.pinned()
    del pins["rich"]
    monkeypatch.setattr(supply, "pinned", lambda: pins | {"pillow": "1.0", "gone": "2.0"})
    found = list(supply.faults())
    assert any(fault.startswith("rich ") and "not in constraints.txt" in fault for fault in found)
    assert any("pillow is installed as" in fault and "constraints.txt has 1.0" in fault for fault in found)
    assert any(fault.startswith("gone is not in licences.md") for fault in found)


def test_a_licence_that_asks_something_needs_a_remark(
    supply: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "REMARKS", {})
    found = [fault.split(" ")[0] for fault in supply.faults() if "remarks nothing" in fault]
    assert {"certifi", "hypothesis", "pathspec", "tqdm"} <= set(found)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ("License-Expression: MIT\nLicense: other", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: UNKNOWN", "BSD License"),
        ("License: Apache 2.0", "Apache 2.0"),
        ("License: UNKNOWN", "not said"),
        ("Summary: none", "not said"),
    ],
)
def test_a_licence_is_read_as_metadata_says_it(supply: types.ModuleType, headers: str, said: str) -> None:
    from email import message_from_string

    class Package:
        metadata: PackageMetadata = message_from_string(headers)  # pyright: ignore[reportAssignmentType]

    assert supply.licence(Package()) == said


WATCHED = """
import importlib, json, sys
asked = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        asked.append([event, repr(arguments[-1]), sorted(sys.modules)[-1]])
        raise OSError("no network here")
sys.addaudithook(hook)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(asked))
"""


@pytest.mark.slow
def test_nothing_opens_the_network_by_being_imported(repository: Path) -> None:
    direct = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}
    # Names of modules by what is installed; those with a dot or a bar are files of a wheel.
    theirs = [
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and not module.startswith("_") and {*map(canonicalize_name, names)} & direct
    ]
    assert {"torch", "wandb", "diffsynth", "google", "PIL", "cv2"} <= set(theirs)
    ours = [name for name in modules(repository) if name != "wanedit.__main__"]
    found = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps([*theirs, "google.genai", *ours])],
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == []


def test_the_watch_sees_a_module_that_asks(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(
        "import contextlib, socket\nwith contextlib.suppress(OSError):\n"
        "    socket.create_connection(('example.invalid', 80))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", WATCHED, '["asks"]'], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert [event for event, *_ in json.loads(found.stdout)] == ["socket.getaddrinfo"]
