/** What the law does not depend on: when it began, and in what unit tokens are counted. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Law from "../../src/admission/law.ts"
import * as Rules from "../../src/limits/rules.ts"
import { mulberry } from "../support/random.ts"

interface Variant {
  /** When the history begins. */
  readonly from: number
  /** How many units one token has. */
  readonly unit: number
}

const plain: Variant = { from: 0, unit: 1 }

const limits: ReadonlyArray<(unit: number) => Limits.Limits> = [
  (unit) => ({ tokens: { perSecond: 1_000 * unit, burst: 20_000 * unit }, requests: { perSecond: 10 } }),
  (unit) => ({ tokens: { perMinute: 600_000 * unit, burst: 5_000 * unit, window: "sliding" } }),
  (unit) => ({ inputTokens: { perSecond: 2_000 * unit }, outputTokens: { perSecond: 500 * unit } }),
  () => ({})
]

/** A random history, and what was decided in it: waits, verdicts, and what the levels are. */
const history = (seed: number, { from, unit }: Variant): ReadonlyArray<number | string> => {
  const random = mulberry(seed)
  const pick = <A>(...of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
  const stated = limits[seed % limits.length]!(unit)
  const pool = Law.make(Rules.resolve(stated), Rules.shares(stated), from)
  const trace: Array<number | string> = []
  const open: Array<Law.Ticket> = []
  // Calls of two sizes, and a provider that is in one of several states for a while.
  const small = unit * 64
  let weather = pick("well", "tight", "random", "out")
  let now = from
  for (let step = 0; step < 250; step++) {
    if (random() < 0.04) weather = pick("well", "well", "tight", "random", "out")
    const millis = pick(0, 16, 16, 64, 512)
    now += millis
    const tokens = small * pick(1, 1, 4, 32)
    const charge = { requests: 1, inputTokens: tokens, outputTokens: tokens / 4, tokens }
    const blocked = Law.decide(pool, charge, now)
    trace.push(blocked?.millis ?? 0, blocked?.dimension ?? "")
    if (blocked === undefined) open.push(Law.take(pool, charge, now))
    const [ticket] = random() < 0.6 ? open.splice(Math.floor(random() * Math.min(2, open.length)), 1) : []
    if (ticket === undefined) continue
    const reading = (limit: number, left: number, roundedTo = 1): Law.Reading => ({ limit, remaining: left, roundedTo })
    const left = weather === "tight" ? 0 : 20_000 * unit
    const readings = pick<Law.Readings | undefined>(undefined, undefined, {
      tokens: reading(unit, left, 2 * unit),
      requests: reading(0.01, weather === "tight" ? 0 : 10)
    })
    const used = { tokens: ticket.charge.tokens / pick(1, 2), outputTokens: unit }
    const fails = weather !== "well" && random() < (weather === "random" ? 0.1 : 0.7)
    if (fails && weather === "out") {
      const retryAfter = pick(undefined, 4_096)
      trace.push(Law.overload(pool, ticket, { used: {}, retryAfter }, now))
    } else if (fails) {
      const isRamp = random() < 0.05
      trace.push(
        Law.reject(pool, ticket, { isRamp, used: { tokens: 0 }, readings, retryAfter: pick(undefined, 256) }, now)
      )
    } else {
      Law.accept(pool, ticket)
      if (readings !== undefined) Law.observe(pool, ticket, readings, now)
      if (random() < 0.05) Law.release(pool, ticket, used, now)
      else Law.settle(pool, ticket, used, now)
    }
    trace.push(pool.inFlight, Math.max(0, pool.gate.until - now))
  }
  return trace
}

/** Where two histories differ first. */
const differs = (one: ReadonlyArray<number | string>, other: ReadonlyArray<number | string>): string | undefined => {
  for (let i = 0; i < Math.max(one.length, other.length); i++) {
    const [a, b] = [one[i], other[i]]
    const isClose = typeof a === "number" && typeof b === "number" && Math.abs(a - b) <= 1e-6 * (1 + Math.abs(a))
    if (a !== b && !isClose) return `${b} and not ${a} at ${i}`
  }
  return undefined
}

const variants: ReadonlyArray<readonly [string, Variant]> = [
  ["when it began", { ...plain, from: 2 ** 24 }],
  ["the unit of tokens", { ...plain, unit: 1_024 }]
]

describe("the law does not depend on", () => {
  for (const [name, variant] of variants) {
    it(`${name}`, () => {
      for (let seed = 1; seed <= 200; seed++) {
        assert.isUndefined(differs(history(seed, plain), history(seed, variant)), `seed ${seed}`)
      }
    })
  }
})
