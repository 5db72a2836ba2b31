// The items of a draw, loaded page by page, and the verdicts on them.

import { getJson } from "./api.js";
import { ownVerdict } from "./outbox.js";

export class ItemList {
  constructor(app, draw, filters) {
    Object.assign(this, { app, draw, filters });
    this.items = [];
    this.complete = false;
    this.loading = null;
  }

  // Load until there are so many items, or no more.
  async load(wanted) {
    while (this.items.length < wanted && !this.complete) {
      this.loading ??= this.loadPage().finally(() => {
        this.loading = null;
      });
      await this.loading;
    }
  }

  async loadPage() {
    const limit = this.app.session.page_size;
    const after = this.items.at(-1)?.position;
    const page = await getJson(`/api/draws/${this.draw.id}/items`, { ...this.filters, after, limit });
    this.complete = page.length < limit;
    this.items.push(...this.app.outbox.apply(page));
  }

  // How many calls pass the filters. Those that were judged since the list was opened count.
  async loadTotal() {
    this.total ??= await getJson(`/api/draws/${this.draw.id}/count`, this.filters);
  }

  get ofTotal() {
    const total = this.complete ? this.items.length : this.total;
    return total === undefined ? "" : ` of ${total}`;
  }

  // Give one verdict on some items. They are undone together.
  judge(items, verdict, { reason = null, more = [], since = null } = {}) {
    const ms = since === null ? null : Math.round(performance.now() - since);
    const events = items.map((item) => this.event(item, item.species, verdict, { reason, ms }));
    events.push(...more.map(([item, species, other]) => this.event(item, species, other, { ms })));
    const batch = this.app.outbox.add(events);
    items.forEach((item, i) => {
      item.earlier = [...(item.earlier ?? []), item.own_verdict];
      item.own_verdict = { ...ownVerdict(events[i]), batch_uuid: batch };
    });
  }

  event(item, species, verdict, { reason = null, ms = null }) {
    const event = { kind: "verdict", region: item.region, species, verdict, ms };
    event.species_list_digest = this.app.species.digest;
    if (reason) event.reason = reason;
    if (item.score !== undefined && item.score !== null) event.score_shown = item.score;
    const box = item.moved ?? item.own_verdict?.box;
    if (box) event.box = box;
    return event;
  }

  // Take back the last action. Returns the index of its first item, or -1.
  async undo() {
    const target = await this.app.outbox.undo();
    if (!target) return null;
    let index = -1;
    this.items.forEach((item, i) => {
      const own = item.own_verdict;
      if (own && (own.batch_uuid === target || own.uuid === target)) {
        item.own_verdict = item.earlier?.pop() ?? null;
        if (index < 0) index = i;
      }
    });
    return index;
  }
}

// The box of an item as its reviewer sees it: moved edges, those of the verdict, or its own.
export function boxOf(item) {
  return item.moved ?? item.own_verdict?.box
    ?? [item.start_time, item.end_time, item.low_freq, item.high_freq];
}

const WORDS = { present: "present", absent: "absent", unsure: "unsure" };

export function verdictText(item) {
  const own = item.own_verdict;
  if (!own) return "";
  return own.reason ? `${WORDS[own.verdict]}: ${own.reason}` : WORDS[own.verdict];
}

// The keys of verdicts on one item; on(verdict, reason) makes what a key does.
export function verdictActions(on) {
  return [
    ["y", "present", on("present")],
    ["n", "absent", on("absent")],
    ["u", "unsure", on("unsure")],
    ["1", "other species", on("absent", "other species")],
    ["2", "noise", on("absent", "noise")],
    ["3", "too faint", on("absent", "too faint")],
  ];
}
