"""The project's shape, as tests: one name for one thing, one frontier, one direction, small pieces."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from llama_exp.config.check import CONF
from llama_exp.config.check.conversion import get_hints
from llama_exp.config.check.typed import list_section_keys, list_sections
from llama_exp.config.schema import SCHEMAS, TASKS, Config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llama_exp"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# Bottom to top; a module imports only what stands in a line above its own.
LAYERS = (
    {"errors", "recipe", "__version__"},
    {"architecture", "files", "signals"},
    {"console", "limits", "rates"},
    {"backend", "dataset", "formats", "logger", "precision", "runtime", "schedule"},
    {"objective", "optimizer", "preset", "reference"},
    {"quantization", "tokenizer"},
    {"lora"},
    {"config", "models", "trainer"},
    {"evaluation", "sweeps"},
    {"results"},
    {"inspection"},
    {"protocol"},
    {"cli", "run"},
    {"report", "reproduction", "verification"},
    {"experiments"},
    {"__main__", "commands", "train_command"},
    {"notebook"},
)
CONFIG_SIDE = {"config", "console", "sweeps", "train_command"}
BEHIND_THE_FRONTIER = {
    "keras": {
        "backend",
        "evaluation",
        "formats",
        "models",
        "lora",
        "precision",
        "quantization",
        "objective",
        "optimizer",
        "schedule",
        "trainer",
    },
    "tensorflow": {"backend"},
    "jax": {"backend"},
    "wandb": {"logger"},
    "tensorboard": {"logger"},
    "mlflow": {"logger"},
    "tensorflow_datasets": {"dataset"},
    "optuna": {"sweeps"},
    "cmaes": {"sweeps"},
    "lm_eval": {"evaluation"},
    "datasets": {"evaluation"},
    "hydra": CONFIG_SIDE,
    "omegaconf": CONFIG_SIDE,
    # Oracles of the tests only.
    "keras_hub": set(),
    "transformers": set(),
    "peft": set(),
    "torch": set(),
}
FRONTIER = (
    "limits",
    "config.schema",
    "config.check",
    "config.identity",
    "config.instantiate",
    "config.stated_evaluation",
    "evaluation.build",
    "commands.report",
    "console.failures",
    "errors",
    "run.plan",
    "run.resume",
    "cli",
    "notebook",
    "train_command",
)


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree):
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ([f"{node.module}.{alias.name}" for alias in node.names] if node.module else [])


def own_imports(path):
    """First components below llama_exp that a file imports from other modules of the package."""
    for name in imports(TREES[path]):
        parts = name.split(".")
        if parts[0] == "llama_exp" and len(parts) > 1 and parts[1] != module_of(path):
            yield parts[1]


# --- 4: group = field = module


def test_groups_are_config_fields_are_modules():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment", "sweep", "hydra"}
    assert groups == set(list_sections())
    modules = {module_of(path) for path in FILES}
    assert set(list_sections()) - {"model"} | {"models"} <= modules


def test_targets_live_in_the_module_of_their_section():
    for target in SCHEMAS:
        module = target.split(".")[1]
        assert module.removesuffix("s") in list_sections() or module in list_sections(), target


# --- 2: one name for one value


def identifiers(*modules):
    """Every name that occurs in modules: parameters, attributes, keywords, variables, texts."""
    found = set()
    for path, tree in TREES.items():
        if module_of(path) in modules:
            for node in ast.walk(tree):
                for attribute in ("arg", "attr", "id"):
                    found.add(getattr(node, attribute, None))
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


@pytest.mark.parametrize("section", list_sections())
def test_every_key_keeps_its_name_up_to_its_module(section):
    modules = {"models" if section == "model" else section, "run"}
    if not all(any(module_of(path) == module for path in FILES) for module in modules):
        pytest.fail(f"one of the modules {modules} does not exist")
    if section in ("trainer", "objective"):
        modules |= {"dataset", "trainer"}
    if section == "quantization":
        modules |= {"architecture"}  # its table of options, which files are read by too
    if section == "protocol":
        modules |= {"experiments", "report"}  # stages run in one, both tell of claims
    missing = list_section_keys(section) - {"_target_"} - identifiers(*modules)
    assert not missing, f"{section}: {missing} are read by nobody under their own names"


def function_of(target):
    """The AST of the function, or of the constructor and those of its bases, that a target names."""
    module, name = target.split(".")[1:3]
    definitions = {
        node.name: node
        for path, tree in TREES.items()
        if module_of(path) == module
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    return name, definitions


def parameters_of(name, definitions):
    node = definitions[name]
    if isinstance(node, ast.FunctionDef):
        return {arg.arg for arg in node.args.args + node.args.kwonlyargs}
    found = set()
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            found = {arg.arg for arg in item.args.args + item.args.kwonlyargs}
            if item.args.kwarg is None:
                return found
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in definitions:
            found |= parameters_of(base.id, definitions)
    return found


@pytest.mark.parametrize("target", sorted(SCHEMAS | TASKS))
def test_a_targets_parameters_are_its_sections_keys(target):
    name, definitions = function_of(target)
    assert name in definitions, f"{target} is defined nowhere"
    keys = {field.name for field in dataclasses.fields((SCHEMAS | TASKS)[target])} - {"_target_"}
    assert keys <= parameters_of(name, definitions)


# The same number under another meaning, where the receiver knows nothing of the giver's section.
OTHER_MEANING = {("max_steps", "num_steps"), ("batch_size", "minimum_train_rows")}


def test_the_run_passes_values_on_under_their_own_names():
    trees = [TREES[PACKAGE / "run" / name] for name in ("job.py", "building.py")]
    renamed = set()
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for keyword in call.keywords:
            value = keyword.value
            if isinstance(value, ast.Attribute) and value.attr == "value":
                value = value.value
            chain = ast.unparse(value).split(".")
            if chain[0] == "config" and len(chain) == 3 and chain[2] != keyword.arg:
                renamed.add((chain[2], keyword.arg))
    # run.json names facts, not keys: `backend`, `seed` keep theirs anyway.
    assert renamed - OTHER_MEANING - {("policy", "precision")} == set()


# --- 3 and 7: the frontier, one direction


def test_the_layers_name_every_module():
    modules = {module_of(path) for path in FILES} - {"__init__"}
    named = set().union(*LAYERS) - {"__version__"}
    assert modules - named == set()
    assert sum(map(len, LAYERS)) == len(named) + 1, "a module stands in two layers"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    module = module_of(path)
    if module == "__init__":
        # For type checkers, and inside of `__getattr__`: a notebook's names are imported when they are asked for.
        assert set(own_imports(path)) == {"notebook"}
        return
    (own,) = [height for height, layer in enumerate(LAYERS) if module in layer]
    for imported in own_imports(path):
        (height,) = [height for height, layer in enumerate(LAYERS) if imported in layer]
        assert height < own, f"{module} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_stay_where_they_belong(path):
    for name in imports(TREES[path]):
        allowed = BEHIND_THE_FRONTIER.get(name.split(".")[0])
        assert allowed is None or module_of(path) in allowed, f"{path.name} imports {name}"


def test_plug_ins_import_nothing_that_costs_time():
    """Hydra imports them at each start of each application; what they use they import when they are used."""
    for path in (ROOT / "hydra_plugins").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for name in imports(ast.Module([node], [])):
                    assert name.split(".")[0] in {*sys.stdlib_module_names, "hydra", "omegaconf"}, f"{path}: {name}"


def test_nobody_passes_an_unresolved_config_around():
    for path in FILES:
        text = path.read_text()
        if module_of(path) not in CONFIG_SIDE:
            for word in ("DictConfig", "ListConfig", "cfg.", "OmegaConf"):
                assert word not in text, f"{path.name}: {word}"
        assert "cfg.get(" not in text


def test_sections_are_never_assigned_to():
    """Nobody edits the config: no assignment to an attribute of something called config."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                for target in targets:
                    assert not ast.unparse(target).startswith("config."), f"{path.name}:{node.lineno}"


@pytest.mark.process
@pytest.mark.parametrize("module", FRONTIER)
def test_no_framework_behind_an_import_on_this_side(module):
    frameworks = ("keras", "tensorflow", "jax", "torch", "wandb", "tensorflow_datasets", "tensorboard", "mlflow")
    code = f"import sys, llama_exp.{module}; print([m for m in {frameworks} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- 9: sizes


def length(function):
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def test_sizes():
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert {path: count for path, count in lines.items() if count > 350} == {}
    functions = {
        f"{path.name}:{node.name}": length(node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: count for name, count in functions.items() if count > 60} == {}
    assert len((ROOT / "train.py").read_text().splitlines()) <= 40
    assert lines[Path("llama_exp/train_command.py")] <= 85
    texts = [path.read_text() for path in CONF.rglob("*.yaml")]
    assert max(len(text.splitlines()) for text in texts if "\nprotocol:\n" not in text) <= 60
    assert max(len(text.splitlines()) for text in texts) <= 150  # a protocol is also a text to read


# --- 12: adaptation isolated


@pytest.mark.parametrize("name", ["linear", "attention", "decoder", "embedding", "rope", "norm"])
def test_the_layers_know_nothing_of_adaptation(name):
    text = (PACKAGE / "models" / f"{name}.py").read_text().lower()
    assert "lora" not in text and "quant" not in text


# --- 11: no base class with a single child


def test_base_classes_have_several_children():
    classes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    abstract = {node.name for node in classes if any("ABC" in ast.unparse(base) for base in node.bases)}
    for name in abstract:
        children = [node.name for node in classes if any(ast.unparse(base) == name for base in node.bases)]
        assert len(children) >= 2, name


def test_the_root_config_declares_nothing_twice():
    names = [field.name for field in dataclasses.fields(Config)]
    assert len(names) == len(set(names)) == len(get_hints(Config))
