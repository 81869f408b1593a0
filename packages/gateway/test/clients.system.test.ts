import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"
import { execFile } from "node:child_process"
import OpenAI from "openai"
import { sized } from "../../../test/support/size.ts"
import { withStalls } from "../../../test/support/stalls.ts"

// Real clients over real HTTP, in front of a provider whose time passes twenty times faster.

const agents = Array.from({ length: 12 }, (_, index) => `agent-${index}`)
const rounds = sized([0, 1, 2], [0, 1, 2, 3, 4])
const calls = agents.length * rounds.length
const content = "word ".repeat(1_600)
const messages = [{ role: "user" as const, content }]

/** One call of an agent; rejects if the client gives up. */
type Client = (url: string, agent: string, round: number) => Promise<unknown>

const anthropic: Client = async (baseURL, agent, round) => {
  const client = new Anthropic({ baseURL, apiKey: "any", defaultHeaders: { "x-floodgate-agent": agent } })
  const params = { model: "claude-sonnet-5", max_tokens: 100, messages }
  return round % 2 === 0 ? client.messages.create(params) : client.messages.stream(params).finalMessage()
}

const openai: Client = async (url, agent, round) => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", defaultHeaders: { "x-floodgate-agent": agent } })
  if (round % 3 === 0) return client.responses.create({ model: "gpt-6", input: content })
  if (round % 3 === 1) return client.chat.completions.create({ model: "gpt-6", messages })
  let chunks = 0
  for await (const { choices } of await client.chat.completions.create({ model: "gpt-6", messages, stream: true })) {
    // Nobody asked for usage.
    assert.isAbove(choices.length, 0)
    chunks++
  }
  return chunks
}

const curl: Client = (url, agent) =>
  new Promise((resolve, reject) => {
    const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 100, messages })
    const headers = ["x-api-key: any", "anthropic-version: 2023-06-01", `x-floodgate-agent: ${agent}`]
    const args = [
      "-sS",
      "--fail",
      "--noproxy",
      "*",
      ...headers.flatMap((header) => ["-H", header]),
      "--data-binary",
      body
    ]
    execFile("curl", [...args, `${url}/v1/messages`], (error, text) => {
      if (error === null && text.includes('"usage"')) resolve(text)
      else reject(error ?? new Error(text))
    })
  })

const storm = (client: Client, url: string) =>
  Effect.forEach(
    agents,
    (agent) => Effect.forEach(rounds, (round) => Effect.exit(Effect.tryPromise(() => client(url, agent, round)))),
    { concurrency: "unbounded" }
  ).pipe(Effect.map((all) => all.flat().filter(({ _tag }) => _tag === "Success").length))

describe("clients through the gateway, by their base URL alone", () => {
  for (const [name, client] of [
    ["Anthropic's SDK", anthropic],
    ["openai", openai],
    ["curl", curl]
  ] as const) {
    it.live(`${name}: all of ${calls} calls are done, with hardly a rejection`, () =>
      Effect.gen(function* () {
        const limits = { inputTokens: { perMinute: 60_000, burst: 15_000 }, requests: { perMinute: 1_000 } }
        const provider = yield* ProviderServer.make({ limits, timeScale: 20 })
        const gateway = Gateway.layer({ upstreams: { anthropic: provider.url, openai: provider.url } }).pipe(
          Layer.provide(Governor.layer()),
          Layer.provide(Budget.layer())
        )
        const { url } = Context.get(yield* Layer.build(gateway), Gateway.Gateway)
        const [done, stalled] = yield* withStalls(storm(client, url))
        assert.strictEqual(done, calls)
        const { completed, rejected } = yield* provider.stats
        assert.strictEqual(completed, calls)
        // Half a call is kept back after a rejection, which is refilled in 50 ms.
        assert.isAtMost(rejected, stalled > 50 ? 6 : 2)
      })
    )
  }
})
