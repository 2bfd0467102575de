"""Models on disk: KerasHub presets, Hugging Face checkpoints, GGUF files, adapters. Imports no framework."""
