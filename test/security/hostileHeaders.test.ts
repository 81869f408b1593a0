import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { answer, cases, limits, run, type Setting, soon, timed } from "../support/hostileHeaders.ts"
import { quiet, serve } from "../support/httpServer.ts"

const inMemory: Setting = { stores: [Layer.empty], quiet }

describe("hostile headers", () => {
  describe.each([
    ["with limits", limits],
    ["without", undefined]
  ] as const)("%s", (_, given) => {
    describe.each([200, 429])("in answers of %i", (status) => {
      for (const one of cases)
        it.effect(`${one.name} stalls nobody, and normal answers put it right`, () => run(one, status, given, inMemory))
    })
  })

  it.effect("headers above what HTTP takes are a failed connection, with its type", () =>
    Effect.gen(function* () {
      let calls = 0
      const server = yield* serve((_, response) => {
        const big = calls++ === 0
        response.writeHead(200, { "content-type": "application/json", ...(big ? { "x-big": "x".repeat(40_000) } : {}) })
        response.end(answer)
      })
      const client = LlmClient.layer({ apiKey: Redacted.make("key"), baseUrl: server.url })
      const { exit } = yield* timed(server, soon, quiet).pipe(
        Effect.provide(Layer.provideMerge(client, Budget.layer({ limits })))
      )
      assert.strictEqual(exit._tag, "Success")
      assert.strictEqual(calls, 2)
    })
  )
})
