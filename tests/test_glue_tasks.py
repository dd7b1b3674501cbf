"""GLUE from a folder or from the hub, and what bad input is told."""

import shutil

import datasets
import pandas as pd
import pytest
from small_glue import rows, write_glue

import adapter_pruning as ap
from adapter_pruning import specs
from adapter_pruning.specs import TASKS

# GLUE from a folder

GLUE = [
    ("cola", 1043, {"matthews": 0.0, "accuracy": 721 / 1043}),
    ("sst2", 872, {"accuracy": 444 / 872}),
    ("mrpc", 408, {"accuracy": 279 / 408, "f1": 2 * 279 / (279 + 408)}),
    ("stsb", 1500, {"spearman": 0.0, "pearson": 0.0}),
    ("mnli", 9815, {"accuracy": 3479 / 9815}),
    ("qnli", 5463, {"accuracy": 2702 / 5463}),
    ("rte", 277, {"accuracy": 146 / 277}),
    ("wnli", 71, {"accuracy": 40 / 71}),
]


@pytest.mark.parametrize(("name", "size", "majority"), GLUE)
def test_a_glue_development_set_has_its_known_size_and_majority_baseline(
    glue_folder, name, size, majority
):
    task = ap.load_task(f"glue/{name}", str(glue_folder))
    assert task.sizes["test"] == len(task.test) == size
    assert task.majority == pytest.approx(majority)


def test_majority_baselines_are_the_published_ones(glue_folder):
    found = {
        name: ap.load_task(f"glue/{name}", str(glue_folder)).majority["accuracy"]
        for name in ("mrpc", "rte", "wnli")
    }
    assert {name: f"{score:.4f}" for name, score in found.items()} == {
        "mrpc": "0.6838",
        "rte": "0.5271",
        "wnli": "0.5634",
    }


# One row of each development set whose label everybody can check by reading it.
KNOWN = [
    ("rte", "not_entailment", "Dana Reeve, the widow of the actor Christopher Reeve, has died"),
    ("mnli", "neutral", "The new rights are nice enough"),
    ("cola", "acceptable", "The sailors rode the breeze clear of the rocks."),
]


@pytest.mark.parametrize(("name", "label", "beginning"), KNOWN)
def test_label_names_are_in_the_order_of_the_ids_in_the_data(glue_folder, name, label, beginning):
    task = ap.load_task(f"glue/{name}", str(glue_folder))
    assert set(task.test.labels.tolist()) == set(range(task.outputs))
    row = next(i for i, text in enumerate(task.test.texts[0]) if text.startswith(beginning))
    assert task.spec.labels[task.test.labels[row]] == label


def test_a_folder_without_the_split_says_which_file_it_misses(glue_folder, refused):
    with refused("'glue/mnli-mm'", "mnli/validation_mismatched-*.parquet", str(glue_folder)):
        ap.load_task("glue/mnli-mm", str(glue_folder))


def test_several_files_of_one_split_are_one_split(tiny_rte):
    first = write_glue(tiny_rte, split="train", n=40)
    shutil.copy(first, first.with_name("train-00001-of-00002.parquet"))
    task = ap.load_task("glue/rte", str(tiny_rte))
    assert task.sizes == {"train": 72, "validation": 8, "test": 40}


def test_the_revision_of_a_folder_follows_its_content(tiny_rte):
    before = ap.load_task("glue/rte", str(tiny_rte)).revision
    assert ap.load_task("glue/rte", str(tiny_rte)).revision == before
    write_glue(tiny_rte, split="validation", n=38)
    assert ap.load_task("glue/rte", str(tiny_rte)).revision != before


# From the hub, without one


def test_the_hub_is_asked_for_the_pinned_revision_and_read_like_a_folder(monkeypatch, tiny_rte):
    asked = []

    def hub(source, config, revision):
        asked.append((source, config, revision))
        read = {s: next(tiny_rte.glob(f"rte/{s}-*.parquet")) for s in ("train", "validation")}
        return {s: datasets.Dataset.from_pandas(pd.read_parquet(f)) for s, f in read.items()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    found, expected = ap.load_task("glue/rte"), ap.load_task("glue/rte", str(tiny_rte))
    assert asked == [("nyu-mll/glue", "rte", specs.GLUE_REVISION)]
    assert found.revision == specs.GLUE_REVISION
    for split in ("train", "validation", "test"):
        assert rows(getattr(found, split)) == rows(getattr(expected, split))


def test_a_hub_name_that_cannot_be_reached_says_what_to_try(refused):
    # conftest.py takes the hub away.
    with refused("'rte' of 'nobody/no-such-data'", "network", "give a folder"):
        ap.load_task("glue/rte", "nobody/no-such-data")


def test_a_hub_dataset_without_the_split_is_refused(monkeypatch, refused):
    only = {"train": datasets.Dataset.from_dict({"label": [0]})}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: only)
    with refused("could not load 'mnli' of 'some/data'"):
        ap.load_task("glue/mnli-mm", "some/data")


# Bad input


def test_an_unknown_task_is_answered_with_the_known_ones(refused):
    with refused("unknown task 'rte'", *TASKS):
        ap.load_task("rte")


def test_a_missing_folder_is_named(tmp_path, refused):
    with refused(str(tmp_path / "nowhere"), "folder in the layout of nyu-mll/glue"):
        ap.load_task("glue/rte", str(tmp_path / "nowhere"))


def test_a_missing_column_is_named_with_those_that_are_there(tiny_rte, refused):
    columns = {"premise": ["a"], "sentence2": ["b"], "label": [0]}
    write_glue(tiny_rte, split="validation", columns=columns)
    with refused("'glue/rte'", "sentence1", "premise, sentence2, label"):
        ap.load_task("glue/rte", str(tiny_rte))


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: b"no parquet"])
def test_a_damaged_data_file_is_named_with_the_remedy(tiny_rte, refused, damage):
    file = next(tiny_rte.glob("rte/train-*"))
    file.write_bytes(damage(file.read_bytes()))
    with refused(str(file), "damaged", "fetch it again"):
        ap.load_task("glue/rte", str(tiny_rte))


@pytest.mark.parametrize("name", ["rotten_tomatoes", "stsb"])
def test_an_embedded_task_takes_no_source(refused, tmp_path, name):
    with refused(repr(name), "takes no source"):
        ap.load_task(name, str(tmp_path))


@pytest.mark.parametrize("which", ["train_size", "validation_size", "test_size"])
@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_size_that_keeps_nothing_is_named(tiny_rte, refused, which, size):
    with refused(f"{which} is {size}", "whole number, at least 1"):
        ap.load_task("glue/rte", str(tiny_rte), **{which: size})


@pytest.mark.parametrize("share", [-0.1, 1, 1.0, 1.5, float("nan"), True])
def test_a_held_out_share_out_of_range_is_refused(tiny_rte, refused, share):
    with refused(f"hold_out is {share!r}", "at least 0 and below 1"):
        ap.load_task("glue/rte", str(tiny_rte), hold_out=share)


@pytest.mark.parametrize(
    "share",
    [
        "0.1",
        None,
        False,
        1e-5,
        0.9999,
    ],
)
def test_a_held_out_share_that_is_no_number_or_leaves_no_rows_is_refused(tiny_rte, refused, share):
    with refused("hold_out", repr(share)):
        ap.load_task("glue/rte", str(tiny_rte), hold_out=share)
