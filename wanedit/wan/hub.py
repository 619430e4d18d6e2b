"""Downloads from the Hugging Face hub, by its own library: resumed where they broke, hashed before they count."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from wanedit.errors import MissingWeightsError, ResourceError, ServiceError
from wanedit.files import reading, system_errors
from wanedit.wan.checkpoint import sha256


def fetch(repository: str, folder: Path | None, say: Callable[[str], None]) -> Path:
    """Every file of a repository; what is there and has its hash is not fetched again.

    Args:
        repository: owner/name.
        folder: that they come to; None for the hub's cache ($HF_HOME), where other programs find them, too.
        say: told what is about to be fetched.

    Returns:
        The folder that holds them.

    Raises:
        ServiceError: the hub cannot be reached, has no such repository, or broke off; a further run goes on.
        ResourceError: less room on the disk than what is missing.
        MissingWeightsError: a file has another hash than the hub says; it is removed.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    answer = "an answer of the hub; run again, what has come is kept"
    with reading(repository, answer, ServiceError):
        found = HfApi().model_info(repository, files_metadata=True)
    files = {one.rfilename: one for one in found.siblings or []}
    total = sum(one.size or 0 for one in files.values())
    place = folder or Path(HF_HUB_CACHE)
    with system_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        there = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) if folder else 0
        free = shutil.disk_usage(place).free
    if total - there > free:
        raise ResourceError(
            f"{repository} has {total / 1e9:.1f} GB; {place} has room for {free / 1e9:.1f} GB"
        )
    say(f"{repository}: {len(files)} files, {total / 1e9:.2f} GB, to {place}")
    home = place
    for name, one in files.items():
        with reading(f"{repository}/{name}", answer, ServiceError):
            path = Path(hf_hub_download(repository, name, local_dir=folder))
        home = path.parents[len(Path(name).parts) - 1]
        # The library compares sizes alone.
        expected = one.lfs.sha256 if one.lfs else one.blob_id
        got = sha256(path) if one.lfs else _git_sha1(path)
        if got != expected:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise MissingWeightsError(
                f"{path} has the hash {got}; the hub says {expected}. It is removed: run again"
            )
    return home


def _git_sha1(path: Path) -> str:
    """The name that git gives a file's bytes."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
