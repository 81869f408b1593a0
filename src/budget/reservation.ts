/** The reservation that a caller gets for an admitted call. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Reading, Readings } from "../pacing/law.ts"
import { check, millisOf } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { limited } from "./decision.ts"
import type { Entry } from "./entry.ts"
import type { Reservation } from "./models.ts"
import { failed } from "./options.ts"

/** Hands an admitted call to its caller, as a plain object of functions that can be copied and decorated. */
export const handOut = (entry: Entry): Reservation => {
  if (entry.phase === "held") entry.phase = "begun"
  const { agent, binding, charge, estimate, pool, waitedMillis } = entry
  const usedOf = (usage: Limits.Usage): Amounts.Charge => Amounts.used(charge, usage, estimate)
  return {
    pool: pool.name,
    agent,
    charge: limited(pool.law, charge),
    waited: Duration.millis(waitedMillis),
    binding,
    observe: (said) =>
      Effect.sync(() =>
        pool.observe(readingsOf(said), entry, said.usage === undefined ? undefined : usedOf(said.usage))
      ),
    settle: (usage, outcome = "success") => Effect.sync(() => pool.settle(entry, usedOf(usage), outcome)),
    fail: (failure) =>
      Effect.sync(() => {
        check("Reservation.fail", failed, failure)
        const { reason, retryAfter, signal, usage = Amounts.nothing } = failure
        return pool.fail(entry, {
          reason,
          retryAfter: retryAfter === undefined ? undefined : pauseOf(retryAfter),
          readings: signal === undefined ? undefined : readingsOf(signal),
          used: usedOf(usage)
        })
      }),
    refund: Effect.sync(() => pool.settle(entry, Amounts.nothing, "failure"))
  }
}

/** After a longer retry-after, the provider is probed every hour. */
const maxPauseMillis = 3_600_000

/** The milliseconds of a pause. */
export const pauseOf = (duration: Duration.Input): number => Math.min(maxPauseMillis, millisOf(duration))

/** The figures of a signal, without those that no provider can mean. */
export const readingsOf = ({ dimensions }: Limits.Signal): Readings => {
  const readings: { [D in Limits.Dimension]?: Reading } = {}
  for (const dimension of Amounts.dimensions) {
    const signal = dimensions[dimension]
    if (signal === undefined) continue
    const { limit, remaining, roundedTo } = signal
    readings[dimension] = {
      limit: Amounts.isAmount(limit) && limit >= 1 ? limit / 60_000 : undefined,
      remaining: Amounts.isAmount(remaining) ? remaining : undefined,
      roundedTo: Amounts.isAmount(roundedTo) && roundedTo >= 1 ? roundedTo : 1
    }
  }
  return readings
}
