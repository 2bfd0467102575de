"""The TensorFlow half of `llama_exp.backend`; documented there."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import tensorflow as tf

ALIGNMENT_BYTES = 64


def compiled(function, reads, writes, jit: bool):
    del reads, writes  # a graph refers to variables themselves
    graph = tf.function(function, jit_compile=jit, autograph=False)

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


def adopt(array):
    if array.ctypes.data % ALIGNMENT_BYTES or not array.flags.writeable or not array.flags.c_contiguous:
        return tf.convert_to_tensor(array)
    if array.dtype == ml_dtypes.bfloat16:  # NumPy cannot pass it on; two plain bytes it can
        return tf.bitcast(adopt(array.view(np.uint16)), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # convert_to_tensor would copy


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


def softmax_cross_entropy(logits_MV, labels_M):
    return tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits_MV, labels=labels_M)


def device_kind() -> str:
    return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"


def accelerator_name() -> str:
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return details.get("device_name", "gpu")


def accelerator_peak_memory_bytes() -> int:
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
