"""LoRA in a folder that Hugging Face's PEFT reads, and from a folder that PEFT wrote."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from . import files
from .adapters import adapter_parameters, attach
from .backbones import Model
from .errors import PruningError
from .lora import LoRA, Target

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
PREFIX = "base_model.model."  # of every tensor: PEFT's two wrappers around the model
# What of PEFT's configuration is either read here, or said again by the tensors, or means nothing
# once LoRA is trained. Every other option changes the map, and has to be at its default.
KNOWN = {
    "r",
    "rank_pattern",
    "lora_alpha",
    "alpha_pattern",
    "peft_type",
    "modules_to_save",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "lora_dropout",
    "fan_in_fan_out",
    "inference_mode",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "peft_version",
}
STARTS = (True, False, "gaussian", "orthogonal")  # initialisations that leave the weights alone


class Matrix(NamedTuple):
    """A matrix that LoRA can stand beside, and its module's full name in the model."""

    layer: int
    target: str
    name: str
    linear: nn.Linear


def need_peft() -> ModuleType:
    """The package `peft`.

    Raises:
        PruningError: it is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise PruningError(
            "the package 'peft' is not installed; install `adapter-pruning[notebooks]`"
        ) from error
    return peft


def to_peft(model: Model, folder: str | Path) -> None:
    """Write LoRA, and what else trains, so that `PeftModel.from_pretrained` puts it into a copy.

    PEFT then has the same outputs on the bare model: loaded alike, cut alike, with the same head
    where the head is frozen here. LayerNorms and head, where they train, are `modules_to_save`.

    Args:
        folder: gets `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        PruningError: no adapters or others than LoRA, something else trains too, the folder
            cannot be written to, or there is no PEFT.
    """
    peft = need_peft()
    adapter_parameters(model)
    if not isinstance(model.adapter_config, LoRA):
        kind = type(model.adapter_config).__name__
        raise PruningError(f"{kind} adapters cannot be written as PEFT's LoRA; only LoRA can")
    saved = {name: module for name, module in _beside(model).items() if _trains(module)}
    _check_others_frozen(model, saved)
    config = peft.LoraConfig(
        **_options(model),
        modules_to_save=sorted(saved) or None,
        base_model_name_or_path=model.name,
        inference_mode=True,
    )
    files.save_tensors(Path(folder) / TENSORS, _tensors(model, saved), {"format": "pt"})
    # Sets are written sorted, so that one model makes one file.
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=sorted)
    files.write_bytes(Path(folder) / CONFIG, text.encode())


def from_peft(model: Model, folder: str | Path) -> Model:
    """Attach the LoRA that PEFT saved from the same bare model; outputs are PEFT's.

    The model is loaded alike and cut alike. What the folder holds trains, and nothing else: LoRA,
    and LayerNorms and head if they are there. `init_std` and `zero_up` are at their defaults, and
    dropout inside LoRA, which there is none of here, is left out.

    Args:
        folder: written by `to_peft`, or by PEFT around a whole `Model`.

    Raises:
        PruningError: the folder is incomplete or damaged, is of another method than LoRA or of a
            variant of it, has several ranks in one layer, or does not fit the model; the model
            has adapters; or there is no PEFT. No weight of the model is then changed.
    """
    config = _read_config(folder)
    state, _ = files.load_tensors(Path(folder) / TENSORS)
    lora = _described(config, _found(model, state, folder), model, folder)
    saved = _saved(model, state)
    _check_shapes(state, dict(_shapes(model, lora, saved)), folder)
    attach(model, lora)
    with torch.no_grad():
        for key, parameter in _tensors(model, saved).items():
            parameter.copy_(state[key])
    for name, module in _beside(model).items():
        module.requires_grad_(name in saved)
    return model


def matrices(model: Model, targets: Iterable[str]) -> Iterator[Matrix]:
    """Targets of every layer, lowest first; a layer without heads has no matrices of attention."""
    names = {module: name for name, module in model.named_modules()}
    for layer in model.layers():
        for target in targets:
            linear = layer.part(target)
            if linear.weight.numel():
                yield Matrix(layer.index, target, names[linear], linear)


def _lora_keys(matrix: Matrix) -> tuple[str, str]:
    """PEFT's names of A and B."""
    start = f"{PREFIX}{matrix.name}"
    return f"{start}.lora_A.weight", f"{start}.lora_B.weight"


def _tensors(model: Model, saved: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """PEFT's names, and the parameters of LoRA and of these modules."""
    named = dict(_module_tensors(saved))
    for matrix in matrices(model, model.adapter_config.targets):
        change = model.adapters[str(matrix.layer)][matrix.target]
        halves = change.down.weight, change.up.weight
        named |= dict(zip(_lora_keys(matrix), halves, strict=True))
    return named


def _shapes(
    model: Model, lora: LoRA, saved: Mapping[str, nn.Module]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """PEFT's names, and the shapes that this LoRA and these modules have on the model."""
    for matrix in matrices(model, lora.targets):
        rank, (outputs, inputs) = lora.rank_of(matrix.layer), matrix.linear.weight.shape
        yield from zip(_lora_keys(matrix), ((rank, inputs), (outputs, rank)), strict=True)
    for key, parameter in _module_tensors(saved):
        yield key, tuple(parameter.shape)


def _beside(model: Model) -> dict[str, nn.Module]:
    """What may train beside LoRA, by name: the encoder's LayerNorms and the head."""
    every = model.encoder.named_modules(prefix="encoder")
    norms = {name: module for name, module in every if isinstance(module, nn.LayerNorm)}
    return {**norms, "head": model.head}


def _module_tensors(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in modules.items():
        yield from module.named_parameters(prefix=f"{PREFIX}{name}")


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _check_others_frozen(model: Model, saved: Mapping[str, nn.Module]) -> None:
    for name, parameter in model.named_parameters():
        known = name.startswith("adapters.") or name.rpartition(".")[0] in saved
        if parameter.requires_grad and not known:
            raise PruningError(
                f"{name} trains; beside LoRA only LayerNorms and the head are written, so freeze it"
            )


def _options(model: Model) -> dict:
    """Ranks, scales and places of LoRA, in PEFT's words.

    PEFT looks for its patterns at the end of a module's name: an anchored whole name is one
    module's alone.
    """
    lora = model.adapter_config
    places = {matrix.name: matrix.layer for matrix in matrices(model, lora.targets)}
    ranks = [lora.rank_of(layer.index) for layer in model.layers()]
    alphas = [lora.scale_of(layer) * rank for layer, rank in enumerate(ranks)]
    keys = {f"^{re.escape(name)}": layer for name, layer in places.items()}
    return {
        "r": ranks[0],
        "lora_alpha": alphas[0],
        "rank_pattern": {key: ranks[layer] for key, layer in keys.items()},
        "alpha_pattern": {key: alphas[layer] for key, layer in keys.items()},
        "target_modules": list(places),
    }


def _read_config(folder: str | Path):
    """PEFT's `LoraConfig` of a folder, which is plain LoRA."""
    peft, file = need_peft(), Path(folder) / CONFIG
    if not file.is_file():
        raise PruningError(f"no file {str(file)!r}; give a folder that PEFT saved LoRA in")
    try:
        kind = json.loads(file.read_bytes())["peft_type"]
        if kind == peft.PeftType.LORA:
            config = peft.LoraConfig.from_pretrained(str(folder))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PruningError(f"the file {str(file)!r} is damaged; save the adapter again") from error
    if kind != peft.PeftType.LORA:
        raise PruningError(f"{str(folder)!r} holds {kind} of PEFT; only LORA can be read")
    _check_plain(config, peft.LoraConfig().to_dict(), folder)
    return config


def _check_plain(config, plain: dict, folder: str | Path) -> None:
    """Refuse the variants of LoRA: only W x + (alpha / r) B A x is ours."""
    if config.init_lora_weights in STARTS:
        plain["init_lora_weights"] = config.init_lora_weights
    for name, value in config.to_dict().items():
        if name not in KNOWN and value != plain[name]:
            raise PruningError(
                f"{str(folder)!r} has {name} {value!r}, a variant of LoRA that is not known here; "
                f"train with {plain[name]!r}"
            )


def _found(model: Model, state: Mapping[str, Tensor], folder: str | Path) -> list[Matrix]:
    """The matrices that the folder has LoRA for."""
    every = matrices(model, get_args(Target))
    found = [matrix for matrix in every if _lora_keys(matrix)[0] in state]
    if not found:
        raise PruningError(
            f"{str(folder)!r} has LoRA for no matrix of this model; put PEFT around the whole "
            f"model, not around its encoder, so that names begin with {PREFIX + 'encoder'!r}"
        )
    return found


def _described(config, found: list[Matrix], model: Model, folder: str | Path) -> LoRA:
    """Our configuration of the LoRA that PEFT's describes; a layer without any has the usual r."""
    ranks = [_look_up(config.rank_pattern, matrix, config.r) for matrix in found]
    alphas = [_look_up(config.alpha_pattern, matrix, config.lora_alpha) for matrix in found]
    of_layer = _layer_ranks(found, ranks, folder)
    rank = tuple(of_layer.get(layer.index, config.r) for layer in model.layers())
    targets = {matrix.target for matrix in found}
    options = {
        "rank": rank[0] if len(set(rank)) == 1 else rank,
        "targets": tuple(target for target in get_args(Target) if target in targets),
        **_scaling(alphas, ranks, folder),
    }
    try:
        return LoRA(**options)
    except PruningError as error:
        raise PruningError(f"{str(folder)!r} has LoRA that cannot be had here: {error}") from error


def _layer_ranks(found: list[Matrix], ranks: list[int], folder: str | Path) -> dict[int, int]:
    """Layer -> rank."""
    of_layer = {}
    for (layer, *_), rank in zip(found, ranks, strict=True):
        if of_layer.setdefault(layer, rank) != rank:
            raise PruningError(
                f"{str(folder)!r} has ranks {of_layer[layer]} and {rank} in layer {layer}; train "
                f"with one rank in a layer"
            )
    return of_layer


def _look_up(pattern: Mapping[str, float], matrix: Matrix, usual: float) -> float:
    from peft.utils.other import get_pattern_key

    return pattern.get(get_pattern_key(pattern, matrix.name), usual)


def _scaling(alphas: list[float], ranks: list[int], folder: str | Path) -> dict[str, float]:
    """One alpha for all matrices, or else one scale."""
    if len(set(alphas)) == 1:
        return {"alpha": alphas[0]}
    scales = [alpha / rank for alpha, rank in zip(alphas, ranks, strict=True)]
    if not math.isclose(min(scales), max(scales)):
        raise PruningError(
            f"{str(folder)!r} scales its changes by {min(scales):g} to {max(scales):g}; train with "
            f"one alpha, or with one alpha / r"
        )
    return {"scale": scales[0]}


def _saved(model: Model, state: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """The modules beside LoRA that the folder has anything of."""
    return {
        name: module
        for name, module in _beside(model).items()
        if any(key in state for key, _ in _module_tensors({name: module}))
    }


def _check_shapes(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], folder: str | Path
) -> None:
    given = {key: tuple(tensor.shape) for key, tensor in state.items()}
    for key in sorted(given.keys() | wanted.keys()):
        if given.get(key) != wanted.get(key):
            raise PruningError(
                f"{str(folder)!r} does not fit this model: {key} is of shape {given.get(key)}, and "
                f"{wanted.get(key)} was expected; load and cut the model as it was when this was "
                f"saved"
            )
