"""Where the YAML files lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def find_conf(package: Path) -> Path:
    """The folder `conf`: inside an installed package, beside the package in a checkout.

    Args:
        package: folder of llama_exp.
    """
    # Inside comes first: beside an installed package lies the `conf` of any other project that installs one.
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


CONF = find_conf(Path(str(resources.files("llama_exp"))))
