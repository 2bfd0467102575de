"""What training changed, of made-up runs whose changes are known."""

import json
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from weighted_runs import (
    LORA,
    MODEL,
    QUERY,
    SEED,
    low_rank,
    make_run,
    random_matrices,
    save_checkpoint,
    start_arrays,
    write_adapter,
    write_model,
)

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.files.digest import file_digest
from llama_exp.formats.adapter import merge_kernel
from llama_exp.inspection import Options, measure_update, write_update
from llama_exp.inspection.update import keep_places
from llama_exp.results import load_run

LAYERS = list(linear_shapes(MODEL))
ADAPTED = {"rank": 3, "alpha": 6.0}


def changed(start, generator, rank=4):
    """Arrays whose matrices differ from the start by a change of a rank; the changes by path."""
    changes = {path: low_rank(generator, array.shape, rank) for path, array in start.items() if array.ndim == 2}
    return {path: array + changes.get(path, 0) for path, array in start.items()}, changes


def matrices_of(run, **options):
    return {matrix.path: matrix for matrix in measure_update(load_run(run), Options(**options)).update.matrices}


def test_a_full_run_from_random_weights(tmp_path):
    """The start is drawn anew from the seed; embeddings and every kernel are measured, norms are none."""
    start = start_arrays()
    arrays, _ = changed(start, np.random.default_rng(0))
    run = make_run(tmp_path / "run", arrays)
    measured = measure_update(load_run(run)).update
    assert measured.method == "full" and measured.start == f"random weights of seed {SEED}"
    assert [matrix.path for matrix in measured.matrices] == ["token_embedding/embeddings", *LAYERS]
    for matrix in measured.matrices:
        path = matrix.path if matrix.path in start else f"{matrix.path}/kernel"
        change = arrays[path].astype("float64") - start[path]
        expected = np.linalg.svd(change, compute_uv=False)
        np.testing.assert_allclose(matrix.values, expected[: len(matrix.values)], atol=1e-6 * expected[0])
        assert matrix.norm == pytest.approx(np.linalg.norm(change), rel=1e-6)
        assert matrix.relative_norm == pytest.approx(np.linalg.norm(change) / np.linalg.norm(start[path]), rel=1e-5)
        assert matrix.rank_90 == 4 and matrix.stable_rank == pytest.approx(4, rel=1e-3)
        assert matrix.full_rank == min(change.shape)
    assert [matrix.block for matrix in measured.matrices] == [None] + [0] * 7 + [1] * 7


def test_a_full_run_from_a_preset(tmp_path):
    """The preset's weights, whose digest is compared; rounded as the variables of the run were."""
    start, generator = start_arrays(9), np.random.default_rng(1)
    preset = write_model(tmp_path / "preset", start)
    arrays, _ = changed(start, generator)
    assert {matrix.rank_90 for matrix in matrices_of(make_run(tmp_path / "run", arrays, preset=preset)).values()} == {4}
    rounded = {path: array.astype(ml_dtypes.bfloat16) for path, array in start.items()}
    same = make_run(tmp_path / "bfloat16", rounded, preset=preset, policy="bfloat16")
    record = json.loads((same / "run.json").read_text())
    record["preset"]["digest"] = None  # of float32, which this run never had
    (same / "run.json").write_text(json.dumps(record))
    assert {matrix.norm for matrix in matrices_of(same).values()} == {0.0}
    assert {matrix.rank_90 for matrix in matrices_of(same).values()} == {0}


@pytest.mark.parametrize("use_rslora", [False, True])
def test_lora_is_measured_through_its_factors_without_its_base(tmp_path, use_rslora):
    """Against the decomposition of the dense s A B; the base is gone, and not missed."""
    preset = write_model(tmp_path / "preset", start_arrays(9))
    lora = ADAPTED | {"use_rslora": use_rslora, "alpha_pattern": {"key": 12.0}}
    alphas = {layer: 12.0 for layer in LAYERS if layer.endswith("key")}
    matrices = random_matrices(np.random.default_rng(2), LAYERS)
    run = make_run(tmp_path / "run", preset=preset, lora=lora)
    write_adapter(run / "adapter", matrices, LORA | lora | {"alpha_pattern": alphas})
    shutil.rmtree(preset)
    found = matrices_of(run)
    assert list(found) == LAYERS
    for layer, matrix in found.items():
        scale = alphas.get(layer, 6.0) / (3**0.5 if use_rslora else 3)
        expected = np.linalg.svd(scale * matrices[layer].a_IR @ matrices[layer].b_RO, compute_uv=False)
        np.testing.assert_allclose(matrix.values, expected[:3], rtol=1e-5)
        assert matrix.rank_90 <= 3 and matrix.relative_norm is None


def test_lora_relative_to_its_base(tmp_path):
    start = start_arrays(9)
    preset = write_model(tmp_path / "preset", start)
    matrices = random_matrices(np.random.default_rng(3), [QUERY])
    run = make_run(tmp_path / "run", matrices=matrices, preset=preset, lora=ADAPTED)
    (matrix,) = matrices_of(run, relative=True).values()
    norm = np.linalg.norm(2.0 * matrices[QUERY].a_IR @ matrices[QUERY].b_RO)
    assert matrix.relative_norm == pytest.approx(norm / np.linalg.norm(start[f"{QUERY}/kernel"]), rel=1e-5)


def test_dora_is_the_true_difference(tmp_path):
    start = start_arrays(9)
    preset = write_model(tmp_path / "preset", start)
    matrices = random_matrices(np.random.default_rng(4), LAYERS, magnitude=True)
    run = make_run(tmp_path / "run", matrices=matrices, preset=preset, lora=ADAPTED | {"use_dora": True})
    for layer, matrix in matrices_of(run).items():
        kernel = start[f"{layer}/kernel"]
        adapted = kernel + 2.0 * matrices[layer].a_IR @ matrices[layer].b_RO
        adapted *= matrices[layer].magnitude_O / np.linalg.norm(adapted, axis=0)
        expected = np.linalg.svd(adapted - kernel, compute_uv=False)
        np.testing.assert_allclose(matrix.values, expected[: len(matrix.values)], atol=1e-5 * expected[0])


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_run_that_went_on_from_an_adapter_started_there(tmp_path, use_dora):
    """Where it changed nothing, the change is zero, and not the adapter that it began with."""
    preset, generator = write_model(tmp_path / "preset", start_arrays(9)), np.random.default_rng(5)
    first = random_matrices(generator, LAYERS, magnitude=use_dora)
    after = first | random_matrices(generator, [QUERY], magnitude=use_dora)
    lora = ADAPTED | {"use_dora": use_dora}
    source = write_adapter(tmp_path / "first", first, LORA | lora)
    begun = {"source": str(source), "sha256": file_digest(source / "adapter_model.safetensors")}
    lora = lora | {"source": str(source)}
    run = make_run(tmp_path / "run", matrices=after, preset=preset, lora=lora, begun=begun)
    found = matrices_of(run)
    kernel = start_arrays(9)[f"{QUERY}/kernel"]
    expected = np.linalg.svd(
        merge_kernel(kernel, after[QUERY], 2.0) - merge_kernel(kernel, first[QUERY], 2.0), compute_uv=False
    )
    np.testing.assert_allclose(found[QUERY].values[:6], expected[:6], atol=1e-5 * expected[0])
    assert all(matrix.norm < 1e-5 for layer, matrix in found.items() if layer != QUERY)
    write_adapter(tmp_path / "first", random_matrices(generator, LAYERS, magnitude=use_dora), LORA | lora)
    with pytest.raises(InputError, match="another than the one"):
        matrices_of(run)


def test_checkpoints_of_both_kinds(tmp_path):
    """Step 3 of a run in full and of one with adapters; a damaged one is refused with the steps that there are."""
    start, generator = start_arrays(), np.random.default_rng(6)
    arrays, _ = changed(start, generator, rank=2)
    run = make_run(tmp_path / "full", changed(start, generator, rank=5)[0])
    save_checkpoint(run, 3, arrays)
    assert {matrix.rank_90 for matrix in matrices_of(run, step=3).values()} == {2}
    assert {matrix.rank_90 for matrix in matrices_of(run).values()} == {5}
    matrices = random_matrices(generator, [QUERY])
    lora = make_run(tmp_path / "lora", lora=ADAPTED, status="running")
    parts = {f"{QUERY}/adapter/lora_a": matrices[QUERY].a_IR, f"{QUERY}/adapter/lora_b": matrices[QUERY].b_RO}
    folder = save_checkpoint(lora, 3, parts)
    expected = np.linalg.svd(2.0 * matrices[QUERY].a_IR @ matrices[QUERY].b_RO, compute_uv=False)[:3]
    np.testing.assert_allclose(matrices_of(lora, step=3)[QUERY].values, expected, rtol=1e-5)
    file = folder / "trainable.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match=r"no valid checkpoint(.|\n)*there are 3"):
        matrices_of(lora, step=3)
    with pytest.raises(InputError, match=r"left no adapter/(.|\n)*running(.|\n)*--step of a checkpoint \(there are 3"):
        matrices_of(lora)


def test_the_second_time_the_record_is_read(tmp_path):
    """By the digests of the weights: what is not theirs, or damaged, is measured again."""
    start, generator = start_arrays(), np.random.default_rng(7)
    run = make_run(tmp_path / "run", changed(start, generator)[0])
    measured = measure_update(load_run(run))
    paths = write_update(measured.update, None, measured.key, run)
    assert [path.name for path in paths] == ["update_rank.json", "update_rank.csv", "update_rank.png"]
    record = json.loads(paths[0].read_text())
    record["matrices"][QUERY]["rank_90"] = 99
    paths[0].write_text(json.dumps(record))
    assert matrices_of(run)[QUERY].rank_90 == 99
    other = json.loads(json.dumps(record))
    other["key"]["files"]["model/model.weights.h5"] = "0"
    for text in (json.dumps(other), "{", json.dumps(record | {"matrices": 3}), json.dumps(record | {"format": 0})):
        paths[0].write_text(text)
        assert matrices_of(run)[QUERY].rank_90 == 4, text[:40]
    assert paths[1].read_text().count("\n") == 1 + 15
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_the_record_of_a_large_model_stays_small():
    """Of 4096 values 48 are kept, the first 16, four of each later octave and the last."""
    places = keep_places(4096)
    assert places[:16] == list(range(1, 17)) and places[-1] == 4096 and len(places) == 48
    assert places == sorted(set(places))
    assert keep_places(0) == [] and keep_places(1) == [1] and keep_places(17) == list(range(1, 18))


def test_weights_that_are_not_the_runs(tmp_path):
    """Another preset under the same name, an exported model that was changed, one with NaN, none at all."""
    start, generator = start_arrays(9), np.random.default_rng(8)
    preset = write_model(tmp_path / "preset", start)
    run = make_run(tmp_path / "run", changed(start, generator)[0], preset=preset)
    moved = preset.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"cannot be had(.|\n)*--base SRC"):
        matrices_of(run)
    assert matrices_of(run, base=str(moved))[QUERY].rank_90 == 4
    write_model(preset, start_arrays(10))
    with pytest.raises(InputError, match=r"not the weights that the run started from(.|\n)*digest(.|\n)*--base SRC"):
        matrices_of(run)
    shutil.rmtree(run / "model")
    write_model(run / "model", start)
    with pytest.raises(InputError, match=r"not those that the run exported(.|\n)*put back"):
        matrices_of(run)
    shutil.rmtree(run / "model")
    with pytest.raises(InputError, match=r"left no model/(.|\n)*finished(.|\n)*put the folder back"):
        matrices_of(run)
    bad = {path: np.full_like(array, np.nan) if path.startswith(QUERY) else array for path, array in start.items()}
    with pytest.raises(InputError, match="not finite"):
        matrices_of(make_run(tmp_path / "bad", bad, preset=moved))


@pytest.mark.process
def test_no_framework_is_loaded(tmp_path):
    run = make_run(tmp_path / "run", changed(start_arrays(), np.random.default_rng(0))[0])
    code = (
        "import sys; from llama_exp.inspection import measure_update; from llama_exp.results import load_run; "
        "measure_update(load_run(sys.argv[1])); "
        "print([name for name in ('keras', 'tensorflow', 'jax') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
