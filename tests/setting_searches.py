"""Searches for settings: their spaces, a task they can tell apart, and what is read of them."""

import numpy as np

import adapter_pruning as ap
from adapter_pruning.tasks import Split

QUICK = ap.TrainConfig(
    epochs=1, batch_size=16, evaluations_per_epoch=2, max_length=8, precision="fp32"
)
# On these sentences the first space has good and bad settings; the second moves hardly anything.
VARIED = {"learning_rates": [1e-2, 3e-2, 1e-1], "epochs": [2, 3]}
ALIKE = {"learning_rates": [1e-6, 2e-6, 3e-6], "epochs": [1]}
WORDS = ("bad dull poor slow weak stale", "good fresh fine warm sharp moving")
LONGEST = 14  # four beyond the ten trials that TPE draws at random


def sentences(rows, seed):
    """Two words that say the label, and one of either kind."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    words = [side.split() for side in WORDS]
    drawn = [[*draw.choice(words[y], 2), draw.choice(words[draw.integers(2)])] for y in labels]
    return Split(([" ".join(three) for three in drawn],), labels)


def cells(history):
    """The settings of a history, in its order."""
    return list(zip(history.learning_rate, history.epochs, strict=True))


def cell(record):
    return record["config"]["learning_rate"], record["config"]["epochs"]


def study_file(store):
    (file,) = store.folder.glob("studies/*.log")
    return file
