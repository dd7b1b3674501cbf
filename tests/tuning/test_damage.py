"""Searches for settings that are refused: bad calls, and studies that are damaged."""

import os

import pytest
from pandas.testing import assert_frame_equal
from setting_searches import LONGEST, study_file

import adapter_pruning as ap


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learning_rates": []}, ["no learning_rate to choose from", "at least one"]),
        ({"epochs": ()}, ["no epochs to choose from", "at least one"]),
        ({"learning_rates": [1e-3, 1.5]}, ["learning_rate", "1.5"]),
        ({"epochs": [2, 0]}, ["epochs", "0"]),
        ({"trials": 0}, ["trials is 0", "at least 1"]),
        ({"trials": -1}, ["trials is -1", "at least 1"]),
        ({"trials": 2.5}, ["trials is 2.5", "whole number"]),
        ({"trials": "3"}, ["trials is '3'", "whole number"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_search_of_nothing_or_of_a_setting_out_of_range_is_refused_at_once(
    search, store, refused, options, said
):
    def make(seed):
        raise AssertionError("a model was made")

    with refused(*said):
        search(store, make, **options)

    assert not store.folder.exists()


def unbalanced(content):
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:3], b"{\n", *lines[4:]])


DAMAGES = {
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"no study\n",
    "broken line": unbalanced,
    "end of another": lambda content: content + content[-40:],
    "line without fields": lambda content: content + b'{"op_code": 4, "worker_id": "x"}\n',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_study_is_refused_and_deleting_it_brings_the_search_back(
    search, finished, fits, refused, unbroken, damage
):
    file = study_file(finished)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))

    with refused(f"the study file {str(file)!r} is damaged", "delete it"):
        search(finished, trials=LONGEST)

    file.unlink()
    assert_frame_equal(search(finished, trials=LONGEST).history, unbroken[0].history)
    assert not fits


def trial_cut(content):
    """The last trial is gone but for the half of its first line."""
    lines = content.splitlines(keepends=True)
    begun = max(i for i, line in enumerate(lines) if b'"op_code":4' in line)
    return b"".join(lines[:begun]) + lines[begun][:40]


# What a write leaves that a kill or a full disk cuts short, or a foreign file.
TORN = {
    "half": lambda content: content[: len(content) // 2],
    "last line cut": lambda content: content[:-5],
    "first line cut": lambda content: content[:20],
    "text without an end": lambda content: b"no study",
    "list": lambda content: b"[]\n",
    "null": lambda content: b"null\n",
    "unknown operation": lambda content: content + b'{"op_code": 77, "worker_id": "x"}\n',
    "last trial cut": trial_cut,
}


@pytest.mark.parametrize("damage", TORN)
def test_a_torn_or_foreign_study_is_refused_in_a_sentence_or_mended(
    search, finished, unbroken, damage
):
    file = study_file(finished)
    file.write_bytes(TORN[damage](file.read_bytes()))

    try:
        history = search(finished, trials=LONGEST).history
    except ap.PruningError as error:
        assert str(file) in str(error)
    else:
        assert_frame_equal(history, unbroken[0].history)


def test_a_lock_that_a_kill_left_on_the_journal_does_not_stop_the_next_search(
    search, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    store = ap.RecordStore("runs")  # the link's target is then no file, seen from the link
    search(store, trials=1)
    file = study_file(store)
    os.symlink(file, f"{file}.lock")
    link = os.symlink

    def impatient(source, target):
        assert not os.path.lexists(target), "it waits for a process that is gone"
        link(source, target)

    monkeypatch.setattr(os, "symlink", impatient)

    assert len(search(store, trials=2).history) == 2
