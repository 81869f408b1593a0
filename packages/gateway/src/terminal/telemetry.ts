/**
 * Telemetry of a command: traces, metrics and logs for an OpenTelemetry collector, if the environment names one. Otherwise nothing of
 * it is loaded.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Exit from "./exit.ts"
import { endpoints, parse, type Service, variables } from "./otlpSettings.ts"
import * as Print from "./print.ts"

/** The values of variables. An empty one counts as not set, as OpenTelemetry specifies. */
const valuesOf = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
  const values: Record<string, string> = {}
  for (const name of names) {
    const text = Option.getOrElse(yield* Config.option(Config.String(name)), () => "").trim()
    if (text !== "") values[name] = text
  }
  return values
}, Effect.orDie)

/** Runs a command, and sends its telemetry to the collector that the environment names. */
export const around =
  (service: Service) =>
  <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E | Exit.CommandError, R> =>
    Effect.gen(function* () {
      if (Object.keys(yield* valuesOf(endpoints)).length === 0) return yield* command
      const settings = parse(yield* valuesOf(variables))
      if (Result.isFailure(settings)) return yield* Exit.failure("usage", settings.failure)
      if (settings.success === undefined) return yield* command
      for (const problem of settings.success.ignored) yield* Print.err(`floodgate: ${problem}`)
      const { sending } = yield* Effect.promise(() => import("./otlp.ts"))
      return yield* sending(service, settings.success, command)
    })
