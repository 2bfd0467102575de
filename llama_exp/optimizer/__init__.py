"""Optimizers: what a step makes of the gradients.

    float32     what all share: float32 state and arithmetic, decay on matrices only, clipping in the same pass, factors
                on single variables' learning rates
    *_rule      one optimizer each, with its equation
    factories   what a YAML names

Why not Keras' own: in bfloat16 their update computes 1 - 0.999**u as 0 and never moves a weight, and a second moment
that changes by less than 2**-8 of itself stands still; they decay norm scales too.

Decay acts on every variable with two or more axes: projections, adapters and also the embeddings, as in the open
Llama and GPT trainers (nanoGPT, Lingua, torchtitan decay them too). Norm scales never decay.
"""

from llama_exp.optimizer.factories import adafactor, adamw, lion, muon, sgd
from llama_exp.optimizer.float32 import Float32Optimizer, sum_of_squares

__all__ = ["Float32Optimizer", "adafactor", "adamw", "lion", "muon", "sgd", "sum_of_squares"]
