"""`llama-exp schema`: the configuration as a JSON schema, with which editors complete and check YAML."""

from __future__ import annotations

import json
from pathlib import Path

from llama_exp.commands.parser import Parser
from llama_exp.config.check.typed import list_sections
from llama_exp.config.reference import json_schema
from llama_exp.files.writing import write_text


def main(arguments: list[str]) -> int:
    """Prints or writes the schema; returns the exit code."""
    parser = Parser(
        "schema",
        "A JSON schema of the YAML files: editors complete keys, explain them and mark mistakes.\n"
        "Name it in the first line of a file:  # yaml-language-server: $schema=<path of the schema>",
        ["llama-exp schema --write llama_exp.schema.json", "llama-exp schema --part model --write model.schema.json"],
    )
    part_help = f"of the files in conf/<part>/, one of {', '.join(list_sections())}; default: of an experiment"
    parser.add_argument("--part", metavar="PART", choices=list_sections(), help=part_help)
    parser.add_argument("--write", metavar="FILE", help="into this file instead of the terminal")
    options = parser.parse_args(arguments)
    text = json.dumps(json_schema(options.part), indent=2) + "\n"
    if options.write is None:
        print(text, end="")
    else:
        write_text(Path(options.write).expanduser(), text)
    return 0
