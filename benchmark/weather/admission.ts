/**
 * The library's own law (`src/pacing`) for the engine of pure laws. Without queue, client and retries it runs ten times as
 * fast as the library. Output is estimated as its mean.
 */
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import { mapDimensions, nothing, type PerDimension, type Whole } from "../../src/domain/amounts.ts"
import type * as Amounts from "./amounts.ts"
import type * as Engine from "./engine.ts"
import * as Rules from "../../src/domain/rules.ts"

const whole = ({ inputTokens = 0, outputTokens = 0, requests = 0, tokens }: Amounts.Amounts): Whole => ({
  requests,
  inputTokens,
  outputTokens,
  tokens: tokens ?? inputTokens + outputTokens
})

const readingsOf = (readings: Amounts.Readings | undefined): Pacer.Readings | undefined =>
  readings === undefined
    ? undefined
    : mapDimensions<Amounts.Reading, Pacer.Reading>(readings, ({ limit, remaining, roundedTo }) => ({
        limit: limit / 60_000,
        remaining,
        roundedTo
      }))

const limitsOf = (told: Amounts.ToldLimits, share: number): Limits.Limits =>
  mapDimensions<Amounts.Told, Limits.Limit>(told, ({ burst, perMinute }) => ({
    perMinute,
    burst,
    window: "bucket",
    share
  }))

export const make = (
  told: Amounts.ToldLimits,
  dimensions: ReadonlyArray<Amounts.Dimension>,
  now: number,
  { share }: { readonly share: number }
): Engine.Law<Pacer.Admission> => {
  const sharesOf = (limits: Limits.Limits): PerDimension<number> =>
    share === 1
      ? {}
      : Object.fromEntries(dimensions.filter((each) => limits[each] === undefined).map((each) => [each, share]))
  const stated = limitsOf(told, share)
  const pool = Pacer.make(Rules.resolve(stated), sharesOf(stated), now)
  return {
    ask: (charge, now) => Math.min(Pacer.decide(pool, whole(charge), now)?.millis ?? 0, 3_600_000),
    send: (charge, now) => Pacer.take(pool, whole(charge), now),
    answered: (admission, used, now, readings) => {
      Pacer.accept(pool, admission)
      if (readings !== undefined) Pacer.observe(pool, admission, readingsOf(readings)!, now)
      Pacer.settle(pool, admission, whole(used), now)
    },
    rejected: (admission, now, { code, readings, retryAfter }) => {
      const rejection = {
        reason: code ?? ("rateLimit" as const),
        retryAfter,
        readings: readingsOf(readings),
        used: nothing
      }
      const verdict = Pacer.reject(pool, admission, rejection, now)
      return verdict === "ramp" || verdict === "isolated" ? verdict : "exhausted"
    },
    overloaded: (admission, now, { used }) => {
      const verdict = Pacer.overload(pool, admission, { retryAfter: undefined, used: whole(used) }, now)
      return verdict === "outage" ? "outage" : "isolated"
    },
    resized: (limits, now) => {
      const next = limitsOf(limits, share)
      Pacer.resize(pool, Rules.resolve(next), sharesOf(next), now)
    }
  }
}
