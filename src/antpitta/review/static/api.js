// Requests to the server. Requests that change something carry the key of the session.

let key = "";

export class ServerError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function setKey(value) {
  key = value;
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "E_OFFLINE", "The server does not answer.");
  }
  if (response.ok) return response;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // The answer of something else than the server.
  }
  const message = body.message ?? `The server answered ${response.status}.`;
  throw new ServerError(response.status, body.code ?? "E_UNFORESEEN", message);
}

export async function getJson(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return (await request(text ? `${path}?${text}` : path)).json();
}

export async function postJson(path, body) {
  const headers = { "Content-Type": "application/json", "X-Antpitta-Key": key };
  const response = await request(path, { method: "POST", headers, body: JSON.stringify(body) });
  return response.json();
}
