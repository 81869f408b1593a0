import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Backoff from "../../src/retry/backoff.ts"

const within = (minimum: number, maximum: number, exclusiveMaximum = false) =>
  Schema.Finite.check(Schema.isBetween({ minimum, maximum, exclusiveMaximum }))

const unit = within(0, 1, true)
const backoffs = {
  base: within(1, 10_000),
  factor: within(1, 4),
  caps: within(1, 100),
  attempt: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_000 })),
  random: unit
}
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

  describe("delay", () => {
    it("draws each variant from its range", () => {
      const draw = (jitter: Backoff.Jitter, random: number) =>
        Backoff.delay({ ...incident, jitter }, 3, undefined, random)
      assert.deepStrictEqual(
        Backoff.jitters.map((jitter) => [jitter, draw(jitter, 0), draw(jitter, 0.5)]),
        [
          ["full", 0, 4_000],
          ["equal", 4_000, 6_000],
          ["decorrelated", 2_000, 4_000],
          ["proportional", 6_400, 8_000],
          ["none", 8_000, 8_000]
        ]
      )
    })

    it.prop(
      "keeps every variant within its bounds",
      backoffs,
      ({ attempt, base, caps, factor, random }) => {
        const cap = base * caps
        const capped = Backoff.exponential({ base, factor, cap }, attempt)
        const draw = (jitter: Backoff.Jitter) =>
          Backoff.delay({ base, factor, cap, jitter }, attempt, undefined, random)
        between(draw("full"), 0, capped)
        between(draw("equal"), capped / 2, capped)
        between(draw("proportional"), capped * 0.8, capped * 1.2)
        between(draw("decorrelated"), base, Math.min(cap, base * 3))
        assert.strictEqual(draw("none"), capped)
        between(capped, base, cap)
      },
      runs
    )

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
