"""The submission: what GLUE's server is sent, from which tickets, and what is refused before."""

import zipfile

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import submission, tasks
from adapter_pruning.tasks import TASKS, load_unlabelled
from adapter_pruning.tickets import load_ticket

# The published format, written down once more: rows, and how class ids 0, 1, ... are spelled.
PUBLISHED = {
    "CoLA.tsv": (1063, ["0", "1"]),
    "SST-2.tsv": (1821, ["0", "1"]),
    "MRPC.tsv": (1725, ["0", "1"]),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, ["0", "1"]),
    "MNLI-m.tsv": (9796, ["entailment", "neutral", "contradiction"]),
    "MNLI-mm.tsv": (9847, ["entailment", "neutral", "contradiction"]),
    "QNLI.tsv": (5463, ["entailment", "not_entailment"]),
    "RTE.tsv": (3000, ["entailment", "not_entailment"]),
    "WNLI.tsv": (146, ["0", "1"]),
    "AX.tsv": (1104, ["entailment", "neutral", "contradiction"]),
}
# No two alike, so that no file can be taken for another.
FEW = dict(zip(submission.LABELS, range(3, 14), strict=True))
# Where the rows of each file are in the layout of nyu-mll/glue: config and split.
HIDDEN = {
    "CoLA": ("cola", "test"),
    "SST-2": ("sst2", "test"),
    "MRPC": ("mrpc", "test"),
    "STS-B": ("stsb", "test"),
    "QQP": ("qqp", "test"),
    "MNLI-m": ("mnli", "test_matched"),
    "MNLI-mm": ("mnli", "test_mismatched"),
    "QNLI": ("qnli", "test"),
    "RTE": ("rte", "test"),
    "AX": ("ax", "test"),
}
PAPER = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli-mm", "qnli", "rte"]
QUICK = ap.TrainConfig(
    learning_rate=1e-2,
    epochs=2,
    batch_size=8,
    evaluations_per_epoch=1,
    max_length=24,
    precision="fp32",
)
WORDS = ["the cat sleeps", "mathematics is numbers", "we sailed over an ocean"]


@pytest.fixture
def few(monkeypatch):
    """A GLUE of 3 to 13 test rows a file."""
    monkeypatch.setattr(submission, "ROWS", FEW)


def predictions(rows) -> dict:
    """Made-up predictions without WNLI's: class ids in turn, similarities from -1 to 6."""
    found = {}
    for name, count in rows.items():
        labels = PUBLISHED[f"{name}.tsv"][1]
        classes = np.arange(count) % len(labels) if labels else np.linspace(-1, 6, count)
        found[name] = classes
    del found["WNLI"]
    return found


def lines_of(file, name) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.read(name).decode().split("\n")


# Writing


def test_the_archive_is_the_published_one(tmp_path):
    rows = {name.removesuffix(".tsv"): count for name, (count, _) in PUBLISHED.items()}
    sent = predictions(rows)
    file = submission.write(tmp_path / "glue.zip", sent)
    submission.validate(file)
    assert sorted(zipfile.ZipFile(file).namelist()) == sorted(PUBLISHED)
    for name, (count, labels) in PUBLISHED.items():
        header, *lines, end = lines_of(file, name)
        assert (header, len(lines), end) == ("index\tprediction", count, "")
        assert [line.split("\t")[0] for line in lines] == [str(i) for i in range(count)]
        if labels and name != "WNLI.tsv":
            expected = [labels[i] for i in sent[name.removesuffix(".tsv")]]
            assert [line.split("\t")[1] for line in lines] == expected


def test_class_ids_are_spelled_in_the_order_of_the_data():
    for file, task in submission.TICKETS.items():
        if submission.LABELS[file] != ("0", "1"):
            assert submission.LABELS[file] == TASKS[task].labels


def test_similarities_are_plain_numbers_from_0_to_5(tmp_path, few):
    values = np.array([-3.0, -0.0, 2.00000123456, 5.25, 1e-9, 4.9999999], np.float32)
    file = submission.write(tmp_path / "glue.zip", predictions(FEW) | {"STS-B": values})
    found = [line.split("\t")[1] for line in lines_of(file, "STS-B.tsv")[1:-1]]
    assert found == ["0.000000", "0.000000", "2.000001", "5.000000", "0.000000", "5.000000"]
    submission.validate(file)


def test_wnli_gets_the_majority_class_unless_it_is_predicted(tmp_path, few):
    without = submission.write(tmp_path / "a.zip", predictions(FEW))
    assert {line.split("\t")[1] for line in lines_of(without, "WNLI.tsv")[1:-1]} == {"0"}
    ones = np.ones(FEW["WNLI"], np.int64)
    given = submission.write(tmp_path / "b.zip", predictions(FEW) | {"WNLI": ones})
    assert {line.split("\t")[1] for line in lines_of(given, "WNLI.tsv")[1:-1]} == {"1"}


def test_the_majority_class_of_wnli_is_what_its_training_rows_have_most_of(glue_folder):
    frame = pd.read_parquet(next(glue_folder.glob("wnli/train-*.parquet")))
    assert frame.label.value_counts().to_dict() == {0: 323, 1: 312}


def test_equal_predictions_give_equal_bytes_at_any_time(tmp_path, few):
    first, second = (submission.write(tmp_path / n, predictions(FEW)) for n in ("1.zip", "2.zip"))
    assert first.read_bytes() == second.read_bytes()
    assert {i.date_time for i in zipfile.ZipFile(first).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def broken(name, change):
    values = predictions(FEW)[name].copy()
    return {name: change(values)}


def put(value, row=1):
    def change(values):
        values = values.astype(float)
        values[row] = value
        return values

    return change


REFUSED = [
    (broken("RTE", lambda v: v[:-1]), ("RTE has 10 rows", "has 11")),
    (broken("QNLI", lambda v: np.eye(2)[v]), ("QNLI has 20 rows", "has 10")),
    (broken("CoLA", put(2)), ("CoLA predicts 2.0 for row 1", "from 0 to 1")),
    (broken("AX", put(3, 4)), ("AX predicts 3.0 for row 4", "from 0 to 2")),
    (broken("MRPC", put(-1)), ("MRPC predicts -1.0 for row 1", "from 0 to 1")),
    (broken("SST-2", put(0.5)), ("SST-2 predicts 0.5 for row 1", "from 0 to 1")),
    (broken("STS-B", put(np.nan, 2)), ("STS-B predicts nan for row 2", "finite")),
    (broken("STS-B", put(np.inf, 0)), ("STS-B predicts inf for row 0", "finite")),
    ({"SST2": np.zeros(3)}, ("unknown file of a submission 'SST2'", "SST-2", "AX")),
]


@pytest.mark.parametrize(("change", "parts"), REFUSED)
def test_predictions_that_cannot_be_leave_the_old_archive(tmp_path, few, refused, change, parts):
    (tmp_path / "glue.zip").write_text("old")
    with refused(*parts):
        submission.write(tmp_path / "glue.zip", predictions(FEW) | change)
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]


def test_missing_files_are_all_named_and_nothing_is_written(tmp_path, few, refused):
    given = predictions(FEW)
    del given["QQP"], given["AX"]
    with refused("no predictions for QQP, AX;", "CoLA"):
        submission.write(tmp_path / "glue.zip", given)
    assert not list(tmp_path.iterdir())


# Validating


@pytest.fixture
def archive(tmp_path, few):
    """archive(change): a zip of a valid submission's files, after change(files) by name."""
    whole = submission.write(tmp_path / "whole.zip", predictions(FEW))
    with zipfile.ZipFile(whole) as opened:
        valid = {name: opened.read(name).decode() for name in opened.namelist()}

    def make(change):
        change(files := dict(valid))
        with zipfile.ZipFile(tmp_path / "changed.zip", "w") as opened:
            for name, text in files.items():
                opened.writestr(name, text)
        return tmp_path / "changed.zip"

    return make


def replace(name, old, new):
    """A change of one file's text, which must have the old part."""

    def change(files):
        assert old in files[name]
        files[name] = files[name].replace(old, new)

    return change


def rename(old, new):
    return lambda files: files.update({new: files.pop(old)})


INVALID = [
    (lambda files: files.pop("AX.tsv"), ("AX.tsv is missing",)),
    (rename("MNLI-m.tsv", "MNLI.tsv"), ("MNLI-m.tsv is missing", "MNLI.tsv is not wanted")),
    (rename("CoLA.tsv", "cola.tsv"), ("CoLA.tsv is missing", "cola.tsv is not wanted")),
    (lambda files: files.update({"notes.txt": "hi"}), ("notes.txt is not wanted",)),
    (rename("RTE.tsv", "glue/RTE.tsv"), ("'glue/RTE.tsv'", "no folders")),
    (lambda files: files.update({"glue/": ""}), ("'glue/'", "no folders")),
    (replace("QQP.tsv", "index\tprediction", "id\tlabel"), ("QQP.tsv, line 1", "'id\\tlabel'")),
    (replace("QQP.tsv", "index\tprediction\n", ""), ("QQP.tsv, line 1", "'0\\t0'")),
    (replace("QQP.tsv", "\n", "\r\n"), ("QQP.tsv, line 1", "prediction\\r'")),
    (replace("QQP.tsv", "index", "\ufeffindex"), ("QQP.tsv, line 1",)),
    (lambda files: files.update({"QQP.tsv": ""}), ("QQP.tsv, line 1: ''",)),
    (replace("RTE.tsv", "10\tentailment\n", ""), ("RTE has 10 rows", "has 11")),
    (replace("RTE.tsv", "10\tentailment\n", "10\tentailment\n\n"), ("RTE has 12 rows",)),
    (replace("RTE.tsv", "\n3\t", "\n4\t"), ("RTE.tsv, line 5", "index is '4'", "be 3")),
    (replace("RTE.tsv", "\n3\t", "\n3 "), ("RTE.tsv, line 5", "be 3")),
    (replace("RTE.tsv", "\n0\t", "\n00\t"), ("RTE.tsv, line 2", "index is '00'", "be 0")),
    (replace("RTE.tsv", "3\tnot_", "3\tnot "), ("line 5", "'not entailment'", "not_entailment")),
    (replace("RTE.tsv", "2\tentail", "2\tEntail"), ("line 4", "'Entailment'")),
    (replace("QNLI.tsv", "2\tentailment", "2\tneutral"), ("QNLI.tsv, line 4", "'neutral'")),
    (replace("AX.tsv", "2\tcontradiction", "2\tnot_entailment"), ("AX.tsv, line 4", "neutral")),
    (replace("CoLA.tsv", "1\t1", "1\t2"), ("CoLA.tsv, line 3", "'2'", "one of: 0, 1")),
    (replace("CoLA.tsv", "1\t1", "1\t1.0"), ("CoLA.tsv, line 3", "'1.0'")),
    (replace("CoLA.tsv", "1\t1", "1\t"), ("CoLA.tsv, line 3", "''")),
    (replace("CoLA.tsv", "1\t1", "1\t1\t1"), ("CoLA.tsv, line 3", "'1\\t1'")),
    (replace("WNLI.tsv", "\t0\n", "\tnot_entailment\n"), ("WNLI.tsv, line 2", "one of: 0, 1")),
]
INVALID += [
    (replace("STS-B.tsv", "0\t0.000000", f"0\t{bad}"), ("STS-B.tsv, line 2", repr(bad), "0 to 5"))
    for bad in ("5.000001", "-0.1", "nan", "inf", "1e-3", "1_0", " 1", "", "high")
]


@pytest.mark.parametrize(("change", "parts"), INVALID)
def test_what_the_server_would_not_take_is_named(archive, refused, change, parts):
    file = archive(change)
    with refused(*parts):
        submission.validate(file)


@pytest.mark.parametrize("plain", ["0", "5", "5.0", "3.25", "0.123456789"])
def test_similarities_of_any_length_are_valid(archive, plain):
    submission.validate(archive(replace("STS-B.tsv", "0\t0.000000", f"0\t{plain}")))


def test_a_file_that_is_there_twice_is_not_valid(archive, refused):
    file = archive(lambda files: None)
    with zipfile.ZipFile(file, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("CoLA.tsv", opened.read("CoLA.tsv"))
    with refused("CoLA.tsv is not wanted"):
        submission.validate(file)


def test_an_archive_that_is_not_there_or_no_zip_is_named(tmp_path, refused):
    with refused("no file", "glue.zip"):
        submission.validate(tmp_path / "glue.zip")
    (tmp_path / "glue.zip").write_text("index\tprediction\n0\t1\n")
    with refused("glue.zip", "not a zip archive"):
        submission.validate(tmp_path / "glue.zip")


def test_damage_anywhere_is_refused_or_changes_nothing(tmp_path, few, refused):
    file = submission.write(tmp_path / "glue.zip", predictions(FEW))
    content = file.read_bytes()
    generator = np.random.default_rng(0)
    survived = 0
    for place in generator.choice(len(content), 300, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.integers(8)
        file.write_bytes(damaged)
        try:
            submission.validate(file)
        except ap.PruningError:
            continue
        survived += 1  # in a time, an attribute or a version: the server does not read these
        with zipfile.ZipFile(file) as opened:
            assert {n: opened.read(n) for n in opened.namelist()} == members(content, tmp_path)
    assert survived < 100
    for end in range(0, len(content) - 1, 97):
        file.write_bytes(content[:end])
        with refused("glue.zip", "not a zip archive"):
            submission.validate(file)


def members(content, folder) -> dict[str, bytes]:
    (folder / "other.zip").write_bytes(content)
    with zipfile.ZipFile(folder / "other.zip") as opened:
        return {name: opened.read(name) for name in opened.namelist()}


# The rows without labels


def texts(columns, split, classes) -> dict:
    """Text columns: words of the row's class, of many lengths, in no order of length."""
    return {
        column: [
            f"{split} {column} {i}" + f" {WORDS[c % 3]}" * (1 + (5 * i + 2) % 4)
            for i, c in enumerate(classes)
        ]
        for column in columns
    }


def write_split(folder, config, split, columns, labels):
    """One parquet file in the layout of nyu-mll/glue; hidden labels are -1."""
    file = folder / config / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = np.full(len(labels), -1) if split.startswith("test") else np.asarray(labels)
    known = known.astype("float32" if config == "stsb" else "int64")
    rows = texts(columns, split, np.asarray(labels, int)) | {"label": known}
    pd.DataFrame(rows).to_parquet(file)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A folder with all of GLUE: 30 rows to train on, 9 to report on, 3 to 13 without labels."""
    folder = tmp_path_factory.mktemp("glue")
    for name in PAPER:
        spec = TASKS[f"glue/{name}"]
        classes = len(spec.labels) or 6
        write_split(folder, spec.config, "train", spec.columns, np.arange(30) % classes)
        write_split(folder, spec.config, spec.test_split, spec.columns, np.arange(9) % classes)
    for file, (config, split) in HIDDEN.items():
        columns = TASKS[submission.TICKETS[file]].columns
        classes = len(submission.LABELS[file]) or 6
        write_split(folder, config, split, columns, np.arange(FEW[file]) % classes)
    return folder


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
    assert asked == [("nyu-mll/glue", "ax", tasks.GLUE_REVISION)]
    with refused("'mnli' of 'nyu-mll/glue'", "test_matched"):
        load_unlabelled("glue/mnli")


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
