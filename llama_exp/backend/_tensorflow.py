"""The TensorFlow half of `llama_exp.backend`; documented there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

ALIGNMENT_BYTES = 64
FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
# A sweep's jobs, like validation and samples, have graphs of their own: TensorFlow's advice would be wrong here.
tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())


_traces: list[_Trace] = []  # of the functions that are being traced, outermost first


class _Trace:
    """What belongs to one tracing of a compiled function: who compiles all of it or its parts, what was `repeated`."""

    def __init__(self, jit: bool, fuse: bool):
        self.jit, self.fuse = jit, fuse
        self.repeated: dict[Hashable, Callable] = {}

    def __enter__(self):
        _traces.append(self)

    def __exit__(self, *details):
        _traces.pop()


def compiled(function, reads, writes, jit: bool, fuse: bool):
    del reads, writes  # a graph refers to variables themselves
    fuse = fuse and not jit and device_kind() == "cpu"

    def traced(*arrays):
        with _Trace(jit, fuse):
            return function(*arrays)

    graph = tf.function(traced, jit_compile=jit, autograph=False)

    def call(*arrays):
        return graph(*tf.nest.map_structure(_tensor, arrays))

    return call


def _tensor(value):
    if isinstance(value, (bool, np.bool_)):
        return tf.constant(value, tf.bool)
    if isinstance(value, int):
        return tf.constant(value, tf.int32)
    if isinstance(value, float):
        return tf.constant(value, tf.float32)
    return tf.convert_to_tensor(value)


def fused(function):
    by_xla = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments):
        return (by_xla if _traces and _traces[-1].fuse else function)(*arguments)

    return call


def with_gradient(forward, backward):
    @tf.custom_gradient
    def call(*tensors):
        result, kept = forward(*tensors)
        return result, lambda upstream: backward(kept, upstream)

    def on_tensors(*tensors):
        tensors = tf.nest.map_structure(tf.convert_to_tensor, tensors)  # custom_gradient takes no variables
        has_float8 = any(tensor.dtype == FLOAT8 for tensor in tf.nest.flatten(tensors))
        if has_float8 and not _traces and tf.inside_function():
            # In Keras' own graphs the tape would want zeros of float8, which TensorFlow cannot make on a CPU.
            return tf.function(call, autograph=False)(*tensors)
        return call(*tensors)

    return on_tensors


def repeated(key, function, *tensors):
    # Under XLA a call may not be a function: its gradient needs constants of the forward pass (axes of a transpose),
    # for which XLA takes every argument of the call for a constant too, and compiles anew whenever one changes.
    if not _traces or _traces[-1].jit:
        return function(*tensors)
    known = _traces[-1].repeated
    if key not in known:
        # Copied into the graph at every call, the function would be optimized as often before the first step.
        known[key] = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
    return known[key](*tensors)


def after(upstream, tensors):
    if _traces and _traces[-1].jit:  # XLA knows no control dependencies
        flat = gen_xla_ops.xla_optimization_barrier(tf.nest.flatten((upstream, tensors)))
        return tf.nest.pack_sequence_as((upstream, tensors), flat)[1]
    with tf.control_dependencies(tf.nest.flatten(upstream)):
        return tf.nest.map_structure(tf.identity, tensors)


def multiplies_integers() -> bool:
    # The operation comes with a rewriting of graphs: not where XLA compiles all of it, nor outside of a graph.
    return bool(_traces) and _traces[-1].fuse and _unsigned_products_are_exact()


@functools.cache
def _unsigned_products_are_exact() -> bool:
    rows, matrix = np.full((2, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    with tf.init_scope():  # the question comes up while another function is traced
        try:
            found = tf.function(unsigned_product, autograph=False)(tf.constant(rows), tf.constant(matrix))
        except (tf.errors.OpError, AttributeError):  # started or built without oneDNN
            return False
        return np.array_equal(found.numpy(), np.full((2, 16), 64 * 255 * 127))


def unsigned_product(rows_MI, matrix_IO):
    product_MO, _, _ = tf.raw_ops.QuantizedMatMulWithBias(
        a=tf.bitcast(rows_MI, tf.quint8),
        b=tf.bitcast(matrix_IO, tf.qint8),
        bias=tf.bitcast(tf.zeros(matrix_IO.shape[1:], tf.int32), tf.qint32),
        min_a=0.0,  # the ranges say what the numbers stand for; their product is wanted as it is
        max_a=255.0,
        min_b=-127.0,
        max_b=127.0,
        Toutput=tf.qint32,
        input_quant_mode="SCALED",
    )
    return tf.bitcast(product_MO, tf.int32)


def adopt(array, layout=None):
    del layout  # Keras spreads variables on JAX only
    if array.ctypes.data % ALIGNMENT_BYTES or not array.flags.writeable or not array.flags.c_contiguous:
        return tf.convert_to_tensor(array)
    if array.dtype == FLOAT8:  # neither DLPack nor a bitcast of TensorFlow's knows it: a copy
        return tf.convert_to_tensor(array)
    if array.dtype == ml_dtypes.bfloat16:  # NumPy cannot pass it on; two plain bytes it can
        return tf.bitcast(adopt(array.view(np.uint16)), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # convert_to_tensor would copy


def seed_generators(seed):
    keras.utils.set_random_seed(seed)


def export_options(input_signature):
    del input_signature  # sizes that a graph does not know are whatever comes
    return {}


def view(variable):
    tensor = tf.convert_to_tensor(variable.value)
    if tensor.dtype == tf.bfloat16:
        tensor = tf.bitcast(tensor, tf.uint16)
    if tensor.dtype == FLOAT8:  # which has no buffer, but an array that NumPy is given without a copy
        return np.asarray(tensor).view(np.uint8)
    return np.asarray(memoryview(tensor))  # tensor.numpy() would copy


def value_and_gradients(function, variables):
    watched = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for value in watched:
            tape.watch(value)
        loss, aux = function()
    gradients = tape.gradient(loss, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # convert_to_tensor sums IndexedSlices with unsorted_segment_sum: on CPU every row by one thread, in order.
    return (loss, aux), [tf.convert_to_tensor(gradient) for gradient in gradients]


def scan(function, carry, xs, y_dtype, updates):
    del updates  # the loop's body assigns variables itself
    leaves = tf.nest.flatten(xs)
    length = leaves[0].shape[0]
    if length is None:
        length = tf.shape(leaves[0])[0]
    if length == 1 and isinstance(length, int):  # a loop of one would only hide it from what optimizes graphs
        carry, y = function(carry, tf.nest.map_structure(lambda leaf: leaf[0], xs))
        return carry, None if y_dtype is None else y[None]
    ys = tf.TensorArray(y_dtype or tf.int32, size=length if y_dtype else 0)

    def body(index, carry, ys):
        carry, y = function(carry, tf.nest.map_structure(lambda leaf: tf.gather(leaf, index), xs))
        return index + 1, carry, ys if y_dtype is None else ys.write(index, y)

    _, carry, ys = tf.while_loop(
        lambda index, carry, ys: index < length,
        body,
        (tf.constant(0), carry, ys),
        parallel_iterations=1,
        maximum_iterations=length,
    )
    return carry, None if y_dtype is None else ys.stack()


def update_if(predicate, function, variables) -> None:
    del variables

    def update():
        function()
        return tf.constant(True)

    tf.cond(predicate, update, lambda: tf.constant(False))


def apply_gradients(optimizer, gradients, variables) -> None:
    optimizer.apply(gradients, variables)


def device_kind() -> str:
    return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"


def accelerator_name() -> str:
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return details.get("device_name", "gpu")


def accelerator_peak_memory_bytes() -> int:
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def start_profile(folder: str) -> None:
    tf.profiler.experimental.start(folder)


def stop_profile() -> None:
    tf.profiler.experimental.stop()
