/** What `floodgate-gateway` sends to an OpenTelemetry collector, and what it does without one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Otlp from "effect/observability/Otlp"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as Anthropic from "floodgate/providers/Anthropic"
import { type Handler, serve } from "../../../../test/support/httpServer.ts"
import { collector, type OtlpSpan } from "../../../../test/support/otlp.ts"
import * as Process from "../support/command.ts"

/** What must not leave the machine for the collector. */
const secrets = {
  prompt: "CaNaRyPrompt7Zq94xW2fKd81",
  answer: "CaNaRyAnswer7Zq94xW2fKd81",
  key: "CaNaRyKey7Zq94xW2fKd81",
  token: "CaNaRyToken7Zq94xW2fKd81",
  header: "CaNaRyHeader7Zq94xW2fKd81"
}

const params = {
  model: "claude-sonnet-5",
  max_tokens: 50,
  messages: [{ role: "user" as const, content: secrets.prompt }]
}

const answer: Handler = (_, response) => {
  response.writeHead(200, { "content-type": "application/json" })
  response.end(
    JSON.stringify({
      id: "msg_1",
      type: "message",
      role: "assistant",
      model: "claude-sonnet-5-20260901",
      content: [{ type: "text", text: secrets.answer }],
      stop_reason: "end_turn",
      usage: { input_tokens: 9, output_tokens: 3 }
    })
  )
}

/** A provider that repeats what it got in an error. */
const refuse: Handler = (request, response, body) => {
  response.writeHead(400, { "content-type": "application/json" })
  const said = `${body} ${String(request.headers["x-api-key"])}`
  response.end(JSON.stringify({ type: "error", error: { type: "invalid_request_error", message: said } }))
}

const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("20 millis") })

/** A gateway process that listens, in an environment. */
const started = Effect.fnUntraced(function* (
  upstream: string,
  env: Record<string, string>,
  flags: ReadonlyArray<string> = []
) {
  const { inside } = yield* Process.folder
  const args = ["--port", "0", "--upstream", `anthropic=${upstream}`, ...flags]
  const process = Process.start(inside, args, { FLOODGATE_GATEWAY_TOKEN: secrets.token, ...env })
  yield* Effect.addFinalizer(() => Effect.sync(() => process.child.kill("SIGKILL")))
  const text = yield* until(Effect.sync(process.output), (text) => /listening on \S+\n/.test(text))
  const [, url = ""] = /listening on (\S+)\n/.exec(text) ?? []
  const stop = Effect.promise(() => {
    process.child.kill("SIGTERM")
    return process.ended
  })
  return { base: `${url}/token/${secrets.token}`, output: process.output, stop }
})

const ask = (base: string, headers: Record<string, string> = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`${base}/v1/messages`, {
      method: "POST",
      headers: { "x-api-key": secrets.key, "anthropic-version": "2023-06-01", ...headers },
      body: JSON.stringify(params)
    })
    await response.text()
    return response.status
  })

const assertNoSecrets = (texts: Iterable<string>): void => {
  for (const text of texts) {
    for (const secret of Object.values(secrets)) assert.notInclude(text, secret)
  }
}

const childOf = (spans: ReadonlyArray<OtlpSpan>, parent: OtlpSpan): OtlpSpan => {
  const [child, ...more] = spans.filter(({ parentSpanId }) => parentSpanId === parent.spanId)
  assert.isDefined(child, `nothing continues ${parent.name}`)
  assert.isEmpty(more)
  assert.strictEqual(child!.traceId, parent.traceId)
  return child!
}

describe("telemetry", () => {
  it.live("shows one call as one trace across client, gateway and provider, with metrics and logs", () =>
    Effect.gen(function* () {
      const sink = yield* collector()
      const provider = yield* serve(answer)
      const gateway = yield* started(
        provider.url,
        {
          OTEL_EXPORTER_OTLP_ENDPOINT: sink.url,
          OTEL_EXPORTER_OTLP_HEADERS: `x-collector-key=${secrets.header}`,
          OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test,team=a%20b"
        },
        ["--log-level", "debug"]
      )
      const client = LlmClient.layerProvider().pipe(
        Layer.provide(Anthropic.layer({ apiKey: Redacted.make(secrets.key), baseUrl: gateway.base })),
        Layer.provide(Budget.layer())
      )
      const otlp = Otlp.layerJson({ baseUrl: sink.url, resource: { serviceName: "agents" } }).pipe(
        Layer.provide(FetchHttpClient.layer)
      )
      yield* LlmClient.create(params).pipe(Effect.withSpan("agent"), Effect.provide(client), Effect.provide(otlp))
      const { code, stderr } = yield* gateway.stop
      assert.strictEqual(code, 143)

      const spans = sink.spans()
      const agent = spans.find(({ name }) => name === "agent")!
      const call = childOf(spans, agent)
      const request = childOf(spans, call)
      const governed = childOf(spans, request)
      assert.deepStrictEqual(
        [agent, call, request, governed].map(({ kind, name, service }) => [service, name, kind]),
        [
          ["agents", "agent", 1],
          ["agents", "chat claude-sonnet-5", 3],
          ["floodgate-gateway", "POST anthropic-messages", 2],
          ["floodgate-gateway", "chat claude-sonnet-5", 3]
        ]
      )
      const [received] = provider.requests
      assert.strictEqual(received!.headers["traceparent"], `00-${governed.traceId}-${governed.spanId}-01`)
      assert.deepInclude(governed.attributes, {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-5",
        "gen_ai.response.model": "claude-sonnet-5-20260901",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3
      })
      assert.deepInclude(request.attributes, { "http.request.method": "POST", "http.response.status_code": 200 })

      const ours = sink.metrics().filter(({ service }) => service === "floodgate-gateway")
      const calls = ours.find(({ name }) => name === "floodgate_calls")
      assert.deepInclude(calls!.points[0], { asDouble: 1 })
      const [tokens] = ours.filter(({ name }) => name === "gen_ai.client.token.usage")
      assert.deepStrictEqual([tokens!.unit, tokens!.points.map(({ sum }) => sum)], ["{token}", [9, 3]])
      assert.strictEqual(ours.find(({ name }) => name === "gen_ai.client.operation.duration")!.unit, "s")
      const ofGateway = sink.logs().filter(({ service }) => service === "floodgate-gateway")
      assert.isTrue(ofGateway.some(({ body, severity }) => severity === "Debug" && String(body).includes("answered")))

      const resource = sink.resources().find((each) => each["service.name"] === "floodgate-gateway")
      assert.deepInclude(resource, { "deployment.environment.name": "test", team: "a b" })
      assert.match(String(resource!["service.instance.id"]), /.\/\d+$/)
      const ofProcess = sink.requests.filter(({ headers }) => headers["x-collector-key"] === secrets.header)
      assert.sameMembers([...new Set(ofProcess.map(({ path }) => path))], ["/v1/traces", "/v1/metrics", "/v1/logs"])
      assert.isTrue(ofProcess.every(({ headers }) => headers["content-type"] === "application/x-protobuf"))
      assertNoSecrets([...sink.requests.map(({ text }) => text), stderr])
    })
  )

  it.live("contains nothing that a provider says in an error, and marks the failure", () =>
    Effect.gen(function* () {
      const sink = yield* collector()
      const provider = yield* serve(refuse)
      const gateway = yield* started(provider.url, {
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${sink.url}/v1/traces`,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
        OTEL_SERVICE_NAME: "mine"
      })
      assert.strictEqual(yield* ask(gateway.base), 400)
      assert.strictEqual(yield* ask(gateway.base, { traceparent: `${secrets.prompt}-x` }), 400)
      yield* gateway.stop
      const failed = sink.spans().filter(({ kind }) => kind === 3)
      assert.deepStrictEqual(
        failed.map(({ attributes, service, status }) => [service, attributes["error.type"], status?.code]),
        [
          ["mine", "InvalidRequest", 2],
          ["mine", "InvalidRequest", 2]
        ]
      )
      assert.deepStrictEqual([...new Set(sink.requests.map(({ path }) => path))], ["/v1/traces"])
      assertNoSecrets(sink.requests.map(({ text }) => text))
    })
  )

  it.live("without a collector that answers says so once, and neither calls nor the end wait for it", () =>
    Effect.gen(function* () {
      const sink = yield* collector()
      yield* sink.close
      const provider = yield* serve(answer)
      const gateway = yield* started(provider.url, {
        OTEL_EXPORTER_OTLP_ENDPOINT: `${sink.url}/base?key=${secrets.header}`,
        OTEL_METRICS_EXPORTER: "none",
        OTEL_LOGS_EXPORTER: "none"
      })
      assert.strictEqual(yield* ask(gateway.base), 200)
      yield* until(Effect.sync(gateway.output), (text) => text.includes("telemetry cannot be sent"))
      for (let n = 0; n < 5; n++) assert.strictEqual(yield* ask(gateway.base), 200)
      const ended = yield* Effect.timeoutOption(gateway.stop, "4 seconds")
      assert.isTrue(ended._tag === "Some" && ended.value.code === 143)
      const lines = gateway.output().split("\n")
      const [told, ...more] = lines.filter((line) => line.includes("telemetry"))
      assert.isEmpty(more)
      assert.include(told, `${sink.url}/base/v1/traces: ECONNREFUSED`)
      assertNoSecrets([told!])
    })
  )

  it.live("ends within a bound if a collector never answers", () =>
    Effect.gen(function* () {
      const sink = yield* collector(() => {})
      const provider = yield* serve(answer)
      const gateway = yield* started(provider.url, { OTEL_EXPORTER_OTLP_ENDPOINT: sink.url })
      assert.strictEqual(yield* ask(gateway.base), 200)
      const ended = yield* Effect.timeoutOption(gateway.stop, "8 seconds")
      assert.isTrue(ended._tag === "Some" && ended.value.code === 143)
      assert.isAtLeast(sink.requests.length, 1)
      assertNoSecrets(sink.requests.map(({ text }) => text))
    })
  )

  it.live("says what a collector refuses", () =>
    Effect.gen(function* () {
      const sink = yield* collector((response) => response.writeHead(401).end(secrets.header))
      const provider = yield* serve(answer)
      const gateway = yield* started(provider.url, { OTEL_EXPORTER_OTLP_ENDPOINT: sink.url })
      yield* ask(gateway.base)
      const { stderr } = yield* gateway.stop
      assert.include(stderr, "/v1/traces: it answers 401: check OTEL_EXPORTER_OTLP_HEADERS")
      assertNoSecrets([stderr])
    })
  )

  it.live("says what it does not support, and goes on without it", () =>
    Effect.gen(function* () {
      const sink = yield* collector()
      const provider = yield* serve(answer)
      const gateway = yield* started(provider.url, {
        OTEL_EXPORTER_OTLP_ENDPOINT: sink.url,
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "grpc",
        OTEL_LOGS_EXPORTER: "console",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: "delta"
      })
      assert.strictEqual(yield* ask(gateway.base), 200)
      const { stderr } = yield* gateway.stop
      assert.include(stderr, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: sends no traces, because it cannot speak grpc")
      assert.include(stderr, "OTEL_LOGS_EXPORTER: sends no logs, because it supports only otlp and none")
      assert.deepStrictEqual([...new Set(sink.requests.map(({ path }) => path))], ["/v1/metrics"])
      assert.isTrue(sink.metrics().every(({ temporality }) => temporality === undefined || temporality === 1))
    })
  )

  it.live("loads nothing and sends nothing unless the environment asks for it", () =>
    Effect.gen(function* () {
      const provider = yield* serve(answer)
      const sink = yield* collector()
      const hook =
        'import { registerHooks } from "node:module"; registerHooks({ load: (url, context, next) => { if (/Otlp/.test(url)) console.error(`LOADED ${url}`); return next(url, context) } })'
      const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(hook)}`
      const asked = { OTEL_EXPORTER_OTLP_ENDPOINT: sink.url }
      for (const env of [{}, { ...asked, OTEL_SDK_DISABLED: "true" }]) {
        const gateway = yield* started(provider.url, { NODE_OPTIONS, ...env })
        assert.strictEqual(yield* ask(gateway.base, { traceparent: "as it came" }), 200)
        const { stderr } = yield* gateway.stop
        assert.notInclude(stderr, "LOADED")
      }
      assert.deepStrictEqual(
        provider.requests.map(({ headers }) => headers["traceparent"]),
        ["as it came", "as it came"]
      )
      assert.isEmpty(sink.requests)
      const gateway = yield* started(provider.url, { NODE_OPTIONS, ...asked })
      assert.include((yield* gateway.stop).stderr, "LOADED")
    })
  )
})
