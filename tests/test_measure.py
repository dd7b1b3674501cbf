import platform
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapter_pruning import measure
from adapter_pruning.measure import PeakMemory

CPU = torch.device("cpu")
cleared = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the kernel does not reset the peak"
)


def hold(mebibytes):
    """Memory that is really there, because it was written to."""
    return np.ones(mebibytes * 2**20, np.uint8)


@cleared
def test_the_peak_grows_with_what_is_allocated():
    before = PeakMemory(CPU).read()
    memory = PeakMemory(CPU)
    held = hold(200)

    assert memory.read() - before == pytest.approx(200, abs=20)
    del held


@cleared
def test_the_peak_counts_what_has_been_freed_again():
    memory = PeakMemory(CPU)
    before = memory.read()
    hold(200)

    assert memory.read() - before == pytest.approx(200, abs=20)


@cleared
def test_a_new_measurement_forgets_the_peak_before_it():
    first = PeakMemory(CPU)
    hold(200)

    before = first.read()

    assert PeakMemory(CPU).read() < before - 100


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_without_proc_the_peak_is_that_of_the_whole_process(monkeypatch, system, unit):
    def absent(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "write_text", absent)
    monkeypatch.setattr(sys, "platform", system)
    usage = SimpleNamespace(ru_maxrss=300 * 2**20 // unit)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)

    assert PeakMemory(CPU).read() == 300


def test_versions_are_those_that_run():
    found = measure.versions()

    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert set(found) == {"python", *measure.PACKAGES}


def test_hardware_names_the_processor_and_the_threads():
    found = measure.hardware(CPU)

    assert set(found) == {"device", "threads"}
    assert found["threads"] == torch.get_num_threads()
    assert found["device"].strip() == found["device"] != ""


@pytest.mark.parametrize("content", [None, "processor : 0\nno name here\n"])
def test_a_machine_without_a_processor_name_gives_its_architecture(monkeypatch, content):
    def read(*args, **kwargs):
        if content is None:
            raise FileNotFoundError
        return content

    monkeypatch.setattr(Path, "read_text", read)

    assert measure.hardware(CPU)["device"] == (platform.processor() or platform.machine())
