/** The packages of Google, Cohere, Mistral and Ollama, through `fetch` and the gateway: their calls are counted to the token. */
import { assert, describe, it } from "@effect/vitest"
import { GoogleGenAI } from "@google/genai"
import { HTTPClient, Mistral } from "@mistralai/mistralai"
import { CohereClientV2 } from "cohere-ai"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { Ollama } from "ollama"
import { type ApiCall, apiCalls, isStreamed } from "../support/apis.ts"
import { until } from "../support/gateway.ts"
import { serve } from "../support/httpServer.ts"

/** Where a client sends its requests, and with what. */
interface Setup {
  readonly url: string
  readonly fetch: typeof globalThis.fetch
}

const messages = [{ role: "user" as const, content: "What is a floodgate?" }]

/** Reads a stream to its end. */
const all = async <A>(stream: AsyncIterable<A>): Promise<ReadonlyArray<A>> => {
  const events: Array<A> = []
  for await (const event of stream) events.push(event)
  return events
}

const google = ({ fetch, url }: Setup) =>
  new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: `${url}/gemini`, fetch } }).interactions
const cohere = ({ fetch, url }: Setup) =>
  new CohereClientV2({ token: "k", environment: `${url}/cohere`, fetch, maxRetries: 0 })
const mistral = ({ fetch, url }: Setup) =>
  new Mistral({
    apiKey: "k",
    serverURL: `${url}/mistral`,
    httpClient: new HTTPClient({ fetcher: (input, init) => fetch(input, init) })
  })
const ollama = ({ fetch, url }: Setup) => new Ollama({ host: `${url}/ollama`, fetch })

const conversation = { model: "mistral-large-latest", inputs: "What is a floodgate?" }
const agent = { agentId: "ag_1", messages }
const fim = { model: "codestral-latest", prompt: "const gate = ", suffix: ";" }
const chat = { model: "command-a-03-2025", messages }
const llama = { model: "llama3.2", messages }

/** What each client does, by the name of its call. */
const clients: Readonly<
  Record<string, readonly [whole: (setup: Setup) => Promise<unknown>, streamed?: (setup: Setup) => Promise<unknown>]>
> = {
  "Gemini Interactions": [
    (setup) => google(setup).create({ model: "gemini-3-pro", input: "Hello" }),
    async (setup) => all(await google(setup).create({ model: "gemini-3-pro", input: "Hello", stream: true }))
  ],
  "Cohere chat": [(setup) => cohere(setup).chat(chat), async (setup) => all(await cohere(setup).chatStream(chat))],
  "Cohere embeddings": [
    (setup) =>
      cohere(setup).embed({
        model: "embed-v4.0",
        texts: ["one"],
        inputType: "search_document",
        embeddingTypes: ["float"]
      })
  ],
  "Cohere reranking": [
    (setup) => cohere(setup).rerank({ model: "rerank-v4.0-pro", query: "gates", documents: ["one", "two"] })
  ],
  "Mistral conversations": [
    (setup) => mistral(setup).beta.conversations.start(conversation),
    async (setup) => all(await mistral(setup).beta.conversations.startStream(conversation))
  ],
  "Mistral agents": [
    (setup) => mistral(setup).agents.complete(agent),
    async (setup) => all(await mistral(setup).agents.stream(agent))
  ],
  "Mistral FIM": [
    (setup) => mistral(setup).fim.complete(fim),
    async (setup) => all(await mistral(setup).fim.stream(fim))
  ],
  "Mistral OCR": [
    (setup) =>
      mistral(setup).ocr.process({
        model: "mistral-ocr-latest",
        document: { type: "document_url", documentUrl: "https://example.com/a.pdf" }
      })
  ],
  "Ollama chat": [
    (setup) => ollama(setup).chat({ ...llama, stream: false }),
    async (setup) => all(await ollama(setup).chat({ ...llama, stream: true }))
  ],
  "Ollama generate": [
    (setup) => ollama(setup).generate({ model: "llama3.2", prompt: "Hello", stream: false }),
    async (setup) => all(await ollama(setup).generate({ model: "llama3.2", prompt: "Hello", stream: true }))
  ],
  "Ollama embeddings": [(setup) => ollama(setup).embed({ model: "all-minilm", input: ["one", "two"] })]
}

/** A provider that gives the answer of a call, and limits that never refill, so that levels show what was counted. */
const world = Effect.fnUntraced(function* (call: ApiCall, rules: Gateway.Options["rules"] = []) {
  const { requests, url: upstream } = yield* serve((_, response) => {
    response.writeHead(200, { "content-type": call.contentType })
    for (const piece of call.pieces) response.write(piece)
    response.end()
  })
  const limits = { requests: { total: 1_000 }, inputTokens: { total: 1_000_000 }, outputTokens: { total: 100_000 } }
  const context = yield* Layer.build(
    Governor.layer({ prices: { "*": { input: 1, output: 1, maxOutput: 1_000 } } }).pipe(
      Layer.provideMerge(Budget.layer({ limits })),
      Layer.provideMerge(Logger.layer([]))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: { gemini: upstream, cohere: upstream, mistral: upstream, ollama: upstream },
    drain: "20 millis",
    rules
  }).pipe(Effect.provideContext(context))
  const counted = Effect.map(Context.get(context, Budget.TokenBudget).status, ({ pools }) => {
    const [, pool] = Object.entries(pools).find(([name]) => name !== "default")!
    const { inputTokens, outputTokens, requests } = pool.dimensions
    return [1_000 - requests!.level, 1_000_000 - inputTokens!.level, 100_000 - outputTokens!.level]
  })
  return { context, counted, requests, upstream, url }
})

/** What a call takes from the limits. Gemini and the others count all of the prompt, also what a cache has provided. */
const takes = ({ used: [input, cached, output] }: ApiCall) => [1, input + cached, output]

/** Some clients return before the end of the stream has arrived. */
const settled = Effect.fnUntraced(function* (
  counted: Effect.Effect<ReadonlyArray<number>>,
  expected: ReadonlyArray<number>
) {
  const found = yield* until(counted, (tokens) => tokens.join() === expected.join()).pipe(
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => counted })
  )
  assert.deepStrictEqual(found, expected)
})

const uses = Object.entries(clients).flatMap(([name, both]) =>
  both.flatMap((use, at) => {
    const call = apiCalls.find((each) => each.name === name && isStreamed(each) === (at === 1))!
    return use === undefined ? [] : [{ title: at === 1 ? `${name}, streamed` : name, use, call }]
  })
)

describe.each(uses)("$title", ({ call, use }) => {
  it.live("is counted to the token by fetch", () =>
    Effect.gen(function* () {
      const here = yield* world(call)
      const fetch = yield* Effect.provideContext(Fetch.make(), here.context)
      yield* Effect.promise(() => use({ url: here.upstream, fetch }))
      yield* settled(here.counted, takes(call))
    }).pipe(Effect.scoped)
  )

  it.live("is counted to the token at the gateway", () =>
    Effect.gen(function* () {
      const here = yield* world(call)
      yield* Effect.promise(() => use({ url: here.url, fetch: globalThis.fetch }))
      yield* settled(here.counted, takes(call))
    }).pipe(Effect.scoped)
  )

  it.live("tells its user of a cap that is spent, and asks once", () =>
    Effect.gen(function* () {
      const here = yield* world(call, [{ name: "tests", cap: { dollars: 1e-9 } }])
      let asked = 0
      const fetch: typeof globalThis.fetch = (...request) => {
        asked++
        return globalThis.fetch(...request)
      }
      const failed = yield* Effect.flip(
        Effect.tryPromise({ try: () => use({ url: here.url, fetch }), catch: (thrown) => thrown })
      )
      assert.match(`${String(failed)} ${JSON.stringify(failed)}`, /cap of \$0\.00\d* for tests/)
      assert.strictEqual(asked, 1)
      assert.strictEqual(here.requests.length, 0)
    }).pipe(Effect.scoped)
  )
})
