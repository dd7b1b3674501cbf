"""What a record is compared by, and which records are the newest batch."""

import json
import re
import shutil
from pathlib import Path

import pytest
from some_records import record

from adapter_pruning import records
from adapter_pruning.records import comparable, digest, frame, latest, library_hash

# What a record is compared by


def test_comparable_leaves_out_time_and_memory_and_nothing_else():
    measured = {"seconds": 1.5, "peak_memory_mib": 900.0, "created": "2024-01-01T00:00:00"}

    assert comparable(record("a", score=1) | measured) == record("a", score=1)


def test_a_digest_depends_on_the_value_and_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert re.fullmatch("[0-9a-f]{16}", digest({"a": 1}))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the library, which `current_hash` takes for the library itself."""
    source = Path(records.__file__).parent
    copy = shutil.copytree(source, tmp_path / "package", ignore=shutil.ignore_patterns("__py*"))
    monkeypatch.setattr(records, "__file__", str(copy / "records.py"))
    return copy


def current_hash():
    """The library's hash as a new process would find it."""
    return library_hash.__wrapped__()


def change(file):
    with file.open("a") as opened:
        opened.write("\n# changed\n")


TRAINING = [
    "adapters", "backbones", "files", "importance", "masks", "metrics", "offline", "records",
    "tasks", "tickets", "training", "trials", "units",
]  # fmt: skip


@pytest.mark.parametrize("module", [*TRAINING, "a_new_one"])
def test_the_library_hash_follows_what_can_change_a_trained_model(package, module):
    before = current_hash()
    change(package / f"{module}.py")

    assert current_hash() != before


def test_a_renamed_module_is_another_library(package):
    before = current_hash()
    (package / "training.py").rename(package / "training2.py")

    assert current_hash() != before


PRESENTING = [
    "__init__", "claims", "lottery_plots", "papers", "plots", "runner", "statistics", "survivors",
    "tables",
]  # fmt: skip


@pytest.mark.parametrize("module", PRESENTING)
def test_the_library_hash_does_not_follow_what_presents_results(package, module):
    (package / f"{module}.py").touch()
    before = current_hash()
    change(package / f"{module}.py")

    assert current_hash() == before


def test_a_copied_library_has_the_same_hash(package, monkeypatch):
    copied = current_hash()
    monkeypatch.undo()

    assert current_hash() == copied


def test_the_library_hash_is_taken_once_since_a_process_runs_the_code_it_loaded(package):
    before = library_hash()
    change(package / "training.py")

    assert library_hash() == before


def test_a_frame_has_one_row_a_record_and_dotted_columns():
    table = frame([record("a", metrics={"f1": 0.5}), record("b", metrics={"f1": 0.25})])

    assert table["metrics.f1"].tolist() == [0.5, 0.25]
    assert json.loads(table["key"].to_json(orient="values")) == ["a", "b"]


# The newest batch


ROWS = {"train": 640, "validation": 384, "test": 1066}


def trained(key: str, minute: int, method: str = "weight ticket", round: int | None = 0, **more):
    """A record of a round or a control, or of a dense adapter where there is no round."""
    about = {"library": "new", "model": "minilm", "rows": ROWS, "method": method}
    detail = {} if round is None else {"unit": more.pop("unit", "weight"), "round": round}
    created = f"2026-01-01T00:{minute:02d}:00+00:00"
    return record(key, **(about | {"detail": detail, "created": created} | more))


def kept(*trainings: dict) -> str:
    """The keys of the latest, as one word."""
    with_a_round = trained("-", 0, task="another")  # so that the columns of a round are there
    return "".join(latest(frame([with_a_round, *trainings])).key[1:])


@pytest.mark.parametrize(
    "other",
    [
        {"library": "old"},
        {"model": "bert-base-uncased"},
        {"rows": ROWS | {"train": 64}},
        {"rows": ROWS | {"validation": 32}},
        {"rows": ROWS | {"test": 64}},
    ],
    ids=["library", "model", "training rows", "validation rows", "test rows"],
)
def test_the_latest_share_code_model_and_rows_with_the_newest(other):
    olds = [trained("a", 1, round=0, **other), trained("b", 2, round=None, **other)]
    news = [trained("c", 3, round=1), trained("d", 4, seed=1)]
    assert kept(*olds, *news) == "cd"
    assert kept(*news, *olds) == "cd"


def test_what_is_newest_is_decided_for_each_task_on_its_own():
    cola = [trained("a", 1, task="cola", library="old"), trained("b", 2, task="cola")]
    rte = trained("c", 3, task="rte", library="old")
    smaller = trained("d", 4, task="sst2", rows=ROWS | {"train": 64})
    assert kept(*cola, rte, smaller) == "bcd"


def test_of_a_repeated_round_or_control_the_newest_stays():
    assert kept(trained("a", 3), trained("b", 5), trained("c", 4)) == "b"
    drawn = {"method": "random mask", "round": 5}
    assert kept(trained("a", 1, **drawn), trained("b", 2, **drawn)) == "b"


def test_of_two_that_were_made_in_one_second_the_later_in_the_file_stays():
    assert kept(trained("a", 1), trained("b", 1)) == "b"
    assert kept(trained("a", 1, round=0, library="old"), trained("b", 1, round=1)) == "b"


@pytest.mark.parametrize(
    "other",
    [
        {"config": {"epochs": 3, "patience": None}},
        {"adapter": {"kind": "Houlsby", "bottleneck": 8}},
    ],
    ids=["training", "adapter"],
)
def test_rounds_and_controls_of_older_settings_go_and_trials_stay(other):
    now = {"config": {"epochs": 2, "patience": None}} | {"adapter": {"bottleneck": 64}}
    trial = trained("t", 0, "dense adapter of 64", None, **(now | other))
    older = [trained("a", 1, round=9, **(now | other)), trained("b", 2, seed=1, **(now | other))]
    drawn = trained("d", 3, "random mask", **now)
    assert kept(trial, *older, drawn, trained("c", 4, **now)) == "tdc"


def test_dense_models_alone_have_a_newest_batch():
    old, new = trained("a", 1, round=None, library="old"), trained("b", 2, round=None)
    assert latest(frame([old, new])).key.tolist() == ["b"]


def test_rounds_that_differ_in_anything_are_all_kept():
    rounds = [
        trained("a", 1),
        trained("b", 2, round=1),
        trained("c", 3, seed=1),
        trained("d", 4, task="rte"),
        trained("e", 5, method="neuron ticket", unit="neuron"),
        trained("f", 6, method="random mask"),
        trained("g", 7, method="random mask", unit="neuron"),
    ]
    assert kept(*rounds) == "abcdefg"


def test_trials_of_a_setting_are_all_kept_since_they_repeat_no_round():
    trials = [
        trained(key, minute, "dense adapter of 64", None, config={"learning_rate": rate})
        for minute, (key, rate) in enumerate({"a": 5e-4, "b": 1e-3, "c": 2e-3}.items())
    ]
    assert kept(*trials) == "abc"


def test_the_latest_stay_in_the_order_of_the_records():
    assert kept(trained("b", 9), trained("c", 5, round=1), trained("a", 7, round=2)) == "bca"
