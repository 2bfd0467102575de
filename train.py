"""Trains the model that the configuration describes: python train.py [<part>=<choice> | <key>=<value> ...]."""

from llama_exp.train import main

if __name__ == "__main__":
    main()
