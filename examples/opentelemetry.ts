// Spans and metrics of twelve agents: to a Prometheus endpoint, and to the collector at OTEL_EXPORTER_OTLP_ENDPOINT if set.
//     npm run -s example examples/opentelemetry.ts
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Otlp from "effect/observability/Otlp"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim } from "floodgate/testing"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

// -----------------------------------------------------------------------------
// What is observed
// -----------------------------------------------------------------------------

const agent = (id: number) =>
  Effect.forEach([1, 2], (n) =>
    LlmClient.create({
      model: "claude-sonnet-5",
      max_tokens: 200,
      messages: [{ role: "user", content: `Agent ${id}, question ${n}: what do you see?` }]
    })
  ).pipe(Effect.provideService(Budget.Agent, `agent-${id}`), Effect.withSpan("agent", { attributes: { id } }))

const agents = Effect.forEach(
  Array.from({ length: 12 }, (_, id) => id),
  agent,
  { concurrency: "unbounded" }
)

const client = LlmClient.layerProvider().pipe(
  Layer.provide(Budget.layer({ limits: { requests: { perMinute: 1_000 } }, concurrency: 4 })),
  Layer.provide(ProviderSim.layer({ latency: { baseMillis: 20, perOutputTokenMillis: 0 } }))
)

// -----------------------------------------------------------------------------
// Where it goes
// -----------------------------------------------------------------------------

/** Metrics at `/metrics` of a server on a free port. */
const prometheus = HttpRouter.serve(PrometheusMetrics.layerHttp(), {
  disableLogger: true,
  disableListenLog: true
}).pipe(Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0 })))

const otlp = (baseUrl: string) =>
  Otlp.layerJson({ baseUrl, resource: { serviceName: "floodgate-example" } }).pipe(Layer.provide(FetchHttpClient.layer))

interface Traces {
  readonly resourceSpans: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<{ readonly name: string }> }>
  }>
}

const spanNames = (body: string): ReadonlyArray<string> =>
  (JSON.parse(body) as Traces).resourceSpans.flatMap(({ scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) => spans.map(({ name }) => name))
  )

/** A collector that counts the spans that it receives, by name. */
const collector = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly spans: Map<string, number>; readonly close: () => void }>(
    (resume) => {
      const spans = new Map<string, number>()
      const server = createServer((request, response) => {
        let body = ""
        request.on("data", (chunk) => (body += chunk))
        request.on("end", () => {
          if (request.url === "/v1/traces")
            for (const name of spanNames(body)) spans.set(name, (spans.get(name) ?? 0) + 1)
          response.end("{}")
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, spans, close: () => server.close() }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

const program = Effect.gen(function* () {
  const own = yield* collector
  const endpoint = yield* Config.String("OTEL_EXPORTER_OTLP_ENDPOINT").pipe(Config.withDefault(own.url))
  // Remaining spans and metrics are sent when the layer's scope closes.
  const metrics = yield* Effect.gen(function* () {
    yield* agents
    const { address } = yield* HttpServer.HttpServer
    const text = yield* Effect.promise(() =>
      fetch(`${HttpServer.formatAddress(address)}/metrics`).then((r) => r.text())
    )
    return text.split("\n").filter((line) => /^floodgate_(calls|attempts|tokens|queue_seconds_count)/.test(line))
  }).pipe(Effect.provide([client, prometheus, otlp(endpoint)]))
  for (const line of metrics) console.log(line)
  for (const [name, count] of own.spans) console.log(`collector: ${count} spans "${name}"`)
})

await Effect.runPromise(Effect.scoped(program))
