/**
 * A simulated provider that shows in milliseconds what your fan-out does at real rate limits.
 *
 * `ProviderSim.layer` provides `LlmProvider` with limits per dimension, rejections with `retry-after`, latency that
 * grows with the tokens, and faults. It runs under any clock. Under Effect's `TestClock` an hour of simulated calls
 * takes a moment, and the same seed always gives the same answers. The service `ProviderSim` shows what the provider saw,
 * for assertions and charts.
 *
 * **When to use**
 *
 * Use it in tests of code that makes many calls at once. It shows how long a job takes, how many calls are rejected, and what
 * happens when the provider fails, without costs.
 *
 * **Details**
 *
 * - Input tokens are counted from the characters of a request. Answers are deterministic extracts of the request's
 *   document.
 * - Interrupting a call aborts its request: it is no longer in flight, and its input stays counted.
 * - Times in the log are milliseconds since the layer was built.
 *
 * **Gotchas**
 *
 * Results depend on how the provider counts: whether rejections count (`rejections`), and how limits are counted (`window`). State it
 * with every figure. See {@link Options}.
 *
 * **Example** (Prove your fan-out: 12 agents of 5 calls within 60,000 tokens a second)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import { ProviderSim, Simulation } from "floodgate/testing"
 *
 * const agent = Effect.fnUntraced(function* (id: number) {
 *   const provider = yield* LlmProvider
 *   for (let call = 0; call < 5; call++) {
 *     yield* provider.create({
 *       model: "claude-sonnet-5",
 *       max_tokens: 1_000,
 *       metadata: { user_id: `agent-${id}` },
 *       messages: [{ role: "user", content: "x".repeat(40_000) }]
 *     })
 *   }
 * })
 *
 * const program = Effect.gen(function* () {
 *   yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], agent, { concurrency: "unbounded" })
 *   const sim = yield* ProviderSim.ProviderSim
 *   return yield* sim.stats
 * }).pipe(
 *   Effect.provide(ProviderSim.layer({ limits: { tokens: { perSecond: 60_000, burst: 200_000 } }, outputTokens: 500 }))
 * )
 *
 * const { value: stats } = await Effect.runPromise(Simulation.run(program))
 * stats.completed // => 60
 * stats.rejected // => 0
 * stats.peakInFlight // => 12
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Budget from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import * as LlmError from "../LlmError.ts"
import { LlmProvider, type Params } from "../LlmProvider.ts"
import * as Signals from "../Signals.ts"
import * as Engine from "./engine.ts"
import * as Headers from "./headers.ts"
import type { Entry, Fault, FaultKind, HeaderMode, Options, Stats } from "./models.ts"
import * as Seeded from "./seeded.ts"
import * as Simulator from "./simulator.ts"
import { finished, produced, reached, started, stepping } from "./started.ts"
import * as Validity from "./validity.ts"

export type { Entry, Fault, Options, Stats } from "./models.ts"
export { tokenizer } from "./textKinds.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * Output sizes with a realistic spread, many small answers and a few long ones, for the option `outputTokens`.
 *
 * **Details**
 *
 * `mean` is the arithmetic mean in tokens, `sigma` the standard deviation of the logarithm: 0.5 is moderate, 1 has a long
 * tail. Throws a `RangeError` unless both are finite, `mean` is above 0 and `sigma` is not below.
 *
 * **Example** (A short, a medium and a long answer)
 *
 * ```ts doctest
 * import { ProviderSim } from "floodgate/testing"
 *
 * const size = ProviderSim.lognormal(400, 0.5)
 * const params = { model: "claude-sonnet-5", max_tokens: 4_096, messages: [] }
 *
 * size(params, 0.1) // => 186
 * size(params, 0.5) // => 353
 * size(params, 0.9) // => 670
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const lognormal = (mean: number, sigma: number): ((params: Params, random: number) => number) => {
  if (!(mean > 0 && sigma >= 0 && mean + sigma < Infinity)) {
    const got = `${mean} and ${sigma}`
    throw new RangeError(`ProviderSim.lognormal: expected finite numbers, mean > 0 and sigma >= 0, got ${got}`)
  }
  return (_, unit) => Math.max(1, Math.round(Seeded.lognormal(mean, sigma, unit)))
}

/**
 * An outage between two times, in milliseconds since the provider started: every request fails with a 529, or with
 * `kind`.
 *
 * **Example** (What if the provider is down for a minute?)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import * as Retry from "floodgate/Retry"
 * import { ProviderSim, Simulation } from "floodgate/testing"
 *
 * const call = Effect.flatMap(LlmProvider, (provider) =>
 *   provider.create({ model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] })
 * )
 *
 * const patient = call.pipe(
 *   Effect.retry(Retry.schedule({ attempts: 10 })),
 *   Effect.provide(ProviderSim.layer({ faults: [ProviderSim.outage(0, 60_000)] }))
 * )
 *
 * const { duration } = await Effect.runPromise(Simulation.run(patient))
 * Duration.toMinutes(duration) > 1 // => true
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const outage = (from: number, to: number, kind: Fault["kind"] = "529"): Fault => ({ kind, between: [from, to] })

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * The requests that the simulated provider received.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class ProviderSim extends Context.Service<
  ProviderSim,
  {
    /** A copy of the log: every request, in the order of arrival. */
    readonly log: Effect.Effect<ReadonlyArray<Entry>>
    /** The counters. */
    readonly stats: Effect.Effect<Stats>
    /** The number of admitted calls that are running. */
    readonly inFlight: Effect.Effect<number>
    /** The highest number of calls that ran at once. */
    readonly peakInFlight: Effect.Effect<number>
    /** The tokens of a request that would be read from the cache if it came now: 0 without the option `cache`. */
    readonly cached: (params: Params) => Effect.Effect<number>
    /** The amount left of each limit of a model's pool, in the dimension's unit; below zero in debt. */
    readonly left: (model: string) => Effect.Effect<Limits.Usage>
  }
>()("floodgate/testing/ProviderSim/ProviderSim") {}

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** A simulated provider whose time passes by the clock of its caller. */
interface RunningSimulator {
  readonly self: Simulator.Simulator
  readonly mode: HeaderMode
  /** Milliseconds since it started, by the caller's clock, which need not be the one that the layer was built with. */
  readonly now: Effect.Effect<number>
  /** The relation between its time and the caller's. */
  readonly wall: (now: number) => Headers.Wall
  /** Moves batches on while calls wait for them. */
  readonly step: Effect.Effect<void>
}

const ask = ({ now, self, step }: RunningSimulator, params: Params): Effect.Effect<Simulator.SimulatedAnswer> =>
  Effect.flatMap(Budget.Agent, (agent) => Effect.map(now, (now) => Simulator.ask(self, now, params, agent))).pipe(
    self.options.server === undefined ? identity : Effect.tap(step)
  )

/** Aborts the call. After its end this changes nothing. */
const release = ({ now, self }: RunningSimulator, { decision }: Simulator.SimulatedAnswer): Effect.Effect<void> =>
  Effect.map(now, (now) => {
    if (decision._tag === "Accepted") Engine.abort(self.engine, now, decision.call)
  })

const sleepUntil = ({ now }: Pick<RunningSimulator, "now">, time: number): Effect.Effect<void> =>
  Effect.flatMap(now, (now) => (time <= now ? Effect.void : Effect.sleep(time - now)))

/** How long the real client waits for a whole answer or a stream's headers, and during a silence within a stream. */
const patience = { answer: Duration.minutes(10), silence: Duration.minutes(1) }

/** Waits for the end of a call. */
const finish = (playing: RunningSimulator, call: Engine.AcceptedCall): Effect.Effect<void> =>
  finished(playing.self.engine, call, (at) => sleepUntil(playing, at))

const signalOf = (
  { mode, now, self, wall }: RunningSimulator,
  model: string
): Effect.Effect<Limits.Signal | undefined> =>
  Effect.map(now, (now) => {
    const { engine } = self
    return Headers.signal(mode, Engine.figures(engine, now, model), Engine.windowFigures(engine, now, model), wall(now))
  })

const fail = (reason: LlmError.LlmErrorReason) => Effect.fail(new LlmError.LlmError({ reason }))

/** The reason that the real client reads from a rejection. */
const reasonOf = (
  { mode }: RunningSimulator,
  rejected: Engine.Rejected,
  requestId: string,
  signal: Limits.Signal | undefined,
  wall: Headers.Wall
): LlmError.LlmErrorReason => {
  const { errorCode, errorType, message, retryAfterMillis, status } = rejected
  // A fast path: storms have many of these, and parsing an answer takes longer than making it.
  if (status === 429 && errorCode === undefined && rejected.entry.rejectedBy !== "window") {
    const asked = Headers.retryAfterMillis(mode, retryAfterMillis, wall)
    const retryAfter = asked === undefined ? undefined : Duration.millis(asked)
    return new LlmError.RateLimited({ status, requestId, code: errorType, detail: message, retryAfter, signal })
  }
  const headers = { "request-id": requestId, ...Headers.retryAfter(mode, retryAfterMillis, wall) }
  const answer = { status, headers, body: Headers.errorBody(rejected, requestId) }
  const { reason } = Signals.fromError(answer, wall.epochMillis)
  // It is not documented whether responses to failures of the provider have rate limit headers.
  if (status !== 429) return reason
  const Reason = LlmError[reason._tag as "RateLimited"]
  return new Reason({ ...(reason as LlmError.RateLimited), signal })
}

/** Fails with the client's timeout, at the time of the timeout, if `time` is later. */
const patientUntil = (
  playing: RunningSimulator,
  { entry }: Engine.AcceptedCall,
  time: number
): Effect.Effect<void, LlmError.LlmError> => {
  const last = entry.at + Duration.toMillis(patience.answer)
  if (time <= last) return Effect.void
  return Effect.andThen(sleepUntil(playing, last), fail(new LlmError.TimedOut({ after: patience.answer })))
}

/** Waits for an event of a call. Fails with the client's timeout. */
const patiently = (playing: RunningSimulator, call: Engine.AcceptedCall, event: Effect.Effect<void>) =>
  Effect.raceFirst(event, patientUntil(playing, call, Infinity))

/** Waits until the provider works on a call, which may be queued. */
const begun = (playing: RunningSimulator, call: Engine.AcceptedCall): Effect.Effect<void, LlmError.LlmError> =>
  call.phase === "queued" ? patiently(playing, call, started(call)) : Effect.void

/** Returns the call of an admitted request. Fails for any other request when its answer arrives. */
const admitted = Effect.fnUntraced(function* (
  playing: RunningSimulator,
  { decision, params, requestId }: Simulator.SimulatedAnswer
) {
  switch (decision._tag) {
    case "Refused":
      return yield* fail(new LlmError.ConnectionFailed({ sent: false, code: "ECONNREFUSED" }))
    case "Rejected": {
      const { now, wall } = playing
      const signal = yield* signalOf(playing, params.model)
      const reason = reasonOf(playing, decision, requestId, signal, wall(yield* now))
      yield* sleepUntil(playing, decision.answersAt)
      return yield* fail(reason)
    }
    case "Accepted": {
      const { call } = decision
      yield* begun(playing, call)
      if (call.fault !== "timeout") return call
      yield* patientUntil(playing, call, call.endsAt)
      yield* finish(playing, call)
      return yield* fail(new LlmError.TimedOut({ requestId }))
    }
  }
})

const create = (playing: RunningSimulator, params: Params) =>
  Effect.acquireUseRelease(
    ask(playing, params),
    Effect.fnUntraced(function* (answer) {
      const call = yield* admitted(playing, answer)
      if (call.sequence === undefined) yield* patientUntil(playing, call, call.endsAt)
      yield* call.sequence === undefined ? finish(playing, call) : patiently(playing, call, finish(playing, call))
      if (call.fault === "malformed") {
        const signal = yield* signalOf(playing, params.model)
        return yield* fail(new LlmError.MalformedResponse({ status: 200, requestId: answer.requestId, signal }))
      }
      if (call.fault !== undefined) {
        return yield* fail(new LlmError.ConnectionFailed({ sent: true, code: "ECONNRESET" }))
      }
      const signal = yield* signalOf(playing, params.model)
      return { value: Simulator.message(playing.self, answer), signal, requestId: answer.requestId }
    }),
    (answer) => release(playing, answer)
  )

/** The interruption of a stream, by its fault. */
const breaks: Partial<Record<FaultKind, LlmError.StreamInterrupted["kind"]>> = {
  cut: "cut",
  truncated: "truncated",
  stall: "stalled"
}

/** The end of a stream after its last event. */
const ending = Effect.fnUntraced(function* (
  playing: RunningSimulator,
  answer: Simulator.SimulatedAnswer,
  call: Engine.AcceptedCall
) {
  const kind = call.fault && breaks[call.fault]
  if (kind === "stalled") {
    yield* Effect.sleep(patience.silence)
    yield* release(playing, answer)
  } else yield* finish(playing, call)
  if (call.fault === undefined) return Stream.empty
  let text = ""
  for (const { event } of Simulator.events(playing.self, answer, call)) {
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text
  }
  const usage = { requests: 1, inputTokens: answer.inputTokens, outputTokens: call.entry.producedTokens }
  const received = { usage, text, started: text !== "" }
  const fields = { received, requestId: answer.requestId, status: 200 }
  return Stream.fromEffect(
    fail(
      kind === undefined ? new LlmError.MalformedResponse(fields) : new LlmError.StreamInterrupted({ ...fields, kind })
    )
  )
})

const stream = Effect.fnUntraced(function* (playing: RunningSimulator, params: Params) {
  const answer = yield* Effect.acquireRelease(ask(playing, params), (answer) => release(playing, answer))
  // The headers of a stream are sent before its body, and know nothing of this answer's output.
  const signal = yield* signalOf(playing, params.model)
  const call = yield* admitted(playing, answer)
  if (call.sequence !== undefined) yield* patiently(playing, call, produced(call, 0))
  else {
    yield* patientUntil(playing, call, call.firstTokenAt)
    yield* sleepUntil(playing, call.firstTokenAt)
  }
  const events = Stream.fromIterable(Simulator.events(playing.self, answer, call)).pipe(
    Stream.mapEffect(({ event, ...moment }) =>
      Effect.as(
        reached(call, moment, (at) => sleepUntil(playing, at)),
        event
      )
    )
  )
  const value: Stream.Stream<RawMessageStreamEvent, LlmError.LlmError> = Stream.concat(
    events,
    Stream.unwrap(ending(playing, answer, call))
  )
  return { value, signal, requestId: answer.requestId }
})

/** An invalid request is refused at once and does not count as a call, as over HTTP. */
const invalid = (problem: string | undefined) =>
  problem === undefined
    ? Effect.void
    : fail(new LlmError.InvalidRequest({ status: 400, code: "invalid_request_error", detail: problem }))

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

interface Services {
  readonly provider: LlmProvider["Service"]
  readonly sim: ProviderSim["Service"]
}

/** The service that reports what a simulated provider has seen. */
const seen = ({ now, self }: RunningSimulator): ProviderSim["Service"] => {
  const { engine } = self
  const stats = Effect.map(now, (now) => Engine.stats(engine, now))
  return {
    log: Effect.map(now, (now) => {
      Engine.advance(engine, now)
      return engine.log.map((entry) => ({ ...entry }))
    }),
    stats,
    inFlight: Effect.map(stats, (stats) => stats.inFlight),
    peakInFlight: Effect.map(stats, (stats) => stats.peakInFlight),
    cached: (params) => Effect.map(now, (now) => Simulator.cachedTokens(self, now, params)),
    left: (model) => Effect.map(now, (now) => Engine.left(engine, now, model))
  }
}

/** Makes a simulated provider and its log. Its time starts now. */
const make = Effect.fnUntraced(function* (options: Options = {}): Effect.fn.Return<Services> {
  const self = Simulator.make(options)
  const start = yield* Clock.currentTimeMillis
  const now = Effect.map(Clock.currentTimeMillis, (millis) => millis - start)
  const playing: RunningSimulator = {
    self,
    mode: options.headers ?? "rounded",
    now,
    step: stepping(self.engine, { now, sleepUntil: (at) => sleepUntil({ now }, at) }),
    wall: (now) => ({ epochMillis: start + now, scale: 1 })
  }
  return {
    provider: {
      name: "anthropic",
      create: (params) => Effect.andThen(invalid(Validity.createProblem(params)), create(playing, params)),
      stream: (params) => Effect.andThen(invalid(Validity.createProblem(params)), stream(playing, params)),
      countTokens: (params) =>
        Effect.flatMap(invalid(Validity.countProblem(params)), () => {
          self.engine.counters.countTokens++
          const reply = { value: Simulator.countTokens(self, params), signal: undefined, requestId: undefined }
          const millis = options.latency?.countTokensMillis ?? 0
          return millis === 0 ? Effect.succeed(reply) : Effect.delay(Effect.succeed(reply), millis)
        })
    },
    sim: seen(playing)
  }
})

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A simulated provider as `LlmProvider`, with the requests that it received as `ProviderSim`. Its time starts when the layer is built.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example** (The answer of a provider without room)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const call = Effect.flatMap(LlmProvider, (provider) =>
 *   provider.create({ model: "claude-sonnet-5", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] })
 * )
 *
 * const program = Effect.gen(function* () {
 *   yield* call
 *   const rejected = yield* Effect.flip(call)
 *   const { requests } = yield* (yield* ProviderSim.ProviderSim).stats
 *   return [rejected.reason._tag, requests]
 * }).pipe(
 *   Effect.provide(ProviderSim.layer({ limits: { requests: { perMinute: 1 } }, latency: { baseMillis: 1 } }))
 * )
 *
 * await Effect.runPromise(program) // => ["RateLimited", 2]
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<LlmProvider | ProviderSim> =>
  Layer.effectContext(
    Effect.map(make(options), ({ provider, sim }) =>
      Context.make(LlmProvider, provider).pipe(Context.add(ProviderSim, sim))
    )
  )
