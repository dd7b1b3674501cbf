"""Pruning adapters: lottery tickets, sparse adapters and pruned heads, in a thin library."""

from .adapters import attach, detach, merge
from .backbones import load_model
from .bottleneck import Houlsby, Parallel, Pfeiffer
from .checkpoints import fuse, load_adapters, save_adapters
from .controls import run_controls
from .errors import PruningError
from .fusion import Fusion
from .lora import LoRA
from .masks import Mask, prune, random_mask, schedule
from .prefix import MAM, Prefix
from .records import RecordStore
from .tasks import TASKS, load_task
from .tickets import find_tickets, load_ticket
from .training import TrainConfig, evaluate, fit
from .trials import run_once
from .tuning import tune
from .units import Unit

__all__ = [
    "MAM",
    "TASKS",
    "Fusion",
    "Houlsby",
    "LoRA",
    "Mask",
    "Parallel",
    "Pfeiffer",
    "Prefix",
    "PruningError",
    "RecordStore",
    "TrainConfig",
    "Unit",
    "attach",
    "detach",
    "evaluate",
    "find_tickets",
    "fit",
    "fuse",
    "load_adapters",
    "load_model",
    "load_task",
    "load_ticket",
    "merge",
    "prune",
    "random_mask",
    "run_controls",
    "run_once",
    "save_adapters",
    "schedule",
    "tune",
]
