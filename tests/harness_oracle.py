"""lm-evaluation-harness' own model of transformers, and ours, over the same folder; and tasks on local files."""

import json
from pathlib import Path

import yaml

MAX_LENGTH = 48
LOG_LIKELIHOOD_TOLERANCE = 1e-4


def our_model(model, max_length=MAX_LENGTH, batch_size=4):
    from llama_exp.evaluation.examinee import Examinee
    from llama_exp.evaluation.harness_model import HarnessModel

    return HarnessModel(Examinee(model, batch_size), max_length, model.tokenizer.chat_template)


def their_model(model, tokenizer, max_length=MAX_LENGTH, batch_size=4):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=max_length, batch_size=batch_size, device="cpu")


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


def write_task(folder: Path, name: str, items, **changes) -> None:
    """A multiple-choice task on a local file: the whole of what one needs."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [_mean("acc"), _mean("acc_norm")],
    }
    content = {key: value for key, value in (content | changes).items() if value is not None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def write_generation_task(folder: Path, name: str, items, until, max_gen_toks, **changes) -> None:
    """A task whose answers are written; items have `question` and `answer`."""
    write_task(
        folder,
        name,
        items,
        output_type="generate_until",
        doc_to_choice=None,
        doc_to_target="{{answer}}",
        generation_kwargs={"until": until, "max_gen_toks": max_gen_toks, "do_sample": False},
        metric_list=[_mean("exact_match")],
        **changes,
    )


def write_rolling_task(folder: Path, name: str, items) -> None:
    """A task of whole texts; items have `question`."""
    metrics = [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
    ]
    write_task(
        folder,
        name,
        items,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{question}}",
        doc_to_choice=None,
        metric_list=metrics,
    )


def _mean(metric):
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def run(folder, names, model, num_fewshot=None, **options):
    """Figures and items of tasks together, offline."""
    from llama_exp.evaluation.harness_surroundings import FEW_SHOT_SEED, surroundings

    with surroundings(online=False):
        from llama_exp.evaluation.harness_results import run_tasks
        from llama_exp.evaluation.harness_tasks import load_tasks, set_few_shot

        loaded = load_tasks(names, folder)
        set_few_shot(loaded, num_fewshot, FEW_SHOT_SEED)
        return run_tasks(loaded, model, **options)
