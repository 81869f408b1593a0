/**
 * `TokenBudget`: one budget that all callers of a provider share.
 *
 * A call reserves its expected usage before it is sent, and is settled to its actual usage afterwards. No call is admitted
 * beyond the provider's limits. Calls that must wait are queued: first come, first served within an agent, and fair between
 * agents. A call that is interrupted while it waits is not charged.
 *
 * **Details**
 *
 * A pool is a group of models that share one set of limits. Its state is one value in a `Ref`, or in a store that processes
 * share: its buckets, and what it has learned of the provider. A call first takes a permit of a `Semaphore`, which limits the
 * calls in flight. Then it is charged in all dimensions at once, or waits. When it is settled, the unused part of its estimate
 * is refunded. Usage beyond the estimate becomes debt, and later calls wait until it has refilled.
 *
 * Metrics, each with the attribute `pool`:
 *
 * - `floodgate_budget_reservations`: estimates that were admitted
 * - `floodgate_budget_waits`, `floodgate_budget_wait_seconds`: estimates that had to wait, and how long (a histogram)
 * - `floodgate_budget_refunded_tokens`, `floodgate_budget_debt_tokens`: tokens below and beyond estimates, by `dimension`
 * - `floodgate_budget_cooldowns`: rejections and failures of the provider, by `reason`
 * - `floodgate_budget_queue_length`, `floodgate_budget_in_flight`: calls that wait, and calls that run
 * - `floodgate_budget_measured_limit`, `floodgate_budget_measured_waiting`: with the concurrency `"measured"`, the calls that may run, and
 *   those of them that wait for their first token
 * - `floodgate_budget_measured_floor_seconds`: the least time to a first token, with which later ones are compared
 * - `floodgate_budget_measured_by`: 1 for the reason of the measured limit, by `by`: start, first tokens, whole answers, lost calls
 * - `floodgate_budget_damaged_states`: damaged states that were read from a shared store
 *
 * If the caller is traced, a reservation that waits has a span `TokenBudget.reserve`, with its wait and what it waited for.
 *
 * **Gotchas**
 *
 * Limits belong to an organisation, so other processes and colleagues use the same bucket. Pass the headers of every response
 * to its reservation's `observe`, as `LlmClient` does, or share the budget through `@floodgate/redis`.
 *
 * **Example** (twelve agents, one budget)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const call = (n: number) =>
 *   Budget.withReservation({ inputTokens: 1_000 }, (reservation) =>
 *     Effect.as(reservation.settle({ inputTokens: 900 }), n)
 *   )
 *
 * const program = Effect.forEach([1, 2, 3], call, { concurrency: "unbounded" }).pipe(
 *   Effect.provide(Budget.layer({ limits: { inputTokens: { perMinute: 2_000_000 } } }))
 * )
 *
 * await Effect.runPromise(program) // => [1, 2, 3]
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Ask, mayAsk, using } from "./budget/asking.ts"
import type { BudgetError } from "./budget/errors.ts"
import { unlimited } from "./budget/forecast/forecast.ts"
import type * as Forecast from "./Forecast.ts"
import type * as Learning from "./budget/learned.ts"
import * as Log from "./budget/log.ts"
import * as Internal from "./budget/make.ts"
import * as BudgetChecks from "./budget/options.ts"
import {
  type Concurrency,
  Agent,
  type BudgetStatus,
  type Foreseen,
  type Options,
  type Reservation,
  type ReserveOptions
} from "./budget/models.ts"
import * as SyncForm from "./domain/syncForm.ts"
import { check } from "./domain/input/checks.ts"
import type * as Limits from "./Limits.ts"
import * as Amounts from "./domain/amounts.ts"

export {
  BudgetError,
  Denied,
  EstimateTooLarge,
  NoPlace,
  RejectedAsTooLarge,
  PlaceClosed,
  QueueFull,
  QuotaExhausted,
  StoreUnavailable,
  TooManyPools,
  WaitTooLong
} from "./budget/errors.ts"
export { Learned } from "./budget/learned.ts"
export {
  Agent,
  type BudgetStatus,
  type Concurrency,
  type DimensionStatus,
  type Foreseen,
  Job,
  type KnownFigure,
  type MeasuredStatus,
  type NamedCaller,
  type NamedJob,
  type Options,
  type PoolStatus,
  Priority,
  type Reservation,
  type ReserveOptions
} from "./budget/models.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * The shared budget.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class TokenBudget extends Context.Service<
  TokenBudget,
  {
    /**
     * Waits until the estimate is admitted, and holds it until it is settled or the scope closes. If the scope closes
     * first, the estimate counts as used.
     */
    readonly reserve: (
      estimate: Limits.Estimate,
      options?: ReserveOptions
    ) => Effect.Effect<Reservation, BudgetError, Scope.Scope>
    /** Foresees when a call with this estimate would start, or why it would be refused. Opens its pool, but reserves nothing. */
    readonly foresee: (estimate: Limits.Estimate, options?: ReserveOptions) => Effect.Effect<Foreseen>
    /**
     * Forecasts a workload that starts now, behind the calls that run and wait; see `Forecast`. Opens its pool, but
     * reserves nothing.
     */
    readonly forecast: (
      workload: Forecast.Workload,
      options?: Forecast.LiveOptions
    ) => Effect.Effect<Forecast.Forecast, BudgetError>
    /** Updates the limits of a pool. For the response to a call, use `observe` of its reservation. */
    readonly observe: (
      signal: Limits.Signal & {
        /** An unknown pool is ignored. @default "default" */
        readonly pool?: string | undefined
      }
    ) => Effect.Effect<void>
    /** Pauses a pool: none of its calls is sent. For a call that failed, use `fail` of its reservation, which judges the failure. */
    readonly pause: (options: {
      /** The duration of the pause, at most an hour. It never shortens an earlier pause. */
      readonly duration: Duration.Input
      /** The reason that status and metrics show. @default "rateLimit" */
      readonly reason?: "rateLimit" | "ramp" | "overload" | undefined
      /** An unknown pool is ignored. @default "default" */
      readonly pool?: string | undefined
    }) => Effect.Effect<void>
    /**
     * Changes the limits or the concurrency of a pool while calls run, in all accounts, save what was changed for one account by its
     * name. Waiting calls that now fit are admitted at once. The used part of a `total` stays used. Options that are left out stay as
     * they are.
     */
    readonly resize: (options: {
      /** @default "default", or all pools if only the concurrency changes */
      readonly pool?: string | undefined
      readonly limits?: Limits.Limits | undefined
      readonly concurrency?: Concurrency | undefined
    }) => Effect.Effect<void>
    /** The pool of a model: "default" if one set of limits was given, otherwise as `limits.poolOf` says. */
    readonly poolOf: (model: string) => string
    readonly status: Effect.Effect<BudgetStatus>
    /** The status now and after every change. A slow reader only gets the latest. */
    readonly changes: Stream.Stream<BudgetStatus>
    /** The limits learned so far. Pass them to the next budget as `learned`. */
    readonly learned: Effect.Effect<Learning.Learned>
  }
>()("floodgate/Budget/TokenBudget") {}

// -----------------------------------------------------------------------------
// Constructors and layers
// -----------------------------------------------------------------------------

/**
 * Makes a budget that lives as long as its scope. Its state is kept in the `BudgetStore` of the context, by default in the
 * memory of this process.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option if an option is invalid.
 *
 * **Example** (A budget of one scope)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Budget.make({ limits: { tokens: { perSecond: 60_000, burst: 200_000 } } })
 *   const held = yield* budget.reserve({ inputTokens: 1_000 })
 *   yield* held.settle({ inputTokens: 900, outputTokens: 50 })
 *   return held.charge
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // => { tokens: 1_000 }
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<TokenBudget["Service"], never, Scope.Scope> =>
  makeChecked("Budget.make", options)

const makeChecked = (operation: string, options: Options) => {
  check(operation, BudgetChecks.optionsCheck, options)
  return Effect.map(Internal.make(options), TokenBudget.of)
}

/**
 * The shared budget as a layer. Provide it once, around everything that calls the same provider.
 *
 * **Example** (the incident report's bucket)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const incident = Budget.layer({ limits: { tokens: { perSecond: 60_000, burst: 200_000 } } })
 *
 * const level = Effect.gen(function* () {
 *   yield* Budget.consume(150_000)
 *   const budget = yield* Budget.TokenBudget
 *   const status = yield* budget.status
 *   return Math.round(status.pools.default!.dimensions.tokens!.level / 1_000)
 * })
 *
 * await Effect.runPromise(Effect.provide(level, incident)) // => 50
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<TokenBudget> =>
  Layer.effect(TokenBudget, makeChecked("Budget.layer", options))

/**
 * The shared budget with options from configuration. Fails with a `ConfigError` that names the missing variable, or the option
 * whose value is invalid. With `FLOODGATE_LOG=1` it also logs, as {@link layerLog} does.
 *
 * **Example** (limits from the environment)
 *
 * ```ts doctest
 * import * as Config from "effect/Config"
 * import * as ConfigProvider from "effect/ConfigProvider"
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const live = Budget.layerConfig({ limits: { requests: { perMinute: Config.Int("LLM_REQUESTS_PER_MINUTE") } } })
 *
 * const rate = Effect.gen(function* () {
 *   yield* Budget.consume(0)
 *   const budget = yield* Budget.TokenBudget
 *   return (yield* budget.status).pools.default!.dimensions.requests!.capacity
 * }).pipe(
 *   Effect.provide(live),
 *   Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ LLM_REQUESTS_PER_MINUTE: "1200" })))
 * )
 *
 * await Effect.runPromise(rate) // => 100
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Omit<Options, "limits"> & { readonly limits?: Limits.Limits | undefined }>
): Layer.Layer<TokenBudget, Config.ConfigError> => {
  check("Budget.layerConfig", BudgetChecks.optionNamesCheck, options)
  const budget = Layer.effect(
    TokenBudget,
    Effect.flatMap(Config.unwrap(options), (given) =>
      Effect.flatten(Effect.try({ try: () => makeChecked("Budget.layerConfig", given), catch: invalidOption }))
    )
  )
  const log = Layer.unwrap(
    Effect.map(Config.withDefault(Log.wanted, false), (isWanted) => (isWanted ? layerLog : Layer.empty))
  )
  return Layer.provideMerge(log, budget)
}

/** A value of the right type can still be invalid. The message names the option and the value. */
const invalidOption = (refusal: unknown): Config.ConfigError => {
  if (!(refusal instanceof RangeError)) throw refusal
  const { message } = refusal
  return new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.InvalidValue({ message })))
}

/**
 * Logs a line when calls begin to wait, wait for another reason, or stop waiting, and when a pool pauses. It logs at
 * most one line per second and pool, and ignores waits shorter than a second.
 *
 * **Details**
 *
 * Lines have the level Info. They name pools and limits, and never contain keys or prompts.
 *
 * **Example** (One line to add)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Logger from "effect/Logger"
 * import * as Budget from "floodgate/Budget"
 * import { Simulation } from "floodgate/testing"
 *
 * const lines: Array<unknown> = []
 * const logger = Logger.layer([Logger.make(({ message }) => void lines.push(message))])
 *
 * const live = Budget.layerLog.pipe(
 *   Layer.provideMerge(Budget.layer({ limits: { tokens: { perSecond: 100, burst: 1_000 } } }))
 * )
 *
 * const calls = Effect.andThen(Budget.consume(1_000), Budget.consume(500)).pipe(Effect.andThen(Effect.sleep("2 seconds")))
 * await Effect.runPromise(Simulation.run(calls.pipe(Effect.provide(live), Effect.provide(logger))))
 *
 * String(lines[0]) // => 'waiting 5 s for tokens of pool "default": 1 call, 0 of 1K left'
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.4.0
 */
export const layerLog: Layer.Layer<never, never, TokenBudget> = /* @__PURE__ */ Layer.effectDiscard(
  /* @__PURE__ */ Effect.flatMap(TokenBudget, (budget) => Effect.forkScoped(Log.lines(budget)))
)

/**
 * A budget that admits everything at once, for tests and for comparisons.
 *
 * **Example** (A test that must not wait)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const call = Budget.withReservation({ tokens: 1e9 }, () => Effect.succeed("answer"))
 *
 * await Effect.runPromise(Effect.provide(call, Budget.layerUnlimited)) // => "answer"
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layerUnlimited: Layer.Layer<TokenBudget> = /* @__PURE__ */ Layer.sync(TokenBudget, () =>
  TokenBudget.of({
    reserve: (estimate, options) =>
      Effect.map(Effect.context<never>(), (context) => {
        BudgetChecks.checkCounted(context)
        return {
          pool: options?.pool ?? "default",
          agent: options?.agent ?? Context.get(context, Agent),
          estimate,
          charge: Amounts.charge(estimate, {}),
          waited: Duration.zero,
          binding: undefined,
          observe: () => Effect.void,
          settle: () => Effect.void,
          fail: () => Effect.succeed("isolated"),
          refund: Effect.void
        }
      }),
    foresee: (_, options) =>
      Effect.succeed({
        pool: options?.pool ?? "default",
        wait: Duration.zero,
        binding: undefined,
        refusal: undefined,
        isLowerBound: false
      }),
    forecast: (workload, options) => unlimited(workload, options),
    observe: () => Effect.void,
    pause: () => Effect.void,
    resize: () => Effect.void,
    poolOf: () => "default",
    status: Effect.succeed({ pools: {} }),
    changes: Stream.succeed({ pools: {} }),
    learned: Effect.succeed({ at: 0, pools: [] })
  })
)

// -----------------------------------------------------------------------------
// Combinators
// -----------------------------------------------------------------------------

/**
 * Runs an effect with a reservation, which ends with the effect. Most users want this.
 *
 * **Example** (The unused part is refunded)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const level = Effect.gen(function* () {
 *   yield* Budget.withReservation({ inputTokens: 4_000 }, (held) => held.settle({ inputTokens: 1_000 }))
 *   const budget = yield* Budget.TokenBudget
 *   return (yield* budget.status).pools.default!.dimensions.inputTokens!.level
 * })
 *
 * await Effect.runPromise(Effect.provide(level, Budget.layer({ limits: { inputTokens: { total: 10_000 } } }))) // => 9_000
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const withReservation = <A, E, R>(
  estimate: Limits.Estimate,
  use: (reservation: Reservation) => Effect.Effect<A, E, R>,
  options?: ReserveOptions
): Effect.Effect<A, E | BudgetError, R | TokenBudget> => reserving("Budget.withReservation", estimate, use, options)

const reserving = <A, E, R>(
  operation: string,
  estimate: Limits.Estimate,
  use: (reservation: Reservation) => Effect.Effect<A, E, R>,
  options: ReserveOptions | undefined
): Effect.Effect<A, E | BudgetError, R | TokenBudget> =>
  Effect.withFiber(({ context }) => {
    if (options !== undefined) check(operation, BudgetChecks.reserveCheck, options)
    const { reserve } = Context.getUnsafe(context, TokenBudget)
    const ask = SyncForm.of<Ask>(reserve)
    if (ask !== undefined && mayAsk(ask, context)) return using(ask, estimate, use, options)
    // The effect runs in the scope of its caller, and not in that of the reservation.
    const used = (held: Reservation) => Effect.provideContext(use(held), context as Context.Context<R>)
    return Effect.scoped(Effect.flatMap(reserve(estimate, options), used))
  })

/**
 * Charges tokens without a later correction.
 *
 * **Example** (More than a quota has left)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const twice = Effect.andThen(Budget.consume(6_000), Budget.consume(6_000)).pipe(
 *   Effect.provide(Budget.layer({ limits: { tokens: { total: 10_000 } } })),
 *   Effect.flip
 * )
 *
 * const error = await Effect.runPromise(twice)
 *
 * error.reason._tag // => "QuotaExhausted"
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const consume = (tokens: number, options?: ReserveOptions): Effect.Effect<void, BudgetError, TokenBudget> =>
  reserving("Budget.consume", { tokens }, () => Effect.void, options)
