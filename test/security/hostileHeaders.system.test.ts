import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as LlmClient from "floodgate/LlmClient"
import { answer, cases, limits, run, type Setting, soon, timed } from "../support/hostileHeaders.ts"
import { sized, some } from "../support/size.ts"
import { quiet, serve } from "../support/httpServer.ts"

const alone = (): Setting => ({ stores: [Layer.empty], quiet })

/** Two processes that share a budget: the first gets the hostile headers, the other normal ones. */
const together = (): Setting => {
  const values = new Map<string, BudgetStore.Stored>()
  const store = BudgetStore.layer({
    read: (key) => Effect.sync(() => values.get(key)),
    swap: (key, expected, next) =>
      Effect.sync(() => {
        if (values.get(key)?.version === expected) values.set(key, next)
        return values.get(key)
      })
  })
  return { stores: [store, store], quiet }
}

describe("hostile headers", () => {
  const known = ["with limits", limits] as const
  describe.each(sized([known], [known, ["without", undefined] as const]))("%s", (_, given) => {
    describe.each([
      ["to a process alone", alone, cases],
      ["to one of two", together, some(cases, 3)]
    ] as const)("%s", (_, setting, hostile) => {
      describe.each(sized([429], [200, 429]))("in answers of %i", (status) => {
        for (const one of hostile)
          it.effect(`${one.name} stalls no call, and normal answers correct it`, () =>
            run(one, status, given, setting())
          )
      })
    })
  })

  it.effect("headers larger than the transport reads are a typed failure, and the call is not sent again", () =>
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
      assert.strictEqual(exit._tag, "Failure")
      assert.include(String(exit._tag === "Failure" && exit.cause), "has probably executed the call")
      assert.strictEqual(calls, 1)
    })
  )
})
