"""Does cutting shorten? The time of BERT-base with heads and columns cut out, against its FLOPs.

    python benchmarks/cut_speed.py [FILE]

The paper's encoder with random weights, which take as long as trained ones. Random masks keep 75,
50 and 25% of the heads, of the feed-forward columns, or of both, and cut the rest out. Each model
has a share of the whole model's FLOPs and takes a share of its time: 32 texts of 128 tokens, in
float32 on the CPU, all models taking turns, with one thread and with one a core. The rows are
printed, and written to FILE as CSV. Where heads and columns are both cut and the shares are more
than 10% apart, the exit status is 1.
"""

import copy
import os
import sys
from itertools import product

import pandas as pd
import torch
from transformers import BertConfig, BertModel

import adapter_pruning as ap
from adapter_pruning.backbones import Model
from adapter_pruning.efficiency import flops, latency
from adapter_pruning.measure import hardware

BATCH, LENGTH, ROUNDS = 32, 128, 5
KEPT = (0.75, 0.5, 0.25)
KINDS = {"heads": ("heads",), "ffn": ("ffn",), "both": ("heads", "ffn")}
TOLERANCE = 0.10


def main(files: list[str]) -> int:
    models = variants()
    inputs = batch(models["whole", 1.0])
    threads = sorted({1, os.cpu_count()})
    table = pd.concat([measured(models, inputs, number) for number in threads])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    for file in files:
        table.to_csv(file, index=False, float_format="%.4f")
    off = table[(table["cut"] == "both") & (table["difference"].abs() > TOLERANCE)]
    print(f"{len(off)} of the rows with both cut are more than {TOLERANCE:.0%} off")
    return int(len(off) > 0)


def variants() -> dict[tuple[str, float], Model]:
    """(what was cut, share that is left) -> model, the whole one first."""
    whole = Model(BertModel(BertConfig()), None, 2, "pooler", "bert-base")
    models = {("whole", 1.0): whole}
    for (name, kinds), kept in product(KINDS.items(), KEPT):
        models[name, kept] = smaller(whole, kinds, kept)
    return models


def smaller(whole: Model, kinds: tuple[str, ...], kept: float) -> Model:
    """A copy that is left with this share of each kind of unit, drawn over all layers."""
    masks = [ap.units_of(whole, (kind,)) for kind in kinds]
    masks = [ap.random_mask(mask, round(kept * mask.total), seed=0) for mask in masks]
    keep = ap.Mask({name: tensor for mask in masks for name, tensor in mask.items()})
    return ap.cut(copy.deepcopy(whole), keep)


def batch(model: Model) -> dict[str, torch.Tensor]:
    """Random tokens without padding: what they say takes no time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.encoder.config.vocab_size, (BATCH, LENGTH), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def measured(models: dict, inputs: dict, threads: int) -> pd.DataFrame:
    """One row a model; `difference` is latency share / FLOPs share - 1."""
    torch.set_num_threads(threads)
    counted = pd.Series({name: flops(model, inputs) for name, model in models.items()})
    rows = pd.DataFrame(list(models), columns=["cut", "kept"])
    rows["flops_share"] = (counted / counted.iloc[0]).to_numpy()
    rows["latency_share"] = latency(models, inputs, ROUNDS)["ratio"].to_numpy()
    rows["difference"] = rows["latency_share"] / rows["flops_share"] - 1
    return rows.assign(**hardware(torch.device("cpu")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
