"""Reports on runs and sweeps: rankings, intervals over seeds, paired comparisons, curves, cost, in several formats.

    make_report(load_runs(folders), Options())   the content, as plain data (contents.py)

Imports no framework.
"""

from llama_exp.report.contents import Options, Report
from llama_exp.report.make import make_report

__all__ = ["Options", "Report", "make_report"]
