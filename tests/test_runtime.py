"""What is set before Keras is imported, and that threads and bits follow from it."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from llama_exp import cli, runtime
from llama_exp.errors import ConfigError, StorageError

ROOT = Path(__file__).parents[1]


def python(program, **environment):
    clean = {key: value for key, value in os.environ.items() if key not in (*runtime.THREAD_VARIABLES, "KERAS_BACKEND")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.process
def test_importing_it_imports_no_framework():
    result = python("import sys, llama_exp.runtime; print({'keras', 'tensorflow', 'jax'} & set(sys.modules))")
    assert result.stdout.strip() == "set()"


@pytest.mark.process
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_backend_and_threads_take_effect(tmp_path, backend):
    program = f"""
import resource, sys, time
from llama_exp import cli, runtime
runtime.start(backend="{backend}", jit="auto", threads=1, cache_dir={str(tmp_path / "a/b")!r})
import keras, numpy as np
from keras import ops
from llama_exp import backend
call = backend.compiled(lambda x: ops.matmul(ops.matmul(x, x), x), [], [], jit={backend == "jax"})
x = np.ones((900, 900), "float32")
ops.convert_to_numpy(call(x))
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
c, t = cpu(), time.perf_counter()
for _ in range(10):
    ops.convert_to_numpy(call(x))
print(keras.backend.backend(), (cpu() - c) / (time.perf_counter() - t), "tensorflow" in sys.modules)
"""
    result = python(program)
    assert result.returncode == 0, result.stderr
    name, used, has_tensorflow = result.stdout.split()
    assert name == backend and float(used) < 1.3
    assert has_tensorflow == str(backend == "tensorflow")
    assert (tmp_path / "a/b").is_dir()


def test_thread_count():
    assert runtime.thread_count(3) == 3
    assert runtime.thread_count(0) == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="runtime.threads.*threads=-1"):
        runtime.thread_count(-1)


def start(tmp_path, **changes):
    running = keras.backend.backend()
    runtime.start(**{"backend": running, "jit": "auto", "threads": 0, "cache_dir": str(tmp_path)} | changes)


def test_a_second_run_in_the_process(tmp_path, monkeypatch, caplog):
    start(tmp_path)
    with pytest.raises(ConfigError, match="already runs Keras"):
        start(tmp_path, backend="jax" if keras.backend.backend() == "tensorflow" else "tensorflow")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    start(tmp_path, threads=5)
    assert "runtime.threads=5 has no effect" in caplog.text


def test_impossible_arguments(tmp_path):
    with pytest.raises(ValueError, match="runtime.backend.*backend='torch'.*tensorflow, jax"):
        start(tmp_path, backend="torch")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/cache.*\n.*runtime.cache_dir=<folder>, or the variable LLAMA_EXP"):
        start(tmp_path, cache_dir=str(tmp_path / "file/cache"))


def test_a_user_without_a_home_is_told_which_variable_helps(tmp_path, monkeypatch, capsys):
    """A container that runs under a bare number."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(StorageError, match="set HOME to a folder"):
        start(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["presets"])
    assert stop.value.code == 4 and "set HOME to a folder" in capsys.readouterr().err
    monkeypatch.setenv("HOME", str(tmp_path))
    start(tmp_path)


COMPILING = """
from llama_exp import cli, runtime
runtime.start(backend="jax", jit="auto", threads=1, cache_dir={folder!r})
import jax, numpy as np
from keras import ops
from llama_exp import backend
events = []
jax.monitoring.register_event_listener(lambda event, **details: events.append(event))
call = backend.compiled(lambda x: ops.softmax(ops.sin(x) @ x), [], [], jit=True)
y = ops.convert_to_numpy(call(np.linspace(0, 1, 64, dtype="float32").reshape(8, 8)))
hits, misses = (events.count(f"/jax/compilation_cache/cache_{{kind}}") for kind in ("hits", "misses"))
print(y.tobytes().hex(), hits, misses)
"""


def compiling(folder, **environment):
    """Bits of a result, programs found in the cache, programs compiled."""
    result = python(COMPILING.format(folder=str(folder)), **environment)
    assert result.returncode == 0, result.stderr
    bits, hits, misses = result.stdout.split()
    return bits, int(hits), int(misses)


@pytest.mark.process
def test_a_second_process_on_jax_compiles_nothing(tmp_path):
    bits, hits, misses = compiling(tmp_path)
    assert hits == 0 and misses > 0
    assert compiling(tmp_path) == (bits, misses, 0)
    entries = list((tmp_path / "jax").rglob("*-cache"))
    assert len(entries) == misses
    for file in entries:
        file.write_bytes(b"damaged")
    assert compiling(tmp_path)[0] == bits


@pytest.mark.process
def test_the_users_own_jax_cache_stays(tmp_path):
    compiling(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / "ours/jax").exists()
