// Playing the sound of a region, with its place in the picture. Faint sounds are made louder.

import { request } from "./api.js";

const MOST = 60; // decoded sounds that are kept
const LOUDEST = 0.5; // of full scale, to which the peak is raised
const MOST_GAIN = 30; // as a factor
const cache = new Map(); // address -> promise of {buffer, times}
let context = null;
let playing = null;

export function soundAddress(region, { margin, band, slow }) {
  const filter = band ? `&band=${band.map((hz) => Math.round(hz)).join("-")}` : "";
  return `/api/regions/${region}/sound.wav?margin=${margin}&slow=${slow}${filter}`;
}

export function loadSound(address) {
  const known = cache.get(address);
  if (known) return known;
  context ??= new AudioContext();
  const sound = request(address).then(async (response) => ({
    times: JSON.parse(response.headers.get("X-Times")),
    buffer: await context.decodeAudioData(await response.arrayBuffer()),
  }));
  cache.set(address, sound);
  sound.catch(() => cache.delete(address));
  if (cache.size > MOST) cache.delete(cache.keys().next().value);
  return sound;
}

function peak(buffer) {
  let greatest = 1e-6;
  for (const value of buffer.getChannelData(0)) greatest = Math.max(greatest, Math.abs(value));
  return greatest;
}

export function stop() {
  const before = playing;
  playing = null;
  if (!before) return;
  cancelAnimationFrame(before.frame);
  before.source?.stop();
  before.moved(null);
}

export function isPlaying() {
  return playing !== null;
}

// Play the sound at an address; `moved` gets the time in the recording, and null at the end.
export async function play(address, moved) {
  stop();
  const own = { moved, frame: 0, source: null };
  playing = own;
  try {
    const { buffer, times } = await loadSound(address);
    if (playing !== own) return;
    await context.resume();
    if (playing !== own) return;
    const source = context.createBufferSource();
    const gain = context.createGain();
    gain.gain.value = Math.min(LOUDEST / peak(buffer), MOST_GAIN);
    source.buffer = buffer;
    source.connect(gain).connect(context.destination);
    own.source = source;
    const began = context.currentTime;
    source.onended = () => playing === own && stop();
    source.start();
    const step = () => {
      const share = (context.currentTime - began) / buffer.duration;
      moved(times[0] + Math.min(share, 1) * (times[1] - times[0]));
      own.frame = requestAnimationFrame(step);
    };
    step();
  } catch (error) {
    if (playing === own) stop();
    throw error;
  }
}
