"""The boxes of a data set that lie in gaps of its recordings (files/audio_gaps.py)."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from antpitta.core.errors import Finding, UserError
from antpitta.files.audio_gaps import Gaps, describe_gap, find_gaps, is_lost
from antpitta.files.dataset import OpenedDataset

_MAX_LISTED = 5  # findings of one table


def leave_out_lost_boxes(opened: OpenedDataset) -> OpenedDataset:
    """Look for gaps in recordings with boxes, and leave out the boxes that lie there.

    Parameters
    ----------
    opened : the data set; recordings whose gaps are known are not decoded again

    Returns
    -------
    opened : with gaps, and a finding for each of the first boxes that are left out

    Raises
    ------
    UserError
        E_NO_MATCHING_AUDIO: all boxes are lost.
    """
    dataset = opened.dataset
    annotated = {box.recording for box in dataset.annotations}
    examined = [r for r in dataset.recordings if r.gaps is None and r.id in annotated]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        gaps_by_id = {
            r.id: gaps for r, gaps in zip(examined, pool.map(find_gaps, examined), strict=True)
        }
    recordings = tuple(
        replace(recording, gaps=gaps_by_id[recording.id])
        if recording.id in gaps_by_id
        else recording
        for recording in dataset.recordings
    )
    gaps = {r.id: r.gaps for r in recordings if r.gaps}
    lost = {
        i
        for i, box in enumerate(dataset.annotations)
        if box.recording in gaps and is_lost(gaps[box.recording], box.start, box.stop)
    }
    findings = _report_lost(opened, sorted(lost), gaps)
    if lost and len(lost) == len(dataset.annotations):
        first = findings[0]
        raise UserError(
            "E_NO_MATCHING_AUDIO", f"{first.file}:{first.row}: {first.what}", first.remedy
        )
    kept = [i for i in range(len(dataset.annotations)) if i not in lost]
    annotations = tuple(dataset.annotations[i] for i in kept) if lost else dataset.annotations
    return replace(
        opened,
        dataset=replace(dataset, recordings=recordings, annotations=annotations),
        origins=tuple(opened.origins[i] for i in kept) if lost else opened.origins,
        findings=(*opened.findings, *findings),
    )


def _report_lost(opened: OpenedDataset, lost: list[int], gaps: dict[str, Gaps]) -> list[Finding]:
    """A finding for each of the first boxes of a table, one for its others."""
    by_file: dict[str, list[int]] = {}
    for i in lost:
        by_file.setdefault(opened.origins[i][0], []).append(i)
    findings = []
    for file, rows in by_file.items():
        for number, i in enumerate(rows[: _MAX_LISTED + 1]):
            box = opened.dataset.annotations[i]
            what = describe_gap(gaps[box.recording], box.start, box.stop, "box", box.recording)
            if number == _MAX_LISTED:
                what = f"{len(rows) - _MAX_LISTED} more rows like this: {what}"
            remedy = "copy the recording again from the card, or remove the row"
            findings.append(Finding("W_BOX_IN_GAP", file, opened.origins[i][1], what, remedy, True))
    return findings
