"""Write what AdapterHub is to compute, and compare its answers with ours. `make oracle` runs it.

AdapterHub's library needs an older transformers, so it has an environment of its own, and the
two sides exchange files: an encoder, tensors of adapters, token ids, and hidden states, all in
float64, so that a difference is one of meaning and not of rounding.

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

TOLERANCE = 1e-5
RESULT = Path(__file__).parents[2] / "book" / "results" / "oracle.csv"
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


def compare(folder: Path) -> int:
    """Record the largest difference of each case; 1 where one is above the tolerance."""
    words = load_file(folder / "inputs.safetensors")["attention_mask"].bool()
    versions = json.loads((folder / "versions.json").read_text())
    rows = []
    for name, config in CASES.items():
        ours = load_file(folder / f"{name}.ours.safetensors")["hidden"][words]
        theirs = load_file(folder / f"{name}.theirs.safetensors")["hidden"][words]
        bare = load_file(folder / "bare.theirs.safetensors")["hidden"][words]
        rows.append(
            {
                "adapter": name,
                "kind": type(config).__name__,
                "largest difference": f"{(ours - theirs).abs().max().item():.1e}",
                "what the adapter changes": f"{(theirs - bare).abs().max().item():.1e}",
                **versions,
                "date": datetime.now(UTC).date().isoformat(),
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(RESULT, index=False)
    print(table.to_string(index=False))
    return int((table["largest difference"].astype(float) > TOLERANCE).any())


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    sys.exit(write(where) if command == "write" else compare(where))
