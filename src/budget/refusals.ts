/** Why a pool refuses a call, before it waits or instead. */
import * as Duration from "effect/Duration"
import type * as Law from "../pacing/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type * as Rules from "../limits/rules.ts"
import { EstimateTooLarge, QuotaExhausted, WaitTooLong } from "./errors.ts"

/** A pool that is closed for longer refuses its callers: as long as the default policy tries. */
export const maxPause = 600_000

/** A charge that can never fit. */
export const tooLarge = (pool: string, rules: Rules.Rules, charge: Amounts.Whole): EstimateTooLarge | undefined => {
  const misfit = Amounts.neverFits(charge, rules)
  return misfit && new EstimateTooLarge({ pool, ...misfit })
}

/** A charge that a quota no longer holds. */
export const quotaExhausted = (
  pool: string,
  { caps }: Law.Pacer,
  charge: Amounts.Whole
): QuotaExhausted | undefined => {
  for (const dimension of Amounts.dimensions) {
    const cap = caps[dimension]
    const asked = charge[dimension]
    if (cap?.rule.quota !== true || asked <= cap.level * (1 + 1e-9)) continue
    return new QuotaExhausted({ pool, dimension, asked, left: Math.max(0, cap.level) })
  }
  return undefined
}

/** A wait that is longer than its caller accepts. */
export const tooLong = (
  pool: string,
  dimension: Limits.Dimension | undefined,
  millis: number,
  maxWait: number
): WaitTooLong =>
  new WaitTooLong({
    pool,
    dimension,
    wait: Duration.millis(Math.ceil(Math.max(millis, maxWait))),
    maxWait: Duration.millis(maxWait)
  })

/** A pause that is longer than anybody should wait. */
export const closed = (pool: string, { gate }: Law.Pacer, now: number): WaitTooLong | undefined => {
  const left = gate.until - now
  return left > maxPause ? tooLong(pool, undefined, left, maxPause) : undefined
}
