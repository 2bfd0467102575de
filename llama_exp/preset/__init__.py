"""Where pre-trained weights come from: a built-in id, Kaggle, Hugging Face, a folder or a file. Imports no framework.

`resolve` turns a `preset.source` into a local folder or `.gguf` file, or fails within seconds with the reason and the
ways out. `PRESETS` is the table of what Keras publishes.
"""

from llama_exp.preset.resolved import Resolved
from llama_exp.preset.source import at_revision, resolve
from llama_exp.preset.table import PRESETS, Preset, context_length, find_name

__all__ = ["PRESETS", "Preset", "Resolved", "at_revision", "context_length", "find_name", "resolve"]
