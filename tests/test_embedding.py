"""Embeddings: the settings, the file found and checked, the engines, and whose time a vector is."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.types import Recording
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.recipes import read_recipe
from antpitta.model.embedding import EmbeddingModel, NoEmbeddingError
from antpitta.model.features import build_feature_extractor

RATE = 16_000
STAGE = {"name": "one", "masks": {"probability": 0}}


def settings(**more):
    return EmbeddingConfig(
        **{"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0, "step": 0.5, **more}
    )


def recipe(**more):
    table = {
        "name": "mine",
        "description": "never",
        "backbone": {"name": "embedding"},
        "embedding": {"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0},
        "stages": [STAGE],
    }
    return parse_recipe({**table, **more}, "my.toml")


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) / 10


# ---- the engines ----


def test_an_onnx_file_gives_the_vector_it_was_made_for(tmp_path, write_network):
    path = tmp_path / "a.onnx"
    vector = write_network(path)
    embedder = EmbeddingModel(settings(), path)
    assert embedder.width == 40
    wave = noise(RATE)
    found = embedder.embed(wave, 1)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found[0], vector(wave), atol=2e-2)
    inner = EmbeddingModel(settings(output="power"), path).embed(wave, 1)
    np.testing.assert_allclose(inner[0], np.exp(vector(wave)), rtol=1e-2)


@pytest.mark.parametrize("shape", [{"batch_size": "n"}, {"batch_size": "n", "size": "samples"}])
def test_sizes_that_a_network_leaves_open_are_filled_in(tmp_path, write_network, shape):
    vector = write_network(tmp_path / "a.onnx", **shape)
    wave = noise(RATE)
    found = EmbeddingModel(settings(), tmp_path / "a.onnx").embed(wave, 1)
    np.testing.assert_allclose(found[0], vector(wave), atol=2e-2)


@pytest.mark.parametrize(
    ("more", "made", "message"),
    [
        ({"seconds": 2.0}, {}, "takes 1 x 16000 float32, not 32000 float32 samples"),
        ({}, {"batch_size": 4}, "takes 4 x 16000 float32"),
        ({"output": "powre"}, {}, "no tensor 'powre'.*such as power"),
        ({"output": "waves"}, {}, r"shape \(1, 100, 80\), no vector"),
        ({"output": "waves", "time_axis": 3}, {}, r"shape \(1, 100, 80\), not .* axis 3"),
    ],
)
def test_a_network_that_does_not_fit_is_the_users_mistake(
    tmp_path, write_network, more, made, message
):
    write_network(tmp_path / "a.onnx", **made)
    with pytest.raises(UserError, match=message) as said:
        EmbeddingModel(settings(**more), tmp_path / "a.onnx")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.h5"])
@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_that_is_no_network_is_the_users_mistake(tmp_path, name, content):
    if name.endswith("tflite"):
        pytest.importorskip("ai_edge_litert", reason="the extra [embedding] is not installed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is no network|neither") as said:
        EmbeddingModel(settings(), tmp_path / name)
    assert "\n" not in str(said.value)


def test_without_its_engine_a_tflite_file_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"pip install 'antpitta\[embedding\]'"):
        EmbeddingModel(settings(), tmp_path / "a.tflite")


def write_tflite(path, samples=16_000, pieces=8, kind=0):
    """Sound to the mean loudness of its eighths: ``cut``, ``loud``, ``vector``."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="no [embedding]")
    flatbuffers = pytest.importorskip("flatbuffers")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]

    def tensor(name, shape, kind=kind, value=None):
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name, shape, kind, 0
        if value is not None:
            held = schema.BufferT()
            held.data = np.frombuffer(value.tobytes(), dtype=np.uint8)
            model.buffers.append(held)
            one.buffer = len(model.buffers) - 1
        graph.tensors = [*(graph.tensors or []), one]
        return len(graph.tensors) - 1

    def node(code, inputs, output, kind=0, options=None):
        known = schema.OperatorCodeT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        model.operatorCodes = [*(model.operatorCodes or []), known]
        one = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = len(model.operatorCodes) - 1, inputs, [output]
        one.builtinOptionsType, one.builtinOptions = kind, options
        graph.operators = [*(graph.operators or []), one]

    integers = lambda *values: np.array(values, dtype=np.int32)  # noqa: E731
    sound = tensor("sound", [1, samples])
    cut = tensor("cut", [1, pieces, samples // pieces])
    loud = tensor("loud", [1, pieces, samples // pieces])
    vector = tensor("vector", [1, pieces])
    shape = tensor("shape", [3], 2, integers(1, pieces, samples // pieces))
    axis = tensor("axis", [1], 2, integers(2))
    options = schema.BuiltinOptions
    node(schema.BuiltinOperator.RESHAPE, [sound, shape], cut, options.ReshapeOptions,
         schema.ReshapeOptionsT())  # fmt: skip
    node(schema.BuiltinOperator.ABS, [cut], loud, options.AbsOptions, schema.AbsOptionsT())
    node(schema.BuiltinOperator.MEAN, [loud, axis], vector, options.ReducerOptions,
         schema.ReducerOptionsT())  # fmt: skip
    graph.inputs, graph.outputs = [sound], [vector]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def test_a_tflite_file_gives_its_output_or_a_tensor_inside(tmp_path, recwarn):
    write_tflite(tmp_path / "a.tflite")
    wave = noise(RATE)
    found = EmbeddingModel(settings(), tmp_path / "a.tflite").embed(wave, 1)
    wanted = np.abs(wave).reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(found[0], wanted, rtol=2e-3)
    with pytest.raises(UserError, match=r"shape \(1, 8, 2000\), no vector"):
        EmbeddingModel(settings(output="loud"), tmp_path / "a.tflite")
    with pytest.raises(UserError, match="takes 1 x 16000 float32, not 8000"):
        EmbeddingModel(settings(seconds=0.5), tmp_path / "a.tflite")
    with pytest.raises(UserError, match=r"no tensor 'vectro'.*such as vector"):
        EmbeddingModel(settings(output="vectro"), tmp_path / "a.tflite")
    assert not recwarn.list
    write_tflite(tmp_path / "b.tflite", kind=2)
    with pytest.raises(UserError, match="takes 1 x 16000 int32"):
        EmbeddingModel(settings(), tmp_path / "b.tflite")


def test_birdnet_gives_its_embedding_where_somebody_brings_it():
    pytest.importorskip("ai_edge_litert", reason="the extra [embedding] is not installed")
    try:
        pinned = resolve_embedding(read_recipe("embedding")).embedding
    except UserError as missing:
        pytest.skip(f"BirdNET is its owners', and not here: {missing}")
    pen = build_feature_extractor(read_recipe("embedding").model_copy(update={"embedding": pinned}),
                   find_embedding_model(pinned))  # fmt: skip
    assert pen.width == 1024 + 6 * 108
    found = pen.compute(noise(48_000 * 4), 8, 48_000)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 8


def test_threads_draw_what_one_alone_draws(tmp_path, write_network):
    write_network(tmp_path / "a.onnx")
    embedder = EmbeddingModel(settings(), tmp_path / "a.onnx")
    waves = [noise(3 * RATE, seed) for seed in range(8)]
    alone = [embedder.embed(wave, 6) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda wave: embedder.embed(wave, 6), waves))
    np.testing.assert_array_equal(alone, together)


# ---- whose time a vector is ----


def test_a_vector_is_of_the_sound_around_the_middle_of_its_frame(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    wave = noise(4 * RATE)
    found = EmbeddingModel(settings(), tmp_path / "a.onnx").embed(wave, 8)
    # Frames of half a second have their middles at 0.25, 0.75, ...; a vector is of one second.
    starts = [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    wanted = [vector(wave[round(s * RATE) : round((s + 1) * RATE)]) for s in starts]
    np.testing.assert_allclose(found, wanted, atol=2e-2)


def test_a_frame_of_a_map_is_the_mean_of_its_own_time(tmp_path):
    write_tflite(tmp_path / "a.tflite")  # "loud" is (1, 8, 2000): eighths of a second
    wave = noise(4 * RATE)
    more = {"output": "loud", "time_axis": 1}
    alone = EmbeddingModel(settings(step=0.25, **more), tmp_path / "a.tflite").embed(wave, 16)
    kept = EmbeddingModel(
        settings(step=0.25, kept_seconds=0.5, **more), tmp_path / "a.tflite"
    ).embed(wave, 16)
    pairs = np.abs(wave).reshape(16, 2, 2000).mean(axis=1)
    np.testing.assert_allclose(kept, pairs, rtol=2e-3, atol=1e-4)
    # A frame alone has its own stretch, whose eighths are cut where the frame's are.
    np.testing.assert_allclose(alone, pairs, rtol=2e-3, atol=1e-4)
    # Frames of 0.2 s take a part of an eighth: the first has 0.125 s and 0.075 s of the next.
    uneven = EmbeddingModel(
        settings(step=0.2, kept_seconds=1.0, **more), tmp_path / "a.tflite"
    ).embed(wave, 20)
    eighths = np.abs(wave).reshape(32, 2000)
    np.testing.assert_allclose(
        uneven[0], (0.125 * eighths[0] + 0.075 * eighths[1]) / 0.2, rtol=2e-3, atol=1e-4
    )
    along = EmbeddingModel(settings(step=0.25, kept_seconds=0.5, output="loud", time_axis=2),
                     tmp_path / "a.tflite")  # fmt: skip
    assert along.width == 8


def test_tensors_side_by_side_are_what_each_is_alone(tmp_path, write_network):
    write_tflite(tmp_path / "a.tflite")
    write_network(tmp_path / "a.onnx")
    wave = noise(3 * RATE)
    more = {"time_axis": 1, "step": 0.25, "kept_seconds": 0.5}
    for name, tensors in (("a.tflite", ("vector", "loud")), ("a.onnx", ("power", "waves"))):
        draw = lambda output: EmbeddingModel(  # noqa: E731
            settings(output=output, **more),
            tmp_path / name,  # noqa: B023
        ).embed(wave, 12)
        found = [draw(one) for one in tensors]
        np.testing.assert_array_equal(draw(tensors), np.concatenate(found, axis=1))
        assert (found[0][0] == found[0][1]).all()  # a vector is of both frames' stretch
        assert (found[1][0] != found[1][1]).any()
    with pytest.raises(UserError, match="no tensor 'lout'"):
        EmbeddingModel(settings(output=("vector", "lout"), **more), tmp_path / "a.tflite")


def test_a_map_is_drawn_to_the_ends_of_any_image(tmp_path):
    write_tflite(tmp_path / "a.tflite")
    more = {"output": "loud", "time_axis": 1, "step": 0.3, "kept_seconds": 0.9}
    embedder = EmbeddingModel(settings(**more), tmp_path / "a.tflite")
    for samples in (0, 1, RATE // 3, RATE, RATE + 1, 5 * RATE // 2):
        frames = embedder.embedding.n_frames(samples / RATE)
        found = embedder.embed(noise(samples), frames)
        assert found.shape == (frames, 2000)
        assert np.isfinite(found).all()


def test_an_image_shorter_than_the_network_takes_is_filled_up_with_silence(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    wave = noise(RATE // 2)
    found = EmbeddingModel(settings(step=0.25), tmp_path / "a.onnx").embed(wave, 2)
    wanted = vector(np.pad(wave, (0, RATE // 2)))
    np.testing.assert_allclose(found, [wanted, wanted], atol=2e-2)
    assert EmbeddingModel(settings(), tmp_path / "a.onnx").embed(wave[:0], 1).shape == (1, 40)


def test_a_pen_draws_each_image_on_its_own_clock(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    mine = recipe(embedding=settings(segment=2.0, model_digest="abc").model_dump())
    pen = build_feature_extractor(mine, tmp_path / "a.onnx")
    wave = noise(round(4.5 * RATE))
    recording = Recording("r", Path("r.wav"), RATE, len(wave))
    read = lambda one, start, stop, _: wave[round(start * RATE) : round(stop * RATE)]  # noqa: E731
    assert pen.config.segments(recording.duration) == [(0.0, 2.0), (2.0, 4.5)]
    found = pen.extract_segment(recording, 2.0, 4.5, read)
    assert len(found) == pen.config.time_grid(2.0, 4.5).frames == 5
    np.testing.assert_allclose(found[2], vector(wave[round(2.75 * RATE) : round(3.75 * RATE)]),
                               atol=2e-2)  # fmt: skip


def test_what_is_no_number_is_told_with_file_and_time(tmp_path, write_network):
    write_network(tmp_path / "a.onnx", floor=0.0)  # silence has no logarithm
    pen = build_feature_extractor(recipe(embedding=settings().model_dump()), tmp_path / "a.onnx")
    wave = noise(6 * RATE)
    wave[3 * RATE :] = 0
    recording = Recording("r", Path("r.wav"), RATE, len(wave))
    with pytest.raises(NoEmbeddingError, match=r"r.wav: .* no number.* at 3.5 s") as said:
        pen.extract_segment(recording, 0.0, 6.0, lambda *asked: wave)
    assert "\n" not in str(said.value)


def test_a_pen_without_the_networks_file_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="not handed in"):
        build_feature_extractor(recipe())
