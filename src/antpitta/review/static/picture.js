// The picture of a region with its box. The server draws the picture and its axes; the box lies
// over it and its edges can be moved by mouse, touch and keys.

import { request } from "./api.js";
import { h, svg, formatTime } from "./dom.js";

const MOST = 400; // pictures that are kept
const cache = new Map(); // address -> promise of {url, axes}
const LINEAR_HZ = 200 / 3; // Slaney's mel scale, as in sound/mel.py
const LOG_STEP = Math.log(6.4) / 27;
const BREAK = 1000;

function toMel(hz) {
  return hz < BREAK ? hz / LINEAR_HZ : BREAK / LINEAR_HZ + Math.log(hz / BREAK) / LOG_STEP;
}

function toHz(mel) {
  const atBreak = BREAK / LINEAR_HZ;
  return mel < atBreak ? mel * LINEAR_HZ : BREAK * Math.exp((mel - atBreak) * LOG_STEP);
}

export function pictureAddress(region, { view, margin, width, height }) {
  const scale = window.devicePixelRatio > 1.4 ? 2 : 1;
  return `/api/regions/${region}/picture.png?view=${view}&margin=${margin}&width=${width}`
    + `&height=${height}&scale=${scale}`;
}

export function loadPicture(address) {
  const known = cache.get(address);
  if (known) {
    cache.delete(address); // to the end: it is in use
    cache.set(address, known);
    return known;
  }
  const picture = request(address).then(async (response) => ({
    axes: JSON.parse(response.headers.get("X-Axes")),
    url: URL.createObjectURL(await response.blob()),
  }));
  cache.set(address, picture);
  picture.catch(() => cache.delete(address));
  if (cache.size > MOST) {
    const [oldest, old] = cache.entries().next().value;
    cache.delete(oldest);
    old.then(({ url }) => URL.revokeObjectURL(url), () => {});
  }
  return picture;
}

// Where seconds and Hz are in a picture, and back.
export class Scales {
  constructor([start, stop, low, high, mel], [left, right, top, bottom], width, height) {
    Object.assign(this, { start, stop, low, high, left, top });
    this.forward = mel ? toMel : (hz) => hz;
    this.backward = mel ? toHz : (value) => value;
    this.width = width - left - right;
    this.height = height - top - bottom;
  }

  x(seconds) {
    const share = (seconds - this.start) / (this.stop - this.start);
    return this.left + Math.min(Math.max(share, 0), 1) * this.width;
  }

  y(hz) {
    const [low, high] = [this.forward(this.low), this.forward(this.high)];
    const share = hz === null ? 1 : (this.forward(hz) - low) / (high - low);
    return this.top + (1 - Math.min(Math.max(share, 0), 1)) * this.height;
  }

  seconds(x) {
    return this.start + ((x - this.left) / this.width) * (this.stop - this.start);
  }

  hz(y) {
    const [low, high] = [this.forward(this.low), this.forward(this.high)];
    return this.backward(low + (1 - (y - this.top) / this.height) * (high - low));
  }
}

const EDGES = [
  { name: "start", index: 0, vertical: true },
  { name: "end", index: 1, vertical: true },
  { name: "lowest frequency", index: 2, vertical: false },
  { name: "highest frequency", index: 3, vertical: false },
];

// options: alt, axes (margins of the session), moved (box => void, or none for a fixed box)
export class Picture {
  constructor(options) {
    this.options = options;
    this.image = h("img", { alt: options.alt, decoding: "async" });
    this.overlay = svg("svg", { class: "box", "aria-hidden": options.moved ? null : "true" });
    this.line = svg("line", { class: "playhead", visibility: "hidden" });
    this.note = h("p", { className: "picture-note", hidden: true });
    this.element = h("div", { className: "picture" }, this.image, this.overlay, this.note);
  }

  async show(address, width, height, box) {
    this.box = box;
    this.address = address;
    this.image.width = width;
    this.image.height = height;
    this.image.style.aspectRatio = `${width} / ${height}`; // its place before it is loaded
    try {
      const { url, axes } = await loadPicture(address);
      if (this.address !== address) return;
      this.image.src = url;
      this.note.hidden = true;
      this.scales = new Scales(axes, this.options.axes, width, height);
      this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.draw();
    } catch (error) {
      if (this.address !== address) return;
      this.note.textContent = error.message;
      this.note.hidden = false;
      this.overlay.replaceChildren();
    }
  }

  setBox(box) {
    this.box = box;
    if (this.scales) this.draw();
  }

  place() {
    const [start, end, low, high] = this.box;
    const { scales } = this;
    const [left, right] = [scales.x(start), scales.x(end)];
    const [top, bottom] = [scales.y(high), scales.y(low)];
    return { left, top, right, bottom };
  }

  draw() {
    const { left, top, right, bottom } = this.place();
    const rect = { x: left, y: top, width: Math.max(right - left, 1),
      height: Math.max(bottom - top, 1) };
    const focused = this.handles?.findIndex((handle) => handle === document.activeElement) ?? -1;
    if (!this.rect || !this.overlay.contains(this.rect)) {
      this.rect = svg("rect");
      this.handles = this.options.moved ? EDGES.map((edge) => this.handle(edge)) : [];
      this.overlay.replaceChildren(this.rect, ...this.handles, this.line);
    }
    for (const [name, value] of Object.entries(rect)) this.rect.setAttribute(name, value);
    const ends = [[left, top, left, bottom], [right, top, right, bottom],
      [left, bottom, right, bottom], [left, top, right, top]];
    this.handles.forEach((handle, i) => {
      ["x1", "y1", "x2", "y2"].forEach((name, j) => handle.setAttribute(name, ends[i][j]));
      const value = this.box[i];
      handle.setAttribute("aria-valuenow", value === null ? this.scales.high : value);
      handle.setAttribute("aria-valuetext", this.describe(i));
    });
    if (focused >= 0) this.handles[focused].focus();
  }

  describe(index) {
    const value = this.box[index];
    if (index < 2) return `${formatTime(value)} s`;
    return value === null ? "no upper edge" : `${Math.round(value)} Hz`;
  }

  handle(edge) {
    const { scales } = this;
    const limits = edge.vertical ? [scales.start, scales.stop] : [scales.low, scales.high];
    return svg("line", {
      class: `edge ${edge.vertical ? "vertical" : "horizontal"}`,
      tabindex: 0,
      role: "slider",
      "aria-label": `Edge of the box: ${edge.name}`,
      "aria-orientation": edge.vertical ? "horizontal" : "vertical",
      "aria-valuemin": limits[0],
      "aria-valuemax": limits[1],
      onpointerdown: (event) => this.drag(event, edge),
      onkeydown: (event) => this.nudge(event, edge),
    });
  }

  drag(event, edge) {
    event.preventDefault();
    const handle = event.currentTarget;
    handle.setPointerCapture(event.pointerId);
    const frame = this.overlay.getBoundingClientRect();
    const ratio = this.image.width / frame.width;
    const move = (now) => {
      const value = edge.vertical
        ? this.scales.seconds((now.clientX - frame.left) * ratio)
        : this.scales.hz((now.clientY - frame.top) * ratio);
      this.move(edge, value);
    };
    const end = () => {
      handle.removeEventListener("pointermove", move);
      this.options.moved(this.box);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end, { once: true });
  }

  nudge(event, edge) {
    const forward = edge.vertical ? "ArrowRight" : "ArrowUp";
    const back = edge.vertical ? "ArrowLeft" : "ArrowDown";
    if (event.key !== forward && event.key !== back) return;
    event.preventDefault();
    event.stopPropagation();
    const pixels = (event.key === forward ? 1 : -1) * (event.shiftKey ? 10 : 2);
    const { scales } = this;
    const value = this.box[edge.index];
    const moved = edge.vertical
      ? scales.seconds(scales.x(value) + pixels)
      : scales.hz(scales.y(value) - pixels);
    this.move(edge, moved);
    this.options.moved(this.box);
  }

  // Keep the box inside the picture, and its edges in order and a little apart.
  move({ index, vertical }, wanted) {
    const { scales } = this;
    const [least, most] = vertical ? [scales.start, scales.stop] : [scales.low, scales.high];
    const gap = (most - least) / 200;
    const other = this.box[index ^ 1];
    let value = Math.min(Math.max(wanted, least), most);
    value = index % 2 ? Math.max(value, other + gap) : Math.min(value, (other ?? most) - gap);
    const digits = vertical ? 1000 : 1;
    this.box = this.box.with(index, Math.max(0, Math.round(value * digits) / digits));
    this.draw();
  }

  showTime(seconds) {
    if (!this.scales) return;
    const visible = seconds !== null;
    this.line.setAttribute("visibility", visible ? "visible" : "hidden");
    if (!visible) return;
    const x = this.scales.x(seconds);
    const { top, height } = this.scales;
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", top + height]]) {
      this.line.setAttribute(name, value);
    }
  }
}
