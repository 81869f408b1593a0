/**
 * Runs an effect in simulated time, as fast as possible, and measures how long it took.
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { hasProperty } from "effect/Predicate"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { callback, check, options as optionsOf, that } from "../domain/input/checks.ts"
import * as Watch from "./watch.ts"

/**
 * The options of a simulation.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Decides every random number that the effect draws. @default 1 */
  readonly seed?: string | number | undefined
  /** Called between strides of simulated time, with the seconds that have passed. */
  readonly progress?: ((seconds: number) => Effect.Effect<void>) | undefined
}

const optionsCheck = optionsOf<Options>({
  seed: that("a string or a finite number", (value) => typeof value === "string" || Number.isFinite(value)),
  progress: callback
})

/** The result of a simulation. */
type Simulated<A> = {
  readonly value: A
  /** Simulated time from the start to the end, to the millisecond. */
  readonly duration: Duration.Duration
}

/** Sleepers are woken in order within a stride of any length. Only between strides does the simulation check for its end. */
const strideAfter = (seconds: number): number => Math.max(10, Math.floor(seconds / 1_000) * 10)
/** An effect that takes longer than a month is a mistake of the caller. */
const maxSeconds = 2_600_000

const unending = (within: string) =>
  new Error(
    `Simulation.run: expected an end within ${within}; the effect waits for ever, or for something else than time: ` +
      "bound it with Effect.timeout, await nothing real, and provide its layers to the effect itself"
  )

/**
 * Runs an effect to its end while moving the clock: the `TestClock` of the context, such as that of `it.effect`, or one
 * of its own. The clock then stands where the effect ended. It fails as the effect does. It dies if the effect takes
 * more than a simulated month, or a second of real time in which nothing sleeps. Use `Effect.timeout` for effects that
 * may not end.
 *
 * **Details**
 *
 * Sleeping takes no real time, so an hour takes as long as its events. While the effect computes, no simulated time
 * passes. The same seed gives the same run.
 *
 * **Gotchas**
 *
 * Layers must use the same clock. Without a `TestClock` in the context, provide them to the effect itself, not to the
 * result of `run`.
 *
 * Do not wait for anything real, such as a server or a file. With its own clock and nothing asleep, simulated time
 * stops for such a wait, for a second at most. If anything sleeps, or under the clock of a test, time continues as if
 * the wait had no end. Under the clock of a test, time also continues after a real second of computing, with a warning.
 *
 * **Example** (How long do twelve agents take at half of the limit?)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim, Simulation } from "floodgate/testing"
 *
 * const agents = Effect.forEach(
 *   Array.from({ length: 12 }, (_, n) => `agent ${n}`),
 *   (agent) =>
 *     LlmClient.create(
 *       { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user", content: "x".repeat(40_000) }] },
 *       { agent, inputTokens: 10_000 }
 *     ),
 *   { concurrency: "unbounded" }
 * )
 *
 * const seconds = (perSecond: number) => {
 *   const limits = { inputTokens: { perSecond, burst: 20_000 } }
 *   const live = LlmClient.layerProvider().pipe(
 *     Layer.provide(Budget.layer({ limits })),
 *     Layer.provide(ProviderSim.layer({ limits }))
 *   )
 *   return Effect.map(Simulation.run(Effect.provide(agents, live)), ({ duration }) => Duration.toSeconds(duration))
 * }
 *
 * Math.round(await Effect.runPromise(seconds(10_000))) // => 11
 * Math.round(await Effect.runPromise(seconds(5_000))) // => 21
 * ```
 *
 * @stability stable
 * @category running
 * @since 0.1.0
 */
export const run = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<Simulated<A>, E, R> => {
  check("Simulation.run", optionsCheck, options)
  const { progress, seed = 1 } = options
  return Effect.flatMap(Clock.Clock, (clock) =>
    hasProperty(clock, "adjust")
      ? simulate(self, seed, progress, undefined)
      : // A woken fiber may compute for longer than the second after which TestClock would warn and go on without it.
        Effect.provide(simulate(self, seed, progress, clock), TestClock.layer({ warningDelay: "1 hour" }))
  )
}

/**
 * Moves the clock, and may be interrupted when the effect ends: it stands then where it stood at that moment.
 *
 * Where the scheduler made it yield between taking a sleeper out and waking it, an interruption would lose the sleeper.
 */
const moveOn = (seconds: number): Effect.Effect<void> =>
  Effect.provideService(TestClock.adjust(seconds * 1_000), Scheduler.PreventSchedulerYield, true)

/** Runs the effect. With the `live` clock, all sleepers are the effect's own. */
const simulate = Effect.fnUntraced(function* <A, E, R>(
  self: Effect.Effect<A, E, R>,
  seed: string | number,
  progress: Options["progress"],
  live: Clock.Clock | undefined
): Effect.fn.Return<Simulated<A>, E, R> {
  let isDone = (): boolean => false
  const watch = Watch.make(yield* Clock.Clock, yield* Scheduler.Scheduler, live, () => isDone())
  const start = yield* Clock.currentTimeMillis
  const fiber = yield* Random.withSeed(self, seed).pipe(
    Effect.flatMap((value) =>
      Effect.map(Clock.currentTimeMillis, (end) => ({ value, duration: Duration.millis(end - start) }))
    ),
    Effect.forkChild,
    Effect.provideService(Clock.Clock, watch.clock),
    Effect.provideService(Scheduler.Scheduler, watch.scheduler)
  )
  isDone = () => fiber.pollUnsafe() !== undefined
  let seconds = 0
  for (;;) {
    do yield* Effect.yieldNow
    while (watch.isBusy())
    if (isDone()) return yield* Fiber.join(fiber)
    if (watch.isLost()) return yield* Effect.die(unending("a second of real time while nobody sleeps"))
    if (seconds >= maxSeconds) return yield* Effect.die(unending("a month of simulated time"))
    if (seconds > 0 && progress !== undefined) yield* progress(seconds)
    const stride = strideAfter(seconds)
    yield* Effect.raceFirst(moveOn(stride), Fiber.await(fiber))
    seconds += stride
  }
})
