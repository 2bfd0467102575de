"""An experiment of a base and a sweep over it, small enough for a test, in a folder of choices of its own."""

BASE = """\
# @package _global_
defaults:
  - override /dataset: text_files
  - override /tokenizer: byte
name: tiny_base
dataset: {files: [text.txt], document: paragraph, sequence_length: 32, validation_fraction: 0.2}
runtime: {backend: jax}
model:
  vocabulary_size: 272
  num_layers: 1
  hidden_dim: 32
  intermediate_dim: 64
  num_query_heads: 2
  num_key_value_heads: 1
trainer:
  max_steps: 4
  batch_size: 2
  log_every_steps: 1
  validate_every_steps: 4
  validation_batches: 1
  checkpoint_every_steps: 2
  sample_prompts: []
logger: {mode: disabled}
"""
TINY = """\
# @package _global_
defaults:
  - tiny_base
  - _self_
name: tiny
protocol:
  title: A tiny experiment
  source: {title: A paper, authors: Somebody, year: 2026, url: "https://example.org/paper"}
  method: Adapters of two ranks on a base of our own.
  differences: [The model is tiny.]
  stages:
    base: {overrides: [experiment=tiny_base], cached: true, quick: {overrides: [trainer.max_steps=2]}}
    ranks:
      overrides: ["preset.source={base}/model"]
      grid: {lora.rank: [2, 4], seed: [0, 1]}
      quick: {overrides: [trainer.max_steps=3], grid: {seed: [0]}}
    big: {half: pretrained, overrides: ["preset.source={smollm2}"], grid: {lora.rank: [4, 8]}}
  claims: {}
"""


def write_experiment(folder, text=TINY):
    """The folder for `--config-dir` and the text that it trains on."""
    (folder / "my" / "experiment").mkdir(parents=True)
    (folder / "my" / "experiment" / "tiny_base.yaml").write_text(BASE)
    (folder / "my" / "experiment" / "tiny.yaml").write_text(text)
    (folder / "text.txt").write_text("".join(f"Paragraph {n} of a text about cats.\n\n" for n in range(60)))
