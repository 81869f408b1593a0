import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Gateway from "@floodgate/gateway"
import { createHash } from "node:crypto"
import type { IncomingMessage } from "node:http"
import { answersAny, dial, gatewayTo, requestOf, until } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// Keys of the gateway's own. These use real HTTP, so they run on the real clock.

const search = "fg-search-0123456789"
const ads = "fg-ads-0123456789"
const old = "fg-old-0123456789"
const provider = "sk-provider-secret"
const body = JSON.stringify({ model: "m", max_tokens: 9, messages: [], contents: [] })
const chat = "/v1/chat/completions"
const messages = "/v1/messages"
const gemini = "/v1beta/models/m:generateContent"

const entry = (name: string, key: string, expires?: string): NonNullable<Gateway.Options["keys"]>[number] => ({
  name,
  sha256: createHash("sha256").update(key).digest("hex"),
  expires
})

const keys = [entry("search", search), entry("ads", ads, "2999-12-31T23:59+01:00"), entry("search", old, "2020-01-01")]
const credentials = {
  anthropic: Redacted.make(provider),
  openai: Redacted.make(provider),
  gemini: Redacted.make(provider)
}

const world = Effect.fnUntraced(function* (options: Gateway.Options = {}, answer: Handler = answersAny(9, 3)) {
  const upstream = yield* serve(answer)
  return { upstream, ...(yield* gatewayTo(upstream.url, { keys, credentials, ...options })) }
})

/** Sends a request with exactly these bytes. */
const send = (url: string, path: string, lines: ReadonlyArray<string>, method = "POST") =>
  Effect.gen(function* () {
    const given = method === "POST" ? body : ""
    const head = [`${method} ${path} HTTP/1.1`, "host: gateway.test", "connection: close", ...lines]
    const length = method === "POST" ? [`content-length: ${given.length}`] : []
    const { read, response } = yield* dial(url, [...head, ...length, "", given].join("\r\n"))
    read()
    const text = yield* Effect.promise(() => response)
    return { status: Number(text.slice(9, 12)), text }
  }).pipe(Effect.scoped)

/** What the upstream got, of everything that may identify somebody. */
const credentialsIn = (request: { readonly rawHeaders: ReadonlyArray<string>; readonly url?: string | undefined }) => {
  const names = /^(?:authorization|x-api-key|api-key|x-goog-api-key|cookie|openai-|x-goog-user|x-floodgate)/i
  const found: Array<string> = []
  request.rawHeaders.forEach((name, index) => {
    if (index % 2 === 0 && names.test(name)) found.push(`${name.toLowerCase()}: ${request.rawHeaders[index + 1]}`)
  })
  return found
}

describe("a gateway with keys", () => {
  it.live("sends the provider's credential where its protocol expects it, and nothing of the caller's", () =>
    Effect.gen(function* () {
      const here = yield* world()
      const bearer = `authorization: Bearer ${search}`
      const sent: ReadonlyArray<readonly [path: string, lines: ReadonlyArray<string>, expected: string]> = [
        [messages, [`x-api-key: ${search}`, "anthropic-version: 2023-06-01"], `x-api-key: ${provider}`],
        [messages, [bearer, "anthropic-version: 2023-06-01"], `x-api-key: ${provider}`],
        [messages, [bearer, "anthropic-version: 2026-10-21"], `authorization: Bearer ${provider}`],
        [chat, [bearer], `authorization: Bearer ${provider}`],
        [chat, [`api-key: ${search}`], `authorization: Bearer ${provider}`],
        [gemini, [`x-goog-api-key: ${search}`], `x-goog-api-key: ${provider}`],
        [`${gemini}?%6bey=${search}&alt=json`, [], `x-goog-api-key: ${provider}`],
        // The same key at several places, and everything that belongs to a credential.
        [
          chat,
          [bearer, `x-api-key: ${search}`, "openai-organization: o", "OpenAI-Project: p", "cookie: session=1"],
          `authorization: Bearer ${provider}`
        ],
        // Headers that `connection` names do not reach the provider, but the gateway's own do.
        [chat, [`AUTHORIZATION: bEaReR ${search}`, "connection: authorization"], `authorization: Bearer ${provider}`],
        [chat, [bearer, "x-floodgate-key: ads"], `authorization: Bearer ${provider}`]
      ]
      for (const [path, lines, expected] of sent) {
        const { status, text } = yield* send(here.url, path, lines)
        assert.strictEqual(status, 200, `${path} ${lines.join(" ")}: ${text}`)
        const got = here.upstream.requests.at(-1)!
        assert.deepStrictEqual(credentialsIn(got), [expected])
        assert.notInclude(got.url!, search)
        assert.notInclude(got.rawHeaders.join(), search)
      }
      assert.strictEqual(here.upstream.requests.at(-4)!.url, `${gemini}?alt=json`)
      // Also a request that is passed on.
      assert.strictEqual((yield* send(here.url, "/v1/models", [bearer], "GET")).status, 200)
      assert.deepStrictEqual(credentialsIn(here.upstream.requests.at(-1)!), [`authorization: Bearer ${provider}`])
    })
  )

  it.live("answers everybody else with 401, in the form of the provider, and sends nothing", () =>
    Effect.gen(function* () {
      const here = yield* world()
      const refused: ReadonlyArray<readonly [lines: ReadonlyArray<string>, says: RegExp]> = [
        [[], /needs a key of its own/],
        [["authorization: Bearer "], /needs a key of its own/],
        [["x-api-key: sk-ant-guess"], /does not know this key/],
        [[`x-api-key: ${search}x`], /does not know this key/],
        [[`x-api-key: ${search.toUpperCase()}`], /does not know this key/],
        [[`x-api-key: ${entry("", search).sha256}`], /does not know this key/],
        [[`x-api-key: ${provider}`], /does not know this key/],
        [[`x-api-key: ${old}`], /has expired/],
        [[`x-api-key: ${search}`, `authorization: Bearer ${ads}`], /several credentials/],
        [[`authorization: Bearer ${search}`, "authorization: Bearer guess"], /several credentials/],
        [[`x-api-key: ${search}`, "x-api-key: guess"], /several credentials/],
        [[`x-floodgate-key: search`, "x-floodgate-token: guess"], /needs a key of its own/]
      ]
      for (const [lines, says] of refused) {
        for (const path of [chat, messages, gemini, "/v1/models", "/nowhere"]) {
          const { status, text } = yield* send(here.url, path, lines)
          assert.strictEqual(status, 401, `${path} ${lines.join(" ")}: ${text}`)
          assert.match(text, says)
          assert.match(text, /x-should-retry: false/i)
          assert.notMatch(text, /fg-|sk-/)
        }
      }
      assert.match((yield* send(here.url, messages, [])).text, /"type":"error","error":\{"type":"authentication_error"/)
      assert.match((yield* send(here.url, chat, [])).text, /"error":\{.*"type":"authentication_error"/)
      assert.match((yield* send(here.url, gemini, [])).text, /"code":401.*"status":"UNAUTHENTICATED"/)
      assert.match((yield* send(here.url, `${gemini}?key=guess&$key=${search}`, [])).text, /several credentials/)
      assert.strictEqual(here.upstream.requests.length, 0)
      assert.strictEqual(yield* here.inFlight, 0)
    })
  )

  it.live("never opens the page or the metrics by a key, nor a call by the token", () =>
    Effect.gen(function* () {
      const token = "0123456789abcdef"
      const here = yield* world({ token })
      for (const path of ["/floodgate/status", "/floodgate/events", "/metrics"]) {
        for (const line of [
          `x-floodgate-token: ${search}`,
          `authorization: Bearer ${search}`,
          `x-api-key: ${search}`
        ]) {
          assert.strictEqual((yield* send(here.url, path, [line], "GET")).status, 401, `${path} ${line}`)
        }
        assert.strictEqual((yield* send(here.url, `/token/${search}${path}`, [], "GET")).status, 401)
      }
      assert.strictEqual((yield* send(here.url, "/metrics", [`x-floodgate-token: ${token}`], "GET")).status, 200)
      for (const line of [`x-floodgate-token: ${token}`, `x-api-key: ${token}`]) {
        assert.strictEqual((yield* send(here.url, chat, [line])).status, 401)
      }
      assert.strictEqual((yield* send(here.url, `/token/${token}${chat}`, [])).status, 401)
      assert.strictEqual(here.upstream.requests.length, 0)
    })
  )

  it.live("knows callers by the names of their keys: agents, rules, caps, pools, metrics", () =>
    Effect.gen(function* () {
      const here = yield* world({
        rules: [
          { key: "search", cap: { dollars: 1e-9 } },
          { key: "ads", cap: { dollars: 5 } }
        ],
        credentials: { ...credentials, openai: Redacted.make("sk-openai") }
      })
      const { text } = yield* send(here.url, chat, [`x-api-key: ${search}`, "x-floodgate-key: ads"])
      assert.match(text, /402/)
      const status = yield* Effect.promise(async () => (await fetch(`${here.url}/floodgate/status`)).text())
      assert.include(status, '"name":"callers with key search"')
      assert.include(status, '"name":"callers with key ads"')
      assert.match(status, /"agents":\[\{"name":"search"/)
      yield* here.reload({
        upstreams: { openai: here.upstream.url },
        keys,
        credentials: { openai: Redacted.make("sk-openai") }
      })
      yield* send(here.url, chat, [`x-api-key: ${ads}`])
      const after = yield* Effect.promise(async () => (await fetch(`${here.url}/floodgate/status`)).text())
      const host = new URL(here.upstream.url).host
      // The account is named after the upstream, where a caller's own key would be a hash.
      assert.include(after, `"name":"${host}/openai/m"`)
      // The id of a cap without a name is for programs.
      const names = (text: string) => text.replaceAll(/"id":"(?:[^"\\]|\\.)*"/g, "")
      for (const shown of [status, after]) assert.notMatch(names(shown), /fg-|sk-|[\da-f]{32}/)
    })
  )

  it.live("counts the requests of a key that are passed on, by what they are", () =>
    Effect.gen(function* () {
      const here = yield* world()
      for (const [method, path] of [
        ["GET", "/v1/models"],
        ["POST", "/v1/images/edits"],
        ["POST", "/v1/batches"],
        ["POST", "/v1beta/models/m:countTokens"],
        ["POST", "/v1beta/models/m:asyncBatchEmbedContent"],
        ["GET", "/v1/files/f?purpose=batch"],
        ["POST", "/v1/audio/transcriptions"],
        ["GET", "/v1/chat/completions"],
        ["GET", "/openai/unheard/of"]
      ] as const) {
        const { status, text } = yield* send(here.url, path, [`x-api-key: ${ads}`], method)
        assert.strictEqual(status, 200, `${path}: ${text}`)
      }
      const metrics = yield* Effect.promise(async () => (await fetch(`${here.url}/metrics`)).text())
      const found = metrics.matchAll(/^floodgate_gateway_passed\{.*kind="([^"]*)".*key="ads".*\} (\d+)$/gm)
      assert.deepStrictEqual(Object.fromEntries(Array.from(found, ([, kind, count]) => [kind, Number(count)])), {
        models: 1,
        images: 1,
        batches: 2,
        "count tokens": 1,
        files: 1,
        audio: 1,
        "stored completions": 1,
        other: 1
      })
    })
  )

  it.live("ends open streams and waiting calls of a key that a reload removes, and of no other", () =>
    Effect.gen(function* () {
      const streams: Handler = (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
      }
      const here = yield* world({}, streams)
      const open = Effect.fnUntraced(function* (key: string) {
        const stream = JSON.stringify({ model: "m", stream: true, messages: [] })
        const got = yield* dial(here.url, requestOf("POST", chat, { authorization: `Bearer ${key}` }, stream))
        got.read()
        let isClosed = false
        got.socket.on("close", () => (isClosed = true))
        yield* until(
          Effect.sync(() => got.arrived()),
          (text) => text.includes("Hi")
        )
        return () => isClosed
      })
      const ofSearch = [yield* open(search), yield* open(search)]
      const ofAds = yield* open(ads)
      const options = { upstreams: { openai: here.upstream.url }, credentials: { openai: Redacted.make(provider) } }
      yield* here.reload({ ...options, keys: [entry("ads", ads), entry("search", "fg-new")] })
      yield* until(
        Effect.sync(() => ofSearch.every((isClosed) => isClosed())),
        (all) => all
      )
      yield* until(here.inFlight, (count) => count === 1)
      assert.isFalse(ofAds())
      assert.strictEqual((yield* send(here.url, chat, [`x-api-key: ${search}`])).status, 401)
      const renewed = yield* dial(here.url, requestOf("POST", chat, { "x-api-key": "fg-new" }, body))
      renewed.read()
      yield* until(
        Effect.sync(() => renewed.arrived()),
        (text) => text.startsWith("HTTP/1.1 200")
      )
    })
  )

  it.live("refuses options that would let in nobody or everybody, and says what to do", () =>
    Effect.gen(function* () {
      const refused = (options: Gateway.Options) =>
        Effect.map(Effect.exit(gatewayTo("http://127.0.0.1:1", options)), String)
      const cases: ReadonlyArray<readonly [options: Gateway.Options, says: string]> = [
        [{ keys: [] }, "keys: expected 1 to 1000 keys"],
        [
          { keys },
          "credentials.anthropic: the upstream anthropic has no credential, and callers send keys of the gateway: add its"
        ],
        [{ credentials }, "keys: expected keys, because the gateway has 3 credentials, got none"],
        [{ keys: [{ name: "a", sha256: search }], credentials }, "keys[0].sha256: expected the SHA-256 of a key in 64"],
        [{ keys: [{ ...keys[0]!, expires: "tomorrow" }], credentials }, "keys[0].expires: expected a date such as"],
        [{ keys: [{ ...keys[0]!, expires: "2027-02-31" }], credentials }, "keys[0].expires: expected a date such as"],
        [
          { keys: [keys[0]!, { ...keys[0]!, name: "b" }], credentials },
          "keys[1].sha256: expected another key than that of keys[0]"
        ],
        [
          { keys, credentials: { ...credentials, opnai: null } },
          'credentials.opnai: no upstream has this name: did you mean "openai"?'
        ],
        [
          { keys, credentials: { ...credentials, anthropic: Redacted.make("sk-ant-oat01-abc") } },
          "credentials.anthropic: expected an API key, got the token of a subscription: sharing it would get the account banned"
        ],
        [
          { keys, credentials: { ...credentials, openai: Redacted.make("sk-two\nlines") } },
          "credentials.openai: the credential contains a line break: copy the API key again, without it"
        ]
      ]
      for (const [options, says] of cases) {
        const text = yield* refused(options)
        assert.include(text, says)
        assert.notMatch(text, /sk-two|fg-search|oat01/)
      }
    })
  )
})

describe("credentials in a query", () => {
  it.live.each(["access_token", "oauth_token", "$oauth_token", "%6Fauth_token", "$access_token"])(
    "are not passed on in place of the gateway's own: %s",
    (name) =>
      Effect.gen(function* () {
        const { upstream, url } = yield* world()
        const { status } = yield* send(url, `${gemini}?a=1&${name}=sk-callers&b=2`, [`x-goog-api-key: ${search}`])
        assert.strictEqual(status, 200)
        const [{ headers, url: target }] = upstream.requests as [IncomingMessage]
        assert.strictEqual(target, `${gemini}?a=1&b=2`)
        assert.strictEqual(headers["x-goog-api-key"], provider)
      }).pipe(Effect.scoped)
  )
})
