/** Writes the log of a floodgate to standard error, for programs without Effect. */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Budget from "../../Budget.ts"
import { wanted } from "../../budget/log.ts"
import type { ProcessEnd, Stdio } from "./liveLine.ts"
import type { Options } from "./options.ts"

/** Writes to standard error, because standard output belongs to the program. */
const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
  const level = logLevel === "Info" ? "" : `${logLevel.toLowerCase()}: `
  const why = cause.reasons.length === 0 ? "" : `: ${Cause.pretty(cause)}`
  fiber.getRef(Console.Console).error(`floodgate: ${level}${[message].flat().map(String).join(" ")}${why}`)
})

/** The process, where the runtime has one. */
const { process: host } = globalThis as {
  readonly process?: ProcessEnd & { readonly stderr?: Stdio; readonly stdout?: Stdio }
}

/** The live line, where standard error is a terminal. It is loaded there only, so that no bundle begins with it. */
const liveLine = Layer.effectDiscard(
  Effect.flatMap(Budget.TokenBudget, (budget) => {
    const { stderr, stdout } = host ?? {}
    if (stderr?.isTTY !== true) return Effect.void
    return Effect.promise(() => import("./liveLine.ts")).pipe(
      Effect.flatMap(({ show }) => show(budget, stderr, stdout?.isTTY === true ? [stdout] : [], host)),
      Effect.forkScoped
    )
  })
)

/** The environment's choice. An invalid one is silence, and nobody looks at the terminal of a build or at one that cannot erase a line. */
const asked = Effect.gen(function* () {
  const chosen = yield* Config.option(wanted)
  if (Option.isSome(chosen)) return chosen.value
  const ci = yield* Config.withDefault(Config.String("CI"), "")
  const terminal = yield* Config.withDefault(Config.String("TERM"), "")
  return ci === "" && terminal !== "dumb" ? "line" : false
}).pipe(Effect.orElseSucceed(() => false as const))

/** The log or the live line while calls wait, and the logger, which also writes warnings if nothing else is written. */
export const layers = (log: Options["log"]) => {
  const chosen = Effect.suspend((): Effect.Effect<boolean | "line"> =>
    log === undefined
      ? // A new provider, because Effect's default keeps the environment of its first use, and a program may load its own later.
        Effect.provideService(asked, ConfigProvider.ConfigProvider, ConfigProvider.fromEnv())
      : Effect.succeed(log)
  )
  const lines = Effect.map(chosen, (chosen): Layer.Layer<never, never, Budget.TokenBudget> => {
    if (chosen === "line") return liveLine
    return chosen ? Budget.layerLog : Layer.empty
  })
  return { lines: Layer.unwrap(lines), logger: Logger.layer([logger]) }
}
