"""Opening a data set and examining it: open_data, check, init."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

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
from antpitta.files.texts import write_picture
from antpitta.report.supervision import draw_supervision
from antpitta.sound.targets import Supervision, count_supervision_frames

QUIET = Progress(lambda text: None, lambda what, done, total, loss: None)
HOP = 0.016  # seconds: about a frame of the recipes
Paths = Sequence[Path | str] | Path | str


@dataclass(frozen=True)
class CheckResult:
    """What the doctor found, and what supervises what."""

    findings: tuple[Finding, ...]
    supervision: Supervision
    summary: str
    picture: Path | None = None

    @property
    def serious(self) -> bool:
        """Whether training on this data would learn something wrong."""
        return any(finding.serious for finding in self.findings)


def open_data(
    data: Path | str | None = None,
    *,
    audio: Paths = (),
    present: Paths = (),
    absent: Paths = (),
    annotations: Paths = (),
    sites: Path | str | None = None,
    names: Path | str | None = None,
) -> OpenedDataset:
    """A data set: from an antpitta.toml (or a folder that holds one), or from the flags.

    Raises UserError where neither is given, both are, or nothing can be opened.
    """
    return open_dataset(_source(data, audio, present, absent, annotations, sites, names))


def init(
    folder: Path | str = ".",
    *,
    audio: Paths = (),
    present: Paths = (),
    absent: Paths = (),
    annotations: Paths = (),
    sites: Path | str | None = None,
    names: Path | str | None = None,
) -> Path:
    """Write an antpitta.toml into ``folder``. Raises UserError where one is there."""
    path = Path(folder) / "antpitta.toml"
    if path.exists():
        raise UserError("E_TODO", f"{path}: is there already", "edit it, or remove it first")
    write_source(_source(None, audio, present, absent, annotations, sites, names), path)
    return path


def check(
    data: OpenedDataset,
    *,
    sound: bool = True,
    picture: Path | str | None = None,
    progress: Progress = QUIET,
) -> CheckResult:
    """Examine a data set, decoding every recording if ``sound``; draw what supervises what."""
    rate = 16_000
    findings = tuple(check_dataset(data, partial(read, sample_rate=rate) if sound else None))
    seen = count_supervision_frames(data.dataset, HOP)
    path = None if picture is None else Path(picture)
    if path is not None:
        if path.suffix not in (".svg", ".png"):
            raise UserError("E_TODO", f"{path}: a picture is .svg or .png", "rename it so")
        form: Literal["svg", "png"] = "png" if path.suffix == ".png" else "svg"
        write_picture(draw_supervision(seen, form), path)
    return CheckResult(findings, seen, _summary(data, seen), path)


def _source(
    data: Path | str | None,
    audio: Paths,
    present: Paths,
    absent: Paths,
    annotations: Paths,
    sites: Path | str | None,
    names: Path | str | None,
) -> DataSource:
    flags = [_paths(one) for one in (audio, present, absent, annotations)]
    if data is not None:
        if any(flags):
            raise UserError("E_TODO", f"{data}: give either DATA or --audio and tables, not both")
        return read_source(Path(data))
    if not flags[0]:
        raise UserError("E_TODO", "no recordings: give DATA (an antpitta.toml), or --audio FOLDER")
    single = (None if one is None else Path(one) for one in (sites, names))
    return DataSource(flags[0], flags[1], flags[2], flags[3], *single)


def _paths(given: Paths) -> tuple[Path, ...]:
    if isinstance(given, str | Path):
        return (Path(given),)
    return tuple(Path(one) for one in given)


def _summary(data: OpenedDataset, seen: Supervision) -> str:
    dataset = data.dataset
    verdicts = Counter(said.present for said in dataset.annotations)
    frames = seen.present.sum() + seen.absent.sum() + seen.unknown.sum()
    shares = [100 * x.sum() / max(frames, 1) for x in (seen.present, seen.absent, seen.unknown)]
    return (
        f"{len(dataset.recordings)} recordings, {len(dataset.classes)} species; "
        f"{verdicts[True]} present and {verdicts[False]} absent boxes; "
        f"{data.missing} of {data.rows} rows name recordings that are not here; "
        f"of all frames {shares[0]:.2f} % present, {shares[1]:.2f} % absent, "
        f"{shares[2]:.2f} % unknown"
    )
