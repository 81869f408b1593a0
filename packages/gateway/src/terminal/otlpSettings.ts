/**
 * The destinations of telemetry, by the variables that OpenTelemetry has for every program.
 *
 * Sources: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"

/** The program whose telemetry it is. */
export interface Service {
  /** Its name where the environment does not name it. */
  readonly name: string
  readonly version: string
  /** The span around all that it does. @default none, for a service that runs for ever */
  readonly span?: string | undefined
}

/** The signals that are sent, each to its own address. */
const signals = ["traces", "metrics", "logs"] as const
type OtlpSignal = (typeof signals)[number]

/** The settings of one signal. */
export interface SignalSettings {
  readonly url: string
  readonly headers: Redacted.Redacted<Readonly<Record<string, string>>>
  readonly protocol: "http/protobuf" | "http/json"
  readonly compression: "gzip" | "none"
  /** How long one request may take, in milliseconds. */
  readonly timeoutMillis: number
}

/** The settings in the variables. */
export interface OtlpSettings extends Readonly<Partial<Record<OtlpSignal, SignalSettings>>> {
  readonly serviceName: string | undefined
  /** The attributes of `OTEL_RESOURCE_ATTRIBUTES`. */
  readonly attributes: Readonly<Record<string, string>>
  /** How often metrics are sent, in milliseconds. */
  readonly metricMillis: number
  readonly temporality: "cumulative" | "delta"
  /** Features that are asked for and not supported. */
  readonly ignored: ReadonlyArray<string>
}

/** The values of the variables that are set, by name. */
export type Variables = Readonly<Record<string, string>>

/** The variables of one signal, and those of all signals that apply where it has none. */
const kinds = ["ENDPOINT", "HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT"] as const
type OtlpVariable = (typeof kinds)[number]

const ofAll = (kind: OtlpVariable): string => `OTEL_EXPORTER_OTLP_${kind}`
const ofOne = (signal: OtlpSignal, kind: OtlpVariable): string => `OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_${kind}`
const exporterOf = (signal: OtlpSignal): string => `OTEL_${signal.toUpperCase()}_EXPORTER`

const interval = "OTEL_METRIC_EXPORT_INTERVAL"
const preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
const disabled = "OTEL_SDK_DISABLED"
const serviceName = "OTEL_SERVICE_NAME"
const resource = "OTEL_RESOURCE_ATTRIBUTES"

/** Without one of these nothing is sent, and no other variable matters. */
export const endpoints: ReadonlyArray<string> = [
  ofAll("ENDPOINT"),
  ...signals.map((signal) => ofOne(signal, "ENDPOINT"))
]

/** All variables. */
export const variables: ReadonlyArray<string> = [
  ...kinds.map(ofAll),
  ...signals.flatMap((signal) => [...kinds.map((kind) => ofOne(signal, kind)), exporterOf(signal)]),
  interval,
  preference,
  disabled,
  serviceName,
  resource
]

// -----------------------------------------------------------------------------
// Values
// -----------------------------------------------------------------------------

/** A value that cannot be used. It is not shown, because it may hold a secret. */
class Unusable extends Error {
  constructor(name: string, expected: string) {
    super(`${name}: expected ${expected}`)
  }
}

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** Reads `name=value` pairs with commas between them. */
const pairs = (name: string, text: string, isValid: (key: string, value: string) => boolean) => {
  const read: Record<string, string> = {}
  for (const pair of text.split(",").filter((pair) => pair.trim() !== "")) {
    const [, key = "", given = ""] = /^([^=]*)=(.*)$/s.exec(pair) ?? []
    const value = decoded(given.trim())
    const at = decoded(key.trim())
    if (at === undefined || at === "" || value === undefined || !isValid(at, value)) {
      throw new Unusable(name, "pairs such as name=value,name=value, with values in percent-encoding")
    }
    read[at] = value
  }
  return read
}

const isHeader = (name: string, value: string): boolean =>
  /^[\w!#$%&'*+.^`|~-]+$/.test(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(value)

/** Reads the address of a signal. An address for all signals gets the path of the signal. */
const addressOf = (name: string, text: string, path: string): string => {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new Unusable(name, "an address such as http://127.0.0.1:4318")
  }
  if (url.username !== "" || url.password !== "") {
    throw new Unusable(
      name,
      `an address without user and password, which belong into ${ofAll("HEADERS")}, as in authorization=Basic%20...`
    )
  }
  if (path !== "") url.pathname = `${url.pathname.replace(/\/$/, "")}${path}`
  return url.href
}

const longestMillis = 2 ** 31 - 1

const millisOf = (name: string, text: string): number => {
  const millis = Number(text)
  if (!/^\d+$/.test(text) || millis < 1 || millis > longestMillis) {
    throw new Unusable(name, `milliseconds, a whole number from 1 to ${longestMillis}`)
  }
  return millis
}

const oneOf = <const Value extends string>(name: string, text: string, values: ReadonlyArray<Value>): Value => {
  const found = values.find((value) => value === text.toLowerCase())
  if (found === undefined) throw new Unusable(name, values.join(" or "))
  return found
}

// -----------------------------------------------------------------------------
// Settings
// -----------------------------------------------------------------------------

const without = (signal: OtlpSignal, name: string, way: string): string => `${name}: sends no ${signal}, because ${way}`

/** The settings of a signal; a text that says why it is not sent, or undefined if nobody asks for it. */
const signalOf = (given: Variables, signal: OtlpSignal): SignalSettings | string | undefined => {
  const own = ofOne(signal, "ENDPOINT")
  const endpoint = given[own] === undefined ? ofAll("ENDPOINT") : own
  const address = given[endpoint]
  if (address === undefined) return undefined
  const exporter = exporterOf(signal)
  const exporters = (given[exporter] ?? "otlp").toLowerCase().split(",")
  if (!exporters.some((name) => name.trim() === "otlp")) {
    if (exporters.every((name) => name.trim() === "none")) return undefined
    return without(signal, exporter, "it supports only otlp and none")
  }
  /** Reads the variable of the signal, or else that of all signals. */
  const read = <A>(kind: OtlpVariable, use: (name: string, text: string) => A, otherwise: A): A => {
    const name = given[ofOne(signal, kind)] === undefined ? ofAll(kind) : ofOne(signal, kind)
    return given[name] === undefined ? otherwise : use(name, given[name])
  }
  const url = addressOf(endpoint, address, endpoint === own ? "" : `/v1/${signal}`)
  const protocols = ["http/protobuf", "http/json", "grpc"] as const
  const protocol = read("PROTOCOL", (name, text) => oneOf(name, text, protocols), "http/protobuf")
  if (protocol === "grpc") {
    const name = given[ofOne(signal, "PROTOCOL")] === undefined ? ofAll("PROTOCOL") : ofOne(signal, "PROTOCOL")
    return without(
      signal,
      name,
      "it cannot speak grpc: set http/protobuf, and the address of the collector's HTTP port, usually 4318"
    )
  }
  return {
    url,
    protocol,
    headers: Redacted.make(read("HEADERS", (name, text) => pairs(name, text, isHeader), {})),
    compression: read("COMPRESSION", (name, text) => oneOf(name, text, ["gzip", "none"]), "none"),
    timeoutMillis: read("TIMEOUT", millisOf, 10_000)
  }
}

const read = (given: Variables): OtlpSettings | undefined => {
  if (given[disabled] !== undefined && oneOf(disabled, given[disabled], ["true", "false"]) === "true") return undefined
  const all = signals.map((signal) => [signal, signalOf(given, signal)] as const)
  const attributes = given[resource] === undefined ? {} : pairs(resource, given[resource], () => true)
  const temporalities = ["cumulative", "delta", "lowmemory"] as const
  const temporality = given[preference] && oneOf(preference, given[preference], temporalities)
  return {
    ...Object.fromEntries(all.filter(([, settings]) => typeof settings === "object")),
    ignored: all.flatMap(([, settings]) => (typeof settings === "string" ? [settings] : [])),
    serviceName: given[serviceName] ?? attributes["service.name"],
    attributes,
    metricMillis: given[interval] === undefined ? 60_000 : millisOf(interval, given[interval]),
    temporality: temporality === "cumulative" || temporality === undefined ? "cumulative" : "delta"
  }
}

/** Reads the variables; undefined if they turn telemetry off. Fails with a sentence that names the variable. */
export const parse = (given: Variables): Result.Result<OtlpSettings | undefined, string> =>
  Result.try({
    try: () => read(given),
    catch: (thrown) => {
      if (!(thrown instanceof Unusable)) throw thrown
      return thrown.message
    }
  })
