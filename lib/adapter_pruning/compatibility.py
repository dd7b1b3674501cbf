"""Which kinds of adapter can be pruned how: found by trying, so that the table cannot be wrong."""

from collections.abc import Iterable

import pandas as pd

from .adapters import AdapterConfig, adapter_parameters, attach, detach
from .at_init import CRITERIA, prune_at_init
from .backbones import Model
from .errors import PruningError
from .tasks import Task
from .units import UNITS, check

SAMPLE = {"rows": 8, "batch_size": 8, "max_length": 32}


def compatibility(model: Model, task: Task, configs: Iterable[AdapterConfig]) -> pd.DataFrame:
    """One row a kind of adapter, one column a unit or criterion: "yes", or why not.

    Each adapter is attached to the model and taken out again.

    Args:
        model: without adapters.
        task: whose training rows score the weights for SNIP and GraSP.
        configs: one configuration of each kind.
    """
    rows = {}
    for config in configs:
        attach(model, config)
        rows[type(config).__name__] = _tried(model, task)
        detach(model)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("adapter")


def _tried(model: Model, task: Task) -> dict[str, str]:
    units = {name: _answer(check, unit, adapter_parameters(model)) for name, unit in UNITS.items()}
    return units | {
        criterion: _answer(prune_at_init, model, task, criterion, 0.5, **SAMPLE)
        for criterion in CRITERIA
    }


def _answer(function, *args, **options) -> str:
    try:
        function(*args, **options)
    except PruningError as error:
        return str(error)
    return "yes"
