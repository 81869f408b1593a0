/** The official client of Ollama with the simulated one, directly and through the governed `fetch`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import { Ollama } from "ollama"
import { until } from "../support/gateway.ts"

type Server = ProviderServer.ProviderServer["Service"]

const messages = [{ role: "user", content: "What is a floodgate?" }]
const tools = [
  {
    type: "function",
    function: { name: "weather", description: "The weather", parameters: { type: "object", properties: {} } }
  }
]

const served = (options: ProviderServer.Options, f: (server: Server) => Promise<void>) =>
  Effect.scoped(
    Effect.flatMap(ProviderServer.make({ server: "ollama", ...options }), (server) => Effect.promise(() => f(server)))
  )

/** What the client says of chats and completions, whole and streamed. */
const saidBy = async (client: Ollama) => {
  const said: Array<unknown> = []
  const chat = { model: "llama3.2", messages, tools }
  const whole = await client.chat({ ...chat, stream: false })
  said.push([whole.message.content, whole.message.tool_calls, whole.eval_count, whole.done_reason])
  let text = ""
  for await (const { done, eval_count, message } of await client.chat({ ...chat, stream: true })) {
    text += message.content
    if (done) said.push([text, eval_count])
  }
  const asks = { model: "llama3.2", prompt: "Hello", options: { num_predict: 3 } }
  const { done_reason, eval_count, response } = await client.generate({ ...asks, stream: false })
  said.push([response, eval_count, done_reason])
  let streamed = ""
  for await (const part of await client.generate({ ...asks, stream: true })) streamed += part.response
  return [...said, streamed]
}

const expected = ["word".repeat(8), undefined, 8, "stop"]
const all = [expected, ["word".repeat(8), 8], ["word".repeat(3), 3, "length"], "word".repeat(3)]

describe("Ollama's client with the simulated server", () => {
  it.live("chats and generates, and lists the models", () =>
    served({ reply: () => "word".repeat(8) }, async ({ url }) => {
      const client = new Ollama({ host: url })
      assert.deepStrictEqual(await saidBy(client), all)
      const { models } = await client.list()
      assert.deepStrictEqual(
        models.map(({ name }) => name),
        ["llama3.2:latest"]
      )
      assert.lengthOf((await client.ps()).models, 1)
    })
  )

  it.live("gets calls of tools", () =>
    served({ reply: () => [{ type: "tool_use", name: "weather", input: { city: "Paris" } }] }, async ({ url }) => {
      const client = new Ollama({ host: url })
      const { message } = await client.chat({ model: "llama3.2", messages, tools, stream: false })
      assert.deepStrictEqual(message.tool_calls, [{ function: { name: "weather", arguments: { city: "Paris" } } }])
    })
  )

  it.live("does the same through the governed fetch", () =>
    served({ reply: () => "word".repeat(8) }, async ({ url }) => {
      await using floodgate = Floodgate.create({ concurrency: 1 })
      assert.deepStrictEqual(await saidBy(new Ollama({ host: url, fetch: floodgate.fetch })), all)
    })
  )

  it.live("is told that the server is busy when OLLAMA_MAX_QUEUE wait", () =>
    served({ queue: 0, reply: () => "word".repeat(1_000) }, async ({ stats, url }) => {
      const first = new Ollama({ host: url })
      const running = first.chat({ model: "llama3.2", messages, stream: true }).catch(() => undefined)
      await Effect.runPromise(until(stats, ({ inFlight }) => inFlight === 1))
      const second = new Ollama({ host: url })
      const error = await second.chat({ model: "llama3.2", messages }).catch((error: unknown) => error as Error)
      assert.match((error as Error).message, /server busy, please try again/)
      await running
      first.abort()
    })
  )
})
