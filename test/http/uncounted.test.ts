/** Requests that are no calls, through a governed fetch: under a cap nothing is sent that costs what nobody counts. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as Floodgate from "floodgate/promise"
import * as Spending from "floodgate/Spending"

const world = Effect.fnUntraced(function* (
  options: Pick<Fetch.Options, "callOptions"> = {},
  around: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = (effect) => effect
) {
  const sent: Array<unknown> = []
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => void logged.push(String(message)))
  const context = yield* Layer.build(
    Governor.layer().pipe(Layer.provideMerge(Budget.layer()), Layer.provideMerge(Logger.layer([logger])))
  )
  const upstream: typeof globalThis.fetch = async (_, init) => {
    sent.push(init?.body)
    return new Response("done")
  }
  const fetch = yield* around(Fetch.make({ fetch: upstream, ...options })).pipe(Effect.provideContext(context))
  const ask = (path: string, init: RequestInit = {}) =>
    Effect.promise(async () => {
      const response = await fetch(`https://api.openai.com${path}`, { method: "POST", ...init })
      return { status: response.status, text: await response.text() }
    })
  return { ask, fetch, sent, logged }
})

const json = (body: object): RequestInit => ({ body: JSON.stringify(body) })
const form = (fields: Readonly<Record<string, string>>): RequestInit => {
  const body = new FormData()
  for (const [name, value] of Object.entries(fields)) body.append(name, value)
  return { body }
}
const override = { method: "GET", headers: { "X-HTTP-Method-Override": "POST" } }

/** Requests that cost what nobody counts. */
const uncounted: ReadonlyArray<readonly [what: string, path: string, init: RequestInit]> = [
  ["a batch", "/v1/batches", json({ input_file_id: "f1" })],
  ["the file of a batch", "/v1/files", form({ purpose: "batch", file: "{}" })],
  ["a transcription", "/v1/audio/transcriptions", form({ model: "whisper-1" })],
  ["an unknown path with a model", "/v1/things", json({ nested: { model: "gpt-6" } })],
  ["an unknown path with a model, as bytes", "/v1/things", { body: new TextEncoder().encode('{"model":"gpt-6"}') }],
  ["an unknown path with a model in its form", "/v1/things", form({ "session[model]": "gpt-6" })],
  ["an unknown path with a model in its query", "/v1/things?model=gpt-6", json({})],
  ["a call by another method", "/v1/chat/completions", { ...json({ model: "gpt-6", messages: [] }), method: "PUT" }],
  ["a call behind an override", "/v1beta/models/m:generateContent", override],
  ["a call behind an override in the query", "/v1beta/models/m:generateContent?$httpMethod=POST", { method: "GET" }],
  [
    "a call that is compressed",
    "/v1/chat/completions",
    { body: "\u001f\u008b", headers: { "content-encoding": "gzip" } }
  ],
  ["calls in a list", "/v1/chat/completions", { body: '[{"model":"gpt-6"}]' }],
  ["a model of another vendor at Bedrock", "/model/amazon.nova-pro-v1/invoke", json({ inputText: "Hello" })]
]

const free: ReadonlyArray<readonly [path: string, init: RequestInit]> = [
  ["/v1/models", { method: "GET" }],
  ["/v1/files", form({ purpose: "user_data", file: '{"model":"gpt-6"}' })],
  ["/v1/vector_stores", json({ name: "a" })],
  ["/v1/conversations", json({ metadata: {} })],
  ["/v1/batches/b1/cancel", {}]
]

describe("a request that is no call, through a governed fetch", () => {
  const capped = Effect.sync(() => Spending.make("tests", { dollars: 1 }))

  it.live.each(uncounted)("is refused under a cap if nobody counts it: %s", ([, path, init]) =>
    Effect.gen(function* () {
      const purse = yield* capped
      const here = yield* world({ callOptions: { purses: [purse] } })
      const { status, text } = yield* here.ask(path, init)
      assert.strictEqual(status, 402, text)
      assert.match(text, /the cap for tests applies to it, and what it costs cannot be counted/)
      assert.deepStrictEqual(here.sent, [])
    }).pipe(Effect.scoped)
  )

  it.live("is refused under a cap that is around its fetch, or that a function names", () =>
    Effect.gen(function* () {
      const purse = yield* capped
      const body = json({ input_file_id: "f1" })
      const around = yield* world({}, (effect) => Spending.from(purse)(effect))
      assert.strictEqual((yield* around.ask("/v1/batches", body)).status, 402)
      const named = yield* world({ callOptions: ({ model }) => (model === "free" ? {} : { purses: [purse] }) })
      assert.strictEqual((yield* named.ask("/v1/batches", body)).status, 402)
      assert.strictEqual((yield* named.ask("/v1/things", json({ model: "dear" }))).status, 402)
      assert.strictEqual((yield* named.ask("/v1/things", json({ model: "free" }))).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("is refused under the cap of a floodgate without Effect", () =>
    Effect.gen(function* () {
      const sent: Array<unknown> = []
      const fetch: typeof globalThis.fetch = async (request) => {
        sent.push(request)
        return new Response("done")
      }
      for (const [cap, status] of [
        [{ dollars: 1 }, 402],
        [undefined, 200]
      ] as const) {
        const floodgate = Floodgate.create({ cap, fetch })
        const asked = floodgate.fetch("https://api.openai.com/v1/batches", { method: "POST", body: "{}" })
        assert.strictEqual((yield* Effect.promise(() => asked)).status, status)
        yield* Effect.promise(() => floodgate.dispose())
      }
      assert.lengthOf(sent, 1)
    }).pipe(Effect.scoped)
  )

  it.live.each(free)("is sent under a cap if it is free: %s", ([path, init]) =>
    Effect.gen(function* () {
      const purse = yield* capped
      const here = yield* world({ callOptions: { purses: [purse] } })
      assert.strictEqual((yield* here.ask(path, init)).text, "done")
      assert.lengthOf(here.sent, 1)
    }).pipe(Effect.scoped)
  )

  it.live("is sent without a cap, untouched, and reported once", () =>
    Effect.gen(function* () {
      const purse = Spending.make("tests")
      for (const callOptions of [undefined, { purses: [purse] }, () => assert.fail("not a call")]) {
        const here = yield* world({ callOptions })
        for (const [, path, init] of [...uncounted, ...uncounted]) {
          assert.strictEqual((yield* here.ask(path, init)).text, "done")
        }
        const stream = new ReadableStream()
        yield* here.ask("/v1/uploads/u1/parts", { body: stream, duplex: "half" } as RequestInit)
        assert.strictEqual(here.sent.at(-1), stream)
        const once = here.logged.filter((line) => line.startsWith("POST /v1/batches is passed on without being paced"))
        assert.lengthOf(once, 1)
        assert.lengthOf(new Set(here.logged), here.logged.length)
      }
    }).pipe(Effect.scoped)
  )
})
