"""Plug-ins for Hydra: sweeps whose jobs have processes of their own.

Hydra imports these modules at each start of each application, so that they import nothing else before they are used.
"""
