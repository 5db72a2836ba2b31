"""match: example boxes searched in an archive, to the tables that predict writes.

Its output folder has the layout of a prediction, so that whatever reads one reads the other: a
score is a correlation or a cosine, and the model of an event is its template.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, InstanceOf

from antpitta.api.data import open_data
from antpitta.api.prediction_job import check_choice
from antpitta.api.prediction_result import Prediction
from antpitta.core.arguments import (
    Number,
    PathArgument,
    PathArguments,
    SplitWords,
    Words,
    as_paths,
    as_words,
    checked,
)
from antpitta.core.errors import UserError
from antpitta.core.features import FeatureConfig
from antpitta.core.progress import ProgressCallback, no_progress
from antpitta.core.types import Event
from antpitta.files.dataset import OpenedDataset
from antpitta.files.deployments import common_root
from antpitta.files.embedding_models import find_embedding_model, resolve_embedding
from antpitta.files.locks import lock_folder
from antpitta.files.manifest import check_own_files
from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import ListedFile, list_files
from antpitta.files.remote import Location, RemotePath, local_folder, location_of, upload
from antpitta.files.texts import remove_unfinished, utf8_text
from antpitta.model.features import build_feature_extractor, check_input
from antpitta.predict.journal import GONE, EventRow, Journal, JournalEntry, Stamp
from antpitta.predict.pipeline import cpu_count, file_stamp
from antpitta.search.archive import ArchiveMatcher, FileMatches
from antpitta.search.matching import Template, TemplateMatcher
from antpitta.search.similarity import SimilarityMatcher
from antpitta.search.templates import cut_templates

FORMATS = ("csv", "parquet", "raven", "audacity", "kaleidoscope")
TEMPLATES, SIMILARITY = "template matching", "similarity of embeddings"  # in run.json
TABLES = ("presence.csv", "quarantine.csv", "run.json")
MAX_SPECTRA = 1 << 30  # bytes of the spectra of all templates
Correlation = Annotated[float, Field(gt=0, le=1)]


@checked
def match(
    templates: InstanceOf[OpenedDataset] | PathArgument,
    audio: PathArguments,
    out: PathArgument,
    *,
    threshold: Correlation = 0.2,
    most: Number = 3,
    formats: SplitWords = ("csv",),
    recipe: PathArgument = "rfcx",
    changes: Words = (),
    resume: bool = False,
    workers: Number | None = None,
    channel: Number | None = None,
    progress: ProgressCallback = no_progress,
) -> Prediction:
    """Find sounds that resemble example boxes, by template matching or by embeddings.

    The score is the normalised cross-correlation of the spectrogram in the box with that of the
    recording, from -1 to 1; by a recipe with an embedding model it is the cosine between their
    vectors. It orders the matches of one species; it is no probability.

    Parameters
    ----------
    templates
        A table of boxes around example calls, in any supported format, whose recordings lie in its
        folder or in ``audio``; or a data set, as for :func:`open_data`, whose present boxes are
        used.
    audio
        Files, folders, or URLs (s3://, gs://) to search.
    out
        The output folder, or a URL.
    threshold
        The lowest score of a match.
    most
        The number of matches of a recording and species, at most.
    formats
        Of the matches: csv, parquet, raven, audacity, kaleidoscope.
    recipe, changes
        The recipe whose spectrogram or embedding model is used, and changes such as
        ``features.fmax=24000``.
    resume
        Continue a stopped search; only new and changed files are searched.
    workers
        Threads; None for one per core.
    channel
        The channel of each file, counted from 1; None for the mean of all.
    progress
        Called with (files done, files in total, seconds of sound per second).

    Returns
    -------
    Prediction
        ``events`` are the matches, ``presence`` holds the highest score of each recording and
        species.

    Raises
    ------
    UserError
        ``E_NO_TEMPLATES`` if no box gives a template, ``E_TOO_MANY_TEMPLATES``,
        ``E_NO_EMBEDDING_MODEL``, ``E_OPTION`` for options that are not allowed, those of
        :func:`open_data` for the boxes, and those of :func:`predict_to` for the sound and the
        output folder.

    Examples
    --------
    >>> matches = match("examples.csv", "recordings", "matches")  # doctest: +SKIP
    >>> matches.events.sort_values("score").tail()  # doctest: +SKIP
    """
    formats, roots = as_words(formats), [location_of(root) for root in as_paths(audio)]
    for name in formats:
        check_choice("--format", name, FORMATS)
    files, unreadable = list_files(roots, channel)
    opened = _open_templates(templates, audio, channel)
    matcher, notes, digest = _build(opened, str(recipe), as_words(changes), threshold, most)
    key = {"digest": digest, "channel": channel}
    folder = local_folder(target := location_of(out), TABLES)
    with lock_folder(folder), Journal(folder, key, resume=resume) as journal:
        check_own_files(folder, "prediction", TABLES)
        remove_unfinished(folder)
        _search(matcher, files, journal, workers or cpu_count(), progress)
        from antpitta.predict.exports import write_outputs
        from antpitta.predict.tables import Archive

        species = matcher.matcher.species
        archive = Archive(journal, files, unreadable, species, root=common_root(roots))
        note = {**key, **_note(matcher)}
        counts = write_outputs(archive, folder, formats, None, note)
        if isinstance(target, RemotePath):
            upload(folder, target)
    return Prediction(folder, counts, notes)


def _open_templates(
    templates: OpenedDataset | Path | str, audio: PathArguments, channel: int | None
) -> OpenedDataset:
    """The boxes of a data set, or of a table whose recordings lie beside it or in the archive."""
    if isinstance(templates, OpenedDataset):
        return templates
    path = Path(templates)
    if path.is_dir() or path.suffix.lower() == ".toml" or not path.exists():
        return open_data(path, channel=channel)
    local = [root for root in as_paths(audio) if not isinstance(location_of(root), RemotePath)]
    opened = []
    for roots in ([path.parent], local, [path.parent, *local]):
        try:
            data = open_data(audio=roots, present=path, channel=channel)
        except UserError as error:
            if error.code not in ("E_NO_AUDIO", "E_NO_MATCHING_AUDIO", "E_DATA_MISSING"):
                raise
        else:
            if not any(finding.code == "W_NO_AUDIO" for finding in data.findings):
                return data
            opened.append(data)
    if not opened:
        what = f"{path}: the recordings of its boxes lie neither in its folder nor in the archive"
        raise UserError("E_NO_MATCHING_AUDIO", what, "copy them there")
    return max(opened, key=lambda data: len(data.dataset.annotations))


def _build(
    opened: OpenedDataset, recipe: str, changes: tuple[str, ...], threshold: float, most: int
) -> tuple[ArchiveMatcher, tuple[str, ...], str]:
    """The matcher of all present boxes, notes for the user, and the digest of both."""
    settings = resolve_embedding(read_recipe(recipe, changes))
    check_input(settings, spectrograms=any(r.spectrogram for r in opened.dataset.recordings))
    embedding = settings.embedding
    model = None if embedding is None else find_embedding_model(embedding)
    extractor = build_feature_extractor(settings, model)
    pairs = zip(opened.dataset.annotations, opened.origins, strict=True)
    present = [(box, origin) for box, origin in pairs if box.present]
    boxes, origins = [box for box, _ in present], [origin for _, origin in present]
    templates, findings = cut_templates(opened.dataset.recordings, boxes, origins, extractor)
    if not templates:
        first = f": {findings[0]}" if findings else ""
        what = f"none of {len(boxes)} present boxes gives a template{first}"
        raise UserError("E_NO_TEMPLATES", what, "give a table of boxes around example calls")
    if embedding is None:
        _check_size(templates, extractor.config)
    measure = TemplateMatcher if embedding is None else SimilarityMatcher
    matcher = ArchiveMatcher(measure(templates), extractor, threshold, most)
    notes = tuple(
        str(finding)
        for finding in (*opened.findings, *findings)
        if finding.serious or finding.code == "W_NO_AUDIO"  # such a box gives no template
    )
    return matcher, notes, _digest(matcher)


def _check_size(templates: Sequence[Template], config: FeatureConfig) -> None:
    """Refuse more templates than fit into memory."""
    longest = max(len(template.pixels) for template in templates)
    frames = config.n_frames(config.segment) + longest
    bands = sum(template.pixels.shape[1] for template in templates)
    size = 4 * frames * bands  # half as many complex64
    if size > MAX_SPECTRA:
        most = len(templates) * MAX_SPECTRA // size
        what = f"{len(templates)} templates take {size / 1e9:.1f} GB of memory"
        raise UserError(
            "E_TOO_MANY_TEMPLATES", what, f"keep the clearest boxes, about {most} of them"
        )


def _digest(matcher: ArchiveMatcher) -> str:
    """A digest of what decides about the matches of a sound."""
    digest = hashlib.blake2b(digest_size=16)
    settings = (matcher.extractor.config.digest, matcher.threshold, matcher.most)
    digest.update(repr(settings).encode())
    for template in matcher.matcher.templates:
        box = (template.box.label, template.box.low, template.box.high)
        shape = (template.first_band, template.pixels.shape)
        digest.update(repr((template.name, box, shape)).encode() + template.pixels.tobytes())
    return digest.hexdigest()


def _search(
    matcher: ArchiveMatcher,
    files: Sequence[ListedFile],
    journal: Journal,
    workers: int,
    progress: ProgressCallback,
) -> None:
    """Search every file that the journal does not have, and store each as soon as it is done."""
    stamps: dict[Location, Stamp] = {}
    began, done, sound = time.monotonic(), 0, 0.0

    def count(seconds: float) -> None:
        nonlocal done, sound
        done, sound = done + 1, sound + seconds
        progress(done, len(files), sound / max(time.monotonic() - began, 1e-9))

    def missing() -> Iterator[ListedFile]:
        for file in files:
            stamp = file_stamp(file.source)  # before it is read: the next run notices a change
            if journal.has(file.path, stamp):
                count(0.0)
            else:
                stamps[file.path] = stamp
                yield file

    for result in matcher.find_all(missing(), workers):
        journal.add(_entry(result, stamps.pop(result.file.path)))
        count(result.recording.duration if result.recording else 0.0)


def _entry(result: FileMatches, stamp: Stamp) -> JournalEntry:
    """What the journal stores of a file."""
    path, recording = result.file.path, result.recording
    reason = utf8_text(result.reason)
    if recording is None:
        return JournalEntry(path, GONE if isinstance(path, RemotePath) else stamp, reason)
    recorded_at = None if recording.recorded_at is None else recording.recorded_at.isoformat()
    return JournalEntry(
        *(path, stamp, utf8_text(result.reason.replace(str(recording.path), str(path)))),
        *(recording.duration, recording.site, recorded_at),
        presence=result.best,
        events=tuple(_row(event) for event in result.events),
    )


def _row(event: Event) -> EventRow:
    times = (round(event.start, 3), round(event.stop, 3))
    band = (round(event.low, 1), round(event.high, 1))
    return (*times, *band, event.label, round(event.score, 6), event.source)


def _note(matcher: ArchiveMatcher) -> dict[str, Any]:
    """What run.json holds besides the key and the counts."""
    names = ("recording", "start", "stop", "low", "high", "label")
    templates = [
        {"name": template.name, **{name: getattr(template.box, name) for name in names}}
        for template in matcher.matcher.templates
    ]
    return {
        "model": TEMPLATES if isinstance(matcher.matcher, TemplateMatcher) else SIMILARITY,
        "threshold": matcher.threshold,
        "most": matcher.most,
        "features": matcher.extractor.config.model_dump(),
        "templates": templates,
        "versions": {name: version(name) for name in ("antpitta", "numpy", "scipy")},
    }
