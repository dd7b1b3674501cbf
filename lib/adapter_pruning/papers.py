"""The papers' published tables, as the book keeps them, each row with its source."""

from pathlib import Path

import pandas as pd

from .errors import choose

# Inside an installed package, or beside the library in a checkout.
_FOLDERS = (Path(__file__).parent / "papers", Path(__file__).parents[2] / "book" / "papers")


def published(name: str) -> pd.DataFrame:
    """A published table by its file name without the ending, such as `lottery_table2`.

    Raises:
        PruningError: unknown name, with the known ones.
    """
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    known = sorted(file.stem for file in folder.glob("*.csv"))
    return pd.read_csv(folder / f"{choose('published table', name, known)}.csv")
