"""Settings for the whole suite: one backend per process, quiet frameworks, no way out to the network."""

import ipaddress
import os
import socket
import sys

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


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


@pytest.fixture(autouse=True)
def reading_runs_no_code(request):
    """Files of formats, presets, tokenizers and earlier runs are data, whatever they hold."""
    if request.path.name == "test_chat_template.py":  # a template is a program, and runs in a process of its own
        yield
        return
    readers = {"formats", "preset", "tokenizer", "test_json_file.py", "test_malformed.py", "test_resume.py"}
    if not readers & set(request.path.parts):
        yield
        return
    import audit

    audit.seen.clear()
    yield
    assert audit.seen == []


def pytest_collection_modifyitems(items):
    """The longest test first, so that the other process does the rest meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_jax.py")
