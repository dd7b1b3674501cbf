"""A cut model in a folder, whole: transformers alone cannot load layers of unequal size."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from . import files
from .adapters import attach
from .backbones import ARCHITECTURES, Model, pick_device
from .checkpoints import described
from .errors import PruningError
from .masks import Mask, pack, shapes, unpack
from .surgery import cut

FILE = "pruned.safetensors"  # not transformers' own name, which would load and be wrong
CUT = "cut:"  # before the names of the mask's tensors, which lie among the weights


def save_pruned(model: Model, folder: str | Path) -> None:
    """Write encoder, adapters, head, tokenizer and what was cut, so that nothing else is needed.

    Raises:
        PruningError: the folder cannot be written to.
    """
    try:
        model.encoder.config.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise PruningError(f"could not write {str(folder)!r}: {error}") from error
    adapter = model.adapter_config
    about = {
        "model": model.name,
        "revision": model.revision,
        "pooling": model.pooling,
        "attention": model.encoder.config._attn_implementation,
        "trains": json.dumps([n for n, p in model.named_parameters() if p.requires_grad]),
    }
    if adapter is not None:
        about["adapter"] = json.dumps({"kind": type(adapter).__name__, **asdict(adapter)})
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if model.cut is not None:
        state |= {CUT + name: bits for name, bits in pack(model.cut).items()}
        about |= shapes(model.cut)
    files.save_tensors(Path(folder) / FILE, state, about)


def load_pruned(folder: str | Path, device: str = "auto") -> Model:
    """The model that `save_pruned` wrote: outputs bit-equal, and the same parameters train.

    Raises:
        PruningError: something in the folder is missing, damaged, or does not belong together.
    """
    state, about = files.load_tensors(Path(folder) / FILE)
    target = pick_device(device)
    try:
        bits = {n.removeprefix(CUT): state.pop(n) for n in list(state) if n.startswith(CUT)}
        model = _empty(folder, state, about)
        if bits:
            _cut_quietly(model, unpack(bits, about))
        if "adapter" in about:
            attach(model, described(json.loads(about["adapter"])))
        model.load_state_dict(state)
        trains = set(json.loads(about["trains"]))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise PruningError(
            f"the files in {str(folder)!r} do not make a model "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); save it again"
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trains)
    return model.to(target)


def _empty(folder: str | Path, state: dict[str, Tensor], about: dict[str, str]) -> Model:
    """The model before anything was cut, with weights that will be replaced."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    options = {"attn_implementation": about["attention"]}
    if config.model_type in ARCHITECTURES:
        options["add_pooling_layer"] = "encoder.pooler.dense.weight" in state
    with torch.random.fork_rng(devices=[]):
        encoder = AutoModel.from_config(config, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    outputs = len(state["head.bias"])
    model = Model(encoder, tokenizer, outputs, about["pooling"], about["model"])
    model.revision = about["revision"]
    return model


def _cut_quietly(model: Model, keep: Mask) -> None:
    with warnings.catch_warnings():  # whoever cut the model was told
        warnings.simplefilter("ignore", UserWarning)
        cut(model, keep)
