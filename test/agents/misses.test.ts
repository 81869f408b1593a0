import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { History } from "floodgate/internal"
import { mulberry } from "../support/random.ts"

type Misses = NonNullable<Effect.Success<typeof History>>["misses"]

/** No misses so far. */
const misses = Effect.map(Effect.provide(History, Agents.layer), (history): Misses => history!.misses).pipe(
  Effect.provide(Budget.layerUnlimited)
)

describe("the misses of foreseen ends", () => {
  it.effect("knows nothing of a pool before two ends, and nothing of other pools", () =>
    Effect.map(misses, (misses) => {
      misses.add("one", 0, 100, 110)
      assert.isUndefined(misses.factor("one", 0))
      misses.add("one", 0, 100, 110)
      assert.closeTo(misses.factor("one", 0)!, 1.1 ** 2.31, 1e-9)
      assert.isUndefined(misses.factor("two", 0))
    })
  )

  it.effect("counts early and late ends alike, and is the quantile of the last ones", () =>
    Effect.map(misses, (misses) => {
      for (let index = 0; index < 64; index++) misses.add("one", 0, 100, 1e6)
      for (let percent = 1; percent <= 64; percent++) {
        const actual = percent % 2 === 0 ? 100 * Math.exp(percent / 100) : 100 / Math.exp(percent / 100)
        misses.add("one", 0, 100, actual)
      }
      // Nine of ten of 65 are 58.5, so the 59th of 64 covers them.
      assert.closeTo(Math.log(misses.factor("one", 0)!), 0.59, 1e-9)
    })
  )

  it.effect("uses what is known of less of the job while too little is known of a tenth", () =>
    Effect.map(misses, (misses) => {
      for (const done of [0, 0, 0.3]) misses.add("one", done, 100, 150)
      for (const done of [0.5, 0.59]) misses.add("one", done, 100, 105)
      const early = misses.factor("one", 0)
      assert.strictEqual(misses.factor("one", 0.35), early)
      assert.isBelow(misses.factor("one", 1)!, early!)
      assert.strictEqual(misses.factor("one", 0.55), misses.factor("one", 1))
    })
  )

  it.effect("does not trust ends that were foreseen exactly, and ignores what is no time", () =>
    Effect.map(misses, (misses) => {
      for (let index = 0; index < 20; index++) misses.add("one", 0, 100, 100)
      assert.closeTo(misses.factor("one", 0)!, Math.exp(0.03), 1e-9)
      for (const [foreseen, actual] of [
        [0, 100],
        [100, 0],
        [Infinity, 100],
        [100, Number.NaN]
      ] as const) {
        misses.add("two", 0, foreseen, actual)
      }
      assert.isUndefined(misses.factor("two", 0))
    })
  )

  it.effect("covers nine of ten normally distributed misses, however few are known", () =>
    Effect.map(misses, (misses) => {
      const random = mulberry(7)
      const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
      for (const known of [2, 4, 8, 20]) {
        let covered = 0
        const trials = 1_000
        for (let trial = 0; trial < trials; trial++) {
          const pool = `${known} ${trial}`
          for (let index = 0; index < known; index++) misses.add(pool, 0, 100, 100 * Math.exp(0.3 * normal()))
          if (Math.abs(0.3 * normal()) <= Math.log(misses.factor(pool, 0)!)) covered++
        }
        assert.isAtLeast(covered / trials, 0.87, `${known}`)
      }
    })
  )
})
