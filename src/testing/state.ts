/**
 * The simulated provider's state, and how it changes with time.
 *
 * Between two requests everything flows at known rates: buckets refill, running calls produce output, a neighbour takes
 * its share. {@link advance} works through the points at which a rate changes, so levels are exact at any time. A state
 * is mutable, so that a provider need not copy a log of a million requests.
 */
import * as Latency from "../budget/forecast/latency.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Presets from "../Presets.ts"
import * as Agenda from "./agenda.ts"
import * as Batch from "./batch.ts"
import * as Gauge from "./gauge.ts"
import type { Entry, Fault, FaultKind, Options, RejectedBy, Stats } from "./models.ts"
import { checkOptions } from "./options.ts"
import * as PromptCache from "./promptCache.ts"
import * as Ramp from "./ramp.ts"
import * as Servers from "./servers.ts"
import * as Windows from "./windows.ts"

/** Makes the fields of a type writable, for the engine. */
export type Writable<A> = { -readonly [K in keyof A]: A[K] }

/** A set of limits that models share. */
export interface ProviderPool {
  readonly name: string
  readonly gauges: Amounts.PerDimension<Gauge.Gauge>
  readonly ramp: Ramp.RampState
  inFlight: number
  /** Calls that wait until others have ended, in the order of arrival. */
  readonly queue: Array<AcceptedCall>
  /** The batch and queue of the option `server`, in place of the queue above. */
  readonly batch: Batch.Batch<AcceptedCall> | undefined
  /** Output tokens per millisecond that running calls produce, and the number of these calls. */
  production: number
  producing: number
}

/** The properties that decide how long an admitted call takes, besides the tokens of its entry. */
interface SimulatedWork {
  /** The part of the prompt that was read from a cache. */
  readonly cachedTokens: number
  readonly cache: PromptCache.CacheUse | undefined
  readonly fault: Fault | undefined
  /** The factor of noise on its latency. */
  readonly factor: number
  /** The part of the output after which a fault cuts it. */
  readonly cutAfter: number
}

/** An admitted call. Its times are infinite while it is queued. */
export interface AcceptedCall {
  readonly entry: Writable<Entry>
  readonly pool: ProviderPool
  readonly work: SimulatedWork
  /** When the first token of output comes. */
  firstTokenAt: number
  /** When the answer is complete, if there is no fault. */
  finishesAt: number
  /** When output stops: before `finishesAt` if a fault cuts the answer. */
  outputEndsAt: number
  /** When the call ends by itself; infinity for a call that stalls. */
  endsAt: number
  readonly fault: FaultKind | undefined
  phase: "queued" | "reading" | "producing" | "silent" | "ended"
  /** Its place in the batch, with the option `server`. The times above then stay infinite until they are known. */
  sequence: Batch.Sequence<AcceptedCall> | undefined
  /** Called when the provider begins to work on a call that was queued, and in a batch at every token and at the end. */
  onProgress: (() => void) | undefined
}

/** The provider's state. */
export interface ProviderState {
  readonly options: Options
  readonly seed: number
  readonly charge: { readonly requests: number; readonly tokenShare: number } | undefined
  readonly pools: Map<string, ProviderPool>
  readonly windows: ReadonlyArray<Windows.ProviderWindow>
  readonly cache: PromptCache.PromptCache | undefined
  readonly due: Agenda.Agenda<
    | { readonly call: AcceptedCall; readonly what: "firstToken" | "silence" | "end" }
    | { readonly pool: ProviderPool; readonly what: "step" }
  >
  readonly log: Array<Entry>
  readonly counters: Writable<Omit<Stats, "rejectionsBy" | "windows">> & {
    rejectionsBy: { [R in RejectedBy]?: number }
  }
  now: number
}

/** A new provider at time 0. Throws a `RangeError` for invalid options. */
export const make = (given: Options): ProviderState => {
  checkOptions(given)
  const options = Servers.complete(given)
  const { limits = {}, rejections = "free" } = options
  const rejected = typeof rejections === "string" ? {} : rejections
  const state: ProviderState = {
    options,
    seed: options.seed ?? 1,
    charge:
      rejections === "free" ? undefined : { requests: rejected.requests ?? 1, tokenShare: rejected.tokenShare ?? 0.05 },
    pools: new Map(),
    windows: Windows.make(options.windows ?? {}),
    cache: options.cache === undefined ? undefined : PromptCache.make(options.cache, options.cacheMillis),
    due: Agenda.make(),
    log: [],
    counters: {
      requests: 0,
      accepted: 0,
      rejected: 0,
      rejectionsBy: {},
      failed: 0,
      completed: 0,
      aborted: 0,
      broken: 0,
      queued: 0,
      inFlight: 0,
      peakInFlight: 0,
      countTokens: 0,
      inputTokens: 0,
      outputTokens: 0
    },
    now: 0
  }
  for (const name of ["default", ...Object.keys(options.pools ?? {})]) {
    const gauges = Amounts.mapDimensions(options.pools?.[name] ?? limits, Gauge.make)
    const size = Servers.sizeOf(options, state.seed)
    const batch = size && Batch.make<AcceptedCall>(size)
    const pool = { name, gauges, ramp: Ramp.make(), inFlight: 0, queue: [], batch, production: 0, producing: 0 }
    state.pools.set(name, pool)
  }
  return state
}

/** The pool whose limits a model is under. */
export const poolOf = (state: ProviderState, model: string): ProviderPool => {
  let best: string | undefined
  for (const name of Object.keys(state.options.pools ?? {})) {
    if (model.startsWith(name) && (best === undefined || name.length > best.length)) best = name
  }
  return state.pools.get(best ?? Presets.poolOf(model)) ?? state.pools.get("default")!
}

// -----------------------------------------------------------------------------
// Time
// -----------------------------------------------------------------------------

const neighbourAt = (state: ProviderState, now: number): { readonly share: number; readonly until: number } => {
  const { neighbour } = state.options
  if (neighbour === undefined) return { share: 0, until: Infinity }
  const { everyMillis, forMillis = everyMillis } = neighbour
  if (everyMillis === undefined || forMillis === undefined) return { share: neighbour.share, until: Infinity }
  const start = Math.floor(now / everyMillis) * everyMillis
  return now < start + forMillis
    ? { share: neighbour.share, until: Math.min(start + forMillis, start + everyMillis) }
    : { share: 0, until: start + everyMillis }
}

/** The interval at which windows are updated while output or a neighbour flows into them. */
const cellMillis = 1_000

const flow = (state: ProviderState, to: number, share: number): void => {
  const elapsed = to - state.now
  for (const pool of state.pools.values()) {
    for (const dimension of Amounts.dimensions) {
      const one = pool.gauges[dimension]
      if (one === undefined) continue
      const produced = dimension === "outputTokens" ? pool.production * elapsed : 0
      Gauge.flow(one, state.now, to, produced, share * one.rate * elapsed)
    }
  }
  Windows.flow(state.windows, state.now, to, share)
  state.now = to
}

/** Whether output is counted as it is produced. */
export const countsLive = (state: ProviderState): boolean => state.options.output !== "admission"

const startOutput = (state: ProviderState, call: AcceptedCall): void => {
  const output = call.pool.gauges.outputTokens
  const millis = call.finishesAt - call.firstTokenAt
  call.phase = "producing"
  if (state.cache !== undefined && call.work.cache !== undefined) {
    PromptCache.write(state.cache, state.now, call.work.cache)
  }
  // A batch counts its output at every step.
  if (!countsLive(state) || output === undefined || call.sequence !== undefined) return
  if (millis <= 0) {
    Gauge.take(output, state.now, call.entry.outputTokens)
  } else {
    call.pool.production += call.entry.outputTokens / millis
    call.pool.producing++
  }
}

const producedAt = (call: AcceptedCall, now: number): number => {
  if (call.sequence !== undefined) return call.sequence.produced
  const until = Math.min(now, call.outputEndsAt)
  if (until < call.firstTokenAt) return 0
  if (until >= call.finishesAt) return call.entry.outputTokens
  const share = (until - call.firstTokenAt) / (call.finishesAt - call.firstTokenAt)
  return Math.floor(call.entry.outputTokens * share + 1e-6)
}

const stopOutput = (state: ProviderState, call: AcceptedCall): void => {
  if (call.phase !== "producing") return
  call.phase = "silent"
  const millis = call.finishesAt - call.firstTokenAt
  if (!countsLive(state) || call.pool.gauges.outputTokens === undefined || call.sequence !== undefined) return
  if (millis <= 0) return
  call.pool.producing--
  // Sums of fractions drift; without a producing call the sum is exactly 0.
  call.pool.production = call.pool.producing === 0 ? 0 : call.pool.production - call.entry.outputTokens / millis
}

/** Whether all slots of a pool are in use. */
const isBusy = ({ options: { concurrency = Infinity } }: ProviderState, { inFlight }: ProviderPool): boolean =>
  inFlight >= concurrency

/** Whether all slots of a pool and all places in its queue are in use. */
export const isFull = (state: ProviderState, pool: ProviderPool): boolean => {
  const { concurrency = Infinity, queue = 0 } = state.options
  return pool.inFlight + (pool.batch?.waiting ?? pool.queue).length >= concurrency + queue
}

/** Begins to work on an admitted call, or queues it if all slots are in use. */
export const begin = (state: ProviderState, call: AcceptedCall): void => {
  if (call.pool.batch !== undefined) return join(state, call, call.pool.batch)
  if (!isBusy(state, call.pool)) return start(state, call)
  call.pool.queue.push(call)
  state.counters.queued++
}

const start = (state: ProviderState, call: AcceptedCall): void => {
  const { counters, now } = state
  counters.peakInFlight = Math.max(counters.peakInFlight, ++counters.inFlight)
  call.pool.inFlight++
  call.phase = "reading"
  const { inputTokens, outputTokens } = call.entry
  const { cachedTokens, cutAfter, factor, fault } = call.work
  if (fault?.kind === "timeout") {
    call.outputEndsAt = now
    call.endsAt = now + (fault.afterMillis ?? 60_000)
  } else {
    const { baseMillis, perInputTokenMillis, perOutputTokenMillis } = Latency.complete(state.options.latency)
    call.firstTokenAt = Math.ceil(
      now + factor * (baseMillis + perInputTokenMillis * (inputTokens + cachedTokens)) - 1e-6
    )
    call.finishesAt = Math.ceil(call.firstTokenAt + factor * perOutputTokenMillis * outputTokens - 1e-6)
    const isWhole = fault === undefined || fault.kind === "malformed"
    call.outputEndsAt = isWhole
      ? call.finishesAt
      : Math.floor(call.firstTokenAt + cutAfter * (call.finishesAt - call.firstTokenAt))
    call.endsAt = fault?.kind === "stall" ? Infinity : call.outputEndsAt
    Agenda.add(state.due, call.firstTokenAt, { call, what: "firstToken" })
    if (call.endsAt === Infinity) Agenda.add(state.due, call.outputEndsAt, { call, what: "silence" })
  }
  if (call.endsAt < Infinity) Agenda.add(state.due, call.endsAt, { call, what: "end" })
  call.onProgress?.()
}

/** Takes a call out of its slot or out of the queue, and starts the next one. */
const leave = (state: ProviderState, call: AcceptedCall): void => {
  const { pool } = call
  if (pool.batch !== undefined) {
    if (call.sequence === undefined) return
    Batch.leave(pool.batch, call.sequence)
    return proceed(state, pool, pool.batch, state.now)
  }
  if (call.phase === "queued") {
    pool.queue.splice(pool.queue.indexOf(call), 1)
    state.counters.queued--
    return
  }
  pool.inFlight--
  state.counters.inFlight--
  const next = pool.queue.shift()
  if (next === undefined) return
  state.counters.queued--
  start(state, next)
}

// -----------------------------------------------------------------------------
// Batches
// -----------------------------------------------------------------------------

/** Adds a call to the batch or to its queue. One that times out is never computed. */
const join = (state: ProviderState, call: AcceptedCall, batch: Batch.Batch<AcceptedCall>): void => {
  const { cachedTokens, cutAfter, factor, fault } = call.work
  if (fault?.kind === "timeout") {
    call.phase = "silent"
    call.endsAt = state.now + (fault.afterMillis ?? 60_000)
    return Agenda.add(state.due, call.endsAt, { call, what: "end" })
  }
  const { inputTokens, outputTokens } = call.entry
  const isWhole = fault === undefined || fault.kind === "malformed"
  call.sequence = {
    owner: call,
    prompt: Math.max(1, inputTokens + cachedTokens),
    target: isWhole ? outputTokens : Math.floor(cutAfter * outputTokens),
    baseMillis: factor * (state.options.latency?.baseMillis ?? Latency.ofServer.baseMillis),
    readyAt: Infinity,
    computed: 0,
    produced: 0
  }
  batch.waiting.push(call.sequence)
  proceed(state, call.pool, batch, state.now)
}

/** When its step ends, in whole milliseconds. The batch itself counts fractions, so that rounding does not slow it down. */
const stepEndOf = ({ stepEndsAt }: Batch.Batch<AcceptedCall>): number => Math.ceil(stepEndsAt - 1e-6)

/** Lets waiting calls begin, begins the next step unless one is in progress, and counts. */
const proceed = (state: ProviderState, pool: ProviderPool, batch: Batch.Batch<AcceptedCall>, at: number): void => {
  const isIdle = batch.stepEndsAt === Infinity
  Batch.begin(batch, at)
  if (isIdle && batch.stepEndsAt < Infinity) {
    Agenda.add(state.due, stepEndOf(batch), { pool, what: "step" })
  }
  const { counters } = state
  for (const { owner } of batch.running) if (owner.phase === "queued") owner.phase = "reading"
  counters.inFlight += batch.running.length - pool.inFlight
  pool.inFlight = batch.running.length
  counters.peakInFlight = Math.max(counters.peakInFlight, counters.inFlight)
  counters.queued = 0
  for (const other of state.pools.values()) counters.queued += other.batch?.waiting.length ?? 0
}

/** Ends a step of a batch: what it has produced is counted and may be sent. */
const stepped = (state: ProviderState, pool: ProviderPool, batch: Batch.Batch<AcceptedCall>): void => {
  const { now } = state
  const at = batch.stepEndsAt
  const { complete, made, read } = Batch.finish(batch)
  proceed(state, pool, batch, at)
  for (const { owner } of read) {
    if (owner.phase !== "reading") continue
    owner.firstTokenAt = now
    startOutput(state, owner)
  }
  const output = pool.gauges.outputTokens
  if (output !== undefined && countsLive(state)) Gauge.take(output, now, made.length)
  for (const { owner } of complete) {
    owner.outputEndsAt = now
    if (owner.fault === "stall") {
      stopOutput(state, owner)
      continue
    }
    owner.finishesAt = now
    owner.endsAt = now
    end(state, owner, false)
  }
  // Last, because callers may answer with new calls.
  for (const { owner } of [...read, ...made]) owner.onProgress?.()
}

/** When the next step of a batch ends; infinity if nothing is computed. */
export const nextStepAt = ({ pools }: ProviderState): number => {
  let soonest = Infinity
  for (const { batch } of pools.values()) {
    if (batch !== undefined) soonest = Math.min(soonest, stepEndOf(batch))
  }
  return soonest
}

/** Ends a call now, by itself or because its caller aborted it. */
export const end = (state: ProviderState, call: AcceptedCall, aborted: boolean): void => {
  stopOutput(state, call)
  call.entry.finishedAt = state.now
  call.entry.producedTokens = producedAt(call, state.now)
  call.entry.aborted = aborted
  const { inputTokens, model, producedTokens } = call.entry
  state.counters.outputTokens += producedTokens
  const { cache, cachedTokens } = call.work
  const written = cache?.writtenTokens ?? 0
  const used = {
    inputTokens: inputTokens - written,
    cacheReadTokens: cachedTokens,
    cacheCreationTokens: written,
    cacheCreationLongTokens: cache?.writtenLongTokens,
    outputTokens: producedTokens
  }
  if (call.phase !== "queued") Windows.spend(state.windows, model, used, state.now)
  const ended = call.fault === undefined ? "completed" : "broken"
  state.counters[aborted ? "aborted" : ended]++
  leave(state, call)
  call.phase = "ended"
}

/** Advances the provider's time to `now`. An earlier time changes nothing. */
export const advance = (state: ProviderState, now: number): void => {
  for (;;) {
    for (let item = Agenda.takeDue(state.due, state.now); item !== undefined;) {
      if (item.what === "step") stepped(state, item.pool, item.pool.batch!)
      else if (item.call.phase !== "ended") {
        if (item.what === "firstToken") startOutput(state, item.call)
        else if (item.what === "silence") stopOutput(state, item.call)
        else end(state, item.call, false)
      }
      item = Agenda.takeDue(state.due, state.now)
    }
    if (state.now >= now) return
    const { share, until } = neighbourAt(state, state.now)
    const flows = share > 0 || [...state.pools.values()].some((pool) => pool.production > 0)
    const to = Math.min(now, Agenda.nextAt(state.due), until, flows ? nextCell(state.now) : Infinity)
    // Otherwise this would never end.
    if (!(to > state.now)) throw new RangeError(`ProviderSim: expected a time after ${state.now} ms, got ${to}`)
    flow(state, to, share)
  }
}

const nextCell = (now: number): number => (Math.floor(now / cellMillis) + 1) * cellMillis
