"""Settings for the whole suite: one backend per process, quiet frameworks, no way out to the network.

Marks decide what a process loads. `-m jax` repeats the neutral tests with Keras on JAX; a process that may run oracles
loads torch before anything else, all others never do.
"""

import ctypes
import gc
import importlib
import importlib.util
import ipaddress
import os
import socket
import sys
import tempfile

import pytest
from fresh_workers import FreshWorkers, replace, resident_mib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


KEPT_MIB = 30
# What LLVM does for the speed of a program is half of the time that tiny ones take, and no part of the arithmetic that
# XLA states. Programs as users run them are those of TensorFlow's tests and of the processes of `-m process`.
COMPILED_AT_ONCE = "--xla_backend_optimization_level=0"
LONGEST = [
    "test_quick_variants.py",
    "test_cpu_decoder.py",
    "test_quantization.py",
    "test_loop.py",
    "test_generation.py",
    "test_job.py",
]
LONGEST += ["test_docs.py", "test_compilations.py", "test_wheel.py", "test_conf_trains.py", "test_gptq.py"]
LONGEST += ["test_keras_methods.py", "test_convert_quantized.py", "test_step.py", "test_check.py"]
ORACLES = {"keras_hub", "transformers", "peft", "torch"}
MARKED = {
    "process": ["mark.process"],
    "oracle": ["mark.oracle"],
    "jax": ["mark.neutral", "mark.experiments"],
    "harness": ["mark.harness"],
}  # what a file with such tests says


def pytest_configure(config):
    """Chooses the backend, and loads first what must be first: before any test module is imported."""
    chosen = config.option.markexpr
    if chosen.split()[:1] == ["jax"]:
        os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if os.environ["KERAS_BACKEND"] == "jax":
        os.environ.setdefault("XLA_FLAGS", COMPILED_AT_ONCE)
        _keep_compiled(config)
    if "not oracle" not in chosen:
        _load_torch_first()


def _keep_compiled(config):
    """A program is compiled once for all workers and modules, as a run keeps them for the next; half of the time."""
    from llama_exp import runtime

    if runtime.JAX_CACHE_FOLDER in os.environ:  # a worker's, from the process that started it; or the user's own
        return
    folder = tempfile.TemporaryDirectory(prefix="llama_exp-compiled-")
    config.add_cleanup(folder.cleanup)
    os.environ |= {runtime.JAX_CACHE_FOLDER: folder.name, **runtime.JAX_CACHE_LIMITS}


def _load_torch_first():
    """Torch, and triton where torch came with it: loaded after TensorFlow, triton's library ends the process (SIGSEGV).

    Torch loads it late, when transformers asks for a part of torch that needs it.
    """
    importlib.import_module("torch")
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton._C.libtriton")


def pytest_ignore_collect(collection_path, config):
    """Files without a test of the chosen kind are not imported: that takes each worker seconds."""
    marks = MARKED.get(config.option.markexpr.partition(" ")[0])
    if marks and collection_path.match("test_*.py"):
        text = collection_path.read_text(encoding="utf-8")
        return True if not any(mark in text for mark in marks) else None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker waits for one at the end. On JAX a neutral test is a repetition."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if os.environ["KERAS_BACKEND"] == "jax":
        for item in items:
            if item.get_closest_marker("neutral") and not item.get_closest_marker("slow"):
                item.add_marker("jax")


def pytest_collection_finish():
    """What is imported by now stays: a full collection would go through all of it, half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def oracles_are_marked(request):
    """A test that imports an oracle has the mark: without it torch would come after TensorFlow, and cost memory."""
    yield
    if not request.node.get_closest_marker("oracle") and "not oracle" in request.config.option.markexpr:
        assert ORACLES & set(sys.modules) == set(), "mark this test with pytest.mark.oracle"


@pytest.fixture(autouse=True, scope="module")
def the_next_module_finds_the_memory_free():
    """Models, traced functions and compiled programs of a module would stay until the process ends."""
    before = resident_mib()
    yield
    if resident_mib() - before < KEPT_MIB:  # clearing takes seconds
        return
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session(free_memory=False)
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files go to workers that stay small."""
    return FreshWorkers(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A worker that ended in peace because it had grown is replaced; pytest-xdist replaces one that crashed."""
    if error is None:
        node.ensure_teardown()  # its process would wait for the last test of all, and keep its memory
        replace(node, node.config.pluginmanager.getplugin("dsession"))


def _is_local(host):
    if host in ("localhost", "", None):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def loopback_only():
    """A test that reaches for another machine fails as it would without a network."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"the tests have no network: {address}")
        return connect(self, address)

    def guarded_look_up(host, *arguments, **options):
        if isinstance(host, bytes):
            host = host.decode()
        if not _is_local(host) and host != socket.gethostname():
            raise socket.gaierror(socket.EAI_NONAME, f"the tests have no network: {host}")
        return look_up(host, *arguments, **options)

    socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_look_up
    yield
    socket.socket.connect, socket.getaddrinfo = connect, look_up


@pytest.fixture(autouse=True)
def the_next_test_logs_nowhere():
    """A command that ran in this process leaves its log handler behind."""
    yield
    logs = sys.modules.get("llama_exp.console.logs")
    if logs is not None:
        logs.detach_console()


READERS = {"formats", "preset", "tokenizer", "test_json_file.py", "test_malformed.py", "test_resume.py"}
PROGRAMS = {"test_chat_template.py"}  # a chat template is a program, and has a process of its own


@pytest.fixture(autouse=True)
def reading_runs_no_code(request):
    """Files of formats, presets, tokenizers and earlier runs are data, whatever they hold."""
    parts = set(request.path.parts)
    if not READERS & parts or PROGRAMS & parts:
        yield
        return
    import audit

    audit.seen.clear()
    yield
    assert audit.seen == []
