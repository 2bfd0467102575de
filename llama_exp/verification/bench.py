"""Measures a training step in many ways and says how far two measurements are apart.

Shape letters: A micro-batches, B batch, S positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llama_exp.verification.rows import Rows
from llama_exp.verification.subject import Subject

# A gradient that is smaller than this share of all of them is compared with that share: of its own size nothing is left
# but the rounding of others.
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Error:
    """How far a measurement is from what was expected, relative.

    loss: of the loss. gradient: the largest of all variables, norm of the difference over norm. variable: its path.
    """

    loss: float
    gradient: float
    variable: str = ""


@dataclass
class Bench:
    """Measures one subject; compiled steps are kept."""

    subject: Subject
    jit: bool
    _probes: dict[tuple, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> Any:
        """The model's."""
        return self.subject.model.backbone

    def measure(self, rows: Rows, **ways: Any) -> Any:
        """Loss and gradients of a step on the rows.

        Args:
            rows: arrays (B, S), or (A, B, S).
            **ways: `chunk_tokens`, `jit`, `fuse`, `remat` where they are not as the config has them.
        """
        from llama_exp.trainer.probe import GradientProbe

        config = self.subject.config
        usual: dict[str, Any] = {"chunk_tokens": config.objective.chunk_tokens, "jit": self.jit}
        usual |= {"fuse": config.runtime.jit.value != "false", "remat": config.trainer.remat}
        usual |= {"z_loss": config.objective.z_loss}
        ways = usual | ways
        key = tuple(sorted((name, str(value)) for name, value in ways.items()))
        self.backbone.remat = ways.pop("remat")
        try:
            if key not in self._probes:
                self._probes[key] = GradientProbe(self.backbone, **ways)
            return self._probes[key]({name: _with_micro_batches(array) for name, array in rows.items()})
        finally:
            self.backbone.remat = config.trainer.remat


def compare(found: Any, expected: Any) -> Error:
    """The distance of two measurements of the same variables."""
    total = math.sqrt(sum(_norm(gradient) ** 2 for gradient in expected.gradients.values()))
    errors = {
        path: _norm(found.gradients[path] - gradient) / max(_norm(gradient), SMALLEST_SHARE * total, 1e-30)
        for path, gradient in expected.gradients.items()
    }
    worst = max(errors, key=lambda path: math.inf if math.isnan(errors[path]) else errors[path])
    loss = abs(found.loss - expected.loss) / max(abs(expected.loss), 1e-30)
    return Error(loss, errors[worst], worst)


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _with_micro_batches(array: np.ndarray) -> np.ndarray:
    return array[None] if array.ndim == 2 else array
