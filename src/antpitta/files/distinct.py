"""Short names for paths: each as short as tells it from all others."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def distinct(choices: Sequence[Sequence[str]]) -> list[str]:
    """For each item the first of its names that no other has; its last where there is none."""
    level = [0] * len(choices)
    while True:
        names = [choice[at] for choice, at in zip(choices, level, strict=True)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        rising = [
            i for i, name in enumerate(names) if name in shared and level[i] + 1 < len(choices[i])
        ]
        if not rising:
            return names
        for i in rising:
            level[i] += 1


def name_paths(paths: Sequence[Path]) -> list[str]:
    """Each path's last name, without a table's suffix, after as many of its folders as it takes.

    ``seed1/quick`` beside ``seed2/quick`` is ``seed1-quick``. The same path twice is named alike.
    """
    return distinct([_endings(path.absolute()) for path in paths])


def _endings(path: Path) -> list[str]:
    parts = [*path.parts[1:-1], path.name if path.is_dir() else path.stem]
    return ["-".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
