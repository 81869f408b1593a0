/** Unknown names of pools: none opens a second budget, or a pool without limits, unnoticed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as Floodgate from "floodgate/promise"

const perMinute = (inputTokens: number): Limits.Limits => ({ inputTokens: { perMinute: inputTokens } })
const oneSet = { limits: perMinute(60_000) }

/** The log lines of a budget while a program uses it. */
const logs = (
  options: Budget.Options,
  use: (budget: Budget.TokenBudget["Service"]) => Effect.Effect<unknown, unknown, never>
) => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel}: ${String(message)}`))
  return Effect.gen(function* () {
    const budget = yield* Budget.make(options)
    yield* use(budget)
    yield* TestClock.adjust("1 second")
    return lines
  }).pipe(Effect.scoped, Effect.orDie, Effect.provide(Logger.layer([logger])))
}

const reserve = (budget: Budget.TokenBudget["Service"], how: Budget.ReserveOptions) =>
  Effect.exit(Effect.scoped(budget.reserve({ inputTokens: 1 }, how)))

const names = (budget: Budget.TokenBudget["Service"]) => Effect.map(budget.status, ({ pools }) => Object.keys(pools))

describe("the name of a pool, with one set of limits", () => {
  it.effect("is refused if it is free text, because it would get the limits again", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make(oneSet)
      for (const [pool, hint] of [
        ["defualt", ': did you mean "default"?'],
        ["background", ""]
      ]) {
        const expected = `expected "default", the pool of all models if there is one set of limits, got "${pool}"${hint}`
        for (const [operation, effect] of [
          ["reserve", reserve(budget, { pool })],
          ["reserve", reserve(budget, { pool, account: "one" })],
          ["resize", Effect.exit(budget.resize({ pool, limits: perMinute(7) }))]
        ] as const) {
          const exit = yield* effect
          assert.include(String(exit), `RangeError: Budget.${operation}: pool: ${expected}`)
        }
      }
      assert.deepStrictEqual(yield* names(budget), ["default"])
    }).pipe(Effect.scoped)
  )

  it.effect("may be an account's, or a class of models, of which the log warns once", () =>
    Effect.gen(function* () {
      const warnings = yield* logs(oneSet, (budget) =>
        Effect.gen(function* () {
          yield* reserve(budget, { model: "claude-opus-4-5" })
          yield* reserve(budget, { account: "one" })
          yield* budget.resize({ pool: "one", limits: perMinute(7) })
          yield* budget.pause({ duration: "1 second", pool: "two", reason: "rateLimit" })
          assert.deepStrictEqual(yield* names(budget), ["default", "one", "two"])
          yield* Effect.replicateEffect(reserve(budget, { pool: "opus-4" }), 3)
          yield* reserve(budget, { pool: "opus-4", account: "one" })
        })
      )
      assert.deepStrictEqual(warnings, [
        'Warn: The limits apply to the pool "opus-4" and to the pool "default", each by itself: leave the pool out, or give limits for each pool'
      ])
    })
  )

  it.effect("warns of an update of a misspelt pool, and ignores it", () =>
    Effect.gen(function* () {
      const warnings = yield* logs(oneSet, (budget) =>
        Effect.gen(function* () {
          for (let n = 0; n < 3; n++) {
            yield* budget.pause({ duration: "1 second", pool: "defualt", reason: "rateLimit" })
            yield* budget.observe({ pool: "defualt", dimensions: {} })
          }
          assert.deepStrictEqual(yield* names(budget), ["default"])
        })
      )
      assert.deepStrictEqual(warnings, [
        'Warn: An update of the pool "defualt" was ignored, because no such pool exists: did you mean "default"?'
      ])
    })
  )
})

describe("the name of a pool, with limits for each pool", () => {
  const pools = { "opus-5": perMinute(1_000_000), "sonnet-5": perMinute(2_000_000) }

  it("is refused if no model of Claude belongs to it", () => {
    for (const [name, meant] of [
      ["sonet-5", "sonnet-5"],
      ["sonnnet-5", "sonnet-5"],
      ["snonet-4", "sonnet-4"],
      ["opus5", "opus-5"],
      ["Opus-5.5", "opus-5-5"],
      ["haikü-5", undefined],
      ["hailuo-02", undefined],
      ["opt-6", undefined],
      ["gpt-6", undefined],
      ["octopus-4-5", undefined],
      ["opus-4-batch", undefined]
    ] as const) {
      const limits = { pools: { [name]: perMinute(1) } }
      if (meant === undefined) void Budget.make({ limits })
      else {
        const message = `limits.pools: no model belongs to the pool "${name}": did you mean "${meant}"?`
        assert.throws(() => Budget.make({ limits }), RangeError, `Budget.make: ${message}`)
        assert.throws(() => Floodgate.create({ limits }), RangeError, `Floodgate.create: ${message}`)
      }
      // Another poolOf may return any name.
      void Budget.make({ limits: { ...limits, poolOf: () => name } })
    }
  })

  it.effect("is refused for calls if it is unknown, with a suggestion", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { pools } })
      for (const effect of [reserve(budget, { pool: "sonet-5" }), Effect.exit(budget.resize({ pool: "sonet-5" }))]) {
        assert.include(
          String(yield* effect),
          'or a pool that poolOf returned for a model, got "sonet-5": did you mean "sonnet-5"?'
        )
      }
    }).pipe(Effect.scoped)
  )

  it.effect("is warned of if it has no limits, and the limits of a similar one are not used", () =>
    Effect.gen(function* () {
      const limits = { pools: { sonnet: perMinute(1_000), "opus-5": perMinute(1_000), "gpt-5": perMinute(1_000) } }
      const warnings = yield* logs({ limits }, (budget) =>
        Effect.gen(function* () {
          for (const model of ["claude-opus-5", "claude-opus-4-8", "gpt-6", "claude-sonnet-5", "claude-sonnet-5"]) {
            yield* reserve(budget, { model })
          }
          yield* reserve(budget, { model: "claude-sonnet-5", account: "one" })
        })
      )
      assert.deepStrictEqual(warnings, [
        'Warn: The pool "sonnet-5" has no limits and learns them, and no call has used the limits of "sonnet": is its name misspelt?'
      ])
    })
  )

  it.effect("is warned of if an update misspells it", () =>
    Effect.gen(function* () {
      const warnings = yield* logs({ limits: { pools } }, (budget) =>
        Effect.gen(function* () {
          yield* budget.observe({ pool: "sonet-5", dimensions: {} })
          yield* budget.observe({ pool: "api.example.com/one/sonnet-5", dimensions: {} })
          assert.deepStrictEqual(yield* names(budget), Object.keys(pools))
        })
      )
      assert.deepStrictEqual(warnings, [
        'Warn: An update of the pool "sonet-5" was ignored, because no such pool exists: did you mean "sonnet-5"?'
      ])
    })
  )
})

describe("the name of a pool, with learned limits", () => {
  it.effect("is warned of only if it is close to another one", () =>
    Effect.gen(function* () {
      const warnings = yield* logs({}, (budget) =>
        Effect.gen(function* () {
          for (const pool of ["defualt", "sonet-5", "sonnet-5", "gpt-6", "gpt-5", "team-a", "team-b", "sonet-5"]) {
            yield* reserve(budget, { pool })
          }
          yield* reserve(budget, { model: "claude-haiku-4-5", account: "one" })
        })
      )
      assert.deepStrictEqual(warnings, [
        'Warn: The pool "defualt" learns limits of its own: did you mean "default"?',
        'Warn: The pool "sonet-5" learns limits of its own: did you mean "sonnet-5"?'
      ])
    })
  )
})
