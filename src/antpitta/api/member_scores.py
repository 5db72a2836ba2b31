"""How much the networks of a model disagree on candidates.

The members are the networks of all folds, and those of all models of an ensemble. The score of a
member is its highest framewise score inside the candidate, and the disagreement is the standard
deviation of these scores. It is unknown, and never 0, where the model does not score the species or
the recording cannot be read.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.config import parse_recipe
from antpitta.core.errors import Finding, UserError
from antpitta.core.identity import species_key
from antpitta.core.progress import Progress
from antpitta.core.types import Recording, Scores
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.recordings import ListedFile
from antpitta.files.texts import utf8_text
from antpitta.model.features import check_input
from antpitta.model.inference import InferenceConfig
from antpitta.predict.pipeline import cpu_count, failure_reason, predict_files
from antpitta.predict.predictor import FoldScores, Predictor, Segment


class MemberPredictor(Predictor):
    """A predictor that also gives the scores of each of its networks.

    Attributes
    ----------
    members : the framewise scores of the recording that was merged last, by each network; NaN for
        species that its model could not learn
    """

    members: tuple[Scores, ...] = ()

    def merge(
        self, recording: Recording, segments: Sequence[Segment], scores: Sequence[list[FoldScores]]
    ) -> tuple[NDArray[np.float32], Scores]:
        """Put the scores of a recording together, by each network and by all."""
        bundles = self.bundle.parts() or [self.bundle]
        self.members = tuple(
            _without(model.merge(recording.id, [[part] for part in fold], bounds)[1], bundle)
            for (model, parts, bounds), bundle in zip(
                self.by_model(segments, scores), bundles, strict=True
            )
            for fold in zip(*parts, strict=True)
        )
        return super().merge(recording, segments, scores)


def _without(scores: Scores, bundle: Bundle) -> Scores:
    """The scores of a network without those of species that its model could not learn."""
    blank = [name in bundle.not_learnable for name in scores.classes.names]
    return replace(scores, value=np.where(blank, np.float32(np.nan), scores.value))


def open_members(model: Path) -> Bundle:
    """A model whose networks can disagree.

    Parameters
    ----------
    model : folder of a model or of a run

    Returns
    -------
    Bundle

    Raises
    ------
    UserError
        ``E_OPTION`` for a model of one network, and those of reading a model.
    """
    bundle = read_bundle(model)
    parts = bundle.parts() or [bundle]
    for part in parts:
        check_input(parse_recipe(part.recipe, str(part.path)), spectrograms=False)
    if sum(len(part.weights) for part in parts) < 2:
        what = f"--model {model}: this model has one network, which can disagree with no other"
        raise UserError("E_OPTION", what, "name a model of several folds, or an ensemble")
    return bundle


def member_disagreement(
    bundle: Bundle, table: pd.DataFrame, recordings: Sequence[Recording], progress: Progress
) -> tuple[NDArray[np.float64], list[Finding]]:
    """The disagreement of a model's networks on candidates.

    Parameters
    ----------
    bundle : of :func:`open_members`
    table : one row a candidate: ``path``, ``species``, ``start_time``, ``end_time`` (s)
    recordings : that hold all candidates
    progress : receives progress

    Returns
    -------
    disagreement : (candidates,), NaN where unknown
    findings : about recordings that could not be read
    """
    spread = np.full(len(table), np.nan)
    learnt = [name for name in bundle.species if name not in bundle.not_learnable]
    column = {species_key(name): bundle.species.index(name) for name in learnt}
    by_path: dict[str, list[tuple[int, float, float, int]]] = {}  # row, start, end, column
    cells = [table[name] for name in ("path", "species", "start_time", "end_time")]
    for i, (path, name, start, end) in enumerate(zip(*cells, strict=True)):
        if (key := species_key(name)) in column:
            by_path.setdefault(path, []).append((i, start, end, column[key]))
    files = [
        ListedFile(path, own.path, channel=own.channel)
        for own in recordings
        if (path := utf8_text(str(own.path.absolute()))) in by_path
    ]
    predictor = MemberPredictor(bundle, InferenceConfig(workers=cpu_count()))
    report = progress.of(f"members of {bundle.name}")
    findings = []
    for i, result in enumerate(predict_files(predictor, files), start=1):
        report(i, len(files), float("nan"))
        if result.scores is None:
            what, remedy = failure_reason(result), "check the file; its disagreement is unknown"
            findings.append(
                Finding("W_AUDIO_UNREADABLE", str(result.file.path), None, what, remedy, True)
            )
            continue
        for row, start, end, name in by_path[result.file.id]:
            spread[row] = _spread(predictor.members, start, end, name)
    return spread, findings


def _spread(members: Sequence[Scores], start: float, end: float, column: int) -> float:
    """The standard deviation of the members' highest scores inside a box; NaN without two."""
    parts = [
        own.value[own.grid.frames_by_centre(start, min(end, own.grid.end)), column]
        for own in members
    ]
    highest = [score for part in parts if len(part) and not np.isnan(score := part.max())]
    return float(np.std(highest)) if len(highest) > 1 else np.nan
