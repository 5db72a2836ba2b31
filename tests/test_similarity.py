"""The search for similar vectors against a plain search, over a memory map."""

import numpy as np
import pytest

from antpitta.search import similarity
from antpitta.search.similarity import most_similar, normalize


@pytest.fixture
def vectors(tmp_path):
    """A memory map of float16, longer than a few blocks; its first vector is zero."""
    values = np.random.default_rng(0).normal(size=(1000, 24)).astype(np.float16)
    values[0] = 0
    np.save(tmp_path / "vectors.npy", values)
    return np.load(tmp_path / "vectors.npy", mmap_mode="r")


def test_search_equals_a_plain_search(vectors, monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 64)
    queries = np.random.default_rng(1).normal(size=(5, 24))
    index, cosine = most_similar(vectors, queries, 20)
    table = np.asarray(vectors, dtype=np.float64)
    lengths = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(table, axis=1))
    expected = queries @ table.T / np.where(lengths > 0, lengths, 1)
    order = np.argsort(-expected, axis=1)[:, :20]
    assert np.array_equal(index, order)
    assert np.allclose(cosine, np.take_along_axis(expected, order, axis=1), atol=1e-6)


def test_equal_vectors_come_in_their_order(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 3)
    same = np.tile(np.array([[1.0, 2.0]], dtype=np.float16), (10, 1))
    index, cosine = most_similar(same, np.array([[2.0, 4.0]]), 4)
    assert index.tolist() == [[0, 1, 2, 3]]
    assert cosine == pytest.approx(1)


def test_search_for_more_than_there_are_returns_all(vectors):
    index, _ = most_similar(vectors[:7], vectors[3:4], 50)
    assert sorted(index[0]) == list(range(7))
    assert index[0, 0] == 3


def test_normalized_vectors_have_length_1_and_zeros_stay(vectors):
    lengths = np.linalg.norm(normalize(vectors), axis=1)
    assert lengths[0] == 0
    assert lengths[1:] == pytest.approx(1, abs=1e-6)


def test_large_values_of_float16_do_not_overflow():
    large = np.full((2, 2000), 60_000, dtype=np.float16)
    _, cosine = most_similar(large, large[:1], 1)
    assert cosine[0, 0] == pytest.approx(1, abs=1e-4)
