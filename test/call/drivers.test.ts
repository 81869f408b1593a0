/** A governed call takes few steps of Effect, or none, until it has to wait or fails. That changes nothing for its caller. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { history, ways } from "../support/callHistory.ts"
import { pool } from "../support/budget.ts"
import { throughEffect } from "../support/drivers.ts"
import { sized } from "../support/size.ts"
import { interruptAt } from "../support/yieldAt.ts"

const limits = { tokens: { perMinute: 1e9 } }
const call = { model: "m", bytes: 100, maxTokens: 100 }
const answer = { value: "", actual: { inputTokens: 40, outputTokens: 10 } }

describe("a governed call", () => {
  for (const way of ["run", "open", "begin"] as const) {
    it.effect(
      `has the same events, metrics and statuses by ${way} as through Effect`,
      () =>
        Effect.gen(function* () {
          for (let seed = 201; seed < 201 + sized(4, 200); seed++) {
            const plain = yield* history(seed, { way })
            const through = yield* history(seed, { way: way === "begin" ? "open" : way, onlyEffect: true })
            assert.deepStrictEqual(plain, through, `seed ${seed}`)
          }
        }),
      { tags: "full" }
    )

    it.effect(`gives everything back by ${way}, wherever it is interrupted`, () =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const held = { ...answer, value: "held" }
        let began = 0
        for (const isLong of [true, false]) {
          for (let step = 1; step <= sized(40, 200); step++) {
            const attempt = Effect.andThen(
              Effect.sync(() => void began++),
              isLong ? Effect.never : Effect.as(Effect.yieldNow, held)
            )
            yield* interruptAt(ways[way](governor, call, attempt, {}), step)
            const { inFlight, queued } = yield* pool
            assert.deepStrictEqual([inFlight, queued], [0, 0], `step ${step}`)
          }
        }
        assert.isAbove(began, 0)
      }).pipe(Effect.provide(Layer.provideMerge(Governor.layer(), Budget.layer({ limits, concurrency: 1 }))))
    )
  }

  for (const isOnly of [false, true]) {
    it.effect(`is seen by the layers in its way${isOnly ? ", through Effect" : ""}`, () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const budget = Layer.effect(
          Budget.TokenBudget,
          Effect.map(Budget.TokenBudget, (inner) => ({
            ...inner,
            reserve: (...args) => {
              seen.push("reserve")
              return inner.reserve(...args)
            }
          }))
        ).pipe(Layer.provide(Budget.layer({ limits })))
        const estimator = (replaced: "estimate" | "learn") =>
          Layer.effect(
            Estimator.Estimator,
            Effect.map(Estimator.make(), (inner) => ({
              ...inner,
              [replaced]: (...args: [Estimator.Call, { inputTokens: number; outputTokens: number }]) => {
                seen.push(replaced)
                return inner[replaced](...args) as never
              }
            }))
          )
        const plain = [Budget.layer({ limits }), Layer.effect(Estimator.Estimator, Estimator.make())] as const
        const cases = [
          ["reserve", budget, plain[1]],
          ["estimate", plain[0], estimator("estimate")],
          ["learn", plain[0], estimator("learn")]
        ] as const
        for (const [name, ofBudget, ofEstimator] of cases) {
          for (const way of ["run", "open", "begin"] as const) {
            seen.length = 0
            const made = Effect.flatMap(Governor.Governor, (governor) =>
              ways[way](governor, call, Effect.succeed(answer), {})
            )
            const live = Layer.effect(Governor.Governor, Governor.make())
            yield* throughEffect(Effect.provide(made, Layer.provide(live, Layer.merge(ofBudget, ofEstimator))), isOnly)
            assert.deepStrictEqual(seen, [name], `${way}, with another ${name}`)
          }
        }
      })
    )
  }
})
