/**
 * A forecast in steps. A million calls take seconds, so the caller may do something else between two steps.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Input from "../../domain/input/checks.ts"
import * as Amounts from "../../domain/amounts.ts"
import * as Rules from "../../domain/rules.ts"
import { mapped, type Stepwise, yielding } from "../../domain/stepwise.ts"
import * as Pacer from "../../pacing/pacer.ts"
import * as Preview from "../../pacing/preview.ts"
import type { CallOwner } from "../../admission/fairQueue.ts"
import { endsOf, type PoolView } from "../foresee.ts"
import * as FanOut from "./fanOut.ts"
import { complete, millisOf } from "./latency.ts"
import type { Agent, Call, Forecast, LiveOptions, Options, Work, Workload } from "./models.ts"

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const tokens = Input.number("a number from 0 up to 2^53", Amounts.isCount)

/** Checks one call. */
export const checkCall: Input.Check = Input.options<Call>(
  {
    inputTokens: tokens,
    outputTokens: tokens,
    cacheReadTokens: tokens,
    reservedOutputTokens: tokens,
    duration: Input.finiteWait,
    pause: Input.finiteWait,
    subAgents: (value) => workload(value)
  },
  "inputTokens",
  "outputTokens"
)

const agent = Input.options<Agent>(
  {
    name: Input.text,
    startsAfter: Input.finiteWait,
    calls: Input.list(checkCall),
    turnsMeanwhile: Input.wholeOrInfinite(0)
  },
  "name",
  "calls"
)
const workload = Input.list(agent)

const latency = Input.options<NonNullable<Options["latency"]>>({
  baseMillis: Input.notNegative,
  perInputTokenMillis: Input.notNegative,
  perOutputTokenMillis: Input.notNegative
})

const conditions = Input.options<Options>(
  {
    limits: Rules.check,
    concurrency: Input.wholeOrInfinite(1),
    atOnce: Input.wholeOrInfinite(1),
    latency,
    levels: Amounts.eachDimension(Input.finite)
  },
  "limits"
)

/** A forecast of more calls would take minutes, and would be no more accurate than one with a tenth of the calls. */
const maxCalls = 1_000_000

/** Checks what is the same between any two calls of an agent: how its prompts grow, and its pause. */
export const growing: Pick<Input.Checks<Work>, "growth" | "cachedShare" | "pause"> = {
  growth: tokens,
  pause: Input.finiteWait,
  cachedShare: Input.number("a number from 0 to 1", (value) => value >= 0 && value <= 1)
}

type Uniform = Work & { readonly agents: number }

const uniform = Input.options<Uniform>(
  { agents: Input.whole, calls: Input.whole, first: checkCall, later: checkCall, ...growing },
  "agents",
  "calls",
  "first"
)

/** Checks the options of a uniform workload. */
export const checkUniform: Input.Check = Input.all(uniform, (value) => {
  const { agents, calls } = value as Uniform
  if (agents * calls <= maxCalls) return undefined
  const text = `expected at most ${maxCalls} calls of all agents, got ${agents * calls}`
  return { place: agents > maxCalls ? ".agents" : ".calls", text }
})

const callsOf = (calls: ReadonlyArray<Call>, millisOf: (call: Call) => number): ReadonlyArray<FanOut.ForecastCall> =>
  calls.map((call) => {
    const { duration, inputTokens, outputTokens, pause = 0, reservedOutputTokens = 0, subAgents = [] } = call
    return {
      pauseMillis: Input.millisOf(pause),
      subAgents: agentsOf(subAgents, millisOf),
      charge: Amounts.whole({ inputTokens, outputTokens: Math.max(outputTokens, reservedOutputTokens) }),
      used: Amounts.whole({ inputTokens, outputTokens }),
      millis: duration === undefined ? millisOf(call) : Input.millisOf(duration)
    }
  })

const agentsOf = (workload: Workload, millisOf: (call: Call) => number): ReadonlyArray<FanOut.ForecastAgent> =>
  workload.map(({ calls, name, startsAfter = 0, turnsMeanwhile = 0 }) => ({
    name,
    startsAt: Input.millisOf(startsAfter),
    calls: callsOf(calls, millisOf),
    turnsMeanwhile
  }))

/** Checks the workload and the options. Throws if one is invalid. */
export const prepare = (operation: string, given: Workload, options: Options): FanOut.Setup => {
  Input.check(`${operation}: workload`, workload, given)
  Input.check(operation, conditions, options)
  const { atOnce: maxAgents = Infinity, concurrency = Infinity, latency, levels = {}, limits } = options
  const rules = Rules.resolve(limits)
  const law = Pacer.make(rules, {}, 0)
  // The limits of the forecast are complete, so there is nothing to learn.
  law.opening = undefined
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    if (cap !== undefined) cap.level = Math.min(cap.level, levels[dimension] ?? Infinity)
  }
  const usual = complete(latency)
  const agents = agentsOf(given, (call) => millisOf(usual, call))
  return { agents, law, rules, concurrency, maxAgents, owner: { priority: 0, weight: 1 }, at: 0, present: [] }
}

const lived = Input.options<LiveOptions>({
  model: Input.text,
  pool: Input.text,
  account: Input.text,
  atOnce: Input.wholeOrInfinite(1),
  running: Input.wholeOrInfinite(0),
  remaining: Input.list(checkCall),
  latency
})

/** Checks a workload for a running pool, and its options. Throws if one is invalid. */
export const checkLive = (operation: string, given: Workload, options: LiveOptions): void => {
  Input.check(`${operation}: workload`, workload, given)
  Input.check(operation, lived, options)
}

/** A call of another process. */
const unknown: Partial<CallOwner> = {}
/** Only the first waiting calls are played, as in every prediction of a pool. */
const maxPresent = 1_000
/** Sums of fractions are not exact, so smaller differences are ignored. */
const rounding = 1e-9

/**
 * Whose the agents of a question are that is asked outside of a job. Who says how many of them run asks about the job that uses the
 * pool, if only one does. Otherwise they will be one job, if those present belong to jobs.
 */
const ownerOf = ({ queue, running }: PoolView, { running: agents = 0 }: LiveOptions, asker: CallOwner): CallOwner => {
  const present = [...running, ...queue.inOrder()]
  const [first] = present
  if (asker.job !== undefined || first === undefined) return asker
  const { caller, callerWeight, job, jobWeight } = first
  const isMeant = agents > 0 && (asker.caller ?? caller) === caller
  if (isMeant && present.every((each) => each.caller === caller && each.job === job)) {
    return { ...asker, caller, callerWeight, job, jobWeight }
  }
  return present.some(({ job }) => job !== undefined) ? { ...asker, job: "new" } : asker
}

/**
 * A workload that starts now in a running pool. Every call in flight or waiting belongs to an agent that is present, and makes
 * the `remaining` calls after it.
 */
export const prepareLive = (view: PoolView, given: Workload, options: LiveOptions, asker: CallOwner): FanOut.Setup => {
  const owner = ownerOf(view, options, asker)
  const { law, maxInFlight: concurrency, now: at, queue, rules } = view
  const { priority } = owner
  const { atOnce: maxAgents = Infinity, latency, remaining = [], running: agentsRunning = 0 } = options
  const hasMeasured = law.sent > law.inFlight
  const usual = complete(latency)
  const millis = (call: Call) => (latency === undefined && hasMeasured ? law.answerMillis : millisOf(usual, call))
  const then = callsOf(remaining, millis)
  const present: Array<FanOut.PresentAgent> = []
  const enter = (agent: string, calls: ReadonlyArray<FanOut.ForecastCall>, state: Partial<FanOut.PresentAgent> = {}) =>
    present.push({ agent, priority, weight: 1, calls, busyUntil: undefined, asksAt: at, ...state })
  const running = [...view.running]
  for (const [index, busyUntil] of endsOf(view).entries()) {
    const { caller, callerWeight, job, jobWeight } = running[index] ?? unknown
    enter(`in flight ${index}`, then, { busyUntil, caller, callerWeight, job, jobWeight })
  }
  // A call that waits in several queues is served in only one of them.
  let due = 0
  for (const { agent, caller, callerWeight, charge, job, jobWeight, priority, queueing, weight } of queue.inOrder()) {
    if (present.length >= law.inFlight + maxPresent) break
    due += 1 / (queueing.claim?.queues ?? 1)
    if (due < 1 - rounding) continue
    due--
    const current = { charge, used: charge, millis: law.answerMillis, pauseMillis: 0, subAgents: [] }
    enter(agent, [current, ...then], { caller, callerWeight, job, jobWeight, priority, weight })
  }
  const { caller, callerWeight, job, jobWeight } = owner
  // Agents without a call are somewhere in their pauses.
  const resting = Math.max(0, Math.min(agentsRunning, maxPresent) - present.length)
  const pause = then[0]?.pauseMillis ?? 0
  for (let index = 0; index < resting; index++) {
    const asksAt = at + (pause * (index + 0.5)) / resting
    enter(`running ${present.length}`, then, { asksAt, caller, callerWeight, job, jobWeight })
  }
  const agents = agentsOf(given, millis)
  return { agents, law: Preview.ofLong(law, at), rules, concurrency, maxAgents, owner, at, present }
}

// -----------------------------------------------------------------------------
// Figures
// -----------------------------------------------------------------------------

/** If calls wait during less than this part of the time, the agents themselves are the bottleneck. */
const hardly = 0.05

/** The quantile by the nearest rank. */
const quantile = (sorted: Float64Array, share: number): Duration.Duration =>
  Duration.millis(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0)

const waitsOf = (served: ReadonlyArray<FanOut.Served>): Forecast["waits"] => {
  const waits = Float64Array.from(served, ({ admittedAt, askedAt }) => admittedAt - askedAt).sort()
  return { p50: quantile(waits, 0.5), p95: quantile(waits, 0.95), p99: quantile(waits, 0.99) }
}

const bindingOf = ({ blocked, endsAt }: FanOut.Played): Forecast["binding"] => {
  let binding: Forecast["binding"] = "agents"
  let longest = hardly * endsAt
  for (const [obstacle, millis] of Object.entries(blocked) as ReadonlyArray<[Forecast["binding"], number]>) {
    if (millis > longest) {
      longest = millis
      binding = obstacle
    }
  }
  return binding
}

const usageOf = (agents: ReadonlyArray<FanOut.ForecastAgent>): Amounts.Whole => {
  const sum = { ...Amounts.nothing }
  const add = ({ calls }: FanOut.ForecastAgent): void => {
    for (const { subAgents, used } of calls) {
      for (const each of Amounts.dimensions) sum[each] += used[each]
      subAgents.forEach(add)
    }
  }
  agents.forEach(add)
  return sum
}

const callOf = ({ admittedAt, agent, askedAt, endsAt }: FanOut.Served): Forecast["calls"][number] => ({
  agent: agent.name,
  askedAfter: Duration.millis(askedAt),
  admittedAfter: Duration.millis(admittedAt),
  finishesAfter: Duration.millis(endsAt)
})

// -----------------------------------------------------------------------------
// The forecast
// -----------------------------------------------------------------------------

/** Predicts what a workload will take. */
export function* forecast(setup: FanOut.Setup): Stepwise<Forecast> {
  const { agents } = setup
  const outcome = yield* FanOut.play(setup)
  const byAgent = Map.groupBy(outcome.served, ({ agent }) => agent)
  const blocked: { [B in Forecast["binding"]]?: Duration.Duration } = {}
  for (const [obstacle, millis] of Object.entries(outcome.blocked)) {
    blocked[obstacle as Forecast["binding"]] = Duration.millis(millis)
  }
  const forecastOf = (agent: FanOut.ForecastAgent): Forecast["agents"][number] => {
    const served = byAgent.get(agent) ?? []
    const finishesAfter = Duration.millis(outcome.ends.get(agent) ?? served.at(-1)?.endsAt ?? 0)
    return { name: agent.name, finishesAfter, waits: waitsOf(served) }
  }
  return {
    duration: Duration.millis(outcome.endsAt),
    binding: bindingOf(outcome),
    blocked,
    waits: waitsOf(outcome.served),
    agents: yield* mapped(agents, forecastOf),
    calls: yield* mapped(outcome.served, callOf),
    refused: outcome.refused.map(({ agent, ...misfit }) => ({ agent: agent.name, ...misfit })),
    usage: usageOf(agents)
  }
}

/** Predicts what a workload will take where nothing is limited. */
export const unlimited = (workload: Workload, options: LiveOptions = {}): Effect.Effect<Forecast> =>
  Effect.suspend(() => {
    checkLive("Budget.forecast", workload, options)
    const { atOnce, latency } = options
    return yielding(forecast(prepare("Budget.forecast", workload, { limits: {}, atOnce, latency })))
  })
