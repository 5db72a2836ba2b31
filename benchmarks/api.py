"""What each part of a recipe is worth (bench_learn), and how fast one trains and predicts."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from antpitta.api.data import QUIET
from antpitta.api.ensembles import ensemble
from antpitta.api.evaluation import evaluate_events
from antpitta.api.prediction import predict_to
from antpitta.api.training import train
from antpitta.core.config import BlendMethod
from antpitta.core.errors import UserError
from antpitta.core.progress import Progress
from antpitta.files.dataset import OpenedDataset
from antpitta.files.recipes import read_recipe
from antpitta.files.runs import RunFolder
from antpitta.files.tables import write_csv
from antpitta.train.compute import ComputeConfig, build_fabric
from benchmarks.figures import Commands
from benchmarks.learn import run_bench
from benchmarks.predict import PredictBench, run_predict_bench, untrained_model
from benchmarks.tables import Bench, write_bench
from benchmarks.test_set import read_test_set, read_truth
from benchmarks.train import TrainBench, run_train_bench, without_weights
from benchmarks.variants import choose_variants, read_variants
from benchmarks.vectors import open_embed
from benchmarks.work import Plan


def bench_learn(
    data: OpenedDataset,
    test: Sequence[Path | str],
    truth: Path | str,
    *,
    events: Path | str | None = None,
    train_truth: Path | str | None = None,
    recipe: str = "quick",
    seeds: int = 3,
    variants: Sequence[str] = (),
    yardsticks: Sequence[str] = (),
    out: Path | str = "bench",
    device: str = "auto",
    precision: str = "auto",
    progress: Progress = QUIET,
) -> Bench:
    """Train every variant of a table for every seed, judge all on ``test``, and write the tables.

    ``recipe`` is a table of variants that ships, or one at a path; ``train_truth`` is for looking
    at pseudo labels and nothing learns from it; ``yardsticks`` are embeddings to stand beside,
    ``birdnet`` or the files of networks. What lies finished in ``out`` is not trained
    again. Raises UserError for data, a table or a truth that does not fit, before any training.
    """
    if seeds < 1:
        raise UserError("E_TODO", f"--seeds {seeds}: nothing would be trained", "give 1 or more")
    dataset = data.dataset
    chosen = choose_variants(read_variants(recipe), variants)
    calls = None if events is None else Path(events)
    exam = read_test_set([Path(one) for one in test], Path(truth), calls, dataset)
    beside = {Path(name).stem: open_embed(name, dataset) for name in yardsticks}
    if taken := set(beside) & {variant.name for variant in chosen}:
        raise UserError(
            "E_TODO", f"--yardstick {min(taken)}: is a variant's name too", "rename the file"
        )
    known = read_truth(Path(train_truth), dataset.classes) if train_truth else None
    plan = Plan(chosen, seeds, dataset, exam, known, beside)
    verbs = _verbs(data, exam.audio, device, precision, progress)
    bench = run_bench(plan, verbs, Path(out), progress)
    write_bench(bench, Path(out))
    return bench


def _verbs(
    data: OpenedDataset, test: Sequence[Path], device: str, precision: str, progress: Progress
) -> Commands:
    """What is done for each variant, by the very functions that users call."""

    def learn(base: str, changes: tuple[str, ...], home: Path, baseline: bool) -> None:
        train(
            *(data, base, home),
            changes=changes,
            baseline=baseline,
            resume=True,
            device=device,
            precision=precision,
            export=False,
            progress=progress,
        )

    def blend(
        runs: list[Path], home: Path, method: BlendMethod, weights: tuple[float, ...]
    ) -> None:
        ensemble(runs, home, method=method, weights=weights or None)

    def listen(model: Path, found: Path) -> None:
        tick = progress.update
        predict_to(
            *(model, test, found),
            tick=lambda done, total, speed: tick("test recordings", done, total, float("nan")),
        )

    return Commands(learn, blend, listen, evaluate_events)


def bench_train(
    present: Sequence[Path | str],
    absent: Sequence[Path | str],
    *,
    recordings: int = 4727,
    recipe: str = "rfcx",
    changes: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    cudnn_benchmark: bool = False,
    parallel_folds: int = 1,
    out: Path | str | None = None,
    progress: Progress = QUIET,
) -> TrainBench:
    """Train a whole recipe on ``recordings`` made-up ones with these tables' boxes, and time it.

    The pictures are noise, and weights are not fetched unless a change asks for them. The run
    stays in ``out``, with the table as train.csv; without one nothing stays. Raises UserError
    where a run is there already: part of it would not be measured.
    """
    chosen = read_recipe(recipe, without_weights(changes))
    tables = [Path(one) for one in present], [Path(one) for one in absent]
    engine = ComputeConfig(
        device,
        precision=precision,
        compile=compile,
        cudnn_benchmark=cudnn_benchmark,
        parallel_folds=parallel_folds,
    )
    build_fabric(engine)  # a mistake is told before the folder is claimed
    with TemporaryDirectory() if out is None else nullcontext(str(out)) as home:
        folder = RunFolder(Path(home))
        folder.begin({"recipe": chosen.model_dump(mode="json"), "data": "made up"}, resume=False)
        found = run_train_bench(*tables, chosen, folder, engine, recordings, progress)
        write_csv(found.table, folder.path / "train.csv")
    return found


def bench_predict(
    audio: Sequence[Path | str],
    model: Path | str | None = None,
    *,
    files: int = 500,
    rounds: int = 3,
    recipe: str = "rfcx",
    embedding: str | None = None,
    out: Path | str | None = None,
    progress: Progress = QUIET,
) -> PredictBench:
    """Hear ``files`` names of the files in ``audio`` in every way there is, in turns, and time it.

    Without a ``model`` an untrained one of ``recipe`` is made. ``embedding`` is a bird network to
    stand beside, ``birdnet`` or a file. The tables go to ``out`` as predict.csv and
    predict_steps.csv. Raises UserError for audio, a model or a network that cannot be had.
    """
    if files < 1 or rounds < 1:
        raise UserError("E_TODO", "--files and --rounds: nothing would be timed", "give 1 or more")
    sound = [Path(one) for one in audio]
    with TemporaryDirectory() as home:
        if model is None:
            chosen = read_recipe(recipe, without_weights(("folds=2",)))
            path = untrained_model(chosen, sound, Path(home))
        else:
            path = Path(model)
        found = run_predict_bench(path, sound, files, rounds, embedding, progress)
    if out is not None:
        write_csv(found.table, Path(out) / "predict.csv")
        write_csv(found.steps, Path(out) / "predict_steps.csv")
    return found
