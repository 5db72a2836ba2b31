// A dialog in which a species is looked for in the list, or added to it.

import { getJson, postJson } from "./api.js";
import { h } from "./dom.js";

const MOST = 50; // names that are shown

export class SpeciesList {
  constructor() {
    this.names = [];
    this.digest = null;
  }

  async load() {
    const { species, digest } = await getJson("/api/species");
    Object.assign(this, { names: species, digest });
  }

  matches(text, besides) {
    const wanted = text.trim().toLowerCase();
    const begins = (name) => (name.toLowerCase().startsWith(wanted) ? 0 : 1);
    return this.names
      .filter((name) => name !== besides && name.toLowerCase().includes(wanted))
      .sort((a, b) => begins(a) - begins(b)).slice(0, MOST);
  }

  async add(name) {
    const added = await postJson("/api/species", { name });
    await this.load();
    return added.name;
  }
}

// Offers every species but `besides`. Resolves to a species, or to null where the dialog is closed without one.
export function pickSpecies(list, title, besides = null) {
  return new Promise((resolve) => {
    let active = 0;
    let shown = [];
    const options = h("ul", { id: "species-options", role: "listbox", ariaLabel: "Species" });
    const problem = h("p", { className: "problem", role: "alert" });
    const input = h("input", {
      type: "text", id: "species-name", autocomplete: "off", role: "combobox",
      "aria-controls": "species-options", "aria-expanded": "true", "aria-autocomplete": "list",
    });
    const dialog = h("dialog", { "aria-labelledby": "species-title", className: "picker" },
      h("h2", { id: "species-title" }, title),
      h("label", { htmlFor: "species-name" }, "Name"), input, problem, options,
      h("p", { className: "hint" }, "Arrow keys choose, Enter takes, Escape closes."));
    const finish = (name) => {
      dialog.close();
      dialog.remove();
      resolve(name);
    };
    const take = async (option) => {
      try {
        finish(option.isNew ? await list.add(option.name) : option.name);
      } catch (error) {
        problem.textContent = error.message;
      }
    };
    const draw = () => {
      const text = input.value.trim();
      shown = list.matches(text, besides).map((name) => ({ name }));
      const known = list.names.some((name) => name.toLowerCase() === text.toLowerCase());
      if (text && !known) shown.push({ name: text, isNew: true });
      active = Math.min(active, Math.max(shown.length - 1, 0));
      options.replaceChildren(...shown.map((option, i) => h("li", {
        id: `species-${i}`, role: "option", ariaSelected: String(i === active),
        onclick: () => take(option),
      }, option.isNew ? `Add “${option.name}” to the list` : option.name)));
      if (shown.length) input.setAttribute("aria-activedescendant", `species-${active}`);
      options.children[active]?.scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("input", () => {
      active = 0;
      draw();
    });
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "ArrowDown") active = Math.min(active + 1, shown.length - 1);
      else if (event.key === "ArrowUp") active = Math.max(active - 1, 0);
      else if (event.key === "Enter" && shown[active]) take(shown[active]);
      else return;
      event.preventDefault();
      draw();
    });
    dialog.addEventListener("cancel", () => finish(null));
    document.body.append(dialog);
    draw();
    dialog.showModal();
    input.focus();
  });
}
