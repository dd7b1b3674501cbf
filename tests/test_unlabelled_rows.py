"""The rows without labels: those of each file of the submission, in its order."""

import datasets
import numpy as np
import pandas as pd
import pytest
from small_glue import FEW, HIDDEN, write_split

import adapter_pruning as ap
from adapter_pruning import specs, submission
from adapter_pruning.specs import TASKS
from adapter_pruning.tasks import load_unlabelled


@pytest.mark.parametrize(("file", "where"), HIDDEN.items())
def test_unlabelled_rows_are_those_of_the_file_in_its_order(glue, file, where):
    config, split = where
    rows = load_unlabelled(submission.TEST_SETS[file], str(glue))
    frame = pd.read_parquet(next((glue / config).glob(f"{split}-*.parquet")))
    assert rows.texts == tuple(
        frame[column].tolist() for column in TASKS[submission.TICKETS[file]].columns
    )
    assert rows.labels.tolist() == [-1] * FEW[file]
    assert rows.labels.dtype == (np.float64 if file == "STS-B" else np.int64)


@pytest.mark.parametrize("name", ["rotten_tomatoes", "stsb", "rte"])
def test_only_glue_has_rows_without_labels(glue, refused, name):
    with refused(f"unknown GLUE test set {name!r}", "glue/rte", "glue/ax"):
        load_unlabelled(name, str(glue))


def test_ax_is_no_task_of_its_own(glue, refused):
    with refused("unknown task 'glue/ax'"):
        ap.load_task("glue/ax", str(glue))


def test_rows_that_are_not_there_are_named(tmp_path, refused):
    with refused("'glue/mnli-mm'", "mnli/test_mismatched-*.parquet", str(tmp_path)):
        load_unlabelled("glue/mnli-mm", str(tmp_path))
    with refused("no folder", str(tmp_path / "no")):
        load_unlabelled("glue/rte", str(tmp_path / "no"))
    write_split(tmp_path, "ax", "test", ["premise"], [0])
    with refused("'glue/ax'", "hypothesis"):
        load_unlabelled("glue/ax", str(tmp_path))


def test_the_hub_is_asked_for_the_pinned_rows(monkeypatch, glue, refused):
    asked = []

    def hub(source, config, revision):
        asked.append((source, config, revision))
        frame = pd.read_parquet(next(glue.glob("ax/test-*.parquet")))
        return {"test": datasets.Dataset.from_pandas(frame)}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert load_unlabelled("glue/ax").texts == load_unlabelled("glue/ax", str(glue)).texts
    assert asked == [("nyu-mll/glue", "ax", specs.GLUE_REVISION)]
    with refused("'mnli' of 'nyu-mll/glue'", "test_matched"):
        load_unlabelled("glue/mnli")
