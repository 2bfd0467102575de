"""Backend, threads and cache folder, set before Keras is imported. Imports no framework itself.

Thread counts reach the frameworks through their environment: TensorFlow's two pools (its oneDNN kernels run on the
first), XLA's pool in JAX, Numba's for decoding on a CPU, and OpenMP for what else uses it. Results on CPU are the same
bits for the same number of threads; another number splits sums differently.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from llama_exp.errors import ConfigError, Problem
from llama_exp.files.home import require_home
from llama_exp.files.writing import FOLDER_MODE, storage_errors
from llama_exp.limits import choose
from llama_exp.limits.runtime import LIMITS, Backend, Jit

THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "PJRT_NPROC",
    "NPROC",
    "NUMBA_NUM_THREADS",
)
# Every program is kept, however small or quick to compile. JAX reads these when it is imported.
JAX_CACHE_FOLDER = "JAX_COMPILATION_CACHE_DIR"
JAX_CACHE_LIMITS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_log = logging.getLogger(__name__)


def start(*, backend: str, jit: str, threads: int, cache_dir: str) -> None:
    """Prepares the process for a run; must come before anything imports Keras.

    Args:
        backend: tensorflow or jax.
        jit: auto, true or false; what `auto` means is decided when the model's dtype is known (`backend.resolve_jit`).
        threads: of the frameworks' pools; 0: as many as this process may use.
        cache_dir: created, so that an impossible place is told before minutes of work. What JAX compiles is kept below
            it for later processes, unless `JAX_COMPILATION_CACHE_DIR` is set; a damaged entry is compiled anew.

    Raises:
        ConfigError: Keras is already imported with another backend.
        ValueError: an impossible argument.
        StorageError: `cache_dir` cannot be made, or the user has no home.
    """
    choose(Backend, backend, "runtime.backend")
    choose(Jit, jit, "runtime.jit")
    LIMITS.require(threads=threads, cache_dir=cache_dir)
    require_home()
    count, cache_folder = thread_count(threads), Path(cache_dir).expanduser()
    if "keras" in sys.modules:
        _check_running(backend, str(count))
    else:
        os.environ.update(find_environment(backend, count, cache_dir))
    if backend == Backend.jax.value and jit == Jit.false.value:
        _log.warning("runtime.jit=false on JAX runs every operation by itself: many times slower, for debugging only")
    with storage_errors(cache_folder, lambda error: _no_cache(cache_folder, error)):
        cache_folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)


def default_cache_dir() -> str:
    """`runtime.cache_dir` where nobody says otherwise: the variable LLAMA_EXP_CACHE, else a folder of the user's."""
    return os.environ.get("LLAMA_EXP_CACHE", "~/.cache/llama_exp")


def _no_cache(folder: Path, error: OSError) -> Problem:
    action = "choose a folder that this user may write: runtime.cache_dir=<folder>, or the variable LLAMA_EXP_CACHE"
    return Problem("the cache cannot be made", "runtime.cache_dir", f"{folder}: {error.strerror or error}", action)


def find_environment(backend: str, threads: int, cache_dir: str) -> dict[str, str]:
    """The variables that frameworks must find when they are imported; those that the user has set stay as they are.

    Args:
        backend: tensorflow or jax.
        threads: at least 1.
        cache_dir: what JAX compiles is kept below it.
    """
    variables = {"KERAS_BACKEND": backend, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    # Without a GPU TensorFlow's libraries print an error about the missing driver, and hints about the build.
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    # The user's own cache, or none if empty, with the user's limits.
    if backend == Backend.jax.value and JAX_CACHE_FOLDER not in os.environ:
        defaults |= {JAX_CACHE_FOLDER: str(Path(cache_dir).expanduser().absolute() / "jax"), **JAX_CACHE_LIMITS}
    return variables | {name: value for name, value in defaults.items() if name not in os.environ}


def import_backend() -> None:
    """Imports Keras and its backend, keeping what their libraries print at start-up off the terminal.

    TensorFlow's C++ side writes build hints to the file descriptor of standard error before any of its log settings
    count. If the import fails, they are shown.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            importlib.import_module("llama_exp.backend")
        except Exception:
            chatter.seek(0)
            os.write(saved, chatter.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def thread_count(threads: int) -> int:
    """The number of threads that `runtime.threads` means: itself, or for 0 the processors this process may use."""
    LIMITS.require(threads=threads)
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_running(backend: str, count: str) -> None:
    """A process has one backend; a second run in it (a sweep's next job) must want the same."""
    running = sys.modules["keras"].config.backend()
    if running != backend:
        raise ConfigError(
            Problem(
                f"this process already runs Keras on {running}",
                "runtime.backend",
                backend,
                f"start a process of its own for it (a notebook: restart the kernel), or set runtime.backend={running}",
            )
        )
    if os.environ.get(THREAD_VARIABLES[0], count) != count:
        _log.warning("runtime.threads=%s has no effect: this process already started its threads", count)
