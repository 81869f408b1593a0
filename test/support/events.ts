/** Random histories of pacing: all of its events in random order, with a provider that changes its limits. */
import type * as Limits from "floodgate/Limits"
import type { Pushback } from "../../src/domain/signal.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Rules from "../../src/domain/rules.ts"
import { mulberry } from "./random.ts"

export interface Variant {
  /** When the history begins. */
  readonly from: number
  /** How many units one token has. */
  readonly unit: number
}

export const plain: Variant = { from: 0, unit: 1 }

const limits: ReadonlyArray<(unit: number) => Limits.Limits> = [
  (unit) => ({ tokens: { perSecond: 1_000 * unit, burst: 20_000 * unit }, requests: { perSecond: 10 } }),
  (unit) => ({ tokens: { perMinute: 600_000 * unit, burst: 5_000 * unit, window: "sliding" } }),
  (unit) => ({ inputTokens: { perSecond: 2_000 * unit }, outputTokens: { perSecond: 500 * unit } }),
  () => ({})
]

/**
 * Plays a history and returns its decisions: waits, verdicts, and the state after each step. `copy` copies the state before
 * an event changes it.
 */
export const play = (
  seed: number,
  { from, unit }: Variant,
  copy: (pool: Pacer.Pacer) => Pacer.Pacer = (pool) => pool
): ReadonlyArray<number | string> => {
  const random = mulberry(seed)
  const pick = <A>(...of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
  const statedBy = (n: number): Limits.Limits => limits[n % limits.length]!(unit)
  const stated = statedBy(seed)
  let pool = Pacer.make(Rules.resolve(stated), Rules.shares(stated), from)
  const apply = <A>(event: (pool: Pacer.Pacer) => A): A => event((pool = copy(pool)))
  const trace: Array<number | string> = []
  const open: Array<Pacer.Admission> = []
  // Calls of two sizes; the provider stays in one of several states for a while.
  const small = unit * 64
  let weather = pick("well", "tight", "random", "out")
  let now = from
  for (let step = 0; step < 250; step++) {
    if (random() < 0.04) weather = pick("well", "well", "tight", "random", "out")
    const millis = pick(0, 16, 16, 64, 512)
    now += millis
    if (random() < 0.01) apply((pool) => Pacer.pause(pool, "rateLimit", now + 1_024))
    if (random() < 0.01) {
      const next = statedBy(pick(seed, seed + 1))
      apply((pool) => Pacer.resize(pool, Rules.resolve(next), Rules.shares(next), now))
    }
    const tokens = small * pick(1, 1, 4, 32)
    const charge = { requests: 1, inputTokens: tokens, outputTokens: tokens / 4, tokens }
    const blocked = apply((pool) => Pacer.decide(pool, charge, now))
    trace.push(blocked?.millis ?? 0, blocked?.by ?? "")
    if (blocked === undefined) open.push(apply((pool) => Pacer.take(pool, charge, now)))
    const [admission] = random() < 0.6 ? open.splice(Math.floor(random() * Math.min(2, open.length)), 1) : []
    if (admission === undefined) continue
    const reading = (limit: number, left: number, roundedTo = 1): Pacer.Reading => ({
      limit,
      remaining: left,
      roundedTo
    })
    const left = weather === "tight" ? 0 : 20_000 * unit
    const readings = pick<Pacer.Readings | undefined>(undefined, undefined, {
      tokens: reading(unit, left, 2 * unit),
      requests: reading(0.01, weather === "tight" ? 0 : 10)
    })
    const used = { tokens: admission.charge.tokens / pick(1, 2), outputTokens: unit }
    const fails = weather !== "well" && random() < (weather === "random" ? 0.1 : 0.7)
    const end = random()
    if (fails && weather === "out") {
      const retryAfter = pick(undefined, 4_096)
      trace.push(apply((pool) => Pacer.overload(pool, admission, { used: {}, retryAfter }, now)))
    } else if (fails) {
      const reason: Pushback = random() < 0.05 ? "ramp" : "rateLimit"
      const rejection = { reason, used: { tokens: 0 }, readings, retryAfter: pick(undefined, 256) }
      trace.push(apply((pool) => Pacer.reject(pool, admission, rejection, now)))
    } else {
      apply((pool) => Pacer.accept(pool, admission))
      if (readings !== undefined) apply((pool) => Pacer.observe(pool, admission, readings, now))
      if (end < 0.05) apply((pool) => Pacer.release(pool, admission, used, now))
      else if (end < 0.1) apply((pool) => Pacer.keep(pool, admission))
      else apply((pool) => Pacer.settle(pool, admission, used, now))
    }
    trace.push(pool.inFlight, Math.max(0, pool.gate.until - now))
  }
  return trace
}
