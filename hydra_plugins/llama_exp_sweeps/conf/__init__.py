"""YAML that each Hydra application finds behind its own."""
