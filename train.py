"""Trains the model that the configuration describes: python train.py [<part>=<choice> | <key>=<value> ...]."""

from llama_exp import signals

if __name__ == "__main__":
    with signals.orderly():  # before the import, which takes a hundred times as long
        from llama_exp.train_command import main

        main()
