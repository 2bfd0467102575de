"""What Keras leaves to the backend: compilation, gradients, bounded loops, threads, memory.

The only package with `import tensorflow` or `import jax`; it imports the half that belongs to Keras' backend, so
that a run on JAX never loads TensorFlow. Everything else in llama_exp is written with `keras.ops`.

    compiled(function, reads, writes, jit)      a step: compiled once per shape, variables assigned in place
      value_and_gradients(function, variables)  inside a step
      scan(function, carry, xs)                 a loop whose memory is that of one iteration
      update_if(predicate, function, variables) assignments that happen only when `predicate` holds
      apply_gradients(optimizer, ...)           one update
      fused(function)                           one pass over memory where the backend can
      with_gradient(forward, backward)          a function whose gradient is written out
      repeated(key, function, *tensors)         a call that is traced once for all of its repetitions
      after(upstream, tensors)                  keeps a second computation from happening early
    unsigned_product(rows, matrix)              uint8 by int8, where `multiplies_integers()`
    adopt(array)                                a tensor that is the array's memory
    seed_generators(seed)                       everything that draws without a seed of its own
    view(variable)                              an array that is the variable's memory
    float32(x)                                  a cast where one is needed
    export_options(input_signature)             what `export` needs to know of inputs of one size
    layer_config(layer)                         `get_config` of Keras' own
    start_profile(folder), stop_profile()       what TensorBoard's profile plug-in reads
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
from keras import ops

from llama_exp.limits import choose
from llama_exp.limits.runtime import Jit

if keras.backend.backend() == "tensorflow":
    from llama_exp.backend import _tensorflow as _half
elif keras.backend.backend() == "jax":
    from llama_exp.backend import _jax as _half  # type: ignore[no-redef]  # the other half of the same functions
else:
    raise ImportError(f"runtime.backend: {keras.backend.backend()!r} is not supported; use tensorflow or jax")

PARTS = "it compiles what lies between the matrix products"
_CPU_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def compiled(function, reads, writes, jit: bool, fuse: bool = True):
    """Compiles `function(*arrays) -> nest of tensors`, which may read and assign Keras variables.

    Args:
        function: takes nests (dicts, lists) of tensors. Python numbers become int32, float32 or bool scalars, so a
            new value does not compile anew; a new shape does.
        reads: variables that the function uses and leaves alone.
        writes: variables that the function may assign, seed generators' states among them. On JAX their old
            buffers are given to the new values.
        jit: whether XLA compiles. Without it TensorFlow still builds a graph; JAX runs operation by operation.
        fuse: whether, without `jit`, XLA still compiles the functions marked `fused` (TensorFlow only).

    Returns:
        A callable: host arrays in, tensors of the backend out; `writes` are assigned when it returns.

    Raises:
        ValueError: (on JAX, at the first call) a variable is used that is in neither list, or one of `reads` is
            assigned. TensorFlow would allow both; tests that run on both backends find them.
    """
    writes = _unique(writes)
    reads = [variable for variable in _unique(reads) if not any(variable is other for other in writes)]
    return _half.compiled(function, reads, writes, jit, fuse)


def fused(function):
    """Marks a function of tensors (and Python numbers and strings) that should pass over memory once.

    Inside `compiled(..., fuse=True)` without XLA, TensorFlow lets XLA compile this function alone, once per shape:
    its matrix products are faster outside of XLA on a CPU, everything else is faster inside. Elsewhere it is the
    plain function.
    """
    return _half.fused(function)


def with_gradient(forward, backward):
    """A function of tensors with a gradient of its own.

    Args:
        forward: (*nests of tensors) -> (result, nest of tensors to keep); result is one tensor.
        backward: (what was kept, gradient of the result) -> gradients of the tensors, in the same nests and
            dtypes, None where there is none. Neither may close over a tensor or read a variable.
    """
    return _half.with_gradient(forward, backward)


def repeated(key, function, *tensors):
    """`function(*tensors)`; inside `compiled`, all calls with the same `key` are traced once.

    A model of many equal blocks then takes the tracing time of one.

    Args:
        key: hashable; equal keys promise that the function does the same to the same tensors.
        function: takes nests of tensors and None, returns a nest of tensors; reads no variable and closes over no
            tensor.
        *tensors: nests of tensors and None.
    """
    return _half.repeated(key, function, *tensors)


def after(upstream, tensors):
    """`tensors` as they are, but not before `upstream` is there.

    For what depends on weights alone, and for a backward pass that computes something again: otherwise it may be
    computed as early as the weights are there, or recognized as what the forward pass has computed, and kept alive.
    """
    return _half.after(upstream, tensors)


def multiplies_integers() -> bool:
    """Whether `unsigned_product` can be called here: on a CPU with such instructions, in a graph of TensorFlow's.

    It was tried out, once per process: without these instructions the same operation exists, is slower, and rounds
    sums of two products to 16 bits.
    """
    return _half.multiplies_integers()


def unsigned_product(rows_MI, matrix_IO):
    """The product of uint8 (M, I) by int8 (I, O), exact in int32 (M, O); only where `multiplies_integers()`."""
    return _half.unsigned_product(rows_MI, matrix_IO)


def adopt(array, layout=None):
    """A tensor with the values of a NumPy array.

    On a CPU it is the array's own memory if that is aligned to 64 bytes, so nobody may change the array afterwards;
    not so float8 on TensorFlow, which copies it. `layout`: where Keras has JAX spread it over devices.
    """
    return _half.adopt(array, layout)


def seed_generators(seed: int) -> None:
    """`keras.utils.set_random_seed`, which on JAX imports TensorFlow only to seed that too: here it does not."""
    _half.seed_generators(seed)


def view(variable):
    """A read-only NumPy array of a variable's value; bfloat16 and float8 as their bits, uint16 and uint8.

    On a CPU it is the variable's own memory, which must not change while the view is used.
    """
    array = _half.view(variable)
    array.flags.writeable = False
    return array


def export_options(input_signature: list) -> dict:
    """What `keras.Model.export` must also be told of a dict of inputs (batch, length), all of one size.

    JAX would take each length of a signature for another one.
    """
    return _half.export_options(input_signature)


def serialized_policy(policy: keras.DTypePolicy) -> dict:
    """What `keras.dtype_policies.serialize` makes of a policy, which imports TensorFlow on every backend."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": policy.name}, "registered_name": None}


def layer_config(layer: keras.layers.Layer) -> dict:
    """What `keras.layers.Layer.get_config` says of a layer, without its import of TensorFlow."""
    return {"name": layer.name, "trainable": layer.trainable, "dtype": serialized_policy(layer.dtype_policy)}


def value_and_gradients(function, variables):
    """Differentiates `function() -> (scalar loss, aux)` with respect to `variables`; inside `compiled` only.

    Gradients flow to these variables alone: nothing is computed for frozen ones. A variable that does not take part
    gets zeros. Sparse gradients (of embeddings) are summed into dense ones in a fixed order. What the function
    assigns (seeds) stays assigned.

    Returns:
        ((loss, aux), gradients): gradients in the order of `variables`, in their shapes and dtypes.
    """
    return _half.value_and_gradients(function, list(variables))


def scan(function, carry, xs, y_dtype=None, updates=()):
    """Loops over the leading axis of `xs`, one iteration at a time; inside `compiled` only.

    Args:
        function: (carry, x) -> (carry, y), with carry of unchanged structure, shapes and dtypes; y is one tensor if
            `y_dtype` is given, else None.
        carry: nest of tensors.
        xs: nest of tensors with the same leading axis.
        y_dtype: dtype of y.
        updates: variables that `function` assigns.

    Returns:
        (carry, ys): the last carry; the y of every iteration, stacked (None without `y_dtype`).

    Why: TensorFlow's while_loop runs ten iterations at once unless told otherwise, and a Python loop keeps every
    iteration's tensors alive; either would undo what chunking is for.
    """
    return _half.scan(function, carry, xs, y_dtype, list(updates))


def update_if(predicate, function, variables) -> None:
    """Runs `function()`, which assigns `variables`, only if the boolean scalar `predicate` holds.

    The assignments depend on the predicate's value. If that value depends on all gradients, no variable is written
    before the last gradient is computed: also a recomputed block then reads the old weights.
    """
    _half.update_if(predicate, function, list(variables))


def apply_gradients(optimizer, gradients, variables) -> None:
    """One update by a built Keras optimizer, loss scaling included; inside `compiled` only."""
    _half.apply_gradients(optimizer, gradients, list(variables))


def resolve_jit(jit: str, compute_dtype: str) -> tuple[bool, str]:
    """Decides whether XLA compiles the steps, from what the machine is, never from timing: a resume must agree.

    Args:
        jit: name of a `Jit`.
        compute_dtype: of the model's products.

    Returns:
        (decision, reason for the log).
    """
    choice = choose(Jit, jit, "runtime.jit")
    if choice is not Jit.auto:
        return choice is Jit.true, "as runtime.jit says"
    if keras.backend.backend() == "jax":
        return True, "JAX without XLA runs operation by operation"
    if device_kind() != "cpu":
        return True, "faster on an accelerator"
    if compute_dtype == "float32":
        return False, f"TensorFlow's own float32 kernels are as fast on CPU and start sooner; {PARTS}"
    if compute_dtype == "bfloat16" and _CPU_BFLOAT16_FLAGS & set(_cpuinfo("flags", "Features").split()):
        return False, f"this CPU multiplies bfloat16 in hardware, which XLA does not use; {PARTS}"
    return True, f"without XLA this CPU emulates {compute_dtype} products"


def runs_without_xla() -> bool:
    """Whether a compiled function is fast without XLA: TensorFlow's own kernels on a CPU."""
    return keras.backend.backend() == "tensorflow" and device_kind() == "cpu"


def device_kind() -> str:
    """`cpu` or `gpu` (any accelerator)."""
    return _half.device_kind()


def device_name() -> str:
    """The device that steps run on, for records: processor or accelerator model."""
    if device_kind() != "cpu":
        return _half.accelerator_name()
    return _cpuinfo("model name") or "cpu"


def peak_memory_bytes() -> int:
    """Largest memory so far: of the accelerator's allocator, or on CPU the process' resident set."""
    return _half.accelerator_peak_memory_bytes() if device_kind() != "cpu" else _resident_peak_bytes()


def _resident_peak_bytes() -> int:
    # VmHWM belongs to this program's memory; getrusage's maximum is inherited from the parent across exec.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def _cpuinfo(*keys: str) -> str:
    """The first processor's entry under one of `keys`; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() in keys), "")


def _unique(variables) -> list:
    return list({id(variable): variable for variable in variables}.values())


def float32(x):
    """`x` in float32; as it is where it is float32 already."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float32" else ops.cast(x, "float32")


def start_profile(folder: Path) -> None:
    """Begins to record what this process computes; `stop_profile` writes it.

    Args:
        folder: gets `plugins/profile/<time>/` with a trace for TensorBoard's profile plug-in.

    Raises:
        RuntimeError: something else is recording already.
    """
    _half.start_profile(str(folder))


def stop_profile() -> None:
    """Ends what `start_profile` began, and writes it."""
    _half.stop_profile()
