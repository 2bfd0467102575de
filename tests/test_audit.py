import pickle
import types

import audit
import pytest


def in_package(code, **names):
    """Runs a line as if it stood in a file of the package."""
    exec(compile(code, f"{audit.PACKAGE}/formats/x.py", "exec"), names)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ("pickle.find_class", "pickle.loads(data)"),
        ("exec", "eval('1 + 1')"),
        ("os.system", "os.system('true')"),
        ("subprocess.Popen", "subprocess.run(['true'])"),
    ],
)
def test_the_hook_sees(event, code):
    import os
    import subprocess

    audit.seen.clear()
    in_package(code, pickle=pickle, os=os, subprocess=subprocess, data=pickle.dumps(types.SimpleNamespace()))
    assert event in [name for name, _ in audit.seen]


def test_the_hook_ignores_imports_and_other_peoples_code():
    audit.seen.clear()
    in_package("import wave")
    pickle.loads(pickle.dumps(types.SimpleNamespace()))
    eval("1 + 1")
    assert audit.seen == []
