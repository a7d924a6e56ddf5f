"""Early stopping: keep the state with the lowest validation loss, and stop when none is lower.

What is the best and when to stop follow from the log alone, which a state carries with it. So a
killed training that goes on from a state decides as if it had never been interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from knnlm.lm.state import save_parameters

BEST = "best.safetensors"  # the parameters of the best evaluation so far
Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class EarlyStopping:
    """When a training stops before its last update.

    Attributes:
        metric: the column of the log that is to be low.
        patience: evaluations in a row without a lower value after which the training stops.
    """

    metric: str
    patience: int

    def keep(self, rows: Rows, module: nn.Module, folder: Path) -> None:
        """Write the parameters of a module if the last evaluation is lower than all before it."""
        if self.best_step(rows) == self._evaluated(rows)[-1]["step"]:
            save_parameters(folder / BEST, module)

    def best_step(self, rows: Rows) -> int:
        """Return the update of the lowest value so far, of equal ones the first.

        Args:
            rows: of the log; those without the metric do not count, one must have it.
        """
        evaluated = self._evaluated(rows)
        return int(min(evaluated, key=lambda row: row[self.metric])["step"])

    def is_over(self, rows: Rows) -> bool:
        """Return whether the patience is used up."""
        best = self.best_step(rows)
        return sum(row["step"] > best for row in self._evaluated(rows)) >= self.patience

    def _evaluated(self, rows: Rows) -> list[Mapping[str, float]]:
        return [row for row in rows if self.metric in row]
