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

// How long clients wait. Time passes fifty times faster than with the defaults of the gateway and of the clients:
// 20 seconds of silence are 0.4, the ten minutes after which the SDKs give up are 12 seconds, and no client retries.

const speed = 50
const scaled = (seconds: number): number => (seconds * 1_000) / speed
const settings = { maxRetries: 0, timeout: scaled(600), apiKey: "any" }
const messages = [{ role: "user" as const, content: "Hello" }]

type Client = (url: string) => Promise<unknown>

const claude = { model: "claude-sonnet-5", max_tokens: 50, messages }
const anthropic = (baseURL: string) => new Anthropic({ baseURL, ...settings })
const openai = (url: string) => new OpenAI({ baseURL: `${url}/v1`, ...settings })

const clients: Readonly<Record<string, Client>> = {
  "Anthropic's SDK": (url) => anthropic(url).messages.create(claude),
  "Anthropic's SDK, streamed": (url) => anthropic(url).messages.stream(claude).finalMessage(),
  "openai, chat": (url) => openai(url).chat.completions.create({ model: "gpt-6", messages }),
  "openai, responses": (url) => openai(url).responses.create({ model: "gpt-6", input: "Hello" }),
  "openai, streamed": async (url) => {
    let chunks = 0
    for await (const { choices } of await openai(url).chat.completions.create({
      model: "gpt-6",
      messages,
      stream: true
    })) {
      chunks += choices.length
    }
    assert.isAbove(chunks, 0)
  },
  "fetch, JSON": async (url) => {
    const init = { method: "POST", headers: { "x-api-key": "any" }, body: JSON.stringify(claude) }
    const response = await fetch(`${url}/v1/messages`, init)
    assert.property(await response.json(), "usage")
  },
  curl: (url) =>
    new Promise((resolve, reject) => {
      const args = ["-sS", "--fail", "--noproxy", "*", "--max-time", "12", "-H", "x-api-key: any"]
      execFile("curl", [...args, "--data-binary", JSON.stringify(claude), `${url}/v1/messages`], (error, text) =>
        error === null && "usage" in (JSON.parse(text) as object) ? resolve(text) : reject(error ?? new Error(text))
      )
    })
}

/** A gateway that holds the second of two calls for some seconds. */
const holding = Effect.fnUntraced(function* (seconds: number) {
  const provider = yield* ProviderServer.make({ latency: { baseMillis: 50, perInputTokenMillis: 0 } })
  const limits = { requests: { perSecond: 1_000 / scaled(seconds), burst: 1, window: "bucket" } } as const
  const live = Gateway.layer({
    upstreams: { anthropic: provider.url, openai: provider.url },
    silence: scaled(20),
    keepAlive: scaled(10)
  }).pipe(Layer.provide(Governor.layer()), Layer.provide(Budget.layer({ limits })))
  return Context.get(yield* Layer.build(live), Gateway.Gateway).url
})

describe("clients that wait", () => {
  for (const seconds of [30, 120, 400]) {
    it.live(`bear ${seconds} seconds, each of them`, () =>
      Effect.forEach(
        Object.entries(clients),
        ([name, client]) =>
          Effect.gen(function* () {
            const url = yield* holding(seconds)
            const started = performance.now()
            const both = Effect.tryPromise(() => Promise.all([client(url), client(url)]))
            const exit = yield* Effect.exit(both)
            assert.strictEqual(exit._tag, "Success", `${name}: ${String(exit)}`)
            assert.isAtLeast(performance.now() - started, 0.9 * scaled(seconds), name)
          }).pipe(Effect.scoped),
        { concurrency: "unbounded", discard: true }
      )
    )
  }
})
