"""Embedding models in TFLite and ONNX files: opening them, and which sound a vector is of."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.recipes import read_recipe
from antpitta.model import embedding
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.features import build_feature_extractor

RATE = 16_000


def open_model(path, **settings):
    config = {"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0, "step": 0.5, **settings}
    return EmbeddingModel(EmbeddingConfig(**config), path)


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) / 10


def write_tflite(path, samples=16_000, pieces=8, kind=0):
    """Sound to the mean loudness of its eighths: ``pieces``, ``loud``, ``vector``."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="no [embedding]")
    flatbuffers = pytest.importorskip("flatbuffers")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]

    def tensor(name, shape, kind=kind, value=None):
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, kind, 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), dtype=np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors = [*(graph.tensors or []), made]
        return len(graph.tensors) - 1

    def node(code, inputs, output, kind=0, options=None):
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
        model.operatorCodes = [*(model.operatorCodes or []), operator_code]
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kind, options
        graph.operators = [*(graph.operators or []), made]

    integers = lambda *values: np.array(values, dtype=np.int32)  # noqa: E731
    sound = tensor("sound", [1, samples])
    pieces_of = tensor("pieces", [1, pieces, samples // pieces])
    loud = tensor("loud", [1, pieces, samples // pieces])
    vector = tensor("vector", [1, pieces])
    shape = tensor("shape", [3], 2, integers(1, pieces, samples // pieces))
    axis = tensor("axis", [1], 2, integers(2))
    options = schema.BuiltinOptions
    node(schema.BuiltinOperator.RESHAPE, [sound, shape], pieces_of, options.ReshapeOptions,
         schema.ReshapeOptionsT())  # fmt: skip
    node(schema.BuiltinOperator.ABS, [pieces_of], loud, options.AbsOptions, schema.AbsOptionsT())
    node(schema.BuiltinOperator.MEAN, [loud, axis], vector, options.ReducerOptions,
         schema.ReducerOptionsT())  # fmt: skip
    graph.inputs, graph.outputs = [sound], [vector]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


# ---- opening a file ----


def test_onnx_file_gives_its_output_or_an_inner_tensor(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    model = open_model(tmp_path / "a.onnx")
    assert model.width == 40
    wave = noise(RATE)
    vectors = model.embed(wave, 1)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors[0], vector(wave), atol=2e-2)
    inner = open_model(tmp_path / "a.onnx", output="power").embed(wave, 1)
    np.testing.assert_allclose(inner[0], np.exp(vector(wave)), rtol=1e-2)


@pytest.mark.parametrize("shape", [{"batch": "n"}, {"batch": "n", "size": "samples"}])
def test_onnx_file_with_open_sizes_has_them_filled_in(tmp_path, write_network, shape):
    vector = write_network(tmp_path / "a.onnx", **shape)
    wave = noise(RATE)
    vectors = open_model(tmp_path / "a.onnx").embed(wave, 1)
    np.testing.assert_allclose(vectors[0], vector(wave), atol=2e-2)


@pytest.mark.parametrize(
    ("settings", "shape", "code", "value"),
    [
        ({"seconds": 2.0}, {}, "E_EMBEDDING_INPUT", "1 x 16000 float32, not 32000 float32"),
        ({}, {"batch": 4}, "E_EMBEDDING_INPUT", "4 x 16000 float32"),
        ({"output": "powre"}, {}, "E_EMBEDDING_OUTPUT", "'powre'"),
        ({"output": "waves"}, {}, "E_EMBEDDING_OUTPUT", "(1, 100, 80)"),
        ({"output": "waves", "time_axis": 3}, {}, "E_EMBEDDING_OUTPUT", "axis 3"),
    ],
)
def test_onnx_file_that_does_not_fit_raises(tmp_path, write_network, settings, shape, code, value):
    write_network(tmp_path / "a.onnx", **shape)
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "a.onnx", **settings)
    assert error.value.code == code
    assert value in error.value.what
    assert "\n" not in str(error.value)


def test_unknown_tensor_names_similar_ones(tmp_path, write_network):
    write_network(tmp_path / "a.onnx")
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "a.onnx", output="powre")
    assert "power" in error.value.remedy


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.h5"])
@pytest.mark.parametrize("content", [b"", b"hello"])
def test_file_that_is_no_model_raises(tmp_path, name, content):
    if name.endswith("tflite"):
        pytest.importorskip("ai_edge_litert", reason="the extra [embedding] is not installed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        open_model(tmp_path / name)
    assert error.value.code == "E_EMBEDDING_FILE"
    assert name in error.value.what
    assert "\n" not in str(error.value)


def test_tflite_file_without_litert_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "a.tflite")
    assert error.value.code == "E_EMBEDDING_RUNTIME"
    assert "antpitta[embedding]" in error.value.remedy


def test_tflite_file_gives_its_output_without_warnings(tmp_path, recwarn):
    write_tflite(tmp_path / "a.tflite")
    wave = noise(RATE)
    vectors = open_model(tmp_path / "a.tflite").embed(wave, 1)
    expected = np.abs(wave).reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(vectors[0], expected, rtol=2e-3)
    with pytest.raises(UserError):
        open_model(tmp_path / "a.tflite", output="loud")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("settings", "kind", "code", "value"),
    [
        ({"output": "loud"}, 0, "E_EMBEDDING_OUTPUT", "(1, 8, 2000)"),
        ({"seconds": 0.5}, 0, "E_EMBEDDING_INPUT", "1 x 16000 float32, not 8000"),
        ({"output": "vectro"}, 0, "E_EMBEDDING_OUTPUT", "'vectro'"),
        ({}, 2, "E_EMBEDDING_INPUT", "1 x 16000 int32"),
    ],
)
def test_tflite_file_that_does_not_fit_raises(tmp_path, settings, kind, code, value):
    write_tflite(tmp_path / "a.tflite", kind=kind)
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "a.tflite", **settings)
    assert error.value.code == code
    assert value in error.value.what


def test_birdnet_where_it_is_installed_gives_finite_vectors():
    pytest.importorskip("ai_edge_litert", reason="the extra [embedding] is not installed")
    try:
        recipe = resolve_embedding(read_recipe("embedding"))
    except UserError as error:
        pytest.skip(f"BirdNET is not installed: {error}")
    extractor = build_feature_extractor(recipe, find_embedding_model(recipe.embedding))
    assert extractor.width == 1024 + 6 * 108
    vectors = extractor.compute(noise(48_000 * 4), 8, 48_000)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == 8


def test_embed_in_several_threads_gives_the_same_vectors(tmp_path, write_network):
    write_network(tmp_path / "a.onnx")
    model = open_model(tmp_path / "a.onnx")
    waves = [noise(3 * RATE, seed) for seed in range(8)]
    expected = [model.embed(wave, 6) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda wave: model.embed(wave, 6), waves))
    np.testing.assert_array_equal(vectors, expected)


def test_threads_one_after_the_other_share_one_session(tmp_path, write_network, monkeypatch):
    write_network(tmp_path / "a.onnx")
    opened, plain = [], embedding.open_embedding_model

    def open_and_count(*arguments):
        open_session = plain(*arguments)
        return lambda: opened.append(1) or open_session()

    monkeypatch.setattr(embedding, "open_embedding_model", open_and_count)
    model = open_model(tmp_path / "a.onnx")
    for seed in range(5):  # prediction computes each recording in a pool of its own
        with ThreadPoolExecutor(1) as pool:
            pool.submit(model.embed, noise(RATE, seed), 2).result()
    assert len(opened) == 1


@pytest.mark.parametrize(("kind", "seconds"), [("tflite", 1.0), ("onnx", 1.0)])
def test_session_after_an_error_can_be_used_again(tmp_path, write_network, kind, seconds):
    write_tflite(tmp_path / "a.tflite")
    write_network(tmp_path / "a.onnx")
    model = open_model(tmp_path / f"a.{kind}", seconds=seconds)
    expected = model.embed(noise(RATE), 1)
    with pytest.raises((ValueError, RuntimeError)):
        model._run(noise(7))
    np.testing.assert_array_equal(model.embed(noise(RATE), 1), expected)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 30.0])
def test_window_is_scaled_to_the_peak_after_its_mean_is_removed(tmp_path, gain):
    write_tflite(tmp_path / "a.tflite")  # the mean loudness of eighths
    wave = noise(RATE)
    centred = wave - wave.mean()
    expected = np.abs(centred / np.abs(centred).max() * 0.25).reshape(8, -1).mean(axis=1)
    vectors = open_model(tmp_path / "a.tflite", peak=0.25).embed((wave + 0.1) * np.float32(gain), 1)
    np.testing.assert_allclose(vectors[0], expected, rtol=5e-3)
    silence = open_model(tmp_path / "a.tflite", peak=0.25).embed(noise(RATE) * 1e-8 + 0.1, 1)
    assert silence.max() < 1e-6


# ---- which sound a vector is of ----


def test_vector_is_of_the_window_around_the_middle_of_its_frame(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    wave = noise(4 * RATE)
    vectors = open_model(tmp_path / "a.onnx").embed(wave, 8)
    # Frames of half a second have their middles at 0.25, 0.75, ...; a window has one second.
    starts = [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    expected = [vector(wave[round(s * RATE) : round((s + 1) * RATE)]) for s in starts]
    np.testing.assert_allclose(vectors, expected, atol=2e-2)


def test_frame_of_a_feature_map_is_the_mean_over_its_own_time(tmp_path):
    write_tflite(tmp_path / "a.tflite")  # "loud" is (1, 8, 2000): eighths of a second
    wave = noise(4 * RATE)

    def embed(frames, **settings):
        model = open_model(tmp_path / "a.tflite", output="loud", time_axis=1, **settings)
        return model.embed(wave, frames)

    pairs = np.abs(wave).reshape(16, 2, 2000).mean(axis=1)
    two_per_window = embed(16, step=0.25, kept_seconds=0.5)
    np.testing.assert_allclose(two_per_window, pairs, rtol=2e-3, atol=1e-4)
    # With a window for each frame, the eighths of the window begin where the frame's do.
    one_per_window = embed(16, step=0.25)
    np.testing.assert_allclose(one_per_window, pairs, rtol=2e-3, atol=1e-4)
    # Frames of 0.2 s take a part of an eighth: the first has 0.125 s and 0.075 s of the next.
    uneven = embed(20, step=0.2, kept_seconds=1.0)
    eighths = np.abs(wave).reshape(32, 2000)
    expected = (0.125 * eighths[0] + 0.075 * eighths[1]) / 0.2
    np.testing.assert_allclose(uneven[0], expected, rtol=2e-3, atol=1e-4)


def test_time_axis_decides_the_width(tmp_path):
    write_tflite(tmp_path / "a.tflite")
    settings = {"step": 0.25, "kept_seconds": 0.5, "output": "loud"}
    assert open_model(tmp_path / "a.tflite", time_axis=1, **settings).width == 2000
    assert open_model(tmp_path / "a.tflite", time_axis=2, **settings).width == 8


@pytest.mark.parametrize(
    ("name", "tensors"), [("a.tflite", ("vector", "loud")), ("a.onnx", ("power", "waves"))]
)
def test_several_tensors_are_concatenated(tmp_path, write_network, name, tensors):
    if name.endswith("onnx"):
        write_network(tmp_path / name)
    else:
        write_tflite(tmp_path / name)
    wave = noise(3 * RATE)

    def embed(output):
        settings = {"time_axis": 1, "step": 0.25, "kept_seconds": 0.5}
        return open_model(tmp_path / name, output=output, **settings).embed(wave, 12)

    vector, feature_map = (embed(tensor) for tensor in tensors)
    np.testing.assert_array_equal(embed(tensors), np.concatenate([vector, feature_map], axis=1))
    assert (vector[0] == vector[1]).all()  # two frames of one window
    assert (feature_map[0] != feature_map[1]).any()


def test_several_tensors_with_an_unknown_one_raise(tmp_path):
    write_tflite(tmp_path / "a.tflite")
    with pytest.raises(UserError) as error:
        open_model(tmp_path / "a.tflite", output=("vector", "lout"), time_axis=1)
    assert error.value.code == "E_EMBEDDING_OUTPUT"
    assert "'lout'" in error.value.what


@pytest.mark.parametrize("samples", [0, 1, RATE // 3, RATE, RATE + 1, 5 * RATE // 2])
def test_feature_map_of_any_length_of_sound_is_finite(tmp_path, samples):
    write_tflite(tmp_path / "a.tflite")
    settings = {"output": "loud", "time_axis": 1, "step": 0.3, "kept_seconds": 0.9}
    model = open_model(tmp_path / "a.tflite", **settings)
    frames = model.embedding.n_frames(samples / RATE)
    vectors = model.embed(noise(samples), frames)
    assert vectors.shape == (frames, 2000)
    assert np.isfinite(vectors).all()


def test_sound_shorter_than_a_window_is_padded_with_silence(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    wave = noise(RATE // 2)
    vectors = open_model(tmp_path / "a.onnx", step=0.25).embed(wave, 2)
    expected = vector(np.pad(wave, (0, RATE // 2)))
    np.testing.assert_allclose(vectors, [expected, expected], atol=2e-2)
    assert open_model(tmp_path / "a.onnx").embed(wave[:0], 1).shape == (1, 40)
