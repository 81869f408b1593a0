/** Shows the state of the gateway in the sections of the page. */
import { about, compact, counted, dollars, percent } from "floodgate/internal/words"
import type { GatewayStatus } from "../src/page/status.ts"
import { at, figures, hourBars, type Id, level, make, table, words } from "./elements.ts"

type Pool = GatewayStatus["pools"][number]
type Measured = NonNullable<Pool["measured"]>
type Event = GatewayStatus["events"][number]
type Dimension = keyof Pool["dimensions"]

// -----------------------------------------------------------------------------
// Figures in words
// -----------------------------------------------------------------------------

/** An amount that the gateway does not know, or that has no bound, is null. */
const amount = (value: number | null): string => (value === null ? "-" : compact(Math.floor(value)))
const time = (millis: number | null): string => (millis === null ? "-" : about(millis / 1_000))
const perMinute = (perSecond: number): string => `${compact(perSecond * 60)} a minute`
const clock = (millis: number): string => new Date(millis).toLocaleTimeString()
const until = (millis: number): string => `until ${new Date(millis).toLocaleString()}`

/** The cost of a model without a price is unknown, and not 0. */
const cost = ({ dollars: known, unpriced }: Pick<GatewayStatus["keys"][number], "dollars" | "unpriced">): string => {
  if (unpriced === 0) return dollars(known)
  return known === 0 ? "no price" : `${dollars(known)} + ${compact(unpriced)} without a price`
}

const names: Readonly<Record<Dimension, string>> = {
  requests: "requests",
  inputTokens: "input tokens",
  outputTokens: "output tokens",
  tokens: "tokens"
}

/** "api.anthropic.com/anthropic/sonnet-5" is sonnet-5 of anthropic. A caller's own key is a hash. */
const placed = (pool: string): readonly [kind: string, where: string] => {
  const [host = "", account, ...kind] = pool.split("/")
  if (account === undefined || !/[.:]/.test(host)) return [pool, ""]
  const whose = /^[0-9a-f]{12}$/.test(account) ? `key ${account.slice(0, 8)}` : account
  return [kind.join("/") || "all models", `${whose} at ${host}`]
}

const kindOf = (pool: string): string => placed(pool)[0]

// -----------------------------------------------------------------------------
// Limits, windows and caps
// -----------------------------------------------------------------------------

const dimensionOf = (dimension: Dimension, status: NonNullable<Pool["dimensions"][Dimension]>): HTMLElement => {
  const { capacity, level: left, limitPerSecond, perSecond } = status
  const part = capacity !== null && capacity > 0 && left !== null ? left / capacity : 1
  const parts = [`${amount(left)} of ${amount(capacity)} left`]
  if (perSecond !== null && perSecond > 0) parts.push(`${perMinute(perSecond)} in use`)
  if (limitPerSecond !== null && limitPerSecond > 0) parts.push(`limit ${perMinute(limitPerSecond)}`)
  const name = names[dimension]
  return level("", { name, label: name, part, isLow: part < 0.1, text: parts.join(", ") })
}

const sources = { stated: "stated", headers: "from headers", rejections: "from rejections" }

/** "input tokens: limit 2M a minute, from headers, 3 s ago". */
const known = ({ ageMillis, dimension, from, value, what }: Pool["known"][number], { dimensions }: Pool): string => {
  const age = ageMillis === undefined ? "" : `, ${time(ageMillis)} ago`
  if (dimension === undefined) return `at most ${compact(value)} in flight, ${sources[from]}${age}`
  // A quota does not refill.
  const figure = dimensions[dimension]?.limitPerSecond === 0 ? `${compact(value)} in all` : perMinute(value)
  return `${names[dimension]}: ${what} ${figure}, ${sources[from]}${age}`
}

const causes = {
  start: "while the server is getting known",
  "first tokens": "by the calls that wait for their first token",
  "whole answers": "by the times of whole answers",
  "lost calls": "by the calls that were lost"
}

/**
 * "Measured: 72 at once, by the calls that wait for their first token: 9 wait, which lately takes 3 s, and 50 ms at best; at most 90 by the
 * calls that were lost, and 256 as stated".
 */
const measured = (status: Measured): string => {
  const { by, ceiling, firstTokenMillis, leastFirstTokenMillis, limit, max, waiting } = status
  const times =
    firstTokenMillis === undefined || leastFirstTokenMillis === undefined
      ? ""
      : `, which lately takes ${time(firstTokenMillis)}, and ${time(leastFirstTokenMillis)} at best`
  const stated = max === undefined ? "" : `, and ${max} as stated`
  return `Measured: ${Math.min(limit, max ?? Infinity)} at once, ${causes[by]}: ${waiting} wait${waiting === 1 ? "s" : ""}${times}; at most ${ceiling} by the calls that were lost${stated}`
}

type Place = GatewayStatus["places"][number]

const states: Readonly<Record<Place["state"], string>> = {
  open: "Calls go here",
  untried: "No answer yet: counts as the best place",
  full: "Full: calls wait here, and at other places",
  slow: "Too slow: calls go elsewhere",
  refused: "Refuses the credential, the model or the bill: calls go elsewhere",
  trial: "A call finds out if it can be used again"
}

/** "Too slow: calls go elsewhere; an answer takes 62 s; tried again after 10:15:00". */
const placeOf = ({ answerMillis, state, triedAt }: Place, now: number): string => {
  const parts = [states[state]]
  if (answerMillis !== undefined) parts.push(`an answer takes ${time(answerMillis)}`)
  if (triedAt !== undefined && state !== "trial") {
    parts.push(triedAt > now ? `tried again after ${clock(triedAt)}` : "tried again by the next calls")
  }
  return parts.join("; ")
}

const poolOf = (pool: Pool, { at: now, places }: GatewayStatus): HTMLElement => {
  const { allowed, inFlight, pause, queued } = pool
  const [kind, where] = placed(pool.name)
  const soft = (text: string): HTMLElement => make("p", { class: "soft" }, text)
  const dimensions = Object.entries(pool.dimensions) as ReadonlyArray<Parameters<typeof dimensionOf>>
  return make(
    "div",
    { class: "pool" },
    make("h3", { title: pool.name }, kind, " ", make("span", { class: "soft" }, where)),
    soft(`${inFlight}${allowed === null ? "" : ` of ${allowed}`} running, ${queued} waiting`),
    ...places.filter((place) => place.pool === pool.name).map((place) => soft(placeOf(place, now))),
    ...(pool.measured === undefined ? [] : [soft(measured(pool.measured))]),
    ...(pause === undefined
      ? []
      : [make("p", { class: "pause" }, `Paused for ${time(pause.leftMillis)} (${pause.reason})`)]),
    ...dimensions.map((entry) => dimensionOf(...entry)),
    ...(pool.known.length === 0 ? [] : [soft(pool.known.map((figure) => known(figure, pool)).join("; "))])
  )
}

const windowOf = ({
  isRejected,
  models,
  name,
  resetsAt,
  share,
  slowLane,
  used
}: GatewayStatus["windows"][number]): HTMLElement => {
  const parts = [`${percent(Math.min(1, used))} spent`]
  if (share !== undefined)
    parts.push(`${percent(Math.max(0, share - used))} left of the batches' share of ${percent(share)}`)
  if (isRejected) parts.push("used up")
  if (resetsAt !== undefined) parts.push(until(resetsAt))
  if (slowLane.calls > 0) parts.push(`beside it ${dollars(slowLane.dollars)} in the slower lane`)
  return level("who", {
    name: models === undefined ? name : `${name} (${models.join(", ")})`,
    label: `spent of the window of ${name}`,
    part: used,
    mark: share,
    isLow: used >= (share ?? 0.8),
    text: parts.join(", ")
  })
}

/** The windows of each account, whose name is a hash. */
const windowsOf = (windows: GatewayStatus["windows"]): ReadonlyArray<HTMLElement> =>
  [...new Set(windows.map(({ account }) => account))].map((whose) =>
    make(
      "div",
      { class: "pool" },
      ...(whose === undefined ? [] : [make("h3", {}, `Account ${whose}`)]),
      ...windows.filter(({ account }) => account === whose).map(windowOf)
    )
  )

const capOf = ({
  dollars: max,
  held,
  isReached,
  name,
  queued,
  spent,
  until: end
}: GatewayStatus["caps"][number]): HTMLElement => {
  const parts = [`${dollars(spent)} of ${dollars(max)} spent (${percent(spent / max, 0)})`]
  if (held > 0) parts.push(`${dollars(held)} reserved by running calls`)
  parts.push(`${dollars(Math.max(0, max - spent - held))} free`)
  if (queued > 0) parts.push(`${counted(queued, "call waits", "calls wait")}`)
  if (isReached) parts.push("reached: calls are refused")
  if (end !== undefined) parts.push(until(end))
  return level("who", {
    name,
    label: `spent and reserved by ${name}`,
    part: spent / max,
    held: held / max,
    isLow: isReached || spent / max >= 0.8,
    text: parts.join(", ")
  })
}

type JobShown = GatewayStatus["trees"][number]

const ofCap = (used: number | string, cap: number | string | undefined): string =>
  cap === undefined ? `${used}` : `${used} of ${cap}`

/** The use of a job or an agent, in words. */
const useOf = (
  { dollars: cost, tokens, waitedMillis }: Pick<JobShown, "dollars" | "tokens" | "waitedMillis">,
  { caps, spent }: Partial<Pick<JobShown, "caps" | "spent">> = {}
): ReadonlyArray<string> => [
  `${ofCap(compact(spent?.tokens ?? tokens), caps?.tokens && compact(caps.tokens))} tokens`,
  ofCap(dollars(spent?.dollars ?? cost), caps?.dollars && dollars(caps.dollars)),
  ...(caps?.calls === undefined ? [] : [`${ofCap(spent?.calls ?? 0, caps.calls)} calls`]),
  `waited ${time(waitedMillis)}`
]

/** The agents of a job, each below the one that started it. */
const treeOf = (job: JobShown): HTMLElement => {
  const { agents, atOnce, caps, id, list, name, perHour, refused, spent, stop } = job
  const parts = [
    `${ofCap(agents, caps.agents)} agents`,
    `${ofCap(atOnce, caps.atOnce)} at once`,
    `${ofCap(perHour, caps.perHour)} in the last hour`,
    ...useOf(job, job)
  ]
  if (refused > 0) parts.push(`${refused} refused`)
  if (stop !== "none") parts.push(stop === "agents" ? "stopped: no new agents" : "stopped: no calls")
  parts.push(`id ${id}`)
  const part = Math.max(
    agents / (caps.agents ?? Infinity),
    atOnce / (caps.atOnce ?? Infinity),
    ...(["tokens", "dollars", "calls"] as const).map((unit) => (spent[unit] ?? 0) / (caps[unit] ?? Infinity))
  )
  const row = level("who", {
    name,
    label: `caps of ${name}`,
    part,
    isLow: stop !== "none" || part >= 0.8,
    text: parts.join(", ")
  })
  const lines = list.map((each) => {
    const { depth, isRunning, name: agent, parent } = each
    const by = parent === undefined ? "" : `, started by ${parent}`
    const use = useOf(each).join(", ")
    const line = make("p", { class: "none" }, `${agent}${by}${isRunning ? "" : " (idle)"}: ${use}`)
    line.style.marginLeft = `${1 + depth}em`
    return line
  })
  const whole = make("details", openTrees.has(id) ? { open: "" } : {}, make("summary", {}, row), ...lines)
  whole.addEventListener("toggle", () => void (whole.hasAttribute("open") ? openTrees.add(id) : openTrees.delete(id)))
  return whole
}

/** The jobs whose agents are shown. The page is drawn anew every second. */
const openTrees = new Set<string>()

// -----------------------------------------------------------------------------
// The last hour, and events
// -----------------------------------------------------------------------------

const hour = ({ at: now, minutes }: GatewayStatus): ReadonlyArray<HTMLElement> => {
  const row = (of: "tokens" | "rejected" | "waited", what: string): HTMLElement => {
    const values = minutes.map((minute) => minute[of])
    const text = `${compact(values.reduce((sum, value) => sum + value, 0))} ${what}`
    const max = Math.max(0, ...values)
    return make(
      "div",
      { class: `row ${of}` },
      make("span", {}, text),
      hourBars(minutes, now, (minute) => minute[of], `${text}; at most ${compact(max)} a minute`),
      make("span", { class: "max" }, max > 0 ? `max ${compact(max)} a minute` : "")
    )
  }
  return [
    row("tokens", "tokens"),
    row("rejected", "rejected with 429"),
    row("waited", "calls that had to wait"),
    make("p", { class: "axis" }, make("span", {}, "1 hour ago"), make("span", {}, "now"))
  ]
}

const concluded = (event: Event): string => {
  switch (event.type) {
    case "cap":
      return `${event.cap}: ${event.isReached ? "reached" : "open again"}, ${dollars(event.left)} of ${dollars(event.limit)} left`
    case "place": {
      // How much sooner the place was: "azure: 0.2 s instead of 14 s at openai".
      const { instead, insteadWait } = event
      const wait = insteadWait === undefined ? "" : `${time(insteadWait)} at `
      const elsewhere = {
        failed: `after a failure at ${instead}`,
        slow: `because ${instead} answers slowly`,
        sooner: `instead of ${wait}${instead}`,
        cheaper: `instead of ${wait}${instead}`
      }[event.why]
      return `${event.place}: ${time(event.waited)} ${elsewhere}`
    }
    case "rejection":
      return event.dimension === undefined ? event.verdict : `${event.verdict}, ${names[event.dimension]}`
    case "retryDelayed":
      return "by the retry budget"
    case "retry":
    case "pause":
      return event.reason
    case "wait":
      return ""
  }
}

const untilOf = (event: Event): string => ("until" in event && event.until !== undefined ? clock(event.until) : "-")

// -----------------------------------------------------------------------------
// The whole page
// -----------------------------------------------------------------------------

/** A section is hidden while it has nothing to show. */
const section = <A>(
  name: Id,
  id: Id,
  entries: ReadonlyArray<A>,
  show: (entries: ReadonlyArray<A>) => ReadonlyArray<HTMLElement>
): void => {
  at(name).hidden = entries.length === 0
  if (entries.length > 0) at(id).replaceChildren(...show(entries))
}

const headline = ({ agents, at: now, caps, minutes, open, pools }: GatewayStatus): ReadonlyArray<HTMLElement> => {
  const sum = <A>(all: ReadonlyArray<A>, of: (one: A) => number): number => all.reduce((sum, one) => sum + of(one), 0)
  const figure = (value: string, text: string): HTMLElement =>
    make("div", {}, make("b", {}, value), make("span", {}, text))
  const latest = minutes.at(-1)
  return [
    figure(compact(sum(pools, ({ inFlight }) => inFlight)), "running"),
    figure(compact(sum([...pools, ...caps], ({ queued }) => queued)), "waiting"),
    figure(compact(open), "requests open"),
    figure(compact(latest !== undefined && now - latest.at < 60_000 ? latest.tokens : 0), "tokens this minute"),
    figure(compact(agents.length), "agents"),
    figure(dollars(sum(minutes, ({ dollars }) => dollars)), "last hour")
  ]
}

/** The calls that wait for a limit, and those that wait for money. */
const waiting = ({ caps, pools }: GatewayStatus) => [
  ...pools.flatMap(({ name, waiting }) =>
    waiting.map(({ agent, dimension, expectedMillis, job = agent, waitedMillis }) => ({
      agent,
      job,
      awaited: dimension === undefined ? "a free slot" : names[dimension],
      waitedMillis,
      expectedMillis,
      line: kindOf(name)
    }))
  ),
  ...caps.flatMap(({ name, waiting }) =>
    waiting.map(({ agent, dollars: asked, waitedMillis }) => ({
      agent,
      job: "",
      awaited: dollars(asked),
      waitedMillis,
      expectedMillis: null,
      line: name
    }))
  )
]

/** Shows a state of the gateway instead of the one before. */
export const show = (status: GatewayStatus): void => {
  at("figures").replaceChildren(...headline(status))
  if (status.pools.length > 0) at("pools").replaceChildren(...status.pools.map((pool) => poolOf(pool, status)))
  at("waiting").replaceChildren(
    table(
      waiting(status),
      [
        words("agent", ({ agent }) => agent),
        words("job", ({ job }) => job),
        words("for", ({ awaited }) => awaited),
        figures("waited", ({ waitedMillis }) => time(waitedMillis)),
        figures("expected", ({ expectedMillis }) => time(expectedMillis)),
        words("pool or cap", ({ line }) => line)
      ],
      "No calls are waiting."
    )
  )
  section("windowed", "windows", status.windows, windowsOf)
  section("capped", "caps", status.caps, (caps) => caps.map(capOf))
  section("grown", "trees", status.trees, (trees) => trees.map(treeOf))
  section("keyed", "keys", status.keys, (keys) => [
    table(keys, [
      words("key", ({ name }) => name),
      figures("dollars", cost),
      figures("calls", ({ calls }) => calls),
      figures("input", ({ inputTokens }) => inputTokens),
      figures("output", ({ outputTokens }) => outputTokens),
      figures("last", ({ lastAt }) => clock(lastAt))
    ])
  ])
  section("estimated", "estimates", status.estimates, (estimates) => [
    table(estimates, [
      words("agent or kind", ({ kind }) => kind ?? "all"),
      words("pool", ({ pool }) => kindOf(pool)),
      figures("bytes per token", ({ bytesPerToken }) => bytesPerToken.toFixed(1)),
      figures("answers", ({ answers }) => answers),
      figures("counted", ({ counted }) => counted),
      figures("read from cache", ({ prefixes }) => (prefixes === undefined ? "-" : percent(prefixes.hit, 0))),
      figures("of tokens", ({ prefixes }) => prefixes?.tokens ?? "-"),
      figures("unused for", ({ prefixes }) => time(prefixes?.unusedFor ?? null))
    ])
  ])
  const { jobs, otherJobs } = status
  const others = otherJobs.jobs === 0 ? [] : [{ ...otherJobs, name: `${compact(otherJobs.jobs)} others`, caller: "" }]
  at("jobs").replaceChildren(
    table(
      [...jobs, ...others],
      [
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
      ],
      "No jobs yet."
    )
  )
  at("agents").replaceChildren(
    table(
      status.agents,
      [
        words("agent", ({ name }) => name),
        figures("calls", ({ calls }) => calls),
        figures("input", ({ inputTokens }) => inputTokens),
        figures("output", ({ outputTokens }) => outputTokens),
        figures("dollars", cost),
        figures("refused", ({ refused }) => refused),
        figures("failed", ({ failed }) => failed),
        figures("last", ({ lastAt }) => clock(lastAt))
      ],
      "No agents yet."
    )
  )
  at("hour").replaceChildren(...hour(status))
  at("events").replaceChildren(
    table(
      status.events,
      [
        words("when", (event) => clock(event.at)),
        words("what", ({ type }) => type),
        words("concluded", concluded),
        words("agent", (event) => ("agent" in event ? event.agent : "")),
        words("pool", ({ pool }) => kindOf(pool)),
        figures("until", untilOf)
      ],
      "None yet."
    )
  )
}
