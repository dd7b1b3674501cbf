"""Records: written once, read back, and whole after damage, a full disk and several processes."""

import multiprocessing
import os
import re

import pytest
from some_records import record

from adapter_pruning.errors import PruningError
from adapter_pruning.records import RecordStore, read


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "not" / "there" / "yet")


# Writing and reading


def test_what_was_appended_is_read_back(store):
    written = [record("a", text="naïve\r\n"), record("b", share=0.1 + 0.2), record("c", none=None)]
    for row in written:
        store.append(row)

    assert store.all() == written
    assert RecordStore(store.folder).all() == written


def test_a_store_without_a_folder_is_empty(store):
    assert store.all() == []
    assert store.find("a") is None
    assert not store.folder.exists()


def test_a_key_is_stored_once_and_the_first_record_stays(store):
    store.append(record("a", score=1))
    store.append(record("b"))
    store.append(record("a", score=2))

    assert [(row["key"], row.get("score")) for row in store.all()] == [("a", 1), ("b", None)]


def test_find_looks_into_every_file(store):
    for row in (record("a", seed=1), record("b", seed=2), record("c", task="glue/rte")):
        store.append(row)

    assert store.find("b") == record("b", seed=2)
    assert store.find("d") is None


def test_there_is_one_file_for_each_task_and_seed(store):
    for row in (record("a", "glue/rte"), record("b", "glue/rte", 1), record("c", "stsb")):
        store.append(row)

    names = [file.name for file in sorted(store.folder.glob("*.jsonl"))]
    assert names == ["glue-rte-seed0.jsonl", "glue-rte-seed1.jsonl", "stsb-seed0.jsonl"]
    assert store.file(record("z", "glue/rte", 1)).name == names[1]


def test_records_come_in_the_order_of_file_names_and_then_of_writing(store):
    for row in (record("d", "stsb"), record("c", "cola"), record("b", "stsb"), record("a", "cola")):
        store.append(row)

    assert [row["key"] for row in store.all()] == ["c", "a", "d", "b"]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}], ids=["nan", "inf", "no JSON type"]
)
def test_a_value_that_json_has_not_is_refused_and_nothing_is_written(store, value):
    with pytest.raises(PruningError, match=r"^the record 'bad' is no valid JSON: .+$"):
        store.append(record("bad", metrics={"accuracy": value}))

    assert store.all() == []


# Damage


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_cut_off_with_a_warning_and_nothing_else_is_lost(store, cut):
    for key in "abc":
        store.append(record(key))
    file = store.file(record("a"))
    os.truncate(file, file.stat().st_size - cut)

    with pytest.warns(UserWarning, match=rf"^{re.escape(str(file))} ended in a half-written"):
        found = store.all()

    assert [row["key"] for row in found] == ["a", "b"]
    assert file.read_bytes().endswith(b"}\n")
    assert read(file) == found  # a second time there is nothing to warn about


def test_appending_after_a_torn_line_starts_a_line_of_its_own(store):
    for key in "ab":
        store.append(record(key))
    file = store.file(record("a"))
    os.truncate(file, file.stat().st_size - 5)

    with pytest.warns(UserWarning, match="half-written"):
        store.append(record("c"))

    assert [row["key"] for row in store.all()] == ["a", "c"]


@pytest.mark.parametrize(
    "line",
    [b'{"key": "b", "ta', b"\0" * 20, b"", b"[]", b"1", b'{"key": "b", "task": "stsb"}', b"\xff"],
    ids=["half", "zeros", "empty", "list", "number", "no seed", "no text"],
)
def test_a_damaged_line_is_refused_with_its_file_and_number(store, line):
    for key in "abc":
        store.append(record(key))
    file = store.file(record("a"))
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], line, lines[2], b""]))
    before = file.read_bytes()

    sentence = (
        rf"^line 2 of {re.escape(repr(str(file)))} is not a record; remove that line, and the "
        "model it stood for is trained again$"
    )
    with pytest.raises(PruningError, match=sentence):
        store.all()
    assert file.read_bytes() == before


# A full disk


def short_write(descriptor, content, write=os.write):
    return write(descriptor, content[: len(content) // 2])


def no_write(descriptor, content):
    raise OSError(28, "No space left on device")


def torn_write(descriptor, content, write=os.write):
    write(descriptor, content[:10])
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", [short_write, no_write, torn_write])
def test_a_full_disk_leaves_the_old_content(store, monkeypatch, failing):
    store.append(record("a"))
    file = store.file(record("a"))
    before = file.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        sentence = rf"^could not write {re.escape(repr(str(file)))}: [Nn]o space left on device$"
        with pytest.raises(PruningError, match=sentence):
            store.append(record("b"))

    assert file.read_bytes() == before
    store.append(record("b"))
    assert [row["key"] for row in store.all()] == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(PruningError, match=r"^could not write '.*stsb-seed0\.jsonl': \S"):
        RecordStore(tmp_path / "file").append(record("a"))


def test_a_record_is_on_the_disk_before_append_returns(store, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor)))

    store.append(record("a"))

    assert [status.st_size for status in synced] == [store.file(record("a")).stat().st_size]


# Several processes


@pytest.fixture
def four_processes():
    """A pool whose processes share one import of the library.

    The list is that of test_kill.py, because the first one holds for all of pytest.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["adapter_pruning", "transformers.models.bert.modeling_bert"])
    with context.Pool(4) as pool:
        yield pool


def test_nothing_is_lost_where_four_processes_write_and_one_reads(store, four_processes):
    # Long records, so that a reader often finds a line half there; each from two processes at once.
    rows = [record(str(number), padding="x" * 200_000) for number in range(40) for _ in range(2)]

    pending = four_processes.map_async(store.append, rows, chunksize=1)
    seen = 0
    while not pending.ready():
        found = len(store.all())  # warns, which is an error here, where it cuts off a line
        assert found >= seen
        seen = found
    pending.get()

    assert sorted(int(row["key"]) for row in store.all()) == list(range(40))
