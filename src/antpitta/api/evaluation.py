"""evaluate, evaluate_events: metrics of a run out of fold, of scores against ground truth."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from pydantic import InstanceOf

from antpitta.api.training import TrainResult
from antpitta.core.arguments import PathArgument, checked
from antpitta.core.errors import Finding, UserError, cut_name, list_names
from antpitta.core.identity import class_names, recording_key, species_key
from antpitta.core.types import Annotation, Classes, Event, Recording
from antpitta.files.audio import UnreadableAudio, probe
from antpitta.files.audio_gaps import (
    Gaps,
    describe_gap,
    gaps_in_notes,
    has_lost_part,
    is_lost,
)
from antpitta.files.formats import AnnotationTable, read_table
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher, match_table
from antpitta.files.own_files import explain_damage
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.tables import read_frame
from antpitta.files.texts import path_exists
from antpitta.predict.exports import read_events
from antpitta.predict.journal import read_durations
from antpitta.scores.cells import clip_scores, count_unmatched, truth_cells
from antpitta.scores.evaluate import DRAWS, Report, evaluate_cells, report_from_json
from antpitta.scores.event_metrics import event_f1
from antpitta.scores.tables import KEY, index_by_recording

QUARANTINE = "quarantine.csv"
SCORES = "presence.csv"  # of a folder that predict wrote
PlacedCall = tuple[Annotation, tuple[str, int]]  # with its file and row
MIN_IOU = 0.2  # intersection over union; scores have half-second frames, and some calls are shorter


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes
    ----------
    reports : metrics with intervals; of a run, one report a stage
    notes : what was left out
    shipped : the place of the model's report
    """

    reports: tuple[Report, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    shipped: int = -1

    @property
    def lwlrap(self) -> float:
        """LWLRAP of the model (the report that ``shipped`` names)."""
        return self.reports[self.shipped].lwlrap.value

    @property
    def macro_ap(self) -> float:
        """Mean average precision over the species, of the model."""
        return self.reports[self.shipped].macro_ap.value

    @property
    def macro_auc(self) -> float:
        """Mean area under the ROC curve over the species, of the model."""
        return self.reports[self.shipped].macro_auc.value

    @property
    def per_species(self) -> pd.DataFrame:
        """Counts and metrics, one row a species, of the model."""
        return self.reports[self.shipped].per_species

    def __repr__(self) -> str:
        last = self.reports[self.shipped]
        return (
            f"Evaluation({last.source!r}: LWLRAP {self.lwlrap:.3f}, macro AP {self.macro_ap:.3f}, "
            f"macro AUC {self.macro_auc:.3f}; {len(last.per_species)} species, "
            f"{last.recordings} recordings)"
        )


@checked
def evaluate(
    target: InstanceOf[TrainResult] | PathArgument, truth: PathArgument | None = None
) -> Evaluation:
    """Compute LWLRAP, average precision and AUC, with 95 % intervals over recordings.

    Parameters
    ----------
    target
        A run or its folder; a folder that ``predict`` wrote; or a table of scores
        (``recording_id``, then one column a species).
    truth
        A table like that of scores with 1 (present), 0 (absent) or nothing (unknown). Without it
        a run is evaluated on its labelled boxes, out of fold.

    Returns
    -------
    Evaluation
        One report for each stage of a run, one for a table.

    Raises
    ------
    UserError
        ``E_NO_FILE`` if one of the two does not exist, ``E_NO_TRUTH`` for a table without
        ``truth``, ``E_NO_SCORES`` for a run that has no scores yet, ``E_AMBIGUOUS_RECORDING`` if a
        name in ``truth`` fits several scored recordings.

    Examples
    --------
    >>> antpitta.evaluate("run").macro_ap  # doctest: +SKIP
    >>> antpitta.evaluate("out/presence.csv", "truth.csv").per_species  # doctest: +SKIP
    """
    path = target.path if isinstance(target, TrainResult) else Path(target)
    _require_file(path, "give a run, a folder that predict wrote, or presence.csv")
    if truth is not None:
        _require_file(Path(truth), "check the path")
    if path.is_dir() and (path / SCORES).is_file() and not (path / "config.json").is_file():
        path = path / SCORES
    if path.is_dir():
        run = RunFolder(path)
        return _read_reports(run) if truth is None else _evaluate_run(run, Path(truth))
    if truth is None:
        raise UserError("E_NO_TRUTH", f"{path}: scores need a ground truth", "add --truth FILE")
    return _evaluate_table(read_frame(path), read_frame(Path(truth)), path.name, path, Path(truth))


@checked
def evaluate_events(target: PathArgument, truth: PathArgument) -> pd.DataFrame:
    """Compute the F1 score of events: of detections against every call in the recordings.

    An event and a call of its species match if their intersection over union is at least 0.2.

    Parameters
    ----------
    target
        A folder that ``predict`` wrote, or its ``events.csv``.
    truth
        A table of every call, in any supported format of annotations.

    Returns
    -------
    DataFrame
        Rows: the species, then ``macro`` and ``micro``. Columns: ``species``, ``tp``, ``fp``,
        ``fn``, ``precision``, ``recall``, ``f1``. Only predicted recordings count, as far as they
        have sound. ``attrs["findings"]`` holds what is left out of the table of calls.

    Raises
    ------
    UserError
        ``E_NO_TRUTH`` if the two have no recording in common, ``E_AMBIGUOUS_RECORDING`` if a call
        may lie in several of the recordings.

    Examples
    --------
    >>> antpitta.api.evaluate_events("out", "calls.csv")  # doctest: +SKIP
    """
    path, calls_path = Path(target), Path(truth)
    _require_file(path, "give a folder that predict wrote, or its events.csv")
    _require_file(calls_path, "check the path")
    folder = path if path.is_dir() else path.parent
    table = read_events(path)
    presence = index_by_recording(read_frame(folder / SCORES), f"{folder / SCORES}")
    durations = read_durations(folder)
    files = {*table["file"], *durations, *_quarantine_reasons(folder)}
    file_of = _files_of_recordings(map(str, presence.index), files)
    id_of = {file: id for id, file in file_of.items()}
    columns = ("file", "start_time", "end_time", "species", "score", "model")
    events = [
        Event(id_of[file], start, stop, species, score, model)
        for file, start, stop, species, score, model in zip(
            *(table[name] for name in columns), strict=True
        )
        if file in id_of
    ]
    recordings = [
        Recording(id, Path(file_of.get(id, f"{id}.wav")), 1, 1) for id in map(str, presence.index)
    ]
    annotations = read_table(calls_path, True)
    species = (*map(str, presence.columns), *(event.label for event in events))
    calls, findings = _place_calls(annotations, recordings, species)
    lengths = {id: durations[file] for id, file in file_of.items() if file in durations}
    clips = {call.recording for call, _ in calls if call.stop == inf} - set(lengths)
    lengths |= _measure_clips(clips, annotations, file_of, recordings)
    calls, lost = _without_lost_calls(calls, lengths, _read_gaps(folder, file_of))
    if not calls:
        raise UserError(
            "E_NO_TRUTH",
            f"{truth}: names none of the recordings in {folder}",
            "give the calls of these recordings",
        )
    placed = [call for call, _ in calls]
    scores = event_f1(
        events, placed, min_iou=MIN_IOU, recordings={recording.id for recording in recordings}
    )
    scores.attrs["findings"] = (*annotations.findings, *findings, *lost)
    return scores


def _require_file(path: Path, remedy: str) -> None:
    if not path_exists(path):
        raise UserError(
            "E_NO_FILE", f"{cut_name(str(path), 200)}: there is no such file or folder", remedy
        )


def _read_reports(run: RunFolder) -> Evaluation:
    """The reports that a run's end wrote, on labelled boxes."""
    table = run.report()
    with explain_damage(run.path / "report.json"):
        reports = tuple(report_from_json(stage["report"]) for stage in table["stages"])
        shipped = [report.source for report in reports].index(table["model"])
    return Evaluation(reports, tuple(table["left_out"]), shipped)


def _evaluate_run(run: RunFolder, truth: Path) -> Evaluation:
    """Each stage's scores out of fold, against ground truth, in the order of training."""
    run.config()
    finished = path_exists(run.path / "report.json")
    table = read_frame(truth)
    paths = sorted(run.path.glob("stages/*/oof_scores.parquet"), key=lambda p: p.stat().st_mtime)
    evaluations = [
        _evaluate_table(clip_scores(read_scores(path)), table, path.parent.name, path, truth)
        for path in paths
    ]
    if not evaluations:
        raise UserError(
            "E_NO_SCORES", f"{run.path}: no stage has scores yet", "train it with --resume"
        )
    reports = tuple(evaluation.reports[0] for evaluation in evaluations)
    sources = [report.source for report in reports]
    shipped = sources.index(run.report()["model"]) if finished else -1  # the last one so far
    return Evaluation(reports, evaluations[-1].notes, shipped)


def _evaluate_table(
    scores: pd.DataFrame, truth: pd.DataFrame, source: str, scores_path: Path, truth_path: Path
) -> Evaluation:
    """Metrics of one table; ``source`` is what the report calls it."""
    titles = f"{truth_path}:", f"{scores_path}:"
    if KEY in truth.columns and KEY in scores.columns:
        truth = truth.assign(**{KEY: _ids_of_names(truth[KEY], scores[KEY], truth_path)})
    cut = _cut_recordings(scores_path, scores)
    cells = truth_cells(truth, scores, *titles)
    # What is absent from a whole recording is absent from what is left of it.
    in_cut = cells["present"].astype(bool) & cells["recording"].astype(str).isin(cut)
    lost = int(in_cut.sum())
    if lost and lost == len(cells):
        what = f"{truth_path}: every cell is a call in a recording that is cut short or damaged"
        raise UserError("E_NO_TRUTH", what, "give the truth of whole recordings")
    cells = cells[~in_cut].reset_index(drop=True) if lost else cells
    rest = count_unmatched(truth, scores)
    columns = map(str, index_by_recording(truth, titles[0]).columns)
    classes = Classes(tuple(name for name in columns if name not in rest.unscored))
    rng = np.random.default_rng(0)
    report = evaluate_cells(cells, classes, source, draws=DRAWS, rng=rng)
    notes = []
    if rest.recordings:
        notes.append(f"{len(rest.recordings)} scored recordings are not in the ground truth")
    if rest.species:
        notes.append(f"{len(rest.species)} scored species are not in the ground truth")
    if rest.unscored:
        notes.append(
            f"{len(rest.unscored)} species have no scores, as the model could not learn them, and "
            f"are in no metric: {list_names(rest.unscored)}"
        )
    if cut:
        notes.append(
            f"{len(cut)} scored recordings are cut short or damaged ({QUARANTINE}): {lost} calls in"
            " them count as unknown, as they may lie in a lost part"
        )
    if rest.unknown:
        notes.append(f"{rest.unknown} cells of the ground truth are blank: unknown, not absent")
    return Evaluation((report,), tuple(notes))


def _cut_recordings(table: Path, scores: pd.DataFrame) -> set[str]:
    """Recordings with scores of a part only, by the table beside that of the scores."""
    if table.name != SCORES or KEY not in scores.columns:
        return set()
    reasons = _quarantine_reasons(table.parent)
    cut = [file for file, reason in reasons.items() if has_lost_part(reason)]
    return set(_files_of_recordings(map(str, scores[KEY]), cut))


def _quarantine_reasons(folder: Path) -> dict[str, str]:
    """Why files have no scores, or scores of a part only; empty where no table says that."""
    path = folder / QUARANTINE
    if not path.is_file():
        return {}
    table = read_frame(path)
    if not {"file", "reason"} <= set(table.columns):
        return {}
    return dict(zip(map(str, table["file"]), map(str, table["reason"]), strict=True))


def _read_gaps(folder: Path, file_of: Mapping[str, str]) -> dict[str, Gaps]:
    """The gaps of recordings, as far as a prediction has met some."""
    reasons = _quarantine_reasons(folder)
    return {id: gaps_in_notes(reasons[file]) for id, file in file_of.items() if file in reasons}


def _ids_of_names(names: pd.Series, ids: pd.Series, table: Path) -> list[str]:
    """The id of the scores that each name of a ground truth means; the name where there is none."""
    recordings = [Recording(id, Path(f"{id}.wav"), 1, 1) for id in map(str, ids) if id]
    written = names.astype(str)
    matches = RecordingMatcher(recordings).find_all([name for name in written if name], table)
    result = []
    for line, name in written.items():
        match = matches.get(name)
        if isinstance(match, AmbiguousMatch) and not match.elsewhere:
            raise _ambiguous_error(table, int(str(line)), match)
        result.append(match.id if isinstance(match, Recording) else name)
    return result


def _files_of_recordings(ids: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """The file of each recording that has events: an id is the end of its path (list_files)."""
    known = {recording_key(id): id for id in ids}
    file_of = {}
    for file in files:
        path = PurePosixPath(file)
        for parts in ((*path.parts[:-1], path.stem), path.parts):
            ends = (recording_key("/".join(parts[i:])) for i in range(len(parts)))
            if end := next((end for end in ends if end in known), None):
                file_of[known[end]] = file
                break
    return file_of


def _place_calls(
    table: AnnotationTable, recordings: list[Recording], species: Iterable[str]
) -> tuple[list[PlacedCall], list[Finding]]:
    """The calls in the predicted recordings, with their ids and classes; what is left out."""
    by_key = {species_key(name): name for name in species}
    labels = {
        label: by_key.get(species_key(label), name)
        for label, name in class_names({call.label for call in table.annotations}).items()
    }
    matches = match_table(table, RecordingMatcher(recordings))
    calls, missing = [], []
    for call, (file, row) in zip(table.annotations, table.origins(), strict=True):
        match = matches[file][call.recording]
        if isinstance(match, Recording):
            place = replace(call, recording=match.id, label=labels[call.label])
            calls.append((place, (str(file), row)))
        elif isinstance(match, AmbiguousMatch) and not match.elsewhere:
            raise _ambiguous_error(file, row, match)
        else:
            missing.append((call.recording, file, row))
    findings = []
    if missing:
        name, file, row = missing[0]
        what = (
            f"{len(missing)} of {len(table.annotations)} calls lie in recordings without scores,"
            f" the first {name!r}"
        )
        remedy = "predict these recordings, too, or ignore this if that is intended"
        findings.append(Finding("W_NO_AUDIO", str(file), row, what, remedy, False))
    return calls, findings


def _measure_clips(
    ids: set[str], table: AnnotationTable, file_of: Mapping[str, str], recordings: list[Recording]
) -> dict[str, float]:
    """The seconds of recordings with calls that last to their end, as far as the files are here."""
    if not ids:
        return {}
    matches = match_table(table, RecordingMatcher(recordings))
    files = {id: [Path(file_of[id])] for id in ids if id in file_of}
    for by_name in matches.values():
        for name, match in by_name.items():
            if isinstance(match, Recording) and match.id in ids:
                files.setdefault(match.id, []).append(Path(name))
    lengths = {}
    for id, paths in files.items():
        for path in filter(path_exists, paths):
            with suppress(UnreadableAudio):
                lengths[id] = probe(path, id).duration
    return lengths


def _without_lost_calls(
    calls: list[PlacedCall], lengths: Mapping[str, float], all_gaps: Mapping[str, Gaps]
) -> tuple[list[PlacedCall], list[Finding]]:
    """The calls as far as their recordings have sound, and a finding for each that is lost."""
    kept, findings = [], []
    remedy = "check the recording that the row names, and the unit of the times"
    damaged = "copy the recording again from the card, and predict it again"
    for call, (file, row) in calls:
        end = lengths.get(call.recording, inf)
        gaps = all_gaps.get(call.recording, ())
        if end == call.stop == inf and call.present:
            what = f"the call has no end, and the length of {call.recording} is not known"
            findings.append(
                Finding("W_BOX_BEYOND_END", file, row, what, "write the end of the call", True)
            )
        elif call.start < end and is_lost(gaps, call.start, min(call.stop, end)):
            what = describe_gap(gaps, call.start, call.stop, "call", call.recording)
            findings.append(Finding("W_BOX_IN_GAP", file, row, what, damaged, True))
        elif call.start < end:
            kept.append((replace(call, stop=min(call.stop, end)), (file, row)))
        else:
            what = f"the call begins at {call.start:g} s, {call.recording} ends at {end:.2f} s"
            findings.append(Finding("W_BOX_BEYOND_END", file, row, what, remedy, True))
    return kept, findings


def _ambiguous_error(file: Path, row: int, match: AmbiguousMatch) -> UserError:
    remedy = "write the recording's id, or its path with the folder"
    return UserError("E_AMBIGUOUS_RECORDING", f"{file}:{row}: {match.reason}", remedy)
