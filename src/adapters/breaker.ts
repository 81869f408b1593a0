/**
 * Adapts Effect's `CircuitBreaker` to the governor: each pool has a circuit breaker.
 *
 * While a provider is down, each call waits until it fails, uses up an attempt and adds to the load. After several failures in a
 * row the circuit opens: calls fail at once with the reason `CircuitOpen`, whose `retryAfter` is the time until the next probe.
 * Then one call is sent as a probe, and the circuit closes if it succeeds.
 *
 * **Details**
 *
 * - Overload (529, 503), 5xx, timeouts and lost connections count as failures.
 * - A 429 never counts as a failure, because it means that the client is too fast and not that the provider is down. Invalid
 *   requests, refused credentials and spend limits do not count either.
 * - The breaker is inside the reservation and around the attempt: time in the queue does not count, and a call that the breaker
 *   refuses gets its reservation back.
 * - `CircuitOpen` is retryable. The retry policy waits until the circuit allows a probe.
 * - During an outage the budget pauses too and sends one probe at a time, so callers wait. To fail instead, set `maxWait` or a
 *   deadline.
 * - The attempt of a stream ends at its first content.
 *
 * **Gotchas**
 *
 * Effect marks its `CircuitBreaker` experimental: this module is made for `effect` `~4.1`, and may change with any version of it.
 *
 * **Example** (A client with a breaker)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Breaker from "floodgate/breaker"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import * as Retry from "floodgate/Retry"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const ask = LlmClient.create({ model: "m", max_tokens: 9, messages: [{ role: "user", content: "Hello" }] }).pipe(
 *   Effect.flip,
 *   Effect.map((error) => error.reason._tag)
 * )
 *
 * const live = LlmClient.layerProvider({ retry: Retry.make({ attempts: 1 }) }).pipe(
 *   Layer.provide(Breaker.layer({ failures: 2 })),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 1_000 } } })),
 *   Layer.provide(ProviderSim.layer({ faults: [ProviderSim.outage(0, 60_000, "500")] }))
 * )
 *
 * const tags = await Effect.runPromise(Effect.provide(Effect.all([ask, ask, ask]), live))
 * tags // => ["ServerFailed", "ServerFailed", "CircuitOpen"]
 * ```
 *
 * @stability experimental
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as CircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Schedule from "effect/Schedule"
import { causeOf } from "../call/failure.ts"
import { Breaker } from "../call/models.ts"
import * as Input from "../domain/input/checks.ts"
import { CircuitOpen, LlmError } from "../LlmError.ts"

/** The options of a circuit: when it opens, and for how long. */
type Options = {
  /**
   * Failures in a row that open the circuit. Agents run in parallel, so one short disturbance may cause several failures, and
   * with a low number it would stop all of them.
   *
   * @default 10
   */
  readonly failures?: number | undefined
  /**
   * How long the circuit stays open: a duration, or a schedule that is stepped with each opening in a row. A longer `retry-after`
   * takes precedence.
   *
   * @default 5 s, doubled with each opening in a row, up to 40 s
   */
  readonly openFor?: Duration.Input | Schedule.Schedule<unknown, number> | undefined
  /**
   * A policy of Effect's such as `CircuitBreaker.rate`, instead of `failures`.
   */
  readonly tripPolicy?: CircuitBreaker.TripPolicy | undefined
}

const optionsCheck = Input.options<Options>({
  failures: Input.whole,
  openFor: (value) => (Schedule.isSchedule(value) ? undefined : Input.span(value)),
  tripPolicy: Input.anObject
})

// Openings last 5, 10, 20 and 40 s. After these 75 s the schedule is over, and later openings keep the last duration.
const openings = Schedule.exponential("5 seconds").pipe(Schedule.upTo({ duration: "1 minute" }))

/** Whether an attempt counts as a success or a failure of the provider. */
const outcomeOf = (exit: Exit.Exit<unknown, unknown>): CircuitBreaker.Outcome => {
  if (Exit.isSuccess(exit)) return CircuitBreaker.success
  const error = causeOf(Option.getOrUndefined(Cause.findErrorOption(exit.cause)))
  if (!(error instanceof LlmError)) return CircuitBreaker.ignored
  switch (error.reason._tag) {
    case "Overloaded":
    case "ServerFailed":
    case "TimedOut":
    case "ConnectionFailed":
    case "StreamInterrupted":
      return CircuitBreaker.failure({ retryAfter: error.retryAfter })
    default:
      return CircuitBreaker.ignored
  }
}

const turnedAway = (pool: string, { reason }: CircuitBreaker.CircuitBreakerError): LlmError =>
  new LlmError({
    reason: new CircuitOpen({
      pool,
      retryAfter: reason._tag === "CircuitOpen" ? reason.retryAfter : undefined,
      detail: reason._tag === "CircuitOpen" ? undefined : reason.message
    })
  })

/** The governor's breaker over Effect's. A function, because a program may have two, and a constant layer is built once. */
const layerOver = (): Layer.Layer<never, never, CircuitBreaker.CircuitBreaker> =>
  Layer.effect(
    Breaker,
    Effect.map(CircuitBreaker.CircuitBreaker, (breaker) => ({
      protect: (pool, self) =>
        breaker
          .execute(self, { key: pool, classify: outcomeOf })
          .pipe(
            Effect.mapError((error) =>
              error instanceof CircuitBreaker.CircuitBreakerError ? turnedAway(pool, error) : error
            )
          )
    }))
  )

/**
 * A breaker whose state is in a store, such as Redis, so that all processes open and close the circuit together.
 *
 * **Example** (A store in memory, as {@link layer} uses it)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as CircuitBreaker from "effect/persistence/CircuitBreaker"
 * import * as Breaker from "floodgate/breaker"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const tripPolicy = CircuitBreaker.rate({ threshold: 0.5, size: 50, minimumCalls: 20 })
 * const breaker = Breaker.layerStore({ tripPolicy }).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))
 * const live = Governor.layer().pipe(Layer.provide(breaker), Layer.provide(Budget.layer()))
 *
 * const call = Effect.flatMap(Governor.Governor, (governor) =>
 *   governor.run({ model: "m", bytes: 10 }, () => Effect.succeed({ value: "hello" }))
 * )
 *
 * await Effect.runPromise(Effect.provide(call, live)) // => "hello"
 * ```
 *
 * @stability experimental
 * @category layers
 * @since 0.1.0
 */
export const layerStore = (options: Options = {}): Layer.Layer<never, never, CircuitBreaker.CircuitBreakerStore> => {
  Input.check("Breaker.layerStore", optionsCheck, options)
  const { failures = 10, openFor = openings, tripPolicy = CircuitBreaker.consecutive(failures) } = options
  return layerOver().pipe(
    Layer.provide(
      CircuitBreaker.layer({
        tripPolicy,
        openDuration: openFor
      })
    )
  )
}

/**
 * A breaker whose state belongs to this process. Provide it to the layer of the governor or of the client.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `failures` is not an integer of at least 1, or `openFor` not a duration above zero.
 *
 * **Example** (Opens sooner, and for a fixed time)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Breaker from "floodgate/breaker"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 *
 * const client = LlmClient.layerProvider().pipe(
 *   Layer.provide(Breaker.layer({ failures: 5, openFor: "30 seconds" })),
 *   Layer.provide(Budget.layer())
 * )
 * ```
 *
 * @stability experimental
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never> => {
  Input.check("Breaker.layer", optionsCheck, options)
  return layerStore(options).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))
}
