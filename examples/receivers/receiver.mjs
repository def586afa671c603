// A receiver of Tidings' webhooks: Node.js 18 or later, standard library only.
//
//   WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… node receiver.mjs
//
// It verifies each webhook, acts on it once, ignores what is older than what it
// knows, and at the start (and every five minutes) reads what it missed.
import { createHmac, timingSafeEqual } from "node:crypto";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";

// Several secrets, separated by spaces, while one is being replaced.
const secrets = (process.env.WEBHOOK_SECRET ?? "").split(" ").filter((s) => s !== "");
const keys = secrets.map((s) => Buffer.from(s.replace(/^whsec_/, ""), "base64"));
if (keys.length === 0 || keys.some((key) => key.length < 24)) {
  throw new Error("WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes");
}
const [, host, port] = (process.env.LISTEN ?? "127.0.0.1:8080").match(/(.*):(\d+)/);
const tolerance = 5 * 60; // seconds
const bodyLimit = 64 * 1024, drainLimit = 4 * 1024 * 1024;
const members = ["event", "resource_type", "resource_id", "resource_url", "timestamp"];
const observed = []; // what act was called with; for tests

// Your work. Be quick (put it into a queue); an exception makes Tidings try again.
async function act(event) {
  if (event.event.endsWith(".deleted")) console.log(`forget ${event.resource_url}`);
  else console.log(`look again at ${event.resource_url}`); // GET it with your token
}

// Called if events expired before this receiver read them.
async function readEverythingAgain() {
  console.log("read all resources again");
}

// --- Storage: replace it by your database. This is a journal that is read at the start.
const file = process.env.STATE ?? "receiver.journal";
const handled = new Set(), newest = new Map();
let position = "";
const entries = existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];
for (const entry of entries) remember(JSON.parse(entry));

function remember(entry) {
  if (entry.position !== undefined) position = entry.position;
  if (entry.id) handled.add(entry.id);
  if (entry.resource) newest.set(entry.resource, { version: entry.version, time: entry.time });
}

function save(entry) {
  appendFileSync(file, JSON.stringify(entry) + "\n");
  remember(entry);
}

let last = Promise.resolve(); // one event after the other, so that the check and the memory are one step
function handleOnce(event) {
  const result = last.then(async () => {
    if (handled.has(event.id)) return;
    const resource = event.resource_type + "/" + event.resource_id;
    let time = event.timestamp.replace(/Z$/, ""); // without Z, it sorts as text
    const known = newest.get(resource);
    // Both must agree: versions start again after a restored backup, and clocks of servers differ.
    if (known && event.version > 0 && event.version < known.version && time <= known.time) {
      return save({ id: event.id });
    }
    await act(event);
    observed.push(event.id);
    if (known && known.time > time) time = known.time;
    save({ id: event.id, resource, version: event.version, time });
  });
  last = result.catch(() => {});
  return result;
}

// --- Verification
function isAuthentic(headers, body) {
  const id = headers["webhook-id"], stamp = headers["webhook-timestamp"] ?? "";
  if (!id || !/^\d{1,12}$/.test(stamp) || Math.abs(Date.now() / 1000 - Number(stamp)) > tolerance) return false;
  const signatures = (headers["webhook-signature"] ?? "").split(" ").map((s) => Buffer.from(s));
  return keys.some((key) => {
    const mac = createHmac("sha256", key).update(`${id}.${stamp}.`).update(body).digest("base64");
    const expected = Buffer.from("v1," + mac);
    return signatures.some((s) => s.length === expected.length && timingSafeEqual(s, expected));
  });
}

function decode(headers, body) {
  const event = JSON.parse(body.toString("utf8"));
  if (!members.every((m) => typeof event?.[m] === "string" && event[m] !== "")) {
    throw new Error("not an event in the thin format");
  }
  return { ...event, id: headers["webhook-id"], version: Number(headers["tidings-resource-version"]) || 0 };
}

async function receive(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) { // even if it is too large, so that the sender gets the answer
    if ((length += chunk.length) <= bodyLimit) chunks.push(chunk);
    if (length > drainLimit) return 413;
  }
  if (length > bodyLimit) return 413;
  const body = Buffer.concat(chunks);
  if (!isAuthentic(request.headers, body)) return 401;
  let event;
  try {
    event = decode(request.headers, body);
  } catch {
    return 400;
  }
  if (event.event !== "webhook.ping") await handleOnce(event); // a ping is an operator's test
  return 204;
}

createServer(async (request, response) => {
  if (request.method === "GET" && request.url === "/handled" && process.env.OBSERVE) { // for tests alone
    return response.end(JSON.stringify({ handled: observed }));
  }
  let status = 405;
  if (request.method === "POST") {
    try {
      status = await receive(request);
    } catch (e) {
      console.log(`webhook: ${e.message}`);
      status = 500;
    }
  }
  response.writeHead(status).end();
}).listen(Number(port), host);

// --- Catching up
async function catchUp() {
  for (;;) {
    const url = new URL("/api/v1/events?limit=500", process.env.TIDINGS_URL);
    if (position) url.searchParams.set("after", position);
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${process.env.TIDINGS_TOKEN}` },
      signal: AbortSignal.timeout(30_000),
    });
    const page = await response.json();
    if (response.status === 410) {
      await readEverythingAgain();
      save({ position: page.after });
      continue;
    }
    if (!response.ok) throw new Error(`${response.status} ${page.detail}`);
    for (const event of page.items) await handleOnce({ ...event, version: event.resource_version });
    if (page.next !== position) save({ position: page.next });
    if (page.items.length === 0 && !page.more) return;
  }
}

if (process.env.TIDINGS_URL) {
  const tick = () => catchUp().catch((e) => console.log(`catching up: ${e.message}`));
  tick();
  setInterval(tick, 5 * 60 * 1000);
}
