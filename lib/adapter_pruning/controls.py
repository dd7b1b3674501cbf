"""What a ticket has to beat at its own size: four models that lack one thing each."""

from collections.abc import Callable

from .adapters import adapter_parameters
from .backbones import Model
from .masks import Mask, prune_to, random_mask
from .records import RecordStore
from .tasks import Task
from .tickets import Round, find_tickets
from .training import TrainConfig
from .trials import run_once
from .units import Unit, get

REDRAWN = 1000  # added to a seed for initial values that no search started from


def run_controls(
    make: Callable[[int, int], Model],
    task: Task,
    found: Round,
    *,
    unit: str | Unit,
    bottleneck: int,
    config: TrainConfig,
    seed: int,
    store: RecordStore,
    drop: float = 0.2,
    profile: str = "",
    progress: bool = True,
) -> dict[str, dict]:
    """Train the controls of one round of a search; the same seed orders their batches.

    - `random mask`: the ticket's initial values, as many units, drawn uniformly.
    - `re-initialised`: the ticket's mask, other initial values.
    - `one-shot`: as many units, those with the highest scores after one training.
    - `dense, same size`: an unpruned adapter with about the ticket's number of parameters.

    Args:
        make: (bottleneck, seed) -> a fresh model with adapters.
        found: the round whose size is matched, found by `find_tickets` from
            `make(bottleneck, seed)` with this config, seed, store and drop.

    Returns:
        name of the control -> its record.
    """
    unit = get(unit)
    fresh = make(bottleneck, seed)
    parameters = adapter_parameters(fresh)
    common = {
        "config": config,
        "seed": seed,
        "profile": profile,
        "progress": progress,
    }

    def masked(method: str, kept: Mask, model: Model) -> dict:
        """The record of one control that has a mask, marked as its ticket is."""
        detail = {"unit": unit.name, "round": found.index, "unit_density": kept.density}
        mask = unit.expand(kept, parameters)
        options = {"mask": mask, "density": kept.density, "detail": detail} | common
        return run_once(store, model, task, method=method, **options)

    drawn = random_mask(found.units, found.units.kept, seed)
    (dense,) = find_tickets(fresh, task, unit=unit, rounds=0, store=store, drop=drop, **common)
    scores = unit.score(parameters, dense.units)  # of the trained weights, which the store has
    once = prune_to(dense.units, scores, found.units.kept)
    width = same_size(bottleneck, found.density)
    return {
        "random mask": masked("random mask", drawn, make(bottleneck, seed)),
        "re-initialised": masked("re-initialised", found.units, make(bottleneck, seed + REDRAWN)),
        "one-shot": masked("one-shot", once, make(bottleneck, seed)),
        "dense, same size": run_once(
            store, make(width, seed), task, method=f"dense adapter of {width}", **common
        ),
    }


def same_size(bottleneck: int, density: float) -> int:
    """Units of a dense adapter that has about `density` of the parameters; at least 1."""
    return max(1, round(bottleneck * density))
