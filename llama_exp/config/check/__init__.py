"""The configuration's frontier: before it only data, behind it a typed `Config`. Imports no framework.

    check_arguments   a command line -> every mistake at once (ConfigError), or what Hydra may run
    to_config         a composed config -> `Config`
    config_hash       `Config` -> which experiment it is
    to_dict           `Config` or section -> plain data

Hydra composes untyped, because it would stop at the first mistake; the types of
llama_exp/config/schema.py are applied here.
"""

from llama_exp.config.check.command_line import Command, check_arguments
from llama_exp.config.check.resolve import to_config
from llama_exp.config.conf_folder import CONF
from llama_exp.config.identity import config_hash, to_dict

__all__ = ["CONF", "Command", "check_arguments", "config_hash", "to_config", "to_dict"]
