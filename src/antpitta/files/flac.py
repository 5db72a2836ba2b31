"""Undamaged FLAC files, decoded whole by dr_flac: half of libFLAC's time, the same samples.

dr_flac passes over frames that do not decode, without a word, so its answer is taken only where it
has as many samples as the header promises. libsndfile tells what is wrong with all other files.

It is called as ``miniaudio`` calls it, but for two things: the file is read at once, and the
samples are decoded to where they stay. miniaudio copies them, and asks for twice the memory.
"""

import numpy as np
from miniaudio import ffi, lib
from numpy.typing import NDArray

from antpitta.core.types import Recording

LARGEST = 1 << 24  # samples of all channels: 64 MB, and no more of the file


def read_whole(recording: Recording) -> NDArray[np.float32] | None:
    """All of a recording, (samples, channels); None where it is no FLAC, or large, or damaged."""
    large = recording.samples * recording.channels > LARGEST
    if large or recording.path.suffix.lower() != ".flac":
        return None
    try:
        small = recording.path.stat().st_size <= 4 * LARGEST
        encoded = recording.path.read_bytes() if small else b""
    except OSError:
        return None
    flac = lib.ma_dr_flac_open_memory(ffi.from_buffer(encoded), len(encoded), ffi.NULL)
    if not flac:
        return None
    try:
        told = (flac.sampleRate, flac.totalPCMFrameCount, flac.channels)
        if told != (recording.sample_rate, recording.samples, recording.channels):
            return None
        found = np.empty((recording.samples, recording.channels), dtype=np.float32)
        place = ffi.cast("float *", found.ctypes.data)
        held = lib.ma_dr_flac_read_pcm_frames_f32(flac, recording.samples, place)
    finally:
        lib.ma_dr_flac_close(flac)
    return found if held == recording.samples else None
