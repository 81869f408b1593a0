import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Http from "node:http"
import { gzipSync } from "node:zlib"
import { answersAny, dial } from "../../../test/support/gateway.ts"
import { type Handler, serve, type TestServer } from "../../../test/support/httpServer.ts"

// Callers who try to evade their caps and limits. These use real HTTP, so they run on the real clock.

interface World {
  readonly url: string
  readonly upstream: TestServer
  readonly pools: Effect.Effect<ReadonlyArray<string>>
}

/** Calls cost a dollar. */
const answers = answersAny(0, 100_000)

const world = Effect.fnUntraced(function* (
  options: Gateway.Options,
  answer: Handler = answers
): Effect.fn.Return<World, Gateway.CannotListen, Scope.Scope> {
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(
    Governor.layer({ prices: { m: { input: 0, output: 10, maxOutput: 100_000 } } }).pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: { openai: upstream.url, anthropic: upstream.url, gemini: upstream.url },
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context))
  const { status } = Context.get(context, Budget.TokenBudget)
  const pools = Effect.map(status, ({ pools }) => Object.keys(pools).filter((name) => name !== "default"))
  return { url, upstream, pools }
})

const call = { model: "m", max_tokens: 100_000, messages: [{ role: "user", content: "Hello" }] }

interface Got {
  readonly status: number
  readonly text: string
}

/** Sends headers unchanged, including several of one name. */
const ask = (
  url: string,
  headers: ReadonlyArray<readonly [string, string]>,
  body: string | Buffer = JSON.stringify(call)
): Effect.Effect<Got, unknown> =>
  Effect.callback<Got, unknown>((resume) => {
    const lines = [...headers, ["content-length", String(Buffer.byteLength(body))], ["host", "localhost"]]
    const request = Http.request(url, { method: "POST", headers: lines.flat() as unknown as Array<string> })
    request.on("response", (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
      response.on("end", () => resume(Effect.succeed({ status: response.statusCode ?? 0, text })))
    })
    request.on("error", (error) => resume(Effect.fail(error)))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })

const real = ["authorization", "Bearer sk-real"] as const
const chat = "/v1/chat/completions"

describe("a caller", () => {
  const disguises: ReadonlyArray<
    readonly [what: string, path: string, headers: (at: number) => ReadonlyArray<readonly [string, string]>]
  > = [
    ["a header that the provider ignores", chat, (at) => [real, ["x-api-key", `made-up-${at}`]]],
    ["a key in the query", chat, () => [real]],
    ["a header for this connection", chat, (at) => [real, ["x-api-key", `made-up-${at}`], ["connection", "x-api-key"]]],
    ["a second credential", chat, (at) => [real, ["authorization", `Bearer made-up-${at}`]]],
    ["a credential in front", "/v1/messages", (at) => [["x-api-key", `made-up-${at}, sk-real`]]],
    [
      "many keys",
      chat,
      (at) => [["x-api-key", Array.from({ length: 2_000 }, (_, key) => `k${at}-${key}`).join(",")], real]
    ],
    ["another project", chat, (at) => [real, ["openai-project", `p${at}`]]],
    [
      "another key at Anthropic",
      "/v1/messages",
      (at) => [
        ["x-api-key", `made-up-${at}`],
        ["authorization", "Bearer sk-real"]
      ]
    ],
    ["several keys of Google's", "/v1beta/models/m:generateContent", () => [["x-goog-api-key", "sk-real"]]]
  ]
  for (const [what, path, headers] of disguises) {
    it.live(`pays from the cap of its key, even with ${what}`, () =>
      Effect.gen(function* () {
        const here = yield* world({ rules: [{ capPerKey: { dollars: 2.5 } }] })
        const statuses: Array<number> = []
        for (let at = 0; at < 4; at++) {
          statuses.push((yield* ask(`${here.url}${path}?key=sk-${at}&key=made-up`, headers(at))).status)
        }
        assert.deepStrictEqual(statuses, [200, 200, 402, 402])
      })
    )
  }

  it.live("is matched by its rules, whatever other keys it sends", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: [{ key: "*REAL", cap: { dollars: 0.5 } }] })
      for (const more of [[], [["x-api-key", "y"]]] as const) {
        const { status } = yield* ask(`${here.url}${chat}`, [["authorization", "Bearer sk-REAL"], ...more])
        assert.strictEqual(status, 402)
      }
    })
  )

  it.live("has the rules of the name that it gives itself, whatever sub-agent it claims to be", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: [{ agent: "team/*", cap: { dollars: 0.5 } }] })
      const subAgent = ["x-claude-code-agent-id", "a1"] as const
      const names = [
        [["x-floodgate-agent", "team/a1"], 402],
        [["x-claude-code-session-id", "team/a1"], 402],
        [["x-claude-code-session-id", "team"], 200]
      ] as const
      for (const [name, expected] of names) {
        const { status } = yield* ask(`${here.url}${chat}`, [real, name, subAgent])
        assert.strictEqual(status, expected, name.join(": "))
      }
    })
  )

  it.live("stays in one pool, whatever it adds that the provider ignores", () =>
    Effect.gen(function* () {
      const here = yield* world({})
      for (let at = 0; at < 3; at++) {
        yield* ask(`${here.url}${chat}?x=/projects/${at}/locations/l/endpoints/e/&key=${at}`, [real])
        yield* ask(`${here.url}${chat}`, [real, ["x-api-key", `k${at}`], ["x-goog-api-key", `g${at}`]])
        yield* ask(`${here.url}${chat}`, [real, ["openai-project", `p${at}`], ["connection", "openai-project"]])
      }
      assert.strictEqual((yield* here.pools).length, 1)
    })
  )

  it.live("has the limits of its project at Vertex AI, and of its access key at Bedrock", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: [{ capPerKey: { dollars: 1.5 } }] })
      const vertex = "/anthropic/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict"
      const body = JSON.stringify({ ...call, anthropic_version: "vertex-2023-10-16" })
      const signed = (at: number) =>
        `AWS4-HMAC-SHA256 Credential=AKIA1/20261126/eu/bedrock/aws4_request, Signature=${at}`
      const statuses: Array<number> = []
      for (let at = 0; at < 2; at++) {
        statuses.push((yield* ask(`${here.url}${vertex}`, [["authorization", `Bearer ya29.${at}`]], body)).status)
        const bedrock = `${here.url}/anthropic/model/m/invoke`
        statuses.push(
          (yield* ask(
            bedrock,
            [
              ["authorization", signed(at)],
              ["x-api-key", `${at}`]
            ],
            body
          )).status
        )
      }
      assert.deepStrictEqual(statuses, [200, 200, 402, 402])
      assert.strictEqual((yield* here.pools).length, 2)
    })
  )
})

describe("a call", () => {
  const text = JSON.stringify(call)
  const json = ["content-type", "application/json"] as const
  for (const [what, path, body, expected, headers = []] of [
    ["with an encoded path", "/openai/v1/chat/%63ompletions", text, 402],
    ["with an encoded slash", "/openai/v1/chat%2Fcompletions", text, 402],
    ["with an escape that is none", "/openai/%zz/v1/chat/%63ompletions", text, 402],
    ["of Anthropic's with an encoded path", "/anthropic/v1/%6Dessages", text, 402],
    ["of Google's with an encoded colon", "/gemini/v1beta/models/m%3AgenerateContent", text, 402],
    ["with a parameter in its path", "/openai/v1/chat/completions;a=b", text, 402],
    ["with capitals in its path", "/openai/V1/Chat/Completions", text, 402],
    ["with a byte order mark", chat, `\ufeff${text}`, 402],
    ["without a model", chat, text.replace('"model":"m"', '"n":1'), 402],
    ["that is compressed", chat, gzipSync(text), 400, [["content-encoding", "gzip"]]],
    ["that says it is compressed", chat, text, 400, [["content-encoding", "br"]]],
    ["without messages", "/v1/messages", text.replace('"messages"', '"prompt"'), 402],
    ["in UTF-16", chat, Buffer.from(`\ufeff${text}`, "utf16le"), 400],
    ["with a number that is none", chat, text.replace("100000", "NaN"), 400],
    ["without a body", chat, "", 400],
    ["in a list", chat, `[${text}]`, 400]
  ] satisfies ReadonlyArray<
    readonly [string, string, string | Buffer, number, ReadonlyArray<readonly [string, string]>?]
  >) {
    it.live(`is held to its cap ${what}`, () =>
      Effect.gen(function* () {
        const here = yield* world({ rules: [{ cap: { dollars: 0.5 } }] })
        const got = yield* ask(here.url + path, [real, json, ...headers], body)
        assert.strictEqual(got.status, expected, got.text)
        if (expected === 400) assert.match(got.text, /the gateway must be able to read it/)
        if (headers.length > 0) assert.include(got.text, "without content-encoding")
        assert.strictEqual(here.upstream.requests.length, 0)
      })
    )
  }

  it.live("is sent unchanged, by the path as its server reads it", () =>
    Effect.gen(function* () {
      const bodies: Array<string> = []
      const here = yield* world({}, (request, response, body) => {
        bodies.push(body)
        answers(request, response, body)
      })
      const body = `\ufeff${text}`
      assert.strictEqual((yield* ask(`${here.url}/openai/v1/chat/%63ompletions?a=%62`, [real], body)).status, 200)
      assert.strictEqual(here.upstream.requests[0]!.url, "/v1/chat/completions?a=%62")
      assert.deepStrictEqual(bodies, [body])
    })
  )

  it.live("is refused in the form of its provider", () =>
    Effect.gen(function* () {
      const here = yield* world({})
      for (const [path, expected] of [
        ["/v1/messages", { type: "error", error: { type: "invalid_request_error" } }],
        [chat, { error: { type: "invalid_request_error", code: "invalid_body" } }],
        ["/v1beta/models/m:generateContent", { error: { code: 400, status: "INVALID_ARGUMENT" } }]
      ] as const) {
        const { text } = yield* ask(here.url + path, [real], "{")
        const { error, type } = JSON.parse(text)
        assert.deepInclude({ type, ...error }, expected.error as object)
      }
    })
  )

  // Regression: Node 22.19 shows the first 1,000 lines only, and the gateway passed on the key behind them.
  it.live("refuses a key behind more header lines than can be read", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: [{ key: "*", capPerKey: { dollars: 0.02 } }] })
      const te = Array.from({ length: 998 }, () => "te: trailers")
      const head = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", "connection: close"]
      const body = JSON.stringify(call)
      for (const [between, status] of [
        [te, /^HTTP\/1\.1 4(?:00|31) /],
        [te.slice(0, 20), /^HTTP\/1\.1 402 /]
      ] as const) {
        const text = [
          ...head,
          `content-length: ${body.length}`,
          ...between,
          "authorization: Bearer sk-hidden",
          "",
          body
        ]
        const { read, response } = yield* dial(here.url, text.join("\r\n"))
        read()
        assert.match(yield* Effect.promise(() => response), status)
      }
      assert.strictEqual(here.upstream.requests.length, 0)
    })
  )
})
