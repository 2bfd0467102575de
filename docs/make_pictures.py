"""The pictures of README: what a terminal shows of `python train.py`, and the loss curve of that same run.

    python docs/make_pictures.py                          # the real ones: minutes
    python docs/make_pictures.py --to /tmp trainer.max_steps=40
    python docs/make_pictures.py --sweep                  # docs/pictures/sweep.svg, of a sweep of six jobs
    python docs/make_pictures.py --report SWEEP           # docs/pictures/report*, of a sweep that has finished

The command runs under a pseudo-terminal with an empty cache, as for somebody who runs it for the first time. What it
wrote is replayed on a small screen, whose last state becomes docs/pictures/terminal.svg; docs/pictures/loss.png is a
copy of the run's own picture. The folder of the clone is shown as ~/llama_exp.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, LINES = 110, 50
SWEEP = ["trainer=quick", "trainer.max_steps=40", "model.num_layers=1"]  # short: what it shows is the table
SWEEP += ["optimizer.learning_rate=1e-3,3e-3,1e-2", "seed=0,1", "hydra.launcher.n_jobs=2"]
SHOWN_SWEEP = "outputs/python_qa_lora/sweeps/2026-01-31_12-00-00"  # in place of where it lay
NUM_COLOURS = 96
PAGE_PIXELS = "1200,1500"  # width, height
# A control sequence of ECMA-48: parameters, then one letter that says what it does.
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
# Rich's own frame loads a font from the network; a picture in a repository should not.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>{lines}</defs>
<rect fill="#1c1f26" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_x})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Runs the command and writes both pictures."""
    parser = argparse.ArgumentParser(description="Makes the pictures of README from a real run.")
    parser.add_argument("--to", type=Path, default=PICTURES, help="folder of the pictures (default: docs/pictures)")
    parser.add_argument("--sweep", action="store_true", help="a sweep's table instead, half way and at the end")
    parser.add_argument("--report", type=Path, help="folder of a sweep: the pictures of a report on it instead")
    options, overrides = parser.parse_known_args()
    if options.report:
        _draw_report(options.to, options.report, overrides)
        return
    if options.sweep:
        _draw_sweep(options.to, overrides)
        return
    before = set(_runs())
    with tempfile.TemporaryDirectory() as cache:
        output, code = record([sys.executable, "train.py", *overrides], {"LLAMA_EXP_CACHE": cache})
    if code:
        sys.exit(f"the run ended with exit code {code}:\n{output}")
    (run,) = set(_runs()) - before
    options.to.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python train.py", *overrides])
    lines = screen(output.replace(str(ROOT), "~/llama_exp"), COLUMNS)
    (options.to / "terminal.svg").write_text(svg(command, lines), encoding="utf-8")
    shutil.copy(run / "loss.png", options.to / "loss.png")
    print(f"{options.to}: terminal.svg and loss.png of {run.relative_to(ROOT)}")


def _draw_sweep(to: Path, overrides: list[str]) -> None:
    """Runs a sweep and writes its picture: the table when half of its jobs are done, and what is told at the end."""
    arguments = ["-m", "name=ranks", *(overrides or SWEEP)]
    output, code = record([sys.executable, "train.py", *arguments], {})
    drawings = [match.start() for match in re.finditer("3 of 6 done", output)]
    if code or not drawings:
        sys.exit(f"the sweep ended with exit code {code}:\n{output}")
    end = output.find("\r\x1b[2K", drawings[len(drawings) // 2])  # where the next one begins
    table = [line for line in screen(output[:end], COLUMNS) if line.strip()]
    told = [line for line in screen(output, COLUMNS) if line.strip()]
    to.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python train.py", *arguments])
    (to / "sweep.svg").write_text(svg(command, [*table, "", *told]), encoding="utf-8")
    print(f"{to}: sweep.svg")


def _draw_report(to: Path, sweep: Path, arguments: list[str]) -> None:
    """Reports on a sweep, and keeps what the terminal shows and the pictures."""
    with tempfile.TemporaryDirectory() as made:
        words = ["report", str(sweep), *arguments]
        output, code = record([sys.executable, "-m", "llama_exp", *words, "--to", made, "--formats", "png,html"], {})
        if code:
            sys.exit(f"the report ended with exit code {code}:\n{output}")
        to.mkdir(parents=True, exist_ok=True)
        _photograph(Path(made) / "report.html", Path(made) / "page.png")
        for picture in Path(made).glob("*.png"):
            image = Image.open(picture).convert("RGB").quantize(NUM_COLOURS)  # a third of the size
            image.save(to / f"report_{picture.name}", optimize=True)
    shown = [line for line in screen(output, COLUMNS) if not line.startswith("written: ")]
    command = shlex.join(["llama-exp", "report", SHOWN_SWEEP, *arguments])
    (to / "report.svg").write_text(svg(command, shown), encoding="utf-8")
    print(f"{to}: report.svg and report_*.png of {sweep}")


def _photograph(page: Path, picture: Path) -> None:
    """The upper part of a page, as Chromium shows it."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={PAGE_PIXELS}")
    command = ["chromium", *options, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def record(command: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """What a command writes to a terminal of COLUMNS columns, control sequences included, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    settings = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | settings | environment
    )
    os.close(theirs)
    pieces = []
    try:
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(ours)
    return b"".join(pieces).decode("utf-8", "replace"), process.wait()


def screen(output: str, columns: int) -> list[str]:
    """The lines that a terminal shows after this output; colours and a hidden cursor are left out."""
    lines, row, column = [""], 0, 0
    for match in re.finditer(rf"{CONTROL.pattern}|[\s\S]", output):
        character, letter = match.group(), match.group(2)
        if letter == "K":  # the rest of the line, or all of it
            lines[row] = "" if match.group(1) == "2" else lines[row][:column]
        elif letter == "A":
            row = max(0, row - int(match.group(1) or 1))
        elif character == "\r":
            column = 0
        elif character == "\n" or (letter is None and column == columns):
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        if letter is None and character not in "\r\n":
            lines[row] = lines[row].ljust(column)[:column] + character + lines[row][column + 1 :]
            column += 1
    return lines


def svg(command: str, lines: list[str]) -> str:
    """A picture of a terminal: the command behind a prompt, then the lines."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), highlight=False, emoji=False)  # noqa: SIM115
    console.print(Text.assemble(("$ ", "green"), (command, "bold")))
    for line in lines:
        console.print(Text(line.rstrip(), "bold" if "━" in line else ""), no_wrap=True, crop=True)
    return console.export_svg(title="", code_format=SVG, unique_id="terminal")


def _runs() -> list[Path]:
    """The run folders of the default experiment."""
    return [path.parent for path in (ROOT / "outputs" / "default").glob("*/run.json") if not path.parent.is_symlink()]


if __name__ == "__main__":
    main()
