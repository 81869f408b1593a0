/** The script of the page, bundled from packages/lab/page by `npm run page`. Edit it there. */
export const script = `// src/domain/words.ts
const thousands = (value) => value.toLocaleString("en-US");
const glance = new Intl.NumberFormat("en-US", {
	notation: "compact",
	maximumSignificantDigits: 3
});
const compact = (value) => glance.format(value);
const percent = (part, digits = 1) => \`\${round(100 * part, digits)} %\`;
const seconds = (value) => \`\${value.toFixed(1)} s\`;
const round = (value, digits = 3) => {
	const scale = 10 ** digits;
	return Math.round(value * scale) / scale;
};
// packages/lab/src/report/charts.ts
const kitOf = (library) => {
	const Plot = library;
	const palette = [
		1,
		2,
		3,
		4,
		5,
		6,
		7,
		8
	].map((number) => \`var(--c\${number})\`);
	const narrow = (place) => place.width < 520;
	const room = {
		marginTop: 30,
		marginBottom: 42
	};
	const along = {
		label: "seconds",
		labelOffset: 38,
		zero: true
	};
	const halo = {
		stroke: "var(--panel)",
		strokeWidth: 9,
		strokeLinejoin: "round"
	};
	const tipOf = (place, title) => place.document === void 0 ? {
		title,
		tip: {
			fill: "var(--paper)",
			stroke: "var(--line)",
			lineHeight: 1.3,
			fontSize: 12
		}
	} : {};
	const base = (place) => ({
		width: place.width,
		document: place.document,
		style: {
			background: "transparent",
			color: "var(--ink)",
			fontFamily: "system-ui, sans-serif",
			fontSize: "12px"
		}
	});
	const draw = (options) => Plot.plot(options);
	return {
		Plot,
		palette,
		narrow,
		room,
		along,
		halo,
		tipOf,
		base,
		draw
	};
};
const barsOf = ({ narrow }, { calls, floorSeconds, results }, place) => {
	const longest = Math.max(...results.map((result) => result.makespanSeconds));
	const max = floorSeconds > 0 ? Math.min(longest, 6 * floorSeconds) : longest;
	const done = (result) => result.finished && result.failedCalls === 0;
	const end = (result) => Math.min(result.makespanSeconds, max);
	const label = (result) => {
		const time = seconds(result.makespanSeconds);
		if (done(result)) return time;
		const missing = \`\${thousands(result.failedCalls)} \${result.finished ? "lost" : "open"}\`;
		if (narrow(place)) return \`\${missing}, \${time}\`;
		return \`\${missing} of \${thousands(calls)}, \${result.finished ? "ended after" : "stopped after"} \${time}\`;
	};
	const color = (result) => {
		if (!done(result)) return "var(--bad)";
		return result.strategy === "floodgate" ? "var(--good)" : "var(--c1)";
	};
	const inside = (result) => end(result) > (narrow(place) ? .45 : .6) * max;
	return {
		max,
		done,
		end,
		label,
		color,
		inside
	};
};
const floorMarks = ({ Plot }, floorSeconds) => {
	const floor = floorSeconds > 0 ? [floorSeconds] : [];
	return [Plot.ruleX(floor, {
		stroke: "var(--ink)",
		strokeDasharray: "3,3"
	}), Plot.text(floor, {
		x: (value) => value,
		text: (value) => \`floor \${seconds(value)}\`,
		frameAnchor: "top",
		dy: -14,
		fill: "var(--muted)"
	})];
};
const makespan = (kit, figures, place) => {
	const { floorSeconds, results } = figures;
	const { Plot, narrow, room, along, halo, tipOf, base, draw } = kit;
	const { color, done, end, inside, label, max } = barsOf(kit, figures, place);
	const text = (inner, full) => Plot.text(results.filter((result) => inside(result) === inner && (inner ? done(result) === full : full)), {
		y: "strategy",
		x: end,
		text: label,
		textAnchor: inner ? "end" : "start",
		dx: inner ? -6 : 6,
		fill: inner && full ? "var(--on)" : "var(--ink)",
		...inner ? {} : halo
	});
	const bar = {
		y: "strategy",
		x: end,
		rx: 2,
		insetTop: 2,
		insetBottom: 2,
		...tipOf(place, (result) => \`\${result.strategy}: \${label(result)}\\n\${thousands(result.rejections)} 429s, \${thousands(result.retries)} retries\`)
	};
	return draw({
		...base(place),
		height: 66 + 24 * results.length,
		marginLeft: narrow(place) ? 138 : 150,
		marginRight: 16,
		marginTop: 20,
		marginBottom: room.marginBottom,
		x: {
			domain: [0, max],
			label: along.label,
			labelOffset: along.labelOffset,
			ticks: narrow(place) ? 4 : 8,
			nice: false
		},
		y: {
			domain: results.map((result) => result.strategy),
			label: null,
			tickSize: 0
		},
		marks: [
			Plot.barX(results.filter(done), {
				...bar,
				fill: color
			}),
			Plot.barX(results.filter((result) => !done(result)), {
				...bar,
				fill: color,
				fillOpacity: .12,
				stroke: color,
				strokeDasharray: "4,3"
			}),
			Plot.text(results.filter((result) => result.makespanSeconds > max), {
				y: "strategy",
				x: max,
				dx: 2,
				text: () => "//",
				fontSize: 20,
				fontWeight: "bold",
				fill: "var(--panel)",
				stroke: "var(--ink)",
				strokeWidth: 1
			}),
			...floorMarks(kit, floorSeconds),
			text(true, true),
			text(true, false),
			text(false, true)
		]
	});
};
const levels = (kit, { dimension }, { levels }, place) => {
	const { Plot, room, along, tipOf, base, draw } = kit;
	const known = levels.filter((level) => level.provider !== null);
	const believed = levels.filter((level) => level.budget !== null);
	const tip = tipOf(place, ({ at, budget, provider }) => [
		\`after \${seconds(at)}\`,
		...provider === null ? [] : [\`\${thousands(provider)} at the provider\`],
		...budget === null ? [] : [\`\${thousands(budget)} in the budget\`]
	].join("\\n"));
	return draw({
		...base(place),
		...room,
		height: 242,
		marginLeft: 52,
		x: {
			...along,
			nice: false
		},
		y: {
			label: \`\${dimension} left\`,
			tickFormat: compact,
			ticks: 5,
			grid: true
		},
		marks: [
			Plot.ruleY([0], { stroke: "var(--line)" }),
			Plot.areaY(known, {
				x: "at",
				y1: 0,
				y2: "provider",
				fill: "var(--c1)",
				fillOpacity: .18
			}),
			Plot.lineY(known, {
				x: "at",
				y: "provider",
				stroke: "var(--c1)",
				strokeWidth: 1.5,
				...tip
			}),
			Plot.lineY(believed, {
				x: "at",
				y: "budget",
				stroke: "var(--c2)",
				strokeWidth: 1.5,
				strokeDasharray: "4,3",
				...known.length === 0 ? tip : {}
			})
		]
	});
};
const rate = (kit, { dimension, limitPerSecond }, { inUse, rates }, place) => {
	const { Plot, room, along, halo, tipOf, base, draw } = kit;
	return draw({
		...base(place),
		...room,
		height: 242,
		marginLeft: 52,
		x: along,
		y: {
			label: \`\${dimension} admitted a second\`,
			tickFormat: compact,
			ticks: 5,
			grid: true,
			zero: true
		},
		marks: [
			Plot.rectY(rates, {
				x1: "from",
				x2: "to",
				y: "perSecond",
				fill: "var(--c1)",
				insetLeft: .5,
				insetRight: .5,
				...tipOf(place, ({ from, perSecond, to }) => \`\${seconds(from)} to \${seconds(to)}\\n\${thousands(perSecond)} \${dimension} a second\`)
			}),
			Plot.ruleY([0], { stroke: "var(--line)" }),
			Plot.ruleY(limitPerSecond > 0 ? [limitPerSecond] : [], {
				stroke: "var(--bad)",
				strokeDasharray: "4,3"
			}),
			Plot.text(limitPerSecond > 0 ? [limitPerSecond] : [], {
				y: (value) => value,
				text: (value) => \`limit \${compact(value)}/s\`,
				frameAnchor: "right",
				textAnchor: "end",
				dy: -8,
				fill: "var(--bad)",
				...halo
			}),
			Plot.lineY(inUse, {
				x: "at",
				y: "perSecond",
				stroke: "var(--c2)",
				strokeWidth: 1.5,
				curve: "step-after"
			})
		]
	});
};
const gantt = (kit, { agents }, { bars, resumed }, place) => {
	const { Plot, room, along, tipOf, base, draw } = kit;
	const of = (what) => bars.filter((bar) => bar.what === what);
	const does = {
		waits: "waits",
		runs: "call runs",
		failed: "request fails",
		rejected: "429",
		earlier: "call of an earlier run, waits included",
		pauses: "pauses for its tools"
	};
	const tip = tipOf(place, ({ agent, from, to, what }) => {
		const when = what === "rejected" ? \`after \${seconds(from)}\` : \`\${seconds(from)} to \${seconds(to)}\`;
		return \`\${agent}: \${does[what]}\\n\${when}\`;
	});
	const few = agents.length <= 24;
	const named = few ? agents : agents.filter((_, index) => index % 3 === 0);
	const inset = few ? 3 : .5;
	const bar = (what, look) => Plot.barX(of(what), {
		y: "agent",
		x1: "from",
		x2: "to",
		insetTop: inset,
		insetBottom: inset,
		...look,
		...tip
	});
	return draw({
		...base(place),
		marginTop: resumed.length === 0 ? 10 : 20,
		marginBottom: room.marginBottom,
		height: (resumed.length === 0 ? 52 : 62) + agents.length * (few ? 18 : 5),
		marginLeft: Math.max(70, 10 + 7 * Math.max(...named.map((agent) => Math.min(agent.length, 20)))),
		x: along,
		y: {
			domain: agents,
			label: null,
			tickSize: 0,
			ticks: named
		},
		marks: [
			Plot.ruleY(of("pauses"), {
				y: "agent",
				x1: "from",
				x2: "to",
				stroke: "var(--line)",
				...tip
			}),
			bar("waits", {
				fill: "var(--wait)",
				...of("pauses").length === 0 ? {
					insetTop: inset * 2,
					insetBottom: inset * 2
				} : {}
			}),
			bar("earlier", { fill: "var(--early)" }),
			bar("runs", {
				fill: "var(--c1)",
				rx: few ? 2 : 0
			}),
			bar("failed", { fill: "var(--bad)" }),
			Plot.dot(of("rejected"), {
				y: "agent",
				x: "from",
				r: few ? 2.5 : 1.2,
				fill: "var(--bad)",
				fillOpacity: .8,
				...tip
			}),
			Plot.ruleX(resumed, {
				stroke: "var(--ink)",
				strokeDasharray: "2,3"
			}),
			Plot.text(resumed, {
				x: (at) => at,
				text: () => "resumed",
				frameAnchor: "top",
				textAnchor: "start",
				dx: 4,
				dy: -10,
				fill: "var(--muted)"
			})
		]
	});
};
const latency = (kit, { runs }, place) => {
	const { Plot, palette, narrow, room, along, tipOf, base, draw } = kit;
	const minSeconds = .01;
	const some = runs.filter((run) => run.latencies.length > 0);
	const longest = Math.max(...some.map((run) => run.latencies.at(-1)));
	const shortest = Math.min(...some.map((run) => Math.max(minSeconds, run.latencies[0])));
	const domain = [10 ** Math.floor(Math.log10(shortest)), 10 ** Math.ceil(Math.log10(longest * 1.001))];
	const drawn = some.toSorted((a, b) => Number(b.strategy === "floodgate") - Number(a.strategy === "floodgate"));
	const unit = drawn.length > 5 ? 4 : 6;
	const period = unit * drawn.length;
	const points = ({ done, latencies, planned }) => {
		const line = latencies.map((seconds, index) => ({
			seconds: Math.max(minSeconds, seconds),
			share: (index + 1) / latencies.length * done / planned
		}));
		return done < planned ? [...line, {
			...line.at(-1),
			seconds: domain[1]
		}] : line;
	};
	return draw({
		...base(place),
		...room,
		height: 262,
		marginLeft: 44,
		marginRight: 16,
		x: {
			type: "log",
			domain,
			label: narrow(place) ? "latency in seconds (log scale)" : "latency in seconds (log scale), waits included",
			labelOffset: along.labelOffset,
			tickFormat: compact,
			ticks: narrow(place) ? 3 : 6,
			grid: true
		},
		y: {
			label: "% of all calls done",
			percent: true,
			grid: true,
			domain: [0, 100]
		},
		marks: drawn.map((run, index) => Plot.lineY(points(run), {
			x: "seconds",
			y: "share",
			stroke: palette[some.indexOf(run) % palette.length],
			strokeWidth: 1.8,
			...index > 0 && { strokeDasharray: \`\${period - unit * index},\${unit * index}\` },
			curve: "step-after",
			...tipOf(place, ({ seconds: at, share }) => \`\${run.strategy}\\n\${percent(share, 0)} of all calls within \${seconds(at)}\`)
		}))
	});
};
const study = (kit, measured, of, place) => {
	const { Plot, palette, room, along, base, draw } = kit;
	const jitters = [...new Set(measured.map((one) => one.jitter))];
	const shown = of === "millis" ? measured.filter((one) => one.jitter !== "none") : measured;
	const last = Math.max(...measured.map((one) => one.clients));
	const ends = shown.filter((one) => one.clients === last).toSorted((a, b) => a[of] - b[of]);
	const range = Math.max(...shown.map((one) => one[of]));
	let lowest = -Infinity;
	const labels = ends.map((one) => {
		lowest = Math.max(one[of], lowest + range * .055);
		return {
			...one,
			at: lowest
		};
	});
	return draw({
		...base(place),
		...room,
		height: 342,
		marginLeft: 56,
		marginRight: 96,
		x: {
			label: "clients",
			labelOffset: along.labelOffset,
			domain: [10, last]
		},
		y: {
			label: of === "work" ? "writes tried by all" : "seconds until all have written",
			grid: true,
			tickFormat: of === "work" ? compact : (value) => \`\${value / 1e3}\`
		},
		color: {
			domain: jitters,
			range: palette
		},
		marks: [
			Plot.ruleY([0], { stroke: "var(--line)" }),
			Plot.lineY(shown, {
				x: "clients",
				y: of,
				stroke: "jitter",
				strokeWidth: 1.8
			}),
			Plot.text(labels, {
				x: "clients",
				y: "at",
				text: "jitter",
				fill: "jitter",
				textAnchor: "start",
				dx: 6
			})
		]
	});
};
const make = (library) => {
	const kit = kitOf(library);
	return {
		palette: kit.palette,
		makespan: (figures, place) => makespan(kit, figures, place),
		levels: (figures, run, place) => levels(kit, figures, run, place),
		rate: (figures, run, place) => rate(kit, figures, run, place),
		gantt: (figures, run, place) => gantt(kit, figures, run, place),
		latency: (figures, place) => latency(kit, figures, place),
		study: (measured, of, place) => study(kit, measured, of, place)
	};
};
// packages/lab/src/report/packed.ts
const whats = [
	"waits",
	"runs",
	"rejected",
	"failed",
	"earlier",
	"pauses"
];
const unpack = (packed) => {
	const times = (deltas) => {
		let at = 0;
		return deltas.map((delta) => (at += delta) / 1e3);
	};
	const barsOf = (agent, numbers) => {
		const bars = [];
		let at = 0;
		for (let i = 0; i < numbers.length; i += 3) {
			const from = at + numbers[i + 1];
			at = from + numbers[i + 2];
			bars.push({
				agent,
				what: whats[numbers[i]],
				from: from / 1e3,
				to: at / 1e3
			});
		}
		return bars;
	};
	const { drawn, ...figures } = packed;
	return {
		...figures,
		runs: packed.runs.map((run) => {
			const [levelsAt, provider, budget] = run.levels;
			const [lengths, rates] = run.rates;
			const ends = times(lengths);
			const [inUseAt, inUse] = run.inUse;
			return {
				...run,
				bars: drawn.flatMap((agent, index) => barsOf(agent, run.bars[index])),
				levels: times(levelsAt).map((at, index) => ({
					at,
					provider: provider[index],
					budget: budget[index]
				})),
				rates: ends.map((to, index) => ({
					from: ends[index - 1] ?? 0,
					to,
					perSecond: rates[index]
				})),
				inUse: times(inUseAt).map((at, index) => ({
					at,
					perSecond: inUse[index]
				}))
			};
		})
	};
};
// packages/lab/page/main.ts
const { figures: packed, tables: results } = JSON.parse(document.getElementById("figures").textContent);
const figures = packed.map(unpack);
const charts = make(Plot);
const chosen = figures.map(({ runs }) => Math.max(0, runs.findIndex(({ strategy }) => strategy === "floodgate")));
const runOf = (scenario) => figures[scenario].runs[chosen[scenario]];
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const drawn = (place, width) => {
	const scenario = Number(place.dataset["scenario"]);
	const run = runOf(scenario);
	const name = place.dataset["chart"];
	if (name === "makespan" || name === "latency") return charts[name](figures[scenario], { width });
	return run === void 0 ? void 0 : charts[name](figures[scenario], run, { width });
};
const draw = (place) => {
	const width = Math.floor(place.clientWidth);
	if (width < 40 || place.closest("details:not([open])") !== null) return;
	const element = drawn(place, width);
	if (element instanceof Element) place.replaceChildren(element);
	place.dataset["width"] = \`\${width}\`;
};
const places = all("[data-chart]");
for (const place of places) draw(place);
const isStale = ({ clientWidth, dataset }) => dataset["width"] !== \`\${Math.floor(clientWidth)}\`;
const resized = new ResizeObserver((entries) => {
	for (const { target } of entries) if (target instanceof HTMLElement && isStale(target)) draw(target);
});
for (const place of places) resized.observe(place);
for (const details of all("details.scenario")) details.addEventListener("toggle", () => {
	for (const place of all("[data-chart]", details)) draw(place);
});
const tables = {
	calls: ({ bars }) => ({
		heads: [
			"agent",
			"what",
			"from (s)",
			"to (s)"
		],
		rows: bars.map(({ agent, from, to, what }) => [
			agent,
			what,
			from,
			to
		])
	}),
	left: ({ levels }) => ({
		heads: [
			"at (s)",
			"at the provider",
			"in the budget"
		],
		rows: levels.map(({ at, budget, provider }) => [
			at,
			provider,
			budget
		])
	}),
	rates: ({ rates }) => ({
		heads: [
			"from (s)",
			"to (s)",
			"admitted a second"
		],
		rows: rates.map(({ from, perSecond, to }) => [
			from,
			to,
			perSecond
		])
	}),
	latencies: ({ latencies }) => ({
		heads: ["latency (s)"],
		rows: latencies.map((seconds) => [seconds])
	})
};
const maxRows = 500;
const csvOf = ({ heads, rows }) => {
	const quoted = (cell) => /[",\\n]/.test(cell) ? \`"\${cell.replaceAll("\\"", "\\"\\"")}"\` : cell;
	return [heads, ...rows].map((row) => \`\${row.map((cell) => quoted(\`\${cell ?? ""}\`)).join(",")}\\n\`).join("");
};
const rowOf = (tag, cells) => {
	const row = document.createElement("tr");
	for (const cell of cells) {
		const element = document.createElement(tag);
		element.textContent = \`\${cell ?? ""}\`;
		row.append(element);
	}
	return row;
};
const tabulate = (details) => {
	const scenario = Number(details.dataset["figures"]);
	const kind = details.querySelector("select").value;
	const run = runOf(scenario);
	const of = tables[kind];
	const table = of === void 0 || run === void 0 ? results[scenario] : of(run);
	const rows = table.rows.slice(0, maxRows).map((row) => rowOf("td", row));
	details.querySelector("table").replaceChildren(rowOf("th", table.heads), ...rows);
	const count = table.rows.length;
	details.querySelector(".count").textContent = count > maxRows ? \`The first \${maxRows} of \${count} rows; the file has all.\` : "";
	const link = details.querySelector("a");
	URL.revokeObjectURL(link.href);
	link.href = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv" }));
	const whose = of === void 0 || run === void 0 ? [] : [run.strategy];
	link.download = \`\${[
		figures[scenario].name,
		...whose,
		kind
	].join("-").replaceAll(" ", "-")}.csv\`;
};
for (const details of all("details.figures")) {
	details.addEventListener("toggle", () => {
		if (details.open) tabulate(details);
	});
	details.querySelector("select").addEventListener("change", () => tabulate(details));
}
for (const select of all("select[data-scenario]")) {
	const { scenario } = select.dataset;
	select.addEventListener("change", () => {
		chosen[Number(scenario)] = Number(select.value);
		for (const place of places) if (place.dataset["scenario"] === scenario) draw(place);
		for (const details of all(\`details.figures[open][data-figures="\${scenario}"]\`)) tabulate(details);
	});
}
const unfold = () => {
	const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
	if (!(named instanceof HTMLDetailsElement)) return;
	named.open = true;
	named.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
document.documentElement.dataset["drawn"] = "true";
`
