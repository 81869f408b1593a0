import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Http from "node:http"
import { gzipSync } from "node:zlib"
import { apiCalls, isStreamed } from "../../../test/support/apis.ts"
import { answersAny, until } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

// What a caller whose cap is spent may still send. These use real HTTP, so they run on the real clock.

const providers = ["anthropic", "openai", "gemini", "bedrock", "mistral", "cohere", "ollama", "llama-cpp"]

/** A provider whose calls cost a dollar each, and a gateway to it. */
const world = Effect.fnUntraced(function* (options: Gateway.Options) {
  const upstream = yield* serve(answersAny(0, 100_000))
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => void logged.push(String(message)))
  const context = yield* Layer.build(
    Governor.layer({ prices: { "*": { input: 10, output: 10, maxOutput: 100_000 } } }).pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Logger.layer([logger]))
    )
  )
  const { url } = yield* Gateway.make({
    upstreams: Object.fromEntries(providers.map((name) => [name, upstream.url])),
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context))
  return { url, upstream, logged }
})

interface Sent {
  readonly method?: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: object | string | Buffer
}

const ask = (url: string, { body, headers = {}, method = "POST", path }: Sent) =>
  Effect.callback<{ readonly status: number; readonly text: string }, unknown>((resume) => {
    const bytes =
      body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
    const request = Http.request(url + path, {
      method,
      headers: {
        authorization: "Bearer sk-real",
        ...(body !== undefined && { "content-type": "application/json", "content-length": Buffer.byteLength(bytes!) }),
        ...headers
      }
    })
    request.on("response", (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
      response.on("end", () => resume(Effect.succeed({ status: response.statusCode ?? 0, text })))
    })
    request.on("error", (error) => resume(Effect.fail(error)))
    request.end(bytes)
    return Effect.sync(() => request.destroy())
  })

const messages = [{ role: "user", content: "Hello" }]
const claude = { model: "m", max_tokens: 1_000, messages }
const chat = { model: "m", messages }
const contents = [{ role: "user", parts: [{ text: "Hello" }] }]

const form = (...parts: ReadonlyArray<readonly [disposition: string, value: string]>): string =>
  [
    ...parts.map(([name, value]) => `--b\r\ncontent-disposition: form-data; ${name}\r\n\r\n${value}\r\n`),
    "--b--\r\n"
  ].join("")
const multipart = { "content-type": "multipart/form-data; boundary=b" }
const batchLine = JSON.stringify({ custom_id: "1", method: "POST", url: "/v1/chat/completions", body: chat })
const inner = "POST /v1beta/models/m:generateContent HTTP/1.1\r\ncontent-type: application/json\r\n\r\n{}"

type Kinds = ReadonlyArray<readonly [kind: string, sent: Sent]>

/** Calls: their cost is known, and too high. */
const calls: Kinds = [
  ["Anthropic: messages", { path: "/v1/messages", body: claude }],
  ["Anthropic: messages, streamed", { path: "/v1/messages?beta=true", body: { ...claude, stream: true } }],
  ["Anthropic: Foundry", { path: "/anthropic/v1/messages", body: claude }],
  [
    "Anthropic: Vertex AI",
    { path: "/anthropic/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict", body: claude }
  ],
  [
    "Anthropic: Vertex AI, streamed",
    { path: "/anthropic/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", body: claude }
  ],
  ["Bedrock: invoke", { path: "/model/anthropic.m/invoke", body: claude }],
  ["OpenAI: chat completions", { path: "/v1/chat/completions", body: chat }],
  [
    "OpenAI: a deployment at Azure",
    { path: "/openai/openai/deployments/m/chat/completions?api-version=1", body: chat }
  ],
  ["OpenAI: completions", { path: "/v1/completions", body: { model: "m", prompt: "Hello" } }],
  ["OpenAI: responses", { path: "/v1/responses", body: { model: "m", input: "Hello" } }],
  [
    "OpenAI: responses, in the background",
    { path: "/v1/responses", body: { model: "m", input: "Hello", background: true } }
  ],
  ["OpenAI: compaction", { path: "/v1/responses/compact", body: { model: "m", input: "Hello" } }],
  ["OpenAI: embeddings", { path: "/v1/embeddings", body: { model: "m", input: "Hello" } }],
  ["OpenAI: images", { path: "/v1/images/generations", body: { model: "m", prompt: "A gate" } }],
  ["OpenAI: speech", { path: "/v1/audio/speech", body: { model: "m", input: "Hello", voice: "alloy" } }],
  ["Gemini: generateContent", { path: "/v1beta/models/m:generateContent", body: { contents } }],
  ["Gemini: streamGenerateContent", { path: "/v1beta/models/m:streamGenerateContent?alt=sse", body: { contents } }],
  ["Gemini: embedContent", { path: "/v1beta/models/m:embedContent", body: { content: contents[0]! } }],
  [
    "Gemini: batchEmbedContents",
    { path: "/v1beta/models/m:batchEmbedContents", body: { requests: [{ content: contents[0]! }] } }
  ],
  ...apiCalls.map(
    (call) =>
      [
        call.name + (isStreamed(call) ? ", streamed" : ""),
        { path: `/${call.upstream}${call.path}`, body: call.body }
      ] as const
  )
]

/** Requests whose cost nobody can count. */
const uncounted: Kinds = [
  ["Anthropic: batches", { path: "/v1/messages/batches", body: { requests: [{ custom_id: "1", params: claude }] } }],
  ["Anthropic: the oldest completions", { path: "/v1/complete", body: { model: "m", prompt: "Hello" } }],
  ["Anthropic: events of a session", { path: "/v1/sessions/s1/events", body: { events: [] } }],
  ["Bedrock: another vendor's model", { path: "/model/amazon.nova-pro-v1%3A0/invoke", body: { inputText: "Hello" } }],
  ["OpenAI: batches", { path: "/v1/batches", body: { input_file_id: "f1", endpoint: "/v1/chat/completions" } }],
  [
    "OpenAI: the file of a batch",
    {
      path: "/v1/files",
      headers: multipart,
      body: form(['name="purpose"', "batch"], ['name="file"; filename="a.jsonl"', batchLine])
    }
  ],
  [
    "OpenAI: the file of a batch under another purpose",
    {
      path: "/v1/files",
      headers: multipart,
      body: form(['name="purpose"', "user_data"], ['name="file"; filename="a.jsonl"', batchLine])
    }
  ],
  ["OpenAI: an upload for a batch", { path: "/v1/uploads", body: { purpose: "batch", filename: "a.jsonl", bytes: 1 } }],
  [
    "OpenAI: transcriptions",
    {
      path: "/v1/audio/transcriptions",
      headers: multipart,
      body: form(['name="model"', "m"], ['name="file"; filename="a"', "x"])
    }
  ],
  [
    "OpenAI: edits of images",
    { path: "/v1/images/edits", headers: multipart, body: form(['name="prompt"', "A gate"]) }
  ],
  [
    "OpenAI: variations of images",
    { path: "/v1/images/variations", headers: multipart, body: form(['name="n"', "2"]) }
  ],
  ["OpenAI: videos", { path: "/v1/videos", body: { prompt: "A gate" } }],
  ["OpenAI: a run of a thread", { path: "/v1/threads/t1/runs", body: { assistant_id: "a1" } }],
  ["OpenAI: a thread and its run", { path: "/v1/threads/runs", body: { assistant_id: "a1" } }],
  ["OpenAI: the results of tools", { path: "/v1/threads/t1/runs/r1/submit_tool_outputs", body: { tool_outputs: [] } }],
  ["OpenAI: a secret for voice", { path: "/v1/realtime/client_secrets", body: { session: { model: "m" } } }],
  [
    "OpenAI: a call by voice",
    { path: "/v1/realtime/calls?model=m", headers: { "content-type": "application/sdp" }, body: "v=0" }
  ],
  ["OpenAI: fine-tuning", { path: "/v1/fine_tuning/jobs", body: { model: "m", training_file: "f1" } }],
  ["OpenAI: a run of an evaluation", { path: "/v1/evals/e1/runs", body: { data_source: { type: "responses" } } }],
  ["OpenAI: decisions", { path: "/v1/decisions", body: { input: "Hello", questions: [] } }],
  ["Gemini: batches", { path: "/v1beta/models/m:batchGenerateContent", body: { batch: {} } }],
  ["Gemini: batches of embeddings", { path: "/v1beta/models/m:asyncBatchEmbedContent", body: { batch: {} } }],
  ["Gemini: predict", { path: "/v1beta/models/m:predict", body: { instances: [] } }],
  ["Gemini: videos", { path: "/v1beta/models/m:predictLongRunning", body: { instances: [] } }],
  ["Gemini: a cached content", { path: "/v1beta/cachedContents", body: { model: "models/m", contents } }],
  [
    "Google: requests in one envelope",
    {
      path: "/gemini/batch/v1beta",
      headers: { "content-type": "multipart/mixed; boundary=b" },
      body: form(["name=x", inner])
    }
  ],
  ["Mistral: batches", { path: "/mistral/v1/batch/jobs", body: { input_files: ["f1"], endpoint: "/v1/ocr" } }],
  ["Mistral: classifications", { path: "/mistral/v1/classifications", body: { model: "m", input: "Hello" } }],
  ["Cohere: chat of the first version", { path: "/cohere/v1/chat", body: { message: "Hello" } }],
  ["Cohere: generate", { path: "/cohere/v1/generate", body: { prompt: "Hello" } }],
  ["Cohere: parse", { path: "/cohere/v2/parse", headers: multipart, body: form(['name="file"; filename="a"', "x"]) }],
  ["a path that nobody knows", { path: "/openai/v1/things/of/gates", body: { input: "Hello", model: "m" } }],
  ["a model deep in a body", { path: "/openai/v1/things", body: { session: { agents: [{ model: "m" }] } } }],
  ["a model on a line of its own", { path: "/openai/v1/things", body: '{"a":1}\n{"model" : "m"}' }],
  ["a model in capitals", { path: "/openai/v1/things", body: { Model: "m" } }],
  ["a model with an escape", { path: "/openai/v1/things", body: '{"mo\\u0064el":"m"}' }],
  ["a model in UTF-16", { path: "/openai/v1/things", body: Buffer.from('{"model":"m"}', "utf16le") }],
  [
    "a model in a form",
    {
      path: "/openai/v1/things",
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: "a=1&%6Dodel=m"
    }
  ],
  [
    "a model in a field on two lines",
    { path: "/openai/v1/things", headers: multipart, body: form(["\r\n name=model", "m"]) }
  ],
  [
    "a form of very many parts",
    {
      path: "/openai/v1/things",
      headers: multipart,
      body: form(...Array.from({ length: 1_100 }, () => ["name=a", "1"] as const))
    }
  ],
  ["a model in a field", { path: "/openai/v1/things", headers: multipart, body: form(["name=model", "m"]) }],
  [
    "a model in a query beside a malformed escape",
    { path: "/openai/v1/things?mo%64el=m&x=%zz", body: { input: "Hello" } }
  ],
  [
    "a model in a form beside a malformed escape",
    {
      path: "/openai/v1/things",
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: "a=%zz&%6Dodel=m"
    }
  ],
  ["a model in a query", { path: "/openai/v1/things?mo%64el=m", body: { input: "Hello" } }],
  [
    "a body that is compressed",
    { path: "/openai/v1/things", headers: { "content-encoding": "gzip" }, body: gzipSync('{"model":"m"}') }
  ],
  ["batches with an encoded path", { path: "/openai/v1/%62atches", body: { input_file_id: "f1" } }],
  ["batches behind a free path", { path: "/v1/organization/..%2fbatches", body: { input_file_id: "f1" } }],
  ["batches with a PUT", { method: "PUT", path: "/v1/batches", body: { input_file_id: "f1" } }],
  ["a model in the body of a GET", { method: "GET", path: "/openai/v1/things", body: { model: "m" } }]
]

/** Requests that ask to be taken for calls. They are refused without a cap, too. */
const evasions: Kinds = [
  ...["x-http-method-override", "x-http-method", "x-method-override", "x-original-method"].map(
    (name) =>
      [
        `${name}: POST`,
        { method: "GET", path: "/v1beta/models/m:generateContent", headers: { [name]: "POST" } }
      ] as const
  ),
  [
    "x-http-method-override on a POST",
    { path: "/v1/messages", headers: { "x-http-method-override": "PUT" }, body: claude }
  ],
  ["x-original-url", { method: "GET", path: "/v1/models", headers: { "x-original-url": "/v1/messages" } }],
  ["x-rewrite-url", { method: "GET", path: "/v1/models", headers: { "x-rewrite-url": "/v1/messages" } }],
  ["$httpMethod", { method: "GET", path: "/v1beta/models/m:generateContent?$httpMethod=POST" }],
  ["$httpMethod, encoded", { method: "GET", path: "/v1beta/models/m:generateContent?%24httpMethod=POST" }],
  [
    "$httpMethod beside a malformed escape",
    { method: "GET", path: "/v1beta/models/m:generateContent?%24httpMethod=POST&x=%zz" }
  ],
  ["$httpMethod after a semicolon", { method: "GET", path: "/v1beta/models/m:generateContent?a=1;$httpMethod=POST" }],
  ["_method", { method: "GET", path: "/v1beta/models/m:generateContent?a=1&_method=POST" }],
  ["PUT of messages", { method: "PUT", path: "/anthropic/v1/messages", body: claude }],
  ["PATCH of a chat completion", { method: "PATCH", path: "/v1/chat/completions", body: chat }],
  ["PUT of generateContent", { method: "PUT", path: "/v1beta/models/m:generateContent", body: { contents } }],
  ["GET of messages with a body", { method: "GET", path: "/anthropic/v1/messages", body: claude }],
  ["GET of messages", { method: "GET", path: "/anthropic/v1/messages" }],
  ["GET of chat completions with a body", { method: "GET", path: "/v1/chat/completions", body: chat }],
  ["DELETE of chat completions with a body", { method: "DELETE", path: "/v1/chat/completions", body: chat }]
]

const refusalIn = (text: string): string => {
  const body = JSON.parse(text)
  return String(body.error?.message ?? body.message ?? body.error)
}

describe("a caller whose cap is spent", () => {
  const adminToken = "an-admin-of-the-gateway"
  const spent = Effect.gen(function* () {
    const here = yield* world({ adminToken, rules: [{ name: "everybody", cap: { dollars: 3 } }] })
    const first = yield* ask(here.url, { path: "/v1/messages", body: { ...claude, max_tokens: 100_000 } })
    assert.strictEqual(first.status, 200, first.text)
    assert.strictEqual(here.upstream.requests.length, 1)
    const headers = { "x-floodgate-admin": adminToken }
    const lowered = yield* ask(here.url, { path: "/floodgate/caps", headers, body: { cap: "everybody", dollars: 1 } })
    assert.strictEqual(lowered.status, 200, lowered.text)
    return here
  })

  /** Codex, which speaks Responses, sends a call again after a 402. */
  const statusOf = ({ path }: Kinds[number][1]): number => (/^\/v1\/responses(?:\/compact)?$/.test(path) ? 400 : 402)

  it("tries at least the 52 kinds that a hostile trial has tried", () => {
    assert.isAtLeast(calls.length + uncounted.length + evasions.length, 52)
    const names = [...calls, ...uncounted, ...evasions].map(([kind]) => kind)
    assert.deepStrictEqual(
      names.filter((kind, at) => names.indexOf(kind) !== at),
      []
    )
  })

  it.live.each(calls)("sends no call: %s", ([, sent]) =>
    Effect.gen(function* () {
      const here = yield* spent
      const { status, text } = yield* ask(here.url, sent)
      assert.strictEqual(status, statusOf(sent), text)
      assert.match(refusalIn(text), /is left of the cap of \$1 for everybody|may cost \$/)
      assert.strictEqual(here.upstream.requests.length, 1)
    })
  )

  it.live.each(uncounted)("sends nothing that nobody counts: %s", ([, sent]) =>
    Effect.gen(function* () {
      const here = yield* spent
      const { status, text } = yield* ask(here.url, sent)
      assert.strictEqual(status, statusOf(sent), text)
      assert.match(
        refusalIn(text),
        / was not sent: the cap for everybody applies to it, and what it costs cannot be counted/
      )
      assert.strictEqual(here.upstream.requests.length, 1)
    })
  )

  it.live.each(evasions)("evades nothing: %s", ([, sent]) =>
    Effect.gen(function* () {
      const here = yield* spent
      const { status, text } = yield* ask(here.url, sent)
      assert.strictEqual(status, 400, text)
      assert.match(refusalIn(text), /passes on no/)
      assert.strictEqual(here.upstream.requests.length, 1)
    })
  )

  it.live.each([
    ["a list of models", { method: "GET", path: "/v1/models" }],
    ["a model", { method: "GET", path: "/v1/models/gpt-6" }],
    ["a count of tokens", { path: "/v1/messages/count_tokens", body: claude }],
    ["another count of tokens", { path: "/v1beta/models/m:countTokens", body: { contents } }],
    ["a stored completion", { method: "GET", path: "/v1/chat/completions/c1" }],
    ["all stored completions", { method: "GET", path: "/v1/chat/completions" }],
    ["the end of a batch", { path: "/v1/batches/b1/cancel" }],
    [
      "a file",
      {
        path: "/v1/files",
        headers: multipart,
        body: form(['name="purpose"', "user_data"], ['name="file"', '{"model":"m"}'])
      }
    ],
    ["the end of a file", { method: "DELETE", path: "/v1/files/f1" }],
    ["a conversation of OpenAI's", { path: "/v1/conversations", body: { metadata: { topic: "gates" } } }],
    ["an empty conversation of OpenAI's", { path: "/v1/conversations" }],
    ["the end of a conversation", { method: "DELETE", path: "/v1/conversations/c1" }],
    ["an agent of Mistral's", { path: "/mistral/v1/agents", body: { model: "m", name: "a" } }],
    ["an assistant", { path: "/v1/assistants", body: { model: "m" } }],
    ["facts about a model of Ollama's", { path: "/ollama/api/show", body: { model: "m" } }],
    ["a limit of a project", { path: "/v1/organization/projects/p1/rate_limits/r1", body: { model: "m" } }],
    ["a store of vectors", { path: "/v1/vector_stores", body: { name: "a" } }],
    ["the end of an interaction", { path: "/v1beta/interactions/i1/cancel" }]
  ] satisfies Kinds)("may still send what is free: %s", ([, sent]) =>
    Effect.gen(function* () {
      const here = yield* spent
      const { status, text } = yield* ask(here.url, sent)
      assert.strictEqual(status, 200, text)
      assert.strictEqual(here.upstream.requests.length, 2)
    })
  )
})

describe("a caller without a cap", () => {
  const rules = [
    { key: "*capped", cap: { dollars: 0.5 } },
    { model: "dear-*", cap: { dollars: 0.5 } }
  ]

  it.live("sends what nobody counts, and is told of once in the log", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: rules.slice(0, 1) })
      const asked: Kinds = [
        ["batches", { path: "/v1/batches", body: { input_file_id: "f1" } }],
        ["edits", { path: "/v1/images/edits", headers: multipart, body: form(['name="model"', "m"]) }],
        ["unknown", { path: "/openai/v1/things/1234/of", body: { model: "m" } }],
        ["free", { path: "/v1/vector_stores", body: { name: "a" } }]
      ]
      for (const [, sent] of [...asked, ...asked]) {
        const { status, text } = yield* ask(here.url, sent)
        assert.strictEqual(status, 200, text)
      }
      assert.strictEqual(here.upstream.requests.length, 2 * asked.length)
      yield* until(
        Effect.sync(() => here.logged.length),
        (count) => count >= 3
      )
      const passed = "is passed on without being paced or counted, because its usage cannot be read"
      assert.deepStrictEqual(
        here.logged.map((line) => line.slice(0, line.indexOf(";"))),
        [
          `POST /v1/batches ${passed}`,
          `POST /v1/images/edits ${passed}`,
          `POST /v1/things/{id}/of for the model m ${passed}`
        ]
      )
      for (const [, sent] of uncounted) {
        const headers = { ...sent.headers, authorization: "Bearer sk-capped" }
        assert.strictEqual((yield* ask(here.url, { ...sent, headers })).status, 402)
      }
    })
  )

  it.live("of a model is refused only for that model, and for what names none", () =>
    Effect.gen(function* () {
      const here = yield* world({ rules: rules.slice(1) })
      const of = (model: string) => ask(here.url, { path: "/openai/v1/things", body: { model } })
      assert.strictEqual((yield* of("cheap-1")).status, 200)
      assert.strictEqual((yield* of("dear-1")).status, 402)
      assert.strictEqual((yield* ask(here.url, { path: "/v1/batches", body: { input_file_id: "f1" } })).status, 402)
    })
  )

  it.live("evades nothing either", () =>
    Effect.gen(function* () {
      const here = yield* world({})
      for (const [kind, sent] of evasions) assert.strictEqual((yield* ask(here.url, sent)).status, 400, kind)
      assert.strictEqual(here.upstream.requests.length, 0)
    })
  )
})
