"""``python -m benchmarks.rounds``: what rounds of verdicts are worth, by how they are chosen.

The complete ground truth of the training recordings plays the reviewer. A candidate is a window of
an embedding model and a species. Each seed begins with two present and one absent verdict of each
species, then asks for some candidates a round and fits one logistic regression per species to all
verdicts so far. All ways of choosing begin with the same verdicts, so their differences are paired.

- *random* and *top score* take candidates of any species, at random and from the highest score
  down; *of each species* takes equally many of each. *teach* is
  :func:`antpitta.search.designs.draw_teach` by scores alone, *teach, embeddings* also by the
  distance from what was judged.
- A candidate's window is the input window of the embedding model around its vectors.
- A window has a call if it holds a second of it, or half of it. Windows that hold less of one are
  answered by "unsure", which teaches nothing.
- A test recording has the highest score of its windows. Macro AP is that of the test recordings
  after the last round, and its mean over the rounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression

from antpitta.api.data import SILENT
from antpitta.cli.data import takes_data
from antpitta.cli.display import training_progress
from antpitta.core.config import Recipe
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Recording
from antpitta.files.cache import cached_features
from antpitta.files.dataset import OpenedDataset, match_tables
from antpitta.files.embedding_models import find_embedding_model
from antpitta.files.formats import read_table
from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import FoundRecordings
from antpitta.files.spectrograms import read_input
from antpitta.files.tables import write_csv
from antpitta.model.features import build_feature_extractor
from antpitta.scores.cells import clip_score_table
from antpitta.search.designs import TeachingPool, draw_teach
from antpitta.train.training import resolve_recipe
from benchmarks.cli import command_app, print_lines, print_table, run
from benchmarks.test_set import TestSet, read_test_set

STRIDE = 4  # vectors, whose mean is that of a candidate
CALL_SECONDS, CALL_SHARE = 1.0, 0.5  # that a window must hold of a call, whichever is less
PRESENT, ABSENT, UNSURE = 1, 0, -1
SEED_VERDICTS = (2, 1)  # present and absent ones of each species
STRENGTH = 0.01  # C of the regressions
COLUMNS = ("macro_ap", "mean_ap", "rare_calls", "calls")
TITLES = ("macro AP, last round", "macro AP, mean of rounds", "calls, rarest quarter", "calls")
Floats = NDArray[np.float32]
# Scores (windows, species), what was judged, and the verdicts, to pairs of window and species.
Choose = Callable[["Review", NDArray[np.floating], int, np.random.Generator], list[tuple[int, int]]]


@dataclass(frozen=True)
class Windows:
    """The windows of recordings."""

    recording: NDArray[np.int64]  # (windows,)
    start: NDArray[np.float64]  # (windows,), seconds
    seconds: float  # length of a window
    vector: Floats  # (windows, values)


@dataclass(frozen=True)
class RoundsBenchmark:
    """What each way of choosing is worth."""

    runs: pd.DataFrame  # way, seed, and COLUMNS
    table: pd.DataFrame  # means with 95 % intervals
    differences: pd.DataFrame  # of paired seeds, teach minus another way
    lines: tuple[str, ...]


class Review:
    """The verdicts of one seed so far."""

    def __init__(self, windows: Windows, truth: NDArray[np.int64], rng: np.random.Generator):
        self.windows, self.truth = windows, truth
        self.judged = np.zeros(truth.shape, dtype=bool)
        for species in range(truth.shape[1]):
            for verdict, count in zip((PRESENT, ABSENT), SEED_VERDICTS, strict=True):
                rows = np.flatnonzero(truth[:, species] == verdict)
                self.judged[rng.choice(rows, count, replace=False), species] = True
        self.seeds = self.calls()

    def calls(self) -> NDArray[np.int64]:
        """The present verdicts of each species."""
        count: NDArray[np.int64] = (self.judged & (self.truth == PRESENT)).sum(axis=0)
        return count

    def fit(self) -> tuple[Floats, Floats]:
        """Weights (values, species) and intercepts of one regression per species."""
        width, species = self.windows.vector.shape[1], self.truth.shape[1]
        weights, intercepts = np.zeros((width, species)), np.zeros(species)
        for column in range(species):
            rows = np.flatnonzero(self.judged[:, column] & (self.truth[:, column] != UNSURE))
            model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
            few, basis = _rotate(self.windows.vector[rows])
            model.fit(few, self.truth[rows, column])
            weights[:, column], intercepts[column] = basis @ model.coef_[0], model.intercept_[0]
        return weights.astype(np.float32), intercepts.astype(np.float32)


def _rotate(vectors: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors in a basis (values, vectors) of their own, and the basis.

    Weights that are penalised by their squares lie in the span of the vectors, so that the few
    coordinates give the same regression as all values, much faster.
    """
    basis, triangle = np.linalg.qr(vectors.T.astype(np.float64))
    return triangle.T, basis


def _random(
    review: Review, scores: NDArray[np.floating], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    return _best(review, rng.random(scores.shape), count, rng)


def _random_of_each(
    review: Review, scores: NDArray[np.floating], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    return _best_of_each(review, rng.random(scores.shape), count, rng)


def _best(
    review: Review, scores: NDArray[np.floating], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """The highest values."""
    order = np.argsort(np.where(review.judged, -1.0, scores), axis=None)[::-1][:count]
    return [(int(i) // scores.shape[1], int(i) % scores.shape[1]) for i in order]


def _best_of_each(
    review: Review, scores: NDArray[np.floating], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """The highest values, equally many of each species; the rest goes to species by chance."""
    species = scores.shape[1]
    shares = np.full(species, count // species)
    shares[rng.permutation(species)[: count % species]] += 1
    order = np.argsort(np.where(review.judged, -1.0, scores), axis=0)[::-1]
    return [(int(i), k) for k in range(species) for i in order[: shares[k], k]]


def _teach(
    review: Review,
    scores: NDArray[np.floating],
    count: int,
    rng: np.random.Generator,
    *,
    embeddings: bool = False,
) -> list[tuple[int, int]]:
    window, species = np.nonzero(~review.judged)
    judged, judged_species = np.nonzero(review.judged)
    vector = review.windows.vector
    pool = TeachingPool(
        *(species, scores[window, species], review.windows.recording[window], review.calls()),
        vector=vector[window] if embeddings else None,
        judged=vector[judged] if embeddings else None,
        judged_species=judged_species if embeddings else None,
    )
    return [(int(window[i]), int(species[i])) for i in draw_teach(pool, count, rng)]


def _teach_embeddings(
    review: Review, scores: NDArray[np.floating], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    return _teach(review, scores, count, rng, embeddings=True)


WAYS: dict[str, Choose] = {
    "teach": _teach,
    "teach, embeddings": _teach_embeddings,
    "top score": _best,
    "top score of each species": _best_of_each,
    "random": _random,
    "random of each species": _random_of_each,
}


def benchmark_rounds(
    data: OpenedDataset,
    test: Sequence[Path],
    truth: Path,
    train_events: Path,
    *,
    recipe: str = "embedding",
    changes: tuple[str, ...] = (),
    seeds: int = 5,
    rounds: int = 10,
    batch: int = 36,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> RoundsBenchmark:
    """Compare ways of choosing what a person judges.

    Parameters
    ----------
    data : the training recordings and the species
    test : files and folders of test recordings
    truth : their ground truth
    train_events : a table of every call in the training recordings
    recipe, changes : with an embedding model
    seeds : of the first verdicts
    rounds : of each seed
    batch : candidates a round
    out : a folder for ``rounds.csv``
    progress : gets the seeds done

    Returns
    -------
    RoundsBenchmark
        Figures of each way, and paired differences.

    Raises
    ------
    UserError
        E_BENCHMARK_EMPTY without seeds or rounds, and the codes of tables and embedding models.
    """
    if min(rounds, batch) < 1 or seeds < 2:
        what = f"--seeds {seeds} --rounds {rounds} --batch {batch} compares nothing"
        raise UserError("E_BENCHMARK_EMPTY", what, "give at least two seeds, and one of the others")
    test_set = read_test_set(list(test), truth, None, data.dataset)
    resolved = resolve_recipe(read_recipe(recipe, changes), data.dataset)
    train = embed(resolved, data.dataset.recordings, progress)
    tested = embed(resolved, test_set.recordings, progress)
    mean, spread = train.vector.mean(axis=0), train.vector.std(axis=0) + 1e-6
    train, tested = (
        Windows(part.recording, part.start, part.seconds, (part.vector - mean) / spread)
        for part in (train, tested)
    )
    recordings = FoundRecordings(data.dataset.recordings, ())
    calls = match_tables(recordings, [read_table(train_events, True)]).dataset.annotations
    verdicts = judge_windows(train, data.dataset.recordings, calls, data.dataset.classes.names)
    rows = []
    for seed in range(1, seeds + 1):
        for name, choose in WAYS.items():
            figures = _run(train, verdicts, tested, test_set, choose, (seed, rounds, batch))
            rows.append({"way": name, "seed": seed, **figures})
        progress.update("seeds", seed, seeds, float("nan"))
    runs = pd.DataFrame(rows)
    if out is not None:
        write_csv(runs, out / "rounds.csv")
    return summarise(runs, f"{rounds} rounds of {batch}, {seeds} seeds")


def embed(recipe: Recipe, recordings: Sequence[Recording], progress: Progress) -> Windows:
    """The windows of recordings, with their embeddings from the cache.

    Parameters
    ----------
    recipe : with an embedding model whose digest is known
    recordings : to embed
    progress : gets the recordings done

    Returns
    -------
    Windows
        The model's own logits of species are left out.
    """
    config = recipe.embedding
    if config is None:
        what = f"recipe {recipe.name}: it has no embedding model"
        raise UserError("E_BENCHMARK_EMPTY", what, "give --recipe embedding")
    extractor = build_feature_extractor(recipe, find_embedding_model(config))
    arrays = cached_features(
        list(recordings),
        config.digest,
        lambda recording, notes: extractor.extract_all(recording, read_input),
        progress=progress.of("recordings embedded"),
    )
    places, starts, vectors = [], [], []
    width = extractor.width - len(config.class_map or ())
    for i, (recording, array) in enumerate(zip(recordings, arrays, strict=True)):
        grids = [config.time_grid(*segment) for segment in config.segments(recording.duration)]
        middle = np.concatenate([g.start + (np.arange(g.frames) + 0.5) * g.hop for g in grids])
        last = max(0.0, recording.duration - config.seconds)
        start = np.clip(_means(middle) - config.seconds / 2, 0.0, last)
        places.append(np.full(len(start), i))
        starts.append(start)
        vectors.append(_means(array[:, :width]).astype(np.float32))
    joined = (np.concatenate(places), np.concatenate(starts))
    return Windows(*joined, config.seconds, np.concatenate(vectors))


def _means(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The means of so many rows after each other as make a candidate; a rest is left out."""
    groups = rows[: len(rows) // STRIDE * STRIDE].reshape(-1, STRIDE, *rows.shape[1:])
    means: NDArray[np.float64] = groups.mean(axis=1, dtype=np.float64)
    return means


def judge_windows(
    windows: Windows,
    recordings: Sequence[Recording],
    calls: Sequence[Annotation],
    names: Sequence[str],
) -> NDArray[np.int64]:
    """The verdicts of a reviewer who knows every call.

    Parameters
    ----------
    windows : of the recordings
    recordings : in their order
    calls : every call in them
    names : of the species

    Returns
    -------
    (windows, species), PRESENT, ABSENT or UNSURE
    """
    place = {recording.id: i for i, recording in enumerate(recordings)}
    column = {name: i for i, name in enumerate(names)}
    verdicts = np.full((len(windows.start), len(names)), ABSENT)
    for call in calls:
        rows = np.flatnonzero(windows.recording == place[call.recording])
        start = windows.start[rows]
        shared = np.minimum(start + windows.seconds, call.stop) - np.maximum(start, call.start)
        enough = shared >= min(CALL_SECONDS, CALL_SHARE * (call.stop - call.start))
        species = column[call.label]
        verdicts[rows[(shared > 0) & (verdicts[rows, species] == ABSENT)], species] = UNSURE
        verdicts[rows[enough], species] = PRESENT
    return verdicts


def _run(
    train: Windows,
    verdicts: NDArray[np.int64],
    tested: Windows,
    test_set: TestSet,
    choose: Choose,
    plan: tuple[int, int, int],
) -> dict[str, float]:
    """The figures of one way and seed."""
    seed, rounds, batch = plan
    rng = np.random.default_rng(seed)
    review = Review(train, verdicts, rng)
    model, precision = review.fit(), []
    for _ in range(rounds):
        scores = expit(train.vector @ model[0] + model[1])
        for window, species in choose(review, scores, batch, rng):
            review.judged[window, species] = True
        model = review.fit()
        precision.append(_macro_ap(tested, test_set, model))
    calls = review.calls() - review.seeds
    rare = np.argsort((verdicts == PRESENT).sum(axis=0), kind="stable")[: len(calls) // 4]
    figures = (precision[-1], np.mean(precision), calls[rare].sum(), calls.sum())
    return dict(zip(COLUMNS, map(float, figures), strict=True))


def _macro_ap(tested: Windows, test_set: TestSet, model: tuple[Floats, Floats]) -> float:
    scores = tested.vector @ model[0] + model[1]
    first = np.flatnonzero(np.diff(tested.recording, prepend=-1))
    highest = expit(np.maximum.reduceat(scores, first, axis=0))
    ids = [recording.id for recording in test_set.recordings]
    table = clip_score_table(ids, highest, test_set.classes.names)
    return test_set.evaluate(table, "rounds").macro_ap.value


def summarise(runs: pd.DataFrame, title: str) -> RoundsBenchmark:
    """Means with 95 % intervals of Student's t over seeds, and paired differences.

    Parameters
    ----------
    runs : way, seed and figures
    title : what was run

    Returns
    -------
    RoundsBenchmark
        Tables of text.
    """
    by_way = {way: runs[runs["way"] == way].sort_values("seed") for way in dict.fromkeys(runs.way)}
    rows, differences = [], []
    for way, part in by_way.items():
        cells = (_interval(part[name].to_numpy(float)) for name in COLUMNS)
        rows.append({"way": way, **dict(zip(TITLES, cells, strict=True))})
        if way != "teach":
            gains = by_way["teach"][list(COLUMNS)].to_numpy() - part[list(COLUMNS)].to_numpy()
            cells = (_interval(column) for column in gains.T)
            differences.append({"teach minus": way, **dict(zip(TITLES, cells, strict=True))})
    return RoundsBenchmark(runs, pd.DataFrame(rows), pd.DataFrame(differences), (title,))


def _interval(values: NDArray[np.floating]) -> str:
    mean = values.mean()
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    digits = 3 if abs(values).max() <= 1 else 1
    return f"{mean:.{digits}f} ({mean - half:.{digits}f} to {mean + half:.{digits}f})"


@takes_data
def rounds(
    *,
    data: OpenedDataset,
    test: Annotated[list[Path], typer.Option("--test", help="A folder of test recordings.")],
    truth: Annotated[Path, typer.Option("--truth", help="Their ground truth.")],
    train_events: Annotated[
        Path, typer.Option("--train-events", help="Every call in the training recordings.")
    ],
    recipe: Annotated[
        str, typer.Option("--recipe", help="A recipe with an embedding model.")
    ] = "embedding",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds 1 to this.")] = 5,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of each seed.")] = 10,
    batch: Annotated[int, typer.Option("--batch", help="Candidates a round.")] = 36,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for a table.")] = None,
) -> None:
    """Compare ways of choosing what a person judges next, with the truth as the reviewer.

    Example: `python -m benchmarks.rounds data --test data/test --truth data/test_truth.csv
    --train-events data/train_events.csv`
    """
    with training_progress() as progress:
        result = benchmark_rounds(
            *(data, test, truth, train_events),
            recipe=recipe,
            changes=tuple(changes or ()),
            seeds=seeds,
            rounds=rounds,
            batch=batch,
            out=out,
            progress=progress,
        )
    print_table(result.table, "means over seeds (95 % interval)")
    print_table(result.differences, "paired differences (95 % interval)")
    print_lines(result.lines)


app = command_app(rounds)

if __name__ == "__main__":
    run(app)
