"""The table that knows better: site and start of recordings whose names do not tell.

Columns by name, in any order: ``recording`` or ``file``, and ``site``, ``began`` or ``start``,
one of them at least. An empty cell changes nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from antpitta.core.errors import Finding, UserError
from antpitta.core.types import Recording
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher

_NAMES = ("recording", "recording_id", "file", "filename", "file_name")
_SITES = ("site", "site_name", "location")
_STARTS = ("began", "start", "start_time", "datetime")


def apply_site_table(
    recordings: Sequence[Recording], table: Path
) -> tuple[tuple[Recording, ...], list[Finding]]:
    """The recordings as the table places them, and its rows that could not be used.

    Raises UserError where the table lacks the columns.
    """
    from antpitta.files.tables import read_frame

    frame = read_frame(table)
    columns = {str(name).strip().lower().replace(" ", "_"): name for name in frame.columns}
    name, site, start = (
        next((columns[one] for one in known if one in columns), None)
        for known in (_NAMES, _SITES, _STARTS)
    )
    if name is None or (site is None and start is None):
        raise UserError(
            "E_TODO",
            f"{table}: needs a column 'recording' and one of 'site' and 'began'",
            f"it has {', '.join(map(str, frame.columns))}",
        )
    by_id = {recording.id: recording for recording in recordings}
    found = RecordingMatcher(recordings).find_all(frame[name], table)
    findings, strangers = [], []
    for line, row in zip(frame.index.tolist(), frame.to_dict("records"), strict=True):
        match = found[row[name]]
        if isinstance(match, Recording):
            changed, trouble = _changed(by_id[match.id], row.get(site), row.get(start))
            by_id[match.id] = changed
        else:
            trouble = match.why if isinstance(match, AmbiguousMatch) else ""
            if match is None:
                strangers.append((line, row[name]))
        if trouble:
            remedy = "write a recording's id, and times as 2020-06-07 05:15:00"
            findings.append(Finding("E_TODO", str(table), line, trouble, remedy, True))
    if strangers:
        line, example = strangers[0]
        what = f"{len(strangers)} rows name recordings that are not here, the first {example!r}"
        findings.append(Finding("E_TODO", str(table), line, what, "nothing, if that is so", False))
    return tuple(by_id[recording.id] for recording in recordings), findings


def _changed(recording: Recording, site: str | None, start: str | None) -> tuple[Recording, str]:
    """The recording with what the cells say, and what is wrong with them."""
    if site:
        recording = replace(recording, site=site)
    if start:
        try:
            return replace(recording, recorded_at=datetime.fromisoformat(start)), ""
        except ValueError:
            return recording, f"{start!r} is no time"
    return recording, ""
