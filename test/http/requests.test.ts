/** Images, speech, moderations and legacy completions through a governed fetch: they are calls. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import type * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"

const base = "https://api.openai.com/v1"
const image = { model: "gpt-image-1", prompt: "A gate" }
const speech = { model: "tts-1", input: "Hello", voice: "alloy" }

/** Limits that never refill, so that levels show what was counted. */
const limit = { requests: { total: 100 }, inputTokens: { total: 1_000_000 }, outputTokens: { total: 1_000_000 } }

const limits = {
  poolOf: (model: string) => model,
  pools: { "gpt-image-1": limit, "tts-1": limit, "davinci-002": limit, "omni-moderation-latest": limit }
}

const world = Effect.fnUntraced(function* (
  reply: (count: number, body: string) => Response,
  purses: ReadonlyArray<Spending.Purse> = [],
  prices: Prices.Table = {}
) {
  const bodies: Array<string> = []
  const context = yield* Layer.build(Governor.layer({ prices }).pipe(Layer.provideMerge(Budget.layer({ limits }))))
  const upstream: typeof globalThis.fetch = async (_, init) => {
    const body = String(init?.body)
    return reply(bodies.push(body), body)
  }
  const fetch = yield* Effect.provideContext(Fetch.make({ fetch: upstream, callOptions: { purses } }), context)
  const ask = (path: string, body: object) =>
    Effect.promise(async () => {
      const headers = { authorization: "Bearer k" }
      const response = await fetch(base + path, { method: "POST", body: JSON.stringify(body), headers })
      return { status: response.status, bytes: new Uint8Array(await response.arrayBuffer()) }
    })
  /** What each model was counted. */
  const spent = Effect.gen(function* () {
    const { pools } = yield* Effect.provideContext(
      Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
      context
    )
    return Object.fromEntries(
      Object.entries(pools)
        .filter(([name]) => name.includes("/"))
        .map(([name, { dimensions, inFlight }]) => [
          name.split("/").at(-1)!,
          {
            inFlight,
            requests: 100 - dimensions.requests!.level,
            input: 1_000_000 - dimensions.inputTokens!.level,
            output: 1_000_000 - dimensions.outputTokens!.level
          }
        ])
    )
  })
  return { ask, spent, bodies }
})

const busy = () =>
  Response.json(
    { error: { message: "slow down", type: "requests", code: "rate_limit_exceeded" } },
    { status: 429, headers: { "retry-after-ms": "1" } }
  )

describe("OpenAI's other requests through a governed fetch", () => {
  it.live("are retried after a 429", () =>
    Effect.gen(function* () {
      const here = yield* world((count) => (count === 1 ? busy() : Response.json({ data: [] })))
      assert.strictEqual((yield* here.ask("/images/generations", image)).status, 200)
      assert.strictEqual(here.bodies.length, 2)
      assert.deepInclude((yield* here.spent)["gpt-image-1"], { inFlight: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("each count as one request of the pool of their model, and as the usage of their answer", () =>
    Effect.gen(function* () {
      const usage = { input_tokens: 9, output_tokens: 272 }
      const here = yield* world((_, body) => Response.json(body.includes("gpt-image") ? { data: [], usage } : {}))
      yield* here.ask("/moderations", { model: "omni-moderation-latest", input: ["one", "two"] })
      yield* here.ask("/completions", { model: "davinci-002", prompt: "Hello", max_tokens: 5 })
      yield* here.ask("/images/generations", image)
      const spent = yield* here.spent
      assert.sameMembers(Object.keys(spent), ["omni-moderation-latest", "davinci-002", "gpt-image-1"])
      for (const counted of Object.values(spent)) assert.deepInclude(counted, { requests: 1, inFlight: 0 })
      assert.deepInclude(spent["gpt-image-1"], { input: 9, output: 272 })
      assert.strictEqual(spent["omni-moderation-latest"]!.output, 0)
    }).pipe(Effect.scoped)
  )

  it.live("pass on a file byte for byte, and do not retry it because it is no JSON", () =>
    Effect.gen(function* () {
      const file = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 7) % 256)
      const headers = { "content-type": "audio/mpeg" }
      const here = yield* world((count) => (count === 1 ? busy() : new Response(file, { headers })))
      const got = yield* here.ask("/audio/speech", speech)
      assert.strictEqual(got.status, 200)
      assert.deepStrictEqual(got.bytes, file)
      assert.strictEqual(here.bodies.length, 2)
      assert.deepInclude((yield* here.spent)["tts-1"], { inFlight: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("request the usage of a streamed completion, and hide it from a caller that did not", () =>
    Effect.gen(function* () {
      const part = 'data: {"choices":[{"text":"Hi","finish_reason":"stop"}]}\n\n'
      const usage = 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
      const headers = { "content-type": "text/event-stream" }
      const here = yield* world(() => new Response(`${part}${usage}data: [DONE]\n\n`, { headers }))
      const got = yield* here.ask("/completions", { model: "davinci-002", prompt: "Hello", stream: true })
      assert.strictEqual(new TextDecoder().decode(got.bytes), `${part}data: [DONE]\n\n`)
      assert.include(here.bodies[0], '"include_usage":true')
      assert.deepInclude((yield* here.spent)["davinci-002"], { input: 7, output: 3 })
    }).pipe(Effect.scoped)
  )

  it.live("are refused by a cap in dollars unless they have a price, which moderations do", () =>
    Effect.gen(function* () {
      const purse = Spending.make("pictures", { dollars: 1 })
      const here = yield* world(() => Response.json({ results: [] }), [purse])
      for (const [path, body] of [
        ["/images/generations", image],
        ["/audio/speech", speech]
      ] as const) {
        const refused = yield* here.ask(path, body)
        assert.isAtLeast(refused.status, 400)
        assert.include(new TextDecoder().decode(refused.bytes), "has no price")
      }
      assert.deepStrictEqual(here.bodies, [])
      const free = yield* here.ask("/moderations", { model: "omni-moderation-latest", input: "Hello" })
      assert.strictEqual(free.status, 200)
      assert.strictEqual((yield* purse.status).spent, 0)
    }).pipe(Effect.scoped)
  )

  it.live("charge a cap all that was reserved for a file, because its usage stays unknown", () =>
    Effect.gen(function* () {
      const purse = Spending.make("speech", { dollars: 1 })
      const headers = { "content-type": "audio/mpeg" }
      // A cent for each answer.
      const prices = { "tts-1": { input: 0, output: 10, maxOutput: 1_000 } }
      const here = yield* world(() => new Response("no JSON", { headers }), [purse], prices)
      assert.strictEqual((yield* here.ask("/audio/speech", speech)).status, 200)
      assert.strictEqual((yield* purse.status).spent, 0.01)
    }).pipe(Effect.scoped)
  )
})
