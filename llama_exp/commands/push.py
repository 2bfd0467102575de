"""`llama-exp push`: what a run has left, or a folder with a model, to Hugging Face or Kaggle."""

from __future__ import annotations

from rich.console import Console

from llama_exp.commands.parser import Parser
from llama_exp.console import logs
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import printable
from llama_exp.files.shown_path import show_path
from llama_exp.preset import outgoing, push_hugging_face, push_kaggle

_SCHEMES = {"hf://": push_hugging_face, "kaggle://": push_kaggle}


def main(arguments: list[str]) -> int:
    """Sends, or shows what would be sent; returns the exit code."""
    options = _parser().parse_args(arguments)
    logs.attach_console()
    _require(options)
    scheme = options.to[: options.to.find("//") + 2]
    place = _SCHEMES[scheme].destination(options.to)
    found, console = outgoing.look(options.source), Console(stderr=True)

    def tell(text: str) -> None:
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    for line in _lines(found):
        tell(line)
    tell(f"to {place.page}" + (f" at {options.revision}" if options.revision else ""))
    if scheme == "hf://":
        kind = "private" if options.private else "public: everybody can read it"
        tell(f"a repository that is not there yet is made {kind}")
    if options.dry_run:
        tell("nothing was sent (--dry-run)")
        return 0
    message = options.message or f"{found.kind} by llama_exp"
    if scheme == "hf://":
        how = push_hugging_face.Options(options.private, options.revision, message)
        address = push_hugging_face.push(found, place, how, tell)
    else:
        address = push_kaggle.push(found, place, message, tell)
    print(address)
    return 0


def _lines(found: outgoing.Outgoing) -> list[str]:
    """What will be sent, a line each."""
    width = max(map(len, found.sizes))
    lines = [f"{found.kind} in {show_path(found.folder)}"]
    lines += [f"  {name:<{width}}  {size:>16,} bytes" for name, size in found.sizes.items()]
    lines.append(f"  {f'{len(found.sizes)} files':<{width}}  {sum(found.sizes.values()):>16,} bytes")
    if not found.has_card:
        lines.append(f"  no {outgoing.CARD}: people will not see what it is; convert and merge write one")
    else:
        lines.append(f"  {outgoing.CARD} goes along: it has the command line, the data's name and the figures")
    return lines


def _require(options) -> None:
    """Raises ConfigError where the command line contradicts itself."""
    problems = []
    if not options.to.startswith(tuple(_SCHEMES)):
        action = f"write {push_hugging_face.FORM} or {push_kaggle.FORM}"
        problems.append(Problem("not a place to send a model to", "TO", options.to, action))
    for name in ("private", "revision"):
        if options.to.startswith("kaggle://") and getattr(options, name):
            what = "Kaggle has no such choice: its models begin private, and it counts versions itself"
            problems.append(Problem(what, f"--{name}", str(getattr(options, name)), "leave it out"))
    if problems:
        raise ConfigError(*problems)


def _parser() -> Parser:
    parser = Parser(
        "push",
        "Sends a finished run's model/ or adapter/, or a folder that convert or merge has written, by the libraries'\n"
        "own upload. Shows first what will be sent. Needs a token, asks nothing, and sends nothing else.",
        [
            "llama-exp push outputs/default/<run> hf://me/my-adapter --private",
            "llama-exp push merged hf://me/my-model --revision trial --message 'rank 8, 300 steps'",
            "llama-exp push merged kaggle://me/my-model/keras/rank8",
            "llama-exp push merged hf://me/my-model --dry-run",
        ],
    )
    parser.add_argument("source", metavar="RUN|FOLDER", help="a run's folder, or one with a model or an adapter")
    parser.add_argument("to", metavar="TO", help=f"{push_hugging_face.FORM} or {push_kaggle.FORM}")
    parser.add_argument("--private", action="store_true", help="hf: only you can read a repository that is made")
    parser.add_argument("--revision", metavar="BRANCH", help="hf: branch, made if need be (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="of the commit or the version (default: what it is)")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent; asks no server")
    return parser
