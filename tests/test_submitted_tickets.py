"""The tickets of a submission: which enters for each task, and that the archive is theirs."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_glue import FEW, HIDDEN, PAPER, PUBLISHED, lines_of

import adapter_pruning as ap
from adapter_pruning import submission
from adapter_pruning.tickets import load_ticket

QUICK = ap.TrainConfig(
    learning_rate=1e-2,
    epochs=2,
    batch_size=8,
    evaluations_per_epoch=1,
    max_length=24,
    precision="fp32",
)


# Choosing a ticket


def test_every_file_is_of_the_ticket_of_its_own_task_and_ax_of_mnli():
    expected = [f"glue/{name}" for name in [*PAPER, "mnli"]]
    assert list(submission.TICKETS.items()) == list(zip(HIDDEN, expected, strict=True))


def record(task, round, validation, method="weight ticket", seed=0, **more):
    """As much of a record as choosing looks at."""
    about = {"task": f"glue/{task}", "seed": seed, "method": method, "detail": {"round": round}}
    key = f"{task} {round} {validation} {method} {seed}"
    return about | {"validation_score": validation, "key": key} | more


@pytest.fixture
def chosen(tmp_path):
    """A store with rounds 0 to 2 of all tasks, and much that is not to be chosen."""
    store = ap.RecordStore(tmp_path / "records")
    for number, task in enumerate(PAPER):
        for round in range(3):
            # The best round is another one in each task; the best on test rows is the worst.
            validation = (0.5, 0.6, 0.7)[(round + number) % 3]
            store.append(record(task, round, validation, score=1 - validation))
        for other in ({"method": "random mask"}, {"method": "neuron ticket"}, {"seed": 1}):
            store.append(record(task, 0, 0.99, **other))
        store.append(record(task, 1, 0.99, method="adapter tuning", detail={}))
    return store


def test_every_task_enters_with_its_best_round_on_validation_data(chosen):
    found = submission.select(chosen, unit="weight", seed=0)
    assert list(found) == [f"glue/{task}" for task in PAPER]
    assert [r["detail"]["round"] for r in found.values()] == [2, 1, 0] * 3
    assert {(r["method"], r["seed"]) for r in found.values()} == {("weight ticket", 0)}
    assert all(r["task"] == task for task, r in found.items())


def test_of_rounds_with_equal_scores_the_first_enters(chosen):
    chosen.append(record("cola", 5, 0.7))
    assert submission.select(chosen, unit="weight", seed=0)["glue/cola"]["detail"]["round"] == 2


def test_unit_seed_and_round_choose(chosen):
    other = submission.select(chosen, unit="neuron", seed=0)
    assert {r["method"] for r in other.values()} == {"neuron ticket"}
    other = submission.select(chosen, unit="weight", seed=1)
    assert {r["seed"] for r in other.values()} == {1}
    fixed = submission.select(chosen, unit="weight", seed=0, round=0)
    assert {r["detail"]["round"] for r in fixed.values()} == {0}


@pytest.fixture
def no_model(monkeypatch):
    """Fail the test if a model is asked for."""

    def load(*args):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(submission, "load_ticket", load)


def test_all_tasks_without_a_ticket_are_named_before_a_model_is_loaded(
    tmp_path, glue, chosen, few, no_model, refused
):
    for task in ("sst2", "mnli-mm", "rte"):
        chosen.file({"task": f"glue/{task}", "seed": 0}).unlink()
    said = "no weight ticket with seed 0 for glue/sst2, glue/mnli-mm, glue/rte;"
    with refused(str(chosen.folder), said):
        submission.from_records(tmp_path / "glue.zip", chosen, str(glue))
    assert not (tmp_path / "glue.zip").exists()


def test_a_round_or_a_unit_that_nobody_searched_is_named(tmp_path, glue, chosen, no_model, refused):
    with refused("no weight ticket of round 7", "glue/cola, glue/sst2"):
        submission.from_records(tmp_path / "glue.zip", chosen, str(glue), round=7)
    with refused("no neuron ticket with seed 3"):
        submission.from_records(tmp_path / "glue.zip", chosen, str(glue), unit="neuron", seed=3)
    with refused("unknown unit 'layer'", "weight, neuron, adapter"):
        submission.from_records(tmp_path / "glue.zip", chosen, str(glue), unit="layer")


def test_test_rows_are_there_and_complete_before_a_model_is_loaded(
    tmp_path, glue, chosen, few, no_model, refused, monkeypatch
):
    monkeypatch.setitem(FEW, "QQP", 390965)
    with refused("QQP has 7 rows", "390965"):
        submission.from_records(tmp_path / "glue.zip", chosen, str(glue))
    with refused("cola/test-*.parquet"):
        submission.from_records(tmp_path / "glue.zip", chosen, str(tmp_path))


# From recorded tickets to the archive


@pytest.fixture(scope="module")
def searched(glue, minilm, tmp_path_factory):
    """A store with a real ticket search of every task: the whole adapter and one pruning."""
    store = ap.RecordStore(tmp_path_factory.mktemp("searched"))
    for name in PAPER:
        task = ap.load_task(f"glue/{name}", str(glue))
        model = ap.attach(minilm(task), ap.Houlsby(bottleneck=2))
        found = ap.find_tickets(model, task, rounds=1, config=QUICK, store=store, progress=False)
        assert len(list(found)) == 2
    return store


@pytest.fixture(scope="module")
def made(glue, searched, tmp_path_factory):
    """The archive that the command line makes of them."""
    file = tmp_path_factory.mktemp("made") / "deep" / "glue.zip"
    arguments = [str(file), "--records", str(searched.folder), "--source", str(glue)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "ROWS", FEW)
        assert submission.main(arguments) == 0
        submission.validate(file)
    return file


def one_by_one(model, texts) -> np.ndarray:
    """Logits (n, outputs), each row alone, as the plainest loop computes them."""
    found = []
    for row in zip(*texts, strict=True):
        encoded = model.tokenizer(*row, truncation=True, max_length=QUICK.max_length)
        with torch.inference_mode():
            inputs = {k: torch.tensor([v]).to(model.device) for k, v in encoded.items()}
            found.append(model.eval()(**inputs)[0].cpu().numpy())
    return np.stack(found)


@pytest.mark.parametrize("file", HIDDEN)
def test_every_row_has_the_prediction_of_its_tasks_best_ticket(glue, searched, made, file):
    config, split = HIDDEN[file]
    name = submission.TICKETS[file]
    task = ap.load_task(name, str(glue))
    best = max(
        (r for r in searched.all() if r["task"] == name), key=lambda r: r["validation_score"]
    )
    frame = pd.read_parquet(next((glue / config).glob(f"{split}-*.parquet")))
    columns = [frame[column].tolist() for column in task.spec.columns]
    logits = one_by_one(load_ticket(searched, best, task), columns)
    found = [line.split("\t")[1] for line in lines_of(made, f"{file}.tsv")[1:-1]]
    if labels := PUBLISHED[f"{file}.tsv"][1]:
        assert found == [labels[i] for i in logits.argmax(1)]
    else:
        assert [float(v) for v in found] == pytest.approx(logits[:, 0].clip(0, 5), abs=1e-4)


def test_the_predictions_could_have_been_wrong(made):
    """Several classes and similarities in every file, or the test above would see no mix-up."""
    for file in HIDDEN:
        found = [line.split("\t")[1] for line in lines_of(made, f"{file}.tsv")[1:-1]]
        assert len(set(found)) > 1, file
        assert found != sorted(found), file


def test_a_ticket_whose_weights_are_gone_is_named(tmp_path, glue, searched, few, refused):
    store = ap.RecordStore(tmp_path / "records")
    for known in searched.all():
        store.append(known)
    key = submission.select(store, unit="weight", seed=0)["glue/cola"]["key"]
    with refused(key, "not in", str(store.folder)):
        submission.from_records(tmp_path / "glue.zip", store, str(glue))
    assert not (tmp_path / "glue.zip").exists()


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--unit", "neuron", "--seed", "3", "--round", "7"],
            "neuron ticket of round 7 with seed 3",
        ),
        (["--round", "0"], "no weight ticket of round 0 with seed 0 for glue/cola, glue/sst2"),
        (["--unit", "layer"], "unknown unit 'layer'; choose one of: weight, neuron, adapter"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(tmp_path, no_model, capsys, arguments, said):
    output = tmp_path / "glue.zip"
    records = str(tmp_path / "none")
    assert submission.main([str(output), "--records", records, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert said in error
    assert not output.exists()


def test_a_source_that_is_no_folder_is_one_sentence_and_exit_2(tmp_path, chosen, no_model, capsys):
    arguments = ["--records", str(chosen.folder), "--source", str(tmp_path / "nowhere")]
    assert submission.main([str(tmp_path / "glue.zip"), *arguments]) == 2
    assert "no folder" in capsys.readouterr().err
