"""Checkpoints from the Hugging Face hub, through `huggingface_hub` and its cache, which other programs share.

A folder in that cache (documented in its guide "Understand caching") is
`models--OWNER--REPO/snapshots/COMMIT`: links into `models--OWNER--REPO/blobs`, where a file is named by the ETag that
the hub gave it, which for the large ones is their SHA-256. `refs/main` holds the commit that `main` last was.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .. import paths
from ..config import GPT2Config
from ..progress import progress_bar
from ..strict_json import CONFIG_BYTES, LARGE_BYTES, SMALL_BYTES, read_object
from .transfer import RefusedError, Transfer


class DownloadError(Exception):
    """A model that could not be fetched: one line with what was wrong, the value and the cure."""


@dataclass(frozen=True)
class Release:
    """Where a model lies on the hub and, if known, what its `model.safetensors` is."""

    repo: str
    revision: str  # a commit, or a branch
    n_bytes: int | None = None
    sha256: str | None = None


RELEASES = {
    "gpt2": Release(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        548_105_171,
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": Release(
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        1_519_984_962,
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": Release(
        "openai-community/gpt2-large",
        "32b71b12589c2f8d625668d2335a01cac3249519",
        None,
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": Release(
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        None,
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
    "distilgpt2": Release(
        "distilbert/distilgpt2",
        "2290a62682d06624634c1f46a6ad5be0f47f38aa",
        352_824_413,
        "e1ff18884359fe8beb795a5f414feb85a6ce3d929ad019c0d958c039d2b94a1b",
    ),
}
"""The official models by their short names: the commits that nbgpt was made with."""

_CONFIG = "config.json"
_TEXT_FILES = (  # what formats/vocabulary.py reads, as far as a repository has it
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "generation_config.json",
)
_OFFICIAL_WEIGHTS = "model.safetensors"  # the file that `Release` describes
_WEIGHTS = (_OFFICIAL_WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_MAX_SHARDS = 1000
_MAX_WEIGHTS = 1 << 37  # bytes; the largest model of this architecture has 13 billion parameters
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def fetch(name: str) -> Path:
    """Bring an official model or `OWNER/REPO` into huggingface_hub's cache and return the folder that holds it.

    The config, the tokenizer's files and one kind of weights are fetched, each only if the cache lacks it, and the
    weights are checked against the size and the SHA-256 that nbgpt or the hub knows. A file that fails leaves the
    cache. Official models come at a fixed commit, others from `main`.

    Raises DownloadError.
    """
    release = _release(name)
    try:
        folder = locate(name)
        if folder is None or release.sha256 is None:  # the main branch may have moved on
            folder = _download(release, folder)
        for file in _weights(folder):
            _verify(file, release)
    except OSError as error:
        place = error.filename or _hub_cache()
        raise DownloadError(f"cannot use {place}: {error.strerror or error}; set HF_HOME to another folder") from error
    return folder


def locate(name: str) -> Path | None:
    """The folder of an official model or `OWNER/REPO` that is already downloaded, or None; without a network.

    Weights that another program fetched are found too, official ones at any commit that has the same file. Only the
    presence of the files is looked at. Raises DownloadError for a name that can be no model's.
    """
    return next((folder for folder in _snapshots(_release(name)) if _weights(folder)), None)


def _release(name: str) -> Release:
    for short, release in RELEASES.items():
        if name in (short, release.repo):
            return release
    if re.fullmatch(r"\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", name, re.ASCII) and not re.search(r"--|\.\.", name):
        return Release(name, "main")
    cure = _suggestion(name) or f"; it must be {', '.join(RELEASES)} or OWNER/REPO"
    raise DownloadError(f"unknown model {name!r}{cure}")


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.strip().lower().split("/")[-1], RELEASES, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _hub_cache() -> Path:
    """huggingface_hub's cache folder, by the rules of its `constants.py` but without the cost of its import."""
    home = os.environ.get("HF_HOME", os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/huggingface")
    default = os.environ.get("HUGGINGFACE_HUB_CACHE", home + "/hub")
    cache = os.path.expandvars(os.environ.get("HF_HUB_CACHE", default))
    return Path(os.path.expanduser(cache))  # noqa: PTH111 (Path's own raises where there is no home)


def _snapshots(release: Release) -> Iterator[Path]:
    """Folders of the cache that may hold the release."""
    if release.sha256 is None:
        root = _hub_cache() / f"models--{release.repo.replace('/', '--')}"
        ref = root / "refs" / release.revision
        with paths.named(ref):
            commit = ref.read_text(errors="replace").strip() if ref.is_file() else ""
        if re.fullmatch("[0-9a-f]{40}", commit):  # it is about to become a path
            yield root / "snapshots" / commit
        return
    former_repo = release.repo.split("/")[1]  # the official repositories once had no owner
    for repo in (release.repo, former_repo):
        for folder in sorted((_hub_cache() / f"models--{repo.replace('/', '--')}" / "snapshots").glob("*")):
            if folder.name == release.revision or _stated_sha256(folder / _OFFICIAL_WEIGHTS) == release.sha256:
                yield folder


def _weights(folder: Path) -> list[Path]:
    """The weight files of a snapshot; none if any file is missing."""
    if not (folder / _CONFIG).is_file():
        return []
    for name in _WEIGHTS:
        if (folder / name).is_file():
            names = _shards(folder / name) if name.endswith(".index.json") else [name]
            files = [folder / name for name in names]
            return files if all(file.is_file() for file in files) else []
    return []


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    # A name is about to become a path and part of a URL.
    shard = re.compile(r"\w[\w.-]*\.(safetensors|bin)", re.ASCII)
    if not 0 < len(names) <= _MAX_SHARDS or not all(isinstance(name, str) and shard.fullmatch(name) for name in names):
        raise DownloadError(f"{index}: its weight_map does not map tensors to files beside it; choose another model")
    return names


def _download(release: Release, present: Path | None) -> Path:
    """Fetch what the cache lacks; `present` is the folder to fall back on when the network is not to be used."""
    try:
        from huggingface_hub import constants
    except ImportError:
        raise DownloadError("download needs the package huggingface_hub: pip install 'nbgpt[download]'") from None
    if constants.HF_HUB_OFFLINE:
        if present is None:
            raise DownloadError(f"HF_HUB_OFFLINE is set and {release.repo} is not in {_hub_cache()}; unset it to fetch")
        return present
    config = _get(release, _CONFIG, CONFIG_BYTES)
    if config is None:
        raise DownloadError(f"{release.repo} has no {_CONFIG}; nbgpt needs a repository of a GPT-2 for transformers")
    room = _most_bytes(_architecture(config, release))
    release = replace(release, revision=config.parent.name)  # a branch that moves meanwhile must not mix commits
    for name in _TEXT_FILES:
        if not _is_known_to_lack(release, name):
            _get(release, name, LARGE_BYTES)
    limits = {name: SMALL_BYTES if name.endswith(".json") else room for name in _WEIGHTS}
    weights = next((file for name, limit in limits.items() if (file := _get(release, name, limit))), None)
    if weights is None:
        raise DownloadError(f"{release.repo} has none of {', '.join(_WEIGHTS)}; nbgpt reads no other weights")
    for name in _shards(weights) if weights.name.endswith(".index.json") else []:
        shard = _get(release, name, room)
        if shard is None:
            raise DownloadError(f"{release.repo} lacks {name}, which {weights.name} names; choose another model")
        room -= shard.stat().st_size
    return config.parent


def _is_known_to_lack(release: Release, name: str) -> bool:
    """Has the hub said before that this commit has no such file?"""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    found = try_to_load_from_cache(release.repo, name, cache_dir=_hub_cache(), revision=release.revision)
    return found is _CACHED_NO_EXIST


def _architecture(config: Path, release: Release) -> GPT2Config:
    """The config. Raises DownloadError for a model that nbgpt cannot run, before its weights are fetched."""
    try:
        return GPT2Config.from_hugging_face(read_object(config, CONFIG_BYTES))
    except (ValueError, TypeError) as error:
        raise DownloadError(f"{release.repo} is no model for nbgpt: {_one_line(error)}") from error


def _most_bytes(config: GPT2Config) -> int:
    """More bytes than the weights of a model can have: in float64, not tied, with a float64 mask in each layer."""
    numbers = config.n_parameters + config.n_vocab * config.n_embd + config.n_layer * config.n_ctx**2
    return min(8 * numbers + (64 << 20), _MAX_WEIGHTS)


def _get(release: Release, name: str, limit: int) -> Path | None:
    """One file of a repository, from the cache or else the hub; None if the repository has no such file.

    limit: bytes that it may have.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        fetch = partial(hf_hub_download, release.repo, name, revision=release.revision, cache_dir=_hub_cache())
        file = Path(Transfer(limit).run(fetch))
        if not _is_in_cache(file):
            raise RefusedError(f"it was written to {file}, outside the cache")
        return file
    except Exception as error:  # requests, httpx, hf_xet and the disk share no other base
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise DownloadError(_explanation(error, release, name)) from error


def _is_in_cache(file: Path) -> bool:
    """True if a file of a snapshot, and what it links to, lie in the cache, whatever folders are links in turn."""
    target = file.parent / file.readlink() if file.is_symlink() else file
    cache = os.path.abspath(_hub_cache())  # noqa: PTH100 (resolve() would follow the links)
    return all(Path(os.path.abspath(path)).is_relative_to(cache) for path in (file, target))  # noqa: PTH100


def _explanation(error: Exception, release: Release, name: str) -> str:
    """One line for what huggingface_hub raised; the order matters, for the classes are derived from each other."""
    from huggingface_hub import constants, errors

    repo, endpoint = release.repo, constants.ENDPOINT
    if isinstance(error, RefusedError):
        return f"{name} of {repo} at {endpoint} is refused: {error}; is that the hub, and nobody between you and it?"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: accept its terms at {endpoint}/{repo}, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no {repo} at {endpoint}, or it is private: run `hf auth login` or set HF_TOKEN{_suggestion(repo)}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {release.revision} at {endpoint}; is HF_ENDPOINT a full mirror of the hub?"
    if isinstance(error, errors.LocalEntryNotFoundError):
        reason = _one_line(error.__cause__ or error)
        return f"cannot get {name} of {repo} from {endpoint}: {reason}; check the network, HF_ENDPOINT and proxies"
    if isinstance(error, errors.HfHubHTTPError):
        return f"cannot get {name} of {repo} from {endpoint}: {_one_line(error)}; check HF_TOKEN and HF_ENDPOINT"
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return f"cannot write {name} to {_hub_cache()}: {error.strerror}; make room or set HF_HOME to another folder"
    again = "run the same command again, files that are whole are kept"
    return f"the download of {name} from {repo} at {endpoint} broke off: {_one_line(error)}; {again}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stated_sha256(file: Path) -> str | None:
    """What the hub said of a file of the cache: its blob's name. None for a small file, or where links are copies."""
    blob = file.readlink().name if file.is_symlink() else ""
    return blob if re.fullmatch("[0-9a-f]{64}", blob) else None


def _verify(file: Path, release: Release) -> None:
    official = release.sha256 is not None and file.name == _OFFICIAL_WEIGHTS
    n_bytes = release.n_bytes if official else None
    sha256 = release.sha256 if official else _stated_sha256(file)
    found_bytes = file.stat().st_size
    if n_bytes is not None and found_bytes != n_bytes:
        raise _broken(file, f"{n_bytes} bytes", f"{found_bytes}")
    if sha256 is not None and (found := _sha256(file)) != sha256:
        raise _broken(file, f"SHA-256 {sha256}", found)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    size = file.stat().st_size
    with (
        paths.named(file),
        file.open("rb") as raw,
        progress_bar(f"checking {file.name}", "B", size, unit_scale=True, leave=False) as bar,
    ):
        while block := raw.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _broken(file: Path, expected: str, found: str) -> DownloadError:
    """Take a file that is not what it should be out of the cache, and say so."""
    try:
        _remove(file)
        cure = "it was removed from the cache, run the same command again"
    except OSError as error:
        cure = f"remove {file.resolve()} by hand ({error.strerror}) and run the same command again"
    return DownloadError(f"{file.name} of {file.parent} is damaged: expected {expected}, found {found}; {cure}")


def _remove(file: Path) -> None:
    """Remove a file and the blob that it links to: a link alone would only be made again, to the same blob."""
    cache = Path(os.path.abspath(_hub_cache()))  # noqa: PTH100 (resolve() would follow the links)
    while file.is_symlink():  # a blob may be a link in turn, into the store that repositories share
        target = file.parent / file.readlink()
        file.unlink()
        file = Path(os.path.abspath(target))  # noqa: PTH100
    if file.is_relative_to(cache):  # what lies elsewhere was put there by somebody else
        file.unlink(missing_ok=True)
