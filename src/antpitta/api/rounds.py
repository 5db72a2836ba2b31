"""round: the next model from the verdicts of a queue, judged on verdicts that no model saw.

The verdicts with which a round begins are kept in ``verdicts.csv``: a round that is resumed trains
on these, whatever was judged meanwhile. ``round.json`` names the run before, so that the last round
finds the models of all rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import InstanceOf

from antpitta.api.data import SILENT, source_from_json
from antpitta.api.round_scores import JudgedRecording, find_rounds, round_cells, score_verdicts
from antpitta.api.training import TrainResult, train
from antpitta.core.arguments import Number, PathArgument, PathArguments, as_paths, checked
from antpitta.core.config import Recipe, parse_recipe
from antpitta.core.errors import Finding, UserError, requires_train_extra
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Recording
from antpitta.files.audio import UnreadableAudio, content_key
from antpitta.files.dataset import DataSource, OpenedDataset, open_dataset
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_unchanged, replace_files
from antpitta.files.queue import is_url
from antpitta.files.runs import ROUND, RunFolder
from antpitta.files.tables import write_csv
from antpitta.files.texts import write_json
from antpitta.files.verdicts import (
    VERDICTS,
    add_verdicts,
    open_verdict_recording,
    read_verdicts,
    verdict_boxes,
    verdict_recording_id,
)
from antpitta.report.results import LearningCurve, RunReport
from antpitta.review.library import AudioLibrary
from antpitta.review.rounds import is_new, round_verdicts
from antpitta.review.store import Store
from antpitta.scores.learning_curve import learning_curve, macro_difference

CURVE = "learning_curve.csv"


@dataclass(frozen=True)
class RoundResult:
    """A finished round; as a path, the folder of its run.

    Attributes
    ----------
    path : the run's folder
    number : of the round, 1 for the first one after a run of ``train``
    run_report : what ``report.html`` shows
    curve : average precision of each species by the models of all rounds
    sentences : whether the new model is better, in words
    trained, judging : numbers of verdicts that train the model, and that judge all models
    findings : about verdicts that are left out
    """

    path: Path
    number: int
    run_report: RunReport = field(repr=False)
    curve: pd.DataFrame = field(repr=False)
    sentences: tuple[str, ...]
    trained: int
    judging: int
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> Path:
        """The model that :func:`antpitta.predict` takes."""
        return RunFolder(self.path).model


@dataclass(frozen=True)
class _Parent:
    """The run that a round begins with."""

    folder: RunFolder
    recipe: Recipe
    source: DataSource


@dataclass(frozen=True)
class _RoundData:
    """The data set of a round: that of the run before, and the verdicts whose sound is here."""

    opened: OpenedDataset
    table: pd.DataFrame  # of the verdicts
    recordings: tuple[JudgedRecording, ...]
    judging: list[Annotation]  # those that train, too, come first
    findings: tuple[Finding, ...]

    @property
    def trained(self) -> int:
        """The number of verdicts that train."""
        return int((self.table["verdict"] != "").sum())


@checked
def round(
    run: PathArgument,
    queue: PathArgument,
    out: PathArgument,
    *,
    audio: PathArguments = (),
    release: Sequence[Number] = (),
    resume: bool = False,
    device: str = "auto",
    devices: Number = 1,
    precision: str = "auto",
    compile: bool = False,
    cudnn_benchmark: bool = False,
    parallel_folds: Number = 1,
    export: bool = True,
    progress: InstanceOf[Progress] = SILENT,
) -> RoundResult:
    """Train the next model: the data and recipe of a run, and the agreed verdicts of a queue.

    A verdict that reviewers differ on or are unsure of is unknown. Verdicts of audits that are not
    released train nothing. All verdicts judge the models of all rounds: each score is that of a
    network that was not trained on the recording.

    Parameters
    ----------
    run
        The folder of the run before, made by ``train`` or ``round``.
    queue
        The folder of the queue, or the URL of its database.
    out
        The folder of the new run.
    audio
        Folders of the recordings of the queue; by default they are where they were when the queue
        was made.
    release
        Numbers of audits whose verdicts train models from now on. They give no thresholds for the
        new models then.
    resume
        Continue a round that was interrupted, with the verdicts that it began with.
    device, devices, precision, compile, cudnn_benchmark, parallel_folds, export, progress
        As for :func:`train`.

    Returns
    -------
    RoundResult
        The new run, with the learning curve over all rounds.

    Raises
    ------
    UserError
        ``E_NO_RUN`` and ``E_RUN_UNFINISHED`` for the run before, ``E_ROUND_RUN`` if it does not
        tell what it was trained on, ``E_NO_QUEUE`` and others for the queue, ``E_NO_DRAW`` for a
        number of no audit, ``E_NO_VERDICTS`` if no verdict is agreed on or none is new,
        ``E_NO_MATCHING_AUDIO`` if no recording is found, and those of :func:`train`.

    Examples
    --------
    >>> antpitta.round("run", "queue", "run-2").sentences  # doctest: +SKIP
    """
    parent = _open_parent(RunFolder(Path(run)))
    folder = RunFolder(Path(out))
    with Store.open(queue if is_url(queue) else Path(queue)) as store:
        table, begun = _begin(store, parent, folder, release, resume=resume)
        files = _find_files(store, table, [Path(root) for root in as_paths(audio)])
    data = _open_data(parent, table, files, folder)
    with requires_train_extra("round"):  # what is refused does not wait for PyTorch
        import antpitta.train.training  # noqa: F401
    if not begun:
        _keep(data.table, parent, folder, queue)
    result = train(
        data.opened,
        parent.recipe,
        folder.path,
        resume=resume,
        device=device,
        devices=devices,
        precision=precision,
        compile=compile,
        cudnn_benchmark=cudnn_benchmark,
        parallel_folds=parallel_folds,
        export=export,
        progress=progress,
    )
    return _judge(data, result, progress)


def _open_parent(folder: RunFolder) -> _Parent:
    folder.report()  # refuses a run that is not finished
    config = folder.config()
    chosen, source = config.get("chosen"), config.get("source")
    if not chosen or not source:
        what = f"{folder.path}: this run does not tell which recipe and files it was trained with"
        raise UserError("E_ROUND_RUN", what, "train it again with this version, from files")
    if config.get("input") == "spectrograms":
        what = f"{folder.path}: this run was trained on spectrograms of another program"
        raise UserError("E_ROUND_RUN", what, "train on sound, which the verdicts are about")
    recipe = parse_recipe(dict(chosen), str(folder.path / "config.json"))
    return _Parent(folder, recipe, source_from_json(source))


def _begin(
    store: Store, parent: _Parent, folder: RunFolder, release: Sequence[int], *, resume: bool
) -> tuple[pd.DataFrame, bool]:
    """The verdicts of the round, and whether an earlier start has kept them."""
    if resume and (folder.path / VERDICTS).is_file():
        check_unchanged(folder.path, "run", VERDICTS)
        return read_verdicts(folder.path / VERDICTS), True
    if (folder.path / "config.json").exists():
        raise UserError(
            "E_RUN_EXISTS",
            f"{folder.path}: this folder has a run already",
            "add --resume to continue a round, or choose another folder with -o",
        )
    audits = {draw["id"] for draw in store.draws() if draw["purpose"] == "audit"}
    if unknown := set(release) - audits:
        what = f"there is no audit {min(unknown)}"
        raise UserError("E_NO_DRAW", what, "give a number that the review page lists")
    for draw in release:
        store.release_draw(draw)
    table = round_verdicts(store.export_rows())
    if table.empty:
        what = "no verdict of this queue is agreed on"
        raise UserError("E_NO_VERDICTS", what, "judge some candidates with antpitta review")
    earlier = parent.folder.path / VERDICTS
    if earlier.is_file() and not is_new(table, read_verdicts(earlier)):
        what = f"{parent.folder.path} was made with all verdicts of this queue"
        raise UserError("E_NO_VERDICTS", what, "judge more candidates with antpitta review")
    return table, False


def _find_files(store: Store, table: pd.DataFrame, roots: Sequence[Path]) -> dict[str, Path]:
    """The file of each recording with a verdict, by its digest, as far as it is here."""
    names = dict(zip(table["recording_digest"], table["recording"], strict=True))
    files: dict[str, Path] = {}
    if not roots:
        for digest, text in store.recording_paths().items():
            path = Path(text)
            if digest in names and path.is_file() and content_key(path) == digest:
                files[digest] = path
        return files
    library = AudioLibrary(roots)
    for digest, name in names.items():
        try:
            files[digest] = library.find(str(name), digest).path
        except (UserError, UnreadableAudio):
            continue  # reported with the verdicts that are left out
    return files


def _open_data(
    parent: _Parent, table: pd.DataFrame, files: Mapping[str, Path], folder: RunFolder
) -> _RoundData:
    opened = open_dataset(parent.source)
    known = {content_key(own.source): own for own in opened.dataset.recordings}
    ids = {own.id for own in opened.dataset.recordings}
    judged: dict[str, JudgedRecording] = {}
    lost: dict[str, str] = {}
    first = table.drop_duplicates("recording_digest")
    for digest, name, site in zip(
        *(first[column] for column in ("recording_digest", "recording", "site")), strict=True
    ):
        if digest in known:
            judged[digest] = JudgedRecording(known[digest], digest, name, added=False)
            continue
        try:
            recording = _open_recording(files, digest, name, site, ids, parent.source.channel)
        except UnreadableAudio as error:
            lost[digest] = str(error)
            continue
        judged[digest] = JudgedRecording(recording, digest, name, added=True)
        ids.add(recording.id)
    return _join(opened, judged, lost, table, folder)


def _open_recording(
    files: Mapping[str, Path],
    digest: str,
    name: str,
    site: str | None,
    ids: set[str],
    channel: int | None,
) -> Recording:
    if digest not in files:
        raise UnreadableAudio(f"the recording {name!r} is not here")
    id = verdict_recording_id(name, digest, ids, new=True)
    return open_verdict_recording(files[digest], id, channel, site if site else None)


def _join(
    opened: OpenedDataset,
    judged: Mapping[str, JudgedRecording],
    lost: Mapping[str, str],
    table: pd.DataFrame,
    folder: RunFolder,
) -> _RoundData:
    path = folder.path / VERDICTS
    missing = table["recording_digest"].isin(list(lost))
    lengths = {digest: own.recording.duration for digest, own in judged.items()}
    beyond = table["start_time"].astype(float) >= table["recording_digest"].map(lengths)
    findings = []
    if rows := int(missing.sum()):
        what = f"{rows} of {len(table)} verdicts are left out: {next(iter(lost.values()))}"
        findings.append(Finding("W_NO_AUDIO", str(path), None, what, "add --audio FOLDER", True))
    if rows := int(beyond.sum()):
        what = f"{rows} of {len(table)} verdicts begin beyond the end of their recording"
        remedy = "check that the recording is the same"
        findings.append(Finding("W_BOX_BEYOND_END", str(path), None, what, remedy, True))
    kept = table[~missing & ~beyond].reset_index(drop=True)
    if kept.empty:
        remedy = "name the folder of the queue's recordings with --audio"
        raise UserError("E_NO_MATCHING_AUDIO", findings[0].what, remedy)
    kept = kept.sort_values("held_verdict", key=lambda cells: cells != "", kind="stable")
    placed = kept.assign(
        recording=[judged[digest].recording.id for digest in kept["recording_digest"]]
    )
    opened, judging = add_verdicts(
        opened,
        [own.recording for own in judged.values() if own.added],
        verdict_boxes(placed, "verdict"),
        verdict_boxes(placed, "held_verdict"),
        path,
    )
    opened = replace(opened, findings=(*opened.findings, *findings))
    return _RoundData(opened, kept, tuple(judged.values()), judging, tuple(findings))


def _keep(table: pd.DataFrame, parent: _Parent, folder: RunFolder, queue: Path | str) -> None:
    """Write the verdicts, and where the round comes from, before anything is trained."""
    note: dict[str, Any] = {
        "number": parent.folder.round_number() + 1,
        "run": str(parent.folder.path.absolute()),
        "queue": str(queue) if is_url(queue) else str(Path(queue).absolute()),
    }
    with lock_folder(folder.path), replace_files(folder.path, "run") as new:
        write_csv(table, new / VERDICTS)
        write_json(note, new / ROUND)


def _judge(data: _RoundData, result: TrainResult, progress: Progress) -> RoundResult:
    """Score the verdicts with the models of all rounds, and add the curve to the report."""
    from antpitta.api.run_report import write_report

    folder = RunFolder(result.path)
    classes = data.opened.dataset.classes
    runs, notes = find_rounds(folder)
    scores = [
        (number, run, score_verdicts(run, data.recordings, classes, progress))
        for number, run in runs
    ]
    groups = {"all": data.judging, "audit": data.judging[data.trained :]}
    tables, differences = [], {}
    for name, boxes in groups.items():
        if boxes:
            rounds = [round_cells(*own, boxes, classes) for own in scores]
            tables.append(learning_curve(rounds, classes, name))
            differences[name] = macro_difference(rounds, classes)
    curve = LearningCurve(pd.concat(tables, ignore_index=True), differences, tuple(notes))
    report = replace(result.run_report, rounds=curve)
    with lock_folder(folder.path):
        write_report(folder, report)
        with replace_files(folder.path, "run") as new:
            write_csv(curve.table, new / CURVE)
    return RoundResult(
        *(folder.path, folder.round_number(), report, curve.table, curve.sentences()),
        *(data.trained, len(data.judging), data.findings),
    )
