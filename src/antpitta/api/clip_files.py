"""clips: sound and picture of detections as files."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from antpitta.core.arguments import PathArgument, PathArguments, Words, as_paths, as_words, checked
from antpitta.core.errors import UserError, list_names
from antpitta.core.identity import species_key
from antpitta.files.recipes import read_recipe
from antpitta.predict.exports import read_events
from antpitta.review.clips import ClipsResult, write_clips
from antpitta.review.library import AudioLibrary
from antpitta.review.media import RegionPainter

Margin = Annotated[float, Field(ge=0, le=10)]
Count = Annotated[int, Field(ge=1)]


@checked
def clips(
    out: PathArgument,
    audio: PathArguments,
    folder: PathArgument,
    *,
    species: Words = (),
    most: Count = 50,
    margin: Margin = 1.0,
) -> ClipsResult:
    """Write sound and picture of the detections with the highest scores of each species.

    Parameters
    ----------
    out : a folder that ``predict`` wrote, or its table of events
    audio : folders of the recordings
    folder : for the clips
    species : names; without any, all of them
    most : clips of a species
    margin : seconds before and after a detection

    Returns
    -------
    ClipsResult

    Raises
    ------
    UserError
        ``E_NO_EVENT_TABLE``, ``E_EVENT_TABLE``, ``E_SPECIES_NAME`` for a species without a
        detection, ``E_NO_FILE``, ``E_NO_AUDIO``, ``E_OUTPUT_EDITED``, ``E_OUTPUT_NOT_WRITABLE``.

    Examples
    --------
    >>> clips("out", "season", "clips", species="wren").clips[:1]  # doctest: +SKIP
    """
    events = read_events(Path(out))
    keys = events["species"].map(species_key)
    wanted = {species_key(name): name for name in as_words(species)}
    if unknown := [name for key, name in wanted.items() if key not in set(keys)]:
        what = f"{out}: there is no detection of {list_names(unknown)}"
        remedy = f"give some of {list_names(sorted(set(events['species'])))}"
        raise UserError("E_SPECIES_NAME", what, remedy)
    if wanted:
        events = events[keys.isin(list(wanted))]
    best = events.sort_values("score", ascending=False, kind="stable").groupby("species").head(most)
    best = best.sort_values(["species", "score"], ascending=[True, False], kind="stable")
    library = AudioLibrary([Path(root) for root in as_paths(audio)])
    painter = RegionPainter(read_recipe("quick"))
    rows = [{str(key): value for key, value in row.items()} for row in best.to_dict("records")]
    return write_clips(rows, library, painter, Path(folder), margin)
