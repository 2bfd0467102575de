"""Figures and the picture."""

import math
import subprocess
import sys

import pytest

from llama_exp.errors import StorageError
from llama_exp.run.figures import figures, perplexity, smoothed, write_plot


def rows(count=60, offset=0.0):
    train = [
        {
            "step": step,
            "split": "train",
            "loss": offset + 5.0 * math.exp(-step / 20),
            "learning_rate": 1e-3,
            "tokens": 100 * step,
            "tokens_per_second": 10.0 + step,
            "peak_memory_bytes": 1000 + step,
        }
        for step in range(1, count + 1)
    ]
    validation = [
        {"step": step, "split": "validation", "loss": loss} for step, loss in ((0, 6.0), (30, 2.0), (60, 2.5))
    ]
    return sorted(train + validation, key=lambda row: row["step"])


def test_figures():
    found = figures(rows())
    assert found["steps"] == 60 and found["tokens"] == 6000 and found["peak_memory_bytes"] == 1060
    assert found["tokens_per_second"] == 40.5
    assert found["train_loss"] == pytest.approx(5.0 * math.exp(-3))
    expected = {"first": 6.0, "best": 2.0, "best_step": 30, "last": 2.5, "perplexity": math.exp(2.5)}
    assert found["validation"] == expected


def test_a_nan_is_never_the_best():
    values = [math.nan, 3.0, math.nan]
    found = figures([{"step": step, "split": "validation", "loss": loss} for step, loss in enumerate(values)])
    assert found["validation"]["best"] == 3.0 and found["validation"]["best_step"] == 1


def test_figures_of_nothing():
    assert figures([]) == {}


def test_perplexity():
    assert perplexity(0.0) == 1.0
    assert perplexity(1e9) == math.inf


def test_smoothing_keeps_a_straight_line_and_does_not_lag():
    line = [3.0 - 0.1 * step for step in range(50)]
    assert smoothed(line, 9) == pytest.approx(line)


def test_smoothing_is_the_mean_of_the_window():
    assert smoothed([0.0, 3.0, 0.0, 3.0, 9.0], 3) == pytest.approx([0.0, 1.0, 2.0, 4.0, 9.0])


def test_smoothing_skips_what_is_not_finite():
    averages = smoothed([math.nan, 1.0, math.inf, 3.0, 5.0], 3)
    assert math.isnan(averages[0])
    assert averages[1:] == pytest.approx([1.0, 2.0, 4.0, 5.0])


def picture(path):
    from matplotlib.image import imread

    image = imread(path)
    assert image.shape == (780, 1200, 4)
    return image[..., :3]


def has_colour(image, hexadecimal):
    wanted = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return bool((abs(image - wanted).max(axis=-1) < 0.02).sum() > 50)


def test_the_picture_shows_both_splits(tmp_path):
    write_plot({"a $run$": rows()}, tmp_path / "loss.png")
    image = picture(tmp_path / "loss.png")
    assert has_colour(image, "#0072B2") and has_colour(image, "#D55E00") and not has_colour(image, "#009E73")
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]


def test_several_runs_have_a_colour_each(tmp_path):
    write_plot({"a": rows(), "b": rows(offset=1.0), "c": rows(offset=2.0)}, tmp_path / "loss.png")
    image = picture(tmp_path / "loss.png")
    assert all(has_colour(image, colour) for colour in ("#0072B2", "#D55E00", "#009E73"))


@pytest.mark.parametrize(
    "few",
    [
        [{"step": 0, "split": "validation", "loss": math.nan}],
        [{"step": 1, "split": "train", "loss": math.inf, "learning_rate": 0.0}],
        [{"step": step, "split": "train", "loss": math.nan, "learning_rate": None} for step in range(30)],
        [],
    ],
    ids=["NaN validation", "one infinite row", "only NaN", "nothing"],
)
def test_degenerate_runs_give_a_picture(tmp_path, few):
    write_plot({"run": few}, tmp_path / "loss.png")
    picture(tmp_path / "loss.png")


def test_an_unwritable_picture_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="ENOENT"):
        write_plot({"run": rows()}, tmp_path / "absent" / "loss.png")


@pytest.mark.process
def test_importing_the_artefact_modules_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from llama_exp import logger\nfrom llama_exp.console import logs, progress\n"
        "from llama_exp.run import figures, folder, provenance\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'wandb', 'matplotlib', 'rich', 'numpy', 'hydra', 'omegaconf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
