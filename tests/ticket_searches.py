"""Searches for tickets: quick settings, what is compared, and how damage is told."""

import dataclasses
import re

import adapter_pruning as ap
from adapter_pruning.records import comparable
from adapter_pruning.training import trainable

# 64 rows make 4 steps, with an evaluation after the second and the fourth.
QUICK = ap.TrainConfig(
    epochs=1, batch_size=16, evaluations_per_epoch=2, max_length=16, precision="fp32"
)
WEIGHTS = 4 * 2 * 32 * 4  # 4 adapters of two matrices each, 32 wide with a bottleneck of 4


def bits(parameters):
    return {name: p.detach().numpy().tobytes() for name, p in parameters.items()}


def values(model):
    return {name: p.detach().clone() for name, p in trainable(model).items()}


@dataclasses.dataclass
class Trained:
    """What one training of a search started from, was held to, and ended with."""

    start: dict
    mask: ap.Mask
    end: dict


def no_training(*args, **options):
    raise AssertionError("something was trained")


def assert_same(rounds, others):
    assert len(rounds) == len(others)
    for one, other in zip(rounds, others, strict=True):
        assert (one.index, one.units, one.mask) == (other.index, other.units, other.mask)
        assert comparable(one.record) == comparable(other.record)


def refusal(file):
    return rf"^the (round )?file {re.escape(repr(str(file)))} is damaged.*; delete it to [^;\n]+$"
