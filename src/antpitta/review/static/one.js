// One call at a time: a large picture, its sound, and calls that reviewers agree on beside it.

import { getJson } from "./api.js";
import { formatTime, h } from "./dom.js";
import { boxOf, verdictActions, verdictText } from "./items.js";
import { loadPicture, Picture, pictureAddress } from "./picture.js";
import { isPlaying, loadSound, play, soundAddress, stop } from "./sound.js";
import { pickSpecies } from "./species.js";

const AHEAD = 4; // items that are loaded before they are shown
const references = new Map(); // species -> promise of regions

export class One {
  constructor(app) {
    this.app = app;
  }

  get list() {
    return this.app.list;
  }

  get item() {
    return this.list.items[this.app.index];
  }

  actions() {
    const on = (verdict, reason) => () => this.judge(verdict, { reason });
    return [
      ...verdictActions(on),
      ["o", "it is another species", () => this.otherSpecies()],
      ["a", "another one calls too", () => this.anotherSpecies()],
      ["e", "nothing else calls here", () => this.nothingElse()],
      ["z", "undo", () => this.undo()],
      [" ", "play", () => this.play()],
      ["b", "move the edges", () => this.picture.handles?.[0]?.focus()],
      ["r", "play a reference", () => this.playReference()],
      ["ArrowRight", "next", () => this.step(1)],
      ["ArrowLeft", "before", () => this.step(-1)],
      ["Escape", "grid", () => this.app.open("grid")],
      ...this.app.commonActions(),
    ];
  }

  async show(main) {
    this.main = main;
    await this.list.load(this.app.index + 1);
    if (!this.list.items.length) {
      main.replaceChildren(this.app.emptyNote());
      return;
    }
    if (this.app.index >= this.list.items.length) this.app.index = this.list.items.length - 1;
    this.build();
    this.draw();
    this.list.loadTotal().then(() => {
      if (this.item) this.details.textContent = this.describe(this.item);
    }, () => {});
  }

  build() {
    this.picture = new Picture({
      alt: "Spectrogram of the call", axes: this.app.session.axes,
      moved: (box) => this.moved(box),
    });
    this.title = h("h2", { className: "species" });
    this.details = h("p", { className: "details" });
    this.badge = h("p", { className: "badge", role: "status" });
    this.beside = h("div", { className: "references" });
    this.main.replaceChildren(h("div", { className: "one" },
      h("section", { ariaLabel: "Call" }, this.title, this.details, this.picture.element,
        this.badge),
      h("section", { ariaLabel: "Reference calls" }, h("h3", {}, "Calls that are agreed on"),
        this.beside)));
  }

  pictureSize() {
    const width = this.picture.element.clientWidth || 800;
    const height = Math.min(Math.max(window.innerHeight - 340, 180), width * 0.8, 460);
    return { width: Math.min(Math.max(120, Math.floor(width / 20) * 20), 1600),
      height: Math.round(height) };
  }

  address(item, size = this.pictureSize()) {
    const { view, margin } = this.app.settings;
    return pictureAddress(item.region, { view, margin, ...size });
  }

  draw() {
    const { item } = this;
    stop();
    this.since = performance.now();
    const size = this.pictureSize();
    this.picture.show(this.address(item, size), size.width, size.height, boxOf(item));
    this.title.textContent = item.species;
    this.details.textContent = this.describe(item);
    this.mark();
    this.showReferences(item.species);
    if (this.app.settings.autoplay && this.app.touched) this.play();
    this.prefetch(size);
  }

  describe(item) {
    const score = item.score === undefined || item.score === null
      ? [] : [`score ${item.score.toFixed(3)}`];
    const source = item.source ? [item.source] : [];
    const when = item.recorded_at ? [item.recorded_at.replace("T", " ")] : [];
    const times = `${formatTime(item.start_time)} to ${formatTime(item.end_time)} s`;
    const place = `call ${this.app.index + 1}${this.list.ofTotal}`;
    return [place, item.site, item.recording_id, times, ...when, ...score, ...source]
      .filter(Boolean).join(" · ");
  }

  mark() {
    this.badge.textContent = verdictText(this.item) || "no verdict";
    this.badge.dataset.verdict = this.item.own_verdict?.verdict ?? "none";
  }

  // The pictures and sounds of the next items, so that the next one is there at once.
  async prefetch(size) {
    const { index } = this.app;
    await this.list.load(index + 1 + AHEAD).catch(() => {});
    for (const item of this.list.items.slice(index + 1, index + 1 + AHEAD)) {
      if (this.app.view !== this || this.app.index !== index) return;
      await loadPicture(this.address(item, size)).catch(() => {});
      if (this.app.touched) {
        await loadSound(soundAddress(item.region, this.app.soundOptions(item))).catch(() => {});
      }
    }
  }

  async showReferences(species) {
    if (!references.has(species)) references.set(species, getJson("/api/references", { species }));
    const known = references.get(species);
    let regions = [];
    try {
      regions = await known;
    } catch {
      references.delete(species);
    }
    if (this.item?.species !== species || this.shownReferences === known) return;
    this.shownReferences = known;
    this.playable = [];
    if (!regions.length) {
      this.beside.replaceChildren(h("p", { className: "empty" }, "None yet: verdicts make them."));
      return;
    }
    this.beside.replaceChildren(...regions.map((region, i) => {
      const picture = new Picture({ alt: `Reference call ${i + 1}`, axes: this.app.session.axes });
      const size = { width: 240, height: 130 };
      const { view } = this.app.settings;
      const box = [region.start_time, region.end_time, region.low_freq, region.high_freq];
      picture.show(pictureAddress(region.region, { view, margin: 1, ...size }), 240, 130, box);
      this.playable.push({ region, picture });
      return h("figure", {}, picture.element, h("figcaption", {},
        h("button", { type: "button", onclick: () => this.playReference(i) }, "Play"),
        ` ${region.site ?? region.recording_id}`));
    }));
  }

  playReference(i = this.nextReference ?? 0) {
    if (!this.playable?.length) {
      this.app.say("There is no reference call yet.");
      return;
    }
    const { region, picture } = this.playable[i % this.playable.length];
    this.nextReference = (i + 1) % this.playable.length;
    const address = soundAddress(region.region, { ...this.app.settings, margin: 1, band: null });
    play(address, (time) => picture.showTime(time)).catch((error) => this.app.fail(error));
  }

  play() {
    if (isPlaying()) {
      stop();
      return;
    }
    const { item, picture } = this;
    const address = soundAddress(item.region, this.app.soundOptions(item));
    play(address, (time) => picture.showTime(time)).then(
      () => this.app.listened(item), (error) => this.app.fail(error),
    );
  }

  moved(box) {
    this.item.moved = box;
    if (this.item.own_verdict) { // its edges are another verdict
      const { verdict, reason } = this.item.own_verdict;
      this.list.judge([this.item], verdict, { reason, since: this.since });
    }
    this.app.say("The edges are moved. They are stored with your verdict.");
  }

  judge(verdict, { reason = null, more = [] } = {}) {
    if (!this.item) return;
    references.delete(verdict === "present" ? this.item.species : null);
    this.list.judge([this.item], verdict, { reason, more, since: this.since });
    this.mark();
    this.step(1);
  }

  async otherSpecies() {
    const { item } = this;
    const title = `It is not ${item.species}, it is`;
    const species = await pickSpecies(this.app.species, title, item.species);
    if (!species) return;
    this.judge("absent", { reason: "other species", more: [[item, species, "present"]] });
  }

  async anotherSpecies() {
    const { item } = this;
    const title = "This one calls here, too";
    const species = await pickSpecies(this.app.species, title, item.species);
    if (!species) return;
    this.app.outbox.add([this.list.event(item, species, "present", {})]);
    this.app.say(`${species}: present.`);
  }

  // All species of the list at this moment but those that have a verdict of their own here.
  nothingElse() {
    this.app.outbox.add([this.list.event(this.item, "*", "absent", {})]);
    this.app.say(`Nothing else calls here: ${this.app.species.names.length} species of the list.`);
  }

  step(by) {
    const next = this.app.index + by;
    if (next < 0) return null;
    if (next >= this.list.items.length) {
      if (this.list.complete) {
        this.app.say("This was the last call.");
        return null;
      }
      return this.list.load(next + 1).then(() => next < this.list.items.length && this.step(by));
    }
    this.app.index = next;
    this.draw();
    return null;
  }

  async undo() {
    const index = await this.list.undo();
    if (index === null) {
      this.app.say("There is nothing to undo.");
      return;
    }
    if (index >= 0) {
      this.app.index = index;
      this.draw();
    } else await this.app.reload();
    this.app.say("The last action is undone.");
  }

  redraw() {
    this.shownReferences = null;
    this.draw();
  }

  leave() {
    stop();
  }
}
