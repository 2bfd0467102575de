"""A pytest-xdist worker that has grown ends after its file, and a fresh one takes the next.

What XLA compiles stays in a process until it ends: 17 MB for each function of TensorFlow's, whatever is collected or
cleared. One worker would end with 5 GB.
"""

import os
import re
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

# Files whose tests have Numba compile the same kernels, which one worker does once.
TOGETHER = re.compile(r"tests/models/test_cpu_\w+\.py")
MOST_MIB = 4000  # with TensorFlow and the modules of all tests a worker begins with 1000; a fresh one costs 25 s


def resident_mib(process="self"):
    """Memory of a process in MiB, shared libraries among it; 0 where the system does not tell, and nothing is done."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0


class FreshWorkers(LoadFileScheduling):
    """Gives files to workers; one above `MOST_MIB` gets no more of them, and a new one in its place does."""

    def _split_scope(self, nodeid):
        return TOGETHER.pattern if TOGETHER.match(nodeid) else super()._split_scope(nodeid)

    def _reschedule(self, node):
        if node not in self.registered_collections:  # a fresh one still collects; it gets work when it has done so
            return
        has_grown = self.assigned_work[node] and resident_mib(node.gateway._io.popen.pid) > MOST_MIB
        if self.workqueue and has_grown and not node.shutting_down:
            node.shutdown()  # after the tests that it has already
        else:
            super()._reschedule(node)


def replace(node, session):
    """Starts a worker in the place of one that ended, if there is work for it."""
    if isinstance(session.sched, FreshWorkers) and session.sched.workqueue:
        session._clone_node(node)
