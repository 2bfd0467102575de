"""Writes the golden files anew: python tests/renew_goldens.py. Read the difference before you commit it."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import golden_dumps  # noqa: E402 - after the settings that it depends on


def main():
    texts = {name: golden_dumps.config_text(overrides) for name, overrides in golden_dumps.config_choices().items()}
    texts |= {name: golden_dumps.explained_text(name) for name in golden_dumps.EXPLAINED}
    texts |= {name: golden_dumps.variables_text(name) for name in golden_dumps.VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        texts[golden_dumps.REPORT] = golden_dumps.report_text(Path(folder))
    golden_dumps.FOLDER.mkdir(exist_ok=True)
    for path in golden_dumps.FOLDER.glob("*.txt"):
        path.unlink()
    for name, text in texts.items():
        golden_dumps.path_of(name).write_text(text)
    print(f"{len(texts)} files in {golden_dumps.FOLDER}; read `git diff` before you commit them")


if __name__ == "__main__":
    main()
