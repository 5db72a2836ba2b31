"""The audio folders of a review: the recording behind a name of the queue.

The queue names recordings; nothing that the page sends is ever a path. A name is looked up among
the files that were listed in the audio folders at the start, so that one like ``../../etc/passwd``
finds nothing. A link that leads out of these folders is refused.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from antpitta.core.errors import UserError
from antpitta.core.types import Recording
from antpitta.files.audio import content_key, file_errors
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.recordings import ListedFile, list_files, open_file

_OPENED = 2048  # recordings that stay probed


class AudioLibrary:
    """Finds and probes the recordings of a queue; threads may share one object.

    Parameters
    ----------
    roots : folders or files
    digest_of : the digest by which the queue knows a file of sound

    Raises
    ------
    UserError
        E_NO_FILE, E_NO_AUDIO.
    """

    def __init__(
        self, roots: Sequence[Path], digest_of: Callable[[Path], str] = content_key
    ) -> None:
        self._roots = [root.resolve() for root in roots]
        self._digest_of = digest_of
        files, _ = list_files(roots)
        self._files = {file.id: file for file in files}
        # Not probed yet: what a name means does not depend on the sound.
        self._matcher = RecordingMatcher(
            [Recording(file.id, Path(str(file.path)), 1, 1) for file in files]
        )
        self._open = lru_cache(_OPENED)(self._probe)

    def __len__(self) -> int:
        return len(self._files)

    def find(self, name: str, digest: str | None = None) -> Recording:
        """The probed recording that a name of the queue means.

        Parameters
        ----------
        name : of the recording, as the queue has it
        digest : of its file; None where the queue does not know it

        Returns
        -------
        recording : of the same bytes as when the queue was made

        Raises
        ------
        UserError
            E_AUDIO_MISSING: no file of the audio folders has this name. E_AUDIO_CHANGED: it holds
            another sound. E_AUDIO_OUTSIDE: it is a link out of the folders.
        UnreadableAudio
            The file is no sound that can be read.
        """
        match = self._matcher.find(name)
        if not isinstance(match, Recording):
            reason = match.reason if isinstance(match, AmbiguousMatch) else "is in no audio folder"
            raise UserError("E_AUDIO_MISSING", f"{name}: {reason}", "name its folder with --audio")
        recording, held = self._open(self._files[match.id])
        if digest is not None and digest != held:
            raise UserError(
                "E_AUDIO_CHANGED",
                f"{recording.path}: is not the sound that the candidates were found in",
                "give the audio folder of the prediction",
            )
        return recording

    def _probe(self, file: ListedFile) -> tuple[Recording, str]:
        path = Path(str(file.path))
        with file_errors(path):
            inside = path.resolve(strict=True)
            if not any(inside.is_relative_to(root) for root in self._roots):
                raise UserError(
                    "E_AUDIO_OUTSIDE",
                    f"{path}: is a link out of the audio folders",
                    f"give --audio {inside.parent}",
                )
            digest = self._digest_of(path)
        return open_file(file), digest
