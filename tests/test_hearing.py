"""How a run's model is heard: by what arithmetic, in what pieces, by how many threads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import antpitta as ap
from antpitta.api import predict_to
from antpitta.core.errors import UserError
from antpitta.files.bundle import read_bundle
from antpitta.model.inference import InferenceConfig, OpenVinoBackend
from antpitta.model.torch_inference import TorchBackend
from antpitta.predict import predictor as gpu
from antpitta.predict.predictor import Predictor, open_backend, resolve_precision
from antpitta.train import export as exporting


@pytest.fixture(scope="module")
def sounds(scapes):
    return sorted((scapes / "test").iterdir())[:3]


@pytest.fixture
def bare(run, tmp_path):
    """The same model as it was written before there were exported networks."""
    shutil.copytree(run.model, tmp_path / "bare")
    file = tmp_path / "bare" / "bundle.json"
    said = json.loads(file.read_text())
    del said["networks"]
    file.write_text(json.dumps({**said, "layout": 1}))
    return tmp_path / "bare"


def test_the_models_own_networks_hear_as_its_weights_do(run, bare, sounds):
    exported = ap.predict(run.model, *sounds, precision="float32")
    weights = ap.predict(bare, *sounds)
    pd.testing.assert_frame_equal(exported, weights, atol=2e-3, rtol=0)
    assert isinstance(Predictor(read_bundle(run.model)).listeners[0].engine, OpenVinoBackend)
    assert isinstance(Predictor(read_bundle(bare)).listeners[0].engine, TorchBackend)


def test_windows_are_heard_as_training_heard_what_it_held_out(run, scapes):
    """The exact mode gives, fold by fold, what the run's out-of-fold scores are made of."""
    folds = run.path / "folds.csv"
    fold = pd.read_csv(folds).set_index("recording")["fold"]
    oof = pd.read_parquet(run.path / "oof_scores.parquet")
    name = fold.index[0]
    bundle = read_bundle(run.model)
    file = next(path for path in (scapes / "train").iterdir() if path.stem == name)
    own = type(bundle)(**{**vars(bundle), "weights": (bundle.weights[fold[name]],), "networks": {}})
    from antpitta.files.recordings import list_files
    from antpitta.predict.pipeline import predict_files

    (one,) = predict_files(
        Predictor(own, InferenceConfig("sliding", "float32")), list_files([file])[0]
    )
    wanted = oof[oof["recording"] == name][list(bundle.species)]
    np.testing.assert_allclose(one.scores.value, wanted, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(run, sounds, tmp_path, workers):
    predict_to(run.model, sounds, tmp_path / "two", workers=2, precision="float32")
    predict_to(run.model, sounds, tmp_path / "other", workers=workers, precision="float32")
    for name in ("presence.csv", "events.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_each_thread_computes_alone_whatever_their_number(run, sounds, monkeypatch, workers):
    """A sum that PyTorch splits has other last digits, and so would the tables."""
    seen, plain = set(), Predictor.hear

    def hear(self, *asked):
        seen.add(torch.get_num_threads())
        return plain(self, *asked)

    monkeypatch.setattr(Predictor, "hear", hear)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ap.predict(run.model, sounds[0], inference="sliding", workers=workers)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_openvino_hears_without_loading_pytorch(run, sounds, tmp_path):
    """PyTorch takes as long to load as twenty minutes of sound to hear."""
    code = """if True:
        import sys
        from antpitta.cli import app
        app(sys.argv[1:], standalone_mode=False)
        heavy = {"torch", "timm", "sklearn", "nncf", "matplotlib", "lightning_fabric", "ray"}
        sys.exit(" ".join(heavy & set(sys.modules)) or 0)
    """
    asked = ["predict", run.model, sounds[0], "-o", tmp_path, "--precision", "float32"]
    command = [sys.executable, "-c", code, *map(str, asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_pandas_is_not_waited_for_before_the_first_sound():
    """What writes tables is loaded while sound is heard (api/prediction.py)."""
    code = """if True:
        import sys, antpitta.cli
        from antpitta.api import predict_to
        sys.exit(" ".join({"pandas", "pyarrow", "scipy"} & set(sys.modules)) or 0)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_one_thread_more_reads_where_networks_compute_aside(run, monkeypatch):
    from antpitta.predict import pipeline as listening

    monkeypatch.setattr(listening, "cpu_count", lambda: 2)
    bundle = read_bundle(run.model)
    for precision, inference, workers, threads in (
        *(("float32", "full", 2, 3), ("float32", "full", 3, 4)),
        ("float32", "full", 1, 1),  # who asks for one core gets no more
        ("float32", "sliding", 2, 2),  # PyTorch computes in the thread that asks
    ):
        choir = Predictor(bundle, InferenceConfig(inference, precision, workers))
        assert listening.threads_for(choir) == threads


def test_a_gpu_is_asked_for_only_where_a_driver_is(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "AMD", Path("/nowhere"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not asked.append("torch"))
    for drivers, found in (((), False), ((None,), True)):  # None is what this process has loaded
        monkeypatch.setattr(gpu, "DRIVERS", drivers)
        assert gpu.has_gpu.__wrapped__() is found
        assert bool(asked) is found


def test_a_long_file_is_heard_as_its_minutes_away_from_the_cuts(run, sounds, tmp_path):
    minute = [np.tile(sf.read(path)[0], 20) for path in sounds]
    rate = sf.info(sounds[0]).samplerate
    minute = [wave[: 60 * rate] for wave in minute]
    for i, wave in enumerate(minute):
        sf.write(tmp_path / f"m{i}.wav", wave, rate, subtype="FLOAT")
    sf.write(tmp_path / "long.wav", np.concatenate(minute), rate, subtype="FLOAT")
    for inference in ("full", "sliding"):
        found = ap.predict(run.model, tmp_path, inference=inference)
        long = found.xs(str(tmp_path / "long.wav"), level="file").reset_index()
        for i in range(len(minute)):
            own = found.xs(str(tmp_path / f"m{i}.wav"), level="file").reset_index()
            middle = own[(own["start_time"] > 2) & (own["end_time"] < 58)]
            whens = (middle["start_time"] + middle["end_time"]).to_numpy() / 2 + 60 * i
            rows = np.searchsorted(long["start_time"], whens, side="right") - 1
            columns = list(found.columns)
            difference = long.loc[rows, columns].to_numpy() - middle[columns].to_numpy()
            # rows of the long file lie up to half a row beside those of the minute
            assert np.median(np.abs(difference)) < 1e-3


def test_what_a_model_cannot_do_is_said_with_the_remedy(run, bare, sounds, tmp_path):
    with pytest.raises(UserError, match="exact mode and computes in float32"):
        predict_to(run.model, sounds, tmp_path / "a", inference="sliding", precision="int8")
    with pytest.raises(UserError, match="without networks for OpenVINO; train it again"):
        predict_to(bare, sounds, tmp_path / "b", precision="int8")
    bundle = read_bundle(run.model)
    plain = type(bundle)(**{**vars(bundle), "networks": {"float": bundle.networks["float"]}})
    from antpitta.core.config import parse_recipe

    recipe = parse_recipe(plain.recipe, "here")
    with pytest.raises(UserError, match="lost too much accuracy"):
        open_backend(plain, recipe, InferenceConfig(precision="int8"), 32)


def test_a_run_goes_on_with_the_arithmetic_it_began_with(run, sounds, tmp_path, monkeypatch):
    predict_to(run.model, sounds[:2], tmp_path)
    before = json.loads((tmp_path / "run.json").read_text())["arithmetic"]
    other = "bfloat16" if before == "full, float32" else "float32"
    monkeypatch.setattr("antpitta.api.prediction.settle", lambda *asked: other)
    predict_to(run.model, sounds, tmp_path, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["arithmetic"] == before
    predict_to(run.model, sounds, tmp_path)  # begun anew, it chooses anew
    assert json.loads((tmp_path / "run.json").read_text())["arithmetic"] == f"whole, {other}"
    with pytest.raises(UserError, match="another --inference or --precision"):
        predict_to(run.model, sounds, tmp_path, resume=True, inference="sliding")


def test_auto_is_float_of_one_kind_or_the_other(run, bare):
    assert resolve_precision("auto", "full", read_bundle(run.model)) in ("float32", "bfloat16")
    assert resolve_precision("auto", "full", read_bundle(bare)) == "float32"
    assert resolve_precision("int8", "full", read_bundle(run.model)) == "int8"


def test_windows_are_exact_where_bfloat16_is_faster(run, sounds, monkeypatch):
    monkeypatch.setattr("antpitta.predict.predictor.faster_float", lambda: "bfloat16")
    assert resolve_precision("auto", "full", read_bundle(run.model)) == "bfloat16"
    exact = ap.predict(run.model, sounds[0], inference="sliding")
    pd.testing.assert_frame_equal(
        exact, ap.predict(run.model, sounds[0], inference="sliding", precision="float32")
    )


def test_the_card_says_what_each_arithmetic_costs(run):
    card = (run.model / "MODEL_CARD.md").read_text()
    table = card.split("## Arithmetic")[1].split("##")[0]
    assert "| overlapping windows, float32 |" in table
    assert "| whole images, float32 |" in table
    int8 = next(line for line in table.splitlines() if "int8" in line)
    offered = "int8" in read_bundle(run.model).networks
    assert int8.endswith("| yes |" if offered else "| no |")
    lost = float(int8.split("|")[3])
    assert offered == (lost < exporting.ALLOWED)


def test_int8_that_costs_too_much_is_left_out(run, scapes, monkeypatch):
    from antpitta.core.config import parse_recipe
    from antpitta.files.runs import RunFolder, read_scores

    monkeypatch.setattr(exporting, "ALLOWED", -1.0)
    bundle = read_bundle(run.model)
    found = exporting.export_networks(
        ap.open_data(scapes).dataset,
        parse_recipe(bundle.recipe, "here"),
        bundle.states(),
        RunFolder(run.path).folds(),
        read_scores(run.path / "oof_scores.parquet"),
    )
    assert set(found.networks) == {"float"}
    assert [one.accepted for one in found.results][-1] is False
    exact, plain = found.results[:2]
    assert exact.loss == 0
    assert plain.macro_ap == pytest.approx(exact.macro_ap, abs=0.1)
    assert plain.loss == pytest.approx(exact.macro_ap - plain.macro_ap)
