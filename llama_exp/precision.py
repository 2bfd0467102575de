"""Types of variables and computation, as Keras dtype policies. Imports no framework before it is used.

policy           variables   products   for
float32          float32     float32    the reference
mixed_bfloat16   float32     bfloat16   speed, without losing small updates
bfloat16         bfloat16    bfloat16   half the memory; for frozen weights and inference
mixed_float16    float32     float16    older accelerators; needs loss scaling

What is computed and kept in which type (f32, bf16, f16):

                                            float32   bfloat16   mixed_bfloat16   mixed_float16
variables of the base                       f32       bf16       f32              f32
adapters' variables (LoRA), over any base   f32       f32        f32              f32
products, adapters' included                f32       bf16       bf16             f16
hidden states between layers                f32       bf16       bf16             f16
norms                                       f32       f32        f32              f32
RoPE angles, sines and cosines; rotation    f32       f32        f32              f32
RoPE tables that every block reads          f32       bf16       bf16             f16
softmax of the attention scores             f32       f32        f32              f32
SiLU and the product with its gate          f32       f32        f32              f32
logits once multiplied, softmax, loss       f32       f32        f32              f32
gradients, in products                      f32       bf16       bf16             f16 (of logits: f32)
gradients, summed and clipped               f32       f32        f32              f32
every optimizer's state and update          f32       f32        f32              f32
quantization: scales, rounding of rows      f32       f32        f32              f32 (int4; others refused)

A line of f32 reads operands and rounds its result in the type of the hidden states: what lies between is float32. Sums
over micro-batches are float32. Weights in bfloat16 are updated in float32 and rounded when they are written, so that
small updates are lost: train them with mixed_bfloat16, or adapters above them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llama_exp import recipe
from llama_exp.limits import choose
from llama_exp.limits.precision import Policy


def policy(policy: Policy | str):
    """The `keras.DTypePolicy` of that name.

    Raises:
        ValueError: there is none of that name.
    """
    import keras

    return keras.DTypePolicy(choose(Policy, policy, "precision.policy").value)


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
    return keras.optimizers.LossScaleOptimizer(
        optimizer,
        initial_scale=recipe.LOSS_SCALE["initial"],
        dynamic_growth_steps=recipe.LOSS_SCALE["growth_steps"],
    )


def doubts(compute_dtype: str, device_kind: str, optimizer_variables: Iterable) -> Iterator[str]:
    """What a person should know about the types of a run: it works, but hardly as it was meant.

    Args:
        compute_dtype: of the model's products.
        device_kind: see `backend.device_kind`.
        optimizer_variables: of the built optimizer.
    """
    if compute_dtype == "float16" and device_kind == "cpu":
        yield "CPUs have no fast float16 products: precision=float32 or mixed_bfloat16 is faster, without a loss scale"
    if narrow := sorted({variable.dtype for variable in optimizer_variables} & {"bfloat16", "float16"}):
        yield (
            f"the optimizer keeps its state in {narrow[0]}, in which small updates and slow averages stand still: use "
            "optimizer=adamw, whose state is float32, or precision=mixed_bfloat16"
        )
