"""Declarative, reproducible Llama experiments on Keras 3.

    from llama_exp import compose, train, load_run, load_sweep      what a notebook needs

Importing this package imports no framework, and nothing else of its own: the configuration side must stay fast, and the
Keras backend can only be chosen before Keras is first imported. The model classes live in `llama_exp.models`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_exp.notebook import compose, load_run, load_sweep, train

__version__ = "0.1.0"
__all__ = ["compose", "load_run", "load_sweep", "train"]


def __getattr__(name: str) -> Any:
    """What a notebook needs, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llama_exp import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
