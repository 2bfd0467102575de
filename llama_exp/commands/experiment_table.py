"""The table of all experiments: what they claim, how many runs they take, and what is there already."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_exp.experiments.catalogue import Entry, find_there
from llama_exp.experiments.request import Request
from llama_exp.limits.protocol import Half

_LOOKS = {"confirmed": "green", "contradicted": "red"}

# What a reader may type next.
TRY = "llama-exp experiment {} --quick"


def show_experiments(entries: list[Entry], config_dir: str | None, console: Console) -> None:
    """Prints the table, and how to run one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("experiment", "claims", "stages", "runs", "quick", "here"):
        is_number = title in ("claims", "stages")
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for entry in entries:
        table.add_row(*_row(entry, config_dir))
    console.print(table)
    console.print("runs: of the first half, + of the half on a pre-trained model", style="dim")
    if sound := [entry.name for entry in entries if entry.protocol is not None]:
        console.print(Text(TRY.format(sound[0]), style="dim"))


def _row(entry: Entry, config_dir: str | None) -> list[Text]:
    name = Text(entry.name, style="bold")
    if entry.protocol is None:
        return [name, Text(""), Text(""), Text(""), Text(""), Text(entry.wrong or "", style="red")]
    if entry.protocol.title:
        name.append(f"\n{entry.protocol.title}", style="not bold")
    cells = [str(entry.num_claims), str(len(entry.protocol.stages)), _runs(entry, False), _runs(entry, True)]
    return [name, *map(Text, cells), _there(Request(entry.name, config_dir=config_dir))]


def _runs(entry: Entry, is_quick: bool) -> str:
    first, other = (entry.runs.get((half, is_quick), 0) for half in (Half.first, Half.pretrained))
    return f"{first} + {other}" if other else str(first)


def _there(request: Request) -> Text:
    """What is here of the experiment, else of its quick variant."""
    for is_quick in (False, True):
        found = find_there(Request(request.name, is_quick, config_dir=request.config_dir))
        if found is not None:
            standing, verdicts = found
            text = Text("quick: " if is_quick else "").append(str(standing))
            for claim, verdict in verdicts.items():
                text.append(f"\n{claim}: ").append(verdict, style=_LOOKS.get(verdict, "yellow"))
            return text
    return Text("nothing", style="dim")
