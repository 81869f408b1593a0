/**
 * Adapts Floodgate to programs without Effect: one budget, and every way to use it, as functions that return promises.
 *
 * **Details**
 *
 * - `fetch` is for every client with an option for `fetch`: the openai SDK, the Vercel AI SDK, LangChain, Gemini's SDK.
 * - `aiSdk` is for models of the Vercel AI SDK without such an option: Bedrock, gateways.
 * - `anthropic` and `middleware` are for Anthropic's SDK, whose timeout then does not include the time in the queue.
 * - `run` is for any function that can be called again, and `limiter` for everything else.
 * - `advise` says how many more agents help, before an orchestrator starts them.
 *
 * They all share one budget, with its limits, queue and retries.
 *
 * **Gotchas**
 *
 * Make one floodgate for the whole program. Two of them would each use the whole limits, unless they share a store.
 *
 * **Example** (The first governed call)
 *
 * ```ts doctest
 * import * as Floodgate from "floodgate/promise"
 *
 * const floodgate = Floodgate.create({ limits: { tokens: { perMinute: 200_000 } } })
 *
 * const answer = await floodgate.run({ model: "my-model", inputTokens: 900 }, async () => "Hello")
 *
 * answer // => "Hello"
 * await floodgate.dispose()
 * ```
 *
 * @stability stable
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import type * as Accounting from "../../Accounting.ts"
import * as AiSdk from "../aiSdk/index.ts"
import * as Anthropic from "../anthropic/index.ts"
import { withMiddleware } from "../anthropic/client.ts"
import { unmistakable } from "../anthropic/unmistakable.ts"
import * as Agents from "../../Agents.ts"
import * as Budget from "../../Budget.ts"
import type { Learned } from "../../Estimator.ts"
import * as Events from "../../Events.ts"
import * as Fetch from "../../http/index.ts"
import * as Advice from "../../agents/advice.ts"
import * as Advise from "../../agents/advise.ts"
import type { PlainAdvice } from "../../agents/models.ts"
import { FailedAttempt, forCaller } from "../../call/failure.ts"
import { ClosedError, makeRunner, type RunPromise } from "../../call/promises.ts"
import { inScope } from "../../call/stream.ts"
import * as Governor from "../../Governor.ts"
import { callback, check } from "../../domain/input/checks.ts"
import { checkRuntime } from "../../domain/input/runtime.ts"
import { LlmError } from "../../LlmError.ts"
import { bytesPerToken } from "../../domain/amounts.ts"
import type { PlaceStatus } from "../../places/models.ts"
import * as SdkErrors from "../../protocol/sdkErrors.ts"
import * as Spending from "../../Spending.ts"
import { plain } from "./errors.ts"
import {
  budgetOf,
  type Call,
  callOptionsOf,
  type CallOptions,
  call as isCall,
  fetchOf,
  governedBy,
  optionsCheck,
  type Options,
  retryOf
} from "./options.ts"
import * as Log from "./log.ts"
import { layerStore } from "./store.ts"
import { Purses } from "../../domain/spending/models.ts"

export { RedisMissingError, RefusedError } from "./errors.ts"
export type { PlainAdvice } from "../../agents/models.ts"
export { ClosedError } from "../../call/promises.ts"
export type { Call, CallOptions, Options } from "./options.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * An admitted call. End it with one of the methods; only the first has an effect.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Lease {
  readonly pool: string
  readonly waitedSeconds: number
  /** The call succeeded, with this usage. Without it the estimate is kept. */
  readonly succeed: (tokens?: Accounting.Actual) => void
  /** The call failed. The client's error tells whether the provider rejected it. */
  readonly fail: (error: unknown) => void
  /** Ends a call whose outcome is unknown. Its input counts as used. */
  readonly [Symbol.dispose]: () => void
}

/**
 * A budget, and every way to use it.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Floodgate {
  /** A governed `fetch`; see `floodgate/fetch`. */
  readonly fetch: typeof globalThis.fetch
  /**
   * A middleware of Anthropic's SDK: `new Anthropic({ middleware: [floodgate.middleware] })`. A client before 0.103 ignores
   * that option; `anthropic` refuses such a client.
   */
  readonly middleware: Anthropic.Middleware
  /**
   * A copy of a client of Anthropic's SDK that uses the middleware: `floodgate.anthropic(new Anthropic())`. Throws a
   * `RangeError` for a client before 0.103, which has no middleware and takes the option `fetch` instead.
   *
   * @since 0.4.0
   */
  readonly anthropic: <
    A extends {
      readonly middleware: ReadonlyArray<unknown>
      withOptions(options: { readonly middleware: ReadonlyArray<never> }): unknown
    }
  >(
    client: A
  ) => A
  /** A middleware of the Vercel AI SDK: `wrapLanguageModel({ model, middleware: floodgate.aiSdk })`; see `floodgate/ai-sdk`. */
  readonly aiSdk: AiSdk.Middleware
  /**
   * Calls a function when its call is admitted, and retries it if its error can be retried. Rejects with the error of the last
   * attempt, or with a `RefusedError`.
   */
  readonly run: <A>(
    call: Call,
    attempt: (attempt: {
      /** Aborts if the call is aborted or times out, or if the floodgate is disposed. */
      readonly signal: AbortSignal
      /** Reports the usage of the call, as the response states it. Without it the estimate is kept. */
      readonly used: (tokens: Accounting.Actual) => void
    }) => Promise<A>
  ) => Promise<A>
  /** Admits calls that something else makes and retries. */
  readonly limiter: {
    /** Waits until the call is admitted. Rejects with a `RefusedError` if it is refused. */
    readonly acquire: (call: Call) => Promise<Lease>
  }
  /**
   * Advises how many more agents help now, before they are started: see `Agents.advise`. Rejects with a `PoolUnclear` if several
   * pools may be meant, or none.
   *
   * @since 0.4.0
   */
  readonly advise: (options?: Agents.AdviseOptions) => Promise<PlainAdvice>
  /** The status of all pools. */
  readonly status: () => Promise<Budget.BudgetStatus>
  /**
   * Why calls go to each place, or do not.
   *
   * @since 0.5.0
   */
  readonly places: () => Promise<ReadonlyArray<PlaceStatus>>
  /** The cost of all calls, and what is left of the `cap`, in dollars. */
  readonly spent: () => Promise<Spending.Status>
  /**
   * The metrics of this floodgate in Prometheus' text format. It loads `effect/observability/PrometheusMetrics`, which Effect marks
   * unstable: it is made for `effect` `~4.1`.
   *
   * @stability unstable
   */
  readonly metrics: () => Promise<string>
  /** The estimates learned so far, as plain data. Store them, and pass them to the next floodgate as `learned`. */
  readonly learned: () => Promise<Learned>
  /**
   * Closes the floodgate. Calls that run or wait fail with a `ClosedError`, streams that are being read end with it, and all
   * later calls fail with it at once.
   */
  readonly dispose: () => Promise<void>
  /** For `await using`. */
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

/** One attempt of a call, for the function that makes it. */
type Attempt = Parameters<Parameters<Floodgate["run"]>[1]>[0]

// -----------------------------------------------------------------------------
// Parts
// -----------------------------------------------------------------------------

/** The parts of a floodgate, after its layers were built. */
class FloodgateParts extends Context.Service<
  FloodgateParts,
  {
    readonly budget: Budget.TokenBudget["Service"]
    readonly advise: Floodgate["advise"]
    readonly governor: Governor.Governor["Service"]
    readonly fetch: typeof globalThis.fetch
    readonly middleware: Anthropic.Middleware
    readonly aiSdk: AiSdk.Middleware
    readonly run: RunPromise
    readonly metrics: () => Promise<string>
    readonly spent: Effect.Effect<Spending.Status>
  }
>()("floodgate/promise/FloodgateParts") {}

const rethrow = (error: unknown): never => {
  throw plain(error)
}

const layerParts = (options: Options) => {
  const { fetch, protocols, streamUsage } = options
  const { places, ...fetching } = fetchOf(options)
  const callOptions = governedBy(callOptionsOf(options))
  return Layer.effect(
    FloodgateParts,
    Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      const { run } = yield* makeRunner
      const [purse] = yield* Purses
      const budget = yield* Budget.TokenBudget
      const governor = yield* Governor.Governor
      const known = Context.make(Budget.TokenBudget, budget).pipe(Context.add(Governor.Governor, governor))
      return {
        spent: purse!.status,
        budget,
        advise: (options) => {
          const advice = Effect.map(Advise.advise("Floodgate.advise", options), Advice.plain)
          return run(Effect.provideContext(advice, known), undefined).catch(rethrow)
        },
        governor,
        fetch: yield* Fetch.make({ ...fetching, fetch, places, protocols, streamUsage }),
        middleware: yield* Anthropic.make({ ...fetching, account: fetching.account ?? "origin" }),
        aiSdk: yield* AiSdk.make({ callOptions }),
        run: (effect, signal) => run(effect, signal).catch(rethrow),
        metrics: async () => {
          const Prometheus = await import("effect/observability/PrometheusMetrics")
          return Prometheus.formatUnsafe(context)
        }
      }
    })
  )
}

/** The purse that all calls pay from: one for all processes, if they share a store. */
const layerPurses = (options: Options) =>
  Layer.effect(
    Purses,
    Effect.map(Spending.open("this floodgate", options.cap), (purse) => [purse])
  ).pipe(Layer.provideMerge(layerStore(options)))

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/** Reads the error that an attempt threw. */
const failureOf = (thrown: unknown, clock: Clock.Clock): LlmError =>
  new LlmError({ reason: SdkErrors.fromThrown(thrown, { now: clock.currentTimeMillisUnsafe() }) })

/** Tells the state of a floodgate. It may be closed. */
const told = (
  built: Promise<FloodgateParts["Service"]>
): Pick<Floodgate, "learned" | "metrics" | "places" | "spent" | "status"> => ({
  status: async () => Effect.runPromise((await built).budget.status),
  places: async () => Effect.runPromise((await built).governor.places),
  spent: async () => Effect.runPromise((await built).spent),
  metrics: async () => (await built).metrics(),
  learned: async () => Effect.runPromise((await built).governor.learned)
})

/** A call and its options in the governor's form. Options of the call take precedence over those for all calls. */
const described = (call: Call, forAll: CallOptions): readonly [Governor.Call, Governor.CallOptions] => {
  const { account, bytes, caches, inputTokens, kind, maxTokens, model, signal: _, ...options } = { ...forAll, ...call }
  const size = bytes ?? Math.round((inputTokens ?? 0) * bytesPerToken)
  return [{ account, bytes: size, caches, inputTokens, kind, maxTokens, model }, governedBy(options)]
}

const attempted = <A>(attempt: (attempt: Attempt) => Promise<A>) =>
  Effect.clockWith((clock) =>
    Effect.suspend(() => {
      let actual: Accounting.Actual | undefined
      return Effect.tryPromise({
        try: async (signal) => ({
          value: await attempt({ signal, used: (tokens) => (actual = tokens) }),
          actual
        }),
        catch: (thrown) => new FailedAttempt(failureOf(thrown, clock), Effect.fail(thrown))
      })
    })
  )

/** Ends leases that were garbage collected. Ending one again changes nothing. */
const forgotten = new FinalizationRegistry<() => void>((end) => end())

/** Admits a call until its lease ends. */
const leased = (
  { governor }: FloodgateParts["Service"],
  [call, options]: readonly [Governor.Call, Governor.CallOptions]
): Effect.Effect<Lease, unknown> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const runFork = Effect.runForkWith(yield* Effect.context<never>())
      const clock = yield* Clock.Clock
      const { opened: ticket, scope } = yield* inScope(governor.admit(call, options), restore)
      const end = (last: Effect.Effect<void>): void => {
        runFork(Effect.ensuring(last, Scope.close(scope, Exit.void)))
      }
      const lease: Lease = {
        pool: ticket.reservation.pool,
        waitedSeconds: Duration.toSeconds(ticket.reservation.waited),
        succeed: (tokens) => end(ticket.succeed(tokens)),
        fail: (error) => end(ticket.fail(failureOf(error, clock))),
        [Symbol.dispose]: () => end(Effect.void)
      }
      forgotten.register(lease, () => end(Effect.void))
      return lease
    })
  )

/** The middleware of the AI SDK. It is usable before the layers are built. */
const aiSdkOf = (opened: Promise<FloodgateParts["Service"]>): Floodgate["aiSdk"] => ({
  specificationVersion: "v3",
  wrapGenerate: async (options) => (await opened).aiSdk.wrapGenerate(options).catch(rethrow),
  wrapStream: async (options) => (await opened).aiSdk.wrapStream(options).catch(rethrow)
})

/** The parts from when they are built until they are closed. */
const partsOf = <E>(runtime: ManagedRuntime.ManagedRuntime<FloodgateParts, E>) => {
  const built = runtime.runPromise(FloodgateParts)
  let isClosed = false
  const opened = built.catch((error: unknown) => {
    throw isClosed ? new ClosedError() : error
  })
  // Every use of it rejects with the error, so it must not be reported as unhandled as well.
  opened.catch(() => {})
  return {
    built,
    /** The parts, for a call. They refuse every call as soon as the floodgate begins to close, which takes a while over Redis. */
    opened,
    dispose: (): Promise<void> => {
      isClosed = true
      return runtime.dispose()
    }
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes a floodgate.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option if one is invalid, and an `Error` if this version of Node is too old.
 *
 * **Example** (A cap in dollars)
 *
 * ```ts doctest
 * import * as Floodgate from "floodgate/promise"
 *
 * await using floodgate = Floodgate.create({
 *   limits: { inputTokens: { perMinute: 2_000_000 } },
 *   cap: { dollars: 0.01, per: "day" },
 *   retry: { attempts: 3 }
 * })
 *
 * const call = { model: "claude-sonnet-5", inputTokens: 100_000, maxTokens: 1_000, agent: "researcher" }
 * const refused = await floodgate.run(call, async () => "answer").catch((error: unknown) => error)
 *
 * refused instanceof Floodgate.RefusedError && refused.reason // => "used"
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.2.0
 */
export const create = (options: Options = {}): Floodgate => {
  checkRuntime()
  check("Floodgate.create", optionsCheck, options)
  const { countPrompts, learned, log, onEvent, prices, tryWindowsEvery, windows } = options
  const logging = Log.layers(log)
  const forAll = callOptionsOf(options)
  const references = Layer.mergeAll(
    Layer.succeed(Events.Observer, onEvent),
    Layer.succeed(Metric.MetricRegistry, new Map()),
    logging.logger
  )
  const runtime = ManagedRuntime.make(
    Layer.merge(layerParts(options), logging.lines).pipe(
      Layer.provide(
        Layer.provideMerge(
          Governor.layer({ countPrompts, learned, prices, retry: retryOf(options), tryWindowsEvery, windows }),
          Agents.layer.pipe(Layer.provide(Budget.layer(budgetOf(options))))
        )
      ),
      Layer.provideMerge(layerPurses(options)),
      Layer.provideMerge(references)
    )
  )
  const { built, dispose, opened } = partsOf(runtime)
  const middleware: Anthropic.Middleware = async (request, next, context) =>
    (await opened).middleware(request, next, context).catch((error: unknown) => {
      throw unmistakable(plain(error))
    })
  return {
    fetch: (input, init) => opened.then(({ fetch }) => fetch(input, init)),
    middleware,
    anthropic: (client) => withMiddleware("Floodgate.anthropic", client, middleware),
    aiSdk: aiSdkOf(opened),
    run: async (call, attempt) => {
      check("Floodgate.run", isCall, call)
      check("Floodgate.run: attempt", callback, attempt)
      const { governor, run } = await opened
      const [known, callOptions] = described(call, forAll)
      return run(forCaller(governor.run(known, () => attempted(attempt), callOptions)), call.signal)
    },
    limiter: {
      acquire: async (call) => {
        check("Floodgate.limiter.acquire", isCall, call)
        const parts = await opened
        return parts.run(leased(parts, described(call, forAll)), call.signal)
      }
    },
    advise: async (options) => (await opened).advise(options),
    ...told(built),
    dispose,
    [Symbol.asyncDispose]: dispose
  }
}
