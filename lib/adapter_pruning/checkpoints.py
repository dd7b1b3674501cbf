"""Adapters and their head in one safetensors file, and back."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from . import files
from .adapters import KINDS, AdapterConfig, adapter_parameters, attach, detach
from .backbones import Model
from .bottleneck import Pfeiffer
from .errors import PruningError
from .fusion import Fusion


def save_adapters(model: Model, file: str | Path) -> None:
    """Write the adapters and the head to one safetensors file, with what they fit.

    Raises:
        PruningError: the encoder was cut or trains too, and the file would not tell.
    """
    if model.cut is not None or any(p.requires_grad for p in model.encoder.parameters()):
        raise PruningError(
            "the encoder was cut, or trains too, so that adapters alone do not make this model "
            "again; use save_pruned"
        )
    state = _everything(model) | {
        f"head.{name}": p.detach() for name, p in model.head.named_parameters()
    }
    about = {
        "model": model.name,
        "revision": model.revision,
        "adapter": type(model.adapter_config).__name__,
        "config": json.dumps(asdict(model.adapter_config)),
    }
    files.save_tensors(file, state, about)


def _everything(model: Model) -> dict[str, Tensor]:
    """All tensors of the adapters, also the frozen ones of a fusion."""
    adapter_parameters(model)
    return {n: p.detach() for n, p in model.adapters.named_parameters(prefix="adapters")}


def fuse(model: Model, saved: Sequence[str | Path], *, seed: int = 0) -> Model:
    """Attach the fusion of saved Pfeiffer adapters, one file for each task they were trained on.

    The adapters are frozen; query, key and value of the fusion and the head train. The heads in
    the files are left.

    Args:
        saved: two files or more, written by `save_adapters`, with one bottleneck and activation.

    Raises:
        PruningError: as `load_adapters`; adapters of another kind, or that differ in shape.
    """
    states, configs = zip(*(_read(file, model) for file in saved), strict=True)
    for file, config in zip(saved, configs, strict=True):
        if not isinstance(config, Pfeiffer):
            kind = type(config).__name__
            raise PruningError(f"{str(file)!r} holds {kind} adapters; fusion is of Pfeiffer's")
        if config != configs[0]:
            raise PruningError(f"{str(file)!r} has other adapters than {str(saved[0])!r}: {config}")
    first = configs[0]
    shape = {"bottleneck": first.bottleneck, "activation": first.activation}
    attach(model, Fusion(adapters=len(saved), **shape), seed=seed)
    for layer, placed in model.adapters.items():
        for adapter, state in zip(placed["fusion"].fused, states, strict=True):
            start = f"adapters.{layer}.ffn."
            mine = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
            adapter.load_state_dict(mine)
    return model


def load_adapters(model: Model, file: str | Path) -> Model:
    """Attach the adapters of a saved file and take over its head; outputs are bit-equal.

    Raises:
        PruningError: the file is missing or damaged, or does not fit this model.
    """
    state, config = _read(file, model)
    head = {f"head.{name}": p for name, p in model.head.named_parameters()}
    for name, p in head.items():
        if name not in state or state[name].shape != p.shape:
            raise PruningError(f"{str(file)!r} has another head than this model: {name}")
    attach(model, config)
    wanted = _everything(model) | head
    if {n: p.shape for n, p in wanted.items()} != {n: t.shape for n, t in state.items()}:
        detach(model)
        raise PruningError(f"{str(file)!r} does not hold the adapters it describes; save it again")
    model.load_state_dict(state, strict=False)
    return model


def _read(file: str | Path, model: Model) -> tuple[dict[str, Tensor], AdapterConfig]:
    """Tensors and configuration of a file that was trained on the model's encoder."""
    state, about = files.load_tensors(file)
    if about.get("adapter") not in KINDS:
        raise PruningError(f"{str(file)!r} holds no saved adapters")
    if about.get("revision") != model.revision:
        raise PruningError(
            f"{str(file)!r} was trained on {about.get('model')} at {about.get('revision')}, "
            f"and this model is {model.name} at {model.revision}"
        )
    return state, _saved_config(file, about)


def _saved_config(file: str | Path, about: dict[str, str]) -> AdapterConfig:
    try:
        return described({"kind": about["adapter"], **json.loads(about["config"])})
    except (KeyError, ValueError, TypeError) as error:  # a PruningError is a ValueError
        raise PruningError(f"{str(file)!r} describes no adapters this version knows") from error


def described(adapter: dict) -> AdapterConfig:
    """The configuration that a record or a file describes: its `kind` and its attributes."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in adapter.items()}
    return KINDS[options.pop("kind")](**options)
