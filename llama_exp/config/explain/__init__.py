"""Why the keys of a command line have their values: file and line, argument, or what they were filled in from.

    explain(words)      the keys of a command line, at each point of a sweep
    Explanation         of one key

Imports no framework.
"""

from llama_exp.config.explain.command import Explained, Point, explain
from llama_exp.config.explain.explanation import Explanation
from llama_exp.config.explain.settings import Place, Setting

__all__ = ["Explained", "Explanation", "Place", "Point", "Setting", "explain"]
