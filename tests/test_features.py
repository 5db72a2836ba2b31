"""Features of segments, and scores of segments joined on one grid."""

from pathlib import Path

import numpy as np
import pytest

from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig, MelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Recording
from antpitta.model.embedding import NoEmbeddingError
from antpitta.model.features import build_feature_extractor, score_grid, stitch_segments

RATE = 16_000


# ---- features of embeddings ----


def embedding_recipe(**settings):
    embedding = {"model": "x.onnx", "sample_rate": RATE, "seconds": 1.0, "step": 0.5, **settings}
    table = {
        "name": "own",
        "description": "an embedding model",
        "backbone": {"name": "embedding"},
        "embedding": EmbeddingConfig(**embedding).model_dump(),
        "stages": [{"name": "one", "masks": {"probability": 0}}],
    }
    return parse_recipe(table, "own.toml")


def noise(seconds):
    rng = np.random.default_rng(0)
    return rng.standard_normal(round(seconds * RATE)).astype(np.float32) / 10


def test_extract_segment_uses_the_segments_own_time(tmp_path, write_network):
    vector = write_network(tmp_path / "a.onnx")
    recipe = embedding_recipe(segment=2.0, model_digest="abc")
    extractor = build_feature_extractor(recipe, tmp_path / "a.onnx")
    wave = noise(4.5)
    recording = Recording("r", Path("r.wav"), RATE, len(wave))

    def read(recording, start, stop, rate):
        return wave[round(start * RATE) : round(stop * RATE)]

    assert extractor.config.segments(recording.duration) == [(0.0, 2.0), (2.0, 4.5)]
    features = extractor.extract_segment(recording, 2.0, 4.5, read)
    assert len(features) == extractor.config.time_grid(2.0, 4.5).frames == 5
    window = wave[round(2.75 * RATE) : round(3.75 * RATE)]
    np.testing.assert_allclose(features[2], vector(window), atol=2e-2)
    features_of_all = extractor.extract_all(recording, read)
    np.testing.assert_array_equal(features_of_all[-5:], features)


def test_extract_segment_embedding_that_is_not_finite_raises(tmp_path, write_network):
    write_network(tmp_path / "a.onnx", floor=0.0)  # silence has no logarithm
    extractor = build_feature_extractor(embedding_recipe(), tmp_path / "a.onnx")
    wave = noise(6)
    wave[3 * RATE :] = 0
    recording = Recording("r", Path("r.wav"), RATE, len(wave))
    with pytest.raises(NoEmbeddingError) as error:
        extractor.extract_segment(recording, 0.0, 6.0, lambda *args: wave)
    assert isinstance(error.value, UserError)
    assert error.value.code == "E_EMBEDDING_NOT_FINITE"
    assert "r.wav" in error.value.what
    assert "3.5 s" in error.value.what


def test_build_feature_extractor_embedding_without_a_file_raises():
    with pytest.raises(ValueError):
        build_feature_extractor(embedding_recipe())


# ---- scores of segments ----


def test_score_grid_of_a_minute_has_118_rows_of_32_frames():
    grid = score_grid(MelConfig().time_grid(0.0, 60.0), 32)
    assert grid.frames == 118
    assert grid.hop == pytest.approx(32 * 60 / 3751)


def test_stitch_one_segment_returns_its_scores():
    segment = TimeGrid(hop=0.1, frames=10)
    part = np.arange(6.0).reshape(3, 2).astype(np.float32)  # rows of 4, 4 and 2 frames
    scores, grid = stitch_segments([part], [segment], 4)
    np.testing.assert_array_equal(scores, part)
    assert grid == TimeGrid(hop=0.4, frames=3)


def test_stitch_at_a_border_keeps_the_higher_row():
    segments = [TimeGrid(hop=0.1, frames=10), TimeGrid(hop=0.1, frames=10, start=1.0)]
    first = np.array([[0.1], [0.2], [0.9]], dtype=np.float32)  # 0.0, 0.4, 0.8 to 1.0
    second = np.array([[0.3], [0.4], [0.5]], dtype=np.float32)  # 1.0, 1.4, 1.8 to 2.0
    scores, grid = stitch_segments([first, second], segments, 4)
    # rows of 0.4 s: the middles 0.2, 0.6, 0.9 and 1.2, 1.6, 1.9 lie in rows 0, 1, 2, 3, 4, 4
    np.testing.assert_allclose(scores[:, 0], [0.1, 0.2, 0.9, 0.3, 0.5])
    assert grid.end == pytest.approx(2.0)


@pytest.mark.parametrize("duration", [60.0, 60.5, 119.99, 61.03, 120.7, 150.51, 301.3, 3600.0])
@pytest.mark.parametrize("frames_per_row", [32, 1])
def test_stitch_long_recording_has_a_score_at_every_moment(duration, frames_per_row):
    config = MelConfig()
    grids = [config.time_grid(start, stop) for start, stop in config.segments(duration)]
    parts = [
        np.ones((score_grid(grid, frames_per_row).frames, 1), dtype=np.float32) for grid in grids
    ]
    scores, grid = stitch_segments(parts, grids, frames_per_row)
    assert scores.all()
    assert grid.end >= grids[-1].end - 1e-6
    assert grid.end - grids[-1].end < 2 * grid.hop


@pytest.mark.parametrize("moment", [3.0, 59.0, 61.0, 130.0, 199.5])
def test_stitch_keeps_the_time_of_a_call_in_every_segment(moment):
    config = MelConfig()
    grids = [config.time_grid(start, stop) for start, stop in config.segments(200.0)]
    parts = []
    for segment in grids:
        rows = score_grid(segment, 32)
        part = np.zeros((rows.frames, 1), dtype=np.float32)
        if segment.start <= moment < segment.end:
            part[int((moment - rows.start) / rows.hop)] = 1
        parts.append(part)
    scores, grid = stitch_segments(parts, grids, 32)
    (row,) = np.flatnonzero(scores[:, 0])
    assert grid.seconds(row) - grid.hop <= moment <= grid.seconds(row + 1) + grid.hop
