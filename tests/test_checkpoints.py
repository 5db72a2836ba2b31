"""Checkpoints: how often they are saved, and by which process."""

from antpitta.train import checkpoints
from antpitta.train.checkpoints import ReadOnlyStore, ThrottledStore


class MemoryStore:
    """Keeps all checkpoints."""

    def __init__(self):
        self.saved = []

    def load(self):
        return self.saved[-1] if self.saved else None

    def save(self, epoch, state):
        self.saved.append((epoch, state))


def test_checkpoints_are_saved_at_most_every_20_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    store = MemoryStore()
    throttled = ThrottledStore(store, now[0])
    for epoch in range(1, 8):
        now[0] += 6.0
        throttled.save(epoch, {})
    assert [epoch for epoch, _ in store.saved] == [4]
    assert throttled.load() == (4, {})


def test_a_read_only_store_never_saves():
    store = MemoryStore()
    store.save(4, {})
    reader = ReadOnlyStore(store)
    reader.save(9, {})
    assert reader.load() == (4, {})
