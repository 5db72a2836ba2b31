"""Learning on somebody's network: padding, training, the bundle that needs its file, ensembles."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from sklearn.metrics import roc_auc_score

import antpitta as ap
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.files.audio import probe, read
from antpitta.files.bundle import read_bundle
from antpitta.files.runs import load_tensors
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.features import FeatureExtractor
from antpitta.model.network import PADDING_LOGIT, SedNet
from antpitta.predict.predictor import Predictor

NET = BackboneConfig(name="embedding")
HEAD = HeadConfig()


def vectors(windows=3, frames=12, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.standard_normal((windows, frames, width)) * 7 + 3).astype("f2"))


def padded(seen, frames):
    return torch.nn.functional.pad(seen, (0, 0, 0, frames))


def pseudo_labels(head, width=5, classes=2):
    net = SedNet(NET, head, classes, bands=width)
    with torch.no_grad():
        for part in (
            net.head.class_conv.weight,
            net.head.attention_conv.weight,
            net.head.class_conv.bias,
        ):
            part.copy_(torch.linspace(-1, 1, part.numel()).view_as(part))
    return net


@pytest.mark.parametrize(
    "more", [{}, {"smoothing_frames": 3}, {"background_subtraction": 1.0}, {"smoothing_frames": 4}]
)
def test_padding_changes_nothing_in_training_or_after(more):
    head = HEAD.model_copy(update=more)
    plain, longer = pseudo_labels(head), pseudo_labels(head)
    seen = vectors()
    for training in (True, True, False):
        plain.train(training)
        longer.train(training)
        one, two = plain(seen), longer(padded(seen, 20))
        torch.testing.assert_close(one.clipwise, two.clipwise)
        torch.testing.assert_close(one.framewise, two.framewise[:, :12])
        assert (two.framewise[:, 12:] == PADDING_LOGIT).all()
    torch.testing.assert_close(
        plain.head.normalizer.running_var, longer.head.normalizer.running_var
    )
    assert plain.stride == 1
    assert not any(name.startswith("body") for name in plain.state_dict())


def test_vectors_are_levelled_whatever_their_scale():
    net = pseudo_labels(NET)
    small = vectors().float() / 4
    torch.testing.assert_close(net(small).clipwise, net(small * 100).clipwise, rtol=1e-3, atol=1e-3)


def test_windows_without_sound_or_with_one_frame_of_it_give_finite_logits():
    for frames in (0, 1):
        net = pseudo_labels(NET).train()
        seen = vectors(windows=1)
        seen[:, frames:] = 0
        found = net(seen)
        assert torch.isfinite(found.clipwise).all()
        found.clipwise.sum().backward()
        assert torch.isfinite(net.head.class_conv.weight.grad).all()


# ---- a run ----


@pytest.fixture(scope="module")
def network(tmp_path_factory, write_network):
    path = tmp_path_factory.mktemp("network") / "spectrum.onnx"
    write_network(path, bands=64, floor=0.0)  # silence has no logarithm
    return path


def changes(path, *more):
    return (
        f"embedding.model={path}",
        "embedding.sample_rate=16000",
        "embedding.seconds=1.0",
        "embedding.step=0.25",
        "windows.frames=40",
        "folds=2",
        *(f"stages.{name}.epochs=15" for name in ("masked", "pseudo")),
        *(f"stages.{name}.lr=0.02" for name in ("masked", "pseudo")),
        *more,
    )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, scapes, network):
    out = tmp_path_factory.mktemp("embedded") / "vectors"
    return ap.train(ap.open_data(scapes), "embedding", out, changes=changes(network))


def test_a_run_on_embeddings_learns_and_its_bundle_listens(embedded, scapes):
    assert np.isfinite(ap.evaluate(embedded).lwlrap)
    # A dozen recordings teach nothing about others; of its own, half of the folds know the boxes.
    labels = ap.predict(embedded.model, scapes / "train")
    boxes = ap.open_data(scapes).dataset.annotations
    means = {True: [], False: []}
    for box in boxes:
        mine = labels.loc[str(next((scapes / "train").glob(f"{box.recording}.*")))]
        start, stop = (mine.index.get_level_values(i) for i in (0, 1))
        inside = (start < box.stop) & (stop > box.start)
        means[box.present].append(mine.loc[inside, box.label].mean())
    truth = [True] * len(means[True]) + [False] * len(means[False])
    assert roc_auc_score(truth, means[True] + means[False]) > 0.7
    scores = ap.predict(embedded.model, scapes / "test")
    assert np.isfinite(scores.to_numpy()).all()
    assert scores.to_numpy().std() > 0.01
    first = scores.loc[scores.index.get_level_values("file")[0]].index.to_frame()
    assert len(first) == 32  # 8 s at a quarter of a second
    assert (first["end_time"] - first["start_time"]).to_numpy() == pytest.approx(0.25)


def test_the_bundle_names_the_file_it_needs_and_does_not_hold_it(embedded, network):
    said = json.loads((embedded.model / "bundle.json").read_text())["recipe"]["embedding"]
    assert said["model"] == str(network)
    assert len(said["model_digest"]) == 40
    assert not list(embedded.path.rglob("*.onnx"))
    card = (embedded.model / "MODEL_CARD.md").read_text()
    for words in ("needs a file that it does not hold", said["model_digest"], "a licence of its own"):
        assert words in card
    assert "embedding.step" in card
    assert "spectrum.onnx" in (embedded.path / "report.html").read_text()


@pytest.fixture(scope="module")
def again(tmp_path_factory, embedded, scapes, network):
    """The same on a copy of the file, and how often that was asked for vectors."""
    home = tmp_path_factory.mktemp("again")
    copy = shutil.copy(network, home / "here.onnx")
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddingModel, "embed", lambda *given: drawn.append(given))
        run = ap.train(ap.open_data(scapes), "embedding", home / "run", changes=changes(copy))
    return run, copy, drawn


def test_vectors_of_a_second_run_come_from_the_cache(embedded, again):
    run, _, drawn = again
    assert not drawn  # the same content under another name
    for path in embedded.path.glob("stages/*/fold*.safetensors"):
        ours = load_tensors(run.path / path.relative_to(embedded.path))[0]
        for name, value in load_tensors(path)[0].items():
            assert torch.equal(value, ours[name]), (path, name)


def test_prediction_sees_what_training_saw(embedded, scapes):
    [model] = Predictor(read_bundle(embedded.model)).models
    pen = model.extractor
    file = next((scapes / "train").glob("*.*"))
    recording = probe(file, file.stem)

    (image,) = pen.config.segments(recording.duration)
    found = pen.extract_segment(recording, *image, read)
    net = model.backend.nets[0]
    with torch.inference_mode():
        wanted = net(torch.from_numpy(found)[None]).framewise.sigmoid()[0]
    labels = model.backend.predict(found)[0]
    np.testing.assert_allclose(labels, wanted, atol=1e-6)


def test_prediction_refuses_another_network_and_finds_one_that_moved(
    again, scapes, tmp_path, write_network, monkeypatch
):
    run, place, _ = again
    wanted = ap.predict(run.model, scapes / "test")
    moved = place.rename(tmp_path / "moved.onnx")
    with pytest.raises(UserError, match=r"here.onnx: no such file"):
        ap.predict(run.model, scapes / "test")
    write_network(place, bands=63)
    with pytest.raises(UserError, match=r"is not the network that this model was trained on"):
        ap.predict(run.model, scapes / "test")
    with pytest.raises(UserError, match="another recipe"):
        ap.train(ap.open_data(scapes), "embedding", run.path, changes=changes(place), resume=True)
    monkeypatch.setenv("ANTPITTA_EMBEDDING", str(moved))
    pd.testing.assert_frame_equal(ap.predict(run.model, scapes / "test"), wanted)


def test_an_ensemble_with_a_spectrogram_run_listens_on_the_finer_grid(
    embedded, run, scapes, tmp_path
):
    blended = ap.ensemble([embedded.path, run.path], tmp_path / "both", method="mean")
    assert blended.can_predict
    both = ap.predict(tmp_path / "both", scapes / "test")
    parts = [ap.predict(one.model, scapes / "test") for one in (embedded, run)]
    assert len(both) == max(map(len, parts))
    fine, coarse = sorted(parts, key=len, reverse=True)
    file, start, _ = both.index[57]
    stop = both.index[57][2]
    middle = (start + stop) / 2
    near = coarse.loc[file].reset_index()
    mine = near[(near.start_time <= middle) & (middle < near.end_time)].iloc[0, 2:]
    np.testing.assert_allclose(
        both.iloc[57].to_numpy(), (fine.iloc[57] + mine.astype(float)) / 2, atol=1e-6
    )
    assert "that is not in here" in (tmp_path / "both" / "MODEL_CARD.md").read_text()


def test_members_on_one_network_ask_it_once(embedded, scapes, tmp_path, monkeypatch):
    second = tmp_path / "second"
    shutil.copytree(embedded.path, second)
    ap.ensemble([embedded.path, second], tmp_path / "both")
    drawn = []
    draw = EmbeddingModel.embed
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(EmbeddingModel, "embed", lambda *given: drawn.append(1) or draw(*given))
    both = ap.predict(tmp_path / "both", scapes / "test")
    assert len(drawn) == 4  # recordings
    pd.testing.assert_frame_equal(ap.predict(tmp_path / "both", scapes / "test"), both)
    assert len(drawn) == 4  # kept, for this round and the next
    np.testing.assert_allclose(
        both.to_numpy(), ap.predict(embedded.model, scapes / "test").to_numpy(), atol=1e-6
    )


def test_a_recording_of_several_images_is_kept_whole_and_cut_again(embedded, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTPITTA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    sf.write(tmp_path / "long.wav", rng.normal(0, 0.1, round(130.3 * 16_000)), 16_000)
    recording = probe(tmp_path / "long.wav", "long")
    [model] = Predictor(read_bundle(embedded.model)).models
    plain = FeatureExtractor(model.extractor.config, model.extractor.width, model.extractor.compute)
    images = plain.config.segments(recording.duration)
    assert len(images) > 1
    for start, stop in images:
        kept = model.extractor.extract_segment(recording, start, stop, read)
        np.testing.assert_array_equal(kept, plain.extract_segment(recording, start, stop, read))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_recording_whose_vectors_are_no_numbers_goes_to_quarantine(embedded, scapes, tmp_path):
    sf.write(tmp_path / "silent.wav", np.zeros(32_000), 16_000)
    good = next((scapes / "test").glob("*.*"))
    scores = ap.predict(embedded.model, good, tmp_path / "silent.wav")
    assert set(scores.index.get_level_values("file")) == {str(good)}
    ((file, reason),) = scores.attrs["quarantine"]
    assert file == str(tmp_path / "silent.wav")
    assert "no number" in reason
