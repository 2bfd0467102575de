"""The section `protocol`: typed to its depth, told all at once, and no part of any hash."""

import pytest

from llama_exp.config.check import check_arguments, config_hash
from llama_exp.config.identity import continuation_hash, to_record
from llama_exp.errors import ConfigError
from llama_exp.limits.protocol import Half

TINY = """\
# @package _global_
protocol:
  stages:
    base: {cached: true}
    ranks: {grid: {lora.rank: [4, 16]}, quick: {grid: {seed: [0]}}}
  claims:
    falls:
      statement: It falls.
      stages: [ranks]
      estimator: log_log_slope
      arguments: {x: lora.rank, y: mean grad_norm}
      expected: {high: -0.2}
"""
WRONG = """\
# @package _global_
protocol:
  source: {title: a, authors: b, year: late, url: d}
  stages:
    base: {half: second, grid: {seed: 1}}
    other: {quick: 3}
    third: {quick: null}
    ranks: no
  claims:
    falls: {statement: It falls., stages: [ranks], expected: {hgh: 1}}
"""


@pytest.fixture
def config_of(tmp_path):
    def compose(text, *lines):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / "tiny.yaml").write_text(text)
        return check_arguments(["--config-dir", str(tmp_path), "experiment=tiny", "logger=none", *lines]).config

    return compose


def test_stages_and_claims_get_their_defaults(config_of):
    protocol = config_of(TINY).protocol
    base, ranks = protocol.stages["base"], protocol.stages["ranks"]
    assert (base.half, base.cached, base.grid, base.quick.overrides) == (Half.first, True, {}, [])
    assert (ranks.grid, ranks.quick.grid, ranks.cached) == ({"lora.rank": [4, 16]}, {"seed": [0]}, False)
    claim = protocol.claims["falls"]
    assert (claim.expected.low, claim.expected.high, claim.published, claim.filter) == (None, -0.2, None, {})


def test_every_mistake_at_any_depth_is_told_at_once(config_of):
    with pytest.raises(ConfigError) as caught:
        config_of(WRONG)
    assert {problem.where for problem in caught.value.problems} >= {
        "protocol.stages.base.half",
        "protocol.stages.other.quick",
        "protocol.stages.third.quick",
        "protocol.stages.ranks",
        "protocol.claims.falls.estimator",
        "protocol.claims.falls.expected.hgh",
        "protocol.source.year",
    }


def test_no_hash_depends_on_it_and_the_record_keeps_it(config_of):
    plain, stated = check_arguments(["logger=none"]).config, config_of(TINY, "protocol.stage=ranks")
    assert config_hash(stated) == config_hash(plain)
    assert continuation_hash(stated) == continuation_hash(plain)
    assert to_record(stated)["protocol"]["stages"]["base"]["half"] == "first"
