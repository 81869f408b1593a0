/** The learned sizes of calls in the status of a gateway, over real HTTP. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"

const trend = (mean: number) => ({ mean, deviation: 0 })
const known = { outputs: [], tokensPerByte: trend(0.25), prefixTokens: trend(20_000), unusedFor: trend(900) }

/** A pool that has learned nothing yet, one that has learned something, and one of its agents, used last. */
const learned = {
  profiles: [
    { pool: "new", outputs: [] },
    { pool: "opus", hits: [1, 0, 0.5, 1], answers: 4, ...known },
    { pool: "opus", kind: "a", hits: [1], counted: 1, ...known }
  ]
}

it.live("the status has the bytes per token, and for a pool what was read of prefixes in the cache", () =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Governor.layer({ learned }).pipe(Layer.provideMerge(Budget.layer())))
    const { url } = yield* Gateway.make({ drain: "20 millis" }).pipe(Effect.provideContext(context))
    const { estimates } = yield* Effect.promise(async () => {
      const response = await fetch(`${url}/floodgate/status`)
      return (await response.json()) as { readonly estimates: unknown }
    })
    assert.deepStrictEqual(estimates, [
      { pool: "opus", kind: "a", bytesPerToken: 4, answers: 0, counted: 1 },
      {
        pool: "opus",
        bytesPerToken: 4,
        answers: 4,
        counted: 0,
        prefixes: { hit: 1, tokens: 20_000, unusedFor: 900 }
      }
    ])
  }).pipe(Effect.scoped)
)
