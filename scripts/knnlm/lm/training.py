"""One training loop: models from scratch, fine-tuning, and what replaces a datastore.

It runs on accelerate, on the machine's device and processes. Batches and draws are functions of the
seed and the number of the update, so a killed run goes on from its last state to the same bytes.
"""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from knnlm.lm.early_stopping import BEST, EarlyStopping
from knnlm.lm.optimizer import create_optimizer
from knnlm.lm.process import create_accelerator
from knnlm.lm.schedule import learning_rate
from knnlm.lm.state import Log, load_parameters, load_state, save_state, trained
from knnlm.runtime.logs import Progress
from knnlm.runtime.seeds import derive_seed
from knnlm.runtime.signals import stop, stop_is_asked

STATE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a module is trained, whatever it is.

    Attributes:
        steps: number of updates.
        optimizer: see `create_optimizer`; its lr is the highest of the schedule.
        schedule: see `learning_rate`.
        clip_norm: largest norm of the whole gradient; None does not clip.
        precision: fp32, bf16 or fp16; mixed precision on a GPU only.
        accumulation: forward passes of one update, shared by all processes.
        seed: of dropout.
    """

    steps: int
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    clip_norm: float | None
    precision: str
    accumulation: int
    seed: int


@dataclass(frozen=True)
class Journal:
    """What a training writes down, where and how often.

    Attributes:
        folder: of the state; one that is found there is gone on from.
        save_every: updates between two states.
        log_every: updates between two rows of the log.
        tokens_per_update: for the speed in the progress lines; 0 counts updates.
        start: a state to begin with if there is none in the folder, kept by another training.
        keep_state_at: files in which the states after these numbers of updates are kept.
    """

    folder: Path
    save_every: int
    log_every: int
    tokens_per_update: int = 0
    start: Path | None = None
    keep_state_at: Mapping[int, Path] = field(default_factory=dict)


class Evaluation(NamedTuple):
    """What is measured on the way.

    Attributes:
        measure: called with the number of finished updates, without gradients, on the module in
            eval mode, by the first process; what it returns joins the row of the log.
        at: numbers of finished updates, 0 for before the first.
        early_stopping: the training may stop before its last update, and then leaves the module
            as the best evaluation found it; None takes every update.
    """

    measure: Callable[[int], Mapping[str, float]]
    at: Collection[int]
    early_stopping: EarlyStopping | None = None


def train(
    module: nn.Module,
    recipe: Recipe,
    *,
    batch_at: Callable[[int], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    journal: Journal,
    evaluation: Evaluation | None = None,
) -> list[dict[str, float]]:
    """Train a module in place, leave it in eval mode and return the log.

    Args:
        module: its parameters that require a gradient are trained.
        recipe: the settings.
        batch_at: the batch of one forward pass, a pure function of its number: update s reads
            numbers s * accumulation to (s + 1) * accumulation - 1. Tensors in lists, tuples
            and dicts are moved to the device.
        loss: of a module and a batch: a scalar, the mean over what the batch holds.
        journal: where the state and the log are kept.
        evaluation: what joins the log.

    Returns:
        Rows of step (finished updates), loss (mean since the row before), lr (of the last
        update) and the evaluation; loss and lr are NaN before the first update.

    Raises:
        ValueError: if a setting is impossible on this machine, or a loss is not finite.
        ArtifactError: if a state is truncated or of another training.
        SystemExit: after SIGTERM, with the state saved.
    """
    state, kept = journal.folder / STATE, journal.keep_state_at
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        run = _Training(module, recipe, batch_at, loss)
        run.resume(state, journal.start)
        first = done = run.log.done
        progress = _progress(recipe.steps, first, journal.tokens_per_update)
        while True:
            # A state is saved before the row of the same step, so that what goes on from it
            # makes the row itself: its evaluation may be another one.
            if done in kept and not kept[done].is_file():
                run.save(kept[done])
            stopping = run.is_asked_to_stop()
            if done > first and (stopping or done % journal.save_every == 0):
                run.save(state)
            if stopping:
                run.leave()
            if evaluation is not None and done in evaluation.at:
                run.report(evaluation.measure)
                if run.is_over(evaluation.early_stopping, journal.folder):
                    break
            elif done > 0 and (done % journal.log_every == 0 or done == recipe.steps):
                run.report(None)
            if done == recipe.steps:
                break
            run.update()
            done = run.log.done
            progress(run.log)
        if evaluation is not None and evaluation.early_stopping is not None:
            run.accelerator.wait_for_everyone()
            load_parameters(journal.folder / BEST, module)
        run.release()
    return run.log.rows


def _progress(steps: int, first: int, tokens_per_update: int) -> Callable[[Log], None]:
    size, unit = (tokens_per_update, "tokens") if tokens_per_update else (1, "updates")
    lines = Progress("training", total=steps * size, unit=unit, done=first * size)

    def show(log: Log) -> None:
        loss = f", loss {log.rows[-1]['loss']:.3f}" if log.rows else ""  # the first is not read yet
        lines.update(log.done * size, f"update {log.done:,} of {steps:,}{loss}")

    return show


class _Training:
    """What a training holds between two updates."""

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        batch_at: Callable[[int], Any],
        loss: Callable[[nn.Module, Any], Tensor],
    ) -> None:
        self.module, self.recipe, self.batch_at, self.loss = module, recipe, batch_at, loss
        self.accelerator = create_accelerator(recipe.precision, recipe.accumulation)
        module.to(self.accelerator.device).train()
        self.optimizer = create_optimizer(module, recipe.optimizer)
        self.parameters = [parameter for _, parameter in trained(module)]
        self.prepared, self.stepper = self.accelerator.prepare(module, self.optimizer)
        self.log = Log()
        self.waiting: list[Tensor] = []  # losses of updates, not yet fetched from the device

    def resume(self, *candidates: Path | None) -> None:
        """Go on from the first state that exists, if any."""
        for path in candidates:
            if path is not None and path.is_file():
                self.log = load_state(path, self.module, self.optimizer)
                assert self.log.done <= self.recipe.steps, f"{path} is beyond the last update"
                if self.log.scaler is not None:
                    self.accelerator.scaler.load_state_dict(self.log.scaler)
                return

    def learning_rate(self, step: int) -> float:
        recipe = self.recipe
        return learning_rate(
            step, schedule=recipe.schedule, lr=recipe.optimizer["lr"], steps=recipe.steps
        )

    def draw_from(self, seed: int) -> None:
        """Seed what the device draws; without a GPU, torch.manual_seed would note it for one."""
        if self.accelerator.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def update(self) -> None:
        """Run the forward and backward passes of one update, and the update."""
        step, accumulation = self.log.done, self.recipe.accumulation
        share = range(self.accelerator.process_index, accumulation, self.accelerator.num_processes)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        total = torch.zeros((), device=self.accelerator.device)
        for part in share:
            number = step * accumulation + part
            # Dropout by the number of the batch: the same on any number of processes.
            self.draw_from(derive_seed(self.recipe.seed, "dropout", number))
            batch = send_to_device(self.batch_at(number), self.accelerator.device)
            last = part == share[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                mean = self.loss(self.prepared, batch) / len(share)
                self.accelerator.backward(mean)
            total += mean.detach()
        if self.recipe.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.stepper.step()
        self.stepper.zero_grad()
        self.waiting.append(total)
        self.log.done += 1

    def fetch_losses(self) -> None:
        """Add the waiting losses to the log, one by one, so that the sum is always the same."""
        if not self.waiting:
            return
        losses = self.accelerator.reduce(torch.stack(self.waiting), reduction="mean").tolist()
        first = self.log.done - len(losses)
        self.waiting = []
        for step, value in enumerate(losses, start=first + 1):
            if not math.isfinite(value):
                raise ValueError(
                    f"the loss of update {step:,} is {value}; lower optimizer.lr or clip_norm, "
                    "or use longer warm-up, in config.yaml"
                )
            self.log.loss_sum += value
            self.log.n_losses += 1

    def report(self, evaluate: Callable[[int], Mapping[str, float]] | None) -> None:
        """Add a row to the log, with an evaluation if there is one."""
        self.fetch_losses()
        log, loss, lr = self.log, math.nan, math.nan
        if log.done:
            loss, lr = log.loss_sum / log.n_losses, self.learning_rate(log.done - 1)
        row = {"step": log.done, "loss": loss, "lr": lr}
        if evaluate is not None and self.accelerator.is_main_process:
            self.module.eval()
            with torch.no_grad():
                row |= evaluate(log.done)
            self.module.train()
        log.rows.append(row)
        log.loss_sum, log.n_losses = 0.0, 0

    def is_asked_to_stop(self) -> bool:
        """Return whether any process was sent SIGTERM: all of them have to leave together."""
        return self.any_process_says(stop_is_asked())

    def any_process_says(self, yes: bool) -> bool:
        """Return the same for all processes: whether one of them says yes."""
        if self.accelerator.num_processes == 1:
            return yes
        said = torch.tensor(float(yes), device=self.accelerator.device)
        return bool(self.accelerator.reduce(said, reduction="sum") > 0)

    def is_over(self, early_stopping: EarlyStopping | None, folder: Path) -> bool:
        """After an evaluation keep the module if it is the best, and say whether to stop."""
        if early_stopping is None:
            return False
        evaluates = self.accelerator.is_main_process
        if evaluates:
            early_stopping.keep(self.log.rows, self.module, folder)
        return self.any_process_says(evaluates and early_stopping.is_over(self.log.rows))

    def save(self, path: Path) -> None:
        """Write the state, on the first process."""
        self.fetch_losses()
        scaler = self.accelerator.scaler
        self.log.scaler = None if scaler is None else scaler.state_dict()
        if self.accelerator.is_main_process:
            save_state(path, self.module, self.optimizer, self.log)

    def leave(self) -> NoReturn:
        """End the process, when the state is saved: who leaves first has the others killed."""
        self.accelerator.wait_for_everyone()
        stop()

    def release(self) -> None:
        """Leave the module in eval mode, without what mixed precision wrapped around it."""
        if self.recipe.precision != "fp32":
            self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        self.module.eval()
