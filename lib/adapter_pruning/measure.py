"""What a run cost, each figure with its method stated."""

import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "datasets", "numpy", "scikit-learn", "scipy", "rouge-score")


class PeakMemory:
    """Peak memory between `start` and `read`, in MiB.

    On a GPU: what PyTorch's allocator held at most. On a CPU: the process's peak resident set
    (Linux's VmHWM, reset at the start where the kernel allows it; elsewhere since the process
    began). It includes the interpreter and the libraries, so compare runs, not absolute values.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            # Not on Linux, or not allowed: the figure then covers the whole process.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> float:
        """Peak since the start, in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) / 2**10
        except (OSError, IndexError):
            unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, else KiB
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def hardware(device: torch.device) -> dict[str, str | int]:
    """The processor that did the work, and how many CPU threads PyTorch used."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "threads": torch.get_num_threads()}
    return {"device": _cpu_name(), "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
