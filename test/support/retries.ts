/** The retry budget of the context. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { RetryBudget, tokensOf } from "../../src/call/retryBudget.ts"

/** How many retries it allows now without a delay; negative if some are delayed. */
export const retryBalance: Effect.Effect<number> = Effect.flatMap(RetryBudget, (given) =>
  Clock.clockWith((clock) => Effect.sync(() => tokensOf(given, clock).balance(clock.currentTimeMillisUnsafe())))
)
