/** What the page shows of learned sizes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Estimator from "floodgate/Estimator"
import { ratiosOf } from "../src/estimates.ts"

const trend = (mean: number) => ({ mean, deviation: 0 })

describe("the bytes per token on the page", () => {
  it.effect("follow an answer", () =>
    Effect.gen(function* () {
      const estimator = yield* Estimator.make()
      yield* estimator.learn({ pool: "opus", kind: "a", bytes: 300 }, { inputTokens: 100, outputTokens: 7 })
      const rows = ratiosOf(yield* estimator.learned)
      assert.deepStrictEqual(
        new Set(rows.map(({ kind, pool }) => `${pool} ${kind}`)),
        new Set(["opus a", "opus undefined"])
      )
      for (const { answers, bytesPerToken } of rows) assert.deepStrictEqual([answers, bytesPerToken], [1, 3])
    })
  )

  it("have what was read of prefixes for the pool, and not for an agent; what has no ratio is left out", () => {
    const learned = { outputs: [], tokensPerByte: trend(0.25), prefixTokens: trend(20_000), unusedFor: trend(900) }
    const rows = ratiosOf({
      profiles: [
        { pool: "new", outputs: [] },
        { pool: "opus", hits: [1, 0, 0.5, 1], ...learned },
        { pool: "opus", kind: "a", hits: [1], ...learned }
      ]
    })
    assert.deepStrictEqual(rows, [
      { pool: "opus", kind: "a", bytesPerToken: 4, answers: 0, counted: 0, prefixes: undefined },
      {
        pool: "opus",
        kind: undefined,
        bytesPerToken: 4,
        answers: 0,
        counted: 0,
        prefixes: { hit: 1, tokens: 20_000, unusedFor: 900 }
      }
    ])
  })
})
