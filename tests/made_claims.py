"""Made-up experiments: sweeps whose runs state claims, with losses that are known."""

import itertools
import math

from made_runs import make_grid

RANKS, RATES, SEEDS = (4, 16, 64), (3e-4, 1e-3, 3e-3, 1e-2), range(2)
TITLE = "A small experiment"
CLAIMS = {
    "ratio": {
        "statement": "The best rate of rank 64 is that of rank 4.",
        "where": "figure 1",
        "published": 1.0,
        "stages": ["ranks"],
        "estimator": "best_rate_ratio",
        "arguments": {"y": "validation.loss", "of": {"lora.rank": 64}, "against": {"lora.rank": 4}},
        "expected": {"low": 0.5, "high": 2.0},
    },
    "falls": {
        "statement": "The loss falls with rank.",
        "stages": ["ranks"],
        "estimator": "log_log_slope",
        "arguments": {"x": "lora.rank", "y": "validation.loss", "best_over": "optimizer.learning_rate"},
        "expected": {"high": -0.5},
    },
    "better": {
        "statement": "Rank 64 is better than rank 4, each at its best rate.",
        "where": "table 2",
        "stages": ["ranks"],
        "estimator": "mean_difference",
        "arguments": {
            "y": "validation.loss",
            "of": {"lora.rank": 64},
            "against": {"lora.rank": 4},
            "best_over": "optimizer.learning_rate",
        },
        "expected": {"high": 0.0},
    },
}


def make_protocol(claims=None, **changes):
    stages = {"ranks": {"grid": {"lora.rank": list(RANKS)}, "quick": {"overrides": ["trainer.max_steps=10"]}}}
    source = {"title": "A paper", "authors": "A. Author", "year": 2023, "url": "https://arxiv.org/abs/1"}
    stated = {"title": TITLE, "source": source, "method": "m", "differences": [], "stage": "ranks", "stages": stages}
    return {**stated, "claims": CLAIMS if claims is None else claims, **changes}


def draw_losses(ranks=RANKS, rates=RATES, seeds=SEEDS):
    """Least at a rate of 1.1e-3 for every rank, a little lower for larger ranks; noise that looks drawn."""
    return {
        (rank, rate, seed): 2.5
        + 0.02 * math.log(rate / 1.1e-3) ** 2
        - 0.02 * math.log2(rank)
        + 0.05 * seed
        + 0.001 * math.sin(1000 * rank * (seed + 1) + 1e5 * rate)
        for rank, rate, seed in itertools.product(ranks, rates, seeds)
    }


def make_experiment(folder, losses=None, name="small", claims=None, **changes):
    """The stage `ranks` of an experiment; returns its folder."""
    protocol = make_protocol(claims, **changes)
    losses = draw_losses() if losses is None else losses
    return make_grid(folder / name / "ranks", losses, sections={"protocol": protocol, "name": "small"})
