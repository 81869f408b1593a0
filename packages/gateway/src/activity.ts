/** The figures of a gateway, for its metrics and its page. They hold neither content nor keys. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type * as Accounting from "floodgate/Accounting"
import type * as Events from "floodgate/Events"
import { Amounts, Lru } from "floodgate/internal"
import type { Bill, Payer } from "./callers.ts"
import { Jobs } from "./jobs.ts"
import type { KeyDenial } from "./keys.ts"
import type { AgentActivity, KeyActivity, Minute, PressureMinute } from "./page/status.ts"
import type { SharedCap } from "./purses.ts"
import { bounded, counterOf, type Mutable } from "./series.ts"

/** The end of a request. */
export interface RequestEnd {
  readonly upstream: string
  readonly outcome: "answered" | "passed" | "refused" | "failed" | "hung up"
  /** The agent of a governed call; undefined for any other request. */
  readonly agent?: string | undefined
}

const unused: KeyActivity = { calls: 0, inputTokens: 0, outputTokens: 0, dollars: 0, unpriced: 0, lastAt: 0 }

/** More than the page shows. The least recently active agents are evicted. */
const maxAgents = 1_000
const maxEvents = 50
const maxMinutes = 60
const minute = 60_000
/** Counters are never removed from the registry, so the number of their labels is bounded. */
const maxSpenders = 100
const maxBilled = 1_000

type BillLabels = { readonly key: string; readonly rule: string; readonly model: string }

const otherBills: BillLabels = { key: "other", rule: "other", model: "other" }

/** The counters of one kind of bill. A counter enters the registry with its first update. */
interface BillSeries {
  readonly input: Metric.Counter<number>
  readonly output: Metric.Counter<number>
  readonly dollars: Metric.Counter<number>
}

const billSeries = (labels: BillLabels): BillSeries => {
  const tokens = (direction: string) =>
    counterOf("floodgate_gateway_tokens", "Tokens of calls, by key, rule, model and direction", {
      ...labels,
      direction
    })
  return {
    input: tokens("input"),
    output: tokens("output"),
    dollars: counterOf("floodgate_gateway_cost_dollars", "What calls cost in dollars, by key, rule and model", labels)
  }
}

const spenderSeries = (agent: string): Metric.Counter<number> =>
  counterOf("floodgate_gateway_dollars", "What calls cost in dollars, by agent", { agent })

/** Returns the entry of the current minute, and adds it if it is new. Only the last hour is kept. */
const minuteOf = <A extends { readonly at: number }>(minutes: Array<A>, time: number, make: (at: number) => A): A => {
  const at = Math.floor(time / minute) * minute
  const last = minutes.at(-1)
  if (last?.at === at) return last
  const next = make(at)
  minutes.push(next)
  if (minutes.length > maxMinutes) minutes.shift()
  return next
}

/** The figures of one gateway. It is mutable. */
export class Activity {
  open = 0
  readonly jobs: Jobs
  private readonly agents = new Map<string, Mutable<AgentActivity>>()
  private readonly keys = new Map<string, Mutable<KeyActivity>>()
  private readonly minutes: Array<Mutable<Minute>> = []
  private readonly context: Context.Context<never>
  private readonly now: () => number
  private readonly spenders = new Map<string, Metric.Counter<number>>()
  private readonly otherSpenders = spenderSeries("other agents")
  private readonly bills = new Map<string, BillSeries>()
  private readonly otherBills = billSeries(otherBills)
  private readonly counters = new Map<string, Metric.Counter<number>>()
  private readonly own: ReadonlyArray<Metric.Registration>
  private caps: ReadonlyArray<Metric.Registration> = []

  constructor(context: Context.Context<never>, now: () => number) {
    this.context = context
    this.now = now
    this.jobs = new Jobs(context, now)
    this.own = [this.gauge("floodgate_gateway_open", "Requests that are waiting or running", () => this.open)]
  }

  /** A gauge stays in the registry until it is removed. */
  private gauge(
    id: string,
    description: string,
    read: () => number,
    attributes: Readonly<Record<string, string>> = {}
  ): Metric.Registration {
    const gauge = Metric.gauge(id, { description, attributes })
    const get = () => ({ value: read() })
    return Metric.registerUnsafe(gauge, this.context, { get, update: constVoid, modify: constVoid })
  }

  private count(id: string, description: string, attributes: Readonly<Record<string, string>>): void {
    let key = id
    for (const name in attributes) key += `\n${attributes[name]}`
    let counter = this.counters.get(key)
    if (counter === undefined) {
      counter = counterOf(id, description, attributes)
      this.counters.set(key, counter)
    }
    counter.updateUnsafe(1, this.context)
  }

  private agent(name: string): Mutable<AgentActivity> {
    const known = this.agents.get(name) ?? { ...unused, refused: 0, failed: 0 }
    known.lastAt = this.now()
    Lru.put(this.agents, name, known, maxAgents)
    return known
  }

  private minute(): Mutable<Minute> {
    return minuteOf(this.minutes, this.now(), (at) => ({ at, calls: 0, tokens: 0, dollars: 0 }))
  }

  /** Shows what is left of these caps instead of earlier ones. */
  watch(caps: ReadonlyArray<SharedCap>): void {
    const earlier = this.caps
    this.caps = caps.flatMap(({ dollars, isReached, left, name, per, waiting }) => {
      const attributes = { cap: name, per }
      const show = (id: string, description: string, read: () => number): Metric.Registration =>
        this.gauge(id, description, read, attributes)
      return [
        show("floodgate_gateway_cap_dollars", "The caps in dollars, by cap", () => dollars),
        show("floodgate_gateway_cap_left_dollars", "Dollars that remain under a cap, by cap", left),
        show("floodgate_gateway_cap_reached", "Whether calls are refused because a cap is spent, by cap", () =>
          Number(isReached())
        ),
        show("floodgate_gateway_cap_waiting", "Calls that wait for what running calls have reserved, by cap", waiting)
      ]
    })
    for (const series of earlier) series.remove()
  }

  /** Takes its gauges out of the registry. */
  close(): void {
    for (const series of [...this.own, ...this.caps]) series.remove()
  }

  /** Counts what a call has used and cost. Of a stream that its caller has left, that is what was observed. */
  billed(payer: Payer, bill: Bill): void {
    const { agent, key, rule } = payer
    const { actual, dollars, model } = bill
    this.jobs.billed(payer, bill)
    const own = this.agent(agent)
    if (dollars === undefined) own.unpriced++
    else own.dollars += dollars
    const prompt = Amounts.promptTokens(actual)
    own.inputTokens += prompt
    own.outputTokens += actual.outputTokens
    const minute = this.minute()
    minute.tokens += prompt + actual.outputTokens
    minute.dollars += dollars ?? 0
    this.key(key, actual, dollars)
    const { context } = this
    // Keys, models and agents come from requests, so the number of series is bounded, and all further ones share one.
    const billed = () => billSeries({ key, rule, model })
    const series = bounded(this.bills, `${key}\n${rule}\n${model}`, maxBilled, billed) ?? this.otherBills
    series.input.updateUnsafe(prompt, context)
    series.output.updateUnsafe(actual.outputTokens, context)
    if (dollars === undefined) return
    series.dollars.updateUnsafe(dollars, context)
    const spender = bounded(this.spenders, agent, maxSpenders, () => spenderSeries(agent)) ?? this.otherSpenders
    spender.updateUnsafe(dollars, context)
  }

  private key(name: string, actual: Accounting.Actual, dollars: number | undefined): void {
    const known: Mutable<KeyActivity> = this.keys.get(name) ?? { ...unused }
    known.calls++
    known.inputTokens += Amounts.promptTokens(actual)
    known.outputTokens += actual.outputTokens
    known.dollars += dollars ?? 0
    if (dollars === undefined) known.unpriced++
    known.lastAt = this.now()
    Lru.put(this.keys, name, known, maxAgents)
  }

  /** Counts a request whose key was not accepted. Only an expired key has a name. */
  denied({ name, reason }: KeyDenial): void {
    const labels = { reason, key: name }
    this.count("floodgate_gateway_unauthorized", "Requests without a valid key, by reason", labels)
  }

  /** Counts a request that was passed on without being paced, by the name of its key if it has one. */
  passed(kind: string, key: string): void {
    this.count("floodgate_gateway_passed", "Requests that are no calls, by kind and key", { kind, key })
  }

  /** Counts a response that began before its outcome was known. */
  held(): void {
    this.count("floodgate_gateway_held", "Responses that began early, to keep their client", {})
  }

  ended({ agent: name, outcome, upstream }: RequestEnd): void {
    this.count("floodgate_gateway_requests", "Requests, by upstream and outcome", { upstream, outcome })
    if (name === undefined) return
    const agent = this.agent(name)
    if (outcome === "answered") {
      agent.calls++
      this.minute().calls++
    }
    if (outcome === "refused") agent.refused++
    if (outcome === "failed") agent.failed++
  }

  /** The agents, the most recently active first. */
  busiest(count: number): ReadonlyArray<AgentActivity & { readonly name: string }> {
    return [...this.agents]
      .map(([name, activity]) => ({ name, ...activity }))
      .sort((one, other) => other.lastAt - one.lastAt)
      .slice(0, count)
  }

  /** The keys that have used something, the most expensive first. */
  keysByCost(count: number): ReadonlyArray<KeyActivity & { readonly name: string }> {
    return [...this.keys]
      .map(([name, activity]) => ({ name, ...activity }))
      .sort((one, other) => other.dollars - one.dollars || other.inputTokens - one.inputTokens)
      .slice(0, count)
  }

  get lastHour(): ReadonlyArray<Minute> {
    return this.minutes
  }
}

/** Figures whose gauges leave the registry when the scope closes. */
export const makeActivity = (
  context: Context.Context<never>,
  now: () => number
): Effect.Effect<Activity, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Activity(context, now)),
    (activity) => Effect.sync(() => activity.close())
  )

/** The most recent events, for the page. */
export interface Journal {
  readonly add: (event: Events.Event) => void
  readonly events: ReadonlyArray<Events.Event>
  /** The last hour, without minutes in which nothing waited and nothing was rejected. */
  readonly minutes: ReadonlyArray<PressureMinute>
}

export const makeJournal = (): Journal => {
  const events: Array<Events.Event> = []
  const minutes: Array<Mutable<PressureMinute>> = []
  const minuteAt = (time: number): Mutable<PressureMinute> =>
    minuteOf(minutes, time, (at) => ({ at, rejected: 0, waited: 0 }))
  return {
    minutes,
    add: (event) => {
      if (event.type === "rejection") minuteAt(event.at).rejected++
      if (event.type === "wait") minuteAt(event.at).waited++
      // The status shows the waiting calls.
      if (event.type === "wait") return
      events.push(event)
      if (events.length > maxEvents) events.shift()
    },
    events
  }
}
