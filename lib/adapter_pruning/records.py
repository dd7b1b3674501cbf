"""One JSON line per trained model, with everything needed to know where it came from."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd
from filelock import FileLock

from .errors import PruningError

# What two runs with one seed may differ in; everything else must be equal to the bit.
VOLATILE = ("seconds", "peak_memory_mib", "created")
# Modules that cannot change a trained model; all others are part of every record's identity.
PRESENTATION = (
    "__init__.py",
    "claims.py",
    "controls.py",
    "efficiency.py",
    "head_plots.py",
    "lottery_plots.py",
    "papers.py",
    "parameters.py",
    "peft_format.py",
    "plots.py",
    "prune_claims.py",
    "runner.py",
    "sparse_claims.py",
    "sparse_plots.py",
    "statistics.py",
    "submission.py",
    "survivors.py",
    "tables.py",
    "tuning.py",
)


def digest(value: object) -> str:
    """Sixteen hex digits that identify a JSON-serialisable value."""
    content = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def library_hash() -> str:
    """Sixteen hex digits over the library's source, less what only presents results."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    code = [(f.name, f.read_text("utf8")) for f in files if f.name not in PRESENTATION]
    return digest(code)


def comparable(record: dict) -> dict:
    """The record without time and memory: equal for two runs with one seed on one machine."""
    return {key: value for key, value in record.items() if key not in VOLATILE}


class RecordStore:
    """A folder of JSON-lines files, one per task and seed; append-only, safe across processes.

    Raises:
        PruningError: when a file holds a line that is no record, naming file and line.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def file(self, record: dict) -> Path:
        """Where a record belongs."""
        return self.folder / f"{record['task'].replace('/', '-')}-seed{record['seed']}.jsonl"

    def append(self, record: dict) -> None:
        """Add a record, unless one with its key is there already.

        Raises:
            PruningError: a value that JSON has not, such as NaN; the folder cannot be written to
                or the disk is full, and a half-written line is taken back.
        """
        file, line = self.file(record), _line(record)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                _mend(file)
                if record["key"] not in {known["key"] for known in read(file)}:
                    _append_line(file, line)
        except OSError as error:
            raise PruningError(f"could not write {str(file)!r}: {error.strerror}") from error

    def find(self, key: str) -> dict | None:
        """The record with this key, if it was ever made."""
        return next((record for record in self.all() if record["key"] == key), None)

    def all(self) -> list[dict]:
        """Every record, files in name order, lines in the order they were written."""
        return [record for file in sorted(self.folder.glob("*.jsonl")) for record in read(file)]


def _line(record: dict) -> str:
    try:
        return json.dumps(record, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PruningError(f"the record {record['key']!r} is no valid JSON: {error}") from None


def _append_line(file: Path, line: str) -> None:
    end = file.stat().st_size if file.exists() else 0
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        content = f"{line}\n".encode()
        if os.write(descriptor, content) < len(content):
            raise OSError(28, "no space left on device")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    finally:
        os.close(descriptor)


def read(file: str | Path) -> list[dict]:
    """The records of one file; a torn last line (a killed writer's) is cut off, with a warning.

    A line that a living writer is in the middle of is waited for.

    Raises:
        PruningError: a line before the last that is not a record.
    """
    file = Path(file)
    if not file.exists():
        return []
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        with FileLock(f"{file}.lock"):
            _mend(file)
        return read(file)
    return [_parse(file, number, line) for number, line in enumerate(content.splitlines(), 1)]


def _mend(file: Path) -> None:
    """Cut off a torn last line; the caller holds the lock, so nobody is writing it."""
    content = file.read_bytes() if file.exists() else b""
    if torn := content.rpartition(b"\n")[2]:
        warnings.warn(f"{file} ended in a half-written record, which was cut off", stacklevel=3)
        os.truncate(file, len(content) - len(torn))


def _parse(file: Path, number: int, line: bytes) -> dict:
    try:
        record = json.loads(line)
        record["key"], record["task"], record["seed"]
        return record
    except (ValueError, KeyError, TypeError):
        raise PruningError(
            f"line {number} of {str(file)!r} is not a record; remove that line, and the model it "
            f"stood for is trained again"
        ) from None


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """Records as a table, one row a trained model; nested values become dotted columns."""
    return pd.json_normalize(list(records), max_level=1)


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """The models of the newest batch: what older code, data or settings left behind is dropped.

    For each task those that share library, model and rows with its newest record. Of rounds and
    controls those with the adapter and the training settings of the newest of their method, and
    of several records of one round or control the newest. Among records of one second the last
    in the frame is the newest.
    """
    newest = frame[::-1].sort_values("created", ascending=False, kind="stable")
    newest = newest[_as_the_first(newest, ["library", "model", "rows"], ["task"])]
    if "detail.unit" in frame:
        old = newest["detail.unit"].notna() & ~(
            _as_the_first(newest, ["adapter", "config"], ["task", "method"])
            & ~newest.duplicated(["task", "seed", "method", "detail.unit", "detail.round"])
        )
        newest = newest[~old]
    return newest.sort_index()


def _as_the_first(frame: pd.DataFrame, facts: list[str], within: list[str]) -> pd.Series:
    """For each row whether it has the facts, nested ones too, of the first of its group."""
    named = frame[[name for name in frame if name.partition(".")[0] in facts]]
    facts_of = named.map(repr).agg("|".join, axis=1)
    return facts_of == facts_of.groupby([frame[key] for key in within]).transform("first")
