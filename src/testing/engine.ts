/**
 * The simulated provider without I/O: which calls are admitted, which are rejected and until when, and how long calls take.
 *
 * **Details**
 *
 * Time is an argument, in milliseconds since the provider started, and must not go back. Random numbers come from the
 * seed and from the request itself. The arithmetic is the provider's own: it uses none of the library's buckets, so that it can find their mistakes.
 */
import * as Words from "../domain/words.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Gauge from "./gauge.ts"
import type { Entry, Fault, FaultKind, RejectedBy, Stats } from "./models.ts"
import * as PromptCache from "./promptCache.ts"
import * as Seeded from "./seeded.ts"
import * as Ramp from "./ramp.ts"
import * as Windows from "./windows.ts"
import { advance, begin, countsLive, end, isFull, poolOf } from "./state.ts"
import type { AcceptedCall, ProviderPool, ProviderState, Writable } from "./state.ts"

export {
  /** Moves the provider's time on. */
  advance,
  /** Makes a provider at time 0. */
  make,
  /** When the next step of a batch ends. */
  nextStepAt
} from "./state.ts"
export type { AcceptedCall, ProviderState } from "./state.ts"

/** A request, reduced to what the simulation needs. */
export interface SimulatedRequest {
  readonly model: string
  readonly agent?: string | undefined
  /** Input without what is read from a cache. */
  readonly inputTokens: number
  readonly cachedTokens?: number | undefined
  /** The use of the provider's own cache, `cachedTokens` among it. */
  readonly cache?: PromptCache.CacheUse | undefined
  /** Output tokens of the answer. */
  readonly outputTokens: number
  readonly maxTokens?: number | undefined
  /** The seed of the noise on its latency. */
  readonly key?: number | undefined
}

/** A request that was answered with an error. */
export interface Rejected {
  readonly _tag: "Rejected"
  readonly entry: Entry
  readonly status: number
  readonly errorType: string
  readonly errorCode: string | undefined
  readonly message: string
  /** Exact for the limits if there are no other calls: one millisecond earlier the same request is rejected. */
  readonly retryAfterMillis: number | undefined
  readonly answersAt: number
}

/** The decision on a request. */
export type RequestDecision =
  | { readonly _tag: "Accepted"; readonly call: AcceptedCall }
  | Rejected
  | { readonly _tag: "Refused"; readonly entry: Entry }

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const lanes = { noise: 1, fault: 2, cut: 3 }

const faultOf = (state: ProviderState, request: SimulatedRequest, number: number): Fault | undefined =>
  state.options.faults?.find(
    (fault, index) =>
      (fault.calls === undefined || fault.calls.includes(number)) &&
      (fault.between === undefined || (state.now >= fault.between[0] && state.now < fault.between[1])) &&
      (fault.model === undefined || request.model.startsWith(fault.model)) &&
      (fault.rate === undefined || Seeded.unit(state.seed, lanes.fault, index, number) < fault.rate)
  )

/** The amount that a limit on `tokens` counts. Only a limit on input may leave out cached tokens. */
const combined = (state: ProviderState, request: SimulatedRequest): number => {
  const { cachedTokens = 0, inputTokens, maxTokens, outputTokens } = request
  const prompt = inputTokens + cachedTokens
  switch (state.options.counting ?? "usage") {
    case "usage":
      return prompt + outputTokens
    case "azure":
      return prompt + (maxTokens ?? outputTokens)
    case "openai":
      return Math.max(prompt, maxTokens ?? 0)
  }
}

const amounts = (state: ProviderState, request: SimulatedRequest): Amounts.Whole => ({
  requests: 1,
  inputTokens: request.inputTokens + (state.options.cache === "automatic" ? (request.cachedTokens ?? 0) : 0),
  outputTokens: countsLive(state) ? 0 : request.outputTokens,
  tokens: combined(state, request)
})

interface Shortage {
  readonly by: RejectedBy
  readonly millis: number
}

/** The obstacle that a request would have to wait for longest; undefined if there is none. */
const obstacle = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  charge: Amounts.Whole
): Shortage | undefined => {
  let worst: Shortage | undefined
  const consider = (by: RejectedBy, millis: number) => {
    if (millis > 0 && (worst === undefined || millis > worst.millis)) worst = { by, millis }
  }
  const debt = state.options.oversize !== "reject"
  for (const dimension of Amounts.dimensions) {
    const one = pool.gauges[dimension]
    if (one === undefined) continue
    const live = dimension === "outputTokens" && countsLive(state)
    consider(
      dimension,
      live ? Gauge.positiveMillis(one, state.now) : Gauge.waitMillis(one, state.now, charge[dimension], debt)
    )
  }
  if (state.options.ramp !== undefined) {
    consider("ramp", Ramp.waitMillis(pool.ramp, state.options.ramp, state.now, request.inputTokens))
  }
  if (state.options.overage !== true)
    consider("window", Windows.waitMillis(Windows.of(state.windows, request.model), state.now))
  if (isFull(state, pool)) {
    let soonest = Infinity
    for (const { at, value } of state.due.items) {
      if (value.what === "end" && value.call.phase !== "ended" && value.call.pool === pool) {
        soonest = Math.min(soonest, at)
      }
    }
    consider("concurrency", soonest === Infinity ? 1_000 : Math.max(1, Math.ceil(soonest - state.now)))
  }
  return worst
}

const levels = (pool: ProviderPool): Amounts.Charge => Amounts.mapDimensions(pool.gauges, Gauge.left)

const record = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  what: Pick<Entry, "outcome" | "status" | "rejectedBy" | "fault" | "retryAfterMillis">
): Writable<Entry> => {
  const entry: Writable<Entry> = {
    call: state.counters.requests,
    at: state.now,
    agent: request.agent,
    model: request.model,
    pool: pool.name,
    inputTokens: request.inputTokens,
    ...(request.cache && {
      cacheReadTokens: request.cache.readTokens,
      cacheWriteTokens: request.cache.writtenTokens
    }),
    outputTokens: request.outputTokens,
    ...what,
    finishedAt: what.outcome === "accepted" ? undefined : state.now,
    producedTokens: 0,
    aborted: false,
    left: levels(pool)
  }
  const { logSize = 100_000 } = state.options
  state.log.push(entry)
  // Dropped in blocks, so that a full log does not cost a copy per request.
  if (state.log.length > logSize * 1.1) state.log.splice(0, state.log.length - logSize)
  return entry
}

const messageOf = (pool: ProviderPool, request: SimulatedRequest, by: RejectedBy, status: number): string => {
  switch (by) {
    case "concurrency":
      return status === 503
        ? "server busy, please try again.  maximum pending requests exceeded"
        : "Number of concurrent connections has exceeded your rate limit"
    case "ramp":
      return "This request would exceed your organization's acceleration limit; ramp up gradually"
    case "window":
      return "This request would exceed your account's rate limit. Please try again later."
    case "fault":
      return "This request was rejected by a simulated fault"
    default: {
      const { kind, stated } = pool.gauges[by]!
      const limit = `${Words.counted(stated, Words.units[by])}${kind === "quota" ? " in all" : " per minute"}`
      return `This request would exceed your organization's rate limit of ${limit} (model: ${request.model})`
    }
  }
}

/** The error type and message for each status. The message of a rejection is made by `messageOf`. */
const answers = {
  400: { errorType: "invalid_request_error", message: "Invalid request: a simulated fault" },
  401: { errorType: "authentication_error", message: "Invalid key: a simulated fault" },
  404: { errorType: "not_found_error", message: "No such model: a simulated fault" },
  429: { errorType: "rate_limit_error", message: "" },
  500: { errorType: "api_error", message: "Internal server error" },
  503: { errorType: "overloaded_error", message: "" },
  529: { errorType: "overloaded_error", message: "Overloaded" }
} as const

/** Faults that are answered with a status: before the limits are checked, and after. */
const beforeLimits: Partial<Record<FaultKind, keyof typeof answers>> = { 400: 400, 401: 401, 404: 404, 429: 429 }
const afterLimits: Partial<Record<FaultKind, keyof typeof answers>> = { 500: 500, 529: 529 }

const countRejection = ({ counters }: ProviderState, by: RejectedBy): void => {
  counters.rejected++
  counters.rejectionsBy[by] = (counters.rejectionsBy[by] ?? 0) + 1
}

/** Answers a request that is not admitted. `by` is what rejected it; undefined if the provider failed. */
const turnAway = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  what: {
    readonly status: keyof typeof answers
    readonly by?: RejectedBy | undefined
    readonly fault?: FaultKind | undefined
    readonly errorCode?: string | undefined
    readonly retryAfterMillis?: number | undefined
  }
): Rejected => {
  const { by, errorCode, fault, retryAfterMillis, status } = what
  if (by === undefined) state.counters.failed++
  else countRejection(state, by)
  const { errorType, message } = answers[status]
  return {
    _tag: "Rejected",
    entry: record(state, pool, request, {
      outcome: by === undefined ? "failed" : "rejected",
      status,
      rejectedBy: by,
      fault,
      retryAfterMillis
    }),
    status,
    errorType,
    errorCode,
    message: by === undefined ? message : messageOf(pool, request, by, status),
    retryAfterMillis,
    answersAt: state.now + (state.options.latency?.rejectionMillis ?? 0)
  }
}

const rejectByFault = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  fault: Fault,
  status: keyof typeof answers
): Rejected =>
  turnAway(state, pool, request, {
    status,
    by: status === 429 ? "fault" : undefined,
    fault: fault.kind,
    errorCode: fault.errorCode,
    retryAfterMillis: fault.retryAfterMillis
  })

const rejectByLimit = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  charge: Amounts.Whole,
  { by, millis }: Shortage
): Rejected => {
  let wait = millis
  if (state.charge !== undefined) {
    const { requests, tokenShare } = state.charge
    for (const dimension of Amounts.dimensions) {
      const one = pool.gauges[dimension]
      const amount = dimension === "requests" ? requests : charge[dimension] * tokenShare
      if (one !== undefined) Gauge.penalise(one, state.now, amount)
    }
    wait = obstacle(state, pool, request, charge)?.millis ?? millis
  }
  if (pool.gauges[by as Limits.Dimension]?.kind === "quota") {
    return turnAway(state, pool, request, { status: 429, by, errorCode: "enforced_spend_limit_reached" })
  }
  return turnAway(state, pool, request, {
    status: by === "concurrency" ? (state.options.busyStatus ?? 429) : 429,
    by,
    errorCode: by === "ramp" ? "ramp_limit_exceeded" : undefined,
    // A call that can never fit is asked to retry in a minute, as if it could.
    retryAfterMillis: wait === Infinity ? 60_000 : wait
  })
}

const admit = (
  state: ProviderState,
  pool: ProviderPool,
  request: SimulatedRequest,
  charge: Amounts.Whole,
  fault: Fault | undefined
): AcceptedCall => {
  for (const dimension of Amounts.dimensions) {
    const one = pool.gauges[dimension]
    if (one !== undefined) Gauge.take(one, state.now, charge[dimension])
  }
  Windows.begin(Windows.of(state.windows, request.model), state.now)
  if (state.options.ramp !== undefined) Ramp.add(pool.ramp, state.now, request.inputTokens)
  const { counters, options, seed } = state
  const { cachedTokens = 0, inputTokens, key = counters.requests } = request
  if (state.cache !== undefined && request.cache !== undefined) {
    PromptCache.refresh(state.cache, state.now, request.cache)
  }
  counters.accepted++
  counters.inputTokens += inputTokens + cachedTokens
  const call: AcceptedCall = {
    entry: record(state, pool, request, {
      outcome: "accepted",
      status: 200,
      rejectedBy: undefined,
      fault: fault?.kind,
      retryAfterMillis: undefined
    }),
    pool,
    work: {
      cachedTokens,
      cache: request.cache,
      fault,
      factor: Seeded.lognormal(1, options.latency?.noise ?? 0, Seeded.unit(seed, lanes.noise, key)),
      cutAfter: 0.25 + 0.5 * Seeded.unit(seed, lanes.cut, counters.requests)
    },
    firstTokenAt: Infinity,
    finishesAt: Infinity,
    outputEndsAt: Infinity,
    endsAt: Infinity,
    fault: fault?.kind,
    phase: "queued",
    sequence: undefined,
    onProgress: undefined
  }
  begin(state, call)
  return call
}

/**
 * Decides about a request that arrives at `now`.
 *
 * **Details**
 *
 * An injected 400, 401, 404 or 429 or a refused connection is decided before the limits. A 500 or 529 is decided after them:
 * it counts as a request, and its tokens do not count. A call that times out, stalls or is cut counts its input and the output
 * up to that point.
 */
export const request = (state: ProviderState, now: number, request: SimulatedRequest): RequestDecision => {
  advance(state, now)
  const pool = poolOf(state, request.model)
  const number = ++state.counters.requests
  const fault = faultOf(state, request, number)
  if (fault?.kind === "refused") {
    state.counters.failed++
    const what = { outcome: "refused", status: undefined, rejectedBy: undefined, retryAfterMillis: undefined } as const
    return { _tag: "Refused", entry: record(state, pool, request, { ...what, fault: "refused" }) }
  }
  const before = fault && beforeLimits[fault.kind]
  if (before !== undefined) return rejectByFault(state, pool, request, fault!, before)
  const charge = amounts(state, request)
  const blocked = obstacle(state, pool, request, charge)
  if (blocked !== undefined) return rejectByLimit(state, pool, request, charge, blocked)
  const after = fault && afterLimits[fault.kind]
  if (after !== undefined) {
    if (pool.gauges.requests !== undefined) Gauge.take(pool.gauges.requests, state.now, 1)
    return rejectByFault(state, pool, request, fault!, after)
  }
  return { _tag: "Accepted", call: admit(state, pool, request, charge, fault) }
}

/** Aborts a call: it is no longer in flight, its input stays counted, and no more output is produced. */
export const abort = (state: ProviderState, now: number, call: AcceptedCall): void => {
  advance(state, now)
  if (call.phase !== "ended") end(state, call, true)
}

// -----------------------------------------------------------------------------
// Figures
// -----------------------------------------------------------------------------

/** The state of one limit, in the dimension's unit and milliseconds. */
export interface LimitFigure {
  /** The limit per minute. */
  readonly limit: number
  readonly left: number
  /** Milliseconds until nothing of it is used. */
  readonly fullMillis: number
}

/** A figure for every dimension that is limited. */
export type LimitFigures = Amounts.PerDimension<LimitFigure>

/** The limits of a model's pool at `now`, without quotas. */
export const figures = (state: ProviderState, now: number, model: string): LimitFigures => {
  advance(state, now)
  return Amounts.mapDimensions<Gauge.Gauge, LimitFigure>(poolOf(state, model).gauges, (one) =>
    // A quota is not a rate, and no header shows it.
    one.kind === "quota"
      ? undefined
      : { limit: one.stated, left: Gauge.left(one), fullMillis: Gauge.fullMillis(one, state.now) }
  )
}

/** A long window at `now`. */
export interface WindowFigure extends Pick<Windows.ProviderWindow, "name" | "millis" | "suffix"> {
  readonly used: number
  /** Milliseconds until it ends. */
  readonly leftMillis: number
  /** Whether calls beyond it are paid for. */
  readonly isPaid: boolean
}

/** The long windows of a model that have begun. */
export const windowFigures = (state: ProviderState, now: number, model: string): ReadonlyArray<WindowFigure> => {
  advance(state, now)
  const isPaid = state.options.overage === true
  return Windows.of(state.windows, model).flatMap(({ endsAt, millis, name, suffix, used }) =>
    endsAt === undefined ? [] : [{ name, millis, suffix, used, leftMillis: endsAt - state.now, isPaid }]
  )
}

/** The counters at `now`. */
export const stats = (state: ProviderState, now: number): Stats => {
  advance(state, now)
  return {
    ...state.counters,
    rejectionsBy: { ...state.counters.rejectionsBy },
    windows: Windows.statusOf(state.windows)
  }
}

/** The level of each limit of a model's pool at `now`; below zero in debt. */
export const left = (state: ProviderState, now: number, model: string): Amounts.Charge => {
  advance(state, now)
  return levels(poolOf(state, model))
}
