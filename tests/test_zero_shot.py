"""Zero-shot logits: an embedding model's own classes beside the trained head."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import antpitta as ap
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.progress import Progress
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.network import SedNet

RATE = 16_000


def settings(**more):
    return EmbeddingConfig(
        **{"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0, "step": 0.5, **more}
    )


def write(path, text):
    path.write_text(text)
    return path


def test_class_map_alone_changes_the_cache_key():
    plain = settings(model_digest="abc")
    assert settings(model_digest="abc", labels=None).digest == plain.digest
    assert (
        settings(model_digest="abc", class_map=((1,),), n_model_classes=40).digest != plain.digest
    )


def test_own_logits_are_last_in_a_vector(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    known = {"class_map": ((3, 5), (), (7,)), "n_model_classes": 40}
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    expected = vector(wave)
    for output in (None, "power"):
        model = EmbeddingModel(settings(output=output, **known), tmp_path / "a.onnx")
        assert model.width == 43
        logits = model.embed(wave, 1)[0][40:]
        own = [max(expected[3], expected[5]), 0, expected[7]]
        np.testing.assert_allclose(logits, own, atol=2e-2)
    with pytest.raises(UserError) as error:
        EmbeddingModel(settings(class_map=((3,),), n_model_classes=39), tmp_path / "a.onnx")
    assert "(1, 40)" in error.value.what
    assert "39" in error.value.what


def normalized_net(embeddings, weight=0.5):
    """A head on three numbers and two own logits, the second of an unknown class."""
    net = SedNet(
        BackboneConfig(name="embedding"),
        HeadConfig(zero_shot_weight=weight),
        2,
        bands=5,
        has_zero_shot=True,
    )
    with torch.no_grad():
        net.head.class_conv.weight.copy_(torch.randn(net.head.class_conv.weight.shape))
    net.train()(embeddings)
    return net


def random_embeddings():
    embeddings = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    embeddings[..., 4] = 0
    return embeddings


def test_own_logits_are_added_in_training_and_in_prediction():
    torch.manual_seed(0)
    embeddings = random_embeddings()
    for weight in (0.0, 0.5, 2.0):
        net = normalized_net(embeddings, weight).eval()
        plain, moved = net(embeddings).unsmoothed, embeddings.clone()
        moved[..., 3] += 1.5
        expected = plain + torch.tensor([1.5 * weight, 0.0])  # the second class is unknown
        torch.testing.assert_close(net(moved).unsmoothed, expected)
        rows = net.extract_features(embeddings).mean(dim=2)
        before = net.head.classify_rows(rows)
        rows[:, 3] += 1.5
        expected = before + torch.tensor([1.5 * weight, 0.0])
        torch.testing.assert_close(net.head.classify_rows(rows), expected)


def test_run_reports_known_species_and_predicts_without_the_label_file(
    tmp_path, simulated, write_network
):
    write_network(tmp_path / "a.onnx", bands=64, floor=0.0)
    labels = write(tmp_path / "l.txt", "\n".join(f"band {i}" for i in range(64)))
    species = ap.open_data(simulated).dataset.classes.names
    names = write(tmp_path / "n.csv", f"species,name\n{species[1]},Band 20\n{species[1]},band_21\n")
    toml = (simulated / "antpitta.toml").read_text().replace('"train', f'"{simulated}/train')
    write(tmp_path / "antpitta.toml", f'{toml}names = "n.csv"\n')
    messages = []
    run = ap.train(
        ap.open_data(tmp_path),
        "embedding",
        tmp_path / "run",
        changes=(
            f"embedding.model={tmp_path / 'a.onnx'}",
            f"embedding.labels={labels}",
            *("embedding.sample_rate=16000", "embedding.seconds=1.0", "embedding.step=0.25"),
            *("windows.frames=40", "folds=2"),
        ),
        progress=Progress(messages.append, lambda *update: None),
    )
    others = ", ".join(name for name in species if name != species[1])
    (message,) = [text for text in messages if text.startswith("a.onnx ")]
    assert f"1 of these {len(species)} species" in message
    assert others in message
    embedding = json.loads((run.path / "config.json").read_text())["recipe"]["embedding"]
    assert embedding["class_map"] == [[20, 21] if name == species[1] else [] for name in species]
    labels.unlink()
    names.unlink()
    assert np.isfinite(ap.predict(run.model, simulated / "test").to_numpy()).all()
    assert message in (run.model / "MODEL_CARD.md").read_text()
    for path in run.model.glob("*.safetensors"):  # without the calibration
        state = load_file(path)
        save_file({name: state[name] for name in state if "prior_shift" not in name}, path)
    with pytest.raises(UserError) as error:
        ap.predict(run.model, simulated / "test")
    assert str(run.model) in error.value.what
