// Verdicts on their way to the server.
//
// An event is in the browser's storage from the key press until the server says that it is on the
// disk, so that neither a reload nor a server that ends loses it. Each event has a uuid: sending it
// twice changes nothing. Each has a storage key of its own, so that two tabs never overwrite each
// other. What was done last is kept as well, so that undo works after a restart.

import { getJson, postJson } from "./api.js";

const LONGEST_UNDO = 500;
const PAUSES = [500, 1000, 2000, 5000]; // ms between attempts
const LATER = 1000; // ms, for events that nobody waits for
const MOST = 500; // events of a request

export class Outbox {
  constructor(session, changed) {
    this.prefix = `antpitta:${session.queue}:${session.reviewer}:`;
    this.changed = changed;
    this.number = 0;
    this.failures = 0;
    this.error = null;
    this.sending = null;
    this.timer = 0;
  }

  get waiting() {
    return this.keys("event:").length;
  }

  get refused() {
    return this.keys("refused:").map((key) => JSON.parse(localStorage.getItem(key)));
  }

  keys(kind) {
    const start = this.prefix + kind;
    return Object.keys(localStorage).filter((key) => key.startsWith(start)).sort();
  }

  // The events that the server does not have yet, in the order in which they happened.
  pending() {
    return this.keys("event:").map((key) => JSON.parse(localStorage.getItem(key)));
  }

  // Store events of one action, and send them. Returns the name of the action, for undo.
  add(events, { undoable = true, now = true } = {}) {
    const batch = crypto.randomUUID();
    const at = new Date();
    for (const event of events) {
      const whole = { uuid: crypto.randomUUID(), client_at: at.toISOString(), ...event };
      if (undoable) whole.batch_uuid = batch;
      const order = `${String(at.getTime()).padStart(15, "0")}-${String(this.number++).padStart(6, "0")}`;
      localStorage.setItem(`${this.prefix}event:${order}-${whole.uuid}`, JSON.stringify(whole));
    }
    if (undoable) this.done = [...this.done, batch].slice(-LONGEST_UNDO);
    if (now) this.send();
    else this.timer = setTimeout(() => this.send(), LATER);
    this.changed();
    return batch;
  }

  get done() {
    return JSON.parse(localStorage.getItem(`${this.prefix}done`) ?? "[]");
  }

  set done(batches) {
    localStorage.setItem(`${this.prefix}done`, JSON.stringify(batches));
  }

  // Take back the last action. Returns its name, or null where there is none.
  async undo() {
    const done = this.done;
    let target = done.pop();
    this.done = done;
    if (!target) {
      await this.send();
      target = (await getJson("/api/latest")).target; // of another browser, or long ago
    }
    if (!target) return null;
    this.add([{ kind: "retract", target_uuid: target }], { undoable: false });
    return target;
  }

  // Send all events, again and again until the server has them.
  send() {
    clearTimeout(this.timer);
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
      this.changed();
    });
    return this.sending;
  }

  async sendAll() {
    for (let keys = this.keys("event:"); keys.length; keys = this.keys("event:")) {
      const part = keys.slice(0, MOST);
      try {
        await this.deliver(part);
        this.failures = 0;
        this.error = null;
      } catch (error) {
        this.error = error;
        const pause = PAUSES[Math.min(this.failures++, PAUSES.length - 1)];
        this.timer = setTimeout(() => this.send(), pause);
        return;
      }
      this.changed();
      if (this.keys("event:")[0] === part[0]) return; // not acknowledged: the next action tries again
    }
  }

  async deliver(keys) {
    const events = keys.map((key) => JSON.parse(localStorage.getItem(key)));
    try {
      const { acknowledged } = await postJson("/api/events", { events });
      const stored = new Set(acknowledged);
      keys.forEach((key, i) => stored.has(events[i].uuid) && localStorage.removeItem(key));
    } catch (error) {
      if (![400, 403, 404, 422].includes(error.status) || error.code === "E_CSRF") throw error;
      if (keys.length > 1) { // which one is it?
        for (const key of keys) await this.deliver([key]);
        return;
      }
      const note = { ...events[0], refusal: error.message };
      localStorage.setItem(`${this.prefix}refused:${events[0].uuid}`, JSON.stringify(note));
      localStorage.removeItem(keys[0]);
    }
  }

  dismissRefused() {
    this.keys("refused:").forEach((key) => localStorage.removeItem(key));
    this.changed();
  }

  // Show items as they will be once all events have arrived.
  apply(items) {
    for (const event of this.pending()) {
      for (const item of items) {
        const same = item.region === event.region && item.species === event.species;
        if (event.kind === "verdict" && same) item.own_verdict = ownVerdict(event);
        const target = event.kind === "retract" && event.target_uuid;
        const own = item.own_verdict;
        if (target && own && (own.batch_uuid === target || own.uuid === target)) {
          item.own_verdict = null;
        }
      }
    }
    return items;
  }
}

export function ownVerdict(event) {
  const { uuid, batch_uuid, verdict, reason, box } = event;
  return { uuid, batch_uuid, verdict, reason, box };
}
