/** 700 files embedded at once through a gateway, by the packages of OpenAI and Google with no retries of their own. */
import { assert, describe, it } from "@effect/vitest"
import { GoogleGenAI } from "@google/genai"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import OpenAI from "openai"
import { serve } from "../support/httpServer.ts"

const files = 700
const limit = { perSecond: 200, burst: 500 }

/** A provider with a bucket of requests, in which each item of a batch at Gemini counts. */
const provider = Effect.gen(function* () {
  let level = limit.burst
  let at = performance.now()
  const seen = { embedded: 0, rejected: 0 }
  const server = yield* serve((request, response, body) => {
    const now = performance.now()
    level = Math.min(limit.burst, level + ((now - at) / 1_000) * limit.perSecond)
    at = now
    const isGemini = request.url!.includes("batchEmbedContents")
    const { requests = [] } = JSON.parse(body) as { readonly requests?: ReadonlyArray<unknown> }
    const items = isGemini ? requests.length : 1
    const headers = { "content-type": "application/json" }
    if (level < items) {
      seen.rejected++
      const error = isGemini
        ? { code: 429, status: "RESOURCE_EXHAUSTED", message: "Quota exceeded" }
        : { type: "requests", code: "rate_limit_exceeded", message: "Rate limit reached" }
      return void response.writeHead(429, { ...headers, "retry-after": "1" }).end(JSON.stringify({ error }))
    }
    level -= items
    seen.embedded += items
    const told = { "x-ratelimit-limit-requests": "12000", "x-ratelimit-remaining-requests": String(Math.floor(level)) }
    const values = [0.1, 0.2]
    const answer = isGemini
      ? { embeddings: requests.map(() => ({ values })), usageMetadata: { promptTokenCount: 10 * items } }
      : {
          object: "list",
          data: [{ object: "embedding", index: 0, embedding: values }],
          usage: { prompt_tokens: 10, total_tokens: 10 }
        }
    return void response.writeHead(200, isGemini ? headers : { ...headers, ...told }).end(JSON.stringify(answer))
  })
  return { url: server.url, seen }
})

type Embed = (url: string) => (file: number) => Promise<unknown>

const texts = (file: number, count: number) => Array.from({ length: count }, (_, n) => `Part ${n} of file ${file}`)

const clients: ReadonlyArray<readonly [name: string, make: Embed]> = [
  [
    "openai",
    (url) => {
      const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", maxRetries: 0 })
      return (file) =>
        client.embeddings.create({ model: "text-embedding-3-small", input: texts(file, 1), encoding_format: "float" })
    }
  ],
  [
    "genai, two items a file",
    (url) => {
      const { models } = new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: url } })
      return (file) => models.embedContent({ model: "gemini-embedding-001", contents: texts(file, 2) })
    }
  ]
]

const world = Effect.fnUntraced(function* (embed: Embed, options: Budget.Options) {
  const { seen, url: upstream } = yield* provider
  const context = yield* Layer.build(
    Governor.layer().pipe(Layer.provideMerge(Budget.layer(options)), Layer.provideMerge(Logger.layer([])))
  )
  const { url } = yield* Gateway.make({ upstreams: { openai: upstream, gemini: upstream }, drain: "20 millis" }).pipe(
    Effect.provideContext(context)
  )
  const one = embed(url)
  const all = yield* Effect.promise(() => Promise.allSettled(Array.from({ length: files }, (_, file) => one(file))))
  const failures = new Set(all.flatMap((each) => (each.status === "rejected" ? [String(each.reason)] : [])))
  return { failures: [...failures], ...seen }
})

describe("700 files embedded at once", () => {
  for (const [name, embed] of clients) {
    const items = name === "openai" ? files : 2 * files
    it.live(`are all done by ${name}, without a 429 if the gateway is told the limit`, () =>
      Effect.gen(function* () {
        // A smaller burst than the provider's, because a busy machine delivers what was sent over a second at once.
        const limits = { requests: { perSecond: 200, burst: 100 } }
        const { embedded, failures, rejected } = yield* world(embed, { limits })
        assert.deepStrictEqual(failures, [])
        assert.deepStrictEqual([embedded, rejected], [items, 0])
      }).pipe(Effect.scoped)
    )

    it.live(`are all done by ${name}, with some 429s, if it is told nothing`, () =>
      Effect.gen(function* () {
        const { embedded, failures, rejected } = yield* world(embed, {})
        if (process.env["FLOODGATE_TABLE"] !== undefined) console.log(name, { embedded, rejected })
        assert.deepStrictEqual(failures, [])
        assert.strictEqual(embedded, items)
        // Gemini's answers do not say what is left, and a busy machine delivers at once what was sent over a second.
        assert.isAtMost(rejected, (name === "openai" ? 0.1 : 0.5) * files)
      }).pipe(Effect.scoped)
    )
  }
})
