/** The last requests of a gateway, over real HTTP: each kind of end, whose they are, what they cost, and that they hold nothing else. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Gateway from "@floodgate/gateway"
import { createHash } from "node:crypto"
import { dial, requestOf, until } from "../../../test/support/gateway.ts"
import type { Handler } from "../../../test/support/httpServer.ts"
import { answers, ask, asksUsage, chat, completion, events, json, world } from "./world.ts"

interface RequestRecord {
  readonly at: number
  readonly upstream: string | null
  readonly model: string | null
  readonly caller: string | null
  readonly agent: string | null
  readonly job: string | null
  readonly place: string | null
  readonly outcome: string
  readonly status: number | null
  readonly reason: string | null
  readonly attempts: number
  readonly waitedMillis: number
  readonly millis: number
  readonly inputTokens: number | null
  readonly cachedTokens: number | null
  readonly outputTokens: number | null
  readonly dollars: number | null
}

const maxRequests = 500
const requestsToken = "who-calls-what-and-when"
/** A call with 900 tokens of prompt and 30 of output costs 0.0012 dollars. */
const prices = { "gpt-6": { input: 1, output: 10, cacheRead: 1, maxOutput: 1_000 } }

const remembering = (answer: Handler, options: Parameters<typeof world>[1] = {}) =>
  Effect.map(world(answer, { prices, requestsToken, ...options }), (here) => ({ ...here, ...readerOf(here.url) }))

const readerOf = (url: string, headers: Record<string, string> = { "x-floodgate-requests": requestsToken }) => {
  const list = (query = "") =>
    Effect.promise(async () => {
      const response = await fetch(`${url}/floodgate/requests${query}`, { headers })
      return { status: response.status, text: await response.text() }
    })
  const records = (query = "") =>
    Effect.map(
      list(query),
      ({ text }) => (JSON.parse(text) as { readonly requests: ReadonlyArray<RequestRecord> }).requests
    )
  /** The newest, once so many have ended. */
  const newest = (count = 1) =>
    Effect.map(
      until(records(), ({ length }) => length >= count),
      ([first]) => first!
    )
  const open = Effect.promise(async () => {
    const status = await fetch(`${url}/floodgate/status`)
    return ((await status.json()) as { readonly open: number }).open
  })
  return { list, newest, open, records }
}

const call = (url: string, more: object = {}, headers: Record<string, string> = {}) =>
  ask(`${url}/v1/chat/completions`, chat(more, { "x-floodgate-agent": "researcher", ...headers }))

/** The parts of a record that a test can know. */
const ended = ({ agent, attempts, job, model, outcome, reason, status, upstream }: RequestRecord) => ({
  agent,
  job,
  attempts,
  model,
  outcome,
  reason,
  status,
  upstream
})

const of = (outcome: string, status: number | null, more: object = {}) => ({
  agent: "researcher",
  job: "researcher",
  attempts: 1,
  model: "gpt-6",
  outcome,
  reason: null,
  status,
  upstream: "openai",
  ...more
})

const streamed: Handler = (_, response) =>
  void response.writeHead(200, { "content-type": "text/event-stream" }).end(events.join(""))

describe("the last requests of a gateway", () => {
  it.live("say of an answer who asked which model, how long it took, and what was billed", () =>
    Effect.gen(function* () {
      const usage = { prompt_tokens: 900, completion_tokens: 30, prompt_tokens_details: { cached_tokens: 600 } }
      const answer: Handler = (_, response) => json(response, 200, JSON.stringify({ ...JSON.parse(completion), usage }))
      const { newest, url } = yield* remembering(answer)
      const before = Date.now()
      yield* call(url)
      const record = yield* newest()
      const { at, caller, millis, place, waitedMillis, ...rest } = record
      assert.deepStrictEqual(rest, {
        ...of("answered", 200),
        inputTokens: 900,
        cachedTokens: 600,
        outputTokens: 30,
        dollars: rest.dollars
      } as never)
      assert.closeTo(rest.dollars!, 0.0012, 1e-9)
      assert.match(caller!, /^key-[0-9a-f]{8}$/)
      assert.isNull(place)
      assert.isAtLeast(at, before)
      assert.isAtLeast(millis, waitedMillis)
      assert.isAtMost(at + millis, Date.now())
    })
  )

  it.live("have streams, retries, failures of the provider, and requests that are no calls", () =>
    Effect.gen(function* () {
      let failures = 1
      const { newest, url } = yield* remembering((request, response, body) => {
        if (request.method === "GET") return json(response, 200, "{}")
        if (body.includes('"stream":true')) return streamed(request, response, body)
        if (body.includes("always")) return json(response, 500, "{}")
        if (body.includes("never")) return json(response, 400, '{"error":{"message":"no"}}')
        return failures-- > 0 ? json(response, 500, "{}") : json(response, 200, completion)
      })
      yield* call(url, asksUsage)
      const stream = yield* newest()
      assert.deepStrictEqual(ended(stream), of("answered", 200))
      assert.deepStrictEqual([stream.inputTokens, stream.outputTokens], [900, 30])
      yield* call(url)
      assert.deepStrictEqual(ended(yield* newest(2)), of("answered", 200, { attempts: 2 }))
      yield* call(url, { user: "always" })
      assert.deepStrictEqual(ended(yield* newest(3)), of("failed", 500, { attempts: 2 }))
      yield* call(url, { user: "never" })
      assert.deepStrictEqual(ended(yield* newest(4)), of("failed", 400))
      yield* ask(`${url}/v1/models`, { headers: { "x-floodgate-agent": "researcher", authorization: "Bearer k" } })
      const passed = yield* newest(5)
      assert.deepStrictEqual(ended(passed), of("passed", 200, { model: null }))
      assert.deepStrictEqual([passed.inputTokens, passed.dollars], [null, null])
    })
  )

  it.live("have what was refused before it was sent, and why", () =>
    Effect.gen(function* () {
      const rules = [{ model: "gpt-6", cap: { dollars: 1e-4 } }]
      const { newest, url } = yield* remembering(answers, { rules, maxBodyBytes: 2_000 })
      const refused = (status: number, reason: string, more: object = {}) =>
        of("refused", status, { attempts: 0, reason, ...more })
      yield* call(url)
      assert.deepStrictEqual(ended(yield* newest()), refused(402, "spendLimited"))
      yield* call(url, { user: "x".repeat(3_000) })
      assert.deepStrictEqual(ended(yield* newest(2)), refused(413, "tooLarge", { model: null }))
      yield* ask(`${url}/v1/chat/completions`, { ...chat({}, { "x-floodgate-agent": "researcher" }), body: "[1]" })
      assert.deepStrictEqual(ended(yield* newest(3)), refused(400, "invalid", { model: null }))
      yield* ask(`${url}/v1/batches`, chat({}, { "x-floodgate-agent": "researcher" }))
      assert.deepStrictEqual(ended(yield* newest(4)), refused(402, "spendLimited", { model: null }))
      yield* ask(`${url}/nowhere/at/all`, chat())
      const unknown = { agent: null, job: null, model: null, upstream: null }
      assert.deepStrictEqual(ended(yield* newest(5)), refused(404, "notFound", unknown))
    })
  )

  it.live("have a provider that cannot be reached, and a whole answer that breaks off", () =>
    Effect.gen(function* () {
      const { newest, upstream, url } = yield* remembering((request, response) => {
        response.writeHead(200, { "content-type": "application/json", "content-length": "5000" }).write("{")
        setImmediate(() => request.socket.destroy())
      })
      yield* Effect.ignore(call(url))
      const broken = yield* newest()
      assert.deepStrictEqual([broken.outcome, broken.status, broken.reason], ["failed", 502, "badGateway"])
      yield* Effect.ignore(ask(`${url}/v1/models`, { headers: { authorization: "Bearer k" } }))
      assert.deepStrictEqual([(yield* newest(2)).outcome, (yield* newest(2)).status], ["broke off", 200])
      yield* upstream.close
      yield* call(url)
      assert.deepStrictEqual(ended(yield* newest(3)), of("failed", 502, { attempts: 2, reason: "badGateway" }))
    })
  )

  it.live("have streams that break off half-way, at the provider and at the client", () =>
    Effect.gen(function* () {
      let broken = false
      const { newest, url } = yield* remembering((request, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" }).write(events[0])
        if (broken) setImmediate(() => request.socket.destroy())
      })
      const text = requestOf(
        "POST",
        "/v1/chat/completions",
        { "x-floodgate-agent": "researcher" },
        chat(asksUsage).body as string
      )
      const left = yield* dial(url, text)
      left.read()
      yield* until(Effect.sync(left.arrived), (arrived) => arrived.includes("data: "))
      left.socket.destroy()
      const hungUp = yield* newest()
      assert.deepStrictEqual(ended(hungUp), of("hung up", 200))
      assert.isAbove(hungUp.outputTokens!, 0, "what was observed is billed")
      broken = true
      const cut = yield* dial(url, text)
      cut.read()
      yield* Effect.promise(() => cut.response)
      assert.deepStrictEqual(ended(yield* newest(2)), of("broke off", 200))
    })
  )

  it.live("have clients that leave while they wait, while they are answered, and before their body has arrived", () =>
    Effect.gen(function* () {
      const { newest, open, pool, upstream, url } = yield* remembering(() => {}, { budget: { concurrency: 1 } })
      const text = requestOf(
        "POST",
        "/v1/chat/completions",
        { "x-floodgate-agent": "researcher" },
        chat().body as string
      )
      const first = yield* dial(url, text)
      yield* until(
        Effect.sync(() => upstream.requests.length),
        (sent) => sent === 1
      )
      const second = yield* dial(url, text)
      yield* until(pool, ({ queued }) => queued === 1)
      second.socket.destroy()
      const waited = yield* newest()
      assert.deepStrictEqual(ended(waited), of("hung up", null, { attempts: 0 }))
      assert.strictEqual(waited.waitedMillis, waited.millis)
      assert.isNull(waited.dollars)
      first.socket.destroy()
      assert.deepStrictEqual(ended(yield* newest(2)), of("hung up", null))
      const third = yield* dial(url, text.slice(0, -3))
      yield* until(open, (count) => count === 1)
      third.socket.destroy()
      assert.deepStrictEqual(ended(yield* newest(3)), of("hung up", null, { attempts: 0, model: null }))
    })
  )

  it.live("name the place that has answered, and the key of the gateway by its name", () =>
    Effect.gen(function* () {
      const key = "fg-a-key-of-the-gateway"
      const { newest, url } = yield* remembering(answers, {
        keys: [{ name: "search", sha256: createHash("sha256").update(key).digest("hex") }],
        credentials: { anthropic: null, openai: null, gemini: null },
        places: {
          "gpt-6": [
            { upstream: "openai", name: "here", tier: "flex" },
            { upstream: "gemini", name: "there", drain: true }
          ]
        }
      })
      yield* call(url, {}, { authorization: `Bearer ${key}` })
      const { caller, outcome, place } = yield* newest()
      assert.deepStrictEqual([caller, outcome, place], ["search", "answered", "here"])
      yield* call(url, {}, { authorization: "Bearer fg-another" })
      const stranger = yield* newest(2)
      assert.deepStrictEqual([stranger.caller, stranger.agent, stranger.reason], [null, null, "unauthorized"])
    })
  )

  it.live("hold no content and no key, whatever a caller sends as names", () =>
    Effect.gen(function* () {
      const { list, newest, url } = yield* remembering(answers)
      const messages = [{ role: "user", content: "MARK-prompt" }]
      yield* call(
        url,
        { messages, model: "m".repeat(5_000) },
        { authorization: "Bearer MARK-key", "x-floodgate-agent": "a".repeat(900) }
      )
      yield* newest()
      const { text } = yield* list()
      assert.notInclude(text, "MARK")
      assert.notInclude(text, "Hi, ✓")
      assert.isBelow(text.length, 1_000)
    })
  )

  it.live("are the newest 500, and strangers do not push out those who may call", () =>
    Effect.gen(function* () {
      const key = "fg-a-key-of-the-gateway"
      const { records, url } = yield* remembering(answers, {
        keys: [{ name: "search", sha256: createHash("sha256").update(key).digest("hex") }],
        credentials: { anthropic: null, openai: null, gemini: null }
      })
      const get = (n: number, key: string) =>
        Effect.promise(
          async () =>
            void (await (
              await fetch(`${url}/v1/models/m${n}`, {
                headers: { authorization: `Bearer ${key}`, "x-floodgate-agent": `n${n}` }
              })
            ).text())
        )
      const each = { concurrency: 8, discard: true } as const
      yield* Effect.forEach(
        Array.from({ length: maxRequests + 20 }, (_, n) => n),
        (n) => get(n, key),
        each
      )
      yield* Effect.forEach(
        Array.from({ length: 100 }, (_, n) => n),
        (n) => get(n, "wrong"),
        each
      )
      const all = yield* until(records(), (found) => found.filter(({ caller }) => caller === null).length === 50)
      assert.lengthOf(all, maxRequests)
      const own = all.filter(({ caller }) => caller === "search")
      assert.lengthOf(own, maxRequests - 50)
      assert.isFalse(own.some(({ agent }) => agent === "n0"))
      assert.deepStrictEqual(
        all.map(({ at, millis }) => at + millis),
        all.map(({ at, millis }) => at + millis).sort((a, b) => b - a)
      )
    })
  )

  it.live("are found by caller, agent, model and outcome, and a query with a mistake is explained", () =>
    Effect.gen(function* () {
      const { list, newest, records, url } = yield* remembering(answers)
      yield* call(url)
      yield* call(url, { model: "gpt-6-mini" }, { "x-floodgate-agent": "writer", authorization: "Bearer other" })
      yield* ask(`${url}/v1/models`, { headers: { authorization: "Bearer other" } })
      const [last, mini, first] = yield* until(records(), ({ length }) => length === 3)
      assert.deepStrictEqual([last!.outcome, mini!.model, first!.model], ["passed", "gpt-6-mini", "gpt-6"])
      yield* newest(3)
      const count = (query: string) => Effect.map(records(query), ({ length }) => length)
      for (const [query, expected] of [
        ["?model=gpt-6", 1],
        ["?model=gpt-6*", 2],
        ["?agent=WRITER", 1],
        [`?caller=${first!.caller}`, 1],
        ["?outcome=passed", 1],
        ["?outcome=answered&agent=writer", 1],
        ["?limit=2", 2],
        ["?model=none", 0]
      ] as const)
        assert.strictEqual(yield* count(query), expected, query)
      for (const [query, error] of [
        ["?modell=gpt-6", /unknown parameter "modell": did you mean "model"/],
        ["?outcome=canceled", /outcome: expected one of answered, passed, refused, failed, hung up, broke off/],
        [`?model=${"*".repeat(201)}`, /model: expected at most 200 characters/],
        ["?limit=0", /limit: expected an integer from 1 to 500/],
        ["?limit=1e2", /limit: expected an integer/]
      ] as const) {
        const { status, text } = yield* list(query)
        assert.strictEqual(status, 400)
        assert.match((JSON.parse(text) as { readonly error: string }).error, error)
      }
    })
  )
})

describe("the list of requests", () => {
  const refused = (url: string, headers: Record<string, string> = {}) =>
    Effect.map(readerOf(url, headers).list(), ({ status, text }) => [status, text] as const)

  it.live("is off without a token of its own, and says how to turn it on", () =>
    Effect.gen(function* () {
      const { url } = yield* world(answers)
      yield* call(url)
      const [status, text] = yield* refused(url, { "x-floodgate-requests": requestsToken })
      assert.strictEqual(status, 403)
      assert.match(text, /FLOODGATE_GATEWAY_REQUESTS_TOKEN \(setting requestsToken\)/)
    })
  )

  it.live("is opened by that token alone: not by the token of the gateway, and from no other host", () =>
    Effect.gen(function* () {
      const token = "the-token-of-the-gateway"
      const { newest, url } = yield* remembering(answers, { token })
      yield* call(url, {}, { "x-floodgate-token": token })
      assert.strictEqual((yield* newest()).outcome, "answered")
      for (const headers of [
        {},
        { "x-floodgate-token": token },
        { "x-floodgate-requests": token },
        { authorization: `Bearer ${token}` }
      ]) {
        const [status, text] = yield* refused(url, headers as Record<string, string>)
        assert.strictEqual(status, 401)
        assert.include(text, "x-floodgate-requests")
        assert.notInclude(text, "researcher")
      }
      const local = yield* remembering(answers)
      const [status] = yield* refused(local.url, {
        origin: "https://elsewhere.example",
        "x-floodgate-requests": requestsToken
      })
      assert.strictEqual(status, 403)
    })
  )

  it.live("must not have the token of the gateway or a key of it", () =>
    Effect.gen(function* () {
      const sha256 = createHash("sha256").update(requestsToken).digest("hex")
      const credentials = { anthropic: null, openai: null, gemini: null }
      const wrong: ReadonlyArray<readonly [Gateway.Options, string]> = [
        [{ token: requestsToken }, "the token"],
        [{ keys: [{ name: "k", sha256 }], credentials }, "the keys"]
      ]
      for (const [options, secret] of wrong) {
        const made = yield* Effect.exit(remembering(answers, options))
        assert.match(
          String(made),
          new RegExp(`requestsToken: expected another secret than ${secret}, which agents have`)
        )
      }
    })
  )
})
