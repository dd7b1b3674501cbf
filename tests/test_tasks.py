"""Tasks: what each one is, which rows train, select and report, and what bad input is told."""

import dataclasses
import re
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest

import adapter_pruning as ap
from adapter_pruning import specs
from adapter_pruning.specs import TASKS

REPORTED = {
    "rotten_tomatoes": ("accuracy",),
    "stsb": ("spearman", "pearson"),
    "glue/cola": ("matthews", "accuracy"),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("f1", "accuracy"),
    "glue/stsb": ("spearman", "pearson"),
    "glue/qqp": ("f1", "accuracy"),
    "glue/mnli": ("accuracy",),
    "glue/mnli-mm": ("accuracy",),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
    "xsum": ("rougeL", "rouge1", "rouge2"),
    "squad": ("answer_f1", "exact_match"),
    "disfl_qa": ("answer_f1", "exact_match"),
}


def rows(split) -> list[tuple]:
    """A split's rows as tuples of texts and label."""
    return list(zip(*split.texts, split.labels.tolist(), strict=True))


def write_glue(folder, name="rte", split="train", columns=None, n=40):
    """One parquet file of a made-up task in the layout of nyu-mll/glue."""
    columns = columns or {
        "sentence1": [f"{split} first {i}" for i in range(n)],
        "sentence2": [f"{split} second {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
    }
    file = folder / name / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(file)
    return file


@pytest.fixture
def made_up(tmp_path):
    """A folder with a tiny glue/rte: 40 rows in each split."""
    for split in ("train", "validation"):
        write_glue(tmp_path, split=split)
    return tmp_path


@pytest.fixture(scope="module")
def whole():
    """Both embedded tasks with all their rows."""
    return {name: ap.load_task(name) for name in ("rotten_tomatoes", "stsb")}


# The registry


def test_the_registry_has_two_embedded_tasks_and_all_of_glue():
    assert set(TASKS) == set(REPORTED)


@pytest.mark.parametrize(("name", "metrics"), REPORTED.items())
def test_each_task_reports_the_metrics_of_glue_the_ranked_one_first(name, metrics):
    assert TASKS[name].metrics == metrics


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_one_or_two_text_columns_and_labels_unless_its_answer_is_no_class(name):
    spec = TASKS[name]
    single = {"rotten_tomatoes", "glue/cola", "glue/sst2", "xsum"}
    assert len(spec.columns) == (1 if name in single else 2)
    unlike = {"glue/mnli": 3, "glue/mnli-mm": 3}
    unlike |= dict.fromkeys(("stsb", "glue/stsb", "xsum", "squad", "disfl_qa"), 0)
    outputs = unlike.get(name, 2)
    assert len(spec.labels) == len(set(spec.labels)) == outputs


def test_both_mnli_tasks_share_their_training_rows_and_differ_in_what_they_report_on():
    matched, mismatched = TASKS["glue/mnli"], TASKS["glue/mnli-mm"]
    assert matched.config == mismatched.config == "mnli"
    assert matched.test_split == "validation_matched"
    assert mismatched.test_split == "validation_mismatched"


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


def test_embedded_stsb_is_the_stsb_of_glue(glue_folder, whole):
    embedded, glue = whole["stsb"], ap.load_task("glue/stsb", str(glue_folder))
    assert len(embedded.train) + len(embedded.validation) == 5749
    assert embedded.test.texts == glue.test.texts
    np.testing.assert_allclose(embedded.test.labels, glue.test.labels, rtol=1e-6)


def test_several_files_of_one_split_are_one_split(made_up):
    first = write_glue(made_up, split="train", n=40)
    shutil.copy(first, first.with_name("train-00001-of-00002.parquet"))
    task = ap.load_task("glue/rte", str(made_up))
    assert task.sizes == {"train": 72, "validation": 8, "test": 40}


def test_the_revision_of_a_folder_follows_its_content(made_up):
    before = ap.load_task("glue/rte", str(made_up)).revision
    assert ap.load_task("glue/rte", str(made_up)).revision == before
    write_glue(made_up, split="validation", n=38)
    assert ap.load_task("glue/rte", str(made_up)).revision != before


# Embedded tasks


def test_rotten_tomatoes_reports_on_1066_balanced_sentences(whole):
    task = whole["rotten_tomatoes"]
    assert np.bincount(task.test.labels).tolist() == [533, 533]
    assert task.majority == {"accuracy": 0.5}
    assert sum(task.sizes.values()) == 8530
    assert task.outputs == 2


def test_rotten_tomatoes_shares_no_sentence_between_splits(whole):
    task = whole["rotten_tomatoes"]
    parts = [set(part.texts[0]) for part in (task.train, task.validation, task.test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 8530


def test_rotten_tomatoes_labels_say_what_the_sentence_says(whole):
    task = whole["rotten_tomatoes"]
    text, labels = task.train.texts[0], task.train.labels
    share = {
        word: np.mean([labels[i] for i, t in enumerate(text) if re.search(rf"\b{word}\b", t)])
        for word in ("moving", "bad")
    }
    assert task.spec.labels == ("negative", "positive")
    assert share["moving"] > 0.7
    assert share["bad"] < 0.3


def test_stsb_is_a_regression_from_0_to_5(whole):
    task = whole["stsb"]
    assert task.outputs == 1
    assert task.metric == "spearman"
    labels = np.concatenate([task.train.labels, task.validation.labels, task.test.labels])
    assert labels.dtype == np.float64
    assert (labels.min(), labels.max()) == (0.0, 5.0)
    assert task.majority == {"spearman": 0.0, "pearson": 0.0}


def test_embedded_tasks_know_the_revision_of_their_data(whole):
    revisions = {task.revision for task in whole.values()}
    assert len(revisions) == 2
    assert all(revisions)


# What trains and what selects


def test_validation_is_a_tenth_of_the_training_rows_and_disjoint_from_the_rest(made_up):
    task = ap.load_task("glue/rte", str(made_up))
    train, validation = set(rows(task.train)), set(rows(task.validation))
    assert (len(train), len(validation)) == (36, 4)
    assert not train & validation
    # Nothing of what is reported on can select or train.
    assert all(text.startswith("train") for text, *_ in train | validation)
    assert all(text.startswith("validation") for text, *_ in rows(task.test))


def test_validation_has_the_class_shares_of_training(whole):
    task = whole["rotten_tomatoes"]
    assert task.validation.labels.mean() == pytest.approx(task.train.labels.mean(), abs=0.001)


def test_texts_and_labels_of_a_row_stay_together(made_up):
    task = ap.load_task("glue/rte", str(made_up), train_size=20, test_size=7)
    for split in (task.train, task.validation, task.test):
        for first, second, label in rows(split):
            number = int(first.split()[-1])
            assert second.endswith(f"second {number}")
            assert label == number % 2


def test_splits_and_subsets_do_not_depend_on_a_seed(made_up):
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        task = ap.load_task("glue/rte", str(made_up), train_size=9, validation_size=3, test_size=5)
        assert task.sizes == {"train": 9, "validation": 3, "test": 5}
        found.append([rows(getattr(task, split)) for split in ("train", "validation", "test")])
    assert found[0] == found[1]


def test_a_subset_is_of_the_split_it_is_named_for(made_up):
    whole = ap.load_task("glue/rte", str(made_up))
    part = ap.load_task("glue/rte", str(made_up), train_size=9, validation_size=3, test_size=5)
    for split in ("train", "validation", "test"):
        assert set(rows(getattr(part, split))) < set(rows(getattr(whole, split)))


def test_a_smaller_subset_is_the_beginning_of_a_larger_one_and_not_of_the_file(whole):
    small = ap.load_task("rotten_tomatoes", train_size=50).train
    large = ap.load_task("rotten_tomatoes", train_size=500).train
    assert rows(large)[:50] == rows(small)
    assert rows(small) != rows(whole["rotten_tomatoes"].train)[:50]
    assert 0.3 < large.labels.mean() < 0.7


def test_a_size_beyond_the_split_keeps_all_of_it(made_up):
    assert ap.load_task("glue/rte", str(made_up), test_size=10**6).sizes["test"] == 40


@pytest.mark.parametrize("nothing", [0, 0.0])
def test_without_a_held_out_part_all_rows_train_and_the_test_rows_select(made_up, nothing):
    task = ap.load_task("glue/rte", str(made_up), hold_out=nothing)
    assert rows(task.validation) == rows(task.test)
    assert [row[0] for row in rows(task.train)] == [f"train first {i}" for i in range(40)]
    assert [row[0] for row in rows(task.test)] == [f"validation first {i}" for i in range(40)]


def test_without_a_held_out_part_equal_sizes_of_validation_and_test_are_equal_rows(made_up):
    sizes = {"train_size": 9, "validation_size": 5, "test_size": 7}
    task = ap.load_task("glue/rte", str(made_up), hold_out=0, **sizes)
    assert task.sizes == {"train": 9, "validation": 5, "test": 7}
    assert rows(task.validation) == rows(task.test)[:5]


@pytest.mark.parametrize(("share", "held"), [(0.1, 4), (0.25, 10), (0.5, 20)])
def test_the_held_out_share_is_of_the_training_rows_in_the_classes_shares(made_up, share, held):
    task = ap.load_task("glue/rte", str(made_up), hold_out=share)
    assert task.sizes == {"train": 40 - held, "validation": held, "test": 40}
    assert sorted(rows(task.train) + rows(task.validation)) == sorted(
        (f"train first {i}", f"train second {i}", i % 2) for i in range(40)
    )
    assert task.validation.labels.mean() == task.train.labels.mean() == 0.5


def test_a_tenth_is_held_out_unless_asked_otherwise(made_up):
    tasks = [ap.load_task("glue/rte", str(made_up), **o) for o in ({}, {"hold_out": 0.1})]
    for split in ("train", "validation", "test"):
        assert rows(getattr(tasks[0], split)) == rows(getattr(tasks[1], split))


def test_a_share_of_a_regression_task_can_be_held_out(whole):
    task = ap.load_task("stsb", hold_out=0.5)
    assert task.sizes == {"train": 2874, "validation": 2875, "test": 1500}
    assert rows(task.test) == rows(whole["stsb"].test)


# Scores and tokens


def test_the_majority_baseline_predicts_what_training_has_most_of(tmp_path):
    # 30 of 40 training rows are of class 1, and 10 of 40 reported ones.
    texts = {"sentence1": [f"a {i}" for i in range(40)], "sentence2": ["b"] * 40}
    write_glue(tmp_path, split="train", columns=texts | {"label": [1] * 30 + [0] * 10})
    write_glue(tmp_path, split="validation", columns=texts | {"label": [1] * 10 + [0] * 30})
    assert ap.load_task("glue/rte", str(tmp_path)).majority == {"accuracy": 0.25}


def test_evaluate_gives_every_metric_of_the_task(rotten):
    wrong = 1 - rotten.test.labels
    assert rotten.evaluate(rotten.test.labels, rotten.test.labels) == {"accuracy": 1.0}
    assert rotten.evaluate(wrong, rotten.test.labels) == {"accuracy": 0.0}


def test_tokens_are_made_once_for_a_tokenizer_and_length(made_up, tokenizer):
    task = ap.load_task("glue/rte", str(made_up))
    first = task.encode(tokenizer, 32)
    assert task.encode(tokenizer, 32) is first
    assert task.encode(tokenizer, 8) is not first


def test_a_changed_copy_of_a_task_has_tokens_and_a_fingerprint_of_its_own(made_up, tokenizer):
    task = ap.load_task("glue/rte", str(made_up))
    before, tokens = task.fingerprint, task.encode(tokenizer, 32)
    other = dataclasses.replace(task, test=task.train)
    assert other.encode(tokenizer, 32)["test"] == tokens["train"]
    assert other.fingerprint != before


def test_tokens_hold_both_texts_of_every_row_of_every_split(made_up, tokenizer):
    task = ap.load_task("glue/rte", str(made_up))
    encoded = task.encode(tokenizer, 32)
    for name, size in task.sizes.items():
        assert len(encoded[name]) == size
    one, (first, second, _) = encoded["test"][3], rows(task.test)[3]
    assert tokenizer.decode(one["input_ids"]) == f"[CLS] {first} [SEP] {second} [SEP]"
    assert one["token_type_ids"] == [0] * 5 + [1] * 4


def test_tokens_are_cut_at_the_length_and_not_padded(rotten, tokenizer):
    for limit in (8, 128):
        for row, text in zip(
            rotten.encode(tokenizer, limit)["train"], rotten.train.texts[0], strict=True
        ):
            words = len(tokenizer.tokenize(text)) + 2  # [CLS] and [SEP]
            assert len(row["input_ids"]) == min(words, limit)


# From the hub, without one


def test_the_hub_is_asked_for_the_pinned_revision_and_read_like_a_folder(monkeypatch, made_up):
    asked = []

    def hub(source, config, revision):
        asked.append((source, config, revision))
        read = {s: next(made_up.glob(f"rte/{s}-*.parquet")) for s in ("train", "validation")}
        return {s: datasets.Dataset.from_pandas(pd.read_parquet(f)) for s, f in read.items()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    found, expected = ap.load_task("glue/rte"), ap.load_task("glue/rte", str(made_up))
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


def test_a_missing_column_is_named_with_those_that_are_there(made_up, refused):
    columns = {"premise": ["a"], "sentence2": ["b"], "label": [0]}
    write_glue(made_up, split="validation", columns=columns)
    with refused("'glue/rte'", "sentence1", "premise, sentence2, label"):
        ap.load_task("glue/rte", str(made_up))


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: b"no parquet"])
def test_a_damaged_data_file_is_named_with_the_remedy(made_up, refused, damage):
    file = next(made_up.glob("rte/train-*"))
    file.write_bytes(damage(file.read_bytes()))
    with refused(str(file), "damaged", "fetch it again"):
        ap.load_task("glue/rte", str(made_up))


@pytest.mark.parametrize("name", ["rotten_tomatoes", "stsb"])
def test_an_embedded_task_takes_no_source(refused, tmp_path, name):
    with refused(repr(name), "takes no source"):
        ap.load_task(name, str(tmp_path))


@pytest.mark.parametrize("which", ["train_size", "validation_size", "test_size"])
@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_a_size_that_keeps_nothing_is_named(made_up, refused, which, size):
    with refused(f"{which} is {size}", "whole number, at least 1"):
        ap.load_task("glue/rte", str(made_up), **{which: size})


@pytest.mark.parametrize("share", [-0.1, 1, 1.0, 1.5, float("nan"), True])
def test_a_held_out_share_out_of_range_is_refused(made_up, refused, share):
    with refused(f"hold_out is {share!r}", "at least 0 and below 1"):
        ap.load_task("glue/rte", str(made_up), hold_out=share)


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
def test_a_held_out_share_that_is_no_number_or_leaves_no_rows_is_refused(made_up, refused, share):
    with refused("hold_out", repr(share)):
        ap.load_task("glue/rte", str(made_up), hold_out=share)
