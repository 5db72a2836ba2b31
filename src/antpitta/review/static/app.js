// The page: its session, its views, and the keys.

import { getJson, setKey } from "./api.js";
import { Conflicts } from "./conflicts.js";
import { byId, count, h } from "./dom.js";
import { chooseFilters } from "./filters.js";
import { Grid } from "./grid.js";
import { ItemList } from "./items.js";
import { One } from "./one.js";
import { Outbox } from "./outbox.js";
import { Progress } from "./progress.js";
import { stop } from "./sound.js";
import { SpeciesList } from "./species.js";

const KEY_NAMES = {
  " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  PageDown: "PgDn", PageUp: "PgUp", Escape: "Esc",
};
const DEFAULTS = { view: "full", margin: 2, band: false, slow: 1, autoplay: true };
const MARGINS = [0.5, 1, 2, 5, 10];
const MESSAGE_SECONDS = 6;
const VIEWS = [["grid", "Grid"], ["one", "One"], ["conflicts", "Conflicts"], ["progress", "Progress"]];

class App {
  constructor() {
    this.index = 0; // of the call in the list
    this.touched = false; // browsers play nothing before the first key or click
    this.species = new SpeciesList();
    this.views = {
      grid: new Grid(this), one: new One(this), conflicts: new Conflicts(this),
      progress: new Progress(this),
    };
    this.view = null;
    this.playedItem = null;
  }

  async start() {
    history.replaceState(null, "", `/${location.hash}`); // the token is in the cookie now
    this.session = await getJson("/api/session");
    setKey(this.session.key);
    this.outbox = new Outbox(this.session, () => this.showStatus());
    this.settings = { ...DEFAULTS, ...this.remembered("settings") };
    this.outbox.send();
    await Promise.all([this.species.load(), this.loadDraws()]);
    this.bind();
    await this.openDraw(this.draws.find(({ id }) => id === this.remembered("draw")?.id)
      ?? this.draws[0]);
  }

  remembered(name) {
    return JSON.parse(localStorage.getItem(this.outbox.prefix + name) ?? "null") ?? {};
  }

  remember(name, value) {
    localStorage.setItem(this.outbox.prefix + name, JSON.stringify(value));
  }

  async loadDraws() {
    this.draws = await getJson("/api/draws");
    byId("draw").replaceChildren(...this.draws.map((draw) => h("option", { value: draw.id },
      `${draw.id}: ${draw.purpose}, ${draw.species ?? "all species"}, ${count(draw.items, "call")}`)));
  }

  async openDraw(draw, filters = { state: "open" }, index = 0) {
    if (!draw) {
      byId("main").replaceChildren(h("p", { className: "empty" },
        "This queue has no draw yet: run antpitta candidates with --teach or --audit."));
      return;
    }
    byId("draw").value = draw.id;
    this.remember("draw", { id: draw.id });
    this.filters = filters;
    this.index = index;
    this.list = new ItemList(this, draw, filters);
    const chosen = Object.values(filters).filter(Boolean).length;
    byId("filters").textContent = chosen ? `Filters: ${chosen}` : "Filters";
    await this.open(location.hash.slice(1) in this.views ? location.hash.slice(1) : "grid");
  }

  async open(name) {
    this.view?.leave();
    this.view = this.views[name];
    history.replaceState(null, "", `#${name}`);
    byId("views").replaceChildren(...VIEWS.map(([id, text]) => h("button", {
      type: "button", "aria-pressed": String(id === name), onclick: () => this.open(id),
    }, text)));
    this.showKeys();
    this.showStatus();
    try {
      await this.view.show(byId("main"));
    } catch (error) {
      this.fail(error);
    }
  }

  commonActions() {
    const { settings } = this;
    const other = settings.view === "full" ? "as the model reads it" : "at full rate";
    const step = (by) => () => {
      const at = MARGINS.indexOf(settings.margin) + by;
      if (MARGINS[at] !== undefined) this.change({ margin: MARGINS[at] });
    };
    return [
      ["v", `picture ${other}`, () => this.change({ view: settings.view === "full" ? "model" : "full" })],
      ["s", settings.slow === 1 ? "10 times slower" : "normal speed",
        () => this.change({ slow: settings.slow === 1 ? 10 : 1 })],
      ["d", settings.band ? "whole band" : "band of the box", () => this.change({ band: !settings.band })],
      ["p", settings.autoplay ? "no sound by itself" : "play by itself",
        () => this.change({ autoplay: !settings.autoplay })],
      ["-", "closer", step(-1)],
      ["+", "more around", step(1)],
      ["f", "filters", () => this.chooseFilters()],
    ];
  }

  change(settings) {
    Object.assign(this.settings, settings);
    this.remember("settings", this.settings);
    this.showKeys();
    this.view.redraw();
  }

  soundOptions(item) {
    const { margin, slow, band } = this.settings;
    const high = item.high_freq ?? 1e6;
    const filter = band && (item.low_freq > 0 || item.high_freq !== null) ? [item.low_freq, high] : null;
    return { margin, slow, band: filter };
  }

  listened(item) {
    if (this.playedItem === item) return;
    this.playedItem = item;
    const event = { kind: "listened", region: item.region, species: item.species };
    this.outbox.add([event], { undoable: false, now: false });
  }

  async chooseFilters() {
    const filters = await chooseFilters(this.list.draw, this.filters);
    if (filters) await this.openDraw(this.list.draw, filters);
  }

  // After an undo of what is not in the list, such as a verdict from before a reload.
  async reload() {
    await this.outbox.send();
    await this.openDraw(this.list.draw, this.filters, this.filters.state === "open" ? 0 : this.index);
  }

  emptyNote() {
    const open = this.filters.state === "open";
    return h("p", { className: "empty" }, open
      ? "No call is left without your verdict. Change the filters, or choose another draw."
      : "No call fits the filters.");
  }

  bind() {
    byId("draw").addEventListener("change", (event) => {
      this.openDraw(this.draws.find(({ id }) => String(id) === event.target.value));
      event.target.blur();
    });
    byId("filters").addEventListener("click", () => this.chooseFilters());
    document.addEventListener("pointerdown", () => {
      this.touched = true;
    });
    document.addEventListener("keydown", (event) => this.press(event));
    let width = window.innerWidth;
    let timer = 0;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width) return;
      width = window.innerWidth;
      clearTimeout(timer);
      timer = setTimeout(() => this.view?.redraw(), 200);
    });
    window.addEventListener("online", () => this.outbox.send());
    window.addEventListener("beforeunload", () => stop());
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName } = event.target;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(tagName)) return;
    if (document.querySelector("dialog[open]")) return;
    if ([" ", "Enter"].includes(event.key) && ["BUTTON", "A"].includes(tagName)) return;
    const action = this.view?.actions().find(([key]) => key === event.key);
    if (!action) return;
    event.preventDefault();
    this.touched = true;
    this.run(action[2]);
  }

  async run(action) {
    try {
      await action();
    } catch (error) {
      this.fail(error);
    }
  }

  showKeys() {
    byId("keys").replaceChildren(...this.view.actions().filter(([, label]) => label)
      .map(([key, label, action]) => h("button", {
        type: "button",
        onclick: (event) => {
          event.currentTarget.blur();
          this.touched = true;
          this.run(action);
        },
      }, h("kbd", {}, KEY_NAMES[key] ?? key), ` ${label}`)));
  }

  showStatus() {
    const { waiting, refused, error } = this.outbox;
    const parts = this.message ? [this.message] : [];
    parts.push(waiting ? `${count(waiting, "event")} not stored yet` : "all stored");
    parts.push(`${this.session.reviewer} (${this.session.role})`);
    byId("status").textContent = parts.join(" · ");
    byId("status").dataset.waiting = waiting;
    if (refused.length) {
      this.alert(`${count(refused.length, "verdict")} refused by the server: ${refused[0].refusal}`,
        () => this.outbox.dismissRefused());
    } else if (error) {
      const remedy = error.status === 401
        ? "The server was started anew: open the address that it printed. Your verdicts are kept here."
        : "Your verdicts are kept in this browser and sent again.";
      this.alert(`${error.message} ${remedy}`);
    } else this.alert(null);
  }

  alert(text, dismiss = null) {
    const box = byId("alert");
    box.hidden = !text;
    if (!text || box.dataset.text === text) return;
    box.dataset.text = text;
    box.replaceChildren(text, dismiss && h("button", { type: "button", onclick: dismiss }, "Dismiss") || "");
  }

  say(text) {
    this.message = text;
    clearTimeout(this.messageTimer);
    this.messageTimer = setTimeout(() => {
      this.message = null;
      this.showStatus();
    }, MESSAGE_SECONDS * 1000);
    this.showStatus();
  }

  fail(error) {
    this.alert(error.message, () => this.alert(null));
  }
}

const app = new App();
app.start().catch((error) => {
  byId("main").replaceChildren(h("p", { className: "empty" }, error.message));
});
