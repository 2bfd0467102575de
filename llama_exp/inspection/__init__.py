"""What training changed in the weights: singular values of the change of each matrix. NumPy only, no framework."""

from llama_exp.inspection.measure import Measured, Options, measure_update
from llama_exp.inspection.record import write_update
from llama_exp.inspection.terminal import show_update
from llama_exp.inspection.update import MatrixUpdate, Update

__all__ = ["MatrixUpdate", "Measured", "Options", "Update", "measure_update", "show_update", "write_update"]
