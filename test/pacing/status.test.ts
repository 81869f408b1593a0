/** The status of dimensions: the tighter of the user's limit and the provider's. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import { dimensionsOf, type KnownFigure, knownOf } from "../../src/pacing/status.ts"
import * as Rules from "../../src/domain/rules.ts"

const charge = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 600 }

/** The user's limit and one that headers name, per second. */
const pool = (stated: Limits.Limits, learned: { readonly limit: number; readonly remaining: number } | undefined) => {
  const law = Pacer.make(Rules.resolve(stated), {}, 0)
  if (learned !== undefined) {
    const { limit, remaining } = learned
    Pacer.observe(law, undefined, { tokens: { limit: limit / 1_000, remaining, roundedTo: 1 } }, 0)
  }
  return law
}

describe("status", () => {
  it("shows the user's limit and its level at a time", () => {
    const law = pool({ tokens: { perSecond: 100, burst: 1_000 } }, undefined)
    Pacer.take(law, charge, 0)
    const status = { capacity: 1_000, perSecond: 100, limitPerSecond: 100 }
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 400, ...status } })
    assert.deepStrictEqual(dimensionsOf(law, 1_000), { tokens: { level: 500, ...status } })
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 400, ...status } }, "to say it changes nothing")
  })

  it("shows a limit that headers named if the user states none, and nothing if it is unknown", () => {
    assert.deepStrictEqual(dimensionsOf(pool({}, undefined), 0), {})
    const law = pool({}, { limit: 50, remaining: 800 })
    const status = { capacity: 800, perSecond: 50, limitPerSecond: 50 }
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 800, ...status } })
    Pacer.take(law, charge, 0)
    assert.deepStrictEqual(dimensionsOf(law, 2_000), { tokens: { level: 300, ...status } })
  })

  it("shows the tighter of both, number by number", () => {
    const slow = pool({ tokens: { perSecond: 100, burst: 1_000 } }, { limit: 50, remaining: 800 })
    assert.deepStrictEqual(dimensionsOf(slow, 0), {
      tokens: { level: 1_000, capacity: 1_000, perSecond: 50, limitPerSecond: 50 }
    })
    const used = pool({ tokens: { perSecond: 100, burst: 1_000 } }, undefined)
    Pacer.observe(used, Pacer.take(used, charge, 0), { tokens: { limit: 0.1, remaining: 200, roundedTo: 1 } }, 0)
    assert.strictEqual(dimensionsOf(used, 0).tokens?.level, 200)
    const small = pool({ tokens: { perSecond: 10, burst: 500 } }, { limit: 50, remaining: 800 })
    assert.deepStrictEqual(dimensionsOf(small, 0), {
      tokens: { level: 500, capacity: 500, perSecond: 10, limitPerSecond: 10 }
    })
  })

  it("shows what is left of a quota, at a rate of 0", () => {
    const law = pool({ tokens: { total: 5_000 } }, undefined)
    Pacer.take(law, charge, 0)
    assert.deepStrictEqual(dimensionsOf(law, 60_000), {
      tokens: { level: 4_400, capacity: 5_000, perSecond: 0, limitPerSecond: 0 }
    })
  })
})

describe("what is known of the limits", () => {
  const reading = (limit: number, remaining: number) => ({ tokens: { limit: limit / 1_000, remaining, roundedTo: 1 } })
  const figure = (given: Partial<KnownFigure>): KnownFigure => {
    const usual = { what: "limit", dimension: "tokens", value: 0, from: "stated", ageMillis: undefined } as const
    return { ...usual, ...given }
  }

  it("names the options as the source of what is stated, and headers, with the age of the last ones", () => {
    const law = pool({ tokens: { perSecond: 100, burst: 1_000 }, requests: { total: 50 } }, undefined)
    const stated = [
      figure({ what: "limit", dimension: "requests", value: 50, from: "stated" }),
      figure({ what: "limit", value: 100, from: "stated" })
    ]
    assert.deepStrictEqual(knownOf(law, 5_000), stated)
    Pacer.observe(law, Pacer.take(law, charge, 1_000), reading(80, 200), 1_200)
    const named = figure({ what: "limit", value: 80, from: "headers", ageMillis: 4_000 })
    assert.deepStrictEqual(knownOf(law, 5_000), [...stated, named])
  })

  it("does not call the user's share of a limit that headers named a stated limit", () => {
    const limits = { tokens: { share: 0.5 } }
    const law = Pacer.make(Rules.resolve(limits), Rules.shares(limits), 0)
    Pacer.observe(law, Pacer.take(law, charge, 1_000), reading(100, 5_000), 1_200)
    assert.isDefined(law.caps.tokens)
    assert.deepStrictEqual(knownOf(law, 5_000), [figure({ value: 100, from: "headers", ageMillis: 4_000 })])
  })

  it("names headers as the source of a share that they measured, and rejections once they have cut it", () => {
    const law = pool({}, undefined)
    const call = (at: number, remaining?: number): void => {
      const admission = Pacer.take(law, charge, at)
      if (remaining !== undefined) Pacer.observe(law, admission, reading(100, remaining), at + 200)
      Pacer.accept(law, admission)
      Pacer.settle(law, admission, charge, at + 300)
    }
    // Six calls take 3,600 tokens in 30 seconds, and 1,500 are refilled: others use the other half of the refill.
    call(1_000, 8_000)
    for (let at = 6_000; at < 31_000; at += 5_000) call(at)
    call(31_000, 8_000 - 3_600 + 1_500)
    const [limit, share, ...others] = knownOf(law, 35_000).filter(({ dimension }) => dimension === "tokens")
    assert.deepStrictEqual(others, [])
    assert.deepStrictEqual(limit, figure({ what: "limit", value: 100, from: "headers", ageMillis: 4_000 }))
    assert.deepInclude(share!, { what: "share", from: "headers", ageMillis: 4_000 })
    assert.isAtLeast(share!.value, 50)
    assert.isBelow(share!.value, 100)
    const rejected = { reason: "rateLimit" as const, retryAfter: undefined, readings: reading(100, 0), used: {} }
    Pacer.reject(law, Pacer.take(law, charge, 36_000), rejected, 36_100)
    const cut = knownOf(law, 37_000).find(({ what }) => what === "share")
    assert.deepInclude(cut!, { from: "rejections", ageMillis: 900 })
  })

  it("names rejections as the source of a share that they showed, also where no limit is known", () => {
    const law = pool({}, undefined)
    for (let now = 0; now < 10_000; now += 500) {
      const call = Pacer.take(law, charge, now)
      Pacer.accept(law, call)
      Pacer.settle(law, call, {}, now + 100)
    }
    for (const now of [10_000, 10_200, 10_400]) {
      const rejected = { reason: "rateLimit" as const, retryAfter: undefined, readings: undefined, used: {} }
      Pacer.reject(law, Pacer.take(law, charge, now), rejected, now + 100)
    }
    const share = knownOf(law, 12_500).find(({ dimension }) => dimension === "requests")
    assert.deepInclude(share, { what: "share", from: "rejections", ageMillis: 2_000 })
    assert.isAbove(share!.value, 0)
  })

  it("names the age of a limit of calls in flight that rejections showed", () => {
    const law = pool({}, undefined)
    const calls = Array.from({ length: 12 }, () => Pacer.take(law, charge, 0))
    for (const call of calls.slice(10)) Pacer.overload(law, call, { retryAfter: undefined, used: {} }, 100)
    const last = knownOf(law, 1_000).at(-1)
    const inFlight = { what: "inFlight", dimension: undefined, value: 10, from: "rejections", ageMillis: 900 } as const
    assert.deepStrictEqual(last, inFlight)
  })

  it("gives no age to what another budget has learned", () => {
    const law = pool({}, { limit: 50, remaining: 800 })
    assert.deepStrictEqual(knownOf(law, 0), [figure({ what: "limit", value: 50, from: "headers" })])
  })
})
