/** The share of a long window, for clients that send over a socket. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as Floodgate from "floodgate/promise"
import * as Spending from "floodgate/Spending"
import { ProviderServer } from "floodgate/testing/server"

const model = "claude-sonnet-5"

const causeOf = (error: unknown): unknown =>
  error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error

describe("the share of a window", () => {
  const served = ProviderServer.make({
    windows: { "5h": { dollars: 0.01, used: 0.65 } },
    outputTokens: 100,
    latency: { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
  })
  const windows = { "5h": { share: 0.7 } }
  const params = { model, max_tokens: 100, messages: [{ role: "user" as const, content: "Hi" }] }

  it.live("holds for a client over the SDK", () =>
    Effect.gen(function* () {
      const { url } = yield* served
      const apiKey = Redacted.make("k")
      const client = LlmClient.layer({ apiKey, baseUrl: url, windows }).pipe(Layer.provide(Budget.layerUnlimited))
      const create = Effect.flatMap(LlmClient.LlmClient, (client) => client.create(params))
      const error = yield* Effect.flip(Effect.andThen(create, create)).pipe(Effect.provide(client))
      assert.instanceOf(causeOf(error), Spending.WindowShareUsed)
    }).pipe(Effect.scoped)
  )

  it.live("holds for a program without Effect", () =>
    Effect.gen(function* () {
      const { url } = yield* served
      yield* Effect.promise(async () => {
        await using floodgate = Floodgate.create({ windows })
        const post = async () => {
          const headers = { "x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json" }
          const body = JSON.stringify(params)
          const response = await floodgate.fetch(`${url}/v1/messages`, { method: "POST", headers, body })
          return [response.status, await response.text()] as const
        }
        assert.strictEqual((await post())[0], 200)
        const [status, text] = await post()
        assert.strictEqual(status, 402)
        assert.match(text, /% of the account's window of 5h are used, and this call may use up to 70 %: wait until /)
      })
      assert.throws(() => Floodgate.create({ windows: { "5h": { share: 1.5 } } }), RangeError, /windows\["5h"\]\.share/)
    }).pipe(Effect.scoped)
  )
})
