"""Code from outside the package: which files are hashed, what becomes of a change of them, and of their errors."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wanedit import outside
from wanedit.errors import InputError
from wanedit.outside import code_of, folders_of, named_error, renew, sources
from wanedit.registry import Registry

FILES = {
    "top.py": "import json\nimport numpy as np\nfrom helper import gain\nfrom pack.inner import deep\n",
    "helper.py": "def gain():\n    import lazy\n    return lazy.GAIN\n",
    "lazy.py": "GAIN = 1.0\n",
    "pack/__init__.py": "",
    "pack/inner.py": "from . import sibling\nfrom .sibling import X\ndef deep(): ...\n",
    "pack/sibling.py": "import importlib\nX = 1\ndef late():\n    return importlib.import_module('named')\n",
    "pack/unused.py": "X = 1\n",
    "named.py": "X = 1\n",
}
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Modules of the user's in the current folder, under names that no other test has; writes another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    for name, text in FILES.items():
        write(name, text)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
    outside._seen.clear()


def test_all_that_a_module_imports_is_its_code(write: Write) -> None:
    importlib.import_module("top")
    assert set(sources("top")) == {
        "top", "helper", "lazy", "pack", "pack.inner", "pack.sibling", "named",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FILES if name != "pack/unused.py"])
def test_a_change_of_any_of_its_files_changes_the_hash(write: Write, name: str) -> None:
    before = code_of("top")
    assert before == code_of("top")
    write(name, FILES[name] + "# changed\n")
    assert code_of("top") == before  # what is loaded is what runs
    renew("top")
    assert code_of("top") != before


def test_a_file_that_it_does_not_import_does_not(write: Write) -> None:
    before = code_of("top")
    write("pack/unused.py", "X = 2\n")
    renew("top")
    assert code_of("top") == before


def test_what_has_a_version_has_no_code() -> None:
    assert code_of("json", "numpy.linalg", "torch.nn", "wanedit.flow.path", "builtins") == ""


def test_one_that_is_installed_is_known_with_its_own_package_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "lib" / "site-packages"
    (home / "plug_of_test").mkdir(parents=True)
    (home / "plug_of_test" / "__init__.py").write_text(
        "from plug_of_test import part\nimport other_of_test\n"
    )
    (home / "plug_of_test" / "part.py").write_text("X = 1\n")
    (home / "other_of_test.py").write_text("X = 1\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(home)])
    assert set(sources("plug_of_test")) == {"plug_of_test", "plug_of_test.part"}


def test_a_module_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "of_a_notebook", type(sys)("of_a_notebook"))
    with pytest.raises(InputError, match="module of_a_notebook has no file"):
        code_of("of_a_notebook")


def test_a_changed_file_is_loaded_anew_whatever_its_compiled_one_says(write: Write) -> None:
    """Of the same size, within the same second, by a helper of a helper."""
    assert importlib.import_module("top").gain() == 1.0
    sources("top")
    write("lazy.py", "GAIN = 2.0\n")
    assert importlib.import_module("top").gain() == 1.0
    renew("top")
    assert importlib.import_module("top").gain() == 2.0


def test_folders_of_names(write: Write, tmp_path: Path) -> None:
    importlib.import_module("pack.sibling")
    importlib.import_module("top")
    found = folders_of(["pack.sibling:X", "top:gain", "a.png:0", "json:loads", "nowhere:X", "text", "top:"])
    assert found == [str(tmp_path)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def broken(:", "thing bad:X: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("x = y", "thing bad:X: NameError: name 'y' is not defined (bad.py, line 1)"),
        ("raise SystemExit(3)", "thing bad:X: SystemExit: 3 (bad.py, line 1)"),
        ("import nowhere_at_all", "thing bad:X: No module named 'nowhere_at_all' (bad.py, line 1)"),
        ("import bad2", "thing bad:X: ZeroDivisionError: division by zero (bad2.py, line 2)"),
    ],
)
def test_whatever_a_module_raises_is_told(write: Write, body: str, says: str) -> None:
    write("bad.py", body + "\n")
    write("bad2.py", "\n1 / 0\n")
    things: Registry[object] = Registry("thing")
    with pytest.raises(InputError) as refusal:
        things["bad:X"]
    assert says in str(refusal.value)


@pytest.mark.parametrize("name", [".bad:X", "bad:", "::", "bad:a..b", ":", "a b:X"])
def test_a_name_of_no_form_is_refused(write: Write, name: str) -> None:
    write("bad.py", "a = 1\n")
    things: Registry[object] = Registry("thing")
    with pytest.raises(InputError, match=r"expected package\.module:Name"):
        things[name]


def test_an_interrupt_and_what_we_refuse_pass() -> None:
    with pytest.raises(KeyboardInterrupt), named_error("thing"):
        raise KeyboardInterrupt
    with pytest.raises(InputError, match=r"^as it is$"), named_error("thing"):
        raise InputError("as it is")
