"""Times how long a model takes from disk into memory, and how much memory that needs, beside KerasHub's own loader.

    python benchmarks/load.py [--runs 3] [--backends tensorflow jax] [--folder /tmp]

Makes a Llama of about 1 GB (float32) in KerasHub's and in Hugging Face's format and loads each in fresh processes, in
turn. `read` is a plain sequential read of the same files in Python, `path.read_bytes()`, which like a loader ends with
all bytes in new memory; `scan` reads them through one small buffer and keeps nothing, which no loader can do. All files
are in the page cache, and before each measurement another process touches more memory than it needs: a virtual machine
that has to ask its host for pages first gives them at a tenth of the speed. Peak memory is what a process needed above
its imports, as a multiple of the files' size. `convert` writes the other format; its limit is 600 MB whatever the
model's size.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = dict(
    vocabulary_size=16384,
    num_layers=5,
    num_query_heads=16,
    hidden_dim=2048,
    intermediate_dim=5632,
    num_key_value_heads=4,
)
FORMATS = ("keras_hub", "hugging_face")
SCAN_BYTES = 8 << 20
TOUCHED_BYTES = 5 << 30
LLAMA_EXP = [sys.executable, "-m", "llama_exp"]


def make_models(folder):
    """The same random weights in both formats; one tensor in memory at a time."""
    from llama_exp.architecture import DEFAULTS, variable_shapes
    from llama_exp.formats import writing
    from llama_exp.formats.checkpoint import Tensor
    from llama_exp.formats.hugging_face import checkpoint as hugging_face
    from llama_exp.formats.keras_hub import checkpoint as keras_hub

    def tensor(index, shape):
        def read(dtype):
            return np.random.default_rng(index).standard_normal(shape, "float32")

        return Tensor(shape, np.dtype("float32"), "random", read)

    config = DEFAULTS | CONFIG
    tensors = {path: tensor(i, shape) for i, (path, shape) in enumerate(variable_shapes(config).items())}
    for name, module in (("keras_hub", keras_hub), ("hugging_face", hugging_face)):
        with writing(folder / name) as draft:
            module.write(draft, config, tensors)


def peak_bytes(who=resource.RUSAGE_SELF):
    return resource.getrusage(who).ru_maxrss * 1024


def weight_files(folder):
    return [path for path in folder.iterdir() if path.suffix in (".h5", ".safetensors")]


def child(what, folder):
    """One measurement, in a process of its own; prints it as JSON."""
    load, who = LOADERS[what], resource.RUSAGE_CHILDREN if what == "convert" else resource.RUSAGE_SELF
    if what == "convert":
        subprocess.run([*LLAMA_EXP, "convert", "--help"], check=True, stdout=subprocess.DEVNULL)
    elif what in ("ours", "keras_hub"):
        import keras

        if what == "ours":
            import llama_exp.formats.hugging_face.checkpoint
            import llama_exp.models.weights  # noqa: F401
        else:
            import keras_hub  # noqa: F401
        keras.ops.convert_to_numpy(keras.ops.zeros(1))  # the backend starts with its first operation
    before, started = peak_bytes(who), time.perf_counter()
    loaded = load(folder)
    seconds = time.perf_counter() - started
    del loaded
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(who) - before}))


def load_ours(folder):
    from llama_exp.models import LlamaBackbone

    return LlamaBackbone.from_preset(folder)


def load_theirs(folder):
    import keras_hub

    return keras_hub.models.Backbone.from_preset(str(folder))


def read_all(folder):
    return [path.read_bytes() for path in weight_files(folder)]


def scan_all(folder):
    buffer = bytearray(SCAN_BYTES)
    for path in weight_files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def convert(folder):
    target = "hf" if folder.name == "keras_hub" else "keras_hub"
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        arguments = ["--from", str(folder), "--to", f"{place}/model", "--format", target, "--offline"]
        done = subprocess.run([*LLAMA_EXP, "convert", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)


LOADERS = {"read": read_all, "scan": scan_all, "ours": load_ours, "keras_hub": load_theirs, "convert": convert}


def touch_memory():
    """Makes the machine have `TOUCHED_BYTES` of memory at hand."""
    subprocess.run([sys.executable, "-c", f"import numpy; numpy.ones({TOUCHED_BYTES}, 'uint8')"], check=True)


def measure(what, folder, backend):
    touch_memory()
    command = [sys.executable, __file__, "--child", what, str(folder)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{what} of {folder} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(results, sizes):
    table = Table(title="Loading a model: medians over fresh processes")
    for name in ("format", "loader", "seconds", "GB/s", "of read", "peak MB", "peak / file"):
        table.add_column(name, justify="left" if name in ("format", "loader") else "right", no_wrap=True)
    for (name, what, backend), runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        peak = statistics.median(run["peak_bytes"] for run in runs)
        read = statistics.median(run["seconds"] for run in results[name, "read", "tensorflow"])
        loader = f"{what}, {backend}" if what in ("ours", "keras_hub") else what
        speeds = f"{sizes[name] / seconds / 1e9:.2f}", f"{read / seconds:.0%}"
        table.add_row(name, loader, f"{seconds:.2f}", *speeds, f"{peak / 1e6:.0f}", f"{peak / sizes[name]:.2f}")
    Console(width=100).print(table)


def main():
    """Makes the models, measures all cases in turn, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backends", nargs="+", choices=["tensorflow", "jax"], default=["tensorflow"])
    parser.add_argument("--loaders", nargs="+", choices=list(LOADERS), default=list(LOADERS), help="always with read")
    parser.add_argument("--folder", type=Path, help="where 4 GB are free; default: the system's temporary folder")
    parser.add_argument("--child", nargs=2, metavar=("LOADER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.loaders = {"read", *options.loaders}
    if options.child:
        return child(options.child[0], Path(options.child[1]))
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        make_models(Path(place))
        sizes = {name: sum(file.stat().st_size for file in weight_files(Path(place, name))) for name in FORMATS}
        cases = [
            ("read", "tensorflow"),
            ("scan", "tensorflow"),
            *((what, b) for what in ("ours", "keras_hub") for b in options.backends),
        ]
        cases.append(("convert", "tensorflow"))
        cases = [case for case in cases if case[0] in options.loaders]
        results = {(name, *case): [] for name in FORMATS for case in cases}
        for _ in range(options.runs):
            for (name, what, backend), runs in results.items():
                runs.append(measure(what, Path(place, name), backend))
        show(results, sizes)


if __name__ == "__main__":
    main()
