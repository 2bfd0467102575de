"""The JAX half of `llama_exp.backend`; documented there."""

from __future__ import annotations

import random

import jax
import keras
import numpy as np
from jax import numpy as jnp
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

_entered: list[_Scope] = []  # the scopes that are open, outermost first
_repeated: dict = {}  # key -> jitted function, of the compiled function that is being traced


class _Scope(keras.StatelessScope):
    """Values of listed variables only.

    Keras' own scope lets an unlisted variable through: its present value would become a constant of the program.
    """

    def __init__(self, values_by_id: dict[int, jax.Array]):
        super().__init__()
        self.state_mapping = dict(values_by_id)

    def __enter__(self):
        _entered.append(self)
        return super().__enter__()

    def __exit__(self, *details):
        _entered.pop()
        super().__exit__(*details)

    def get_current_value(self, variable):
        value = self.state_mapping.get(id(variable))
        if value is None:
            raise ValueError(f"{variable.path} is used by a compiled function that does not list it in its variables")
        return value

    def values(self, variables) -> list[jax.Array]:
        return [self.get_current_value(variable) for variable in variables]


def _current_scope() -> _Scope:
    if not _entered:
        raise RuntimeError("only functions given to llama_exp.backend.compiled may call this")
    return _entered[-1]


def _inner_scope(outer: _Scope, variables, values) -> _Scope:
    return _Scope(outer.state_mapping | {id(v): value for v, value in zip(variables, values, strict=True)})


def compiled(function, reads, writes, jit: bool, fuse: bool):
    del fuse  # XLA does it
    writable = {id(variable) for variable in writes}

    def pure(write_values, read_values, arrays):
        _repeated.clear()
        before = {id(v): x for v, x in zip(writes, write_values, strict=True)}
        before |= {id(v): x for v, x in zip(reads, read_values, strict=True)}
        with _Scope(before) as scope:
            outputs = function(*arrays)
        for key, value in scope.state_mapping.items():
            if value is not before.get(key) and key not in writable:
                raise ValueError("a compiled function assigned a variable that is not in `writes`")
        return outputs, scope.values(writes)

    step = jax.jit(pure, donate_argnums=0) if jit else pure

    def call(*arrays):
        arrays = jax.tree.map(_array, arrays)
        outputs, values = step([v.value for v in writes], [v.value for v in reads], arrays)
        for variable, value in zip(writes, values, strict=True):
            variable.assign(value)
        return outputs

    return call


def _array(value):
    if isinstance(value, bool):
        return jnp.asarray(value, jnp.bool_)
    if isinstance(value, int):
        return jnp.asarray(value, jnp.int32)
    if isinstance(value, float):
        return jnp.asarray(value, jnp.float32)
    return jnp.asarray(value)


def fused(function):
    return function


def with_gradient(forward, backward):
    call = jax.custom_vjp(lambda *tensors: forward(*tensors)[0])
    call.defvjp(forward, backward)
    return call


def repeated(key, function, *tensors):
    if not _entered:
        return function(*tensors)
    if key not in _repeated:
        _repeated[key] = jax.jit(function)
    return _repeated[key](*tensors)


def after(upstream, tensors):
    _, tensors = jax.lax.optimization_barrier((upstream, tensors))
    return tensors


def multiplies_integers() -> bool:
    return False  # XLA's products of integers on a CPU are several times slower than those of floats


def unsigned_product(rows_MI, matrix_IO):
    raise NotImplementedError("unsigned_product: ask multiplies_integers() first")


def adopt(array, layout):
    if layout is not None:  # of an abstract mesh, which holds no array; Keras has set the mesh of devices
        layout = jax.sharding.NamedSharding(jax.sharding.get_mesh(), layout.spec)
    return jax.device_put(array, layout)  # jnp.asarray would copy


def seed_generators(seed):
    random.seed(seed)
    np.random.seed(seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)  # Keras makes another, seeded by Python's


def export_options(input_signature):
    def shape(spec):
        sizes = zip(spec.shape, ("batch", "length"), strict=True)
        return f"({', '.join(name if size is None else str(size) for size, name in sizes)})"

    return {"jax2tf_kwargs": {"polymorphic_shapes": keras.tree.map_structure(shape, input_signature)}}


def view(variable):
    array = np.asarray(variable.value)
    if array.dtype == jnp.float8_e4m3fn:
        return array.view(np.uint8)
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array


def value_and_gradients(function, variables):
    outer = _current_scope()
    differentiated = {id(variable) for variable in variables}

    def pure(values):
        with _inner_scope(outer, variables, values) as scope:
            loss, aux = function()
        changed = {
            key: value
            for key, value in scope.state_mapping.items()
            if key not in differentiated and value is not outer.state_mapping.get(key)
        }
        return loss, (aux, changed)

    (loss, (aux, changed)), gradients = jax.value_and_grad(pure, has_aux=True)(outer.values(variables))
    outer.state_mapping.update(changed)
    return (loss, aux), gradients


def scan(function, carry, xs, y_dtype, updates):
    outer = _current_scope()

    def body(state, x):
        carry, values = state
        with _inner_scope(outer, updates, values) as scope:
            carry, y = function(carry, x)
        return (carry, scope.values(updates)), y if y_dtype is None else y.astype(y_dtype)

    (carry, values), ys = jax.lax.scan(body, (carry, outer.values(updates)), xs)
    outer.state_mapping.update({id(v): value for v, value in zip(updates, values, strict=True)})
    return carry, ys


def update_if(predicate, function, variables) -> None:
    outer = _current_scope()

    def update(values):
        with _inner_scope(outer, variables, values) as scope:
            function()
        return scope.values(variables)

    values = jax.lax.cond(predicate, update, lambda values: values, outer.values(variables))
    outer.state_mapping.update({id(v): value for v, value in zip(variables, values, strict=True)})


def apply_gradients(optimizer, gradients, variables) -> None:
    # `apply` of a LossScaleOptimizer assigns inside lax.cond and would leak tracers; its stateless form does not.
    outer, state = _current_scope(), optimizer.variables
    values, state_values = optimizer.stateless_apply(outer.values(state), gradients, outer.values(variables))
    assigned = zip([*variables, *state], [*values, *state_values], strict=True)
    outer.state_mapping.update({id(v): value for v, value in assigned})


def device_kind() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def accelerator_name() -> str:
    return jax.devices()[0].device_kind


def accelerator_peak_memory_bytes() -> int:
    return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def start_profile(folder: str) -> None:
    jax.profiler.start_trace(folder)


def stop_profile() -> None:
    jax.profiler.stop_trace()
