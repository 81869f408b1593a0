/** Embeddings through a governed fetch: they are calls. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"

const openai = "https://api.openai.com/v1/embeddings"
const gemini = "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents"

/** Limits that never refill, so that levels show what was counted. */
const limits = { requests: { total: 1_000 }, inputTokens: { total: 1_000_000 }, outputTokens: { total: 1_000 } }

const world = Effect.fnUntraced(function* (
  reply: (count: number) => Response | Promise<Response>,
  purses: ReadonlyArray<Spending.Purse> = []
) {
  let sent = 0
  const context = yield* Layer.build(Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits }))))
  const upstream: typeof globalThis.fetch = async () => reply(++sent)
  const fetch = yield* Effect.provideContext(Fetch.make({ fetch: upstream, callOptions: { purses } }), context)
  const ask = (url: string, body: object) =>
    Effect.promise(async () => {
      const response = await fetch(url, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { authorization: "Bearer k" }
      })
      return { status: response.status, text: await response.text() }
    })
  const spent = Effect.gen(function* () {
    const { pools } = yield* Effect.provideContext(
      Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
      context
    )
    const { inputTokens, outputTokens, requests } = Object.entries(pools).find(([name]) => name !== "default")![1]
      .dimensions
    return [1_000 - requests!.level, 1_000_000 - inputTokens!.level, 1_000 - outputTokens!.level]
  })
  return { ask, spent, sent: () => sent }
})

describe("embeddings through a governed fetch", () => {
  it.live("are settled to their usage, without output, and paid for", () =>
    Effect.gen(function* () {
      const purse = Spending.make("embeddings", { dollars: 0.001 })
      const usage = { prompt_tokens: 10_000, total_tokens: 10_000 }
      const here = yield* world(() => Response.json({ data: [], usage }), [purse])
      const body = { model: "text-embedding-3-small", input: "x".repeat(27_000) }
      assert.strictEqual((yield* here.ask(openai, body)).status, 200)
      assert.deepStrictEqual(yield* here.spent, [1, 10_000, 0])
      assert.strictEqual((yield* purse.status).spent, 0.0002)
      const large = { ...body, input: "x".repeat(60_000) }
      const refused = yield* here.ask(openai, large)
      assert.strictEqual(refused.status, 402)
      assert.match(refused.text, /is left of the cap of \$0\.00\d* for embeddings/)
      assert.strictEqual(here.sent(), 1)
    }).pipe(Effect.scoped)
  )

  it.live("of a batch at Gemini count as one request each, also after a retry", () =>
    Effect.gen(function* () {
      const here = yield* world((count) =>
        count === 1
          ? Response.json(
              { error: { code: 503, status: "UNAVAILABLE" } },
              { status: 503, headers: { "retry-after": "0" } }
            )
          : Response.json({ embeddings: [], usageMetadata: { promptTokenCount: 300 } })
      )
      const content = { parts: [{ text: "Hello" }] }
      const requests = Array.from({ length: 100 }, () => ({ model: "models/gemini-embedding-001", content }))
      assert.strictEqual((yield* here.ask(gemini, { requests })).status, 200)
      const [counted, tokens, output] = yield* here.spent
      assert.isAtLeast(counted!, 100)
      assert.isAtMost(counted!, 200)
      assert.deepStrictEqual([tokens, output], [300, 0])
    }).pipe(Effect.scoped)
  )

  it.live("of a batch are all reserved before its answer", () =>
    Effect.gen(function* () {
      const { promise: answered, resolve: answer } = Promise.withResolvers<Response>()
      const sent = Promise.withResolvers<void>()
      const here = yield* world(() => {
        sent.resolve()
        return answered
      })
      const requests = Array.from({ length: 100 }, () => ({ content: { parts: [{ text: "Hello" }] } }))
      const asking = yield* Effect.forkChild(here.ask(gemini, { requests }))
      yield* Effect.promise(() => sent.promise)
      assert.strictEqual((yield* here.spent)[0], 100)
      answer(Response.json({ embeddings: [], usageMetadata: { promptTokenCount: 300 } }))
      yield* Fiber.join(asking)
      assert.strictEqual((yield* here.spent)[0], 100)
    }).pipe(Effect.scoped)
  )

  it.live("keep their estimate if the answer has no usage", () =>
    Effect.gen(function* () {
      const here = yield* world(() => Response.json({ embeddings: [] }))
      yield* here.ask(gemini, { requests: [{ content: { parts: [{ text: "x".repeat(2_700) }] } }] })
      const [requests, tokens] = yield* here.spent
      assert.strictEqual(requests, 1)
      assert.isAtLeast(tokens!, 900)
    }).pipe(Effect.scoped)
  )
})
