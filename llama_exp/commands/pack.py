"""`llama-exp pack`: a run as one portable archive."""

from __future__ import annotations

from pathlib import Path

from llama_exp.commands.parser import Parser
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.shown_path import show_path
from llama_exp.reproduction.pack import pack
from llama_exp.results import load_run

SUFFIX = ".tar.gz"


def main(arguments: list[str]) -> int:
    """Writes the archive and says what is inside; returns the exit code."""
    options = _parser().parse_args(arguments)
    run = load_run(options.run)
    path = Path(options.to or f"{run.folder.name}{SUFFIX}").expanduser()
    if not path.name.endswith(SUFFIX):
        raise ConfigError(Problem("is no name for the archive", "--to", str(path), f"end it in {SUFFIX}"))
    sizes = pack(run, path, options.adapter, options.data)
    print(f"{show_path(path)}: {path.stat().st_size:,} bytes, {len(sizes)} files: {', '.join(sorted(sizes))}")
    print(f"reproduce it anywhere: llama-exp reproduce {path.name}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "pack",
        "Packs what somebody else needs to see what a run did and to do it again: config, versions, code,\n"
        "fingerprints of data, metrics, samples. Names of hosts, home folders and secrets are left out.",
        [
            "llama-exp pack outputs/default/latest",
            "llama-exp pack outputs/default/latest --adapter --data --to run.tar.gz",
            "llama-exp pack outputs/default/sweeps/2026-01-31_12-00-00/0_seed-1 --to seed1.tar.gz",
        ],
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--adapter", action="store_true", help="also the trained adapter (up to 1 GiB)")
    parser.add_argument("--data", action="store_true", help="also the data files that the config names (up to 256 MiB)")
    parser.add_argument("--to", metavar="FILE", help=f"the archive (default: <run>{SUFFIX} here)")
    return parser
