"""open_data, init and check: a data set from its tables, and every problem in it."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import InstanceOf

from antpitta.core.arguments import Number, PathArgument, PathArguments, as_paths, checked
from antpitta.core.errors import Finding, UserError
from antpitta.core.progress import Progress
from antpitta.files.audio import read
from antpitta.files.checks import check_dataset
from antpitta.files.dataset import (
    DataSource,
    OpenedDataset,
    open_dataset,
    read_source,
    write_source,
)
from antpitta.files.lost_boxes import leave_out_lost_boxes
from antpitta.files.texts import write_picture
from antpitta.report.supervision import draw_supervision
from antpitta.sound.targets import Supervision, count_supervision_frames

SILENT = Progress(lambda text: None, lambda task, done, total, loss: None)
FRAME = 0.016  # seconds: about a frame of the recipes
CHECK_SAMPLE_RATE = 16_000  # Hz
Paths = PathArguments


@dataclass(frozen=True)
class CheckResult:
    """The result of :func:`check`.

    Attributes
    ----------
    findings : the problems of the data set, each with file, row, and remedy
    supervision : frames that are present, absent and unknown, by recording and species
    summary : the size of the data set, in a line
    picture : the file of the picture, None if none was drawn
    """

    findings: tuple[Finding, ...]
    supervision: Supervision = field(repr=False)
    summary: str
    picture: Path | None = None

    @property
    def serious(self) -> bool:
        """Whether a problem would make a model that is trained on the data wrong."""
        return any(finding.serious for finding in self.findings)

    def __repr__(self) -> str:
        serious = sum(finding.serious for finding in self.findings)
        return f"CheckResult({serious} serious of {len(self.findings)} findings; {self.summary})"


@checked
def open_data(
    data: PathArgument | None = None,
    *,
    audio: Paths = (),
    present: Paths = (),
    absent: Paths = (),
    annotations: Paths = (),
    sites: PathArgument | None = None,
    names: PathArgument | None = None,
    channel: Number | None = None,
    spectrograms: Paths = (),
) -> OpenedDataset:
    """Open a data set: match the rows of tables to recordings.

    Parameters
    ----------
    data
        An ``antpitta.toml``, or a folder that holds one; by default the working directory. A folder
        without one may be laid out like the competition's, or hold one folder of clips per
        species. The other parameters replace it.
    audio
        Folders of recordings.
    present, absent
        Tables of boxes in which the species is present, or absent.
    annotations
        Tables of boxes that have a column of verdicts, in any supported format.
    sites
        A table of the site and the start time of recordings; it overrides their names.
    names
        A table of species and their other names.
    channel
        The channel of each file that is used, counted from 1; by default the mean of all. It may be
        given beside ``data``.
    spectrograms
        Folders of spectrograms in dB, ``<recording_id>.npy`` or ``.npz``, that are read instead of
        the sound. They may be given beside ``data``, or without ``audio``.

    Returns
    -------
    OpenedDataset
        The data set, and findings about rows and files that were left out.

    Raises
    ------
    UserError
        ``E_DATA_TWICE`` if ``data`` and other parameters are given, ``E_DATA_MISSING`` if there
        are tables without ``audio``; the codes of :mod:`antpitta.files` for files that cannot be
        used.

    Examples
    --------
    >>> data = antpitta.open_data(audio="recordings", present="tp.csv", absent="fp.csv")
    ... # doctest: +SKIP
    """
    if data is None and not any((audio, present, absent, annotations, sites, names)):
        here = _source_here(has_input=bool(spectrograms))
        return open_dataset(_with_options(here, channel, spectrograms))
    has_input = bool(spectrograms)
    source = _source(data, audio, present, absent, annotations, sites, names, has_input=has_input)
    return open_dataset(_with_options(source, channel, spectrograms))


@checked
def init(
    folder: PathArgument = ".",
    *,
    audio: Paths = (),
    present: Paths = (),
    absent: Paths = (),
    annotations: Paths = (),
    sites: PathArgument | None = None,
    names: PathArgument | None = None,
    channel: Number | None = None,
    spectrograms: Paths = (),
) -> Path:
    """Write an ``antpitta.toml``, which names the recordings and tables of a data set.

    The data set is opened first: what :func:`open_data` refuses is not written.

    Parameters
    ----------
    folder
        Where it is written.
    audio, present, absent, annotations, sites, names, channel, spectrograms
        As for :func:`open_data`.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    UserError
        ``E_DATA_EXISTS`` if the folder has one, ``E_DATA_MISSING`` without ``audio``,
        ``E_OUTPUT_NOT_WRITABLE`` or ``E_BAD_PATH`` if the file cannot be written, and those of
        :func:`open_data`.

    Examples
    --------
    >>> antpitta.init(".", audio="recordings", present="tp.csv")  # doctest: +SKIP
    """
    path = Path(folder) / "antpitta.toml"
    if path.exists():
        raise UserError("E_DATA_EXISTS", f"{path} exists", "edit it, or remove it first")
    has_input = bool(spectrograms)
    source = _source(None, audio, present, absent, annotations, sites, names, has_input=has_input)
    source = _with_options(source, channel, spectrograms)
    open_dataset(source)
    try:
        write_source(source, path)
    except UnicodeEncodeError as error:
        what = f"{path}: a path is no text in UTF-8, which TOML requires"
        raise UserError("E_BAD_PATH", what, "rename the file or folder") from error
    except OSError as error:
        what = f"{path}: cannot be written ({error.strerror or error})"
        raise UserError("E_OUTPUT_NOT_WRITABLE", what, "choose another folder") from error
    return path


@checked
def check(
    data: InstanceOf[OpenedDataset] | PathArgument,
    *,
    sound: bool = True,
    picture: PathArgument | None = None,
    progress: InstanceOf[Progress] = SILENT,
) -> CheckResult:
    """Find the problems of a data set, and count how much of it is labelled.

    Parameters
    ----------
    data
        The data set from :func:`open_data`, or the path that it takes.
    sound
        Decode every recording, to find damaged ones.
    picture
        Draw the labelled recordings of each species into this file (``.svg`` or ``.png``).
    progress
        Receives messages and progress.

    Returns
    -------
    CheckResult
        Its ``findings`` have file, row and remedy each.

    Raises
    ------
    UserError
        ``E_PICTURE_FORMAT`` if the picture is neither ``.svg`` nor ``.png``, ``E_PICTURE_EXISTS``
        if there is a file of its name.

    Examples
    --------
    >>> result = antpitta.check(data, picture="labels.svg")  # doctest: +SKIP
    >>> [finding for finding in result.findings if finding.serious]  # doctest: +SKIP
    """
    path = None if picture is None else Path(picture)
    if path is not None and path.suffix not in (".svg", ".png"):
        raise UserError("E_PICTURE_FORMAT", f"{path} is no .svg or .png", "change its ending")
    if path is not None and path.exists():
        raise UserError("E_PICTURE_EXISTS", f"{path} exists", "choose another name, or remove it")
    data = as_dataset(data)
    decode = partial(read, sample_rate=CHECK_SAMPLE_RATE) if sound else None
    data = without_lost_boxes(data) if sound else data
    findings = tuple(check_dataset(data, decode))
    supervision = count_supervision_frames(data.dataset, FRAME)
    if path is not None:
        form: Literal["svg", "png"] = "png" if path.suffix == ".png" else "svg"
        write_picture(draw_supervision(supervision, form), path)
    return CheckResult(findings, supervision, _summarize(data, supervision), path)


def as_dataset(data: OpenedDataset | Path | str) -> OpenedDataset:
    """The data set, opened if a path is given.

    Parameters
    ----------
    data : the data set, or the path that :func:`open_data` takes

    Returns
    -------
    OpenedDataset
        The opened data set.
    """
    return data if isinstance(data, OpenedDataset) else open_data(data)


def without_lost_boxes(data: OpenedDataset | Path | str) -> OpenedDataset:
    """The data set without boxes in damaged parts of recordings, which are looked for.

    Parameters
    ----------
    data : the data set, or the path that :func:`open_data` takes

    Returns
    -------
    OpenedDataset
        With a finding for what is left out.
    """
    return leave_out_lost_boxes(as_dataset(data))


def describe_data(data: OpenedDataset) -> str:
    """Recordings, species, boxes, and rows whose recordings are missing, in a line.

    Parameters
    ----------
    data : the opened data set

    Returns
    -------
    str
        ``60 recordings, 8 species, 128 present and 384 absent boxes``, and missing rows.
    """
    dataset = data.dataset
    verdicts = Counter(annotation.present for annotation in dataset.annotations)
    text = (
        f"{len(dataset.recordings)} recordings, {len(dataset.classes)} species, "
        f"{verdicts[True]} present and {verdicts[False]} absent boxes"
    )
    return f"{text}; {describe_missing(data)}" if data.missing else text


def describe_missing(data: OpenedDataset) -> str:
    """How many rows name recordings that are missing.

    Parameters
    ----------
    data : the opened data set

    Returns
    -------
    str
        A line about the rows that were left out.
    """
    return f"{data.missing} of {data.rows} rows name recordings that are missing"


def source_to_json(source: DataSource) -> dict[str, Any]:
    """A source with absolute paths, for the configuration of a run.

    Parameters
    ----------
    source : of a data set

    Returns
    -------
    dict
        Of JSON's types.
    """
    content: dict[str, Any] = {}
    for part in fields(DataSource):
        value = getattr(source, part.name)
        if isinstance(value, tuple):
            value = [str(path.absolute()) for path in value]
        elif isinstance(value, Path):
            value = str(value.absolute())
        content[part.name] = value
    return content


def source_from_json(content: dict[str, Any]) -> DataSource:
    """The inverse of :func:`source_to_json`.

    Parameters
    ----------
    content : of a configuration

    Returns
    -------
    DataSource
        With absolute paths.
    """
    values: dict[str, Any] = {}
    for part in fields(DataSource):
        value = content.get(part.name)
        if isinstance(value, list):
            value = tuple(map(Path, value))
        elif isinstance(value, str):
            value = Path(value)
        values[part.name] = part.default if value is None else value
    return DataSource(**values)


def _with_options(source: DataSource, channel: int | None, spectrograms: Paths) -> DataSource:
    """The source with the options that may be given beside DATA."""
    folders = tuple(map(Path, as_paths(spectrograms)))
    source = replace(source, spectrograms=folders) if folders else source
    return source if channel is None else replace(source, channel=channel)


def _source_here(*, has_input: bool) -> DataSource:
    """The data set in the working directory."""
    try:
        return read_source(Path())
    except UserError as error:
        if error.code != "E_NO_FILE":
            raise
        if has_input:
            return DataSource()
        what = "no recordings are given, and this folder is no data set"
        remedy = "give DATA (an antpitta.toml or its folder), or --audio FOLDER"
        raise UserError("E_DATA_MISSING", what, remedy) from None


def _source(
    data: Path | str | None,
    audio: Paths,
    present: Paths,
    absent: Paths,
    annotations: Paths,
    sites: Path | str | None,
    names: Path | str | None,
    *,
    has_input: bool,
) -> DataSource:
    audio, present, absent, annotations = (
        tuple(map(Path, as_paths(paths))) for paths in (audio, present, absent, annotations)
    )
    sequences = (audio, present, absent, annotations)
    if data is not None:
        if any((*sequences, sites, names)):
            raise UserError(
                "E_DATA_TWICE",
                f"{data} and data options are both given",
                "give DATA alone, or --audio and tables",
            )
        return read_source(Path(data))
    if not (sequences[0] or has_input):
        raise UserError(
            "E_DATA_MISSING",
            "no recordings are given",
            "give DATA (an antpitta.toml or its folder), --audio FOLDER or --spectrograms FOLDER",
        )
    return DataSource(
        *sequences,
        sites=None if sites is None else Path(sites),
        names=None if names is None else Path(names),
    )


def _summarize(data: OpenedDataset, supervision: Supervision) -> str:
    states = ("present", "absent", "unknown")
    counts = [getattr(supervision, state).sum() for state in states]
    shares = [100 * count / max(sum(counts), 1) for count in counts]
    frames = ", ".join(
        f"{share:.2f} % {state}" for share, state in zip(shares, states, strict=True)
    )
    return f"{describe_data(data)}; of all frames {frames}"
