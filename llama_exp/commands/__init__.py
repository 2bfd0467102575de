"""What `llama-exp <command>` does beside training, a module for each; `main(arguments)` returns the exit code."""
