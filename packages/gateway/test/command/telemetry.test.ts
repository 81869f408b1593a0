/** What `floodgate-gateway` says of variables of OpenTelemetry that it cannot use. It ends before it listens. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gateway } from "../support/cli.ts"
import { services } from "../support/services.ts"

const secret = "CaNaRy7Zq94xW2fKd81"
const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" }

const ended = (env: Record<string, string>) => Effect.provide(gateway("--port", "0"), services({ env }))

describe("telemetry", () => {
  it.effect.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" }, "OTEL_EXPORTER_OTLP_ENDPOINT: expected an address"],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: secret }, "OTEL_EXPORTER_OTLP_ENDPOINT: expected an address"],
    [
      { OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: `http://user:${secret}@127.0.0.1:4318/v1/logs` },
      "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: expected an address without user and password"
    ],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: secret }, "OTEL_EXPORTER_OTLP_HEADERS: expected pairs"],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: `key=%${secret}` }, "OTEL_EXPORTER_OTLP_HEADERS: expected pairs"],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: `key=${secret}%0a` }, "OTEL_EXPORTER_OTLP_HEADERS: expected pairs"],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: `a b=${secret}` }, "OTEL_EXPORTER_OTLP_HEADERS: expected pairs"],
    [
      { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: secret },
      "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or http/json or grpc"
    ],
    [
      { ...endpoint, OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: "brotli" },
      "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: expected gzip or none"
    ],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: "10s" }, "OTEL_EXPORTER_OTLP_TIMEOUT: expected milliseconds"],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: "0" }, "OTEL_EXPORTER_OTLP_TIMEOUT: expected milliseconds"],
    [{ ...endpoint, OTEL_METRIC_EXPORT_INTERVAL: "-1" }, "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds"],
    [{ ...endpoint, OTEL_RESOURCE_ATTRIBUTES: "team" }, "OTEL_RESOURCE_ATTRIBUTES: expected pairs"],
    [{ ...endpoint, OTEL_SDK_DISABLED: "maybe" }, "OTEL_SDK_DISABLED: expected true or false"],
    [
      { ...endpoint, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: "sum" },
      "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: expected cumulative or delta or lowmemory"
    ]
  ])("refuses a value that cannot be used, without showing it: %o", ([env, why]) =>
    Effect.gen(function* () {
      const { code, err } = yield* ended(env as Record<string, string>)
      assert.strictEqual(code, 2)
      assert.include(err.replaceAll(/\s+/g, " "), `floodgate-gateway: ${why as string}`)
      assert.notInclude(err, secret)
    })
  )
})
