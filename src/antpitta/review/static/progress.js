// What is left per species, what its threshold is known to be, how far reviewers agree, and the
// next round.

import { getJson, postJson } from "./api.js";
import { count, h } from "./dom.js";

const COLUMNS = ["candidates", "open", "present", "absent", "unsure", "conflict"];
const EVERY = "*"; // as species: all of them together

export class Progress {
  constructor(app) {
    this.app = app;
  }

  actions() {
    return [["Escape", "grid", () => this.app.open("grid")]];
  }

  async show(main) {
    this.main = main;
    await this.app.outbox.send();
    const [rows, agreement] = await Promise.all(
      [getJson("/api/progress"), getJson("/api/agreement")],
    );
    if (this.app.view !== this) return;
    main.replaceChildren(h("div", { className: "progress" },
      h("h2", {}, "What is left"), this.species(rows),
      h("h2", {}, "Agreement of the reviewers"), ...this.agreement(agreement),
      h("h2", {}, "Next round"), ...this.round(),
      h("h2", {}, "Take the verdicts along"),
      h("p", {}, h("a", { href: "/api/export.csv", download: "verdicts.csv" },
        "Verdicts as CSV"), ", a table that antpitta train reads.")));
    await this.showRound();
  }

  species(rows) {
    if (!rows.length) return h("p", { className: "empty" }, "The queue has no candidates.");
    this.cells = new Map(rows.map(({ species }) => [species, h("td", { className: "text" })]));
    const wanted = h("input", {
      type: "number", id: "precision", min: 0.5, max: 0.99, step: 0.01, value: 0.9,
    });
    const form = h("form", {
      className: "buttons",
      onsubmit: (event) => {
        event.preventDefault();
        this.thresholds(rows, wanted.value);
      },
    }, h("label", { htmlFor: "precision" }, "Wanted precision"), wanted,
    h("button", { type: "submit" }, "Show the thresholds"));
    return h("div", {}, h("div", {
      className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Candidates of each species",
    }, h("table", {},
      h("caption", {}, "Candidates of each species, by the verdict that counts."),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "species"),
        COLUMNS.map((name) => h("th", { scope: "col" }, name)),
        h("th", { scope: "col", className: "text" }, "threshold"))),
      h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.species),
        COLUMNS.map((name) => h("td", {}, String(row[name]))), this.cells.get(row.species)))))),
    form);
  }

  async thresholds(rows, precision) {
    for (const { species } of rows) {
      const cell = this.cells.get(species);
      try {
        const path = `/api/species/${encodeURIComponent(species)}/threshold`;
        cell.textContent = (await getJson(path, { precision })).sentence;
      } catch (error) {
        cell.textContent = error.code === "E_NO_AUDIT" ? "no audit with a verdict" : error.message;
      }
    }
  }

  agreement(rows) {
    if (!rows.length) {
      return [h("p", { className: "empty" }, "No call has verdicts of two reviewers yet. A second "
        + "reviewer opens the page under another name, and sees nobody else’s verdicts.")];
    }
    const share = (value) => (value === null ? "–" : value.toFixed(2));
    const names = ["agreement", "agreement_present", "agreement_absent"];
    const columns = ["calls of both", "one unsure", "raw agreement", "on present", "on absent",
      "Cohen’s kappa"];
    return [h("div", {
      className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Agreement of reviewers",
    }, h("table", {},
      h("caption", {}, "Verdicts of two reviewers on the same calls; kappa with its 95 % interval."),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "reviewers"),
        h("th", { scope: "col", className: "text" }, "species"),
        columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {},
        h("th", { scope: "row" }, row.reviewers.join(" and ")),
        h("td", { className: "text" }, row.species === EVERY ? "all" : row.species),
        h("td", {}, String(row.both)), h("td", {}, String(row.unsure)),
        names.map((name) => h("td", {}, share(row[name]))),
        h("td", {}, row.kappa_low === null ? share(row.kappa)
          : `${share(row.kappa)}, ${share(row.kappa_low)} to ${share(row.kappa_high)}`))))))];
  }

  round() {
    this.roundNote = h("p", { role: "status", className: "details" });
    this.roundButton = h("button", {
      type: "button", onclick: () => this.start(),
    }, "Train the next model");
    if (!this.app.session.can_start_round) {
      return [h("p", {}, "Open the page with --model RUN to train the next model from here, or run "),
        h("p", {}, h("code", {}, "antpitta round RUN QUEUE -o RUN2"))];
    }
    return [h("p", {}, "The agreed verdicts join the training data, and a new model is trained."),
      h("p", { className: "buttons" }, this.roundButton), this.roundNote];
  }

  async start() {
    try {
      await this.app.outbox.send();
      if (this.app.outbox.waiting) {
        throw new Error(`${count(this.app.outbox.waiting, "verdict")} could not be sent yet.`);
      }
      await postJson("/api/rounds", {});
      await this.showRound();
    } catch (error) {
      this.roundNote.textContent = error.message;
    }
  }

  async showRound() {
    if (!this.app.session.can_start_round || this.app.view !== this) return;
    const { state, message } = await getJson("/api/rounds");
    if (message) this.roundNote.textContent = message;
    this.roundButton.disabled = state === "running";
    if (state === "running") setTimeout(() => this.showRound().catch(() => {}), 1000);
  }

  redraw() {}

  leave() {}
}
