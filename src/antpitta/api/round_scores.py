"""The scores that the models of all rounds give the verdicts of the last one.

No network scores a recording that it was trained on. Of the networks of a run's folds, a recording
of its data set is scored by the one that held it out, and any other recording by one of them too:
always by a single network, so that old and new models compare. Which network that is depends on the
digest of the recording alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.core.progress import Progress
from antpitta.core.types import Annotation, Classes, Recording, Scores
from antpitta.files.bundle import Bundle, read_bundle
from antpitta.files.recordings import ListedFile
from antpitta.files.runs import RunFolder
from antpitta.files.verdicts import VERDICTS, read_verdicts, verdict_recording_id
from antpitta.model.features import ReadAudio
from antpitta.model.inference import InferenceConfig
from antpitta.predict.pipeline import cpu_count, predict_files
from antpitta.predict.predictor import FoldScores, Predictor, Segment
from antpitta.scores.cells import box_cells
from antpitta.scores.learning_curve import RoundCells, align_scores


@dataclass(frozen=True)
class JudgedRecording:
    """A recording with verdicts.

    Parameters
    ----------
    recording : of the data set of the round
    digest : of its file
    name : in the queue
    added : whether the verdicts brought it, so that it was in no table of the first run
    """

    recording: Recording
    digest: str
    name: str
    added: bool


class SingleNetworkPredictor(Predictor):
    """A predictor that scores each recording by one of its networks, by the recording's digest.

    Parameters
    ----------
    bundle : a model
    inference : mode, precision and number of threads
    digests : of the recordings, by id
    """

    def __init__(
        self, bundle: Bundle, inference: InferenceConfig, digests: Mapping[str, str]
    ) -> None:
        super().__init__(bundle, inference)
        self._digests = digests

    def predict(self, recording: Recording, segment: Segment, read: ReadAudio) -> list[FoldScores]:
        """Scores of one segment by one network of each model."""
        number = int(self._digests[recording.id], 16)
        return [
            [[folds[number % len(folds)]] for folds in segments]
            for segments in super().predict(recording, segment, read)
        ]


def find_rounds(folder: RunFolder) -> tuple[list[tuple[int, RunFolder]], list[str]]:
    """The runs of all rounds up to one, the first run at the beginning.

    Parameters
    ----------
    folder : of the last round

    Returns
    -------
    runs : number and folder of each round
    notes : about a run that is not where it was, or cannot be used any more
    """
    runs, notes = [(folder.round_number(), folder)], []
    while earlier := folder.earlier_round():
        folder = RunFolder(earlier)
        try:
            folder.report()
            read_bundle(folder.path)  # refuses a model that an older version wrote
        except UserError as error:
            notes.append(f"the curve begins later, as {error.what}")
            break
        runs.append((folder.round_number(), folder))
    return runs[::-1], notes


def score_verdicts(
    folder: RunFolder, judged: Sequence[JudgedRecording], classes: Classes, progress: Progress
) -> list[Scores]:
    """Scores of recordings by networks of a run that were not trained on them.

    Parameters
    ----------
    folder : of the run
    judged : the recordings
    classes : the columns that are wanted
    progress : receives progress

    Returns
    -------
    scores : of the recordings that can be read
    """
    bundle = read_bundle(folder.path)
    held_out = {own.recording: own for own in folder.scores()}
    trained = _verdict_digests(folder)
    scores, others = [], []
    for own in judged:
        id = own.recording.id
        if own.added:
            id = verdict_recording_id(own.name, own.digest, held_out)
            id = id if own.digest in trained else ""
        if id in held_out:
            scores.append(replace(held_out[id], recording=own.recording.id))
        else:
            others.append(own)
    scores += _predict(bundle, others, progress)
    return [align_scores(own, classes, bundle.not_learnable) for own in scores]


def _verdict_digests(folder: RunFolder) -> set[str]:
    table = folder.path / VERDICTS
    return set(read_verdicts(table)["recording_digest"]) if table.is_file() else set()


def _predict(
    bundle: Bundle, judged: Sequence[JudgedRecording], progress: Progress
) -> Iterable[Scores]:
    if not judged:
        return
    digests = {own.recording.id: own.digest for own in judged}
    files = [
        ListedFile(own.recording.id, own.recording.path, channel=own.recording.channel)
        for own in judged
    ]
    predictor = SingleNetworkPredictor(bundle, InferenceConfig(workers=cpu_count()), digests)
    report = progress.of(f"verdicts by {bundle.name}")
    for i, result in enumerate(predict_files(predictor, files), start=1):
        report(i, len(files), float("nan"))
        if result.scores is not None:
            yield result.scores


def round_cells(
    number: int, folder: RunFolder, scores: Sequence[Scores], boxes: Sequence[Annotation],
    classes: Classes,
) -> RoundCells:  # fmt: skip
    """What the model of a round says of the verdicts.

    Parameters
    ----------
    number : of the round
    folder : of its run
    scores : as from :func:`score_verdicts`
    boxes : the verdicts
    classes : the columns of the scores

    Returns
    -------
    cells : with the numbers of boxes that the model was trained on
    """
    trained = folder.cells().groupby("species")["present"].agg(["sum", "size"])
    counts = {
        species_key(str(name)): (int(present), int(size - present))
        for name, present, size in trained.itertuples(name=None)
    }
    return RoundCells(
        number, folder.path.resolve().name, _known(box_cells(scores, boxes, classes)), counts
    )


def _known(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each box: two candidates of one sound are judged once."""
    names = ["recording", "species", "start", "stop", "present"]
    return cells.drop_duplicates(names, ignore_index=True)
