"""Iterative magnitude pruning with rewinding: train, score, prune, rewind, again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from . import files, trials
from .adapters import adapter_parameters
from .backbones import Model
from .errors import PruningError, choose
from .masks import Mask, pack, prune, schedule, shapes, unpack
from .records import RecordStore, digest
from .tasks import Task
from .training import TrainConfig, trainable
from .units import UNITS


@dataclass(frozen=True)
class Round:
    """One round of a search: what was trained, and what came of it.

    Attributes:
        index: 0 is the unpruned adapter.
        units: mask over units that this round trained under.
        mask: the same as a mask over weights.
        record: the trained model's record.
    """

    index: int
    units: Mask
    mask: Mask
    record: dict

    @property
    def density(self) -> float:
        """Share of the units that is kept."""
        return self.units.density

    @property
    def score(self) -> float:
        """The task's first metric on the test split."""
        return self.record["score"]


def find_tickets(
    model: Model,
    task: Task,
    *,
    unit: str = "weight",
    rounds: int = 15,
    drop: float = 0.2,
    config: TrainConfig | None = None,
    seed: int = 0,
    store: RecordStore | None = None,
    rewind_head: bool = True,
    profile: str = "",
    progress: bool = True,
) -> Iterator[Round]:
    """Search for lottery tickets as Wu & Chen (2022), section 2.4, do.

    Round 0 trains the whole adapter. After each round, floor(drop * n) of the n surviving units
    with the lowest scores go, ranked over all adapters together; survivors return to their
    initial values, and so does the head. The search ends after `rounds` prunings or when there
    is nothing left to drop.

    Each finished round is written to the store's folder before it is yielded. The same call
    after a kill, at any moment, yields the finished rounds from there, goes on inside the
    interrupted one, and gives the result of an unbroken search.

    Args:
        model: with adapters attached; its present weights are the initial values. It ends with
            the trained weights of the last round that was trained in this call.
        unit: what is dropped: one of `units.UNITS`.
        rounds: prunings after round 0.
        drop: share of the survivors to drop each time, in (0, 1).
        rewind_head: set the head back as well (A1).

    Raises:
        PruningError: unknown unit, a model without adapters, drop or rounds out of range.
    """
    _check(unit, rounds, drop)
    config = config or TrainConfig()
    search = _Search(model, task, config, unit, drop, seed, store, rewind_head, profile, progress)
    # The generator is separate so that bad input is refused by the call, not by the first next().
    return search.rounds(rounds)


def _check(unit: str, rounds: int, drop: float) -> None:
    choose("unit", unit, UNITS)
    if not isinstance(drop, float) or not 0 < drop < 1:
        raise PruningError(f"drop is {drop!r}; it must be a number above 0 and below 1")
    if not isinstance(rounds, int) or rounds < 0:
        raise PruningError(f"rounds is {rounds!r}; it must be a whole number, at least 0")


class _Search:
    """The state of one call of `find_tickets`."""

    def __init__(
        self, model, task, config, unit, drop, seed, store, rewind_head, profile, progress
    ):
        self.model, self.task, self.config, self.seed = model, task, config, seed
        self.unit_name, self.unit, self.drop = unit, UNITS[unit], drop
        self.store, self.rewind_head = store, rewind_head
        self.options = {"profile": profile, "progress": progress}
        self.parameters = adapter_parameters(model)
        self.initial = {name: p.detach().clone() for name, p in trainable(model).items()}
        about = trials.identity(model, task, config, seed)
        self.key = digest([about, unit, str(drop), rewind_head])

    def rounds(self, rounds: int) -> Iterator[Round]:
        units = self.unit.all(self.parameters)
        for index, kept in enumerate(schedule(units.total, rounds, self.drop)):
            assert units.kept == kept
            found, record, following = self._round(index, units)
            yield Round(index, units, found, record)
            units = following

    def _round(self, index: int, units: Mask) -> tuple[Mask, dict, Mask]:
        """(weight mask, record, units of the next round), from the folder or by training."""
        mask = self.unit.expand(units, self.parameters)
        file = self._folder / f"round_{index:02d}.safetensors" if self.store else None
        if file and file.exists():
            state, about = _read_round(file)
            record, following = json.loads(about["record"]), unpack(state, about)
            self.model.head.load_state_dict({n: state[f"head.{n}"] for n in ("weight", "bias")})
        else:
            record, following = self._train(index, units, mask)
            if file:
                about = {"record": json.dumps(record), **shapes(following)}
                # The head goes along for a search that does not rewind it.
                head = {f"head.{n}": p for n, p in self.model.head.named_parameters()}
                state = pack(following) | head
                files.save_tensors(file, state, about | {"seal": _seal(state, about)})
        if self.store:
            # After the round's own file: a kill in between leaves a round that is stored next time.
            self.store.append(record)
            self._checkpoint(index).unlink(missing_ok=True)
        return mask, record, following

    @property
    def _folder(self) -> Path:
        return self.store.folder / "searches" / self.key

    def _checkpoint(self, index: int) -> Path:
        return self._folder / f"round_{index:02d}.pt"

    def _train(self, index: int, units: Mask, mask: Mask) -> tuple[dict, Mask]:
        rewind(self.model, self.initial, head=self.rewind_head)
        detail = {
            "unit": self.unit_name,
            "round": index,
            "kept": units.kept,
            "total": units.total,
            "unit_density": units.density,
            "density_by_matrix": mask.densities(),
        }
        record = trials.run(
            self.model,
            self.task,
            self.config,
            seed=self.seed,
            method=f"{self.unit_name} ticket",
            mask=mask,
            detail=detail,
            checkpoint=self._checkpoint(index) if self.store else None,
            **self.options,
        )
        scores = self.unit.score(self.parameters, units)
        return record, prune(units, scores, self.drop)


def _seal(state: dict[str, torch.Tensor], about: dict[str, str]) -> str:
    return digest([trials.hash_tensors(state), about])


def _read_round(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    state, about = files.load_tensors(file)
    if about.pop("seal", None) != _seal(state, about):
        raise PruningError(
            f"the round file {str(file)!r} is damaged; delete it to train that round again"
        )
    return state, about


def rewind(model: Model, initial: dict[str, torch.Tensor], *, head: bool = True) -> None:
    """Set everything that trains back to its initial values, bit for bit; the head if asked.

    Pruned entries come back too: the mask that the next training holds sets them to 0.
    """
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if head or not name.startswith("head."):
                parameter.copy_(initial[name])
