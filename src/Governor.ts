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
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Budget from "./Budget.ts"
import * as Composed from "./call/governor.ts"
import type { Governor } from "./call/governor.ts"
import { governorChecks, type Options } from "./call/models.ts"
import * as Places from "./call/places.ts"
import { check, options as optionsOf } from "./domain/input/checks.ts"
import type * as Estimator from "./Estimator.ts"

export { Governor } from "./call/governor.ts"
export type { ParkedCall } from "./money/parking.ts"
export type { WindowStatus } from "./money/windows.ts"
export type { Call, CallOptions, Options, Outcome, Ticket } from "./call/models.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const optionsCheck = /* @__PURE__ */ optionsOf(governorChecks)

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
export const make = (
  options: Options = {}
): Effect.Effect<Governor["Service"], never, Budget.TokenBudget | Estimator.Estimator> =>
  Effect.suspend(() => {
    check("Governor.make", optionsCheck, options)
    return Composed.make(options, Places.make)
  })

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
  return Composed.layerOf(options, Places.make)
}
