/** Lets the calls of a run wait for the reset of a cap or of a window, instead of failing. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Spending from "floodgate/Spending"
import { printable } from "@floodgate/gateway/internal/text"
import type { RunEvent } from "./pipeline.ts"

/**
 * The shares of windows with which a run waits for their resets: all of them. Without any share, a call that a spent window rejects would
 * pause its pool and fail.
 */
export const windows = { "5h": { share: 1 }, "7d": { share: 1 } }

/** Lets the calls of an effect wait for resets. Reports each reset once, however many calls wait for it. */
export const untilReset =
  (report: (event: RunEvent) => Effect.Effect<void>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
    Effect.gen(function* () {
      const waits = yield* Queue.unbounded<{ readonly until: number; readonly message: string }>()
      const known = new Set<number>()
      const next = Effect.gen(function* () {
        const { message, until } = yield* Queue.take(waits)
        if (known.has(until)) return
        known.add(until)
        const seconds = (until - (yield* Clock.currentTimeMillis)) / 1_000
        yield* report({ event: "paused", until: new Date(until).toISOString(), seconds, reason: printable(message) })
      })
      yield* Effect.forkScoped(Effect.forever(next))
      return yield* Spending.waitForReset((wait) => void Queue.offerUnsafe(waits, wait))(self)
    })
