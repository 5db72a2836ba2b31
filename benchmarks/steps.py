"""Where the time of hearing a minute goes, step by step, in one thread.

Each step is run by itself over the same files, in turns, and its median counts: the shares are of
their sum. A process of many threads cannot be faster than that sum lets its cores be.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr

from antpitta.core.config import Precision, parse_recipe
from antpitta.core.errors import UserError
from antpitta.files.audio import read
from antpitta.files.bundle import Bundle
from antpitta.files.recordings import list_files, open_file
from antpitta.model.features import build_feature_extractor
from antpitta.model.inference import InferenceConfig
from antpitta.predict.predictor import KINDS, open_backend

MINUTE = 60.0
PREPARING = ("open", "decode", "resample", "mel")


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def of(self, name: str, work: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        found = work(*given)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return found


def time_steps(
    model: Bundle, audio: Sequence[Path], precisions: Sequence[Precision], count: int
) -> pd.DataFrame:
    """Rows step, ms: milliseconds of one core for a minute of sound; networks by precision."""
    recipe = parse_recipe(model.recipe, str(model.path))
    drawing, clock, minutes = recipe.feature_config, _Clock(), []
    pen = build_feature_extractor(recipe)
    engines = {kind: _engine(model, recipe, kind, pen.width) for kind in precisions}
    files = list_files(audio)[0][:count]
    for listed in files:
        one = clock.of("open", open_file, listed)
        stop = min(one.duration, drawing.segment)
        minutes.append(stop / MINUTE)
        rate = drawing.read_rate(one.sample_rate)
        wave = clock.of("decode", read, one, 0, stop, one.sample_rate)
        if rate == one.sample_rate:
            clock.seconds.setdefault("resample", []).append(0.0)
        else:
            clock.of("resample", soxr.resample, wave, one.sample_rate, rate)
            wave = read(one, 0, stop, rate)
        image = clock.of("mel", pen.draw, wave, drawing.n_frames(stop), rate)
        for kind, engine in engines.items():
            if engine is not None:
                clock.of(kind, engine.hear, image)
    median = {name: 1000 * float(np.median(np.array(own) / minutes))
              for name, own in clock.seconds.items()}  # fmt: skip
    return pd.DataFrame({"step": list(median), "ms": list(median.values())})


def _engine(model: Bundle, recipe: Any, kind: Precision, width: int) -> Any:
    if KINDS[kind] not in model.networks:
        return None
    try:
        return open_backend(model, recipe, InferenceConfig(precision=kind), width)
    except UserError:
        return None


def say_limit(steps: pd.DataFrame, kind: str, cores: int) -> str:
    """A line about what limits hearing with one precision."""
    seconds = steps.set_index("step")["ms"] / 1000
    own = seconds[[*PREPARING, kind]]
    most, total = str(own.idxmax()), float(own.sum())
    name = "the network" if most == kind else most
    parts = ", ".join(
        f"{'network' if step == kind else step} {value / total:.0%}" for step, value in own.items()
    )
    return (
        f"{kind}: {parts}; {name} limits it, and {cores} cores cannot pass "
        f"{cores * MINUTE / total:.0f} x real time"
    )
