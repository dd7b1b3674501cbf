"""Train what is trainable, evaluate, stop early, and go on after a kill as if nothing happened."""

import hashlib
import io
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from . import files
from .backbones import Model
from .batches import batches
from .errors import PruningError, checked, choose
from .masks import Mask, hold
from .precision import autocast, frozen_cast
from .tasks import SPLITS, Task

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
FORWARD_ONLY = 32  # rows of a batch at least, where nothing is kept for a backward pass
Positive = Annotated[int, Field(ge=1)]


@checked
class TrainConfig:
    """How a model is trained; the defaults are Wu & Chen's (2022), section 3.1.

    Attributes:
        learning_rate: peak of Adam's step size, reached at the end of the warm-up.
        epochs: passes over the training split; an upper bound under early stopping.
        warmup_epochs: length of the linear rise; a linear fall to 0 follows.
        weight_decay: Adam's L2 term; with `adamw` the decay that is apart from the gradient.
        optimizer: `adam`, or `adamw` (Loshchilov & Hutter 2019).
        evaluations_per_epoch: how often the validation loss is looked at (A5).
        patience: evaluations without a better loss before training stops (A5).
        max_length: tokens; longer texts are cut.
        precision: `bf16` autocast, `fp32`, or `auto`: bf16 where the hardware computes in it.
    """

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    epochs: Annotated[int, Field(ge=1, le=100)] = 3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] = 1.0
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    optimizer: Literal["adam", "adamw"] = "adam"
    evaluations_per_epoch: Annotated[int, Field(ge=1, le=1000)] = 5
    patience: Positive = 3
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    precision: Literal["auto", "bf16", "fp32"] = "auto"


@dataclass
class Progress:
    """Where a training run stands; all of it goes into a checkpoint.

    `history` has one row an evaluation: step, epoch, training and validation loss, score.
    """

    step: int = 0
    best_loss: float = math.inf
    best_score: float = 0.0
    best_step: int = 0
    waited: int = 0
    stopped: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def predict(model: Model, task: Task, split: str, config: TrainConfig) -> tuple[list, float]:
    """What the model says to each row of a split, in the split's order, and the mean loss.

    Raises:
        PruningError: an unknown split, or a loss that is not finite.
    """
    choose("split", split, SPLITS)
    answers, order, total = [], [], 0.0
    model.eval()
    where = model.device, config.precision
    with frozen_cast(model, *where), torch.inference_mode(), autocast(*where):
        size = max(config.batch_size, FORWARD_ONLY)
        for inputs, labels, rows in batches(model, task, split, size, config.max_length):
            logits = model(**inputs)
            total = total + task.loss(logits, labels, "sum")
            answers.append(task.read(logits, model=model, split=split, **inputs))
            order.extend(rows)
    loss = float(total) / len(order)
    if not math.isfinite(loss):
        raise PruningError(
            f"the {split} loss is {loss:.0f}; the model's weights have run away, so lower the "
            f"learning rate ({config.learning_rate:g}) or use precision 'fp32'"
        )
    # Only here is the device waited for.
    answers = [answer for part in answers for answer in part.tolist()]
    return [answers[i] for i in np.argsort(order)], loss


def evaluate(
    model: Model, task: Task, config: TrainConfig | None = None, split: str = "test"
) -> dict[str, float]:
    """Every metric of the task, and the mean loss, on a split."""
    config = config or TrainConfig()
    answers, loss = predict(model, task, split, config)
    rows = task.encode(model.tokenizer, config.max_length)[split]
    return task.score(split, answers, rows) | {"loss": loss}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that trains."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def rate_factor(step: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate at a step: up linearly over `warmup`, then down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0, total - step) / max(1, total - warmup)


def fit(
    model: Model,
    task: Task,
    config: TrainConfig | None = None,
    *,
    seed: int = 0,
    mask: Mask | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
) -> Progress:
    """Train the model in place; it ends with the weights of the lowest validation loss.

    Args:
        seed: fixes batch order and dropout.
        mask: held true of the parameters at every step (see `masks.hold`).
        checkpoint: a file to write to at evaluations, at most every `checkpoint_seconds`; where
            it exists already, training goes on from it, with the result of an unbroken run.

    Raises:
        PruningError: a loss that is not finite (with the step), a checkpoint that is damaged or
            of another run, a mask that does not fit, a negative seed.
    """
    if seed < 0:
        raise PruningError(f"seed is {seed}; it must be at least 0")
    config = config or TrainConfig()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        run = _Run(model, task, config, seed, mask, checkpoint, checkpoint_seconds)
        try:
            with frozen_cast(model, model.device, config.precision):
                run.train(progress)
        finally:
            run.let_go()
    return run.progress


class _Run:
    """The moving parts of one call of `fit`."""

    def __init__(self, model, task, config, seed, mask, checkpoint, checkpoint_seconds):
        self.model, self.task, self.config, self.seed = model, task, config, seed
        self.parameters = trainable(model)
        rows = task.encode(model.tokenizer, config.max_length)["train"]
        self.per_epoch = math.ceil(len(rows) / config.batch_size)
        self.total = self.per_epoch * config.epochs
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.fingerprint = self._fingerprint(mask)
        self.checkpoint = Path(checkpoint) if checkpoint else None
        known = self.checkpoint and self.checkpoint.exists()
        # A checkpoint is refused before anything is done to the model.
        state = self._known_state() if known else None
        self.hooks = hold(self.parameters, mask) if mask is not None else []
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.progress, self.losses, self.began = Progress(), [], time.monotonic()
        self.checkpoint_seconds, self.saved_at = checkpoint_seconds, time.monotonic()
        if state:
            self._resume(state)

    def train(self, progress: bool) -> None:
        with tqdm(
            total=self.total,
            initial=self.progress.step,
            unit="batch",
            mininterval=1.0,
            disable=not progress,
            desc=f"{self.task.name} seed {self.seed}",
        ) as bar:
            while self.progress.step < self.total and not self.progress.stopped:
                self._epoch(bar)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best[name])
        self.progress.seconds += time.monotonic() - self.began

    def let_go(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def _epoch(self, bar: tqdm) -> None:
        epoch, done = divmod(self.progress.step, self.per_epoch)
        # The order depends on seed and epoch alone, so that a resumed epoch is the same epoch.
        generator = np.random.default_rng((self.seed, epoch))
        looks = evaluation_steps(self.per_epoch, self.config.evaluations_per_epoch)
        size, length = self.config.batch_size, self.config.max_length
        order = batches(self.model, self.task, "train", size, length, generator)
        for index, (inputs, labels, _) in enumerate(order):
            if index < done:
                continue
            self._step(inputs, labels)
            bar.update()
            if index + 1 in looks:
                self._look(bar)
            if self.progress.stopped:
                return

    def _step(self, inputs: dict[str, Tensor], labels: Tensor) -> None:
        self.model.train()
        warmup = round(self.config.warmup_epochs * self.per_epoch)
        factor = rate_factor(self.progress.step, warmup, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.config.learning_rate
        with autocast(self.model.device, self.config.precision):
            loss = self.task.loss(self.model(**inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.progress.step += 1

    def _look(self, bar: tqdm) -> None:
        """Evaluate; keep the best weights, count patience, write a checkpoint if one is due."""
        now, training_loss = self.progress, self._training_loss()
        scores = evaluate(self.model, self.task, self.config, "validation")
        now.history.append(
            {
                "step": now.step,
                "epoch": now.step / self.per_epoch,
                "training_loss": training_loss,
                "validation_loss": scores["loss"],
                "score": scores[self.task.metric],
            }
        )
        if scores["loss"] < now.best_loss:
            now.best_loss, now.best_score = scores["loss"], scores[self.task.metric]
            now.best_step, now.waited = now.step, 0
            self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        else:
            now.waited += 1
        now.stopped = now.waited >= self.config.patience
        epoch = math.ceil(now.step / self.per_epoch)
        score = f"{scores[self.task.metric]:.3f}"
        bar.set_postfix(epoch=epoch, loss=f"{training_loss:.3f}", score=score)
        if self.checkpoint and time.monotonic() - self.saved_at >= self.checkpoint_seconds:
            self._save()

    def _training_loss(self) -> float:
        """Mean loss since the last look; here, and only here, the device is waited for."""
        losses, self.losses = torch.stack(self.losses).float().cpu(), []
        if not torch.isfinite(losses).all():
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise PruningError(
                f"the training loss is {losses[first]:.0f} at step "
                f"{self.progress.step - len(losses) + first + 1} of {self.total}; lower the "
                f"learning rate ({self.config.learning_rate:g}) or use precision 'fp32'"
            )
        return float(losses.mean())

    def _fingerprint(self, mask: Mask | None) -> str:
        names = {name: list(p.shape) for name, p in self.parameters.items()}
        held = {n: _hash(kept) for n, kept in (mask or {}).items()}
        task = [self.task.name, self.task.revision, self.task.sizes]
        return json.dumps([asdict(self.config), self.seed, task, names, held])

    def _save(self) -> None:
        self.progress.seconds += time.monotonic() - self.began
        self.began = self.saved_at = time.monotonic()
        cuda = torch.cuda.get_rng_state_all() if self.model.device.type == "cuda" else []
        state = {
            "fingerprint": self.fingerprint,
            "parameters": {n: p.detach() for n, p in self.parameters.items()},
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": cuda,
            "progress": asdict(self.progress),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files.write_bytes(self.checkpoint, buffer.getvalue())

    def _known_state(self) -> dict:
        state = _read_checkpoint(self.checkpoint)
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            raise PruningError(
                f"the checkpoint {str(self.checkpoint)!r} belongs to another run (other settings, "
                f"task, model or mask); delete it or name another file"
            )
        return state

    def _resume(self, state: dict) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.best = {n: t.to(self.model.device) for n, t in state["best"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def _hash(kept: Tensor) -> str:
    return hashlib.sha256(kept.numpy().tobytes()).hexdigest()[:16]


def evaluation_steps(per_epoch: int, times: int) -> set[int]:
    """Steps within an epoch after which to evaluate: `times` of them, the last at its end."""
    return {math.ceil(per_epoch * (i + 1) / times) for i in range(times)}


def _read_checkpoint(file: Path) -> dict:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn zip, a torn pickle, a foreign file: many kinds, one meaning
        raise PruningError(
            f"the checkpoint {str(file)!r} is damaged ({type(error).__name__}); delete it to train "
            f"this model from its start"
        ) from error
