"""Write what AdapterHub is to compute, and compare its answers with ours. `make oracle` runs it.

AdapterHub's library needs an older transformers, so it has an environment of its own, and the
two sides exchange files: an encoder, tensors of adapters, token ids, and hidden states, all in
float64, so that a difference is one of meaning and not of rounding. That transformers has a head
mask too, which ours has lost, so the gradients of head gates are compared as well.

    python tests/oracle/cases.py write FOLDER     # here: ours
    python tests/oracle/adapterhub.py FOLDER      # in the other environment: theirs
    python tests/oracle/cases.py compare FOLDER   # here: the differences, and a non-zero exit
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import adapter_pruning as ap
from adapter_pruning.fusion import Fusion
from adapter_pruning.gates import gated, units_of

TOLERANCE = 1e-5
RESULTS = Path(__file__).parents[2] / "book" / "results"
TEXTS = ["a film with a heart and a head", "dull", "it never quite becomes what it wants to be"]
CASES = {
    "houlsby": ap.Houlsby(bottleneck=16),
    "houlsby relu": ap.Houlsby(bottleneck=8, activation="relu"),
    "pfeiffer": ap.Pfeiffer(bottleneck=24),
    "parallel": ap.Parallel(bottleneck=48, scale=4.0),
    "lora": ap.LoRA(rank=4, alpha=8.0, targets=("query", "value")),
    "prefix": ap.Prefix(length=7),
    "mam": ap.MAM(bottleneck=12, scale=2.0),
    "fusion": Fusion(adapters=3, bottleneck=24),
}


def write(folder: Path) -> None:
    """The encoder, and for each case the adapters, drawn large, and our hidden states."""
    task = ap.load_task("rotten_tomatoes", train_size=8, validation_size=8, test_size=8)
    model = ap.load_model("minilm", task, device="cpu").double().eval()
    model.encoder.save_pretrained(folder / "encoder")
    inputs = dict(model.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    save_file(inputs, folder / "inputs.safetensors")
    save_file({"gradients": gate_gradients(model, inputs)}, folder / "gates.ours.safetensors")
    for name, config in CASES.items():
        ap.attach(model, config).double()
        state = dict(model.adapters.named_parameters())
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in state.values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator).double())
            hidden = model.encoder(**inputs).last_hidden_state
        save_file({n: p.detach() for n, p in state.items()}, folder / f"{name}.safetensors")
        save_file({"hidden": hidden}, folder / f"{name}.ours.safetensors")
        ap.detach(model)
    about = {name: {"kind": type(c).__name__, **asdict(c)} for name, c in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(about, indent=1))


def gate_gradients(model, inputs: dict) -> torch.Tensor:
    """Gradients of `pooled_size` with respect to gates of ones on all heads, (layers, heads)."""
    gates = {
        name: torch.ones(len(kept), dtype=torch.float64, requires_grad=True)
        for name, kept in units_of(model, ("heads",)).items()
    }
    with gated(model, gates):
        hidden = model.encoder(**inputs).last_hidden_state
    size = pooled_size(hidden, inputs["attention_mask"])
    return torch.stack(torch.autograd.grad(size, list(gates.values())))


def pooled_size(hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Sum of squares of the texts' mean token vectors: a loss that needs no head."""
    weights = words.double().unsqueeze(-1)
    return ((hidden * weights).sum(1) / weights.sum(1)).square().sum()


def compare(folder: Path) -> int:
    """Record the largest difference of each case; 1 where one is above the tolerance."""
    about = json.loads((folder / "versions.json").read_text())
    about["date"] = datetime.now(UTC).date().isoformat()
    adapters = [row | about for row in compare_adapters(folder)]
    gates = [row | about for row in compare_gates(folder)]
    for file, rows in {"oracle": adapters, "oracle_gates": gates}.items():
        table = pd.DataFrame(rows)
        table.to_csv(RESULTS / f"{file}.csv", index=False)
        print(table.to_string(index=False))
    return int(any(float(row["largest difference"]) > TOLERANCE for row in adapters + gates))


def compare_adapters(folder: Path) -> list[dict]:
    """One row a case: hidden states at the tokens that are no padding."""
    words = load_file(folder / "inputs.safetensors")["attention_mask"].bool()
    bare = load_file(folder / "bare.theirs.safetensors")["hidden"][words]
    rows = []
    for name, config in CASES.items():
        ours, theirs = (
            load_file(folder / f"{name}.{side}.safetensors")["hidden"][words]
            for side in ("ours", "theirs")
        )
        rows.append(
            {
                "adapter": name,
                "kind": type(config).__name__,
                "largest difference": f"{(ours - theirs).abs().max().item():.1e}",
                "what the adapter changes": f"{(theirs - bare).abs().max().item():.1e}",
            }
        )
    return rows


def compare_gates(folder: Path) -> list[dict]:
    """One row a layer: gradients of all its head gates."""
    sides = [load_file(folder / f"gates.{s}.safetensors")["gradients"] for s in ("ours", "theirs")]
    return [
        {
            "layer": layer,
            "largest difference": f"{(ours - theirs).abs().max().item():.1e}",
            "largest gradient": f"{theirs.abs().max().item():.1e}",
        }
        for layer, (ours, theirs) in enumerate(zip(*sides, strict=True))
    ]


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    sys.exit(write(where) if command == "write" else compare(where))
