"""No file that is read may run code: what the interpreter reports (PEP 578) while `llama_exp` is on the stack."""

import sys
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parents[1] / "llama_exp")
CODE_RUNNING = {
    "pickle.find_class",
    "marshal.loads",
    "exec",
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
}
# Importing a module, and dataclasses and named tuples at import time, run code of the machine's own files.
OWN_FILES = ("<frozen importlib", "/dataclasses.py", "/collections/__init__.py", "/typing.py", "/ctypes/")

seen = []


def _hook(event, arguments):
    if event not in CODE_RUNNING:
        return
    frame, files = sys._getframe(1), []
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    # The frames between the event and the package's nearest one tell who asked for it.
    nearest = next((index for index, file in enumerate(files) if file.startswith(PACKAGE)), None)
    if nearest is not None and not any(name in file for file in files[:nearest] for name in OWN_FILES):
        seen.append((event, files[nearest]))


sys.addaudithook(_hook)
