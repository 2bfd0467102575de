"""Types of variables and computation, as Keras dtype policies. Imports no framework before it is used.

policy           variables   products   for
float32          float32     float32    the reference
mixed_bfloat16   float32     bfloat16   speed, without losing small updates
bfloat16         bfloat16    bfloat16   half the memory; for frozen weights and inference
mixed_float16    float32     float16    older accelerators; needs loss scaling
"""

from __future__ import annotations

POLICIES = ("float32", "bfloat16", "mixed_bfloat16", "mixed_float16")


def policy(policy: str):
    """The `keras.DTypePolicy` of that name.

    Raises:
        ValueError: the name is not one of `POLICIES`.
    """
    import keras

    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is not supported. Choose one of {', '.join(POLICIES)}.")
    return keras.DTypePolicy(policy)


def wrap_optimizer(optimizer, policy):
    """`optimizer`, with dynamic loss scaling around it where `policy` computes in float16.

    Gradients below 6e-8 vanish in float16. The wrapper multiplies the loss (through `scale_loss`) by a factor that it
    adapts, divides the gradients again, and skips a step whose gradients are not finite (Micikevicius et al. 2018,
    arXiv:1710.03740).

    Args:
        optimizer: a `keras.optimizers.Optimizer`.
        policy: a `keras.DTypePolicy`.
    """
    import keras

    if policy.compute_dtype != "float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
