/**
 * The script of the page, which shows the data it receives. Names come from callers, so all of it is written as text, never as HTML.
 */
export const script = `"use strict";
const at = (id) => document.getElementById(id);
const make = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.map((child) => typeof child === "number" ? String(child) : child));
  return element;
};
const none = (text) => make("p", { class: "none" }, text);
const amount = (value) => value === null || value === undefined ? "-"
  : Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: Math.abs(value) < 1000 ? 0 : 1 }).format(value);
const time = (millis) => {
  if (millis === null || millis === undefined) return "-";
  const seconds = millis / 1000;
  if (seconds < 10) return seconds.toFixed(1) + " s";
  return seconds < 120 ? Math.round(seconds) + " s" : Math.round(seconds / 60) + " min";
};
const dollars = (value) => "$" + (value > 0 && value < 0.1 ? value.toPrecision(2) : value.toFixed(2));
// The cost of a model without a price is unknown, and not 0.
const cost = ({ dollars: value, unpriced }) =>
  unpriced === 0 ? dollars(value) : value === 0 ? "no price" : dollars(value) + " + " + amount(unpriced) + " without a price";
const clock = (millis) => new Date(millis).toLocaleTimeString();
const names = { requests: "requests", inputTokens: "input tokens", outputTokens: "output tokens", tokens: "tokens" };

const table = (heads, rows) => {
  if (rows.length === 0) return undefined;
  const cell = (tag) => (text, index) => make(tag, { class: typeof text === "number" || heads[index][1] ? "number" : "name" },
    typeof text === "number" ? amount(text) : text);
  return make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map(([text], index) => cell("th")(text, index)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell("td"))))));
};

const level = ([dimension, status]) => {
  const max = status.capacity;
  const part = max > 0 ? Math.max(0, Math.min(1, status.level / max)) : 1;
  const fill = make("i", {});
  fill.style.width = (100 * part).toFixed(1) + "%";
  const bar = make("div", { class: part < 0.1 ? "bar low" : "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-valuenow": String(Math.round(100 * part)), "aria-label": names[dimension] }, fill);
  return make("div", { class: "level" }, make("span", {}, names[dimension]), bar, make("span", { class: "text" }, figures(status)));
};
const figures = ({ capacity, level, limitPerSecond, perSecond }) => {
  const parts = [amount(level) + " of " + amount(capacity) + " left"];
  if (perSecond > 0) parts.push(amount(perSecond * 60) + " a minute in use");
  if (limitPerSecond > 0) parts.push("limit " + amount(limitPerSecond * 60) + " a minute");
  return parts.join(", ");
};
// "api.anthropic.com/anthropic/sonnet-5" is sonnet-5 of anthropic. A caller's own key is a hash.
const placed = (name) => {
  const [host, account, ...kind] = name.split("/");
  if (account === undefined || !/[.:]/.test(host)) return [name, ""];
  const whose = /^[0-9a-f]{12}$/.test(account) ? "key " + account.slice(0, 8) : account;
  return [kind.join("/") || "all models", whose + " at " + host];
};
const sources = { stated: "stated", headers: "from headers", rejections: "from rejections" };
// "input tokens: limit 2M a minute, from headers, 3 s ago". A quota does not refill.
const known = (isQuota) => ({ ageMillis, dimension, from, value, what }) => {
  const figure = what === "inFlight" ? "at most " + amount(value) + " in flight"
    : names[dimension] + ": " + what + " " + (isQuota(dimension) ? amount(value) + " in all" : amount(value * 60) + " a minute");
  return figure + ", " + sources[from] + (ageMillis === undefined || ageMillis === null ? "" : ", " + time(ageMillis) + " ago");
};
const pool = (pool) => {
  const allowed = pool.allowed === null ? "" : " of " + pool.allowed;
  const [name, where] = placed(pool.name);
  const children = [make("h3", { title: pool.name }, name, " ", make("span", { class: "soft" }, where)),
    make("p", { class: "soft" }, pool.inFlight + allowed + " running, " + pool.queued + " waiting")];
  if (pool.pause) children.push(make("p", { class: "pause" },
    "Paused for " + time(pool.pause.leftMillis) + " (" + pool.pause.reason + ")"));
  const isQuota = (dimension) => pool.dimensions[dimension]?.limitPerSecond === 0;
  children.push(...Object.entries(pool.dimensions).map(level));
  if (pool.known.length > 0) children.push(make("p", { class: "soft" }, pool.known.map(known(isQuota)).join("; ")));
  return make("div", { class: "pool" }, ...children);
};

const longWindow = ({ account, isRejected, name, resetsAt, share, used }) => {
  const percent = (part) => Math.round(1000 * Math.min(1, part)) / 10 + " %";
  const fill = make("i", {});
  fill.style.width = percent(used);
  const bar = make("div", { class: used >= (share ?? 0.8) ? "bar low" : "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-valuenow": String(Math.round(100 * Math.min(1, used))), "aria-label": "spent of the window of " + name }, fill);
  const parts = [percent(used) + " spent"];
  if (share !== undefined && share !== null) parts.push("batches may use " + percent(share));
  if (isRejected) parts.push("used up");
  if (resetsAt !== undefined && resetsAt !== null) parts.push("until " + new Date(resetsAt).toLocaleString());
  const who = name + (account === undefined || account === null ? "" : " of " + account);
  return make("div", { class: "level" }, make("span", { class: "who" }, who), bar, make("span", { class: "text" }, parts.join(", ")));
};
const cap = ({ name, dollars: max, held, isReached, queued, spent, until }) => {
  const width = (value) => (100 * Math.max(0, Math.min(1, value / max))).toFixed(1) + "%";
  const used = make("i", {});
  used.style.width = width(spent);
  const reserved = make("i", { class: "held" });
  reserved.style.width = width(Math.min(held, max - spent));
  const part = Math.min(1, (spent + held) / max);
  const bar = make("div", { class: isReached || spent / max >= 0.8 ? "bar low" : "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-valuenow": String(Math.round(100 * part)), "aria-label": "spent and reserved by " + name }, used, reserved);
  const parts = [dollars(spent) + " of " + dollars(max) + " spent (" + Math.round(100 * spent / max) + " %)"];
  if (held > 0) parts.push(dollars(held) + " reserved by running calls");
  parts.push(dollars(Math.max(0, max - spent - held)) + " free");
  if (queued > 0) parts.push(queued + (queued === 1 ? " call waits" : " calls wait"));
  if (isReached) parts.push("reached: calls are refused");
  if (until !== undefined && until !== null) parts.push("until " + new Date(until).toLocaleString());
  return make("div", { class: "level" }, make("span", { class: "who" }, name), bar, make("span", { class: "text" }, parts.join(", ")));
};

// One row of the last hour: a bar for each minute.
const row = (minutes, now, of, name, text) => {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const max = Math.max(0, ...minutes.map(of));
  svg.setAttribute("viewBox", "0 0 60 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", text + "; at most " + amount(max) + " a minute");
  for (const minute of minutes) {
    if (of(minute) === 0) continue;
    const bar = document.createElementNS(space, "rect");
    const height = Math.max(3, 100 * of(minute) / max);
    bar.setAttribute("x", String(59 - Math.floor((now - minute.at) / 60000) + 0.1));
    bar.setAttribute("y", String(100 - height));
    bar.setAttribute("width", "0.8");
    bar.setAttribute("height", String(height));
    svg.append(bar);
  }
  return make("div", { class: "row " + name }, make("span", {}, text), svg,
    make("span", { class: "max" }, max > 0 ? "max " + amount(max) + " a minute" : ""));
};
const hour = (minutes, now) => {
  const sum = (of) => minutes.reduce((sum, minute) => sum + of(minute), 0);
  const rows = [["tokens", (minute) => minute.tokens, "tokens"], ["rejected", (minute) => minute.rejected, "rejected with 429"],
    ["waited", (minute) => minute.waited, "calls that had to wait"]];
  return [...rows.map(([name, of, text]) => row(minutes, now, of, name, amount(sum(of)) + " " + text)),
    make("p", { class: "axis" }, make("span", {}, "1 hour ago"), make("span", {}, "now"))];
};

const whatOf = (event) => {
  if (event.type === "cap") return event.cap + (event.isReached ? ": reached, " : ": open again, ") + dollars(event.left) + " of " + dollars(event.limit) + " left";
  // How much sooner the place was: "azure: 0.2 s instead of 14 s".
  if (event.type === "place") {
    const elsewhere = event.why === "failed" ? "after a failure at " + event.instead
      : "instead of " + (event.insteadWait === undefined || event.insteadWait === null ? "" : time(event.insteadWait) + " at ") + event.instead;
    return event.place + ": " + time(event.waited) + " " + elsewhere;
  }
  if (event.type === "rejection") return event.verdict + (event.dimension ? ", " + names[event.dimension] : "");
  return event.type === "retryDelayed" ? "by the retry budget" : event.reason;
};

// A section is hidden while it has nothing to show.
const section = (name, id, rows, shown) => {
  at(name).hidden = rows.length === 0;
  if (rows.length > 0) at(id).replaceChildren(...shown(rows));
};

const show = (now) => {
  const running = now.pools.reduce((sum, pool) => sum + pool.inFlight, 0);
  const waiting = now.pools.flatMap((pool) => pool.waiting.map((waiter) => ({ ...waiter, pool: pool.name })));
  const queued = [...now.pools, ...now.caps].reduce((sum, line) => sum + line.queued, 0);
  const unpaid = now.caps.flatMap((cap) => cap.waiting.map((waiter) => ({ ...waiter, cap: cap.name })));
  const latest = now.minutes[now.minutes.length - 1];
  const last = latest && now.at - latest.at < 60000 ? latest : undefined;
  const figure = (value, text) => make("div", {}, make("b", {}, typeof value === "number" ? amount(value) : value), make("span", {}, text));
  at("figures").replaceChildren(figure(running, "running"), figure(queued, "waiting"), figure(now.open, "requests open"),
    figure(last ? last.tokens : 0, "tokens this minute"), figure(now.agents.length, "agents"),
    figure(dollars(now.minutes.reduce((sum, minute) => sum + minute.dollars, 0)), "last hour"));
  if (now.pools.length > 0) at("pools").replaceChildren(...now.pools.map(pool));
  at("waiting").replaceChildren(table([["agent"], ["for"], ["waited", true], ["expected", true], ["pool or cap"]],
    [...waiting.map((waiter) => [waiter.agent, names[waiter.dimension] ?? "a free slot", time(waiter.waitedMillis),
      time(waiter.expectedMillis), placed(waiter.pool)[0]]),
    ...unpaid.map((waiter) => [waiter.agent, dollars(waiter.dollars), time(waiter.waitedMillis), "-", waiter.cap])])
      ?? none("No calls are waiting."));
  section("windowed", "windows", now.windows, (windows) => windows.map(longWindow));
  section("capped", "caps", now.caps, (caps) => caps.map(cap));
  section("keyed", "keys", now.keys, (keys) => [table([["key"], ["dollars", true], ["calls", true], ["input", true], ["output", true], ["last", true]],
    keys.map((key) => [key.name, cost(key), key.calls, key.inputTokens, key.outputTokens, clock(key.lastAt)]))]);
  section("estimated", "estimates", now.estimates, (estimates) => [table([["agent or kind"], ["pool"], ["bytes per token", true], ["answers", true], ["counted", true],
    ["read from cache", true], ["of tokens", true], ["unused for", true]],
    estimates.map((one) => [one.kind ?? "all", placed(one.pool)[0], one.bytesPerToken.toFixed(1), one.answers, one.counted,
      ...(one.prefixes ? [Math.round(100 * one.prefixes.hit) + " %", one.prefixes.tokens, time(one.prefixes.unusedFor)] : ["-", "-", "-"])]))]);
  at("agents").replaceChildren(table([["agent"], ["calls", true], ["input", true], ["output", true], ["dollars", true], ["refused", true], ["failed", true],
    ["last", true]], now.agents.map((agent) => [agent.name, agent.calls, agent.inputTokens, agent.outputTokens, cost(agent), agent.refused,
      agent.failed, clock(agent.lastAt)])) ?? none("No agents yet."));
  at("hour").replaceChildren(...hour(now.minutes, now.at));
  at("events").replaceChildren(table([["when"], ["what"], ["concluded"], ["agent"], ["pool"], ["until", true]],
    now.events.map((event) => [clock(event.at), event.type, whatOf(event), event.agent ?? "", placed(event.pool)[0],
      event.until === undefined || event.until === null ? "-" : clock(event.until)])) ?? none("None yet."));
};

const state = at("state");
const say = (text, name) => { state.className = name; state.textContent = text; };
const received = (text) => {
  const now = JSON.parse(text);
  show(now);
  say(now.upstreams.map((upstream) => upstream.name).join(", ") + " \\u00b7 " + clock(now.at), "");
};

// The token stays in this tab. It is sent in a header, so that no address, and no log of addresses, has it.
const key = "floodgate-token";
let token = sessionStorage.getItem(key);
const ask = (why) => {
  token = null;
  sessionStorage.removeItem(key);
  at("shown").hidden = true;
  at("auth").hidden = false;
  at("wrong").textContent = why;
  say("", "");
  at("token").focus();
};
at("auth").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  connect();
});

// An EventSource could not send the header.
const connect = async () => {
  let why = "connection lost, trying again";
  try {
    const response = await fetch("events", { cache: "no-store", headers: token ? { "x-floodgate-token": token } : {} });
    if (response.status === 401) return ask(token ? "The token is wrong. Try again." : "");
    if (response.status !== 200) throw why = await response.text();
    if (token) sessionStorage.setItem(key, token);
    at("auth").hidden = true;
    at("shown").hidden = false;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const { done, value } = await reader.read();
      if (done) break;
      const events = (rest + value).split("\\n\\n");
      rest = events.pop();
      // The latest is the whole state.
      const last = events.pop();
      if (last !== undefined) received(last.replace(/^data: /, ""));
    }
  } catch {}
  say(why, "lost");
  setTimeout(connect, 2000);
};
void connect();
`
