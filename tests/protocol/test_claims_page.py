"""The page on claims names every estimator with its arguments, every quantity, and a claim that is right."""

import re
from pathlib import Path

import yaml

from llama_exp.config.check import check_arguments
from llama_exp.limits.estimators import AT_BEST, COMMON, COMPUTED, ESTIMATORS

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "claims.md").read_text()
ROWS = {row[0]: row for row in (re.findall(r"`([^`]+)`", line) for line in PAGE.splitlines() if line.startswith("| `"))}


def test_every_estimator_stands_in_the_table_with_its_arguments():
    assert set(ESTIMATORS) <= set(ROWS)
    for name, known in ESTIMATORS.items():
        own = set(known.list_names()) - {*COMMON, *AT_BEST}
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        assert set(re.findall(r"`([^`]+)`", line.split("|")[3])) == own, name
    for name in (*COMMON, *AT_BEST, *COMPUTED):
        assert f"`{name}" in PAGE, name


def test_the_claim_of_the_page_can_run(tmp_path):
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "claims:" in text]
    assert yaml.safe_load(block)["protocol"]["claims"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "rates.yaml").write_text(block)
    lines = ["experiment=rates", "logger=none", "protocol.stage=rates"]
    command = check_arguments(["--config-dir", str(tmp_path), *lines])
    assert command.config.protocol.claims["ten_times"].published == 10
