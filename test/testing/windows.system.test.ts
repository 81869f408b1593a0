/** The long windows of the simulated provider, in simulated time and over HTTP. */
import Anthropic, { RateLimitError } from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import type * as Limits from "floodgate/Limits"
import { ProviderSim } from "floodgate/testing"
import { ProviderServer } from "floodgate/testing/server"
import { rejection } from "../support/rejection.ts"

const hour = 3_600_000
/** A call of 10,000 tokens of output costs ten cents: a hundredth of a window of $10. */
const params = {
  model: "claude-sonnet-5",
  max_tokens: 10_000,
  messages: [{ role: "user" as const, content: "Hi" }]
}
const windows = { "5h": { dollars: 10 }, "7d": { dollars: 40 } }
const instant = {
  outputTokens: 10_000,
  latency: { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
}

const create = Effect.flatMap(LlmProvider, (provider) => provider.create(params))
const spent = Effect.flatMap(ProviderSim.ProviderSim, ({ stats }) => Effect.map(stats, ({ windows }) => windows))
const many = (calls: number) => Effect.forEach(Array.from({ length: calls }), () => create, { discard: true })
const within = (options: ProviderSim.Options) => ProviderSim.layer({ windows, ...instant, ...options })

describe("the windows of ProviderSim", () => {
  it.effect("begin with a call, report the fraction in whole percents, and begin anew when they end", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual((yield* spent)["5h"], { used: 0, endsAt: undefined, ended: [] })
      yield* many(33)
      const { signal } = yield* create
      assert.deepStrictEqual(signal?.windows, {
        "5h": { used: 0.34, resetsAt: 6 * hour },
        // 8.5 percent are spent.
        "7d": { used: 0.08, resetsAt: 169 * hour }
      })
      yield* TestClock.adjust(5 * hour - 1)
      assert.closeTo((yield* spent)["5h"]!.used, 0.34, 1e-4)
      yield* TestClock.adjust(1)
      const { "5h": five, "7d": seven } = yield* spent
      assert.deepInclude(five, { used: 0, endsAt: undefined })
      assert.closeTo(five!.ended[0]!, 0.34, 1e-4)
      assert.closeTo(seven!.used, 0.085, 1e-4)
    }).pipe(Effect.provide(within({})))
  )

  it.effect("reject calls once they are used up, until they end", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(many(101))
      const { retryAfter, signal } = error.reason as LlmError["reason"] & { _tag: "RateLimited" }
      assert.strictEqual(error.reason._tag, "RateLimited")
      // A rate limit is waited for an hour at most; the window says the rest.
      assert.strictEqual(Duration.toHours(retryAfter!), 1)
      assert.deepStrictEqual(signal?.windows?.["5h"], { used: 1, resetsAt: 5 * hour, isRejected: true })
      const { stats } = yield* ProviderSim.ProviderSim
      assert.deepStrictEqual((yield* stats).rejectionsBy, { window: 1 })
      yield* TestClock.adjust(5 * hour)
      yield* create
    }).pipe(Effect.provide(within({})))
  )

  it.effect("let an account go on that pays for more", () =>
    Effect.gen(function* () {
      yield* many(105)
      const { signal } = yield* create
      assert.isUndefined(signal?.windows)
      assert.closeTo((yield* spent)["5h"]!.used, 1.06, 1e-3)
    }).pipe(Effect.provide(within({ overage: true })))
  )

  it.effect("are spent by a neighbour, too, which takes only what is left", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("2 hours")
      const { "5h": five, "7d": seven } = yield* spent
      assert.closeTo(five!.used, 0.2, 1e-9)
      assert.closeTo(seven!.used, (0.5 * 2) / 168, 1e-9)
      yield* many(70)
      yield* TestClock.adjust("3 hours")
      assert.deepStrictEqual((yield* spent)["5h"]!.ended, [1])
    }).pipe(Effect.provide(within({ neighbour: { share: 0.5 } })))
  )

  it.effect("are as its headers say: exact, or none", () =>
    Effect.gen(function* () {
      const told = (headers: ProviderSim.Options["headers"]) =>
        Effect.map(create, ({ signal }) => signal?.windows?.["5h"]?.used).pipe(
          Effect.provide(within({ headers, windows: { "5h": { dollars: 10, used: 0.5 } } }))
        )
      assert.closeTo((yield* told("exact"))!, 0.5100002, 1e-9)
      assert.strictEqual(yield* told("rounded"), 0.51)
      assert.strictEqual(yield* told("wrong"), 0)
      assert.isUndefined(yield* told("none"))
    })
  )

  for (const [message, given] of [
    [/windows: expected windows with names such as "5h", "7d" and "7d_sonnet", got/, { month: { dollars: 1 } }],
    [/windows\["5h"\]\.dollars: expected a finite number > 0/, { "5h": { dollars: 0 } }],
    [/windows\["5h"\]\.used: expected a number from 0 to 1/, { "5h": { dollars: 1, used: 2 } }]
  ] as const) {
    it(`reject ${JSON.stringify(given)}`, () =>
      assert.throws(
        () => Effect.runSync(Effect.provide(create, ProviderSim.layer({ windows: given as never }))),
        RangeError,
        message
      ))
  }
})

describe("the windows of ProviderSim of any name", () => {
  const told = (model: string, headers?: ProviderSim.Options["headers"]) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const { signal } = yield* provider.create({ ...params, model })
      return signal?.windows
    }).pipe(
      Effect.provide(
        ProviderSim.layer({
          ...instant,
          headers,
          windows: {
            "7d": { dollars: 40, used: 0.5 },
            "7d_sonnet": { dollars: 40, used: 0.98 },
            "7d_oi": { dollars: 40, models: ["fable"], used: 0.3 }
          }
        })
      )
    )

  it.effect("count and are told for their models only, and reject these only", () =>
    Effect.gen(function* () {
      const resetsAt = 168 * hour
      const all = { used: 0.5, resetsAt }
      const sonnet = { used: 0.98, resetsAt, models: ["sonnet"] }
      assert.deepStrictEqual(yield* told("claude-sonnet-5"), { "7d": all, "7d_sonnet": sonnet })
      const oi = { used: 0.31, resetsAt, models: [] }
      assert.deepStrictEqual(yield* told("claude-fable-5"), { "7d": { ...all, used: 0.51 }, "7d_oi": oi })
      const provider = yield* LlmProvider
      for (let n = 0; n < 8; n++) yield* provider.create(params)
      const { reason } = yield* Effect.flip(provider.create(params))
      const { signal } = reason as typeof reason & { readonly signal: Limits.Signal | undefined }
      assert.deepStrictEqual(signal?.windows, { "7d_sonnet": { ...sonnet, used: 1, isRejected: true } })
      yield* provider.create({ ...params, model: "claude-haiku-5" })
    }).pipe(Effect.provide(within({ windows: { "7d_sonnet": { dollars: 40, used: 0.98 } } })))
  )

  it.effect("are in Codex's slots by their lengths with its headers", () =>
    Effect.gen(function* () {
      const resetsAt = 168 * hour
      const seven = { used: 0.5, resetsAt }
      assert.deepStrictEqual(yield* told("gpt-6", "openai"), { "7d": seven })
      assert.deepStrictEqual(yield* told("claude-sonnet-5", "openai"), {
        "7d": seven,
        "7d_sonnet": { used: 0.98, resetsAt, models: [] }
      })
    })
  )
})

describe("the windows of ProviderServer", () => {
  it.live("are in Codex's headers in OpenAI's protocol", () =>
    Effect.gen(function* () {
      const { url } = yield* ProviderServer.make({
        ...instant,
        windows: { "5h": { dollars: 10, used: 0.74 }, "7d": { dollars: 10, used: 0.2 } }
      })
      const slots = yield* Effect.promise(async () => {
        const body = JSON.stringify({ model: "gpt-6", input: "Hi" })
        const headers = { authorization: "Bearer k", "content-type": "application/json" }
        const response = await fetch(`${url}/v1/responses`, { method: "POST", headers, body })
        await response.text()
        return ["primary", "secondary"].map((slot) =>
          ["used-percent", "window-minutes"].map((name) => response.headers.get(`x-codex-${slot}-${name}`))
        )
      })
      assert.deepStrictEqual(slots, [
        ["74", "300"],
        ["20", "10080"]
      ])
    }).pipe(Effect.scoped)
  )

  it.live("are in the headers of Anthropic's protocol, with a status, and in /stats", () =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make({ ...instant, windows: { "5h": { dollars: 10, used: 0.74 } } })
      const client = new Anthropic({ baseURL: server.url, apiKey: "any", maxRetries: 0 })
      const call = (body: typeof params) =>
        Effect.promise(async () => {
          const { response } = await client.messages.create(body).withResponse()
          return (name: string) => response.headers.get(`anthropic-ratelimit-unified-${name}`)
        })
      const first = yield* call({ ...params, max_tokens: 5_000 })
      assert.deepStrictEqual(
        [first("status"), first("5h-utilization"), first("representative-claim")],
        ["allowed", "0.74", "five_hour"]
      )
      assert.isNull(first("5h-surpassed-threshold"))
      const second = yield* call(params)
      assert.deepStrictEqual(
        [second("status"), second("5h-utilization"), second("5h-surpassed-threshold")],
        ["allowed_warning", "0.75", "0.75"]
      )
      const seconds = Number(second("5h-reset")) - Date.now() / 1_000
      assert.isTrue(seconds > 4.9 * 3_600 && seconds <= 5 * 3_600 + 1, `${seconds}`)
      yield* Effect.forEach(Array.from({ length: 25 }), () => call(params), { discard: true })
      const error = yield* rejection(() => client.messages.create(params))
      if (!(error instanceof RateLimitError)) return assert.fail(String(error))
      assert.strictEqual(error.headers.get("anthropic-ratelimit-unified-status"), "rejected")
      assert.isAbove(Number(error.headers.get("retry-after")), 4.9 * 3_600)
      const stats = yield* Effect.promise(async () => (await fetch(`${server.url}/stats`)).json())
      assert.isAtLeast((stats as ProviderSim.Stats).windows["5h"]!.used, 1)
    }).pipe(Effect.scoped)
  )
})
