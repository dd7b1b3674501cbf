"""One trial: train one model, evaluate it, and write down everything about it as one record."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from . import files, measure
from .adapters import adapter_parameters
from .backbones import Model
from .errors import PruningError
from .masks import Mask, pack
from .records import RecordStore, digest, library_hash
from .tasks import Task
from .training import Progress, TrainConfig, evaluate, fit, trainable

During = Callable[[Model], AbstractContextManager]


def identity(
    model: Model, task: Task, config: TrainConfig, seed: int, mask: Mask | None = None
) -> dict:
    """What decides a trained model: equal identities give equal models on one machine.

    `start` is a hash of the initial values of everything that trains, and of adapters that do
    not, so another initialisation is another identity however it came about.
    """
    return {
        "task": task.name,
        "data_revision": task.revision,
        "rows": task.sizes,
        "rows_hash": task.fingerprint,
        "model": model.name,
        "model_revision": model.revision,
        "pooling": model.pooling,
        "dropout": model.dropout_rate,
        "adapter": _about_adapter(model),
        "cut": hash_tensors(pack(model.cut)) if model.cut is not None else None,
        "config": asdict(config),
        "seed": seed,
        "start": hash_tensors(trainable(model) | _frozen(model)),
        "mask": hash_tensors(pack(mask)) if mask is not None else None,
        "library": library_hash(),
        "versions": measure.versions(),
    }


def _frozen(model: Model) -> dict[str, Tensor]:
    """What was added to the encoder and does not train: adapters in a fusion, a head as drawn."""
    head = dict(model.head.named_parameters(prefix="head"))
    if model.adapter_config is None:
        return head
    return head | dict(model.adapters.named_parameters(prefix="adapters"))


def _about_adapter(model: Model) -> dict | None:
    if model.adapter_config is None:
        return None
    return {"kind": type(model.adapter_config).__name__, **asdict(model.adapter_config)}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits over names and values, whatever their order and device."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def parameter_counts(model: Model, mask: Mask | None = None) -> dict[str, int | float]:
    """Numbers that train, numbers a task stores beside the shared encoder, and their share.

    Entries that the mask prunes count nowhere. `parameters_percent` is Wu & Chen's (2022,
    Table 2): adapter parameters over encoder plus adapters; for full fine-tuning it is 100. What
    trains of the encoder itself, such as LayerNorms, is stored and is no adapter.
    """
    gone = mask.total - mask.kept if mask is not None else 0
    trained = sum(p.numel() for p in trainable(model).values()) - gone
    if model.adapter_config is None:
        whole = all(p.requires_grad for layer in model.layers() for p in layer.module.parameters())
        total = sum(p.numel() for p in model.encoder.parameters())
        return {
            "parameters_trained": trained,
            "parameters_stored": trained,
            "parameters_percent": 100.0 if whole else 100 * trained / total,
        }
    adapters = sum(p.numel() for p in adapter_parameters(model).values())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    changed = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    stored = adapters - gone + changed + sum(p.numel() for p in model.head.parameters())
    percent = 100 * (adapters - gone) / (encoder + adapters)
    return {
        "parameters_trained": trained,
        "parameters_stored": stored,
        "parameters_percent": percent,
    }


def run(
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    method: str,
    mask: Mask | None = None,
    density: float | None = None,
    detail: Mapping | None = None,
    profile: str = "",
    checkpoint: str | Path | None = None,
    shared: RecordStore | None = None,
    during: During | None = None,
    progress: bool = True,
) -> dict:
    """Train and evaluate the model in place; the record of it, not stored anywhere yet.

    Args:
        method: what a table calls this row.
        mask: held during training, over adapter parameters.
        density: share of the pruned units that is kept; without it, that of the mask's entries.
        detail: further facts for the record, such as the round of a search.
        profile: which profile asked for the run.
        shared: where a whole adapter, once trained, lies for every method that trains the same
            one: a dense baseline is also round 0 of each search.
        during: makes a context from the model in which its training happens, such as
            `adalora.allocating`. What it does has a state of its own, so that such a training
            starts afresh after a kill.
    """
    about = identity(model, task, config, seed, mask)
    file = _shared_file(shared, model, about, mask)
    if file and file.exists():
        outcome = _recall(model, file)
    else:
        options = {"seed": seed, "mask": mask, "progress": progress}
        options["checkpoint"] = None if during else checkpoint
        with during(model) if during else nullcontext():
            outcome = _train(model, task, config, **options)
        if file:
            _keep(model, outcome, file)
    return (
        about
        | outcome
        | {
            "key": key(about, method, detail),
            "method": method,
            "detail": dict(detail or {}),
            "profile": profile,
            "density": density or (mask.density if mask is not None else 1.0),
            **parameter_counts(model, mask),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def _train(model: Model, task: Task, config: TrainConfig, **options) -> dict:
    memory = measure.PeakMemory(model.device)
    made = fit(model, task, config, **options)
    cost = {"peak_memory_mib": memory.read(), "hardware": measure.hardware(model.device)}
    return _outcome(task, made, evaluate(model, task, config)) | cost


def _shared_file(
    store: RecordStore | None, model: Model, about: dict, mask: Mask | None
) -> Path | None:
    """Where this model's trained weights may lie: only whole adapters are worth the disk."""
    whole = mask is None or mask.kept == mask.total
    if store is None or model.adapter_config is None or not whole:
        return None
    # A mask that keeps everything trains the same model as none.
    return store.folder / "dense" / f"{digest(about | {'mask': None})}.safetensors"


def _keep(model: Model, outcome: dict, file: Path) -> None:
    state, about = trainable(model), {"outcome": json.dumps(outcome)}
    files.save_tensors(file, state, about | {"seal": seal(state, about)})


def _recall(model: Model, file: Path) -> dict:
    """Set the model to the trained weights in the file; what their training came to.

    Raises:
        PruningError: the file is damaged.
    """
    state, about = files.load_tensors(file)
    if about.pop("seal", None) != seal(state, about):
        raise PruningError(
            f"the trained adapter {str(file)!r} is damaged; delete it to train it again"
        )
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(state[name])
    return json.loads(about["outcome"])


def seal(state: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """A hash over tensors and metadata, stored with them: safetensors does not see torn values."""
    return digest([hash_tensors(state), dict(about)])


def _outcome(task: Task, made: Progress, scores: dict[str, float]) -> dict:
    return {
        "metric": task.metric,
        "score": scores[task.metric],
        "metrics": scores,
        "majority": task.majority,
        "validation_loss": made.best_loss,
        "validation_score": made.best_score,
        "steps": made.step,
        "best_step": made.best_step,
        "stopped_early": made.stopped,
        "history": made.history,
        "seconds": made.seconds,
    }


def key(about: dict, method: str, detail: Mapping | None = None) -> str:
    """The record's key: sixteen hex digits over its identity, method and detail."""
    return digest([about, method, dict(detail or {})])


def run_once(
    store: RecordStore,
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    method: str,
    mask: Mask | None = None,
    detail: Mapping | None = None,
    **options,
) -> dict:
    """The stored record of this trial where there is one; else run it and store its record.

    A trial that was killed goes on from its checkpoint beside the records.
    """
    wanted = key(identity(model, task, config, seed, mask), method, detail)
    checkpoint = store.folder / f"{wanted}.pt"
    if (record := store.find(wanted)) is None:
        record = run(
            model,
            task,
            config,
            seed=seed,
            method=method,
            mask=mask,
            detail=detail,
            checkpoint=checkpoint,
            shared=store,
            **options,
        )
        store.append(record)
    if checkpoint.exists():  # also one whose trial was killed right after its record was stored
        checkpoint.unlink()
    return record
