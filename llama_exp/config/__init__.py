"""The frontier: before it only data, behind it a typed `Config`. Imports no framework.

schema        one dataclass per part: keys, types, units, meanings
check/        a command line -> every mistake at once, or what Hydra may run
identity      a config as plain data, and the hash that names the experiment
instantiate   a section with a `_target_` -> the object that it names
"""
