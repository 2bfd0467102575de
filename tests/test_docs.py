"""README and the pages of docs: links lead somewhere, commands work, code runs.

The commands of README, of the tutorial and of the how-to pages run one after the other in one folder, as a reader types
them, but with a tiny model and few steps. One process runs them all, so that TensorFlow is imported once.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# In the order in which a reader meets them: later pages use the runs of earlier ones.
TUTORIAL = [ROOT / "docs" / "tutorial" / f"{name}.md" for name in
            ("first_run", "your_text", "your_chat_data", "lora_on_a_model", "runs_to_results")]  # fmt: skip
HOW_TO = sorted((ROOT / "docs" / "how_to").glob("*.md"))
WITH_COMMANDS = [README, *TUTORIAL, *HOW_TO]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FILE_NAME = re.compile(r"(?:# @package _global_\n)?# ([\w/]+\.(?:py|yaml))\n")  # Hydra reads @package at the top only

MOST_STEPS = 50
SHORT = ["trainer.max_steps=2"]
TINY = [
    "trainer.batch_size=2",
    "trainer.validation_batches=1",
    "trainer.sample_prompts=[]",
    "model.num_layers=1",
    "model.hidden_dim=64",
    "model.intermediate_dim=64",
    "model.num_query_heads=2",
    "model.num_key_value_heads=1",
    "logger.mode=disabled",
    "evaluation.limit=4",
]
# What a reader has: texts, and the items that docs/how_to/evaluate.md shows.
READERS_FILES = {
    **dict.fromkeys(
        ("notes.txt", "source.txt", "target.txt"), "One day a reader wrote some notes.\n\nThey were few.\n" * 40
    ),
    "src/notes.py": '"""Some code."""\n' * 40,
    "quiz.jsonl": '{"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0}\n',
    "facts.jsonl": '{"question": "What is the capital of France?", "answer": "Paris"}\n',
}
# Scripts that train a model of their own; tests/test_python_notebook.py runs such a one.
TRAINING_SCRIPT = re.compile(r"\btrain\(")
HARNESS = r"harness"
PLUGIN = r"hydra/launcher=(joblib|submitit|ray|cluster)"
# Commands that are not run here, and why. `python train.py` is composed instead; another command of ours must know
# its options and miss its model, which is exit code 3.
NOT_HERE = {
    r"pip install": "the network; CI installs",
    r"pytest": "it would run this test",
    r"python -m venv|^\. ": "CI makes an environment",
    r"GGUF=": "a package of 98 MB; see tests/test_pretrained.py",
    r"\$GGUF|smollm2|SmolLM2": "a package of 98 MB; see tests/test_pretrained.py",
    r"^(?!llama-exp (plan|explain)).*model=llama2_7b(?!.*--cfg)": "a model of 13 GB",
    r"llama-cli|ollama": "programs of their own; see tests/test_llama_cpp.py",
    r"llama-exp push (?!.*--dry-run)": "it sends; see tests/commands/test_push.py",
    r"evaluate model\.gguf": "a file of the reader's",
    r"llama-exp verify (resume|invariances|coordinates)": "they train; see tests/commands/test_verify_*.py",
    r"parametrization=mup": "models of some width; see tests/verification/test_coordinates.py",
    r"train\.py trainer\.budget_": "as many steps as a budget has; see tests/config/test_budget.py",
    r"outputs/experiments/": "some minutes; see tests/experiments/test_quick_variants.py",
    HARNESS: "the extra eval; see tests/evaluation/test_harness.py",
    r"runtime\.backend=jax": "a process of its own; see tests/run/test_job.py",
    PLUGIN: "a plug-in of an extra, which is named where it is missing; see tests/engines and tests/slurm",
}
FAILS = {  # commands that show what a mistake gets
    "python train.py lora.rnk=8 model=lama2_7b optimizer.learning_rate=fast": 2,
    "python train.py -m lora.rank=4,8 trainer.max_steps=100,many": 2,
}


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, *languages):
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page):
    """The command lines of a page: continued ones joined, `a && b` as two, without comments."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = (re.sub(r"\s+# .*", "", line).strip() for line in text.splitlines())
    return [re.sub(r" {2,}", " ", command) for line in lines if line for command in line.split(" && ")]


def files(page):
    """The files that a page shows, whole as a reader copies them, by the name at their top."""
    found = {}
    for text in blocks(page, "python", "yaml"):
        if match := FILE_NAME.match(text):
            found[match[1]] = text
    return found


def anchors(page):
    """What `#...` may name: headings as GitHub and MkDocs spell them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in HEADING.findall(text))
    return {re.sub(r"[ \t]", "-", re.sub(r"[^\w\s-]", "", title).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(target)
    assert not broken


def test_pages_are_found():
    assert len(PAGES) >= 25 and len(HOW_TO) >= 9
    assert all(page.is_file() for page in TUTORIAL)
    assert len(commands(README)) >= 13


def test_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


def test_readme_shows_pictures_of_the_repository():
    pictures = [target for target in LINK.findall(README.read_text(encoding="utf-8")) if "pictures/" in target]
    assert len(pictures) == 3
    assert (ROOT / "docs" / "pictures" / "loss.png").read_bytes().startswith(b"\x89PNG")
    svg = (ROOT / "docs" / "pictures" / "terminal.svg").read_text(encoding="utf-8")
    assert "train.py" in svg and "exit&#160;code&#160;0" in svg and "url(http" not in svg
    sweep = (ROOT / "docs" / "pictures" / "sweep.svg").read_text(encoding="utf-8")
    assert "3&#160;of&#160;6&#160;done" in sweep and "6&#160;finished" in sweep and "url(http" not in sweep


def test_every_synonym_is_on_the_page_for_newcomers():
    from llama_exp.config.check.nearest import SYNONYMS

    rows = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8").splitlines()
    missing = [old for old, new in SYNONYMS.items() if not any(f"`{old}`" in row and f"`{new}`" in row for row in rows)]
    assert not missing


def test_files_that_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(llama_exp/[\w/.]*)`", text))
    assert len(named) >= 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_tests_that_reliability_names_exist():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w/]+\.py)::(test_\w+)", text))
    assert len(named) >= 100
    made = {
        (path, name)
        for path in {path for path, _ in named}
        for name in re.findall(r"^ *def (test_\w+)", (ROOT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert sorted(named - made) == []


def test_the_picture_of_a_terminal_replays_what_was_written():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_pictures import screen
    finally:
        sys.path.pop(0)
    assert screen("one\r\ntwo\r\n", 80) == ["one", "two", ""]
    assert screen("\x1b[?25l1/2 ==\r\x1b[2Kabove\r\n2/2 ====\r\n", 80) == ["above", "2/2 ====", ""]
    assert screen("a\r\nb\x1b[1A\r\x1b[2Kc", 80) == ["c", "b"]
    assert screen("12345", 3) == ["123", "45"]
    assert screen("\x1b[32mgreen\x1b[0m", 80) == ["green"]


def step_of(line):
    """What the process below does with one command line, and the exit code that is right."""
    reason = next((reason for pattern, reason in NOT_HERE.items() if re.search(pattern, line)), None)
    words = shlex.split(line)
    trains = words[:2] in (["python", "train.py"], ["llama-exp", "train"])
    if not trains and words[0] != "llama-exp":
        return None if reason else {"shell": line, "code": 0}
    arguments = ["train", *words[2:]] if trains else words[1:]
    if reason and arguments[0] == "verify":
        return None
    if arguments[0] == "experiment" and len(arguments) > 1:  # see tests/experiments/test_quick_variants.py
        return {"ours": [*arguments, "--dry-run"], "code": 0}
    if "--harness" in words:
        return None if importlib.util.find_spec("lm_eval") else {"ours": arguments, "code": 2}
    if reason and re.search(PLUGIN, line):
        return {"ours": [*arguments, "--cfg", "job"], "code": 0 if importlib.util.find_spec("submitit") else 2}
    is_sweep = trains and bool({"-m", "--multirun"} & set(words) or re.search(r" sweep=", line))
    has_launcher = any(re.match(r"hydra[./](launcher|sweeper)", word) for word in words)
    if reason and trains:
        return {"ours": [*arguments, "--cfg", "job"], "code": 0}
    given = {word.partition("=")[0] for word in words}
    given |= {"logger.mode"} if "logger" in given else set()  # the key of one choice
    tiny = [line for line in TINY if line.partition("=")[0] not in given]
    if is_sweep and has_launcher:
        return {"ours": [*arguments, *tiny, "--cfg", "job"], "code": 0}
    if is_sweep and line not in FAILS:
        # A process that has run TensorFlow cannot fork others that do; tests/sweeps has the launcher.
        arguments.append("hydra/launcher=basic")
    if trains and not {"--cfg", "--help"} & set(words) and line not in FAILS:
        arguments += tiny
        steps = [int(word.partition("=")[2]) for word in words if word.startswith("trainer.max_steps=")]
        if not steps or steps[-1] > MOST_STEPS:
            arguments = [word for word in arguments if not word.startswith("trainer.max_steps=")] + SHORT
    if arguments[0] == "generate" or (arguments[0] == "chat" and not reason):
        arguments += ["--max-new-tokens", "4"]
    if arguments[0] == "evaluate" and "--limit" not in words:
        arguments += ["--limit", "4"]
    return {"ours": arguments, "code": FAILS.get(line, 3 if reason else 0)}


def cases():
    """(page, command) in reading order; each command once, where a reader meets it first."""
    first = {}
    for page in WITH_COMMANDS:
        for line in commands(page):
            first.setdefault(line, page)
    return [(page, line) for line, page in first.items()]


CASES = cases()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Command -> what came out, of all commands of all pages that can be run here."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "docs").symlink_to(ROOT / "docs")
    steps = [{"files": files(page)} for page in WITH_COMMANDS]
    todo = [{"files": READERS_FILES}]
    for page, shown in zip(WITH_COMMANDS, steps, strict=True):
        todo.append(shown)
        todo += [step | {"key": line} for p, line in CASES if p == page and (step := step_of(line))]
        scripts = [
            text for text in blocks(page, "python") if not FILE_NAME.match(text) and not TRAINING_SCRIPT.search(text)
        ]
        todo += [{"script": text, "key": f"{name_of(page)}: python", "code": 0} for text in scripts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LLAMA_EXP_CACHE": str(folder / "cache")}
    environment.pop("KERAS_BACKEND", None)
    process = subprocess.run(
        [sys.executable, __file__], cwd=folder, env=environment, input=json.dumps(todo), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {result["key"]: result for result in map(json.loads, lines)}


@pytest.mark.process
@pytest.mark.parametrize("page, line", CASES, ids=[f"{page.stem}: {line}" for page, line in CASES])
def test_commands_work(page, line, results):
    if step_of(line) is None:
        pytest.skip(next(reason for pattern, reason in NOT_HERE.items() if re.search(pattern, line)))
    result = results[line]
    assert result["code"] == result["right"], result["text"]


@pytest.mark.process
def test_python_on_the_pages_runs(results):
    found = [result for line, result in results.items() if line.endswith(": python")]
    assert found and all(result["code"] == 0 for result in found), found


@pytest.mark.process
def test_classes_of_a_reader_were_used(results):
    for shown in ("dataset=csv_pairs", "optimizer=sign_momentum", "optimizer=nadam", "my_callback.BestLoss"):
        (text,) = (result["text"] for line, result in results.items() if shown in line)
        assert "finished (exit code 0)" in text
        assert "best validation loss" in text or "BestLoss" not in shown


def _run_all() -> None:
    """The process: takes the steps from standard input, leaves results.jsonl."""
    sys.path[0] = os.getcwd()  # where `python train.py` finds a reader's modules
    output = os.open("output.txt", os.O_RDWR | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    with open("results.jsonl", "w", encoding="utf-8") as results:
        for step in json.load(sys.stdin):
            for path, text in step.get("files", {}).items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(text, encoding="utf-8")
            if "key" in step:
                os.ftruncate(output, 0)
                os.lseek(output, 0, os.SEEK_SET)
                started = time.monotonic()
                code = _code_of(step)
                sys.stdout.flush()
                text = Path("output.txt").read_text(encoding="utf-8", errors="replace")[-3000:]
                result = {"key": step["key"], "code": code, "right": step["code"], "text": text}
                results.write(json.dumps(result | {"seconds": time.monotonic() - started}) + "\n")


def _code_of(step) -> int:
    if "shell" in step:
        return subprocess.run(["bash", "-c", step["shell"]]).returncode
    if "script" in step:
        return exec(step["script"], {}) or 0
    from llama_exp.cli import main

    sys.argv = ["llama-exp", *step["ours"]]
    try:
        main(step["ours"])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    _run_all()
