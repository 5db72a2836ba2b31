// Calls on which reviewers differ. An expert resolves them; until then they are unknown.

import { getJson } from "./api.js";
import { count, formatTime, h } from "./dom.js";
import { Picture, pictureAddress } from "./picture.js";
import { isPlaying, play, soundAddress, stop } from "./sound.js";

export class Conflicts {
  constructor(app) {
    this.app = app;
    this.rows = [];
    this.index = 0;
  }

  get row() {
    return this.rows[this.index];
  }

  get isExpert() {
    return this.app.session.role === "expert";
  }

  actions() {
    const resolve = (verdict) => () => this.resolve(verdict);
    const judging = this.isExpert ? [
      ["y", "resolve: present", resolve("present")],
      ["n", "resolve: absent", resolve("absent")],
      ["u", "resolve: unsure", resolve("unsure")],
      ["z", "undo", () => this.undo()],
    ] : [];
    return [
      ...judging,
      [" ", "play", () => this.play()],
      ["ArrowDown", "next", () => this.step(1)],
      ["ArrowUp", "before", () => this.step(-1)],
      ["Escape", "grid", () => this.app.open("grid")],
      ...this.app.commonActions(),
    ];
  }

  async show(main) {
    this.main = main;
    await this.app.outbox.send();
    this.rows = await getJson("/api/conflicts");
    this.index = Math.min(this.index, Math.max(this.rows.length - 1, 0));
    this.draw();
  }

  draw() {
    if (!this.rows.length) {
      this.main.replaceChildren(h("h2", {}, "Conflicts"),
        h("p", { className: "empty" }, "Reviewers agree wherever two gave a verdict."));
      return;
    }
    const hint = this.isExpert ? "Give the verdict that counts."
      : "An expert resolves them: open the page with --expert NAME.";
    this.pictures = this.rows.map((row) => new Picture({
      alt: `Spectrogram: ${row.species}`, axes: this.app.session.axes,
    }));
    this.elements = this.rows.map((row, i) => this.element(row, this.pictures[i], i));
    this.main.replaceChildren(
      h("h2", {}, count(this.rows.length, "conflict")), h("p", { className: "hint" }, hint),
      h("div", { className: "conflicts" }, this.elements));
    const width = Math.max(120, Math.floor(this.pictures[0].element.clientWidth / 20) * 20);
    this.rows.forEach((row, i) => {
      const { view, margin } = this.app.settings;
      const box = [row.start_time, row.end_time, row.low_freq, row.high_freq];
      const size = { width, height: 180 };
      this.pictures[i].show(pictureAddress(row.region, { view, margin, ...size }), width, 180, box);
    });
    this.focus();
  }

  element(row, picture, i) {
    const verdicts = row.verdicts.map(({ reviewer, verdict, reason }) => h("li", {
      className: "badge", "data-verdict": verdict,
    }, `${reviewer}: ${verdict}${reason ? ` (${reason})` : ""}`));
    const buttons = this.isExpert ? ["present", "absent", "unsure"].map((verdict) => h("button", {
      type: "button",
      onclick: () => {
        this.index = i;
        this.resolve(verdict);
      },
    }, verdict[0].toUpperCase() + verdict.slice(1))) : [];
    const place = `${row.site ?? row.recording_id}, ${formatTime(row.start_time)} s`;
    return h("div", {
      className: "conflict", role: "group", tabIndex: i === this.index ? 0 : -1,
      ariaLabel: `${row.species}, ${place}`, onfocusin: () => {
        this.index = i;
      },
    }, picture.element, h("div", {}, h("h3", {}, row.species),
      h("p", { className: "details" }, place), h("ul", { className: "verdicts" }, verdicts),
      h("p", { className: "buttons" }, buttons)));
  }

  focus() {
    this.elements?.forEach((element, i) => {
      element.tabIndex = i === this.index ? 0 : -1;
    });
    this.elements?.[this.index]?.focus();
  }

  step(by) {
    const next = this.index + by;
    if (next < 0 || next >= this.rows.length) return;
    this.index = next;
    this.focus();
  }

  async resolve(verdict) {
    const { row } = this;
    if (!row) return;
    this.app.outbox.add([{
      kind: "resolve", region: row.region, species: row.species, verdict,
      species_list_digest: this.app.species.digest,
    }]);
    this.app.say(`${row.species}: resolved as ${verdict}.`);
    await this.show(this.main);
  }

  async undo() {
    if (!await this.app.outbox.undo()) this.app.say("There is nothing to undo.");
    await this.show(this.main);
  }

  play() {
    if (isPlaying()) {
      stop();
      return;
    }
    const { row } = this;
    if (!row) return;
    const address = soundAddress(row.region, this.app.soundOptions(row));
    play(address, (time) => this.pictures[this.index].showTime(time))
      .catch((error) => this.app.fail(error));
  }

  redraw() {
    this.draw();
  }

  leave() {
    stop();
  }
}
