"""ensemble: several runs, and tables of anyone's models, as one.

Weights are fitted on out-of-fold cells; the report uses weights fitted on the other folds, so
that it does not flatter. A table of scores may be a member too: it takes part in the weights and
the report, but a model that only left a table cannot listen to new sound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from antpitta.core.config import BlendMethod
from antpitta.core.errors import UserError
from antpitta.core.types import Annotation, Classes
from antpitta.files.bundle import Bundle, read_bundle, write_bundle
from antpitta.files.recordings import short_path_names
from antpitta.files.runs import RunFolder, read_scores
from antpitta.files.tables import read_frame, read_prevalence, write_csv, write_prevalence
from antpitta.files.texts import write_json
from antpitta.scores.cells import CellMatrices, clip_score_table
from antpitta.scores.ensemble.blend import Blend, fit_blend, nested_cells
from antpitta.scores.ensemble.members import (
    Member,
    as_logits,
    member_from_table,
    members_from_cells,
)
from antpitta.scores.evaluate import DRAWS, Report, evaluate_cells, report_to_json
from antpitta.scores.metrics import Floats
from antpitta.scores.prevalence import prevalence_per_member
from antpitta.scores.thresholds import choose_thresholds

BOX = ("recording", "start", "stop", "species", "present")  # what a judged cell says


@dataclass(frozen=True)
class EnsembleResult:
    """A fitted ensemble: the members' reports, then its own, on the same cells."""

    path: Path
    blend: Blend
    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    listens: bool  # False where a member is a table only


def ensemble(
    members: Sequence[Path | str],
    out: Path | str,
    *,
    method: BlendMethod = "mean",
    weights: Sequence[float] | None = None,
) -> EnsembleResult:
    """Blend runs (folders) and tables of scores (CSV: recording_id, then the species).

    ``weights``, one a member in their order, are for the ways that do not find their own. Raises
    UserError where there is no run among the members, runs are of other data, or weights do
    not fit.
    """
    runs = [RunFolder(Path(one)) for one in members if Path(one).is_dir()]
    tables = [Path(one) for one in members if not Path(one).is_dir()]
    if not runs:
        raise UserError(
            "E_TODO", "an ensemble needs a run: it brings the judged cells", "name a run folder"
        )
    _check_same_data(runs)
    names = _names([*(run.path for run in runs), *tables])
    classes = read_bundle(runs[0].model).classes
    voices, judged = _voices(dict(zip(names, [*runs, *tables], strict=True)), classes)
    folds = {str(k): int(v) for k, v in runs[0].folds().items()}
    shares = _weights(members, weights, runs, tables)
    fitted = fit_blend(voices, judged, method, classes, shares)
    nested = nested_cells(voices, judged, folds, method, classes, shares)
    reports = (*(_alone(one, judged, classes) for one in voices), _report(nested, classes, method))
    notes = [
        f"{name} does not know {', '.join(species)}: weight 0 there"
        for name, species in fitted.missing().items()
        if species
    ]
    if tables:
        notes.append("a table cannot listen: this ensemble scores these recordings only")
    else:
        _write_model(runs, fitted, nested, classes, Path(out), weights)
    recordings = judged.recordings if tables else sorted(map(str, runs[0].folds()))
    heard = [_presences(name, run, recordings) for name, run in zip(names, runs, strict=False)]
    blended = fitted.apply([*heard, *voices[len(runs) :]])
    write_csv(clip_score_table(recordings, blended, classes.names), Path(out) / "oof_blended.csv")
    common = None if tables else _prevalence(runs, classes)
    if common is None:
        common = prevalence_per_member(blended, recordings, _boxes(runs[0].cells()), classes)
    write_prevalence(classes.names, common, Path(out) / "prevalence.csv")
    write_json({"reports": [report_to_json(one) for one in reports]}, Path(out) / "report.json")
    return EnsembleResult(Path(out), fitted, reports, tuple(notes), not tables)


def _voices(
    members: Mapping[str, RunFolder | Path], classes: Classes
) -> tuple[list[Member], CellMatrices]:
    """What each member says of the judged cells, which the runs bring, and the cells."""
    runs = {name: one for name, one in members.items() if isinstance(one, RunFolder)}
    voices, judged = members_from_cells({name: one.cells() for name, one in runs.items()}, classes)
    voices += [
        member_from_table(read_frame(one), judged.recordings, classes, name=name)
        for name, one in members.items()
        if not isinstance(one, RunFolder)
    ]
    return voices, judged


def _prevalence(runs: Sequence[RunFolder], classes: Classes) -> Floats | None:
    """The mean of what the runs believe, in log-odds: nearer than what their blend would.

    None where one of them is of before runs said so.
    """
    kept = [run.path / "prevalence.csv" for run in runs]
    if not all(path.is_file() for path in kept):
        return None
    told = [as_logits(read_prevalence(path, classes.names)) for path in kept]
    return np.asarray(expit(np.mean(told, axis=0)))


def _weights(
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
            "E_TODO",
            f"{len(weights)} weights for {len(members)} members",
            "give one a member, in their order",
        )
    told = dict(zip(map(Path, members), weights, strict=True))
    return np.array([told[one] for one in (*(run.path for run in runs), *tables)], dtype=float)


def _names(members: Sequence[Path]) -> list[str]:
    places = [member.resolve() for member in members]
    if twice := [
        one for one, place in zip(members, places, strict=True) if places.count(place) > 1
    ]:
        raise UserError("E_TODO", f"{twice[0]}: is named twice", "name each member once")
    return short_path_names(members)


def _check_same_data(runs: Sequence[RunFolder]) -> None:
    first = runs[0].config()["data"]
    for run in runs[1:]:
        if run.config()["data"] != first:
            raise UserError(
                "E_TODO",
                f"{run.path} was trained on other data than {runs[0].path}",
                "blend runs on the same",
            )


def _boxes(cells: pd.DataFrame) -> list[Annotation]:
    rows = zip(*(cells[name] for name in BOX), strict=True)
    return [Annotation(str(r), a, b, str(s), present=bool(p)) for r, a, b, s, p in rows]


def _presences(name: str, run: RunFolder, recordings: Sequence[str]) -> Member:
    """What a run hears in whole recordings, out of fold; its cells are of judged boxes only."""
    scores = read_scores(run.path / "oof_scores.parquet")
    highest = {one.recording: one.value.max(axis=0) for one in scores}
    return Member(name, np.array([highest[one] for one in recordings], dtype=float))


def _alone(member: Member, judged: CellMatrices, classes: Classes) -> Report:
    row, column = np.nonzero(judged.known & member.knows)
    cells = pd.DataFrame(
        {
            "recording": np.array(judged.recordings, dtype=object)[row],
            "species": np.array(classes.names, dtype=object)[column],
            "present": judged.truth[row, column],
            "score": member.scores[row, column],
        }
    )
    return _report(cells, classes, member.name)


def _report(cells: pd.DataFrame, classes: Classes, source: str) -> Report:
    return evaluate_cells(cells, classes, source, draws=DRAWS, rng=np.random.default_rng(0))


def _write_model(
    runs: Sequence[RunFolder],
    fitted: Blend,
    nested: pd.DataFrame,
    classes: Classes,
    out: Path,
    weights: Sequence[float] | None,
) -> None:
    bundles = [read_bundle(run.model) for run in runs]
    names = fitted.members
    bundle = Bundle(
        path=out,
        name=out.name,
        species=classes.names,
        thresholds=choose_thresholds(nested, classes, aim="f1"),
        bands=bundles[0].bands,
        members=names,
        blend=fitted.to_json(),
        provenance={
            "members": {name: one.digest for name, one in zip(names, bundles, strict=True)},
            "method": fitted.method,
            "weights": None if weights is None else list(weights),
        },
    )
    write_bundle(bundle, [one.path for one in bundles], _card(bundle, bundles))


def _card(bundle: Bundle, members: Sequence[Bundle]) -> str:
    lines = [f"# {bundle.name}", "", f"An ensemble ({bundle.provenance['method']}) of:", ""]
    weights = bundle.provenance["weights"] or [None] * len(members)
    for name, one, weight in zip(bundle.members, members, weights, strict=True):
        heavy = "" if weight is None else f", weight {weight:g}"
        lines.append(f"- {name} (digest {one.digest}){heavy}")
    if any("embedding" in one.recipe for one in members):
        lines += ["", "Some need the file of a network that is not in here: their cards say which."]
    lines += ["", "Each member's own card lies in `members/`. Its figures, out of fold and with"]
    lines += ["weights fitted on the other folds, are in `report.json`."]
    return "\n".join(lines) + "\n"
