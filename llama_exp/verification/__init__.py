"""Whether what is computed is right: a user's own configuration against itself, and a model against a reference.

    parity       every layer against a NumPy forward pass from the same files
    invariances  a training step against the same step computed another way
    resumption   a run that was stopped and continued against one that was not

The commands that do it are in `llama_exp.commands.verify`.
"""
