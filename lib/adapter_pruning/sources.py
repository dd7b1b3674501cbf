"""Rows from the hub, or from a folder in the hub's layout: one parquet folder a configuration."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .errors import PruningError


class Place(NamedTuple):
    """Where a data set is.

    Attributes:
        source: a hub name or a folder.
        hub: the hub name that `revision` belongs to, and whose layout a folder has.
        revision: the commit that is pinned for `hub`.
        config: the hub's name for the part of the data set.
        folder: where a folder keeps that part; the same name unless it says otherwise.
    """

    source: str
    hub: str
    revision: str
    config: str
    folder: str = ""


def read(place: Place, task: str, splits: tuple[str, ...]) -> tuple[list[pd.DataFrame], str]:
    """A frame for each of the splits, and the revision of the data.

    Raises:
        PruningError: no such folder, no such split in it, a damaged file, or a hub that is out of
            reach.
    """
    if Path(place.source).is_dir():
        return _read_folder(place, task, splits)
    if place.source.startswith((".", "/", "~")):
        raise PruningError(
            f"no folder {place.source!r}; give a folder in the layout of {place.hub}"
        )
    return _read_hub(place, splits)


def _read_folder(
    place: Place, task: str, splits: tuple[str, ...]
) -> tuple[list[pd.DataFrame], str]:
    inside = place.folder or place.config
    digest, frames = hashlib.sha256(), []
    for split in splits:
        files = sorted((Path(place.source) / inside).glob(f"{split}-*.parquet"))
        if not files:
            raise PruningError(
                f"task {task!r} needs {inside}/{split}-*.parquet in {place.source!r}, "
                f"which is not there"
            )
        for file in files:
            digest.update(file.read_bytes())
        frames.append(pd.concat([_read_parquet(file) for file in files], ignore_index=True))
    return frames, f"sha256:{digest.hexdigest()[:16]}"


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise PruningError(
            f"the data file {str(file)!r} is damaged ({type(error).__name__}); fetch it again"
        ) from error


def _read_hub(place: Place, splits: tuple[str, ...]) -> tuple[list[pd.DataFrame], str]:
    from datasets import load_dataset

    revision = place.revision if place.source == place.hub else None
    try:
        data = load_dataset(place.source, place.config, revision=revision)
        frames = [data[split].to_pandas() for split in splits]
    except Exception as error:  # the hub client raises many kinds, all of them mean "not got"
        raise PruningError(
            f"could not load {place.config!r} of {place.source!r} ({', '.join(splits)}) from the "
            f"hub ({type(error).__name__}); check the name and the network, or give a folder in "
            f"that layout as the source"
        ) from error
    return frames, revision or data[splits[0]]._fingerprint
