import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Scenarios, Strategies, type Strategy } from "@floodgate/lab/internal"
import * as Racing from "../../src/commands/racing.ts"

const scenario = Scenarios.byName("incident", { agents: 1, calls: 1 })!
const oracle = Strategies.all.find(({ name }) => name === "oracle")!

describe("a race that is interrupted", () => {
  it.effect("hands over the strategies that had ended, and not the one that ran", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const endless: Strategy.Strategy = {
        name: "endless",
        summary: "never starts",
        client: () => Effect.andThen(Deferred.succeed(began, undefined), Effect.never)
      }
      const ended: Array<string> = []
      const stopped: Parameters<typeof Racing.race>[2] = (runs) =>
        Effect.sync(() => void ended.push(...runs.map(({ result }) => result.strategy)))
      const race = yield* Effect.forkChild(Racing.race(scenario, [oracle, endless], stopped))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(race)
      assert.deepStrictEqual(ended, ["oracle"])
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("hands over nothing if it ends by itself", () =>
    Effect.gen(function* () {
      const stopped = () => Effect.die("the race was not interrupted")
      const runs = yield* Racing.race(scenario, [oracle], stopped)
      assert.deepStrictEqual(
        runs.map(({ result }) => result.strategy),
        ["oracle"]
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
