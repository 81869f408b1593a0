/** The script of the page, bundled from packages/gateway/page by `npm run page`. Edit it there. */
export const script = `// src/domain/words.ts
const plural = (count, one, more = \`\${one}s\`) => count === 1 ? one : more;
const thousands = (value) => value.toLocaleString("en-US");
const glance = new Intl.NumberFormat("en-US", {
	notation: "compact",
	maximumSignificantDigits: 3
});
const compact = (value) => glance.format(value);
const percent = (part, digits = 1) => \`\${round(100 * part, digits)} %\`;
const inUnit = (seconds, shown) => {
	if (seconds < 119.95) return \`\${shown(seconds)} s\`;
	return seconds < 7200 ? \`\${shown(seconds / 60)} min\` : \`\${shown(seconds / 3600)} h\`;
};
const span = (seconds) => inUnit(seconds, (value) => value.toFixed(1));
const about = (seconds) => inUnit(seconds, (value) => \`\${value < 9.95 ? round(value, 1) : Math.round(value)}\`);
const round = (value, digits = 3) => {
	const scale = 10 ** digits;
	return Math.round(value * scale) / scale;
};
const counted = (count, one, more) => \`\${thousands(count)} \${plural(count, one, more)}\`;
const cents = new Intl.NumberFormat("en-US", {
	style: "currency",
	currency: "USD"
});
const finer = new Intl.NumberFormat("en-US", {
	style: "currency",
	currency: "USD",
	maximumSignificantDigits: 2
});
const dollars = (value) => (value > 0 && value < .1 ? finer : cents).format(value);
// packages/gateway/page/elements.ts
const at = (id) => document.getElementById(id);
const make = (name, attributes = {}, ...children) => {
	const element = document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
	element.append(...children);
	return element;
};
const none = (text) => make("p", { class: "none" }, text);
const words = (head, cell) => ({
	head,
	kind: "name",
	cell
});
const figures = (head, cell) => ({
	head,
	kind: "number",
	cell: (entry) => {
		const figure = cell(entry);
		return typeof figure === "number" ? compact(figure) : figure;
	}
});
const table = (entries, columns, empty = "") => {
	if (entries.length === 0) return none(empty);
	const row = (tag, textOf) => make("tr", {}, ...columns.map((column) => make(tag, { class: column.kind }, textOf(column))));
	return make("table", {}, make("thead", {}, row("th", ({ head }) => head)), make("tbody", {}, ...entries.map((entry) => row("td", ({ cell }) => cell(entry)))));
};
const within = (part) => Math.max(0, Math.min(1, part));
const level = (nameClass, { held = 0, isLow, label, mark, name, part, text }) => {
	const fill = (width, attributes = {}) => {
		const element = make("i", attributes);
		element.style.width = \`\${(100 * within(width)).toFixed(1)}%\`;
		return element;
	};
	const fills = held > 0 ? [fill(part), fill(Math.min(held, 1 - part), { class: "held" })] : [fill(part)];
	if (mark !== void 0 && mark < 1) {
		const line = make("i", { class: "mark" });
		line.style.left = \`\${(100 * within(mark)).toFixed(1)}%\`;
		fills.push(line);
	}
	const meter = {
		class: isLow ? "bar low" : "bar",
		role: "meter",
		"aria-valuemin": "0",
		"aria-valuemax": "100",
		"aria-valuenow": \`\${Math.round(100 * within(part + held))}\`,
		"aria-label": label
	};
	return make("div", { class: "level" }, make("span", { class: nameClass }, name), make("div", meter, ...fills), make("span", { class: "text" }, text));
};
const hourBars = (minutes, now, of, label) => {
	const draw = (name, attributes) => {
		const element = document.createElementNS("http://www.w3.org/2000/svg", name);
		for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, \`\${value}\`);
		return element;
	};
	const max = Math.max(0, ...minutes.map(of));
	const svg = draw("svg", {
		viewBox: "0 0 60 100",
		preserveAspectRatio: "none",
		role: "img",
		"aria-label": label
	});
	for (const minute of minutes) {
		if (of(minute) === 0) continue;
		const height = Math.max(3, 100 * of(minute) / max);
		const x = 59 - Math.floor((now - minute.at) / 6e4) + .1;
		svg.append(draw("rect", {
			x,
			y: 100 - height,
			width: .8,
			height
		}));
	}
	return svg;
};
// packages/gateway/page/keys.ts
const form = at("adding");
const field$1 = (id) => at(id);
const off$1 = "Off. With keys in its configuration and an admin token in FLOODGATE_GATEWAY_ADMIN_TOKEN, keys are added here. \`floodgate gateway init\` writes a gateway.json to begin with.";
const follow$3 = ({ addsKeys }) => {
	form.hidden = !addsKeys;
	at("keysNote").hidden = addsKeys;
	at("keysNote").textContent = addsKeys ? "" : off$1;
};
const asked$1 = () => {
	const figure = (id) => field$1(id).value === "" ? void 0 : Number(field$1(id).value);
	return {
		name: field$1("holder").value.trim(),
		dollarsPerDay: figure("perDay"),
		priority: figure("priority"),
		expires: field$1("expires").value || void 0
	};
};
const add = async (token) => {
	at("added").hidden = true;
	at("keyError").textContent = "";
	const response = await fetch("keys", {
		method: "POST",
		cache: "no-store",
		headers: {
			"x-floodgate-admin": field$1("admin").value.trim(),
			...token === null ? {} : { "x-floodgate-token": token }
		},
		body: JSON.stringify(asked$1())
	});
	const { config, error, key } = JSON.parse(await response.text());
	if (response.status !== 200) return void (at("keyError").textContent = String(error));
	at("newKey").textContent = String(key);
	at("newConfig").textContent = JSON.stringify(config, null, 2);
	at("added").hidden = false;
	field$1("holder").value = "";
};
const start$1 = (token) => form.addEventListener("submit", (event) => {
	event.preventDefault();
	add(token()).catch(() => void (at("keyError").textContent = "The gateway does not answer. Try again."));
});
// packages/gateway/page/requests.ts
const key$1 = "floodgate-requests-token";
let token$1 = sessionStorage.getItem(key$1);
const secret = at("secret");
const maxRows = 100;
const fields = [
	"model",
	"caller",
	"outcome"
];
const off = "Off. With a token of its own in FLOODGATE_GATEWAY_REQUESTS_TOKEN (setting requestsToken), the gateway remembers the last 500 requests, without their content, and shows them here.";
const known$1 = (value, text) => value === null ? "-" : text(value);
const ended = ({ attempts, outcome, reason, status }) => {
	const parts = [status === null ? outcome : \`\${outcome} \${status}\`];
	if (reason !== null) parts.push(reason);
	if (attempts > 1) parts.push(counted(attempts - 1, "retry", "retries"));
	return parts.join(", ");
};
const asked = ({ model, place }) => place === null ? model ?? "-" : \`\${model} at \${place}\`;
const rowsOf$1 = (requests, isEverything) => table(requests, [
	words("when", ({ at }) => new Date(at).toLocaleTimeString()),
	words("end", ended),
	words("model", asked),
	words("caller", ({ caller }) => caller ?? "not let in"),
	words("agent", ({ agent }) => agent ?? "-"),
	figures("waited", ({ waitedMillis }) => span(waitedMillis / 1e3)),
	figures("took", ({ millis }) => span(millis / 1e3)),
	figures("input", ({ inputTokens }) => known$1(inputTokens, compact)),
	figures("cached", ({ cachedTokens }) => known$1(cachedTokens, compact)),
	figures("output", ({ outputTokens }) => known$1(outputTokens, compact)),
	figures("dollars", (request) => known$1(request.dollars, dollars))
], isEverything ? "No request has ended yet." : "None of the last 500 requests is like this.");
const show$1 = (state) => {
	at("opening").hidden = state !== "closed";
	at("filter").hidden = state !== "open";
	at("requests").hidden = state !== "open";
	at("requestsNote").hidden = state === "closed";
	at("requestsNote").textContent = state === "off" ? off : "";
};
const ask$1 = (why) => {
	token$1 = null;
	sessionStorage.removeItem(key$1);
	at("refused").textContent = why;
	show$1("closed");
};
const query = () => {
	const wanted = new URLSearchParams({ limit: \`\${maxRows}\` });
	for (const name of fields) {
		const value = at(name).value.trim();
		if (value !== "") wanted.set(name, name === "outcome" ? value : \`\${value}*\`);
	}
	return wanted;
};
let shown$1 = "";
let latest = 0;
const load = async () => {
	const wanted = query();
	const number = ++latest;
	const response = await fetch(\`requests?\${wanted}\`, {
		cache: "no-store",
		headers: { "x-floodgate-requests": token$1 }
	});
	const text = await response.text();
	if (number !== latest) return;
	if (response.status === 401) return ask$1("The token is wrong. Try again.");
	if (response.status !== 200) return;
	sessionStorage.setItem(key$1, token$1);
	show$1("open");
	const { requests } = JSON.parse(text);
	if (requests.length === maxRows) at("requestsNote").textContent = \`The newest \${maxRows}. The fields find older ones.\`;
	const rows = \`\${wanted} \${JSON.stringify(requests)}\`;
	if (rows === shown$1) return;
	shown$1 = rows;
	at("requests").replaceChildren(rowsOf$1(requests, wanted.size === 1));
};
const reload = () => void load().catch(() => {});
const follow$2 = ({ remembersRequests }) => {
	if (!remembersRequests) return show$1("off");
	if (token$1 === null) return show$1("closed");
	if (!document.hidden) reload();
};
at("opening").addEventListener("submit", (event) => {
	event.preventDefault();
	token$1 = secret.value.trim();
	secret.value = "";
	at("refused").textContent = "";
	reload();
});
at("filter").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", reload);
// packages/gateway/page/show.ts
const amount = (value) => value === null ? "-" : compact(Math.floor(value));
const time = (millis) => millis === null ? "-" : about(millis / 1e3);
const perMinute = (perSecond) => \`\${compact(perSecond * 60)} a minute\`;
const clock = (millis) => new Date(millis).toLocaleTimeString();
const until = (millis) => \`until \${new Date(millis).toLocaleString()}\`;
const cost = ({ dollars: known, unpriced }) => {
	if (unpriced === 0) return dollars(known);
	return known === 0 ? "no price" : \`\${dollars(known)} + \${compact(unpriced)} without a price\`;
};
const names = {
	requests: "requests",
	inputTokens: "input tokens",
	outputTokens: "output tokens",
	tokens: "tokens"
};
const placed = (pool) => {
	const [host = "", account, ...kind] = pool.split("/");
	if (account === void 0 || !/[.:]/.test(host)) return [pool, ""];
	const whose = /^[0-9a-f]{12}$/.test(account) ? \`key \${account.slice(0, 8)}\` : account;
	return [kind.join("/") || "all models", \`\${whose} at \${host}\`];
};
const kindOf = (pool) => placed(pool)[0];
const dimensionOf = (dimension, status) => {
	const { capacity, level: left, limitPerSecond, perSecond } = status;
	const part = capacity !== null && capacity > 0 && left !== null ? left / capacity : 1;
	const parts = [\`\${amount(left)} of \${amount(capacity)} left\`];
	if (perSecond !== null && perSecond > 0) parts.push(\`\${perMinute(perSecond)} in use\`);
	if (limitPerSecond !== null && limitPerSecond > 0) parts.push(\`limit \${perMinute(limitPerSecond)}\`);
	const name = names[dimension];
	return level("", {
		name,
		label: name,
		part,
		isLow: part < .1,
		text: parts.join(", ")
	});
};
const sources = {
	stated: "stated",
	headers: "from headers",
	rejections: "from rejections"
};
const known = ({ ageMillis, dimension, from, value, what }, { dimensions }) => {
	const age = ageMillis === void 0 ? "" : \`, \${time(ageMillis)} ago\`;
	if (dimension === void 0) return \`at most \${compact(value)} in flight, \${sources[from]}\${age}\`;
	const figure = dimensions[dimension]?.limitPerSecond === 0 ? \`\${compact(value)} in all\` : perMinute(value);
	return \`\${names[dimension]}: \${what} \${figure}, \${sources[from]}\${age}\`;
};
const causes = {
	start: "while the server is getting known",
	"first tokens": "by the calls that wait for their first token",
	"whole answers": "by the times of whole answers",
	"lost calls": "by the calls that were lost"
};
const measured = (status) => {
	const { by, ceiling, firstTokenMillis, leastFirstTokenMillis, limit, max, waiting } = status;
	const times = firstTokenMillis === void 0 || leastFirstTokenMillis === void 0 ? "" : \`, which lately takes \${time(firstTokenMillis)}, and \${time(leastFirstTokenMillis)} at best\`;
	const stated = max === void 0 ? "" : \`, and \${max} as stated\`;
	return \`Measured: \${Math.min(limit, max ?? Infinity)} at once, \${causes[by]}: \${waiting} wait\${waiting === 1 ? "s" : ""}\${times}; at most \${ceiling} by the calls that were lost\${stated}\`;
};
const states$1 = {
	open: "Calls go here",
	untried: "No answer yet: counts as the best place",
	full: "Full: calls wait here, and at other places",
	slow: "Too slow: calls go elsewhere",
	refused: "Refuses the credential, the model or the bill: calls go elsewhere",
	trial: "A call finds out if it can be used again"
};
const placeOf = ({ answerMillis, state, triedAt }, now) => {
	const parts = [states$1[state]];
	if (answerMillis !== void 0) parts.push(\`an answer takes \${time(answerMillis)}\`);
	if (triedAt !== void 0 && state !== "trial") parts.push(triedAt > now ? \`tried again after \${clock(triedAt)}\` : "tried again by the next calls");
	return parts.join("; ");
};
const poolOf = (pool, { at: now, places }) => {
	const { allowed, inFlight, pause, queued } = pool;
	const [kind, where] = placed(pool.name);
	const soft = (text) => make("p", { class: "soft" }, text);
	const dimensions = Object.entries(pool.dimensions);
	return make("div", { class: "pool" }, make("h3", { title: pool.name }, kind, " ", make("span", { class: "soft" }, where)), soft(\`\${inFlight}\${allowed === null ? "" : \` of \${allowed}\`} running, \${queued} waiting\`), ...places.filter((place) => place.pool === pool.name).map((place) => soft(placeOf(place, now))), ...pool.measured === void 0 ? [] : [soft(measured(pool.measured))], ...pause === void 0 ? [] : [make("p", { class: "pause" }, \`Paused for \${time(pause.leftMillis)} (\${pause.reason})\`)], ...dimensions.map((entry) => dimensionOf(...entry)), ...pool.known.length === 0 ? [] : [soft(pool.known.map((figure) => known(figure, pool)).join("; "))]);
};
const windowOf = ({ isRejected, models, name, resetsAt, share, slowLane, used }) => {
	const parts = [\`\${percent(Math.min(1, used))} spent\`];
	if (share !== void 0) parts.push(\`\${percent(Math.max(0, share - used))} left of the batches' share of \${percent(share)}\`);
	if (isRejected) parts.push("used up");
	if (resetsAt !== void 0) parts.push(until(resetsAt));
	if (slowLane.calls > 0) parts.push(\`beside it \${dollars(slowLane.dollars)} in the slower lane\`);
	return level("who", {
		name: models === void 0 ? name : \`\${name} (\${models.join(", ")})\`,
		label: \`spent of the window of \${name}\`,
		part: used,
		mark: share,
		isLow: used >= (share ?? .8),
		text: parts.join(", ")
	});
};
const windowsOf = (windows) => [...new Set(windows.map(({ account }) => account))].map((whose) => make("div", { class: "pool" }, ...whose === void 0 ? [] : [make("h3", {}, \`Account \${whose}\`)], ...windows.filter(({ account }) => account === whose).map(windowOf)));
const capOf = ({ dollars: max, held, isReached, name, queued, spent, until: end }) => {
	const parts = [\`\${dollars(spent)} of \${dollars(max)} spent (\${percent(spent / max, 0)})\`];
	if (held > 0) parts.push(\`\${dollars(held)} reserved by running calls\`);
	parts.push(\`\${dollars(Math.max(0, max - spent - held))} free\`);
	if (queued > 0) parts.push(\`\${counted(queued, "call waits", "calls wait")}\`);
	if (isReached) parts.push("reached: calls are refused");
	if (end !== void 0) parts.push(until(end));
	return level("who", {
		name,
		label: \`spent and reserved by \${name}\`,
		part: spent / max,
		held: held / max,
		isLow: isReached || spent / max >= .8,
		text: parts.join(", ")
	});
};
const ofCap = (used, cap) => cap === void 0 ? \`\${used}\` : \`\${used} of \${cap}\`;
const useOf = ({ dollars: cost, tokens, waitedMillis }, { caps, spent } = {}) => [
	\`\${ofCap(compact(spent?.tokens ?? tokens), caps?.tokens && compact(caps.tokens))} tokens\`,
	ofCap(dollars(spent?.dollars ?? cost), caps?.dollars && dollars(caps.dollars)),
	...caps?.calls === void 0 ? [] : [\`\${ofCap(spent?.calls ?? 0, caps.calls)} calls\`],
	\`waited \${time(waitedMillis)}\`
];
const treeOf = (job) => {
	const { agents, atOnce, caps, id, list, name, perHour, refused, spent, stop } = job;
	const parts = [
		\`\${ofCap(agents, caps.agents)} agents\`,
		\`\${ofCap(atOnce, caps.atOnce)} at once\`,
		\`\${ofCap(perHour, caps.perHour)} in the last hour\`,
		...useOf(job, job)
	];
	if (refused > 0) parts.push(\`\${refused} refused\`);
	if (stop !== "none") parts.push(stop === "agents" ? "stopped: no new agents" : "stopped: no calls");
	parts.push(\`id \${id}\`);
	const part = Math.max(agents / (caps.agents ?? Infinity), atOnce / (caps.atOnce ?? Infinity), ...[
		"tokens",
		"dollars",
		"calls"
	].map((unit) => (spent[unit] ?? 0) / (caps[unit] ?? Infinity)));
	const row = level("who", {
		name,
		label: \`caps of \${name}\`,
		part,
		isLow: stop !== "none" || part >= .8,
		text: parts.join(", ")
	});
	const lines = list.map((each) => {
		const { depth, isRunning, name: agent, parent } = each;
		const by = parent === void 0 ? "" : \`, started by \${parent}\`;
		const use = useOf(each).join(", ");
		const line = make("p", { class: "none" }, \`\${agent}\${by}\${isRunning ? "" : " (idle)"}: \${use}\`);
		line.style.marginLeft = \`\${1 + depth}em\`;
		return line;
	});
	const whole = make("details", openTrees.has(id) ? { open: "" } : {}, make("summary", {}, row), ...lines);
	whole.addEventListener("toggle", () => void (whole.hasAttribute("open") ? openTrees.add(id) : openTrees.delete(id)));
	return whole;
};
const openTrees = new Set();
const hour = ({ at: now, minutes }) => {
	const row = (of, what) => {
		const values = minutes.map((minute) => minute[of]);
		const text = \`\${compact(values.reduce((sum, value) => sum + value, 0))} \${what}\`;
		const max = Math.max(0, ...values);
		return make("div", { class: \`row \${of}\` }, make("span", {}, text), hourBars(minutes, now, (minute) => minute[of], \`\${text}; at most \${compact(max)} a minute\`), make("span", { class: "max" }, max > 0 ? \`max \${compact(max)} a minute\` : ""));
	};
	return [
		row("tokens", "tokens"),
		row("rejected", "rejected with 429"),
		row("waited", "calls that had to wait"),
		make("p", { class: "axis" }, make("span", {}, "1 hour ago"), make("span", {}, "now"))
	];
};
const concluded = (event) => {
	switch (event.type) {
		case "cap": return \`\${event.cap}: \${event.isReached ? "reached" : "open again"}, \${dollars(event.left)} of \${dollars(event.limit)} left\`;
		case "place": {
			const { instead, insteadWait } = event;
			const wait = insteadWait === void 0 ? "" : \`\${time(insteadWait)} at \`;
			const elsewhere = {
				failed: \`after a failure at \${instead}\`,
				slow: \`because \${instead} answers slowly\`,
				sooner: \`instead of \${wait}\${instead}\`,
				cheaper: \`instead of \${wait}\${instead}\`
			}[event.why];
			return \`\${event.place}: \${time(event.waited)} \${elsewhere}\`;
		}
		case "rejection": return event.dimension === void 0 ? event.verdict : \`\${event.verdict}, \${names[event.dimension]}\`;
		case "retryDelayed": return "by the retry budget";
		case "retry":
		case "pause": return event.reason;
		case "wait": return "";
	}
};
const untilOf = (event) => "until" in event && event.until !== void 0 ? clock(event.until) : "-";
const section = (name, id, entries, show) => {
	at(name).hidden = entries.length === 0;
	if (entries.length > 0) at(id).replaceChildren(...show(entries));
};
const headline = ({ agents, at: now, caps, minutes, open, pools }) => {
	const sum = (all, of) => all.reduce((sum, one) => sum + of(one), 0);
	const figure = (value, text) => make("div", {}, make("b", {}, value), make("span", {}, text));
	const latest = minutes.at(-1);
	return [
		figure(compact(sum(pools, ({ inFlight }) => inFlight)), "running"),
		figure(compact(sum([...pools, ...caps], ({ queued }) => queued)), "waiting"),
		figure(compact(open), "requests open"),
		figure(compact(latest !== void 0 && now - latest.at < 6e4 ? latest.tokens : 0), "tokens this minute"),
		figure(compact(agents.length), "agents"),
		figure(dollars(sum(minutes, ({ dollars }) => dollars)), "last hour")
	];
};
const waiting = ({ caps, pools }) => [...pools.flatMap(({ name, waiting }) => waiting.map(({ agent, dimension, expectedMillis, job = agent, waitedMillis }) => ({
	agent,
	job,
	awaited: dimension === void 0 ? "a free slot" : names[dimension],
	waitedMillis,
	expectedMillis,
	line: kindOf(name)
}))), ...caps.flatMap(({ name, waiting }) => waiting.map(({ agent, dollars: asked, waitedMillis }) => ({
	agent,
	job: "",
	awaited: dollars(asked),
	waitedMillis,
	expectedMillis: null,
	line: name
})))];
const show = (status) => {
	at("figures").replaceChildren(...headline(status));
	if (status.pools.length > 0) at("pools").replaceChildren(...status.pools.map((pool) => poolOf(pool, status)));
	at("waiting").replaceChildren(table(waiting(status), [
		words("agent", ({ agent }) => agent),
		words("job", ({ job }) => job),
		words("for", ({ awaited }) => awaited),
		figures("waited", ({ waitedMillis }) => time(waitedMillis)),
		figures("expected", ({ expectedMillis }) => time(expectedMillis)),
		words("pool or cap", ({ line }) => line)
	], "No calls are waiting."));
	section("windowed", "windows", status.windows, windowsOf);
	section("capped", "caps", status.caps, (caps) => caps.map(capOf));
	section("grown", "trees", status.trees, (trees) => trees.map(treeOf));
	section("keyed", "keys", status.keys, (keys) => [table(keys, [
		words("key", ({ name }) => name),
		figures("dollars", cost),
		figures("calls", ({ calls }) => calls),
		figures("input", ({ inputTokens }) => inputTokens),
		figures("output", ({ outputTokens }) => outputTokens),
		figures("last", ({ lastAt }) => clock(lastAt))
	])]);
	section("estimated", "estimates", status.estimates, (estimates) => [table(estimates, [
		words("agent or kind", ({ kind }) => kind ?? "all"),
		words("pool", ({ pool }) => kindOf(pool)),
		figures("bytes per token", ({ bytesPerToken }) => bytesPerToken.toFixed(1)),
		figures("answers", ({ answers }) => answers),
		figures("counted", ({ counted }) => counted),
		figures("read from cache", ({ prefixes }) => prefixes === void 0 ? "-" : percent(prefixes.hit, 0)),
		figures("of tokens", ({ prefixes }) => prefixes?.tokens ?? "-"),
		figures("unused for", ({ prefixes }) => time(prefixes?.unusedFor ?? null))
	])]);
	const { jobs, otherJobs } = status;
	const others = otherJobs.jobs === 0 ? [] : [{
		...otherJobs,
		name: \`\${compact(otherJobs.jobs)} others\`,
		caller: ""
	}];
	at("jobs").replaceChildren(table([...jobs, ...others], [
		words("job", ({ name }) => name),
		words("caller", ({ caller }) => caller),
		figures("inferred agents", ({ inferredAgents }) => inferredAgents),
		figures("running", ({ running }) => running),
		figures("waiting", ({ waiting }) => waiting),
		figures("calls", ({ calls }) => calls),
		figures("input", ({ inputTokens }) => inputTokens),
		figures("output", ({ outputTokens }) => outputTokens),
		figures("dollars", cost),
		figures("waited", ({ waitedMillis }) => time(waitedMillis)),
		figures("refused", ({ refused }) => refused),
		figures("failed", ({ failed }) => failed)
	], "No jobs yet."));
	at("agents").replaceChildren(table(status.agents, [
		words("agent", ({ name }) => name),
		figures("calls", ({ calls }) => calls),
		figures("input", ({ inputTokens }) => inputTokens),
		figures("output", ({ outputTokens }) => outputTokens),
		figures("dollars", cost),
		figures("refused", ({ refused }) => refused),
		figures("failed", ({ failed }) => failed),
		figures("last", ({ lastAt }) => clock(lastAt))
	], "No agents yet."));
	at("hour").replaceChildren(...hour(status));
	at("events").replaceChildren(table(status.events, [
		words("when", (event) => clock(event.at)),
		words("what", ({ type }) => type),
		words("concluded", concluded),
		words("agent", (event) => "agent" in event ? event.agent : ""),
		words("pool", ({ pool }) => kindOf(pool)),
		figures("until", untilOf)
	], "None yet."));
};
// packages/gateway/page/tickets.ts
const admin = at("canceller");
const states = { unknown: "unknown outcome" };
let shown = "";
const button = (text, label, body) => make("button", {
	type: "button",
	"aria-label": label,
	"data-cancel": JSON.stringify(body)
}, text);
const rowsOf = (list) => {
	const whole = table(list, [
		words("state", ({ state }) => states[state] ?? state),
		words("until", ({ at }) => new Date(at).toLocaleString()),
		words("key", ({ key }) => key),
		words("agent", ({ agent }) => agent),
		figures("bytes", ({ bytes }) => bytes),
		figures("order", ({ order }) => order)
	]);
	whole.querySelector("tr").append(make("th"));
	for (const [index, row] of Array.from(whole.querySelectorAll("tbody tr")).entries()) {
		const { agent, id, key, state } = list[index];
		const canCancel = state === "waiting" || state === "due";
		const buttons = [button("Cancel", \`Cancel the call of \${agent}\`, { cancel: id }), button("All of its key", \`Cancel all calls of \${key}\`, { cancelKey: key })];
		row.append(make("td", { class: "buttons" }, ...canCancel ? buttons : []));
	}
	return whole;
};
const follow$1 = ({ tickets: { list, total } }) => {
	const now = JSON.stringify(list) + total;
	if (now === shown) return;
	shown = now;
	at("parked").hidden = total === 0;
	if (total === 0) return;
	const more = total - list.length;
	at("parkedNote").textContent = more > 0 ? \`The first of \${compact(total)}.\` : counted(total, "ticket");
	at("tickets").replaceChildren(rowsOf(list));
};
const cancel = async (body, token) => {
	if (admin.value === "") {
		at("cancelError").textContent = "Enter the admin token of the gateway to cancel.";
		return admin.focus();
	}
	at("cancelError").textContent = "";
	const response = await fetch("tickets", {
		method: "POST",
		cache: "no-store",
		headers: {
			"x-floodgate-admin": admin.value.trim(),
			...token === null ? {} : { "x-floodgate-token": token }
		},
		body
	});
	if (response.status === 200) return;
	const { error } = JSON.parse(await response.text());
	at("cancelError").textContent = String(error);
};
const start = (token) => {
	at("cancelling").addEventListener("submit", (event) => event.preventDefault());
	at("tickets").addEventListener("click", (event) => {
		const body = event.target.dataset["cancel"];
		if (body === void 0) return;
		cancel(body, token()).catch(() => void (at("cancelError").textContent = "The gateway does not answer. Try again."));
	});
};
// packages/gateway/page/main.ts
const key = "floodgate-token";
let token = sessionStorage.getItem(key);
const field = at("token");
const say = (text, kind) => {
	at("state").className = kind;
	at("state").textContent = text;
};
const received = (text) => {
	const status = JSON.parse(text);
	show(status);
	follow$2(status);
	follow$3(status);
	follow$1(status);
	const names = status.upstreams.map(({ name }) => name).join(", ");
	say(\`\${names} \\u00b7 \${new Date(status.at).toLocaleTimeString()}\`, "");
};
const ask = (why) => {
	token = null;
	sessionStorage.removeItem(key);
	at("shown").hidden = true;
	at("auth").hidden = false;
	at("wrong").textContent = why;
	say("", "");
	field.focus();
};
const follow = async (states) => {
	let rest = "";
	for await (const text of states.pipeThrough(new TextDecoderStream())) {
		const events = (rest + text).split("\\n\\n");
		rest = events.pop() ?? "";
		const last = events.pop();
		if (last !== void 0) received(last.replace(/^data: /, ""));
	}
};
const tryAgainMillis = 2e3;
const connect = async () => {
	let why = "connection lost, trying again";
	try {
		const response = await fetch("events", {
			cache: "no-store",
			headers: token === null ? {} : { "x-floodgate-token": token }
		});
		if (response.status === 401) return ask(token === null ? "" : "The token is wrong. Try again.");
		if (response.status === 200 && response.body !== null) {
			if (token !== null) sessionStorage.setItem(key, token);
			at("auth").hidden = true;
			at("shown").hidden = false;
			await follow(response.body);
		} else why = await response.text();
	} catch {}
	say(why, "lost");
	setTimeout(connect, tryAgainMillis);
};
at("auth").addEventListener("submit", (event) => {
	event.preventDefault();
	token = field.value.trim();
	field.value = "";
	connect();
});
start$1(() => token);
start(() => token);
connect();
`
