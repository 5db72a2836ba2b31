"""Training and prediction on an embedding model: cached vectors, its file, ensembles."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from sklearn.metrics import roc_auc_score

import antpitta as ap
from antpitta import api
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.audio import probe, read
from antpitta.files.bundle import read_bundle
from antpitta.files.own_files import load_tensors
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.features import FeatureExtractor
from antpitta.predict.predictor import Predictor
from antpitta.train import training


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, write_network):
    path = tmp_path_factory.mktemp("network") / "spectrum.onnx"
    write_network(path, bands=64, floor=0.0)  # silence has no logarithm
    return path


def changes_for(path):
    return (
        f"embedding.model={path}",
        "embedding.sample_rate=16000",
        "embedding.seconds=1.0",
        "embedding.step=0.25",
        "windows.frames=40",
        "folds=2",
        "stages.masked.epochs=15",
        "stages.masked.lr=0.02",
    )


@pytest.fixture(scope="module")
def embedding_run(tmp_path_factory, simulated, model_file):
    out = tmp_path_factory.mktemp("embedded") / "vectors"
    return ap.train(ap.open_data(simulated), "embedding", out, changes=changes_for(model_file))


def test_embedding_run_separates_present_from_absent_boxes(embedding_run, simulated):
    assert np.isfinite(ap.evaluate(embedding_run).lwlrap)
    # A dozen recordings are too few for others; half of the folds were trained on these boxes.
    scores = ap.predict(embedding_run.model, simulated / "train")
    means = {True: [], False: []}
    for box in ap.open_data(simulated).dataset.annotations:
        file = next((simulated / "train").glob(f"{box.recording}.*"))
        rows = scores.loc[str(file)]
        start, stop = (rows.index.get_level_values(i) for i in (0, 1))
        inside = (start < box.stop) & (stop > box.start)
        means[box.present].append(rows.loc[inside, box.label].mean())
    truth = [True] * len(means[True]) + [False] * len(means[False])
    assert roc_auc_score(truth, means[True] + means[False]) > 0.7


def test_embedding_bundle_predicts_a_row_per_vector(embedding_run, simulated):
    scores = ap.predict(embedding_run.model, simulated / "test")
    assert np.isfinite(scores.to_numpy()).all()
    assert scores.to_numpy().std() > 0.01
    rows = scores.loc[scores.index.get_level_values("file")[0]].index.to_frame()
    assert len(rows) == 32  # 8 s at a quarter of a second
    assert (rows["end_time"] - rows["start_time"]).to_numpy() == pytest.approx(0.25)


def test_embedding_bundle_names_the_model_file_and_does_not_contain_it(embedding_run, model_file):
    settings = json.loads((embedding_run.model / "bundle.json").read_text())["recipe"]["embedding"]
    assert settings["model"] == str(model_file)
    assert len(settings["model_digest"]) == 40
    assert not list(embedding_run.path.rglob("*.onnx"))
    card = (embedding_run.model / "MODEL_CARD.md").read_text()
    assert settings["model_digest"] in card
    assert "embedding.step" in card
    assert "spectrum.onnx" in (embedding_run.path / "report.html").read_text()


@pytest.fixture(scope="module")
def second_run(tmp_path_factory, embedding_run, simulated, model_file):
    """Return the same run on a copy of the model file, the copy, and the calls of the model."""
    home = tmp_path_factory.mktemp("again")
    copy = shutil.copy(model_file, home / "here.onnx")
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddingModel, "embed", lambda *args: calls.append(args))
        data = ap.open_data(simulated)
        run = ap.train(data, "embedding", home / "run", changes=changes_for(copy))
    return run, copy, calls


def test_second_run_on_the_same_content_takes_vectors_from_the_cache(embedding_run, second_run):
    run, _, calls = second_run
    assert not calls
    for path in embedding_run.path.glob("stages/*/fold*.safetensors"):
        weights = load_tensors(run.path / path.relative_to(embedding_run.path))[0]
        for name, value in load_tensors(path)[0].items():
            assert torch.equal(value, weights[name]), (path, name)


def test_prediction_uses_the_vectors_of_training(embedding_run, simulated):
    [model] = Predictor(read_bundle(embedding_run.model)).models
    file = next((simulated / "train").glob("*.*"))
    recording = probe(file, file.stem)
    (segment,) = model.extractor.config.segments(recording.duration)
    vectors = model.extractor.extract_segment(recording, *segment, read)
    with torch.inference_mode():
        logits = model.backend.nets[0](torch.from_numpy(vectors)[None]).framewise
    scores = model.backend.predict(vectors)[0]
    np.testing.assert_allclose(scores, logits.sigmoid()[0], atol=1e-6)


def test_model_file_that_moved_or_changed_is_found_or_an_error(
    second_run, simulated, tmp_path, write_network, monkeypatch
):
    run, path, _ = second_run
    expected = ap.predict(run.model, simulated / "test")
    moved = path.rename(tmp_path / "moved.onnx")
    with pytest.raises(UserError) as error:
        ap.predict(run.model, simulated / "test")
    assert error.value.code == "E_NO_EMBEDDING_MODEL"
    write_network(path, bands=63)
    with pytest.raises(UserError) as error:
        ap.predict(run.model, simulated / "test")
    assert error.value.code == "E_OTHER_EMBEDDING_MODEL"
    with pytest.raises(UserError) as error:  # the content belongs to the recipe
        ap.train(
            ap.open_data(simulated), "embedding", run.path, changes=changes_for(path), resume=True
        )
    assert str(run.path) in error.value.what
    monkeypatch.setenv("ANTPITTA_EMBEDDING", str(moved))
    pd.testing.assert_frame_equal(ap.predict(run.model, simulated / "test"), expected)


def test_ensemble_with_a_spectrogram_run_predicts_on_the_finer_grid(
    embedding_run, run, simulated, tmp_path
):
    ap.ensemble([embedding_run.path, run.path], tmp_path / "both", method="mean")
    both = ap.predict(tmp_path / "both", simulated / "test")
    parts = [ap.predict(member.model, simulated / "test") for member in (embedding_run, run)]
    assert len(both) == max(map(len, parts))
    fine, coarse = sorted(parts, key=len, reverse=True)
    file, start, stop = both.index[57]
    middle = (start + stop) / 2
    rows = coarse.loc[file].reset_index()
    row = rows[(rows.start_time <= middle) & (middle < rows.end_time)].iloc[0, 2:]
    expected = (fine.iloc[57] + row.astype(float)) / 2
    np.testing.assert_allclose(both.iloc[57].to_numpy(), expected, atol=1e-6)


def test_members_with_one_embedding_model_share_its_vectors(
    embedding_run, simulated, tmp_path, monkeypatch
):
    second = tmp_path / "second"
    shutil.copytree(embedding_run.path, second)
    ap.ensemble([embedding_run.path, second], tmp_path / "both")
    calls = []
    embed = EmbeddingModel.embed
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(EmbeddingModel, "embed", lambda *args: calls.append(1) or embed(*args))
    both = ap.predict(tmp_path / "both", simulated / "test")
    assert len(calls) == 4  # recordings
    pd.testing.assert_frame_equal(ap.predict(tmp_path / "both", simulated / "test"), both)
    assert len(calls) == 4  # the vectors are cached
    alone = ap.predict(embedding_run.model, simulated / "test")
    np.testing.assert_allclose(both.to_numpy(), alone.to_numpy(), atol=1e-6)


def test_recording_of_several_segments_is_cached_as_one_file(embedding_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    sf.write(tmp_path / "long.wav", rng.normal(0, 0.1, round(130.3 * 16_000)), 16_000)
    recording = probe(tmp_path / "long.wav", "long")
    [model] = Predictor(read_bundle(embedding_run.model)).models
    cached = model.extractor
    uncached = FeatureExtractor(cached.config, cached.width, cached.compute)
    segments = cached.config.segments(recording.duration)
    assert len(segments) > 1
    for start, stop in segments:
        np.testing.assert_array_equal(
            cached.extract_segment(recording, start, stop, read),
            uncached.extract_segment(recording, start, stop, read),
        )
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_damaged_recording_has_its_note_also_when_its_vectors_are_cached(
    embedding_run, simulated, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    damaged = tmp_path / "damaged.flac"
    sf.write(damaged, rng.normal(0, 0.1, 10 * 16_000), 16_000)
    raw = damaged.read_bytes()
    middle = len(raw) // 2
    damaged.write_bytes(raw[:middle] + bytes(2000) + raw[middle + 2000 :])

    def predict(name):
        api.predict_to(embedding_run.model, damaged, tmp_path / name)
        return (tmp_path / name / "quarantine.csv").read_text()

    told = [predict(name) for name in ("first", "second")]
    assert told[0] == told[1]
    assert "do not decode" in told[0]
    # As training leaves it in the cache.
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "other"))
    recipe = parse_recipe(read_bundle(embedding_run.model).recipe, "")
    data = replace(
        ap.open_data(simulated).dataset, recordings=(probe(damaged, "damaged"),), annotations=()
    )
    training._compute_features(data, recipe, Progress(lambda _: None, lambda *_: None))
    assert predict("third") == told[0]


def test_recording_with_vectors_that_are_not_finite_goes_to_quarantine(
    embedding_run, simulated, tmp_path
):
    silent = tmp_path / "silent.wav"
    sf.write(silent, np.zeros(32_000), 16_000)
    good = next((simulated / "test").glob("*.*"))
    scores = ap.predict(embedding_run.model, good, silent)
    assert set(scores.index.get_level_values("file")) == {str(good)}
    ((file, reason),) = scores.attrs["quarantine"]
    assert file == str(silent)
    assert "0.0 s" in reason
