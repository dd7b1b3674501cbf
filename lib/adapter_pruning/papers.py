"""What the book ships to compare with: published tables, recorded runs, other libraries."""

from pathlib import Path

import pandas as pd

from . import records
from .errors import choose


def _file(kind: str, folder: str, name: str, ending: str) -> Path:
    """A shipped file: inside an installed package, or in `book/` beside the library."""
    here = Path(__file__).parent
    place = next(p for p in (here / folder, here.parents[1] / "book" / folder) if p.is_dir())
    known = sorted(file.stem for file in place.glob(f"*{ending}"))
    return place / f"{choose(kind, name, known)}{ending}"


def published(name: str) -> pd.DataFrame:
    """A published table by its file name without the ending, such as `lottery_table2`.

    Raises:
        PruningError: unknown name, with the known ones.
    """
    return pd.read_csv(_file("published table", "papers", name, ".csv"))


def recorded(name: str) -> pd.DataFrame:
    """A recorded run of this project, one row a trained model, such as `quick`.

    Raises:
        PruningError: unknown name, with the known ones.
    """
    return records.frame(records.read(_file("recorded run", "results", name, ".jsonl")))


def compared() -> pd.DataFrame:
    """The last result of `make oracle`: our adapters and AdapterHub's on the same weights."""
    return pd.read_csv(_file("comparison", "results", "oracle", ".csv"), dtype=str)


def compared_gates() -> pd.DataFrame:
    """The last result of `make oracle`: gradients of our head gates and of an older head mask.

    One row a layer of MiniLM. transformers 4.57 still has a head mask; 5 has none.
    """
    return pd.read_csv(_file("comparison", "results", "oracle_gates", ".csv"), dtype=str)


def recorded_maps(name: str) -> list[dict]:
    """A recorded run of importance maps: the records of `head_runs.run_importance`.

    Raises:
        PruningError: unknown name, with the known ones.
    """
    return records.read(_file("recorded run", "results", name, ".jsonl"))
