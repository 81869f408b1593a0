import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import { clients } from "./clients.ts"

// A call that would wait too long is refused with the client's own error, so that a program can use another provider.

const provider = ProviderServer.make({ latency: { baseMillis: 10 }, reply: () => "An answer." })

/** The status that an error or one of its causes has. */
const statusOf = (error: unknown): unknown => {
  if (typeof error !== "object" || error === null) return undefined
  const { cause, status, statusCode } = error as Record<string, unknown>
  return status ?? statusCode ?? statusOf(cause)
}

describe("a wait that is too long", () => {
  for (const client of clients) {
    it(`is refused at once, and ${client.name} says so`, () => {
      const program = Effect.gen(function* () {
        const { stats, url } = yield* provider
        const floodgate = Floodgate.create({
          limits: { requests: { perMinute: 1, window: "bucket" } },
          callOptions: { maxWaitSeconds: 2 }
        })
        yield* Effect.addFinalizer(() => Effect.promise(floodgate.dispose))
        const { aiSdk: middleware, fetch } = floodgate
        const ask = client.make({ url, floodgate: { fetch, middleware } })
        yield* Effect.promise(() => ask("Hello", "agent"))
        const error = yield* Effect.flip(
          Effect.tryPromise({ try: () => ask("Hello", "agent"), catch: (thrown) => thrown })
        )
        const isOurs = error instanceof Floodgate.RefusedError && error.reason === "waitTooLong"
        assert.isTrue(isOurs || statusOf(error) === 429, String(error))
        assert.strictEqual((yield* stats).requests, 1)
      })
      return Effect.runPromise(Effect.scoped(program))
    })
  }
})
