"""What a model costs: parameters, memory, disk, FLOPs and time, each figure with its method."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import Timer

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from .errors import PruningError
from .measure import PeakMemory
from .places import Backbone

MIB = 2**20
# PyTorch's profiler reads it when it first starts; without it, every start writes a line.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def parameters(model: Backbone) -> dict[str, int]:
    """How many numbers the model has (`total`), and how many of them train (`trainable`)."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"total": sum(n for n, _ in sizes), "trainable": sum(n for n, trains in sizes if trains)}


def weights_mib(model: Backbone) -> float:
    """MiB of all parameters and buffers as they lie in memory, each shared one once.

    The "memory" of Wang et al. (2023): their script reads what the GPU holds once the model was
    copied to it, before any text went through. Theirs is larger by the allocator's rounding.
    """
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers())) / MIB


def disk_mib(path: str | Path) -> float:
    """MiB of a file, or of all files in a folder and below: their lengths, not their blocks.

    Raises:
        PruningError: nothing is there.
    """
    path = Path(path)
    if not path.exists():
        raise PruningError(f"no file or folder {str(path)!r}")
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / MIB


def flops(model: Backbone, inputs: Mapping[str, Tensor]) -> int:
    """Floating point operations of one forward pass, by PyTorch's counter.

    It counts matrix products, a multiplication and an addition as two, padding like any token.
    Everything else (sums, LayerNorm, softmax, activations, look-ups) is not in it.
    """
    # The counter knows nothing of PyTorch's fused attention on a CPU and would count none of it.
    plain_attention, counter = sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False)
    with _mode(model, training=False), plain_attention, counter:
        _forward(model, inputs)
    return counter.get_total_flops()


def inference_mib(model: Backbone, inputs: Mapping[str, Tensor]) -> float:
    """Peak memory of a forward pass in MiB: the weights, and the most that was held beside them.

    What PyTorch's allocator gave out and took back, on a GPU by `measure.PeakMemory`, on a CPU by
    PyTorch's profiler: unlike the process's resident set it does not depend on what ran before.
    Inputs, the interpreter, and the libraries' own buffers are not in it.
    """
    with _mode(model, training=False):
        return weights_mib(model) + _held_mib(partial(_forward, model, inputs), model.device)


def training_mib(model: Backbone, inputs: Mapping[str, Tensor]) -> float:
    """Peak memory of a training step in MiB: weights, activations, gradients and Adam's state.

    Counted as for `inference_mib`, over two steps from the model's sum of outputs: Adam's state
    is there from the end of the first. The weights stay as they were; gradients are cleared.

    Raises:
        PruningError: nothing in the model trains.
    """
    with _mode(model, training=True):
        return weights_mib(model) + _held_mib(partial(_two_steps, model, inputs), model.device)


def latency(
    models: Mapping[str, Backbone], inputs: Mapping[str, Tensor], rounds: int = 10
) -> pd.DataFrame:
    """Time of a forward pass in inference mode, of several models side by side.

    They take turns (A B C A B C ...), after one round that is not counted, so that whatever else
    the machine does meets all of them. Compare ratios; seconds are those of this machine now.

    Returns:
        One row a model: `seconds` (median over the rounds), `iqr` (interquartile range, in
        seconds), `ratio` (median over the rounds of its time by the first model's).
    """
    with _modes(models, training=False):
        return _side_by_side({n: partial(_forward, m, inputs) for n, m in models.items()}, rounds)


def training_time(
    models: Mapping[str, Backbone], inputs: Mapping[str, Tensor], rounds: int = 10
) -> pd.DataFrame:
    """Time of a training step (forward, backward, Adam), measured and returned as for `latency`.

    The loss is the sum of the outputs, and Adam's rate is 0, so that the weights stay as they
    were; gradients are cleared.

    Raises:
        PruningError: nothing in a model trains.
    """
    steps = {name: partial(_step, m, _adam(m), inputs) for name, m in models.items()}
    with _modes(models, training=True):
        return _side_by_side(steps, rounds)


def summary(
    models: Mapping[str, Backbone],
    inputs: Mapping[str, Tensor],
    files: Mapping[str, str | Path],
    rounds: int = 10,
) -> pd.DataFrame:
    """One row a model with every figure of this module; both times relative to the first model.

    Args:
        inputs: one batch, on the models' device.
        files: model's name -> what it is stored in; a model may be stored nowhere.
        rounds: as for `latency`.
    """
    rows = {
        name: {
            "parameters": parameters(model)["total"],
            "trainable": parameters(model)["trainable"],
            "disk_mib": disk_mib(files[name]) if name in files else float("nan"),
            "weights_mib": weights_mib(model),
            "inference_mib": inference_mib(model, inputs),
            "training_mib": training_mib(model, inputs),
            "gflops": flops(model, inputs) / 1e9,
        }
        for name, model in models.items()
    }
    times = {"latency": latency, "training_time": training_time}
    ratios = {name: measured(models, inputs, rounds)["ratio"] for name, measured in times.items()}
    return pd.DataFrame.from_dict(rows, orient="index").assign(**ratios)


@contextmanager
def _mode(model: Backbone, training: bool) -> Iterator[None]:
    """The model as in training or not, and afterwards as it was."""
    before = model.training
    try:
        # Dropout draws numbers, and whoever measures should not change what is drawn next.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model.train(training)
            yield
    finally:
        model.train(before)


@contextmanager
def _modes(models: Mapping[str, Backbone], training: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(_mode(model, training))
        yield


def _forward(model: Backbone, inputs: Mapping[str, Tensor]) -> None:
    with torch.inference_mode():
        model(**inputs)


def _adam(model: Backbone) -> torch.optim.Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise PruningError(f"nothing in model {model.name!r} trains; attach adapters or thaw it")
    return torch.optim.Adam(trainable, lr=0.0)


def _step(model: Backbone, adam: torch.optim.Optimizer, inputs: Mapping[str, Tensor]) -> None:
    model(**inputs).sum().backward()
    adam.step()
    adam.zero_grad()


def _two_steps(model: Backbone, inputs: Mapping[str, Tensor]) -> None:
    adam = _adam(model)
    for _ in range(2):
        _step(model, adam, inputs)


def _held_mib(run: Callable[[], None], device: torch.device) -> float:
    """The most that `run` held at once of what it allocated, in MiB."""
    if device.type == "cuda":
        run()  # the libraries' workspaces are allocated once, for all models
        memory = PeakMemory(device)
        before = memory.read()
        run()
        return memory.read() - before
    held, total, peak = {}, 0, 0
    for address, size in _allocations(run):
        if size > 0:
            held[address] = size
        total += size if size > 0 else -held.pop(address, 0)  # others were there before
        peak = max(peak, total)
    return peak / MIB


def _allocations(run: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """(address, bytes) of what the CPU's allocator gave out and, negative, took back, in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text("utf8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    for event in sorted(memory, key=lambda event: event["ts"]):
        yield event["args"]["Addr"], event["args"]["Bytes"]


def _side_by_side(steps: Mapping[str, Callable[[], None]], rounds: int) -> pd.DataFrame:
    for step in steps.values():
        step()
    # PyTorch's clock waits for the device; timeit keeps the garbage collector out.
    timers = {name: Timer(step, timer=timer) for name, step in steps.items()}
    seconds = pd.DataFrame([{n: t.timeit(1) for n, t in timers.items()} for _ in range(rounds)])
    ratios = seconds.div(seconds.iloc[:, 0], axis="index")
    return pd.DataFrame(
        {
            "seconds": seconds.median(),
            "iqr": seconds.quantile(0.75) - seconds.quantile(0.25),
            "ratio": ratios.median(),
        }
    )
