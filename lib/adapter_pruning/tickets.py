"""Iterative magnitude pruning with rewinding: train, score, prune, rewind, again."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from . import files, trials
from .adapters import adapter_parameters, attach
from .backbones import Model, load_model
from .checkpoints import described
from .errors import PruningError
from .fusion import Fusion
from .masks import Mask, pack, prune, schedule, shapes, unpack
from .records import RecordStore, digest
from .tasks import Task
from .training import TrainConfig, trainable
from .units import Unit, check, get


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
    unit: str | Unit = "weight",
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

    Each finished round, its trained survivors included, is written to the store's folder before
    it is yielded. The same call after a kill, at any moment, yields the finished rounds from
    there, goes on inside the interrupted one, and gives the result of an unbroken search.

    Args:
        model: with adapters attached; its present weights are the initial values. After each
            round it holds the trained weights of that round, also of one from the folder.
        unit: what is dropped: the name of one of `units.UNITS`, or a `units.Unit` of your own.
        rounds: prunings after round 0.
        drop: share of the survivors to drop each time, in (0, 1).
        rewind_head: set the head back as well (A1).

    Raises:
        PruningError: unknown unit or one that does not fit the model, a score that is not finite,
            a model without adapters, drop or rounds out of range; all of it before training.
    """
    unit, parameters = get(unit), adapter_parameters(model)
    check(unit, parameters)
    _check_rounds(rounds)
    schedule(unit.all(parameters).total, rounds, drop)
    config = config or TrainConfig()
    search = _Search(model, task, config, unit, drop, seed, store, rewind_head, profile, progress)
    # The generator is separate so that bad input is refused by the call, not by the first next().
    return search.rounds(rounds)


def _check_rounds(rounds: int) -> None:
    if not isinstance(rounds, int) or rounds < 0:
        raise PruningError(f"rounds is {rounds!r}; it must be a whole number, at least 0")


class _Search:
    """The state of one call of `find_tickets`."""

    def __init__(
        self, model, task, config, unit, drop, seed, store, rewind_head, profile, progress
    ):
        self.model, self.task, self.config, self.seed = model, task, config, seed
        self.unit, self.drop = unit, drop
        self.store, self.rewind_head = store, rewind_head
        self.options = {"profile": profile, "progress": progress}
        self.parameters = adapter_parameters(model)
        self.initial = {name: p.detach().clone() for name, p in trainable(model).items()}
        about = trials.identity(model, task, config, seed)
        self.key = digest([about, unit.name, _gist(unit, self.parameters), str(drop), rewind_head])

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
        file = self._folder / _round_file(index) if self.store else None
        if file and file.exists():
            state, about = _read_round(file)
            record, following = json.loads(about["record"]), unpack(state, about)
            _restore(trainable(self.model), mask, state)
        else:
            record, following = self._train(index, units, mask)
            if file:
                about = {"record": json.dumps(record), **shapes(following)}
                state = pack(following) | _survivors(trainable(self.model), mask)
                files.save_tensors(file, state, about | {"seal": trials.seal(state, about)})
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
            "unit": self.unit.name,
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
            method=f"{self.unit.name} ticket",
            mask=mask,
            density=units.density,
            detail=detail,
            checkpoint=self._checkpoint(index) if self.store else None,
            shared=self.store,
            **self.options,
        )
        scores = self.unit.score(self.parameters, units)
        return record, prune(units, scores, self.drop)


def _gist(unit: Unit, parameters: Mapping[str, torch.Tensor]) -> list[str]:
    """Tells apart two scores that share a name; coarse, since devices round sums differently."""
    scores = unit.score(parameters, unit.all(parameters))
    return [f"{score.detach().double().sum().item():.3g}" for score in scores.values()]


def _survivors(parameters: Mapping[str, torch.Tensor], mask: Mask) -> dict[str, torch.Tensor]:
    """The trained values that the mask keeps, flat; all of what it does not cover."""
    return {
        f"trained.{n}": p.detach().cpu()[mask[n]] if n in mask else p.detach().cpu()
        for n, p in parameters.items()
    }


def _restore(
    parameters: Mapping[str, torch.Tensor], mask: Mask, state: Mapping[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = state[f"trained.{name}"]
            if name in mask:
                value = torch.zeros(parameter.shape).masked_scatter_(mask[name], value)
            parameter.copy_(value)


def _round_file(index: int) -> str:
    return f"round_{index:02d}.safetensors"


def _read_round(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    state, about = files.load_tensors(file)
    if about.pop("seal", None) != trials.seal(state, about):
        raise PruningError(
            f"the round file {str(file)!r} is damaged; delete it to train that round again"
        )
    return state, about


def load_ticket(store: RecordStore, record: dict, task: Task) -> Model:
    """The trained model of one recorded round: nothing is trained again.

    Args:
        store: where the search that made the record keeps its rounds.
        record: of a unit in `units.UNITS`; one of your own has to be entered there first.
        task: the record's task; only its number of outputs is looked at.

    Raises:
        PruningError: the record is of no search, the store has no such round, its file is
            damaged, the task has another number of outputs, or the model is another by now.
    """
    if not {"unit", "round"} <= set(record["detail"]) or not record["method"].endswith(" ticket"):
        raise PruningError(f"record {record['key']} ({record['method']}) is no round of a search")
    unit, index = get(record["detail"]["unit"]), record["detail"]["round"]
    folder, state = _find_round(store, record["key"], index)
    options = {key: record[key] for key in ("seed", "pooling", "dropout")}
    if task.outputs != (trained := len(state.get("trained.head.bias", ()))):
        raise PruningError(
            f"the ticket was trained for {record['task']!r} with {trained} output(s); task "
            f"{task.name!r} has {task.outputs}"
        )
    config = described(record["adapter"])
    if isinstance(config, Fusion):
        raise PruningError("a round of a fusion does not hold the adapters that it mixes")
    model = load_model(record["model"], task, **options)
    if model.revision != record["model_revision"]:
        raise PruningError(
            f"the ticket was found in {record['model']!r} at {record['model_revision']}, and that "
            f"model is now at {model.revision}"
        )
    attach(model, config)
    parameters = adapter_parameters(model)
    units = unpack(*_read_round(folder / _round_file(index - 1))) if index else unit.all(parameters)
    _restore(trainable(model), unit.expand(units, parameters), state)
    return model


def _find_round(store: RecordStore, key: str, index: int) -> tuple[Path, dict[str, torch.Tensor]]:
    for file in sorted((store.folder / "searches").glob(f"*/{_round_file(index)}")):
        state, about = _read_round(file)
        if json.loads(about["record"])["key"] == key:
            return file.parent, state
    raise PruningError(
        f"the trained weights of record {key} are not in {str(store.folder)!r}; run its search "
        f"again there"
    )


def rewind(model: Model, initial: dict[str, torch.Tensor], *, head: bool = True) -> None:
    """Set everything that trains back to its initial values, bit for bit; the head if asked.

    Pruned entries come back too: the mask that the next training holds sets them to 0.
    """
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if head or not name.startswith("head."):
                parameter.copy_(initial[name])
