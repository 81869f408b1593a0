/** The long windows of an account that two processes share through a real Redis. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Schedule from "effect/Schedule"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import * as FloodgateRedis from "@floodgate/redis"
import * as Status from "@floodgate/redis/internal"
import * as Redis from "./server.ts"

describe.skipIf(!Redis.hasServer)("windows that processes share through Redis", () => {
  it.live("are known to a process that joins, with the size that another one has learned", () =>
    Effect.gen(function* () {
      const { command, url } = yield* Redis.scoped
      const resetsAt = Date.now() + 18_000_000
      const state = { spent: 0 }
      const process = Layer.build(
        Governor.layer({
          windows: { "5h": { share: 0.7 } },
          prices: { m: { input: 1, output: 0, maxOutput: 1 } },
          retry: Retry.make({ attempts: 1 })
        }).pipe(Layer.provide(Budget.layerUnlimited), Layer.provide(FloodgateRedis.layerStoreUrl({ url })))
      )
      /** A call for a dollar of a window of fifty. */
      const call = Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "m", bytes: 0, inputTokens: 1e6, maxTokens: 1, account: "key" }, () =>
          Effect.sync(() => {
            const used = String(++state.spent / 50)
            const signal = Signals.fromHeaders({
              "anthropic-ratelimit-unified-status": "allowed",
              "anthropic-ratelimit-unified-5h-utilization": used,
              "anthropic-ratelimit-unified-5h-reset": String(Math.round(resetsAt / 1_000))
            })
            return { value: used, actual: { inputTokens: 1e6, outputTokens: 0 }, signal }
          })
        )
      )
      const window = Effect.flatMap(Governor.Governor, ({ windows }) => windows).pipe(
        Effect.map(([window]) => window),
        Effect.repeat({ until: (window) => window?.dollars !== undefined, schedule: Schedule.spaced("20 millis") })
      )
      const first = yield* process
      for (let n = 0; n < 10; n++) yield* Effect.provideContext(call, first)
      const learned = yield* Effect.provideContext(window, first)
      assert.closeTo(learned!.dollars!, 50, 6)
      const record = () => command("HGET", "floodgate:windows%3Akey", "value")
      yield* Effect.promise(() => Redis.until(async () => String(await record()).includes('"size"')))
      // The other process reads it when it first calls.
      const second = yield* process
      yield* Effect.provideContext(call, second)
      const told = yield* Effect.provideContext(window, second)
      assert.strictEqual(told!.dollars, learned!.dollars)
      // No pool, no cap: other commands do not take the record for one.
      assert.deepStrictEqual(yield* Status.status({ url }), [])
      assert.deepStrictEqual(yield* Status.caps({ url }), { caps: [], more: 0 })
    }).pipe(Effect.scoped, Effect.timeout("60 seconds"))
  )
})
