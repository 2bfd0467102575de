"""What a model can do, in figures: losses on named sets, tasks with one right answer, texts that it writes.

    sets     name -> data set       loss, perplexity, bits per byte
    tasks    name -> `_target_`     MultipleChoice, Generation, PythonChoices, Harness, or a class of the user's own

The classes that a config names stand here; they import no framework.
"""

from llama_exp.evaluation.generation import Generation
from llama_exp.evaluation.harness import Harness
from llama_exp.evaluation.multiple_choice import MultipleChoice
from llama_exp.evaluation.python_choices import PythonChoices

__all__ = ["Generation", "Harness", "MultipleChoice", "PythonChoices"]
