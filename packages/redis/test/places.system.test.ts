/** What processes know from each other of places, in a real Redis. `test/places/shared.test.ts` has the rest in simulated time. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Clients from "./clients.ts"
import * as Redis from "./server.ts"

const call: Governor.Call = {
  model: "m",
  bytes: 400,
  inputTokens: 100,
  maxTokens: 100,
  places: { places: ["a", "b"].map((name) => ({ name, model: "m" })) }
}

describe.skipIf(Redis.skipped !== undefined)("places in Redis", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start()
  })
  afterAll(() => server.stop())

  for (const client of Clients.names) {
    it.live(`are known from the calls of another process, by the package ${client}`, () =>
      Effect.gen(function* () {
        const process = Effect.map(
          Layer.build(
            Layer.fresh(
              Governor.layer().pipe(
                Layer.provideMerge(Budget.layer()),
                Layer.provide(Clients.layer(client, server.url, `places by ${client}`))
              )
            )
          ),
          (context) => Context.get(context, Governor.Governor)
        )
        const [one, other] = [yield* process, yield* process]
        const answer = { value: undefined, actual: { inputTokens: 100, outputTokens: 100 } }
        const answered = one.run(call, () => Effect.as(Effect.sleep(20), answer))
        // Nothing answers the other process, so that it knows only what it hears.
        const asked = Effect.forkScoped(other.run(call, () => Effect.never))
        const known = Effect.map(other.places, (places) =>
          places.filter(({ answerMillis }) => answerMillis !== undefined)
        )
        const heard = yield* Effect.repeat(
          Effect.all([answered, asked, Effect.sleep(100)]).pipe(Effect.andThen(known)),
          { until: (places) => places.length > 0 }
        ).pipe(Effect.timeout("20 seconds"))
        assert.isAtLeast(heard[0]!.answerMillis!, 20)
      }).pipe(Effect.scoped)
    )
  }
})
