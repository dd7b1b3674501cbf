"""Tasks: what each one is, which rows train and select, and what is made of them."""

import dataclasses
import re

import numpy as np
import pytest
from small_glue import rows, write_glue

import adapter_pruning as ap
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


def test_embedded_stsb_is_the_stsb_of_glue(glue_folder, whole):
    embedded, glue = whole["stsb"], ap.load_task("glue/stsb", str(glue_folder))
    assert len(embedded.train) + len(embedded.validation) == 5749
    assert embedded.test.texts == glue.test.texts
    np.testing.assert_allclose(embedded.test.labels, glue.test.labels, rtol=1e-6)


# What trains and what selects


def test_validation_is_a_tenth_of_the_training_rows_and_disjoint_from_the_rest(tiny_rte):
    task = ap.load_task("glue/rte", str(tiny_rte))
    train, validation = set(rows(task.train)), set(rows(task.validation))
    assert (len(train), len(validation)) == (36, 4)
    assert not train & validation
    # Nothing of what is reported on can select or train.
    assert all(text.startswith("train") for text, *_ in train | validation)
    assert all(text.startswith("validation") for text, *_ in rows(task.test))


def test_validation_has_the_class_shares_of_training(whole):
    task = whole["rotten_tomatoes"]
    assert task.validation.labels.mean() == pytest.approx(task.train.labels.mean(), abs=0.001)


def test_texts_and_labels_of_a_row_stay_together(tiny_rte):
    task = ap.load_task("glue/rte", str(tiny_rte), train_size=20, test_size=7)
    for split in (task.train, task.validation, task.test):
        for first, second, label in rows(split):
            number = int(first.split()[-1])
            assert second.endswith(f"second {number}")
            assert label == number % 2


def test_splits_and_subsets_do_not_depend_on_a_seed(tiny_rte):
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        task = ap.load_task("glue/rte", str(tiny_rte), train_size=9, validation_size=3, test_size=5)
        assert task.sizes == {"train": 9, "validation": 3, "test": 5}
        found.append([rows(getattr(task, split)) for split in ("train", "validation", "test")])
    assert found[0] == found[1]


def test_a_subset_is_of_the_split_it_is_named_for(tiny_rte):
    whole = ap.load_task("glue/rte", str(tiny_rte))
    part = ap.load_task("glue/rte", str(tiny_rte), train_size=9, validation_size=3, test_size=5)
    for split in ("train", "validation", "test"):
        assert set(rows(getattr(part, split))) < set(rows(getattr(whole, split)))


def test_a_smaller_subset_is_the_beginning_of_a_larger_one_and_not_of_the_file(whole):
    small = ap.load_task("rotten_tomatoes", train_size=50).train
    large = ap.load_task("rotten_tomatoes", train_size=500).train
    assert rows(large)[:50] == rows(small)
    assert rows(small) != rows(whole["rotten_tomatoes"].train)[:50]
    assert 0.3 < large.labels.mean() < 0.7


def test_a_size_beyond_the_split_keeps_all_of_it(tiny_rte):
    assert ap.load_task("glue/rte", str(tiny_rte), test_size=10**6).sizes["test"] == 40


@pytest.mark.parametrize("nothing", [0, 0.0])
def test_without_a_held_out_part_all_rows_train_and_the_test_rows_select(tiny_rte, nothing):
    task = ap.load_task("glue/rte", str(tiny_rte), hold_out=nothing)
    assert rows(task.validation) == rows(task.test)
    assert [row[0] for row in rows(task.train)] == [f"train first {i}" for i in range(40)]
    assert [row[0] for row in rows(task.test)] == [f"validation first {i}" for i in range(40)]


def test_without_a_held_out_part_equal_sizes_of_validation_and_test_are_equal_rows(tiny_rte):
    sizes = {"train_size": 9, "validation_size": 5, "test_size": 7}
    task = ap.load_task("glue/rte", str(tiny_rte), hold_out=0, **sizes)
    assert task.sizes == {"train": 9, "validation": 5, "test": 7}
    assert rows(task.validation) == rows(task.test)[:5]


@pytest.mark.parametrize(("share", "held"), [(0.1, 4), (0.25, 10), (0.5, 20)])
def test_the_held_out_share_is_of_the_training_rows_in_the_classes_shares(tiny_rte, share, held):
    task = ap.load_task("glue/rte", str(tiny_rte), hold_out=share)
    assert task.sizes == {"train": 40 - held, "validation": held, "test": 40}
    assert sorted(rows(task.train) + rows(task.validation)) == sorted(
        (f"train first {i}", f"train second {i}", i % 2) for i in range(40)
    )
    assert task.validation.labels.mean() == task.train.labels.mean() == 0.5


def test_a_tenth_is_held_out_unless_asked_otherwise(tiny_rte):
    tasks = [ap.load_task("glue/rte", str(tiny_rte), **o) for o in ({}, {"hold_out": 0.1})]
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


def test_tokens_are_made_once_for_a_tokenizer_and_length(tiny_rte, tokenizer):
    task = ap.load_task("glue/rte", str(tiny_rte))
    first = task.encode(tokenizer, 32)
    assert task.encode(tokenizer, 32) is first
    assert task.encode(tokenizer, 8) is not first


def test_a_changed_copy_of_a_task_has_tokens_and_a_fingerprint_of_its_own(tiny_rte, tokenizer):
    task = ap.load_task("glue/rte", str(tiny_rte))
    before, tokens = task.fingerprint, task.encode(tokenizer, 32)
    other = dataclasses.replace(task, test=task.train)
    assert other.encode(tokenizer, 32)["test"] == tokens["train"]
    assert other.fingerprint != before


def test_tokens_hold_both_texts_of_every_row_of_every_split(tiny_rte, tokenizer):
    task = ap.load_task("glue/rte", str(tiny_rte))
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
