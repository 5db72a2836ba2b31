"""ensemble: several runs, and tables of scores of other models, as one model.

Weights are fitted on the labelled cells out of fold. The report uses weights that were fitted on
the other folds, so that it does not flatter the ensemble. A table of scores may be a member: it
takes part in the weights and the report, but such an ensemble cannot predict new recordings.

Tables alone, such as submissions of several people, become one table with the rows and columns of
the first. Nothing is fitted then, as there are no labels; ranks and alignment are those over all
cells of the tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from antpitta.core.arguments import Finite, PathArgument, PathArguments, as_paths, checked
from antpitta.core.config import BlendMethod
from antpitta.core.errors import UserError, printable_lines
from antpitta.core.types import Annotation, Classes
from antpitta.files.bundle import Bundle, read_bundle, write_bundle
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_own_folder, replace_files
from antpitta.files.recordings import short_path_names
from antpitta.files.runs import RunFolder
from antpitta.files.tables import read_frame, read_prevalence, write_csv, write_prevalence
from antpitta.files.texts import write_json
from antpitta.predict.submission import FILE as SUBMISSION
from antpitta.predict.submission import read_sample
from antpitta.report.card import escape, threshold_section
from antpitta.report.warnings import warn_of_thresholds
from antpitta.scores.cells import CellMatrices, clip_score_table
from antpitta.scores.ensemble.blend import FITTED, Blend, fit_blend, nested_cells
from antpitta.scores.ensemble.members import Member, member_from_table, members_from_cells
from antpitta.scores.evaluate import DRAWS, Report, evaluate_cells, report_to_json
from antpitta.scores.metrics import Floats, clipped_logit
from antpitta.scores.prevalence import prevalence_or_mean
from antpitta.scores.tables import (
    index_by_recording,
    locate_recordings,
    locate_species,
    sample_names,
)
from antpitta.scores.thresholds import FoldScores, choose_thresholds

BOX = ("recording", "start", "stop", "species", "present")  # columns of labelled cells


@dataclass(frozen=True)
class EnsembleResult:
    """A fitted ensemble; as a path, its folder.

    Attributes
    ----------
    path : the folder of the ensemble, a model if ``can_predict``
    blend : how the members' scores are combined
    reports : the metrics of each member, then those of the ensemble, on the same cells; none
        without a run, which has the labels
    notes : what was left out
    can_predict : False if a member is a table of scores
    submission : the combined table, if all members are tables
    """

    path: Path
    blend: Blend = field(repr=False)
    reports: tuple[Report, ...] = field(repr=False)
    notes: tuple[str, ...]
    can_predict: bool
    submission: Path | None = None

    def __fspath__(self) -> str:
        return str(self.path)


@checked
def ensemble(
    members: PathArguments,
    out: PathArgument,
    *,
    method: BlendMethod = "mean",
    weights: Sequence[Finite] | None = None,
) -> EnsembleResult:
    """Combine runs on the same data, and tables of scores, into one model; or tables into one.

    Parameters
    ----------
    members
        Folders of runs, and tables of scores (``recording_id``, then one column a species) or
        folders that :func:`antpitta.api.predict_to` wrote. Tables without a run become a table,
        ``submission.csv``, with the rows and columns of the first.
    out
        The folder of the ensemble.
    method
        ``"mean"``: the mean probability. ``"extremized"``: the same with its log-odds multiplied
        by 1.5. ``"rank"``: the mean rank within a species. ``"aligned"``: the mean of logits that
        are brought to the mean and deviation of the first member's. ``"auc"`` and ``"fit"``: the
        same, with weights for each species from the AUC of the members or from a logistic
        regression; they need a run.
    weights
        One a member, in the order of ``members``; for the methods that do not find their own.

    Returns
    -------
    EnsembleResult
        Its last report is that of the ensemble, out of fold; tables alone have none.

    Raises
    ------
    UserError
        ``E_ENSEMBLE_MEMBERS`` with one member twice, with runs on different data, or with tables
        alone that differ in rows or columns; ``E_ENSEMBLE_METHOD`` for fitted weights without a
        run; ``E_SCORE_TABLE``, ``E_SCORE_VALUE`` and ``E_SCORES_MISSING`` for tables that cannot be
        used; ``E_ENSEMBLE_WEIGHTS`` if weights and members differ in number; ``E_OUTPUT_EDITED`` if
        ``out`` holds anything but an unchanged ensemble.

    Examples
    --------
    >>> antpitta.ensemble(["runs/a", "runs/b"], "model", weights=[1, 2])  # doctest: +SKIP
    """
    out, members = Path(out), as_paths(members)
    with lock_folder(out):  # refused before anything is computed
        check_own_folder(out, "ensemble")
    runs, tables = _runs_and_tables(members)
    if not runs:
        return _combine_tables(tables, out, method, _order_weights(members, weights, runs, tables))
    names = _member_names([*(run.path for run in runs), *tables])
    classes = read_bundle(runs[0].model).classes
    scored, cells = _read_members(dict(zip(names, [*runs, *tables], strict=True)), classes)
    folds = {str(recording): int(fold) for recording, fold in runs[0].folds().items()}
    shares = _order_weights(members, weights, runs, tables)
    fitted = fit_blend(scored, cells, method, classes, shares)
    nested = nested_cells(scored, cells, folds, method, classes, shares)
    alone = [_evaluate_member(member, cells, classes) for member in scored]
    reports = (*alone, _evaluate(nested, classes, method))
    notes = [
        f"{name} does not score {', '.join(species)}: its weight there is 0"
        for name, species in fitted.missing().items()
        if species
    ]
    if tables:
        notes.append("a member is a table, so this ensemble cannot predict new recordings")

    recordings = cells.recordings if tables else sorted(map(str, runs[0].folds()))
    clipwise = [_clip_scores(name, run, recordings) for name, run in zip(names, runs, strict=False)]
    blended = fitted.apply([*clipwise, *scored[len(runs) :]])  # (recordings, classes)
    prevalence = None if tables else _mean_prevalence(runs, classes)
    if prevalence is None:
        prevalence = prevalence_or_mean(blended, recordings, _boxes(runs[0].cells()), classes)

    def write(new: Path) -> None:
        if not tables:
            clips = FoldScores.in_folds(recordings, folds, blended)
            _write_model(runs, fitted, (nested, clips), (out.name, new), weights)
        write_csv(clip_score_table(recordings, blended, classes.names), new / "oof_blended.csv")
        write_prevalence(classes.names, prevalence, new / "prevalence.csv")
        write_json({"reports": [report_to_json(report) for report in reports]}, new / "report.json")

    _replace(out, write)
    return EnsembleResult(out, fitted, reports, tuple(notes), not tables)


def _replace(out: Path, write: Callable[[Path], None]) -> None:
    """Replace an ensemble by the files that ``write`` puts into an empty folder."""
    with lock_folder(out):
        check_own_folder(out, "ensemble")
        with replace_files(out, "ensemble", complete=True) as new:
            write(new)


def _runs_and_tables(members: Sequence[Path | str]) -> tuple[list[RunFolder], list[Path]]:
    """The members by their kind; raises UserError for runs on other data."""
    paths = [Path(member) for member in members]
    runs = [RunFolder(path) for path in paths if path.is_dir() and _table_in(path) is None]
    tables = [_table_in(path) or path for path in paths if not path.is_dir() or _table_in(path)]
    if runs:
        _check_same_data(runs)
    return runs, tables


def _table_in(folder: Path) -> Path | None:
    """The table of scores in a folder of ``predict``, None in any other one."""
    tables = (folder / name for name in ("submission.csv", "presence.csv"))
    return next((table for table in tables if table.is_file()), None)


def _combine_tables(
    paths: Sequence[Path], out: Path, method: BlendMethod, weights: Floats | None
) -> EnsembleResult:
    """Combine tables alone into one with the rows and columns of the first."""
    if method in FITTED:
        raise UserError(
            "E_ENSEMBLE_METHOD",
            f"method {method} fits its weights on labelled boxes, and no member is a run",
            "use mean, extremized, rank or aligned, and --weight for weights by hand",
        )
    names = _member_names(paths)
    frames = [read_frame(path) for path in paths]
    sample = read_sample(paths[0])
    indexed = [
        index_by_recording(frame, str(path)) for path, frame in zip(paths, frames, strict=True)
    ]
    for path, table in zip(paths, indexed, strict=True):
        _check_same_names((paths[0], indexed[0]), (path, table))
    classes = Classes(tuple(map(str, indexed[0].columns)))
    members = [
        member_from_table(frame, sample.recordings, classes, name=name)
        for name, frame in zip(names, frames, strict=True)
    ]
    every = np.ones((len(sample.recordings), len(classes)), dtype=bool)
    cells = CellMatrices(~every, every, members[0].scores, list(sample.recordings))
    blend = fit_blend(members, cells, method, classes, weights, most_ranks=len(every))
    content = {key: blend.to_json()[key] for key in ("method", "members", "slopes", "offsets")}
    content["weights"] = blend.weights[:, 0].tolist()

    def write(new: Path) -> None:
        sample.write(blend.apply(members), new / SUBMISSION)
        write_json(content, new / "ensemble.json")

    _replace(out, write)
    return EnsembleResult(out, blend, (), (), can_predict=False, submission=out / SUBMISSION)


def _check_same_names(first: tuple[Path, pd.DataFrame], other: tuple[Path, pd.DataFrame]) -> None:
    """Raise UserError for two tables with different recordings or species."""
    kinds = (("recordings", "index", locate_recordings), ("species", "columns", locate_species))
    problems = []
    for kind, axis, locate in kinds:
        for (path, table), (_, its_other) in ((first, other), (other, first)):
            names = list(map(str, getattr(table, axis)))
            places = zip(names, locate(its_other, names), strict=True)
            if only := [name for name, place in places if place is None]:
                problems.append(f"only {path} has the {kind} {sample_names(only)}")
    if problems:
        raise UserError(
            "E_ENSEMBLE_MEMBERS", "; ".join(problems), "combine tables of the same rows and columns"
        )


def _check_same_data(runs: Sequence[RunFolder]) -> None:
    first = runs[0].config()["data"]
    for run in runs[1:]:
        if run.config()["data"] != first:
            raise UserError(
                "E_ENSEMBLE_MEMBERS",
                f"{run.path} was trained on other data than {runs[0].path}",
                "combine runs on the same data",
            )


def _member_names(members: Sequence[Path]) -> list[str]:
    """A short name for each member; raises UserError if one is given twice."""
    resolved = [member.resolve() for member in members]
    for member, path in zip(members, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UserError(
                "E_ENSEMBLE_MEMBERS", f"{member} is given twice", "name each member once"
            )
    return short_path_names(members)


def _read_members(
    sources: Mapping[str, RunFolder | Path], classes: Classes
) -> tuple[list[Member], CellMatrices]:
    """Each member's scores of the labelled cells, which the runs have; and these cells."""
    runs = {name: source for name, source in sources.items() if isinstance(source, RunFolder)}
    members, cells = members_from_cells({name: run.cells() for name, run in runs.items()}, classes)
    members += [
        member_from_table(read_frame(source), cells.recordings, classes, name=name)
        for name, source in sources.items()
        if not isinstance(source, RunFolder)
    ]
    return members, cells


def _order_weights(
    members: Sequence[Path | str],
    weights: Sequence[float] | None,
    runs: Sequence[RunFolder],
    tables: Sequence[Path],
) -> Floats | None:
    """The weights in the order of the blend, which has runs before tables."""
    if weights is None:
        return None
    if len(weights) != len(members):
        raise UserError(
            "E_ENSEMBLE_WEIGHTS",
            f"{len(weights)} weights for {len(members)} members",
            "give one a member, in their order",
        )
    paths = [_table_in(Path(member)) or Path(member) for member in members]
    weight = dict(zip(paths, weights, strict=True))
    return np.array([weight[path] for path in (*(run.path for run in runs), *tables)], dtype=float)


def _clip_scores(name: str, run: RunFolder, recordings: Sequence[str]) -> Member:
    """A run's highest scores in whole recordings, out of fold."""
    scores = run.scores()
    highest = {score.recording: score.value.max(axis=0) for score in scores}
    return Member(name, np.array([highest[recording] for recording in recordings], dtype=float))


def _mean_prevalence(runs: Sequence[RunFolder], classes: Classes) -> Floats | None:
    """The mean of the runs' prevalences in log-odds; None if a run has no such table."""
    paths = [run.path / "prevalence.csv" for run in runs]
    if not all(path.is_file() for path in paths):
        return None
    logits = [clipped_logit(read_prevalence(path, classes.names)) for path in paths]
    return np.asarray(expit(np.mean(logits, axis=0)))


def _boxes(cells: pd.DataFrame) -> list[Annotation]:
    rows = zip(*(cells[name] for name in BOX), strict=True)
    return [
        Annotation(str(recording), start, stop, str(species), present=bool(present))
        for recording, start, stop, species, present in rows
    ]


def _evaluate_member(member: Member, cells: CellMatrices, classes: Classes) -> Report:
    row, column = np.nonzero(cells.known & member.scored)
    table = pd.DataFrame(
        {
            "recording": np.array(cells.recordings, dtype=object)[row],
            "species": np.array(classes.names, dtype=object)[column],
            "present": cells.truth[row, column],
            "score": member.scores[row, column],
        }
    )
    return _evaluate(table, classes, member.name)


def _evaluate(cells: pd.DataFrame, classes: Classes, source: str) -> Report:
    return evaluate_cells(cells, classes, source, draws=DRAWS, rng=np.random.default_rng(0))


def _write_model(
    runs: Sequence[RunFolder],
    fitted: Blend,
    out_of_fold: tuple[pd.DataFrame, FoldScores],
    name_folder: tuple[str, Path],
    weights: Sequence[float] | None,
) -> None:
    """Write the bundle of this name into an empty folder; its cells and scores are out of fold."""
    name, folder = name_folder
    bundles = [read_bundle(run.model) for run in runs]
    names, classes = fitted.members, bundles[0].classes
    nested, clips = out_of_fold
    bundle = Bundle(
        path=folder,
        name=name,
        species=classes.names,
        thresholds=choose_thresholds(nested, classes, clips, rng=np.random.default_rng(0)),
        bands=bundles[0].bands,
        members=names,
        blend=fitted.to_json(),
        provenance={
            "members": {name: member.digest for name, member in zip(names, bundles, strict=True)},
            "method": fitted.method,
            "weights": None if weights is None else list(weights),
        },
    )
    write_bundle(bundle, [member.path for member in bundles], _card(bundle, bundles))


def _card(bundle: Bundle, members: Sequence[Bundle]) -> str:
    method = bundle.provenance["method"]
    lines = [f"# {bundle.name}", "", f"An ensemble of these models (method {method}):", ""]
    weights = bundle.provenance["weights"] or [None] * len(members)
    for name, member, weight in zip(bundle.members, members, weights, strict=True):
        text = "" if weight is None else f", weight {weight:g}"
        lines.append(f"- {name} (digest {member.digest}){text}")
    if any("embedding" in member.recipe for member in members):
        lines += ["", "Some members need the file of an embedding model that is not part of this"]
        lines += ["folder: their cards name it."]
    lines += ["", "Each member has its own card in `members/`. The metrics of the ensemble, out of"]
    lines += ["fold and with weights fitted on the other folds, are in `report.json`.", ""]
    lines += [threshold_section(bundle.thresholds)]
    if warnings := warn_of_thresholds(bundle.thresholds):
        lines += ["## Limits", ""]
        lines += [f"- {escape(line[:1].upper() + line[1:])}." for line in warnings]
    return printable_lines("\n".join(lines)).rstrip() + "\n"
