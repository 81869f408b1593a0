/** Writes the log of a floodgate to standard error, for programs without Effect. */
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Budget from "../../Budget.ts"
import { isWanted } from "../../budget/log.ts"

/** Writes to standard error, because standard output belongs to the program. */
const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
  const level = logLevel === "Info" ? "" : `${logLevel.toLowerCase()}: `
  const why = cause.reasons.length === 0 ? "" : `: ${Cause.pretty(cause)}`
  fiber.getRef(Console.Console).error(`floodgate: ${level}${[message].flat().map(String).join(" ")}${why}`)
})

/**
 * The lines of the log, if they are wanted, and the logger, which also writes warnings if they are not. An invalid `FLOODGATE_LOG` counts
 * as false.
 */
export const layers = (log: boolean | undefined) => {
  // A new provider, because Effect's default keeps the environment of its first use, and a program may load its own later.
  const asked = Effect.suspend(() =>
    Effect.provideService(isWanted, ConfigProvider.ConfigProvider, ConfigProvider.fromEnv())
  )
  const isOn = log === undefined ? Effect.orElseSucceed(asked, () => false) : Effect.succeed(log)
  const where = <A, R>(on: Layer.Layer<A, never, R>) =>
    Layer.unwrap(Effect.map(isOn, (isOn): Layer.Layer<A | never, never, R> => (isOn ? on : (Layer.empty as never))))
  return { lines: where(Budget.layerLog), logger: Logger.layer([logger]) }
}
