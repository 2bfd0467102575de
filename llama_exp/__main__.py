"""`python -m llama_exp`: what the console script `llama-exp` does."""

from llama_exp.cli import main

if __name__ == "__main__":
    main()
