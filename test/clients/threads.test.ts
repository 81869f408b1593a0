import Anthropic from "@anthropic-ai/sdk"
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as FloodgateAnthropic from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"
import { withStalls } from "../support/stalls.ts"

// The SDK's tool runner sends with each turn only what is new, and the provider counts the whole conversation. Real time.

const agents = 24
const turns = 5
const limits = { inputTokens: { perSecond: 30_000, burst: 100_000 } }

const provider: ProviderServer.Options = {
  limits,
  latency: { baseMillis: 200, perInputTokenMillis: 0, perOutputTokenMillis: 2 },
  outputTokens: 50,
  reply: ({ messages }) =>
    messages.filter(({ role }) => role === "assistant").length < turns - 1
      ? [{ type: "tool_use", name: "read", input: { page: 1 } }]
      : "Done."
}

/** Runs every agent to its end. Returns the number of turns, of rejections, and of allowed rejections. */
const run = (clientOf: (url: string) => Effect.Effect<Anthropic, never, never>) =>
  Effect.gen(function* () {
    const server = yield* ProviderServer.make(provider)
    const client = yield* clientOf(server.url)
    const agent = async (number: number): Promise<number> => {
      const runner = client.beta.messages.toolRunner({
        model: "claude-sonnet-5",
        max_tokens: 1_000,
        metadata: { user_id: `agent-${number}` },
        messages: [{ role: "user", content: `Agent ${number}. `.padEnd(8_000, "words and more ") }],
        tools: [
          betaTool({
            name: "read",
            description: "Reads a page",
            inputSchema: { type: "object", properties: { page: { type: "number" } } },
            run: () => "What stands on the page. ".repeat(160)
          })
        ]
      })
      let messages = 0
      for await (const _ of runner) messages++
      return messages
    }
    const working = Effect.promise(() => Promise.all(Array.from({ length: agents }, (_, number) => agent(number))))
    const [done, stalledMillis] = yield* withStalls(working)
    const { rejected } = yield* server.stats
    // Half a call is kept back after a rejection, which is refilled in about 130 ms.
    return { turns: done.reduce((sum, one) => sum + one, 0), rejected, allowed: stalledMillis > 130 ? 4 : 2 }
  })

const live = Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))

describe("24 agents with the SDK's tool runner", () => {
  it("and its message threads are rejected at most twice, through the fetch", async () => {
    const program = Effect.flatMap(Fetch.make(), (fetch) =>
      run((baseURL) => Effect.succeed(new Anthropic({ baseURL, apiKey: "any", maxRetries: 0, fetch })))
    )
    const result = await Effect.runPromise(Effect.scoped(Effect.provide(program, live)))
    assert.strictEqual(result.turns, agents * turns)
    assert.isAtMost(result.rejected, result.allowed)
  })

  it("and its message threads are rejected at most twice, through the middleware", async () => {
    const program = Effect.flatMap(FloodgateAnthropic.make(), (middleware) =>
      run((baseURL) =>
        Effect.succeed(new Anthropic({ baseURL, apiKey: "any", maxRetries: 0, middleware: [middleware] }))
      )
    )
    const result = await Effect.runPromise(Effect.scoped(Effect.provide(program, live)))
    assert.strictEqual(result.turns, agents * turns)
    assert.isAtMost(result.rejected, result.allowed)
  })
})
