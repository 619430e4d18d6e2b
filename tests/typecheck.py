"""Shape annotations of wanedit and tiny are checked at run time in the tests, by beartype: see `install`."""

from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType
from unittest import mock

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook

# An int is accepted as a float, as PEP 484 says.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


class _Loader(_import_hook._JaxtypingLoader):
    """jaxtyping's loader, which names its bytecode files by replacing a function of importlib.

    It does so while the module runs, so also for torch, transformers and whatever else that imports: their own
    bytecode is then not found, and 2,900 files are compiled in every test process, for six seconds. Here it does so
    for the one file only.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        name = partial(_import_hook._optimized_cache_from_source, self._typechecker.get_hash())
        with mock.patch("importlib._bootstrap_external.cache_from_source", name):
            return super().get_code(fullname)

    exec_module = SourceFileLoader.exec_module


def install() -> None:
    """From now on a module of wanedit or tiny is imported with its annotations checked."""
    _import_hook._JaxtypingLoader = _Loader
    jaxtyping.install_import_hook(["wanedit", "tiny"], "tests.typecheck.check")
