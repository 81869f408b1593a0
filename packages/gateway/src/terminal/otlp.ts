/** Sends traces, metrics and logs to a collector with Effect's exporters. A collector that is down or slow harms no call. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as OtlpExporter from "effect/observability/OtlpExporter"
import * as OtlpLogger from "effect/observability/OtlpLogger"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { hostname } from "node:os"
import { pid } from "node:process"
import { innermost } from "./errors.ts"
import type { OtlpSettings, Service, SignalSettings } from "./otlpSettings.ts"

/** How long the last telemetry may take when the command ends: as long as Effect's exporters try at most to send a batch again. */
const longestFlush = "3 seconds"

/** How long each exporter may then wait for a request that was under way before. */
const longestRest = "500 millis"

/**
 * More requests at once than a collector that keeps up ever has: a batch has 1,000 spans or log lines, and there is at most one
 * request a second for each signal. What a slow collector does not take beyond them is dropped, so that memory stays bounded.
 */
const maxRequests = 8

// -----------------------------------------------------------------------------
// The client
// -----------------------------------------------------------------------------

/** Describes the refusal of a collector; undefined if it has accepted. */
const refusalOf = ({ status }: HttpClientResponse.HttpClientResponse): string | undefined => {
  if (status < 300) return undefined
  if (status === 401 || status === 403) return `it answers ${status}: check OTEL_EXPORTER_OTLP_HEADERS`
  if (status === 404) return `it answers 404: check the path of the address`
  return `it answers ${status}`
}

/** The client of the exporters of one signal. It says once that a collector is down, until it takes something again. */
class Sending {
  private readonly shown: string
  private readonly timeout: Duration.Duration
  private readonly load: { requests: number; isClosing: boolean }
  private isDown = false

  constructor({ timeoutMillis, url }: SignalSettings, load: Sending["load"]) {
    const { origin, pathname } = new URL(url)
    this.shown = `${origin}${pathname}`
    this.timeout = Duration.millis(timeoutMillis)
    this.load = load
  }

  /** Sends one request. Nothing is retried once the command ends. */
  readonly send = <E, R>(
    sending: Effect.Effect<HttpClientResponse.HttpClientResponse, E, R>,
    _: HttpClientRequest.HttpClientRequest
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, E, R> =>
    Effect.suspend(() => {
      const { load } = this
      if (load.requests >= maxRequests) return this.lost("it is too slow", Effect.die("too many requests"))
      load.requests++
      return sending.pipe(
        // The body belongs to the time, too. It is kept, so that the exporter can read it.
        Effect.tap((response) => Effect.ignore(response.arrayBuffer)),
        Effect.timeoutOrElse({
          duration: this.timeout,
          orElse: () => this.lost(`it did not answer within ${Duration.format(this.timeout)}`, Effect.die("timeout"))
        }),
        Effect.catch((error) => this.lost(innermost(error), load.isClosing ? Effect.die(error) : Effect.fail(error))),
        Effect.flatMap((response) => this.answered(response)),
        Effect.ensuring(Effect.sync(() => load.requests--))
      )
    })

  private answered(response: HttpClientResponse.HttpClientResponse): Effect.Effect<typeof response> {
    const refusal = refusalOf(response)
    if (refusal === undefined) {
      this.isDown = false
      return Effect.succeed(response)
    }
    return this.lost(refusal, this.load.isClosing ? Effect.die(refusal) : Effect.succeed(response))
  }

  /** Says once why telemetry is lost. */
  private lost<A, E>(why: string, next: Effect.Effect<A, E>): Effect.Effect<A, E> {
    if (this.isDown) return next
    this.isDown = true
    return Effect.andThen(
      Effect.logWarning(
        `telemetry cannot be sent to ${this.shown}: ${why}; calls go on, and it is tried again each minute`
      ),
      next
    )
  }
}

// -----------------------------------------------------------------------------
// The exporters
// -----------------------------------------------------------------------------

const formats = { "http/json": OtlpSerialization.layerJson, "http/protobuf": OtlpSerialization.layerProtobuf }

/** The identity of this process. Without an instance, the counters of several gateways would be taken for those of one. */
const resourceOf = ({ name, version }: Service, { attributes, serviceName = name }: OtlpSettings) => ({
  serviceName,
  serviceVersion: attributes["service.version"] ?? version,
  attributes: { "service.instance.id": attributes["service.instance.id"] ?? `${hostname()}/${pid}` }
})

const exporters = (service: Service, settings: OtlpSettings, load: Sending["load"]) => {
  const resource = resourceOf(service, settings)
  const made = (
    signal: SignalSettings | undefined,
    make: (
      options: Pick<SignalSettings, "compression" | "url"> & {
        readonly headers: Readonly<Record<string, string>>
        readonly resource: typeof resource
        readonly shutdownTimeout: Duration.Input
      }
    ) => Layer.Layer<OtlpExporter.Flusher, never, HttpClient.HttpClient | OtlpSerialization.OtlpSerialization>
  ): Layer.Layer<OtlpExporter.Flusher> => {
    if (signal === undefined) return OtlpExporter.layerFlusher
    const { compression, headers, protocol, url } = signal
    const { send } = new Sending(signal, load)
    const client = Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpClient.transform(send)))
    return make({ url, compression, headers: Redacted.value(headers), resource, shutdownTimeout: longestRest }).pipe(
      Layer.provide(Layer.merge(Layer.provide(client, FetchHttpClient.layer), formats[protocol]))
    )
  }
  const { metricMillis, temporality } = settings
  return Layer.mergeAll(
    made(settings.traces, OtlpTracer.layer),
    made(settings.logs, OtlpLogger.layer),
    made(settings.metrics, (options) =>
      OtlpMetrics.layer({ ...options, temporality, exportInterval: Duration.millis(metricMillis) })
    )
  )
}

/** Runs a command with exporters, which send what is left when it ends. */
export const sending = <A, E, R>(
  service: Service,
  settings: OtlpSettings,
  command: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.scopedWith(
    Effect.fnUntraced(function* (scope) {
      const load = { requests: 0, isClosing: false }
      const context = yield* Layer.buildWithScope(exporters(service, settings, load), scope)
      const { span } = service
      const flushed = Effect.suspend(() => {
        load.isClosing = true
        return Effect.timeoutOption(
          OtlpExporter.Flusher.use(({ flush }) => flush),
          longestFlush
        )
      })
      // The error may repeat what a provider has said, so the span does not get it.
      const traced =
        span === undefined || settings.traces === undefined
          ? command
          : Effect.flatten(Effect.withSpan(Effect.exit(command), span))
      yield* Scope.addFinalizer(scope, Effect.interruptible(Effect.provideContext(flushed, context)))
      return yield* Effect.provideContext(traced, context)
    })
  )
