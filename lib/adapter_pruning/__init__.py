"""Pruning adapters: lottery tickets, sparse adapters and pruned heads, in a thin library."""

from importlib import import_module

_MODULES = {
    "adapters": ("attach", "detach", "merge"),
    "at_init": ("prune_at_init", "run_sparse"),
    "backbones": ("load_model",),
    "bottleneck": ("Houlsby", "Parallel", "Pfeiffer"),
    "checkpoints": ("fuse", "load_adapters", "save_adapters"),
    "controls": ("run_controls",),
    "errors": ("PruningError",),
    "fusion": ("Fusion",),
    "gates": ("gated", "units_of"),
    "head_importance": ("unit_importance",),
    "head_runs": ("run_importance", "train_head"),
    "lora": ("LoRA",),
    "masks": ("Mask", "prune", "random_mask", "schedule"),
    "peft_format": ("from_peft", "to_peft"),
    "prefix": ("MAM", "Prefix"),
    "recipes": ("RECIPES", "Recipe", "add_lora", "plan", "prune_lora"),
    "pruned_models": ("load_pruned", "save_pruned"),
    "records": ("RecordStore",),
    "specs": ("TASKS",),
    "structure": ("keep_density", "keep_heads"),
    "surgery": ("cut",),
    "tasks": ("load_task",),
    "tickets": ("find_tickets", "load_ticket"),
    "training": ("TrainConfig", "evaluate", "fit"),
    "trials": ("run_once",),
    "tuning": ("tune",),
    "units": ("Unit",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for (PEP 562): PyTorch takes seconds to import.

    The batch starts dozens of processes that only check parameters and hand a notebook to its
    kernel; those never need it.
    """
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
