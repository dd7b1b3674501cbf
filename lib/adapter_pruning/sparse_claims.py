"""The claims of He et al. (2022) as differences, and the controls that they lack."""

from collections.abc import Iterable

import pandas as pd

from . import tables
from .claims import KEEPS, Claim
from .controls import same_size
from .papers import published

SPARSE, VERY_SPARSE = 0.4, 0.8  # up to where the paper sees no loss: with SNIP, with random
FASTER = 0.25  # the share of the steps that Large-Sparse saves at least
# As the table of what could be read of the paper calls them.
OVER_STANDARD = "Large-Sparse minus standard adapter, average"
OVER_FULL = "Large-Sparse minus full fine-tuning, average"
OTHERS = ("random", "magnitude", "erdos_renyi", "grasp")


def dense(frame: pd.DataFrame, bottleneck: int) -> pd.DataFrame:
    """Dense Houlsby adapters of a width, at the setting that their search chose."""
    return tables.tuned(frame[frame.method == f"dense adapter of {bottleneck}"])


def pruned(frame: pd.DataFrame, criterion: str, sparsity: float, bottleneck: int) -> pd.DataFrame:
    """Houlsby adapters of a width that a criterion pruned at initialisation."""
    if "detail.criterion" not in frame:
        return frame.iloc[:0]
    return frame[
        (frame["detail.criterion"] == criterion)
        & (frame["detail.sparsity"] == sparsity)
        & (frame["adapter.kind"] == "Houlsby")
        & (frame["adapter.bottleneck"] == bottleneck)
    ]


def at_init(frame: pd.DataFrame, bottleneck: int) -> list[Claim]:
    """Pruning at initialisation, claim by claim, and SNIP against a dense adapter of its size."""
    whole = dense(frame, bottleneck)
    snip = pruned(frame, "snip", SPARSE, bottleneck)
    keeps = [
        Claim(f"SNIP at {SPARSE:.0%} sparse keeps the dense score to a point", None, snip, whole),
        Claim(
            f"Random pruning at {VERY_SPARSE:.0%} sparse keeps the dense score to a point",
            None,
            pruned(frame, "random", VERY_SPARSE, bottleneck),
            whole,
        ),
    ]
    best = [
        Claim(
            f"SNIP beats {other.replace('_', '-')} at {SPARSE:.0%} sparse",
            None,
            snip,
            pruned(frame, other, SPARSE, bottleneck),
        )
        for other in OTHERS
    ]
    return [*(claim._replace(margin=KEEPS) for claim in keeps), *best]


def equal_size(frame: pd.DataFrame, bottleneck: int, sparsities: Iterable[float]) -> list[Claim]:
    """The control that the paper lacks: a dense adapter with as many weights (C10)."""
    return [
        Claim(
            f"SNIP at {sparsity:.0%} sparse beats a dense adapter of {width} units",
            None,
            pruned(frame, "snip", sparsity, bottleneck),
            dense(frame, width),
        )
        for sparsity in sparsities
        for width in [same_size(bottleneck, 1 - sparsity)]
    ]


def large_sparse(frame: pd.DataFrame, bottleneck: int) -> list[Claim]:
    """Wide and sparse adapters against a dense one with as many weights.

    Args:
        frame: with the runs of `detail.standard`, the width whose size they keep. The dense
            ones count that were looked at as often.
    """
    if "detail.standard" not in frame:
        return []
    large = frame[frame["detail.standard"] == bottleneck]
    looks = frame["config.evaluations_per_epoch"]
    standard = dense(frame[looks.isin(large["config.evaluations_per_epoch"])], bottleneck)
    by_width = [
        Claim(
            f"{width:.0f} units at {sparsity:.0%} sparse beat {bottleneck} dense units", None, *pair
        )
        for (width, sparsity), runs in large.groupby(["adapter.bottleneck", "detail.sparsity"])
        for pair in [(runs, standard)]
    ]
    mean = large.groupby(["task", "seed"], as_index=False).score.mean()
    full = tables.tuned(frame[frame.method == "full fine-tuning"])
    saved = saved_steps(large, standard).groupby(["task", "seed"], as_index=False).saved.mean()
    paper = published("sparse_adapter_claims").set_index("claim").value
    beats = "Large-Sparse, mean over widths, beats"
    return [
        Claim(f"{beats} standard", paper[OVER_STANDARD], mean, standard),
        Claim(f"{beats} full fine-tuning", paper[OVER_FULL], mean, full),
        *by_width,
        Claim(
            f"Large-Sparse needs {FASTER:.0%} fewer steps (difference: % of the steps)",
            None,
            saved.rename(columns={"saved": "score"}),
            saved.assign(score=0.0),
            FASTER,
        ),
    ]


def saved_steps(large: pd.DataFrame, standard: pd.DataFrame) -> pd.DataFrame:
    """How much earlier each run reaches a validation loss that its seed's standard run reaches.

    That loss is the higher of the two runs' lowest ones, so that both reach it. `saved` is
    1 - (steps of the large one) / (steps of the standard one).

    Returns:
        One row a run of `large` whose task and seed `standard` has: `task`, `seed`,
        `adapter.bottleneck`, `saved`.
    """
    columns = ["task", "seed", "history"]
    both = large.merge(standard[columns], on=columns[:2], suffixes=("", "_standard"))
    saved = [
        _saved(one, other) for one, other in zip(both.history, both.history_standard, strict=True)
    ]
    return both[["task", "seed", "adapter.bottleneck"]].assign(saved=saved)


def _saved(one: list[dict], other: list[dict]) -> float:
    target = max(min(look["validation_loss"] for look in run) for run in (one, other))
    steps = [
        next(look["step"] for look in run if look["validation_loss"] <= target)
        for run in (one, other)
    ]
    return 1 - steps[0] / steps[1]


def variants(frame: pd.DataFrame) -> list[Claim]:
    """Every kind of adapter at 40% sparse against itself, on every task it was trained on."""
    return [
        Claim(
            f"{kind} at {SPARSE:.0%} sparse keeps its dense score to a point, on {task}",
            None,
            runs[runs["detail.sparsity"] == SPARSE],
            runs[runs["detail.sparsity"].isna()],
            KEEPS,
        )
        for (task, kind), runs in frame.groupby(["task", "adapter.kind"], sort=False)
    ]
