"""What else our species are called, and a network that knows them by itself."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

import antpitta as ap
from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.progress import Progress
from antpitta.core.types import Classes, Dataset
from antpitta.files.embedding_models import KNOWN
from antpitta.files.species_names import (
    match_embedding_classes,
    match_species,
    read_labels,
    read_species_names,
)
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.network import SedNet
from benchmarks.baseline import evaluate_zero_shot
from benchmarks.test_set import read_test_set
from benchmarks.vectors import Embed

RATE = 16_000
SILENT = Progress(lambda text: None, lambda *told: None)
LABELS = "Acris crepitans_Northern Cricket Frog\nAnaxyrus fowleri_Fowler's Toad\nnoise\n"


def settings(**more):
    return EmbeddingConfig(
        **{"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0, "step": 0.5, **more}
    )


def write(path, text):
    path.write_text(text)
    return path


def of(*names, **aliases):
    return Dataset((), (), Classes(names), aliases)


# ---- names ----


def test_every_column_but_the_species_is_a_name_and_a_species_has_several_rows(tmp_path):
    table = write(
        tmp_path / "n.csv",
        "common,species_id,scientific\n"
        "gray treefrog,7,Dryophytes versicolor\n,7,Dryophytes chrysoscelis\n,8,\n",
    )
    assert read_species_names(table) == {
        "7": ("gray treefrog", "Dryophytes versicolor", "Dryophytes chrysoscelis"),
        "8": (),
    }


@pytest.mark.parametrize("header", ["name,scientific", "species"])
def test_a_table_of_names_without_species_or_names_is_the_users_mistake(tmp_path, header):
    with pytest.raises(UserError, match="needs a column 'species' and one of names"):
        read_species_names(write(tmp_path / "n.csv", f"{header}\n"))


def test_names_reach_the_species_whatever_the_tables_call_them(tmp_path, scapes):
    boxes = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\ntrain0000,3,1,1,100,2,200"
    write(tmp_path / "tp.csv", boxes)
    write(tmp_path / "n.csv", "species,name\n3,wood frog\ns3,Lithobates sylvaticus\n9,stranger\n")
    write(
        tmp_path / "antpitta.toml",
        f'audio = "{scapes}/train"\npresent = "tp.csv"\nnames = "n.csv"\n',
    )
    opened = ap.open_data(tmp_path)
    assert opened.dataset.aliases == {"s3": ("wood frog", "Lithobates sylvaticus")}
    (finding,) = [one for one in opened.findings if one.file == str(tmp_path / "n.csv")]
    assert "1 species are in no table of boxes, the first '9'" in finding.what


def test_names_are_equal_whatever_their_case_hyphens_and_apostrophes(tmp_path):
    classes = read_labels(write(tmp_path / "l.txt", LABELS))
    species = [
        ("fowlers-toad",),
        ("a", "ACRIS crepitans"),
        ("cricket",),
        ("x", "noise", "Fowler\u2019s toad"),
    ]
    assert match_species(classes, species) == ((1,), (0,), (), (1, 2))
    table = write(tmp_path / "l.csv", "code,name\nnocfro,Cricket Frog\n?,?\nfowtoa,Toad\n")
    assert match_species(read_labels(table), [("toad",), ("nocfro",)]) == ((2,), (0,))
    with pytest.raises(UserError, match="names no classes"):
        read_labels(write(tmp_path / "l.txt", "\n"))


def test_a_network_is_asked_for_its_own_classes_only_where_it_has_ours(tmp_path, monkeypatch):
    labels = write(tmp_path / "l.txt", LABELS)
    given = EmbeddingConfig(model="x.onnx", labels=str(labels))
    both = match_embedding_classes(given, of("s0", "s1", s1=("noise",)))
    assert (both.class_map, both.n_model_classes) == (((), (2,)), 3)
    assert match_embedding_classes(both, of("s0", "s1", s1=("noise",))) == both
    with pytest.raises(UserError, match=r"names none of the species s0 .*--names TABLE"):
        match_embedding_classes(given, of("s0"))
    silent = EmbeddingConfig(model="x.onnx", labels=None)
    assert match_embedding_classes(silent, of("noise")) is silent
    plain = EmbeddingConfig(model="x.onnx")
    assert match_embedding_classes(plain, of("noise")) is plain
    assert not {"labels", "known", "classes"} & set(plain.model_dump())
    assert EmbeddingConfig.model_validate_json(both.model_dump_json()) == both
    assert EmbeddingConfig.model_validate(silent.model_dump()).labels is None

    file = tmp_path / KNOWN["birdnet"].file
    file.write_bytes(b"network")
    monkeypatch.setenv("ANTPITTA_EMBEDDING", str(file))
    birdnet = EmbeddingConfig(model="birdnet")
    assert match_embedding_classes(birdnet, of("noise")) is birdnet  # no labels beside it
    write(tmp_path / KNOWN["birdnet"].labels, LABELS)
    assert match_embedding_classes(birdnet, of("noise")).class_map == ((2,),)
    assert match_embedding_classes(birdnet, of("s0")) is birdnet


def test_vectors_of_a_network_without_our_classes_keep_their_name_in_the_cache():
    plain = settings(model_digest="abc")
    assert settings(model_digest="abc", labels=None).digest == plain.digest
    assert settings(model_digest="abc", known=((1,),), classes=40).digest != plain.digest


# ---- vectors, and the head ----


def test_its_own_logits_stand_last_in_a_vector(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    known = {"class_map": ((3, 5), (), (7,)), "classes": 40}
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    wanted = vector(wave)
    for output in (None, "power"):
        embedder = EmbeddingModel(settings(output=output, **known), tmp_path / "a.onnx")
        assert embedder.width == 43
        found = embedder.embed(wave, 1)[0]
        np.testing.assert_allclose(found[40:], [max(wanted[3], wanted[5]), 0, wanted[7]], atol=2e-2)
    with pytest.raises(UserError, match=r"shape \(1, 40\), and the labels name 39 classes"):
        EmbeddingModel(settings(known=((3,),), classes=39), tmp_path / "a.onnx")


def levelled_net(seen, trust=0.5):
    """A head on two numbers and two own logits, the second of a class that is not known."""
    net = SedNet(
        BackboneConfig(name="embedding"),
        HeadConfig(zero_shot_weight=trust),
        2,
        bands=5,
        has_zero_shot=True,
    )
    with torch.no_grad():
        net.head.class_conv.weight.copy_(torch.randn(net.head.class_conv.weight.shape))
    net.train()(seen)
    return net


def vectors():
    seen = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    seen[..., 4] = 0
    return seen


def test_a_head_learns_without_the_own_logits_and_is_laid_beside_them():
    torch.manual_seed(0)
    seen = vectors()
    net = levelled_net(seen)
    alone = net.train()(seen).unsmoothed
    moved = seen.clone()
    moved[..., 3] += torch.randn(3, 12)
    with torch.no_grad():
        net.head.normalizer.momentum = 0.0
        torch.testing.assert_close(net(moved).unsmoothed, alone)
    rows = net.extract_features(seen).mean(dim=2)
    before = net.head.classify_rows(rows)
    rows[:, 3] += 1
    torch.testing.assert_close(net.head.classify_rows(rows), before)
    assert torch.equal(net.eval()(seen).unsmoothed, net(moved).unsmoothed)  # no word yet
    head = net(seen).unsmoothed
    net.head.fit_zero_shot(iter([net.extract_features(seen)]))
    both = net(seen).unsmoothed
    torch.testing.assert_close(both[..., 1], head[..., 1])  # a class that is not known
    own = (seen[..., 3] - seen[..., 3].mean()) / seen[..., 3].std(correction=0)
    spread, middle = head[..., 0].std(correction=0), head[..., 0].mean()
    wanted = head[..., 0] / 2 + (own * spread + middle) / 2
    torch.testing.assert_close(both[..., 0], wanted, rtol=1e-4, atol=1e-4)


def test_trust_is_the_share_of_the_own_word():
    torch.manual_seed(0)
    seen = vectors()
    for trust in (0.0, 1.0):
        net = levelled_net(seen, trust)
        head = net.eval()(seen).framewise
        net.head.fit_zero_shot(iter([net.extract_features(seen)]))
        both = net(seen).framewise
        if trust == 0:
            torch.testing.assert_close(both, head)
        else:
            ranks = [one[0, :, 0].argsort() for one in (both, seen[..., 3:])]
            assert torch.equal(*ranks)


# ---- a run ----


def test_a_run_says_what_its_network_knows_and_predicts_without_the_labels(
    tmp_path, scapes, write_network
):
    write_network(tmp_path / "a.onnx", bands=64, floor=0.0)
    labels = write(tmp_path / "l.txt", "\n".join(f"band {i}" for i in range(64)))
    species = ap.open_data(scapes).dataset.classes.names
    names = write(tmp_path / "n.csv", f"species,name\n{species[1]},Band 20\n{species[1]},band_21\n")
    toml = (scapes / "antpitta.toml").read_text().replace('"train', f'"{scapes}/train')
    write(tmp_path / "antpitta.toml", f'{toml}names = "n.csv"\n')
    said = []
    run = ap.train(
        ap.open_data(tmp_path),
        "embedding",
        tmp_path / "run",
        changes=(
            f"embedding.model={tmp_path / 'a.onnx'}",
            f"embedding.labels={labels}",
            *("embedding.sample_rate=16000", "embedding.seconds=1.0", "embedding.step=0.25"),
            *("windows.frames=40", "folds=2", "overlay.copies=0"),
            "stages.pseudo.epochs=2",
        ),
        progress=Progress(said.append, lambda *told: None),
    )
    others = ", ".join(name for name in species if name != species[1])
    words = f"a.onnx knows 1 of these {len(species)} species by itself, not {others}."
    assert words in said
    told = json.loads((run.path / "config.json").read_text())["recipe"]["embedding"]
    assert told["known"] == [[20, 21] if name == species[1] else [] for name in species]
    labels.unlink()
    names.unlink()
    assert np.isfinite(ap.predict(run.model, scapes / "test").to_numpy()).all()
    assert words in (run.model / "MODEL_CARD.md").read_text()
    for path in run.model.glob("*.safetensors"):  # weights of before the word
        kept = {name: value for name, value in load_file(path).items() if "zero_shot." not in name}
        save_file(kept, path)
    with pytest.raises(UserError, match=rf"{run.model}: .*train the model again"):
        ap.predict(run.model, scapes / "test")


# ---- the yardstick ----


def test_an_untaught_network_is_judged_by_its_own_word(scapes):
    data = ap.open_data(scapes).dataset
    exam = read_test_set([scapes / "test"], scapes / "test_truth.csv", None, data)
    table = exam.truth.set_index("recording_id").astype(int)
    truth = table.to_numpy()
    count = len(data.classes)

    def every(recordings, starts, tick):
        """Two numbers, then logits: the truth in the last window, and 5 of the last species."""
        found = []
        for one, own in zip(recordings, starts, strict=True):
            rows = np.full((len(own), 2 + count), -9, dtype=np.float32)
            if one.id in table.index:
                rows[-1, 2:] += 8 * table.loc[one.id].to_numpy(dtype=np.float32)
                rows[0, -1] = 5
            found.append(rows)
        return found

    everyone = tuple((place,) for place in range(count))
    rows = evaluate_zero_shot(data, exam, Embed(3.0, every, (*everyone[:-1], ())), 2, SILENT)
    assert [row["seed"] for row in rows] == [1, 2]
    assert rows[0]["oof_auc"] == 0.5
    assert 0 < truth[:, -1].sum() < len(truth)
    # A species that the network lacks comes last in each recording, and is never told apart.
    value = np.where(truth, 0.27, 0.0)
    value[:, -1] = -1
    wanted = label_ranking_average_precision_score(truth, value, sample_weight=truth.sum(axis=1))
    assert rows[0]["lwlrap"] == pytest.approx(wanted)
    least = average_precision_score(truth[:, -1], np.zeros(len(truth)))
    heard = sum(0 < column.sum() < len(truth) for column in truth[:, :-1].T)
    assert rows[0]["macro_ap"] == pytest.approx((heard + least) / (heard + 1))
    # With that class, its loud first window stands for the recording: first everywhere.
    loud = evaluate_zero_shot(data, exam, Embed(3.0, every, everyone), 1, SILENT)
    value[:, -1] = 1
    wanted = label_ranking_average_precision_score(truth, value, sample_weight=truth.sum(axis=1))
    assert loud[0]["lwlrap"] == pytest.approx(wanted)
