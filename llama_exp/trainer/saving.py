"""Between the loop's state and the checkpoints: what is saved, and how a run takes it back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llama_exp.errors import StorageError
from llama_exp.trainer import state
from llama_exp.trainer.checkpoint import Checkpoint, Checkpoints
from llama_exp.trainer.contents import Contents, read_contents, require_optimizer

FAILED_SAVES = 3  # in a row, until the run gives up
_log = logging.getLogger(__name__)


class Saving:
    """Saves the model's trainable variables and the optimizer's, and restores them.

    Args:
        backbone: the model's.
        optimizer: with its variables built.
        checkpoints: where to.
        base_digest: of the frozen weights, where it is known; None: computed for the first checkpoint.

    Attributes:
        saved_step: of the last checkpoint; None: there is none.
    """

    def __init__(self, backbone, optimizer, checkpoints: Checkpoints, base_digest: str | None):
        self._backbone, self._optimizer, self._checkpoints = backbone, optimizer, checkpoints
        self._base_digest = base_digest
        self.saved_step: int | None = None
        self._failed_saves = 0

    def save(self, step: int, contents: Mapping[str, Any], needed: int | None, required: bool) -> bool:
        """A checkpoint of this step.

        Args:
            step: finished optimizer steps.
            contents: JSON; the seeds are added.
            needed: an earlier step whose checkpoint is not removed as long as this one is there.
            required: a full disk is forgiven twice if not.

        Returns:
            Whether the checkpoint is there.

        Raises:
            StorageError, NumericalError: as `Checkpoints.save`.
        """
        tensors = {group: state.arrays(variables) for group, variables in self._variables().items()}
        whole = {**contents, "seeds": state.seed_numbers(self._backbone)}
        try:
            self._checkpoints.save(step, tensors, whole, self._digest(), needed)
        except StorageError as error:
            self._failed_saves += 1
            if required or self._failed_saves >= FAILED_SAVES:
                raise
            _log.warning("%s\n  the run goes on; the next checkpoint will try again", error)
            return False
        self.saved_step, self._failed_saves = step, 0
        return True

    def restore(self, checkpoint: Checkpoint) -> Contents:
        """Assigns everything, and gives what the checkpoint says beside.

        Raises:
            InputError: it belongs to another model, optimizer or base, is of another form, or has no optimizer any
                more; no variable was changed.
        """
        require_optimizer(checkpoint)
        contents = read_contents(checkpoint)
        self._check_base(checkpoint)
        saved = checkpoint.tensors | {"seeds": {str(number): seed for number, seed in enumerate(contents.seeds)}}
        seeds = state.seed_variables(self._backbone)
        state.restore(self._variables() | {"seeds": seeds}, saved, str(checkpoint.folder))
        self.saved_step = checkpoint.step
        return contents

    def restore_weights(self, step: int) -> None:
        """Assigns the trainable variables of a step's checkpoint alone; raises `InputError` as `restore`."""
        checkpoint = self._checkpoints.read(step)
        self._check_base(checkpoint)
        ours = {"trainable": self._variables()["trainable"]}
        state.restore(ours, {"trainable": checkpoint.tensors["trainable"]}, str(checkpoint.folder))

    def tell_differences(self, checkpoint: Checkpoint) -> None:
        """Warns of what makes the continued run another one, in its last bits."""
        for name in sorted({*checkpoint.facts, *self._checkpoints.facts}):
            then, now = checkpoint.facts.get(name), self._checkpoints.facts.get(name)
            if then != now:
                _log.warning("%s is %s, the checkpoint was made with %s: not bitwise the same run", name, now, then)

    def _check_base(self, checkpoint: Checkpoint) -> None:
        if any(not variable.trainable for variable in self._backbone.weights):
            state.check_base(self._digest(), checkpoint.base_digest, str(checkpoint.folder))

    def _variables(self) -> dict[str, dict]:
        return {
            "trainable": state.trainable_variables(self._backbone),
            "optimizer": state.optimizer_variables(self._optimizer),
        }

    def _digest(self) -> str:
        if self._base_digest is None:
            self._base_digest = state.frozen_digest(self._backbone)
        return self._base_digest
