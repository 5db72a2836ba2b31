// The dialog of filters: which items of a draw are shown.

import { getJson } from "./api.js";
import { h } from "./dom.js";

const FIELDS = [
  ["state", "Verdict", "select"],
  ["species", "Species", "select"],
  ["site", "Site", "select"],
  ["date_from", "From date", "date"],
  ["date_to", "To date", "date"],
  ["hour_from", "From hour", "number", { min: 0, max: 23, step: 1 }],
  ["hour_to", "To hour", "number", { min: 0, max: 23, step: 1 }],
  ["score_from", "Lowest score", "number", { step: "any" }],
  ["score_to", "Highest score", "number", { step: "any" }],
  ["disagreement_from", "Least disagreement of the members", "number", { step: "any", min: 0 }],
];
const OF_SCORES = ["score_from", "score_to", "disagreement_from"];

// Resolves to the new filters, or to null where the dialog is closed.
export async function chooseFilters(draw, filters) {
  const choices = await getJson(`/api/draws/${draw.id}/choices`);
  const values = {
    state: [["open", "without my verdict"], ["second", "judged by others only"],
      ["done", "with my verdict"], ["", "all"]],
    species: [["", "all"], ...choices.species.map((name) => [name, name])],
    site: [["", "all"], ...choices.sites.map((name) => [name, name])],
  };
  const hidden = draw.purpose === "audit" ? [...OF_SCORES] : [];
  if (!choices.disagreement) hidden.push("disagreement_from");
  return new Promise((resolve) => {
    const inputs = FIELDS.filter(([name]) => !hidden.includes(name)).map(
      ([name, label, type, limits]) => {
        const id = `filter-${name}`;
        const input = type === "select"
          ? h("select", { id }, values[name].map(([value, text]) => h("option", { value }, text)))
          : h("input", { id, type, ...limits });
        input.value = filters[name] ?? "";
        return [name, h("p", {}, h("label", { htmlFor: id }, label), input), input];
      },
    );
    const finish = (chosen) => {
      dialog.close();
      dialog.remove();
      resolve(chosen);
    };
    const form = h("form", {
      method: "dialog",
      onsubmit: (event) => {
        event.preventDefault();
        finish(Object.fromEntries(inputs.map(([name, , input]) => [name, input.value])));
      },
    }, inputs.map(([, row]) => row),
    h("p", { className: "buttons" },
      h("button", { type: "submit" }, "Show these"),
      h("button", { type: "button", onclick: () => finish({ state: "open" }) }, "Clear")));
    const dialog = h("dialog", { "aria-labelledby": "filter-title", className: "filters" },
      h("h2", { id: "filter-title" }, "Which calls"), form);
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("cancel", () => finish(null));
    document.body.append(dialog);
    dialog.showModal();
  });
}
