"""A run that watches what it learns and what it forgets: two sets before, between and after its steps."""

from whole_runs import run_here

from llama_exp.protocol.quantities import find_quantity
from llama_exp.report import Options, make_report
from llama_exp.results import load_run


def test_both_sets_at_every_step_in_rows_summary_quantities_and_curves(tmp_path):
    for name, word in (("text", "cats"), ("source", "dogs")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"the {n} {word} sat on {n % 7} mats" for n in range(90)))
    sets = [f"+dataset@evaluation.sets.{name}=text_files" for name in ("source", "target")]
    keys = [
        f"evaluation.sets.{name}.{key}"
        for name, file in (("source", "source"), ("target", "text"))
        for key in (f"files=[{file}.txt]", "document=paragraph", "sequence_length=32", "validation_fraction=0.2")
    ]
    run_here(tmp_path, *sets, *keys, "evaluation.at_start=true", "evaluation.every_steps=1", "trainer.max_steps=2",
             "trainer.sample_prompts=[]", "logger=none", "hydra.run.dir=run")  # fmt: skip
    run = load_run(tmp_path / "run")
    rows = {(row["step"], row["name"]): row["loss"] for row in run.own_evaluations}
    assert set(rows) == {(step, name) for step in (0, 1, 2) for name in ("source", "target")}
    report = make_report([run], Options())
    for name in ("source", "target"):
        losses = [rows[step, name] for step in (0, 1, 2)]
        assert run.summary["evaluation"][name]["loss"] == losses[2] != losses[0]
        assert find_quantity(run, f"first evaluation.{name}.loss") == losses[0]
        assert find_quantity(run, f"max evaluation.{name}.loss") == max(losses)
        (curve,) = [curve for curve in report.curves if curve.figure == f"evaluation.{name}.loss"]
        assert curve.steps == (0, 1, 2) and list(curve.values) == losses
