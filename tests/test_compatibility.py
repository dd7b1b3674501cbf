"""The table of what goes with what: each cell is what really happens."""

import torch
from small_adapters import KINDS, logits

from adapter_pruning.at_init import CRITERIA
from adapter_pruning.compatibility import compatibility
from adapter_pruning.units import UNITS


def test_every_kind_is_tried_with_every_unit_and_criterion(base, rotten, inputs):
    before = logits(base, inputs)
    table = compatibility(base, rotten, KINDS.values())
    assert list(table.index) == list(KINDS)
    assert list(table.columns) == [*UNITS, *CRITERIA]
    cannot = {(kind, way) for kind in table.index for way in table if table[way][kind] != "yes"}
    assert cannot == {
        *(("Prefix", way) for way in table),  # it has no matrices
        *(("Fusion", unit) for unit in ("neuron", "adapter")),  # it has no bottleneck
    }
    assert base.adapter_config is None
    assert torch.equal(logits(base, inputs), before)


def test_a_cell_says_why_not(base, rotten):
    table = compatibility(base, rotten, [KINDS["Prefix"]])
    assert table.snip.item() == "Prefix has no matrices that are pruned at initialisation"
    assert "neuron" in table.neuron.item()
    assert "nothing to prune" in table.neuron.item()
