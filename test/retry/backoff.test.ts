import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Backoff from "../../src/retry/backoff.ts"

const within = (minimum: number, maximum: number, exclusiveMaximum = false) =>
  Schema.Finite.check(Schema.isBetween({ minimum, maximum, exclusiveMaximum }))

const unit = within(0, 1, true)
const runs = { arbitrary: { runs: 300 } }
const incident = { base: 2_000, factor: 2, cap: 60_000 }

/** A little slack for the last bits of a double. */
const between = (value: number, low: number, high: number) =>
  assert.isTrue(value >= low * (1 - 1e-12) && value <= high * (1 + 1e-12), `${value} is not in ${low}..${high}`)

describe("backoff", () => {
  describe("exponential", () => {
    it("doubles from the base up to the cap", () => {
      assert.deepStrictEqual(
        [1, 2, 3, 4, 5, 6, 7].map((attempt) => Backoff.exponential(incident, attempt)),
        [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
      )
    })

    it("stays at the cap when the power overflows", () => {
      assert.strictEqual(Backoff.exponential(incident, 5_000), 60_000)
    })
  })

  describe("spread", () => {
    it.prop(
      "keeps every variant within its bounds",
      { delay: within(1, 60_000), random: unit },
      ({ delay, random }) => {
        between(Backoff.spread("full", delay, random), 0, delay)
        between(Backoff.spread("equal", delay, random), delay / 2, delay)
        between(Backoff.spread("proportional", delay, random), delay * 0.8, delay * 1.2)
        assert.strictEqual(Backoff.spread("none", delay, random), delay)
      },
      runs
    )
  })

  describe("decorrelated", () => {
    it.prop(
      "keeps a decorrelated sequence between the base and three times the last delay",
      { base: within(1, 10_000), caps: within(1, 100), draws: Schema.Array(unit) },
      ({ base, caps, draws }) => {
        const cap = base * caps
        let previous: number | undefined
        for (const random of draws) {
          const next = Backoff.decorrelated({ base, cap }, previous, random)
          between(next, base, Math.min(cap, (previous ?? base) * 3))
          previous = next
        }
      },
      runs
    )
  })

  describe("atLeast", () => {
    it.prop(
      "is never earlier than asked, and at most a fifth later unless the backoff is longer",
      { delay: within(0, 60_000), retryAfter: within(-1_000, 1_000_000), random: unit },
      ({ delay, random, retryAfter }) => {
        const value = Backoff.atLeast(delay, retryAfter, random)
        assert.isTrue(Number.isInteger(value))
        assert.isTrue(value >= retryAfter && value >= delay)
        assert.isTrue(value <= Math.ceil(Math.max(delay, retryAfter * 1.2)) + 1)
      },
      runs
    )

    it("rounds a fraction of a millisecond up, as timers cut it off", () => {
      assert.strictEqual(Backoff.atLeast(0, 1_500.2, 0), 1_501)
      assert.strictEqual(Backoff.atLeast(0, undefined, 0.9), 0)
    })
  })
})
