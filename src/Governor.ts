/**
 * `Governor`: the one place where admission, attempt, settlement, learning and retry meet.
 *
 * Every client is a thin adapter of it. A call is described by what is known before it is sent; the governor estimates
 * what it will use, reserves that, runs one attempt, settles to what the attempt used, tells the budget what the response
 * said about the limits, and lets the retry policy decide about the next attempt.
 *
 * **Details**
 *
 * The order of composition, from the outside: `retry( reserve( attempt ) )`. A retry gives its reservation and its place
 * back while it waits, and stands in the queue again as its agent's first. The time in the queue is not part of the
 * attempt, so a timeout around the attempt does not count it.
 *
 * What happens to the reservation:
 *
 * - success: settled to the usage
 * - failure: settled to what the error says was used (`usage`), so a rejected call is refunded, a timeout keeps its
 *   input; an error that says nothing keeps the estimate
 * - interruption after admission: input kept, output as far as it was observed
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
 * const actual = { inputTokens: 1_100, cacheCreationTokens: 0, cacheReadTokens: 0, outputTokens: 20 }
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
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Accounting from "./Accounting.ts"
import * as Budget from "./Budget.ts"
import * as Estimator from "./Estimator.ts"
import type * as Limits from "./Limits.ts"
import type { Pushback } from "./LlmError.ts"
import * as Retry from "./Retry.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * What is known of a call before it is sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Call {
  /** The model, which decides the pool of limits. */
  readonly model: string
  /** The class of agent, whose calls resemble one another: what is learned of one serves the next. @default the agent */
  readonly kind?: string | undefined
  /** Length of the request's text in bytes. */
  readonly bytes: number
  /** Input tokens, where they were counted before. */
  readonly inputTokens?: number | undefined
  /** The most output that the call allows. */
  readonly maxTokens?: number | undefined
  /** Whether the model thinks before it answers: its output varies more. */
  readonly thinking?: boolean | undefined
}

/**
 * What an attempt gave.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome<A> {
  readonly value: A
  /** What the call used, as the provider's response says; without it the estimate is kept. */
  readonly actual?: Accounting.Actual | undefined
  /** What the response says about the limits. */
  readonly signal?: Limits.Signal | undefined
}

/**
 * What an error may say of itself. `LlmError` says all of it; of an error that says nothing the estimate is kept, and it
 * is not retried.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  readonly isRetryable?: boolean | undefined
  readonly retryAfter?: Duration.Duration | undefined
  /** What the failed call used; a dimension left out keeps its estimate. */
  readonly usage?: Limits.Usage | undefined
  /** What the budget must be told. */
  readonly pushback?: Pushback | undefined
  readonly signal?: Limits.Signal | undefined
}

/**
 * How one call is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions extends Omit<Budget.ReserveOptions, "pool" | "first"> {
  /** @default the governor's */
  readonly retry?: Retry.Policy | undefined
}

/**
 * An admitted call. It must be concluded once; what its scope finds unconcluded counts as interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ticket {
  readonly reservation: Budget.Reservation
  /** Tells the budget what the response says about the limits, as soon as that is known. */
  readonly heard: (signal: Limits.Signal | undefined) => Effect.Effect<void>
  /** Notes what was observed of the usage so far, in case the call is interrupted. */
  readonly observed: (actual: Accounting.Actual) => void
  readonly succeed: (actual: Accounting.Actual | undefined) => Effect.Effect<void>
  readonly fail: (error: unknown) => Effect.Effect<void>
}

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * Runs calls under budget and retry.
 *
 * @category services
 * @since 0.1.0
 */
export class Governor extends Context.Service<
  Governor,
  {
    /** Runs a call: each attempt under a reservation, retried by the policy. Refusals of the budget are not retried. */
    readonly run: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | Budget.BudgetError, R>
    /** One admission without retries, for calls that outlive an effect, such as streams. */
    readonly admit: (call: Call, options?: CallOptions) => Effect.Effect<Ticket, Budget.BudgetError, Scope.Scope>
    /** Runs an effect, which does its own admissions, under the retry policy. Refusals of the budget are not retried. */
    readonly retry: <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | Budget.BudgetError, R>
  }
>()("floodgate/Governor/Governor") {}

/**
 * How a governor is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** @default {@link Retry.defaultPolicy} */
  readonly retry?: Retry.Policy | undefined
  /** What the provider reserves and counts. @default {@link Accounting.anthropic} */
  readonly accounting?: Accounting.Accounting | undefined
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes a governor over the budget and the estimator of the context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Governor["Service"], never, Budget.TokenBudget | Estimator.Estimator> {
  const budget = yield* Budget.TokenBudget
  const estimator = yield* Estimator.Estimator
  const { accounting = Accounting.anthropic, retry: defaultPolicy = Retry.defaultPolicy } = options

  const admit = Effect.fnUntraced(function* (
    call: Call,
    { retry: _, ...how }: CallOptions = {}
  ): Effect.fn.Return<Ticket, Budget.BudgetError, Scope.Scope> {
    const agent = how.agent ?? (yield* Budget.Agent)
    const attempt = yield* Retry.Attempt
    const known: Estimator.Call = { ...call, pool: budget.poolOf(call.model), kind: call.kind ?? agent }
    const estimate = yield* estimator.estimate(known)
    const reservation = yield* budget.reserve(estimate, { ...how, agent, pool: known.pool, first: !attempt.first })
    // Input is spent once the request is on its way; of the output only what was seen.
    let sofar: Limits.Usage = { inputTokens: estimate.inputTokens, outputTokens: 0 }
    const ticket: Ticket = {
      reservation,
      heard: (signal) => (signal === undefined ? Effect.void : budget.observe({ ...signal, reservation })),
      observed: (actual) => {
        sofar = accounting.usage(actual)
      },
      succeed: (actual) =>
        actual === undefined
          ? reservation.settle({})
          : Effect.andThen(reservation.settle(accounting.usage(actual)), estimator.learn(known, actual)),
      fail: (error) =>
        Effect.gen(function* () {
          const { pushback, retryAfter, signal, usage } = failureOf(error)
          yield* ticket.heard(signal)
          const rejected = pushback === "rateLimit" || pushback === "ramp"
          yield* usage === undefined || (rejected && accounting.rejections === "charged")
            ? reservation.settle({}, "failure")
            : reservation.settle({ inputTokens: estimate.inputTokens, ...usage }, "failure")
          if (pushback !== undefined) yield* budget.cooldown({ reason: pushback, retryAfter, reservation })
        })
    }
    yield* Effect.addFinalizer(() => Effect.suspend(() => reservation.settle(sofar, "failure")))
    return ticket
  })

  const once = <A, E, R>(
    call: Call,
    attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
    how: CallOptions | undefined
  ): Effect.Effect<A, E | Budget.BudgetError, R> =>
    Effect.scoped(
      Effect.flatMap(admit(call, how), (ticket) =>
        attempt(ticket).pipe(
          Effect.onExit((exit) => {
            if (Exit.isSuccess(exit)) {
              return Effect.andThen(ticket.heard(exit.value.signal), ticket.succeed(exit.value.actual))
            }
            const error = Cause.findErrorOption(exit.cause)
            return Option.isSome(error) ? ticket.fail(error.value) : Effect.void
          }),
          Effect.map((outcome) => outcome.value)
        )
      )
    ) as Effect.Effect<A, E | Budget.BudgetError, R>

  /** A refusal of the budget is an answer, not a failure of the provider: it goes around the policy. */
  const retry: Governor["Service"]["retry"] = (self, how) =>
    self.pipe(
      Effect.map((value) => Exit.succeed(value)),
      Effect.catchIf(isRefusal, (refusal) => Effect.succeed(Exit.fail(refusal))),
      Retry.withPolicy(how?.retry ?? defaultPolicy),
      Effect.flatten
    )

  return Governor.of({ admit, retry, run: (call, attempt, how) => retry(once(call, attempt, how), how) })
})

const isRefusal = (error: unknown): error is Budget.BudgetError => error instanceof Budget.BudgetError

const failureOf = (error: unknown): Failure => (typeof error === "object" && error !== null ? error : {})

/**
 * The governor as a layer, with an estimator of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Governor, never, Budget.TokenBudget> =>
  Layer.effect(Governor, make(options)).pipe(
    Layer.provide(Estimator.layer({ accounting: options.accounting ?? Accounting.anthropic }))
  )
