"""predict: a model over recordings, to framewise scores in memory or to tables in a folder.

What reads and writes tables (pandas, pyarrow) takes a third of a second to import. It is imported
where it is used, and for ``predict_to`` in a thread while the first recordings are computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from antpitta.api.prediction_job import PredictionJob, check_choice
from antpitta.api.prediction_result import SUBMISSION, Prediction
from antpitta.core.arguments import (
    Finite,
    Number,
    PathArgument,
    PathArguments,
    SplitWords,
    Words,
    as_paths,
    as_words,
    checked,
)
from antpitta.core.config import EventFormat, Executor, InferenceMode, Precision, parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.identity import species_columns
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.deployments import Deployments, common_root, read_deployments
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_own_files
from antpitta.files.recordings import ListedFile, list_files
from antpitta.files.remote import RemotePath, local_folder, location_of, upload
from antpitta.files.texts import remove_unfinished
from antpitta.model.features import check_input
from antpitta.model.inference import InferenceConfig
from antpitta.predict.detection import DetectionConfig, configure_detection
from antpitta.predict.journal import Journal
from antpitta.predict.pipeline import (
    FileResult,
    cpu_count,
    failure_reason,
    predict_files,
)
from antpitta.predict.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from antpitta.predict.submission import Submission

TABLES = ("presence.csv", "quarantine.csv", "run.json")  # of every output folder
DESCRIPTOR = "camtrapdp/datapackage.json"  # users complete it, and their text is kept
INDEX = ["file", "start_time", "end_time"]


@checked
def predict(
    model: PathArgument,
    *audio: PathArgument,
    spectrograms: PathArguments = (),
    inference: InferenceMode = "full",
    precision: Precision = "float32",
    workers: Number | None = None,
    channel: Number | None = None,
) -> "pd.DataFrame":
    """Compute the framewise scores of recordings, in memory.

    Parameters
    ----------
    model : a model (bundle), or the folder of the run that holds it
    audio : files, or folders that are searched for recordings
    spectrograms : folders of spectrograms in dB, ``<recording_id>.npy`` or ``.npz``, that are read
        instead of the sound; ``audio`` then gives names, sites and times only
    inference : ``full`` runs the network on whole segments of a minute; ``sliding`` on overlapping
        windows as in training, which is several times slower and always float32
    precision : ``float32``, ``bfloat16`` or ``int8``; the scores of the others differ slightly
        from those of float32
    workers : threads; None for one per core
    channel : the channel of each file, counted from 1; None for the mean of all

    Returns
    -------
    DataFrame of shape (frames of all recordings, species), float32
        Indexed by file, start_time and end_time (seconds), with one column per species; a species
        that is called like one of these has ``(species)`` behind its name. A score orders the
        detections of one species; it is not a probability. A species that was not learnable, as it
        had no present box, has NaN.
        ``attrs["quarantine"]`` lists (file, reason) for files without scores.

    Raises
    ------
    UserError
        ``E_...`` of :func:`predict_to`, as far as they concern the model and the audio.

    See Also
    --------
    predict_each : recording by recording, for archives larger than memory
    predict_to : presence, events and more as tables in a folder

    Examples
    --------
    >>> scores = predict("runs/first/model", "recordings")  # doctest: +SKIP
    >>> scores["wren"].groupby("file").max()  # doctest: +SKIP
    """
    import pandas as pd

    tables = list(
        predict_each(
            *(model, *audio),
            spectrograms=spectrograms,
            inference=inference,
            precision=precision,
            workers=workers,
            channel=channel,
        )
    )
    scores = pd.concat(tables)
    scores.attrs["quarantine"] = [row for table in tables for row in table.attrs["quarantine"]]
    return scores


@checked
def predict_each(
    model: PathArgument,
    *audio: PathArgument,
    spectrograms: PathArguments = (),
    inference: InferenceMode = "full",
    precision: Precision = "float32",
    workers: Number | None = None,
    channel: Number | None = None,
) -> "Iterator[pd.DataFrame]":
    """Compute the framewise scores of recordings, one recording after the other.

    Parameters
    ----------
    model, audio, spectrograms, inference, precision, workers, channel : as for :func:`predict`

    Yields
    ------
    DataFrame of shape (frames, species), float32
        Of one recording, as :func:`predict` returns it. A file that cannot be read has no rows,
        and its reason in ``attrs["quarantine"]``.

    Examples
    --------
    >>> for scores in predict_each("runs/first/model", "season"):  # doctest: +SKIP
    ...     print(scores.index.get_level_values("file")[:1], scores.max())
    """
    bundle = read_bundle(Path(model))
    dumps = [location_of(root) for root in as_paths(spectrograms)]
    _check_input(bundle, spectrograms=bool(dumps))
    files, unreadable = list_files([location_of(root) for root in audio], channel, dumps)
    for finding in unreadable:
        yield _empty_frame(bundle.species, finding.file, finding.what)
    config = InferenceConfig(inference, precision, workers or cpu_count())
    for result in predict_files(Predictor(bundle, config), files):
        if result.scores is None:
            yield _empty_frame(bundle.species, str(result.file.path), failure_reason(result))
        else:
            yield _frame(result, bundle)


def _empty_frame(species: tuple[str, ...], file: str, reason: str) -> "pd.DataFrame":
    import pandas as pd

    index = pd.MultiIndex.from_arrays([[], [], []], names=INDEX)
    columns = species_columns(species, INDEX)
    empty = pd.DataFrame(index=index, columns=columns, dtype=np.float32)
    empty.attrs["quarantine"] = [(file, reason)]
    return empty


def _frame(result: FileResult, bundle: Bundle) -> "pd.DataFrame":
    import pandas as pd

    assert result.scores is not None
    grid = result.scores.grid
    start = grid.start + np.arange(grid.frames) * grid.hop
    index = pd.MultiIndex.from_arrays(
        [[str(result.file.path)] * grid.frames, start, start + grid.hop], names=INDEX
    )
    blank = np.array([name in bundle.not_learnable for name in bundle.species])
    value = np.where(blank, np.float32(np.nan), result.scores.value)
    table = pd.DataFrame(value, index, species_columns(bundle.species, INDEX))
    table.attrs["quarantine"] = []
    return table


@checked
def predict_to(
    model: PathArgument,
    audio: PathArguments,
    out: PathArgument,
    *,
    spectrograms: PathArguments = (),
    formats: SplitWords = ("csv",),
    threshold: Finite | None = None,
    expect_precision: Finite | None = None,
    species: Words = (),
    top: Number | None = None,
    prevalence: PathArgument | None = None,
    deployments: PathArgument | None = None,
    submission: PathArgument | None = None,
    resume: bool = False,
    executor: Executor = "local",
    inference: InferenceMode = "full",
    precision: Precision = "float32",
    workers: Number | None = None,
    address: str | None = None,
    channel: Number | None = None,
    progress: ProgressCallback = no_progress,
) -> Prediction:
    """Write presence.csv, events, quarantine.csv and run.json for an archive of any size.

    Parameters
    ----------
    model : a model (bundle), or the folder of the run that holds it
    audio : files, folders, or URLs (s3://, gs://)
    spectrograms : as for :func:`predict`
    out : the output folder, or a URL
    formats : of the events: csv, parquet, raven, audacity, kaleidoscope, camtrapdp
    threshold : one for all species, instead of those of the model
    expect_precision : each species has the lowest threshold that reached this precision on its
        boxes, out of fold; where that is not supported, its conservative one
    species : those that are written, in any spelling; none means all
    top : events of a species in a recording at most, those with the highest scores
    prevalence : a table species,prevalence (share of recordings); the odds in presence.csv are
        rescaled to it
    deployments : a table site,latitude,longitude,timezone: the sites and time zones of the events;
        camtrapdp requires it
    submission : a sample submission (recording_id, one column per species): submission.csv has its
        rows and columns; recordings without scores get the mean of each species
    resume : continue a stopped run; only new and changed files are computed
    executor : ``local``, or ``ray`` for a cluster
    inference, precision : as for :func:`predict`
    workers : threads, or actors of a cluster; None for one per core
    address : of a running Ray cluster, or ``auto``
    channel : the channel of each file, counted from 1; None for the mean of all
    progress : called with (files done, files in total, seconds of sound per second)

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        ``E_OPTION`` for options that are unknown or exclude each other, ``E_NO_DEPLOYMENTS`` and
        ``E_NOTHING_PLACED`` for camtrapdp, ``E_PRECISION_UNAVAILABLE`` and
        ``E_NEEDS_TRAIN_EXTRA`` if the model cannot run as asked, ``E_OUTPUT_LOCKED``,
        ``E_OUTPUT_NOT_WRITABLE``, ``E_OUTPUT_EDITED``, ``E_OUT_NOT_EMPTY``,
        ``E_UNFINISHED_RUN`` and ``E_RESUME_MISMATCH`` for the output
        folder, ``E_SCORE_TABLE``, ``E_SCORES_MISSING`` and ``E_NO_MATCHING_AUDIO`` for the sample
        submission, ``E_CLUSTER_...`` for the cluster, and the errors of reading model and tables.

    Examples
    --------
    >>> prediction = predict_to("runs/first/model", ["season"], "out")  # doctest: +SKIP
    >>> prediction.events["species"].value_counts()  # doctest: +SKIP
    """
    formats, audio, wanted = as_words(formats), as_paths(audio), as_words(species)
    _check_options(formats, submission, wanted)
    job = PredictionJob(executor, inference, precision, workers, address)
    dumps = [location_of(folder) for folder in as_paths(spectrograms)]
    root = common_root([location_of(place) for place in audio] or dumps)
    sites = _read_deployments(deployments, root, required="camtrapdp" in formats)
    bundle = read_bundle(Path(model))
    detection = configure_detection(bundle, threshold, expect_precision, wanted, top)
    _check_input(bundle, spectrograms=bool(dumps))
    files, unreadable = list_files([location_of(root) for root in audio], channel, dumps)
    _check_formats_of_sound(formats, files)
    expected = None if prevalence is None else _read_prevalence(Path(prevalence), bundle)
    sample = None if submission is None else _prepare(Path(submission), bundle, files)
    tables = TABLES if sample is None else (*TABLES, SUBMISSION)
    folder = local_folder(target := location_of(out), tables)
    used = {"channel": channel, "input": "spectrograms" if dumps else None}
    key = job.key(bundle) | used | detection.key
    with lock_folder(folder), ExitStack() as stack:
        _check_no_run(folder)
        journal = stack.enter_context(Journal(folder, key, resume=resume))
        check_own_files(folder, "prediction", tables, merged=(DESCRIPTOR,))
        remove_unfinished(folder)
        # Imported meanwhile; a process that ends early waits for it.
        Thread(target=import_module, args=("antpitta.predict.exports",)).start()
        job.run(bundle, files, journal, progress, detection)
        note = _note(bundle, prevalence, job, detection) | used
        from antpitta.predict.exports import write_outputs
        from antpitta.predict.tables import Archive

        archive = Archive(journal, files, unreadable, bundle.species, sites, root, detection)
        counts = write_outputs(archive, folder, formats, expected, note, sample)
        if isinstance(target, RemotePath):
            upload(folder, target)
        others = journal.count_others(file.path for file in files)
    notes = (*detection.notes(), *_notes(bundle, others, used["input"]))
    if sample is not None:
        notes += sample.notes(bundle.species, counts.recordings, bundle.not_learnable)
    return Prediction(folder, counts, notes, () if sample is None else sample.filled)


def _notes(bundle: Bundle, others: int, used: object) -> tuple[str, ...]:
    notes = []
    if others:
        notes.append(
            f"{others} recordings of the earlier run are not among these, so the tables lack them; "
            "their scores are kept"
        )
    trained = {part.provenance.get("input") for part in bundle.parts() or [bundle]}
    if trained != {used}:
        before, now = "spectrograms of another program", "sound"
        before, now = (now, before) if used else (before, now)
        notes.append(
            f"the model was trained on {before} and computes {now} here, so its scores may be "
            "slightly off"
        )
    return tuple(notes)


def _check_input(bundle: Bundle, *, spectrograms: bool) -> None:
    for part in bundle.parts() or [bundle]:
        check_input(parse_recipe(part.recipe, str(part.path)), spectrograms=spectrograms)


def _check_options(
    formats: tuple[str, ...], submission: Path | str | None, species: Sequence[str]
) -> None:
    for name in formats:
        check_choice("--format", name, get_args(EventFormat))
    if submission is not None and species:
        raise UserError(
            "E_OPTION",
            "--species and --submission: a submission has all species of its sample",
            "leave one of the two options out",
        )


def _check_formats_of_sound(formats: tuple[str, ...], files: Sequence[ListedFile]) -> None:
    """Refuse tables for programs that open sound where there are only spectrograms."""
    names = [name for name in formats if name not in ("csv", "parquet")]
    without = [file.id for file in files if file.path == file.spectrogram]
    if names and without:
        raise UserError(
            "E_OPTION",
            f"--format {names[0]}: names files of sound, and {len(without)} recordings have none, "
            f"such as {without[0]}",
            "add their sound as AUDIO, or write csv or parquet",
        )


def _prepare(sample: Path, bundle: Bundle, files: Sequence[ListedFile]) -> "Submission":
    from antpitta.predict.submission import Submission

    return Submission.prepare(sample, bundle.species, [file.id for file in files])


def _read_prevalence(table: Path, bundle: Bundle) -> "NDArray[np.float64]":
    from antpitta.files.tables import read_prevalence

    return read_prevalence(table, bundle.species)


def _read_deployments(
    table: Path | str | None, root: Path, *, required: bool
) -> Deployments | None:
    if table is not None:
        return read_deployments(Path(table), root)
    if required:
        raise UserError(
            "E_NO_DEPLOYMENTS",
            "--format camtrapdp: the standard requires the position of each site",
            "add --deployments, a table with the columns site, latitude, longitude and timezone",
        )
    return None


def _check_no_run(folder: Path) -> None:
    for name in ("bundle.json", "config.json"):
        if (folder / name).exists():
            raise UserError(
                "E_OUT_NOT_EMPTY",
                f"{folder}: this folder holds a run or a model ({name})",
                "choose another folder with -o",
            )


def _note(
    bundle: Bundle,
    prevalence: Path | str | None,
    job: PredictionJob,
    detection: DetectionConfig,
) -> dict[str, Any]:
    """What run.json holds besides the counts."""
    return {
        "model": bundle.name,
        "digest": bundle.digest,
        "thresholds": detection.thresholds,
        "support": detection.support,
        "not_learnable": bundle.not_learnable,
        "expect_precision": detection.precision,
        "top": detection.top,
        "prevalence": None if prevalence is None else str(prevalence),
        "versions": _versions("antpitta", "openvino", "torch"),
        "inference": job.inference,
        "precision": job.precision,
    }


def _versions(*packages: str) -> dict[str, str | None]:
    """Installed versions; None for a package that is not installed."""
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions
