"""A search that is killed, again and again, gives the records of a search that never was."""

import json
import multiprocessing
import os
import runpy
import signal
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import files, training, trials
from adapter_pruning.records import comparable

ROUNDS, KILLS, SEED = 3, 20, 0
SETTINGS = ap.TrainConfig(
    epochs=1, batch_size=8, evaluations_per_epoch=2, max_length=16, patience=100
)


# What the killed process does: it runs this file, but its test functions do nothing there.


def search(folder, started=None, step_by_step=False):
    """A whole ticket search on real sentences with the real MiniLM.

    Args:
        started: an event that is set once the search begins.
        step_by_step: die right after the first change to a file.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of a half-written record that was cut off
    # A checkpoint at every evaluation; by default it is one a minute.
    trials.fit = partial(training.fit, checkpoint_seconds=0)
    task = ap.load_task("rotten_tomatoes", train_size=32, validation_size=8, test_size=16)
    model = ap.attach(ap.load_model("minilm", task, device="cpu"), ap.Houlsby(bottleneck=4))
    if started:
        started.set()
    if step_by_step:
        die_after_a_step()
    options = {"rounds": ROUNDS, "config": SETTINGS, "progress": False}
    for _ in ap.find_tickets(model, task, store=ap.RecordStore(folder), **options):
        pass


def die_after_a_step():
    """Let SIGKILL strike right after the first rename, written line or removed file."""

    def deadly(function, is_step=lambda *args: True):
        def call(*args, **kwargs):
            counts = is_step(*args)
            result = function(*args, **kwargs)
            if counts:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.replace = deadly(os.replace)
    # multiprocessing writes as well, but no records.
    os.write = deadly(os.write, lambda descriptor, content: content.startswith(b"{"))
    Path.unlink = deadly(Path.unlink, Path.exists)


# What the tests do.


@pytest.fixture(scope="module")
def processes():
    """multiprocessing, with a server that has paid for the imports of every child."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["adapter_pruning.tickets", "transformers.models.bert.modeling_bert"]
    )
    return context


@pytest.fixture(scope="module")
def begin(processes):
    """begin(folder): a process that searches there."""

    def begin(folder, **options):
        job = {"job": {"folder": folder} | options}
        process = processes.Process(target=runpy.run_path, args=(__file__, job, "__child__"))
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def unbroken(begin, processes, tmp_path_factory):
    """Records of a search that nobody disturbed, and how many seconds it took."""
    folder, started = tmp_path_factory.mktemp("unbroken"), processes.Event()
    process = begin(folder, started=started)
    started.wait()
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return finished(folder), time.monotonic() - began


def finished(folder):
    """What must be equal of all records of a finished search."""
    return [comparable(record) for record in ap.RecordStore(folder).all()]


def assert_whole(folder):
    """No file under the folder is half there, in the middle of a search or after it."""
    for file in folder.rglob("*.safetensors"):
        files.load_tensors(file)
    for file in folder.rglob("*.pt"):
        torch.load(file, weights_only=True)
    for file in folder.rglob("*.jsonl"):
        # The last line may be torn: the next process cuts it off.
        for line in file.read_text("utf8").split("\n")[:-1]:
            json.loads(line)


def test_a_search_killed_twenty_times_gives_the_records_of_an_unbroken_one(
    begin, processes, tmp_path, unbroken
):
    records, seconds = unbroken
    # Half the time of a whole search, so that most searches are killed more than once.
    delays = np.random.default_rng(SEED).uniform(0, seconds / 2, size=1000)
    kills = searches = 0
    folder = tmp_path / "0"
    # A search that comes to its end before its next kill is followed by another, elsewhere.
    while kills < KILLS:
        started = processes.Event()
        process = begin(folder, started=started)
        started.wait()
        process.join(delays[kills + searches])
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode in {0, -signal.SIGKILL}
        assert_whole(folder)
        if process.exitcode:
            kills += 1
            continue
        assert finished(folder) == records
        searches += 1
        folder = tmp_path / str(searches)
    process = begin(folder)
    process.join()

    assert process.exitcode == 0
    assert finished(folder) == records
    assert not list(tmp_path.rglob("*.pt"))


def test_a_search_killed_after_everything_it_stores_gives_the_records_of_an_unbroken_one(
    begin, tmp_path, unbroken
):
    records, _ = unbroken
    # Each round has its checkpoints, its own file, its record, and a checkpoint to remove; the
    # dense round leaves its adapter for others. One step more than that would mean that something
    # was done twice.
    steps = (ROUNDS + 1) * (SETTINGS.evaluations_per_epoch + 3) + 1
    for _ in range(steps):
        process = begin(tmp_path, step_by_step=True)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert_whole(tmp_path)
    process = begin(tmp_path, step_by_step=True)
    process.join()

    assert process.exitcode == 0
    assert finished(tmp_path) == records
    assert not list(tmp_path.rglob("*.pt"))


if __name__ == "__child__":
    search(**globals()["job"])
