/**
 * `Governor` runs a call under a token budget and a retry policy. Every client is a thin adapter of it.
 *
 * For each attempt the governor estimates the usage of the call, reserves it, runs the attempt, settles the reservation to the
 * actual usage, and passes the limits in the response to the budget. If the attempt fails, the retry policy decides about the next.
 *
 * **Details**
 *
 * A call is composed from the inside to the outside: `withTimeout`, `withBreaker`, `withSettlement`, `withAdmission`, `withWarmup`,
 * `withRetries`. While a retry waits, it holds neither a reservation nor a permit. Then it is queued before the other calls of its
 * agent. The timeout does not include the time in the queue.
 *
 * Retries are taken from the retry budget ({@link Retry.layerBudget}) of the caller's context, otherwise from that of the governor's
 * layer, otherwise from that of the process.
 *
 * No attempt begins after the deadline ({@link Retry.withDeadline}), or waits beyond it for a warm cache or in the queue. If
 * the deadline prevents a retry, the call fails with its last failure. If the budget refuses a retry, the refusal carries the
 * last failure in `failure`.
 *
 * The reservation is settled:
 *
 * - after a success, to the usage
 * - after a failure, to the `usage` of the error: a rejected call is refunded, and a timeout keeps its input. An error without
 *   `usage`, and a defect, keep the estimate. If the provider charges rejected requests, every request that was sent keeps it
 * - after an interruption, to nothing if the attempt was not sent, otherwise to the input and the output that was observed
 *
 * Each call has one span, and is counted in the metrics of `docs/guides/observability.md`.
 *
 * **Example** (Any effect that calls a model)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const call = { model: "my-model", bytes: 4_000, maxTokens: 500 }
 * const actual = { inputTokens: 1_100, outputTokens: 20 }
 * const attempt = Effect.succeed({ value: "hello", actual })
 *
 * const program = Effect.gen(function* () {
 *   const governor = yield* Governor.Governor
 *   return yield* governor.run(call, () => attempt)
 * })
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 100_000 } } })))
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => "hello"
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as Budget from "./Budget.ts"
import * as Estimator from "./Estimator.ts"
import type { Ask } from "./budget/asking.ts"
import { observerOf } from "./budget/observer.ts"
import * as Waker from "./line/waker.ts"
import * as SyncForm from "./domain/syncForm.ts"
import { check, millisOf, options as optionsOf } from "./domain/input/checks.ts"
import {
  admit,
  begin,
  checked,
  inScope,
  leaveOpen,
  type MakeAttempt,
  sent,
  settleAnswered,
  when,
  withAdmission,
  withAgent,
  withJob,
  withBreaker,
  withRetries,
  withSettlement,
  withTimeout,
  withWarmup
} from "./call/steps.ts"
import type { GovernedAttempt } from "./call/attempt.ts"
import { PromptCounter } from "./call/counting.ts"
import * as Direct from "./call/direct.ts"
import type { GovernedCall } from "./call/governedCall.ts"
import { PlausibleUsage } from "./call/plausible.ts"
import * as CapLog from "./money/capLog.ts"
import type { EstimatorForms, GovernorParts } from "./call/parts.ts"
import { History } from "./call/history.ts"
import { openPlaces } from "./call/located.ts"
import {
  Breaker,
  type Call,
  type CallOptions,
  governorChecks,
  type Options,
  type Outcome,
  type Ticket
} from "./call/models.ts"
import { PoolRecords } from "./call/pool.ts"
import { Conversations } from "./call/conversations.ts"
import * as Warmup from "./call/warmup.ts"
import { afterBy, type ParkedCall } from "./money/parking.ts"
import type { OpenWindows } from "./money/account.ts"
import { LongWindows, type WindowStatus } from "./money/windows.ts"
import type { LlmError } from "./LlmError.ts"
import { PlaceMemory } from "./places/memory.ts"
import type { PlaceStatus } from "./places/models.ts"
import { PlaceReviews } from "./places/reviews.ts"
import { StatedPlaces } from "./places/parse.ts"
import * as Prices from "./Prices.ts"
import { BudgetStore, newId, type Sharing } from "./sharing/port.ts"
import { RetryBudget } from "./call/retryBudget.ts"
import * as Retry from "./Retry.ts"

export type { ParkedCall } from "./money/parking.ts"
export type { WindowStatus } from "./money/windows.ts"
export type { Call, CallOptions, Options, Outcome, Ticket } from "./call/models.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * Runs calls under budget and retry.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class Governor extends Context.Service<
  Governor,
  {
    /**
     * Runs a call: each attempt under a reservation, retried by the policy. Refusals of the budget are not retried. Each
     * attempt has a scope of its own, which closes when the attempt ends. Use `open` for resources that must outlive the call.
     */
    readonly run: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, Exclude<R, Scope.Scope>>
    /**
     * Begins a call that outlives the effect, such as a stream. It is retried as in `run` until an attempt succeeds. Its reservation,
     * and everything that the attempt opened, lives as long as the scope around it. The caller must conclude the ticket.
     */
    readonly open: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, R | Scope.Scope>
    /** Admits one attempt, without retries, breaker or timeout, for code that makes its own attempts. */
    readonly admit: (
      call: Call,
      options?: CallOptions
    ) => Effect.Effect<Ticket, Budget.BudgetError | LlmError, Scope.Scope>
    /** Everything learned about calls so far. Keep it, and pass it to the next governor as `learned`. */
    readonly learned: Effect.Effect<Estimator.Learned>
    /** The prices by which calls are paid for: the published ones, and those of the options. */
    readonly prices: Prices.Table
    /**
     * Why calls go to each place, or do not: for those that calls could go to, and by what this governor has learned.
     *
     * @since 0.5.0
     */
    readonly places: Effect.Effect<ReadonlyArray<PlaceStatus>>
    /** The state of the long windows of subscriptions: how much is spent, and when they end. */
    readonly windows: Effect.Effect<ReadonlyArray<WindowStatus>>
    /**
     * The calls that are parked until a reset (`park`), in the order in which they go on, without what they send.
     *
     * @since 0.5.0
     */
    readonly parked: Effect.Effect<ReadonlyArray<ParkedCall>>
    /**
     * Ends a parked call: it fails with the refusal that it would have got without `park`. False if it is not parked.
     *
     * @since 0.5.0
     */
    readonly unpark: (id: string) => Effect.Effect<boolean>
  }
>()("floodgate/Governor/Governor") {}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const optionsCheck = optionsOf(governorChecks)

/** Runs the steps of a call, from the inside to the outside. Those that neither the governor nor the call needs are left out. */
const governed =
  <A, B, E, R>(attempt: MakeAttempt<A, E, R>, settle: (attempt: GovernedAttempt, value: A) => Effect.Effect<B>) =>
  (call: GovernedCall): Effect.Effect<B, E | LlmError | Budget.BudgetError, R> => {
    const { options, parts } = call
    const run = pipe(
      attempt,
      when(options.timeout, withTimeout),
      when(parts.breaker, withBreaker),
      withSettlement(settle),
      withAdmission,
      when(options.cacheKey, withWarmup),
      when(options.agent, withAgent),
      when(options.job, withJob),
      withRetries
    )
    return run(call)
  }

/**
 * Makes a governor over the budget and the estimator of the context.
 *
 * **Example** (Another estimator)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Estimator from "floodgate/Estimator"
 * import * as Governor from "floodgate/Governor"
 *
 * const estimator = Layer.succeed(
 *   Estimator.Estimator,
 *   Estimator.Estimator.of({ ...Effect.runSync(Estimator.make()), estimate: () => Effect.succeed({ inputTokens: 42 }) })
 * )
 *
 * const charge = Effect.gen(function* () {
 *   const governor = yield* Governor.Governor
 *   const ticket = yield* governor.admit({ model: "m", bytes: 10 })
 *   yield* ticket.succeed(undefined)
 *   return ticket.reservation.charge.inputTokens
 * }).pipe(Effect.scoped)
 *
 * const live = Layer.effect(Governor.Governor, Governor.make()).pipe(
 *   Layer.provide(estimator),
 *   Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 100_000 } } }))
 * )
 *
 * await Effect.runPromise(Effect.provide(charge, live)) // => 42
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Governor["Service"], never, Budget.TokenBudget | Estimator.Estimator> {
  check("Governor.make", optionsCheck, options)
  const budget = yield* Budget.TokenBudget
  const estimator = yield* Estimator.Estimator
  const breaker = yield* Breaker
  const {
    accounting = estimator.accounting,
    countPrompts = true,
    prices,
    retry: policy = Retry.make(),
    tryWindowsEvery = "10 minutes"
  } = options
  const context = yield* Effect.context<never>()
  const wake = Waker.make(yield* Scheduler.Scheduler)
  const observer = observerOf(context)
  const fork = Effect.runForkWith(context)
  const warn = (message: string): unknown => fork(Effect.logWarning(message))
  const sharing = Context.get(context, BudgetStore)
  const windows = new LongWindows(Context.get(context, Clock.Clock), {
    shares: options.windows,
    learned: options.learned?.windows,
    triesEvery: millisOf(tryWindowsEvery),
    after: afterBy(fork),
    open: options.windows && sharing && opening(sharing, context, fork, yield* newId),
    wake,
    warn
  })
  const parts: GovernorParts = {
    accounting,
    ask: SyncForm.of<Ask>(budget.reserve),
    breaker,
    budget,
    conversations: new Conversations(),
    counter: countPrompts ? new PromptCounter() : undefined,
    estimator,
    estimates: SyncForm.of<EstimatorForms>(estimator.estimate),
    learns: SyncForm.of<EstimatorForms>(estimator.learn),
    fork,
    history: Context.get(context, History),
    memory: yield* placeMemory(sharing, context, fork),
    observer,
    plausible: new PlausibleUsage(fork),
    policy,
    pools: new PoolRecords(context),
    prices: prices === undefined ? Prices.published : { ...Prices.published, ...prices },
    reportCap: CapLog.make(fork, observer),
    retryBudget: Context.get(context, RetryBudget),
    reviews: new PlaceReviews(fork),
    wake,
    warmup: Warmup.make(Context.get(context, Clock.Clock)),
    windows
  }

  // Agents ask for advice before their first call.
  for (const [model, places] of Context.get(context, StatedPlaces)) {
    parts.history?.placed(model, openPlaces(parts, { model, places }))
  }

  const run: Direct.Run = (request, send, options) =>
    begin(parts, request, options, "effect", governed(sent(send), settleAnswered))
  const open: Governor["Service"]["open"] = (request, send, options) =>
    begin(parts, request, options, "scope", governed(inScope(sent(send)), leaveOpen))
  const checkedRun: Governor["Service"]["run"] = (request, send, options) =>
    checked("Governor.run", request, options, () =>
      begin(parts, request, options, "effect", governed(inScope(sent(send)), settleAnswered))
    )
  const checkedOpen: Governor["Service"]["open"] = (request, send, options) =>
    checked("Governor.open", request, options, () => open(request, send, options))

  return Governor.of({
    run: SyncForm.attach(checkedRun, run),
    open: SyncForm.attach<typeof open, Direct.OpenForms>(checkedOpen, { open, begin: Direct.begin(parts) }),
    admit: (request, options) =>
      checked("Governor.admit", request, options, () => begin(parts, request, options, "scope", admit)),
    learned: Effect.map(estimator.learned, (learned) => withWindows(learned, windows)),
    prices: parts.prices,
    places: Effect.map(Clock.currentTimeMillis, (now) => parts.memory.status(now)),
    windows: Effect.sync(() => windows.status),
    ...parkedIn(windows)
  })
})

/** Opens what processes share of the windows of an account. */
const opening =
  (sharing: Sharing, context: Context.Context<never>, fork: Parameters<typeof afterBy>[0], id: string) =>
  (account: string): OpenWindows =>
  (own) =>
    sharing.openWindows({
      ...own,
      account,
      id,
      clock: Context.get(context, Clock.Clock),
      after: (millis, then) => {
        const timer = fork(Effect.andThen(Effect.sleep(millis), then))
        return () => timer.interruptUnsafe()
      }
    })

/** A memory of places. If processes share a store, it learns from the others. */
const placeMemory = Effect.fnUntraced(function* (
  sharing: Sharing | undefined,
  context: Context.Context<never>,
  fork: GovernorParts["fork"]
): Effect.fn.Return<PlaceMemory> {
  if (sharing === undefined) return new PlaceMemory()
  const id = yield* newId
  const clock = Context.get(context, Clock.Clock)
  return new PlaceMemory((learner) => sharing.openAnswers({ id, clock, fork, learner }))
})

const parkedIn = ({ parking }: LongWindows): Pick<Governor["Service"], "parked" | "unpark"> => ({
  parked: Effect.sync(() => parking.status),
  unpark: (id) => Effect.sync(() => parking.cancel(id))
})

const withWindows = (learned: Estimator.Learned, { learned: windows }: LongWindows): Estimator.Learned =>
  windows.length === 0 ? learned : { ...learned, windows }

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * Provides a governor with an estimator of its own, over the budget of the context.
 *
 * **Example** (Another policy, and an agent)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const attempt = Effect.suspend(() =>
 *   ++attempts < 3 ? Effect.fail({ isRetryable: true }) : Effect.succeed({ value: `at attempt ${attempts}` })
 * )
 * const call = Effect.flatMap(Governor.Governor, (governor) =>
 *   governor.run({ model: "my-model", bytes: 400 }, () => attempt, { agent: "researcher" })
 * )
 *
 * const live = Governor.layer({ retry: Retry.make({ base: "1 millis" }) }).pipe(Layer.provide(Budget.layer()))
 *
 * await Effect.runPromise(Effect.provide(call, live)) // => "at attempt 3"
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Governor, never, Budget.TokenBudget> => {
  check("Governor.layer", optionsCheck, options)
  return Layer.effect(Governor, make(options)).pipe(
    Layer.provide(Estimator.layer({ accounting: options.accounting, learned: options.learned }))
  )
}
