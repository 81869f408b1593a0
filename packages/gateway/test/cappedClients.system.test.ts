import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import type * as Http from "node:http"
import OpenAI from "openai"
import { content, event, message, started } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

// Real SDKs with their default retries over real HTTP. The provider takes five times as long as the gateway is silent, so that every
// call that waits for money waits longer than that.

const silence = "20 millis"
const latencyMillis = 100

/** A call reserves 3 cents and costs 1. */
const prices = { "claude-test": { input: 0, output: 10 }, "gpt-test": { input: 0, output: 10 } }
const usedTokens = 1_000
const maxTokens = 3_000
const messages = [{ role: "user" as const, content: "Hello" }]

const completion = {
  id: "c1",
  object: "chat.completion",
  model: "gpt-test",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: usedTokens, total_tokens: 10 + usedTokens }
}
const chunk = (more: object): string => `data: ${JSON.stringify({ id: "c1", model: "gpt-test", ...more })}\n\n`
const chunks = [
  chunk({ choices: [{ index: 0, delta: { content: "Hello" } }] }),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  chunk({ choices: [], usage: completion.usage }),
  "data: [DONE]\n\n"
]
const events = [
  started,
  content,
  event("content_block_stop", { index: 0 }),
  event("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: usedTokens } }),
  event("message_stop")
]

const answer = ({ url }: Http.IncomingMessage, response: Http.ServerResponse, body: string): void => {
  const { stream = false } = JSON.parse(body) as { readonly stream?: boolean }
  const isAnthropic = url!.includes("messages")
  if (stream) {
    response.writeHead(200, { "content-type": "text/event-stream" }).end((isAnthropic ? events : chunks).join(""))
  } else {
    const whole = isAnthropic ? message(10, usedTokens, "claude-test") : completion
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(whole))
  }
}

type Fetch = typeof fetch
type Client = (url: string, agent: string, fetch: Fetch) => Promise<unknown>

const clients: Readonly<Record<string, Client>> = {
  "@anthropic-ai/sdk, whole": (baseURL, agent, fetch) =>
    new Anthropic({ baseURL, fetch, apiKey: "any", defaultHeaders: { "x-floodgate-agent": agent } }).messages.create({
      model: "claude-test",
      max_tokens: maxTokens,
      messages
    }),
  "@anthropic-ai/sdk, streams": (baseURL, agent, fetch) =>
    new Anthropic({ baseURL, fetch, apiKey: "any", defaultHeaders: { "x-floodgate-agent": agent } }).messages
      .stream({ model: "claude-test", max_tokens: maxTokens, messages })
      .finalMessage(),
  "openai, whole": (url, agent, fetch) =>
    new OpenAI({
      baseURL: `${url}/v1`,
      fetch,
      apiKey: "any",
      defaultHeaders: { "x-floodgate-agent": agent }
    }).chat.completions.create({ model: "gpt-test", max_completion_tokens: maxTokens, messages }),
  "openai, streams": async (url, agent, fetch) => {
    const client = new OpenAI({
      baseURL: `${url}/v1`,
      fetch,
      apiKey: "any",
      defaultHeaders: { "x-floodgate-agent": agent }
    })
    const asked = { model: "gpt-test", max_completion_tokens: maxTokens, messages, stream: true } as const
    let text = ""
    for await (const { choices } of await client.chat.completions.create(asked)) text += choices[0]?.delta.content ?? ""
    return text
  }
}

const agents = Array.from({ length: 20 }, (_, index) => `agent-${index}`)
const callsEach = 2

describe("a capped call", () => {
  for (const [name, client] of Object.entries(clients)) {
    it.live(`is answered, or fails once with the cap in its message: ${name}`, () =>
      Effect.gen(function* () {
        const upstream = yield* serve(
          (request, response, body) => void setTimeout(() => answer(request, response, body), latencyMillis)
        )
        const context = yield* Layer.build(
          Governor.layer({ prices }).pipe(
            Layer.provideMerge(Budget.layer()),
            Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
          )
        )
        const { url } = yield* Gateway.make({
          upstreams: { anthropic: upstream.url, openai: upstream.url },
          rules: [{ cap: { dollars: 0.2 } }],
          silence,
          keepAlive: silence,
          drain: "20 millis"
        }).pipe(Effect.provideContext(context))
        let sent = 0
        const counted: Fetch = (input, init) => {
          sent++
          return fetch(input, init)
        }
        const results = yield* Effect.promise(() =>
          Promise.all(
            agents.map(async (agent) => {
              const own: Array<unknown> = []
              for (let call = 0; call < callsEach; call++) {
                own.push(
                  await client(url, agent, counted).then(
                    () => undefined,
                    (error: unknown) => error
                  )
                )
              }
              return own
            })
          )
        )
        const errors = results.flat().filter((error) => error !== undefined)
        const others = errors.filter((error) => !(error instanceof Error && /\bcap\b/.test(error.message)))
        assert.deepStrictEqual(others, [], String(others[0]))
        // Of 20 cents each answer spends one, and the last call must find 3.
        const answered = agents.length * callsEach - errors.length
        assert.isAtLeast(answered, 17)
        assert.isAtMost(answered, 20)
        // No SDK has tried again.
        assert.strictEqual(sent, agents.length * callsEach)
      }).pipe(Effect.scoped)
    )
  }
})
