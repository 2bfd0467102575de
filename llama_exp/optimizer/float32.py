"""What every optimizer here shares; see `llama_exp.optimizer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from llama_exp import backend
from llama_exp.limits import is_number

SHARED = ("name", "learning_rate", "weight_decay", "global_clipnorm")


class Float32Optimizer(keras.optimizers.Optimizer):
    """A Keras optimizer with float32 state and arithmetic for every variable, and decay on matrices only.

        d_u = lr_u * weight_decay          or, independent of the learning rate, lr_u / peak * weight_decay
        w   = w - d_u * w [two or more axes] - f * lr_u * (what the optimizer makes of the gradient)

    with f the factor of `multiply_rates`, which d_u has too unless it is independent. Gradients are clipped by the norm
    of all of them together. Clipping, decay and the update of a variable are one pass over it.

    One optimizer states its NUMBERS and writes `list_slots`, `begin_update` and `update`.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019, arXiv:1711.05101).
        global_clipnorm: longest allowed gradient over all variables together; None: any.
        independent_weight_decay: whether decay follows the schedule's shape, but not its peak (the same paper's
            algorithm 2; Wortsman et al. 2023, arXiv:2309.14322).
        peak: of the schedule, for independent decay; None where `learning_rate` is a number.
        rate_factors: see `multiply_rates`.
        name: as Keras has it.
        **numbers: one for each of NUMBERS; they become attributes.
    """

    NUMBERS: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        *,
        learning_rate,
        weight_decay: float,
        global_clipnorm: float | None,
        independent_weight_decay: bool = False,
        peak: float | None = None,
        rate_factors: Mapping[str, float] | None = None,
        name: str | None = None,
        **numbers,
    ):
        if numbers.keys() != set(self.NUMBERS):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.NUMBERS)}, not {', '.join(numbers)}")
        options = {"weight_decay": weight_decay, "global_clipnorm": global_clipnorm}
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.independent_weight_decay = independent_weight_decay
        self.peak = learning_rate if peak is None else peak
        if independent_weight_decay and not is_number(self.peak):
            raise ValueError("independent_weight_decay=True needs peak=<the schedule's highest rate>")
        self.rate_factors = dict(rate_factors or {})
        self.numbers = numbers
        for key, value in numbers.items():
            setattr(self, key, value)

    def multiply_rates(self, factors: Mapping[str, float]) -> None:
        """Gives variables learning rates of their own; to be called before `build`.

        Args:
            factors: path of a variable -> what its learning rate is multiplied by; without one: 1.
        """
        if self.built:
            raise ValueError("multiply_rates comes too late: the optimizer is built")
        self.rate_factors = dict(factors)

    def build(self, variables):
        """Creates the state of each of `variables`, float32.

        Raises:
            ValueError: `multiply_rates` was given a path that none of them has.
        """
        if self.built:
            return
        unknown = self.rate_factors.keys() - {variable.path for variable in variables}
        if unknown:
            raise ValueError(f"no variable that trains has the path {sorted(unknown)[0]}, of a learning rate's factor")
        super().build(variables)
        self._slots = [self._add_slots(variable) for variable in variables]
        self._factors = [self.rate_factors.get(variable.path, 1.0) for variable in variables]
        self._decays = [len(variable.shape) >= 2 for variable in variables]
        self._paths = [variable.path for variable in variables]

    def list_slots(self, variable) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each piece of state that a model variable has."""
        raise NotImplementedError

    def begin_update(self, learning_rate, update) -> None:
        """Computes what the updates of all variables share: traced again for each it delays the first step.

        Args:
            learning_rate: of this update, a float32 scalar.
            update: its number, from 1; a float32 scalar.
        """

    def update(self, weight, gradient, slots, clip_factor, rate_factor: float, decay, variable_path: str):
        """New values of a variable and of its slots.

        Args:
            weight: its value, in its own dtype.
            gradient: float32, not clipped yet.
            slots: values, in the order of `list_slots`.
            clip_factor: what the gradient is to be multiplied by, a float32 scalar.
            rate_factor: what the learning rate is to be multiplied by.
            decay: share of the weight to take away, a float32 scalar.
            variable_path: of the variable.
        """
        raise NotImplementedError

    def _add_slots(self, variable) -> list:
        prefix = variable.path.replace("/", "_")
        return [
            self.add_variable(shape=shape, initializer="zeros", dtype="float32", name=f"{prefix}_{name}")
            for name, shape in self.list_slots(variable).items()
        ]

    def _clip_gradients(self, gradients):
        """Keeps the factor that clips; the update of a variable applies it."""
        self._clip_factor = ops.ones((), dtype="float32")
        if self.global_clipnorm is not None and self.global_clipnorm > 0:
            norm = ops.sqrt(sum(sum_of_squares(gradient) for gradient in gradients))
            self._clip_factor = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return gradients

    def _apply_weight_decay(self, variables):
        """Nothing: the update of a variable does it."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Updates every variable."""
        learning_rate, update = ops.cast(learning_rate, "float32"), ops.cast(self.iterations + 1, "float32")
        self.begin_update(learning_rate, update)
        share = self.weight_decay / self.peak if self.independent_weight_decay else self.weight_decay
        self._decay = learning_rate * share
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable."""
        del learning_rate  # `begin_update` had it
        index = self._get_variable_index(variable)
        slots, rate_factor = self._slots[index], self._factors[index]
        factor = 1.0 if self.independent_weight_decay else rate_factor
        weight, *values = (ops.convert_to_tensor(x) for x in (variable, *(slot.value for slot in slots)))
        new = self.update(
            weight,  # TensorFlow's variable is its own here
            ops.cast(gradient, "float32"),
            values,
            self._clip_factor,
            rate_factor,
            multiplied(self._decay, factor) if self._decays[index] else self._decay * 0.0,
            self._paths[index],
        )
        for x, value in zip((variable, *slots), new, strict=True):
            self.assign(x, value)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {key: config[key] for key in SHARED} | {
            "independent_weight_decay": self.independent_weight_decay,
            "peak": self.peak if is_number(self.peak) else None,
            "rate_factors": self.rate_factors,
            **self.numbers,
        }


def multiplied(x, factor: float):
    """`x * factor`; x itself where the factor is 1, so that a computation without factors stays what it is."""
    return x if factor == 1.0 else x * factor


def taken_from(weight, step, decay):
    """`weight` less `step` and less its own share `decay`, computed in float32, in the weight's dtype."""
    exact = ops.cast(weight, "float32")
    return ops.cast(exact - (exact * decay + step), weight.dtype)


@backend.fused
def sum_of_squares(x):
    """Sum of squares, a float32 scalar."""
    return ops.sum(ops.square(ops.cast(x, "float32")))
