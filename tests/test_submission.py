"""The submission: what GLUE's server is sent, and what it would not take."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from small_glue import FEW, PUBLISHED, lines_of

import adapter_pruning as ap
from adapter_pruning import submission
from adapter_pruning.specs import TASKS


def predictions(rows) -> dict:
    """Made-up predictions without WNLI's: class ids in turn, similarities from -1 to 6."""
    found = {}
    for name, count in rows.items():
        labels = PUBLISHED[f"{name}.tsv"][1]
        classes = np.arange(count) % len(labels) if labels else np.linspace(-1, 6, count)
        found[name] = classes
    del found["WNLI"]
    return found


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
