"""predict: precisions and inference modes agree, threads change nothing, runs resume."""

import inspect
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import antpitta as ap
from antpitta.api import predict_to, prediction
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.files.recordings import list_files
from antpitta.files.runs import RunFolder, read_scores
from antpitta.model.inference import InferenceConfig, OpenVinoBackend
from antpitta.model.torch_inference import TorchBackend
from antpitta.predict import pipeline, predictor
from antpitta.predict.predictor import Predictor, open_backend
from antpitta.train import export as exporting
from tests.sealed_bundles import change, seal


@pytest.fixture(scope="module")
def sounds(simulated):
    return sorted((simulated / "test").iterdir())[:3]


@pytest.fixture
def not_exported(run, tmp_path):
    """The same model without exported networks."""
    folder = tmp_path / "not_exported"
    shutil.copytree(run.model, folder)
    change(
        folder,
        networks={},
        files=lambda files: {name: files[name] for name in files if "network" not in name},
    )
    seal(folder)
    return folder


def test_exported_networks_give_the_scores_of_the_weights(run, not_exported, sounds):
    exported = ap.predict(run.model, *sounds, precision="float32")
    weights = ap.predict(not_exported, *sounds)
    pd.testing.assert_frame_equal(exported, weights, atol=2e-3, rtol=0)
    assert isinstance(Predictor(read_bundle(run.model)).models[0].backend, OpenVinoBackend)
    assert isinstance(Predictor(read_bundle(not_exported)).models[0].backend, TorchBackend)


def test_sliding_inference_gives_the_out_of_fold_scores_of_training(run, simulated):
    folds = pd.read_csv(run.path / "folds.csv").set_index("recording")["fold"]
    out_of_fold = pd.read_parquet(run.path / "oof_scores.parquet")
    name = folds.index[0]
    bundle = read_bundle(run.model)
    file = next(path for path in (simulated / "train").iterdir() if path.stem == name)
    weights = (bundle.weights[folds[name]],)
    one_fold = replace(bundle, weights=weights, networks={})
    sliding = Predictor(one_fold, InferenceConfig("sliding", "float32"))
    [result] = pipeline.predict_files(sliding, list_files([file])[0])
    expected = out_of_fold[out_of_fold["recording"] == name][list(bundle.species)]
    np.testing.assert_allclose(result.scores.value, expected, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 3])
def test_number_of_threads_changes_no_table(run, sounds, tmp_path, workers):
    predict_to(run.model, sounds, tmp_path / "two", workers=2, precision="float32")
    predict_to(run.model, sounds, tmp_path / "other", workers=workers, precision="float32")
    for name in ("presence.csv", "events.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_pytorch_uses_one_thread_per_worker(run, sounds, monkeypatch, workers):
    """A sum that PyTorch splits would change the last digits, and so the tables."""
    threads, plain = set(), Predictor.predict

    def predict(self, *arguments):
        threads.add(torch.get_num_threads())
        return plain(self, *arguments)

    monkeypatch.setattr(Predictor, "predict", predict)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ap.predict(run.model, sounds[0], inference="sliding", workers=workers)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads == {1}


def test_prediction_with_openvino_does_not_import_pytorch(run, sounds, tmp_path):
    """PyTorch takes as long to import as OpenVINO for twenty minutes of sound."""
    code = """if True:
        import sys
        from antpitta.cli import app
        app(sys.argv[1:], standalone_mode=False)
        heavy = {"torch", "timm", "sklearn", "nncf", "matplotlib", "lightning_fabric", "ray"}
        sys.exit(" ".join(heavy & set(sys.modules)) or 0)
    """
    words = ["predict", run.model, sounds[0], "-o", tmp_path, "--precision", "float32"]
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_import_of_predict_to_does_not_import_pandas():
    """It is imported while the first recordings are computed (api/prediction.py)."""
    code = """if True:
        import sys, antpitta.cli
        from antpitta.api import predict_to
        sys.exit(" ".join({"pandas", "pyarrow", "scipy"} & set(sys.modules)) or 0)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_one_more_thread_reads_where_networks_have_their_own_threads(run, monkeypatch):
    monkeypatch.setattr(pipeline, "cpu_count", lambda: 2)
    bundle = read_bundle(run.model)
    for precision, inference, workers, threads in (
        *(("float32", "full", 2, 3), ("float32", "full", 3, 4)),
        ("float32", "full", 1, 1),  # one core stays one core
        ("float32", "sliding", 2, 2),  # PyTorch computes in the calling thread
    ):
        loaded = Predictor(bundle, InferenceConfig(inference, precision, workers))
        assert pipeline.thread_count(loaded) == threads


def test_pytorch_looks_for_a_gpu_only_where_there_is_a_driver(monkeypatch):
    calls = []
    monkeypatch.setattr(predictor, "AMD_DEVICE", Path("/nowhere"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not calls.append("torch"))
    for libraries, gpu in (((), False), ((None,), True)):  # None is this process itself
        monkeypatch.setattr(predictor, "NVIDIA_LIBRARIES", libraries)
        assert predictor.has_gpu.__wrapped__() is gpu
        assert bool(calls) is gpu


def test_long_file_has_the_scores_of_its_minutes_away_from_their_edges(run, sounds, tmp_path):
    rate = sf.info(sounds[0]).samplerate
    minutes = [np.tile(sf.read(path)[0], 20)[: 60 * rate] for path in sounds]
    for i, wave in enumerate(minutes):
        sf.write(tmp_path / f"m{i}.wav", wave, rate, subtype="FLOAT")
    sf.write(tmp_path / "long.wav", np.concatenate(minutes), rate, subtype="FLOAT")
    for inference in ("full", "sliding"):
        scores = ap.predict(run.model, tmp_path, inference=inference)
        long = scores.xs(str(tmp_path / "long.wav"), level="file").reset_index()
        for i in range(len(minutes)):
            minute = scores.xs(str(tmp_path / f"m{i}.wav"), level="file").reset_index()
            middle = minute[(minute["start_time"] > 2) & (minute["end_time"] < 58)]
            centres = (middle["start_time"] + middle["end_time"]).to_numpy() / 2 + 60 * i
            rows = np.searchsorted(long["start_time"], centres, side="right") - 1
            columns = list(scores.columns)
            difference = long.loc[rows, columns].to_numpy() - middle[columns].to_numpy()
            # rows of the long file are up to half a row beside those of the minute
            assert np.median(np.abs(difference)) < 1e-3


def test_precision_that_a_model_cannot_compute_is_a_user_error(run, not_exported, sounds, tmp_path):
    with pytest.raises(UserError, match="sliding") as sliding:
        predict_to(run.model, sounds, tmp_path / "a", inference="sliding", precision="int8")
    with pytest.raises(UserError, match=str(not_exported)) as no_network:
        predict_to(not_exported, sounds, tmp_path / "b", precision="int8")
    bundle = read_bundle(run.model)
    no_int8 = replace(bundle, networks={"float": bundle.networks["float"]})
    recipe = parse_recipe(no_int8.recipe, "here")
    with pytest.raises(UserError, match=r"MODEL_CARD\.md") as inaccurate:
        open_backend(no_int8, recipe, InferenceConfig(precision="int8"), 32)
    for error in (sliding, no_network, inaccurate):
        assert error.value.code == "E_PRECISION_UNAVAILABLE"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"precision": "bfloat16"}),
        ({"precision": "bfloat16"}, {}),
        ({}, {"inference": "sliding"}),
    ],
)
def test_resume_with_another_precision_or_inference_is_refused(
    run, sounds, tmp_path, first, second
):
    predict_to(run.model, sounds[:2], tmp_path, **first)
    before = (tmp_path / "presence.csv").read_bytes()
    with pytest.raises(UserError) as error:
        predict_to(run.model, sounds, tmp_path, resume=True, **second)
    assert error.value.code == "E_RESUME_MISMATCH"
    assert (tmp_path / "presence.csv").read_bytes() == before
    assert predict_to(run.model, sounds, tmp_path, resume=True, **first).counts.recordings == len(
        sounds
    )


def test_precision_is_float32_unless_another_one_is_named(run, sounds, tmp_path):
    predict_to(run.model, sounds[:1], tmp_path / "default")
    predict_to(run.model, sounds[:1], tmp_path / "named", precision="float32")
    assert noted(tmp_path / "default")["precision"] == "float32"
    for table in ("presence.csv", "events.csv"):
        default, named = (tmp_path / name / table for name in ("default", "named"))
        assert default.read_bytes() == named.read_bytes()
    for function in (ap.predict, predict_to):
        assert inspect.signature(function).parameters["precision"].default == "float32"
    assert InferenceConfig().precision == "float32"


def test_unknown_precision_is_a_user_error(run, sounds, tmp_path):
    with pytest.raises(UserError) as error:
        predict_to(run.model, sounds[:1], tmp_path, precision="auto")
    assert error.value.code == "E_OPTION"


def noted(out):
    """The content of run.json."""
    return json.loads((out / "run.json").read_text())


def test_names_like_gaps_keep_their_text_in_the_results(run, sounds, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(run.model, model)
    text = (model / "bundle.json").read_text()
    for old, new in (('"s0"', '"NA"'), ('"s1"', '"null"')):
        text = text.replace(old, new)
    (model / "bundle.json").write_text(text)
    seal(model)
    shutil.copy(sounds[0], tmp_path / "NA.flac")
    shutil.copy(sounds[1], tmp_path / "null.flac")
    audio = [tmp_path / "NA.flac", tmp_path / "null.flac"]
    result = predict_to(model, audio, tmp_path / "out", formats=("csv",))
    assert result.presence["recording_id"].tolist() == ["NA", "null"]
    assert list(result.presence)[1:3] == ["NA", "null"]
    assert not result.events["species"].isna().any()
    assert set(result.events["file"]) <= {str(path) for path in audio}


# ---- a user's files in the output folder ----


def csv_files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def test_prediction_replaces_its_own_tables_and_deletes_those_of_other_formats(
    run, sounds, tmp_path
):
    predict_to(run.model, sounds, tmp_path, formats=("csv", "raven"))
    (tmp_path / "notes.txt").write_text("mine")
    predict_to(run.model, sounds[:1], tmp_path, formats=("csv",))
    assert not (tmp_path / "events.raven.txt").exists()
    assert len(pd.read_csv(tmp_path / "presence.csv")) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["events.csv", "events.raven.txt", "presence.csv", "run.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_corrected_table_is_neither_replaced_nor_deleted(run, sounds, tmp_path, name, resume):
    predict_to(run.model, sounds[:1], tmp_path, formats=("csv", "raven"))
    (tmp_path / name).write_text("corrected")
    before = csv_files(tmp_path)
    for options in ({"formats": ("csv",)}, {"formats": ("parquet",)}):
        with pytest.raises(UserError) as error:
            predict_to(run.model, sounds[:2], tmp_path, resume=resume, **options)
        assert error.value.code == "E_OUTPUT_EDITED"
        assert str(tmp_path / name) in error.value.what
    assert (tmp_path / name).read_text() == "corrected"
    assert csv_files(tmp_path) == before
    assert predict_to(run.model, sounds[:1], tmp_path / "new").counts.recordings == 1


def test_table_of_a_user_is_not_replaced(run, sounds, tmp_path):
    (tmp_path / "presence.csv").write_text("mine")
    with pytest.raises(UserError) as error:
        predict_to(run.model, sounds[:1], tmp_path)
    assert error.value.code == "E_OUTPUT_EDITED"
    assert (tmp_path / "presence.csv").read_text() == "mine"
    (tmp_path / "presence.csv").unlink()
    (tmp_path / "events.csv").write_text("mine")
    with pytest.raises(UserError) as error:
        predict_to(run.model, sounds[:1], tmp_path)
    assert error.value.code == "E_OUTPUT_EDITED"
    assert csv_files(tmp_path) == {"events.csv": b"mine"}


def test_prediction_into_a_run_or_a_model_is_refused(run, sounds, tmp_path):
    for name, source in (("run", run.path), ("model", run.model)):
        shutil.copytree(source, tmp_path / name)
        before = sorted((tmp_path / name).rglob("*"))
        with pytest.raises(UserError) as error:
            predict_to(run.model, sounds[:1], tmp_path / name)
        assert error.value.code == "E_OUT_NOT_EMPTY"
        assert sorted((tmp_path / name).rglob("*")) == before


def test_precision_that_cannot_be_computed_deletes_nothing(run, not_exported, sounds, tmp_path):
    out = tmp_path / "out"
    predict_to(not_exported, sounds, out)
    before = csv_files(out)
    with pytest.raises(UserError) as error:
        predict_to(not_exported, sounds, out, precision="int8")
    assert error.value.code == "E_PRECISION_UNAVAILABLE"
    with pytest.raises(UserError):
        predict_to(run.model, sounds, out, inference="sliding", precision="int8")
    assert csv_files(out) == before
    with closing(sqlite3.connect(out / "journal.sqlite")) as journal:
        assert journal.execute("SELECT count(*) FROM recordings").fetchone() == (len(sounds),)
    assert predict_to(not_exported, sounds, out, resume=True).counts.recordings == len(sounds)


def test_card_lists_the_loss_of_each_precision(run):
    card = (run.model / "MODEL_CARD.md").read_text()
    table = card.split("## Precision of predict")[1].split("##")[0]
    assert "| sliding windows, float32 |" in table
    assert "| full inference, float32 |" in table
    int8 = next(line for line in table.splitlines() if "int8" in line)
    offered = "int8" in read_bundle(run.model).networks
    assert int8.endswith("| yes |" if offered else "| no |")
    lost = float(int8.split("|")[3])
    assert offered == (lost < exporting.MAX_INT8_LOSS)


def test_int8_that_loses_too_much_is_left_out(run, simulated, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_INT8_LOSS", -1.0)
    bundle = read_bundle(run.model)
    exported = exporting.export_networks(
        ap.open_data(simulated).dataset,
        parse_recipe(bundle.recipe, "here"),
        bundle.states(),
        RunFolder(run.path).folds(),
        read_scores(run.path / "oof_scores.parquet"),
    )
    assert set(exported.networks) == {"float"}
    assert exported.results[-1].accepted is False
    exact, plain = exported.results[:2]
    assert exact.loss == 0
    assert plain.macro_ap == pytest.approx(exact.macro_ap, abs=0.1)
    assert plain.loss == pytest.approx(exact.macro_ap - plain.macro_ap)


def test_species_called_like_an_index_level_has_a_column_of_its_own(run, sounds, monkeypatch):
    plain = read_bundle(run.model)
    names = ("file", "start_time", "end_time", "recording", *plain.species[4:])
    thresholds = dict(zip(names, plain.thresholds.values(), strict=True))
    monkeypatch.setattr(
        "antpitta.api.prediction.read_bundle",
        lambda path: replace(plain, species=names, thresholds=thresholds),
    )
    scores = ap.predict(run.model, *sounds)
    assert list(scores.columns[:4]) == [
        *("file (species)", "start_time (species)", "end_time (species)", "recording"),
    ]
    table = scores.reset_index()
    assert list(table.columns[:3]) == ["file", "start_time", "end_time"]
    assert set(table["file"]) == {str(path) for path in sounds}
    assert scores["file (species)"].groupby("file").max().notna().all()
    empty = prediction._empty_frame(names, "a.wav", "is gone")
    assert list(empty.reset_index().columns) == list(table.columns)
