"""AdapterHub's side of the comparison; runs in an environment with `adapters`. See cases.py."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import adapters
import torch
from adapters import composition
from adapters.configuration import (
    ConfigUnion,
    DoubleSeqBnConfig,
    LoRAConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
)
from safetensors.torch import load_file, save_file
from transformers import BertModel

WIDTH = 384


def bottleneck(kind: type, about: dict, **more):
    """A bottleneck configuration of theirs with our size and activation."""
    factor = WIDTH / about["bottleneck"]
    return kind(reduction_factor=factor, non_linearity=about["activation"], **more)


def configuration(about: dict):
    """Their configuration of one of our adapters."""
    match about["kind"]:
        case "Houlsby":
            return bottleneck(DoubleSeqBnConfig, about)
        case "Pfeiffer" | "Fusion":
            return bottleneck(SeqBnConfig, about)
        case "Parallel":
            return bottleneck(ParBnConfig, about, scaling=about["scale"])
        case "LoRA":
            matrices = [{"query": "q", "value": "v"}[name] for name in about["targets"]]
            return LoRAConfig(r=about["rank"], alpha=about["alpha"], attn_matrices=matrices)
        case "Prefix":
            return PrefixTuningConfig(flat=True, prefix_length=about["length"], dropout=0.0)
        case "MAM":
            prefix = PrefixTuningConfig(flat=True, prefix_length=about["bottleneck"], dropout=0.0)
            return ConfigUnion(prefix, bottleneck(ParBnConfig, about, scaling=about["scale"]))


def ours_to_theirs(about: dict, state: dict, layers: int) -> dict:
    """Our tensors under their names (without what comes before `encoder.layer`)."""
    named, heads = {}, 12
    for name, tensor in state.items():
        layer, place, part = name.split(".", 2)
        block = f"encoder.layer.{layer}"
        if place in ("attention", "ffn"):
            sublayer = "attention.output" if place == "attention" else "output"
            half, kind = part.split(".")
            where = "adapter_down.0" if half == "down" else "adapter_up"
            named[f"{block}.{sublayer}.adapters.x.{where}.{kind}"] = tensor
        elif place == "fusion" and part.startswith("fused."):
            _, number, half, kind = part.split(".")
            where = "adapter_down.0" if half == "down" else "adapter_up"
            named[f"{block}.output.adapters.x{number}.{where}.{kind}"] = tensor
        elif place == "fusion":
            fused = ",".join(f"x{i}" for i in range(about["adapters"]))
            named[f"{block}.output.adapter_fusion_layer.{fused}.{part}"] = tensor
        elif place in ("query", "value"):
            half = "lora_A" if part.startswith("down") else "lora_B"
            named[f"{block}.attention.self.{place}.loras.x.{half}"] = tensor
    if "0.prefix.key" in state:
        pairs = [state[f"{i}.prefix.{part}"] for i in range(layers) for part in ("key", "value")]
        flat = torch.stack([p.view(len(p), heads, -1) for p in pairs], dim=1)  # (l, 2n, h, d/h)
        pool = "encoder.layer.0.attention.self.prefix_tuning.pool"  # one for all layers
        named[f"{pool}.prefix_tunings.x.self_prefix.control_trans"] = flat.flatten()
    return named


def hidden_states(folder: Path, name: str, about: dict, inputs: dict) -> torch.Tensor:
    """What their model with our tensors says."""
    model = BertModel.from_pretrained(folder / "encoder", attn_implementation="eager")
    adapters.init(model)
    if about["kind"] == "Fusion":
        names = [f"x{i}" for i in range(about["adapters"])]
        for each in names:
            model.add_adapter(each, config=configuration(about))
        model.add_adapter_fusion(composition.Fuse(*names), "dynamic")
        model.set_active_adapters(composition.Fuse(*names))
    else:
        model.add_adapter("x", config=configuration(about))
        model.set_active_adapters("x")
    state = load_file(folder / f"{name}.safetensors")
    named = ours_to_theirs(about, state, model.config.num_hidden_layers)
    known = dict(model.double().named_parameters())
    with torch.no_grad():
        for key, tensor in named.items():
            known[key].copy_(tensor)
        given = sum(tensor.numel() for tensor in named.values())
        assert given == sum(tensor.numel() for tensor in state.values()), "a tensor has no place"
        return model.eval()(**inputs).last_hidden_state


def gate_gradients(model, inputs: dict) -> torch.Tensor:
    """Gradients of what `pooled_size` in cases.py says with respect to their head mask of ones."""
    shape = model.config.num_hidden_layers, model.config.num_attention_heads
    gates = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    hidden = model(**inputs, head_mask=gates).last_hidden_state
    words = inputs["attention_mask"].double().unsqueeze(-1)
    pooled = (hidden * words).sum(1) / words.sum(1)
    return torch.autograd.grad(pooled.square().sum(), gates)[0]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    inputs = load_file(folder / "inputs.safetensors")
    bare = (
        BertModel.from_pretrained(folder / "encoder", attn_implementation="eager").double().eval()
    )
    with torch.no_grad():
        hidden = bare(**inputs).last_hidden_state
    save_file({"hidden": hidden}, folder / "bare.theirs.safetensors")
    save_file({"gradients": gate_gradients(bare, inputs)}, folder / "gates.theirs.safetensors")
    for name, about in json.loads((folder / "cases.json").read_text()).items():
        hidden = hidden_states(folder, name, about, inputs)
        save_file({"hidden": hidden}, folder / f"{name}.theirs.safetensors")
    versions = {package: version(package) for package in ("adapters", "transformers", "torch")}
    (folder / "versions.json").write_text(json.dumps(versions))
