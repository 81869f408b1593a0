/** An OpenTelemetry collector that decodes what it gets, in both formats of OTLP over HTTP. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import * as Zlib from "node:zlib"

// -----------------------------------------------------------------------------
// Protobuf, by the definitions of https://github.com/open-telemetry/opentelemetry-proto (v1)
// -----------------------------------------------------------------------------

type Field = readonly [name: string, type: string, isRepeated?: true]
type Message = Readonly<Record<number, Field>>

const attributes = (at: number): Message => ({ [at]: ["attributes", "KeyValue", true] })
const point: Message = { 2: ["startTimeUnixNano", "fixed64"], 3: ["timeUnixNano", "fixed64"] }

const messages: Readonly<Record<string, Message>> = {
  Traces: { 1: ["resourceSpans", "ResourceSpans", true] },
  ResourceSpans: { 1: ["resource", "Resource"], 2: ["scopeSpans", "ScopeSpans", true] },
  ScopeSpans: { 1: ["scope", "Scope"], 2: ["spans", "Span", true] },
  Span: {
    1: ["traceId", "hex"],
    2: ["spanId", "hex"],
    4: ["parentSpanId", "hex"],
    5: ["name", "string"],
    6: ["kind", "varint"],
    7: ["startTimeUnixNano", "fixed64"],
    8: ["endTimeUnixNano", "fixed64"],
    ...attributes(9),
    11: ["events", "Event", true],
    15: ["status", "Status"]
  },
  Event: { 1: ["timeUnixNano", "fixed64"], 2: ["name", "string"], ...attributes(3) },
  Status: { 2: ["message", "string"], 3: ["code", "varint"] },
  Metrics: { 1: ["resourceMetrics", "ResourceMetrics", true] },
  ResourceMetrics: { 1: ["resource", "Resource"], 2: ["scopeMetrics", "ScopeMetrics", true] },
  ScopeMetrics: { 1: ["scope", "Scope"], 2: ["metrics", "Metric", true] },
  Metric: {
    1: ["name", "string"],
    2: ["description", "string"],
    3: ["unit", "string"],
    5: ["gauge", "Gauge"],
    7: ["sum", "Sum"],
    9: ["histogram", "Histogram"]
  },
  Gauge: { 1: ["dataPoints", "NumberPoint", true] },
  Sum: {
    1: ["dataPoints", "NumberPoint", true],
    2: ["aggregationTemporality", "varint"],
    3: ["isMonotonic", "varint"]
  },
  Histogram: { 1: ["dataPoints", "HistogramPoint", true], 2: ["aggregationTemporality", "varint"] },
  NumberPoint: { ...point, 4: ["asDouble", "double"], 6: ["asInt", "fixed64"], ...attributes(7) },
  HistogramPoint: {
    ...point,
    4: ["count", "fixed64"],
    5: ["sum", "double"],
    6: ["bucketCounts", "fixed64", true],
    7: ["explicitBounds", "double", true],
    ...attributes(9)
  },
  Logs: { 1: ["resourceLogs", "ResourceLogs", true] },
  ResourceLogs: { 1: ["resource", "Resource"], 2: ["scopeLogs", "ScopeLogs", true] },
  ScopeLogs: { 1: ["scope", "Scope"], 2: ["logRecords", "LogRecord", true] },
  LogRecord: {
    1: ["timeUnixNano", "fixed64"],
    2: ["severityNumber", "varint"],
    3: ["severityText", "string"],
    5: ["body", "AnyValue"],
    ...attributes(6),
    9: ["traceId", "hex"],
    10: ["spanId", "hex"]
  },
  Resource: attributes(1),
  Scope: { 1: ["name", "string"], 2: ["version", "string"] },
  KeyValue: { 1: ["key", "string"], 2: ["value", "AnyValue"] },
  AnyValue: {
    1: ["stringValue", "string"],
    2: ["boolValue", "varint"],
    3: ["intValue", "varint"],
    4: ["doubleValue", "double"],
    5: ["arrayValue", "ArrayValue"]
  },
  ArrayValue: { 1: ["values", "AnyValue", true] }
}

const varint = (bytes: Buffer, from: number): readonly [value: number, next: number] => {
  let value = 0
  for (let at = from, factor = 1; ; at++, factor *= 128) {
    value += (bytes[at]! & 127) * factor
    if (bytes[at]! < 128) return [value, at + 1]
  }
}

const scalar = (type: string, bytes: Buffer): unknown => {
  if (type === "double") return bytes.readDoubleLE()
  if (type === "fixed64") return String(bytes.readBigUInt64LE())
  return type === "hex" ? bytes.toString("hex") : bytes.toString()
}

/** The values of one field: a message, a text, or numbers without tags between them. */
const valuesIn = (kind: string, bytes: Buffer): ReadonlyArray<unknown> => {
  if (kind in messages) return [decode(kind, bytes)]
  if (kind !== "double" && kind !== "fixed64") return [scalar(kind, bytes)]
  return Array.from({ length: bytes.length / 8 }, (_, index) => scalar(kind, bytes.subarray(index * 8)))
}

const decode = (type: string, bytes: Buffer): Record<string, unknown> => {
  const read: Record<string, unknown> = {}
  for (let at = 0; at < bytes.length;) {
    const [tag, start] = varint(bytes, at)
    const wire = tag & 7
    const [length, body] = wire === 2 ? varint(bytes, start) : [wire === 1 ? 8 : 4, start]
    const [number, end] = wire === 0 ? varint(bytes, start) : [0, body + length]
    at = end
    const field = messages[type]![tag >>> 3]
    if (field === undefined) continue
    const [name, kind, isRepeated] = field
    const values = wire === 0 ? [number] : valuesIn(kind, bytes.subarray(body, end))
    if (isRepeated) read[name] = [...((read[name] ?? []) as Array<unknown>), ...values]
    else [read[name]] = values
  }
  return read
}

// -----------------------------------------------------------------------------
// The collector
// -----------------------------------------------------------------------------

type Attributes = Readonly<Record<string, unknown>>

export interface OtlpSpan {
  readonly service: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly kind: number
  readonly status: { readonly code?: number; readonly message?: string } | undefined
  readonly attributes: Attributes
}

interface DataPoint {
  readonly attributes: Attributes
  readonly asDouble?: number
  readonly count?: number | string
  readonly sum?: number
  readonly explicitBounds?: ReadonlyArray<number>
}

interface OtlpMetric {
  readonly service: string
  readonly name: string
  readonly unit: string
  readonly temporality: number | undefined
  readonly points: ReadonlyArray<DataPoint>
}

interface OtlpLog {
  readonly service: string
  readonly severity: string
  readonly body: unknown
}

/** A message as it was decoded. */
type Decoded = Readonly<Record<string, unknown>>

const one = (value: unknown): Decoded => (value ?? {}) as Decoded
const many = (value: unknown): ReadonlyArray<Decoded> => (value ?? []) as ReadonlyArray<Decoded>
const text = (value: unknown): string => String(value ?? "")

const valueOf = (given: unknown): unknown => {
  const { arrayValue, ...value } = one(given)
  return arrayValue === undefined ? Object.values(value)[0] : many(one(arrayValue)["values"]).map(valueOf)
}
const attributesOf = (given: unknown): Attributes =>
  Object.fromEntries(many(given).map(({ key, value }) => [text(key), valueOf(value)]))

const kinds = { "/v1/traces": "Traces", "/v1/metrics": "Metrics", "/v1/logs": "Logs" } as const

/** Serves a collector. `answer` may refuse or never answer; by default everything is taken. */
export const collector = Effect.fnUntraced(function* (
  answer: (response: Http.ServerResponse) => void = (response) => response.end("{}")
): Effect.fn.Return<
  {
    readonly url: string
    readonly requests: ReadonlyArray<{
      readonly path: string
      readonly headers: Http.IncomingHttpHeaders
      readonly text: string
    }>
    readonly spans: () => ReadonlyArray<OtlpSpan>
    readonly metrics: () => ReadonlyArray<OtlpMetric>
    readonly logs: () => ReadonlyArray<OtlpLog>
    readonly resources: () => ReadonlyArray<Attributes>
    readonly close: Effect.Effect<void>
  },
  never,
  Scope.Scope
> {
  const requests: Array<{ path: string; headers: Http.IncomingHttpHeaders; text: string; message: Decoded }> = []
  const server = Http.createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk) => chunks.push(chunk))
    request.on("end", () => {
      const sent = Buffer.concat(chunks)
      const body = request.headers["content-encoding"] === "gzip" ? Zlib.gunzipSync(sent) : sent
      const path = request.url ?? ""
      const isJson = request.headers["content-type"]?.startsWith("application/json") === true
      const kind = kinds[path as keyof typeof kinds]
      const message = isJson ? JSON.parse(body.toString()) : decode(kind, body)
      requests.push({
        path,
        headers: request.headers,
        text: body.toString("latin1") + JSON.stringify(message),
        message
      })
      answer(response)
    })
  })
  yield* Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void)))
  const close = Effect.sync(() => {
    server.closeAllConnections()
    server.close()
  })
  yield* Effect.addFinalizer(() => close)
  /** All items of one kind, each with the attributes of its resource. */
  const all = (resources: string, scopes: string, items: string) =>
    requests
      .flatMap(({ message }) => many(message[resources]))
      .flatMap((each) => {
        const resource = attributesOf(one(each["resource"])["attributes"])
        const service = text(resource["service.name"])
        return many(each[scopes]).flatMap((scope) => many(scope[items]).map((item) => ({ item, resource, service })))
      })
  const spans = () => all("resourceSpans", "scopeSpans", "spans")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    close,
    resources: () => spans().map(({ resource }) => resource),
    spans: () =>
      spans().map(({ item, service }) => ({
        service,
        traceId: text(item["traceId"]),
        spanId: text(item["spanId"]),
        parentSpanId: text(item["parentSpanId"]) || undefined,
        name: text(item["name"]),
        kind: Number(item["kind"]),
        status: one(item["status"]),
        attributes: attributesOf(item["attributes"])
      })),
    metrics: () =>
      all("resourceMetrics", "scopeMetrics", "metrics").map(({ item, service }) => {
        const data = one(item["gauge"] ?? item["sum"] ?? item["histogram"])
        const temporality = data["aggregationTemporality"]
        return {
          service,
          name: text(item["name"]),
          unit: text(item["unit"]),
          temporality: temporality === undefined ? undefined : Number(temporality),
          points: many(data["dataPoints"]).map((point) => ({ ...point, attributes: attributesOf(point["attributes"]) }))
        }
      }),
    logs: () =>
      all("resourceLogs", "scopeLogs", "logRecords").map(({ item, service }) => ({
        service,
        severity: text(item["severityText"]),
        body: valueOf(item["body"])
      }))
  }
})
