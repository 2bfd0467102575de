"""Declarative, reproducible Llama experiments on Keras 3.

Importing this package imports no framework: the configuration side must stay fast, and the Keras backend can
only be chosen before Keras is first imported. The model classes live in `llama_exp.models`.
"""

__version__ = "0.1.0"
