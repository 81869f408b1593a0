import * as NodeServices from "@effect/platform-node/NodeServices"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Sink from "effect/Sink"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import * as TestConsole from "effect/testing/TestConsole"

interface Around {
  readonly env?: Record<string, string> | undefined
  /** The width of the terminal. @default no terminal */
  readonly columns?: number | undefined
  /** The answer at the terminal; an empty one is a closed standard input. @default no terminal */
  readonly answer?: string | undefined
  /** Called with texts that are written to standard error without the console. */
  readonly heard?: ((text: string) => void) | undefined
}

/**
 * The command's services in a test. Nothing is read from the test's own standard input, which may be a terminal, closed or open for
 * ever.
 */
export const services = ({ answer, columns, env = {}, heard }: Around = {}) => {
  const isTerminal = Effect.succeed(columns !== undefined)
  const closed = Effect.fail(new Terminal.QuitError({}))
  return Layer.mergeAll(
    NodeServices.layer,
    TestConsole.layer,
    ConfigProvider.layer(ConfigProvider.fromUnknown(env)),
    Layer.succeed(TerminalCapabilities.TerminalCapabilities, {
      canColor: false,
      canAnimate: false,
      canPrompt: answer !== undefined
    })
  ).pipe(
    Layer.merge(
      Stdio.layerTest({
        stdoutIsTerminal: isTerminal,
        stderrIsTerminal: isTerminal,
        stderr: () => Sink.forEach((text) => Effect.sync(() => heard?.(text.toString())))
      })
    ),
    Layer.merge(
      Layer.succeed(
        Terminal.Terminal,
        Terminal.make({
          columns: Effect.succeed(columns ?? 80),
          rows: Effect.succeed(24),
          size: Effect.map(Queue.unbounded<Terminal.Size>(), Queue.asDequeue),
          readInput: Effect.never,
          readLine: answer ? Effect.succeed(answer) : closed,
          display: () => Effect.void
        })
      )
    )
  )
}
