"""Writes docs/reference/keras_hub_contract.md anew: python tests/renew_contract.py. Takes two minutes."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import keras_hub_contract as contract  # noqa: E402 - after the settings that it depends on


def main():
    with tempfile.TemporaryDirectory() as folder:
        both = contract.libraries(Path(folder) / "preset")
        outcomes = [contract.outcome(row, both) for row in contract.CONTRACT]
    contract.PAGE.write_text(contract.render(outcomes))
    print(contract.render_counts(outcomes))


if __name__ == "__main__":
    main()
