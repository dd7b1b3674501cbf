"""The archive that GLUE's test server takes, written from recorded tickets and checked again.

    python -m adapter_pruning.submission glue.zip --records _build/paper/records --unit weight

A flat zip of eleven tab-separated files: the header `index`, `prediction`, then one line a test
row, in the order of the rows (https://gluebenchmark.com/faq). Nine files come from a ticket each,
and the diagnostic set AX from MNLI's. WNLI is left out by Wu & Chen (2022), but the server wants
its file: it gets the majority class of WNLI's training split, `not_entailment`, everywhere.
"""

import argparse
import io
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import files, tables
from .errors import PruningError, choose
from .records import RecordStore
from .specs import TASKS, TaskSpec
from .tasks import Classification, Split, Task, load_unlabelled
from .tickets import load_ticket
from .training import TrainConfig, predict
from .units import UNITS

HEADER = "index\tprediction"
_BINARY = ("0", "1")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")

# File -> how the server spells the class ids 0, 1, ...; none where it wants a number.
LABELS = {
    "CoLA": _BINARY,
    "SST-2": _BINARY,
    "MRPC": _BINARY,
    "STS-B": (),
    "QQP": _BINARY,
    "MNLI-m": _NLI,
    "MNLI-mm": _NLI,
    "QNLI": _ENTAILMENT,
    "RTE": _ENTAILMENT,
    "WNLI": _BINARY,
    "AX": _NLI,
}
# File -> rows of its test set.
ROWS = {
    "CoLA": 1063,
    "SST-2": 1821,
    "MRPC": 1725,
    "STS-B": 1379,
    "QQP": 390965,
    "MNLI-m": 9796,
    "MNLI-mm": 9847,
    "QNLI": 5463,
    "RTE": 3000,
    "WNLI": 146,
    "AX": 1104,
}
# File -> the task whose ticket predicts it, and the name of its rows.
TICKETS = tables.TASKS | {"AX": "glue/mnli"}
TEST_SETS = TICKETS | {"AX": "glue/ax"}


def write(file: str | Path, predictions: Mapping[str, np.ndarray]) -> Path:
    """Write the archive in one step; equal predictions give equal bytes.

    Args:
        predictions: file name without its ending -> (n,) class ids in the order of the task's
            labels, or similarities, which are clipped to 0 ... 5. WNLI may be left out.

    Raises:
        PruningError: a file that is missing or unknown, a wrong number of predictions, a class
            id or a number that cannot be; all of it before anything is written.
    """
    majority = np.zeros(ROWS["WNLI"], np.int64)  # 323 of 635 training rows are of class 0
    predictions = {n: np.ravel(v) for n, v in {"WNLI": majority, **predictions}.items()}
    _check_files(predictions)
    for name, values in predictions.items():
        _check_values(name, values)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in LABELS:
            about = zipfile.ZipInfo(f"{name}.tsv")  # the time in it is always the same
            about.create_system, about.external_attr = 3, 0o644 << 16  # on every system
            archive.writestr(about, _table(name, predictions[name]), zipfile.ZIP_DEFLATED)
    files.write_bytes(file, buffer.getvalue())
    return Path(file)


def _check_files(predictions: Mapping[str, np.ndarray]) -> None:
    for name in predictions:
        choose("file of a submission", name, LABELS)
    if missing := [name for name in LABELS if name not in predictions]:
        raise PruningError(
            f"no predictions for {', '.join(missing)}; a submission has all of: {', '.join(LABELS)}"
        )


def _check_values(name: str, values: np.ndarray) -> None:
    labels = LABELS[name]
    _check_count(name, len(values))
    fine = np.isin(values, np.arange(len(labels))) if labels else np.isfinite(values)
    if not fine.all():
        row = int(np.argmin(fine))
        allowed = f"a class id from 0 to {len(labels) - 1}" if labels else "a finite number"
        raise PruningError(f"{name} predicts {values[row]} for row {row}; it must be {allowed}")


def _check_count(name: str, count: int) -> None:
    if count != ROWS[name]:
        raise PruningError(f"{name} has {count} rows; the test set of GLUE has {ROWS[name]}")


def _table(name: str, values: np.ndarray) -> str:
    if labels := LABELS[name]:
        spelled = [labels[int(value)] for value in values]
    else:
        spelled = [f"{value:z.6f}" for value in np.clip(values, 0, 5)]
    lines = [f"{index}\t{prediction}" for index, prediction in enumerate(spelled)]
    return "\n".join([HEADER, *lines]) + "\n"


def validate(file: str | Path) -> None:
    """Read an archive as the server does, whoever wrote it.

    Raises:
        PruningError: no zip; files that are missing, not wanted or in folders; a wrong header,
            number of rows, index, spelling of a label or similarity, with its file and line.
    """
    for name, content in _read(Path(file)).items():
        lines = content.decode("ascii", "replace").removesuffix("\n").split("\n")
        if lines[0] != HEADER:
            raise PruningError(f"{name}.tsv, line 1: {lines[0][:80]!r} must be {HEADER!r}")
        _check_count(name, len(lines) - 1)
        for index, line in enumerate(lines[1:]):
            _check_line(name, index, line)


def _read(file: Path) -> dict[str, bytes]:
    if not file.is_file():
        raise PruningError(f"no file {str(file)!r}")
    try:
        with zipfile.ZipFile(file) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise PruningError(
            f"{str(file)!r} is not a zip archive, or a damaged one ({type(error).__name__}); "
            f"write it again"
        ) from error
    _check_names(file, [name for name, _ in members])
    return {name.removesuffix(".tsv"): content for name, content in members}


def _check_names(file: Path, names: list[str]) -> None:
    if folders := [name for name in names if "/" in name]:
        raise PruningError(f"{str(file)!r} has {folders[0]!r} in it; it must have no folders")
    wanted, found = (Counter(n) for n in ([f"{name}.tsv" for name in LABELS], names))
    if wanted != found:
        missing, extra = (", ".join(n) or "nothing" for n in (wanted - found, found - wanted))
        raise PruningError(
            f"in {str(file)!r} {missing} is missing and {extra} is not wanted; the server takes: "
            f"{', '.join(wanted)}"
        )


def _check_line(name: str, index: int, line: str) -> None:
    where = f"{name}.tsv, line {index + 2}"
    found, _, prediction = line.partition("\t")
    if found != str(index):
        raise PruningError(f"{where}: the index is {found[:80]!r}; it must be {index}")
    labels = LABELS[name]
    if not (prediction in labels if labels else _similarity(prediction)):
        allowed = f"one of: {', '.join(labels)}" if labels else "a plain number from 0 to 5"
        raise PruningError(f"{where}: the prediction is {prediction[:80]!r}; it must be {allowed}")


def _similarity(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]+(\.[0-9]+)?", text)) and float(text) <= 5


def select(
    store: RecordStore, *, unit: str, seed: int, round: int | None = None
) -> dict[str, dict]:
    """The ticket that each task enters with: task name -> record.

    Without a round it is the one with the best validation score, task by task (A6), and of
    equals the first.

    Raises:
        PruningError: an unknown unit, or tasks without such a record, all of them named.
    """
    method = f"{choose('unit', unit, UNITS)} ticket"
    known = [r for r in store.all() if (r.get("method"), r["seed"]) == (method, seed)]
    if round is not None:
        known = [r for r in known if r["detail"]["round"] == round]
    found = {
        task: [record for record in known if record["task"] == task] for task in TICKETS.values()
    }
    if missing := [task for task, records in found.items() if not records]:
        level = "" if round is None else f" of round {round}"
        raise PruningError(
            f"{str(store.folder)!r} has no {method}{level} with seed {seed} for "
            f"{', '.join(missing)}; run their searches first"
        )
    return {task: max(r, key=lambda r: r["validation_score"]) for task, r in found.items()}


def from_records(
    file: str | Path,
    store: RecordStore,
    source: str | None = None,
    *,
    unit: str = "weight",
    seed: int = 0,
    round: int | None = None,
) -> Path:
    """Write and validate the archive of one recorded ticket a task; nothing is trained.

    Args:
        source: where the test rows are: a hub name or a folder, as in `tasks.load_task`.
        unit, seed: of the searches.
        round: the same for every task, as in the paper's Table 2; None selects (see `select`).

    Raises:
        PruningError: a task without a record, a test set that is missing or not complete (both
            before a model is loaded), a round whose trained weights are gone.
    """
    records = select(store, unit=unit, seed=seed, round=round)
    rows = {name: load_unlabelled(which, source) for name, which in TEST_SETS.items()}
    for name, part in rows.items():
        _check_count(name, len(part))
    predictions = {}
    for task, record in records.items():
        parts = {name: rows[name] for name, whose in TICKETS.items() if whose == task}
        predictions |= _predict_all(store, record, parts)
    write(file, predictions)
    validate(file)
    return Path(file)


def _predict_all(
    store: RecordStore, record: dict, parts: Mapping[str, Split]
) -> dict[str, np.ndarray]:
    """Predictions of one ticket for the rows of each of its files."""
    spec, config = TASKS[record["task"]], TrainConfig(**record["config"])
    tasks = {name: _as_task(spec, rows) for name, rows in parts.items()}
    model = load_ticket(store, record, next(iter(tasks.values())))
    answers = {name: predict(model, task, "test", config)[0] for name, task in tasks.items()}
    return {name: np.array(said) for name, said in answers.items()}


def _as_task(spec: TaskSpec, rows: Split) -> Task:
    """A task to be predicted only: one row stands for the splits that nobody asks for."""
    # `predict` also takes the loss, which a label of -1 has not; nobody looks at it.
    rows = Split(rows.texts, np.zeros_like(rows.labels))
    one = rows.take(np.arange(1))
    return Classification(spec, train=one, validation=one, test=rows, revision="")


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 on success, 2 and one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="adapter_pruning.submission", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("output", type=Path)
    parser.add_argument("--records", type=Path, required=True, help="folder with the searches")
    parser.add_argument("--unit", default="weight", help=f"one of: {', '.join(UNITS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="the same for all; else the best on validation")
    parser.add_argument("--source", help="a hub name or a folder with the test rows")
    given = parser.parse_args(arguments)
    store, which = RecordStore(given.records), {"unit": given.unit, "seed": given.seed}
    try:
        from_records(given.output, store, given.source, round=given.round, **which)
    except PruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
