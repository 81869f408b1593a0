/** Waits for a call of the simulated provider whose times depend on other calls: one that is queued, or one in a batch. */
import * as Effect from "effect/Effect"
import * as Engine from "./engine.ts"
import type { AcceptedCall } from "./engine.ts"

const until = (call: AcceptedCall, holds: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (holds()) return resume(Effect.void)
    call.onProgress = () => {
      if (!holds()) return
      call.onProgress = undefined
      resume(Effect.void)
    }
  })

/** Waits until the provider works on a call, or has queued it in a batch. */
export const started = (call: AcceptedCall): Effect.Effect<void> =>
  until(call, () => call.phase !== "queued" || call.sequence !== undefined)

/** Waits until a call in a batch has produced `tokens`, or has ended. */
export const produced = (call: AcceptedCall, tokens: number): Effect.Effect<void> =>
  until(
    call,
    () => call.phase === "ended" || (call.firstTokenAt < Infinity && (call.sequence?.produced ?? 0) >= tokens)
  )

/** Waits until a time. */
type SleepUntil = (at: number) => Effect.Effect<void>

/** Waits for a moment of a stream: a time, or in a batch that so many tokens are produced. */
export const reached = (
  call: AcceptedCall,
  { at, tokens }: { readonly at: number; readonly tokens: number },
  sleepUntil: SleepUntil
): Effect.Effect<void> => (call.sequence === undefined ? sleepUntil(at) : produced(call, tokens))

/** Waits for the end of a call. A clock may wake a moment too early, which must not count as an abort. */
export const finished = (
  state: Engine.ProviderState,
  call: AcceptedCall,
  sleepUntil: SleepUntil
): Effect.Effect<void> =>
  call.sequence !== undefined
    ? produced(call, Infinity)
    : Effect.andThen(
        sleepUntil(call.endsAt),
        Effect.sync(() => Engine.advance(state, call.endsAt))
      )

/** The clock of a simulated provider, in milliseconds since it started. */
interface ProviderClock {
  readonly now: Effect.Effect<number>
  readonly sleepUntil: SleepUntil
}

/**
 * Makes what moves the batches on while calls wait for them: run it after each request. It ends when there is nothing to compute.
 *
 * One fiber does it for all calls. If its clock has stopped, so that a step is overdue, another one takes its place.
 */
export const stepping = (state: Engine.ProviderState, { now, sleepUntil }: ProviderClock): Effect.Effect<void> => {
  let driver = 0
  let wakesAt = -Infinity
  const drive = Effect.suspend(() => {
    const mine = ++driver
    return Effect.whileLoop({
      while: () => {
        if (driver !== mine) return false
        wakesAt = Engine.nextStepAt(state)
        if (wakesAt < Infinity) return true
        wakesAt = -Infinity
        return false
      },
      body: () =>
        Effect.flatMap(
          Effect.suspend(() => sleepUntil(wakesAt)),
          () => now
        ),
      // A timer may fire a moment too early.
      step: (now) => {
        if (driver === mine) Engine.advance(state, Math.max(now, wakesAt))
      }
    })
  })
  return Effect.flatMap(now, (now) => {
    const at = Engine.nextStepAt(state)
    return at === Infinity || (wakesAt >= now && wakesAt <= at) ? Effect.void : Effect.asVoid(Effect.forkDetach(drive))
  })
}
