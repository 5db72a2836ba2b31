// The grid: a page of calls at a time, each with its picture; one key judges one call or the page.

import { byId, count, formatTime, h } from "./dom.js";
import { boxOf, verdictActions, verdictText } from "./items.js";
import { loadPicture, Picture, pictureAddress } from "./picture.js";
import { play, soundAddress, stop, isPlaying } from "./sound.js";

const AT_ONCE = 6; // pictures that are loaded at the same time

export class Grid {
  constructor(app) {
    this.app = app;
    this.cells = [];
    this.focused = 0;
  }

  get list() {
    return this.app.list;
  }

  get size() {
    return this.app.session.page_size;
  }

  get page() {
    return Math.floor(this.app.index / this.size);
  }

  get shown() {
    return this.list.items.slice(this.page * this.size, (this.page + 1) * this.size);
  }

  get item() {
    return this.list.items[this.app.index];
  }

  actions() {
    const on = (verdict, reason) => () => this.judge([this.item], verdict, reason);
    const all = (verdict) => () => this.judge(this.shown.filter((i) => !i.own_verdict), verdict);
    return [
      ...verdictActions(on),
      ["Y", "rest of the page present", all("present")],
      ["N", "rest of the page absent", all("absent")],
      ["U", "rest of the page unsure", all("unsure")],
      ["z", "undo", () => this.undo()],
      [" ", "play", () => this.play()],
      ["Enter", "open", () => this.app.open("one")],
      ["PageDown", "next page", () => this.turn(1)],
      ["PageUp", "page before", () => this.turn(-1)],
      ["ArrowLeft", null, () => this.step(-1)],
      ["ArrowRight", null, () => this.step(1)],
      ["ArrowUp", null, () => this.step(-this.columns())],
      ["ArrowDown", null, () => this.step(this.columns())],
      ...this.app.commonActions(),
    ];
  }

  async show(main) {
    this.main = main;
    await this.list.load((this.page + 1) * this.size);
    if (this.app.index >= this.list.items.length) {
      this.app.index = Math.max(0, this.list.items.length - 1);
    }
    this.draw();
    this.list.load((this.page + 2) * this.size).then(() => this.prefetch(), () => {});
  }

  draw() {
    this.number = (this.number ?? 0) + 1;
    if (!this.shown.length) {
      this.cells = [];
      this.main.replaceChildren(this.app.emptyNote());
      return;
    }
    this.cells = this.shown.map((item, i) => this.cell(item, i));
    const first = this.page * this.size;
    const last = first + this.shown.length;
    const title = h("h2", { className: "page-title" });
    const range = `Calls ${first + 1} to ${last}`;
    const showTotal = () => {
      title.textContent = range + this.list.ofTotal;
    };
    showTotal();
    this.list.loadTotal().then(showTotal, () => {});
    this.main.replaceChildren(title,
      h("div", { className: "grid" }, this.cells.map(({ element }) => element)));
    this.loadPictures(this.number);
    this.focus();
  }

  cell(item, i) {
    const label = `${item.species}, ${item.site ?? item.recording_id}`;
    const picture = new Picture({ alt: `Spectrogram: ${label}`, axes: this.app.session.axes });
    const badge = h("p", { className: "badge" });
    const button = (verdict, text) => h("button", {
      type: "button", tabIndex: -1, ariaLabel: `${text}: ${item.species}`,
      onclick: () => this.judge([item], verdict),
    }, text);
    const title = h("p", { className: "name" }, item.species);
    const score = item.score === undefined || item.score === null
      ? "" : `, score ${item.score.toFixed(2)}`;
    const details = `${item.site ?? item.recording_id}, ${formatTime(item.start_time)} s${score}`;
    const element = h("div", {
      className: "cell", role: "group", onfocusin: () => this.select(i),
      ondblclick: () => this.app.open("one"),
    }, picture.element, title, h("p", { className: "details" }, details), badge,
    h("p", { className: "buttons" }, button("present", "Present"), button("absent", "Absent"),
      button("unsure", "Unsure"),
      h("button", {
        type: "button", tabIndex: -1, ariaLabel: `Play: ${item.species}`,
        onclick: () => this.select(i) ?? this.play(),
      }, "Play")));
    const cell = { element, picture, badge, item };
    this.mark(cell);
    return cell;
  }

  mark({ element, badge, item }) {
    const text = verdictText(item);
    badge.textContent = text || "no verdict";
    element.dataset.verdict = item.own_verdict?.verdict ?? "none";
    const place = `${item.site ?? item.recording_id}, ${formatTime(item.start_time)} s`;
    element.setAttribute("aria-label", `${item.species}, ${place}, ${text || "no verdict"}`);
  }

  pictureSize() {
    const width = this.cells[0]?.picture.element.clientWidth || 280;
    return { width: Math.max(120, Math.floor(width / 20) * 20), height: 150 };
  }

  address(item) {
    const { view, margin } = this.app.settings;
    return pictureAddress(item.region, { view, margin, ...this.pictureSize() });
  }

  async loadPictures(number) {
    const { width, height } = this.pictureSize();
    const waiting = [...this.cells];
    const load = async () => {
      for (let cell = waiting.shift(); cell && number === this.number; cell = waiting.shift()) {
        await cell.picture.show(this.address(cell.item), width, height, boxOf(cell.item));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, load));
    if (number === this.number) this.prefetch();
  }

  // Load the pictures of the next page while a person looks at this one.
  async prefetch() {
    const { number } = this;
    const start = (this.page + 1) * this.size;
    for (const item of this.list.items.slice(start, start + this.size)) {
      if (number !== this.number || this.app.view !== this) return;
      await loadPicture(this.address(item)).catch(() => {});
    }
  }

  columns() {
    const tops = this.cells.map(({ element }) => element.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  select(i) {
    this.app.index = this.page * this.size + i;
    this.cells.forEach(({ element }, j) => {
      element.tabIndex = i === j ? 0 : -1;
    });
  }

  focus() {
    const i = this.app.index % this.size;
    this.select(i);
    if (!document.querySelector("dialog[open]")) this.cells[i]?.element.focus();
  }

  step(by) {
    const next = this.app.index + by;
    if (next < 0 || next >= this.list.items.length) return;
    const page = this.page;
    this.app.index = next;
    if (this.page === page) this.focus();
    else this.show(this.main);
  }

  turn(by) {
    const next = (this.page + by) * this.size;
    if (next < 0 || (next >= this.list.items.length && this.list.complete)) return null;
    stop();
    this.app.index = next;
    return this.show(this.main);
  }

  judge(items, verdict, reason) {
    if (!items.length || !items[0]) return;
    const single = items.length === 1 && items[0] === this.item;
    this.list.judge(items, verdict, { reason });
    this.cells.forEach((cell) => this.mark(cell));
    this.app.say(`${count(items.length, "call")}: ${verdict}.`);
    if (single && this.app.index + 1 < (this.page + 1) * this.size) this.step(1);
  }

  async undo() {
    const index = await this.list.undo();
    if (index === null) {
      this.app.say("There is nothing to undo.");
      return;
    }
    if (index >= 0) {
      const page = this.page;
      this.app.index = index;
      if (this.page !== page) await this.show(this.main);
    } else {
      await this.app.reload();
    }
    this.cells.forEach((cell) => this.mark(cell));
    this.focus();
    this.app.say("The last action is undone.");
  }

  play() {
    if (isPlaying()) {
      stop();
      return;
    }
    const cell = this.cells[this.app.index % this.size];
    if (!cell) return;
    const address = soundAddress(cell.item.region, this.app.soundOptions(cell.item));
    play(address, (time) => cell.picture.showTime(time)).then(
      () => this.app.listened(cell.item), (error) => this.app.fail(error),
    );
  }

  redraw() {
    this.draw();
  }

  leave() {
    stop();
    this.number += 1;
    byId("main").scrollTop = 0;
  }
}
