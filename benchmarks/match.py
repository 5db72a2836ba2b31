"""``python -m benchmarks.match``: the speed of template matching on one core.

Templates are present boxes of a data set, spread over its species. The spectrograms of its
recordings are computed once, and correlated in turns until as many hours as asked for are done, so
the figure is measured and not extrapolated. Seconds are those of the process's own processor time
in one thread. Decoding and the spectrogram are timed apart, on the same recordings.
"""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from antpitta.api.data import SILENT
from antpitta.cli.data import takes_data
from antpitta.cli.display import training_progress
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.dataset import OpenedDataset
from antpitta.files.recipes import read_recipe
from antpitta.files.spectrograms import read_input
from antpitta.model.features import FeatureExtractor, build_feature_extractor
from antpitta.search.matching import Template, TemplateMatcher
from antpitta.search.templates import cut_templates
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.tables import describe_machine

KEPT = 60  # spectrograms that are correlated in turns
HOUR = 3600.0


@dataclass(frozen=True)
class MatchBenchmark:
    """The time of each step."""

    table: pd.DataFrame  # step, seconds of one core for all hours
    lines: tuple[str, ...]  # sizes, memory and machine


def benchmark_match(
    data: OpenedDataset,
    *,
    templates: int = 24,
    hours: float = 100.0,
    recipe: str = "rfcx",
    progress: Progress = SILENT,
) -> MatchBenchmark:
    """Time template matching.

    Parameters
    ----------
    data : its present boxes are the templates, its recordings the archive
    templates : how many to use
    hours : of sound to correlate
    recipe : the recipe of the spectrogram
    progress : gets the spectrograms done

    Returns
    -------
    MatchBenchmark
        Seconds by step.

    Raises
    ------
    UserError
        E_BENCHMARK_EMPTY without a template or any sound to correlate.
    """
    extractor = build_feature_extractor(read_recipe(recipe))
    chosen = spread_templates(_cut(data, extractor), templates)
    if not chosen or hours <= 0:
        what = f"{len(chosen)} templates and {hours:g} hours time nothing"
        raise UserError("E_BENCHMARK_EMPTY", what, "give present boxes and some hours")
    matcher = TemplateMatcher(chosen)
    recordings = data.dataset.recordings[:KEPT]
    stops = [min(recording.duration, extractor.config.segment) for recording in recordings]
    began = time.process_time()
    pixels = [
        extractor.extract_segment(recording, 0.0, stop, read_input)
        for recording, stop in zip(recordings, stops, strict=True)
    ]
    preparing = (time.process_time() - began) * hours * HOUR / sum(stops)
    rounds = max(1, round(hours * HOUR / (sum(stops) / len(stops))))
    matcher.find(pixels[0], 0.2, 3)  # the spectra of the templates are computed once
    began = time.process_time()
    for done, part in enumerate(islice(cycle(pixels), rounds), start=1):
        matcher.find(part, 0.2, 3)
        progress.update("spectrograms", done, rounds, float("nan"))
    seconds = time.process_time() - began
    table = pd.DataFrame(
        {
            "step": ["correlation and peaks", "decoding and spectrogram (from a part)"],
            f"seconds for {hours:g} hours": [f"{seconds:.0f}", f"{preparing:.0f}"],
        }
    )
    return MatchBenchmark(table, tuple(_describe(matcher, pixels, rounds)))


def _cut(data: OpenedDataset, extractor: FeatureExtractor) -> list[Template]:
    pairs = zip(data.dataset.annotations, data.origins, strict=True)
    present = [(box, origin) for box, origin in pairs if box.present]
    boxes, origins = [box for box, _ in present], [origin for _, origin in present]
    return cut_templates(data.dataset.recordings, boxes, origins, extractor)[0]


def spread_templates(templates: Sequence[Template], count: int) -> list[Template]:
    """Choose templates, from each species in turn.

    Parameters
    ----------
    templates : all there are
    count : how many to choose

    Returns
    -------
    list of Template
        Fewer than ``count`` if there are not as many.
    """
    turn: dict[str, int] = {}
    turns = []
    for template in templates:
        turn[template.box.label] = turn.get(template.box.label, -1) + 1
        turns.append(turn[template.box.label])
    order = np.argsort(turns, kind="stable")
    return [templates[i] for i in order[:count]]


def _describe(
    matcher: TemplateMatcher, pixels: Sequence[np.ndarray], rounds: int
) -> tuple[str, ...]:
    sizes = [template.pixels.shape for template in matcher.templates]
    frames, bands = (np.median([size[axis] for size in sizes]) for axis in (0, 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return (
        f"{len(sizes)} templates of {len(matcher.species)} species, at the median {frames:.0f} "
        f"frames x {bands:.0f} bands; {rounds} spectrograms of {pixels[0].shape[0]} frames",
        f"memory at most {peak:.0f} MB, {sum(part.nbytes for part in pixels) / 1e6:.0f} MB of them "
        "spectrograms that are correlated in turns",
        describe_machine(),
    )


@takes_data
def match(
    *,
    data: OpenedDataset,
    templates: Annotated[int, typer.Option("--templates", help="Number of templates.")] = 24,
    hours: Annotated[float, typer.Option("--hours", help="Hours of sound to correlate.")] = 100.0,
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe whose spectrogram is used.")
    ] = "rfcx",
) -> None:
    """Time template matching with the present boxes of a data set, in one thread.

    Example: `OMP_NUM_THREADS=1 python -m benchmarks.match data --templates 24 --hours 100`
    """
    with training_progress() as progress:
        result = benchmark_match(
            data, templates=templates, hours=hours, recipe=recipe, progress=progress
        )
    print_table(result.table, "template matching, processor seconds of one core")
    print_lines(result.lines)


app = command_app(match)

if __name__ == "__main__":
    run(app)
