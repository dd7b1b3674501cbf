"""Which adapters survive a search, and how far that agrees with the authors' own masks."""

import numpy as np
import pandas as pd

from .papers import published

POSITIONS = ("attention", "ffn")


def lifetimes(frame: pd.DataFrame) -> pd.DataFrame:
    """For each search and adapter the last round that had it, as `rounds`.

    Args:
        frame: rounds of adapter searches.

    Returns:
        columns task, seed, layer (0 is lowest), position, rounds.
    """
    alive = [
        (row.task, row.seed, int(layer), position, row.number)
        for row in frame.rename(columns={"detail.round": "number"})[["task", "seed", "number"]]
        .assign(kept=frame["detail.density_by_matrix"])
        .itertuples()
        for name, share in row.kept.items()
        if name.endswith("up.weight") and share
        for _, layer, position, *_ in [name.split(".")]
    ]
    table = pd.DataFrame(alive, columns=["task", "seed", "layer", "position", "rounds"])
    return table.groupby(["task", "seed", "layer", "position"], as_index=False).rounds.max()


def by_layer(values: pd.DataFrame) -> pd.DataFrame:
    """Mean of `rounds` over searches: index layer, columns attention and ffn."""
    table = values.pivot_table(index="layer", columns="position", values="rounds", aggfunc="mean")
    return table.reindex(columns=list(POSITIONS))


def authors(task: str | None, layers: int) -> pd.DataFrame:
    """Share of the authors' saved masks that keep each adapter, on an encoder of `layers` layers.

    Their encoder has twelve. A layer of ours stands for the layers of theirs at the same relative
    height, and for more than one of them it gets the mean.

    Args:
        task: as the file names it, such as `mrpc`; None takes the mean over all nine.

    Returns:
        index layer, columns attention and ffn, values in [0, 1].
    """
    masks = published("lottery_positions")
    if task is not None:
        masks = masks[masks.task == task]
    theirs = masks.groupby("layer")[list(POSITIONS)].mean()
    count = len(theirs)
    slices = [
        theirs.iloc[layer * count // layers : -(-(layer + 1) * count // layers)].mean()
        for layer in range(layers)
    ]
    return pd.DataFrame(slices, index=pd.RangeIndex(layers, name="layer"))


def concordance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of the pairs of adapters that theirs orders, the share that ours orders alike.

    Ties of ours count a half, so chance is 0.5: the measure is (1 + Somers' D) / 2.
    """
    return float(_concordances(np.asarray(ours)[None], theirs)[0])


def _concordances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(k,) concordances of k orders (k, n) with one (n,)."""
    wanted = np.sign(theirs[:, None] - theirs[None, :])  # (n, n)
    found = np.sign(ours[:, :, None] - ours[:, None, :])  # (k, n, n)
    return 0.5 + 0.5 * (found * wanted).sum((1, 2)) / np.abs(wanted).sum()


def agreement(values: pd.DataFrame, draws: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Concordance of our mean survival with each of the authors' masks, against chance.

    Chance is the same survival with the adapters' places shuffled: `low` and `high` hold 95% of
    the shuffles, and `p` is the share of shuffles that agree at least as well.

    Returns:
        columns task (theirs), concordance, low, high, p.
    """
    ours = by_layer(values)
    flat, generator = ours.to_numpy().ravel(), np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(flat, (draws, 1)), axis=1)
    rows = []
    for task in published("lottery_positions").task.unique():
        theirs = authors(task, len(ours)).to_numpy().ravel()
        value, chance = concordance(flat, theirs), _concordances(shuffled, theirs)
        low, high = np.quantile(chance, [0.025, 0.975])
        rows.append((task, value, low, high, float((chance >= value).mean())))
    return pd.DataFrame(rows, columns=["task", "concordance", "low", "high", "p"])
