/** Plays scripts: waits for pauses and sub-agents, and answers as the table says. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { CountParams, Params } from "../../LlmProvider.ts"
import type { Options } from "../models.ts"
import type { AgentScript, ScriptedCall } from "./script.ts"
import * as Written from "./texts.ts"

/**
 * Plays the calls of an agent, with its pauses and its sub-agents. It ends when the last call and all sub-agents have ended, and fails with
 * the first failure of `call`. A failure of a sub-agent counts when the agent waits for it.
 *
 * **Example** (Two turns with a pause of 5 seconds)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { LlmProvider } from "floodgate/LlmProvider"
 * import { ProviderSim, Sessions, Simulation } from "floodgate/testing"
 *
 * const { sessions } = Sessions.parse("session,path,pause,input,cached,output\nfix,0,0,16000,0,300\n,,5,17000,16000,200\n")
 * const script = Sessions.script(sessions[0]!)
 *
 * const program = Effect.gen(function* () {
 *   const { create } = yield* LlmProvider
 *   yield* Sessions.run(script, ({ params }) => create(params))
 *   return yield* (yield* ProviderSim.ProviderSim).log
 * }).pipe(Effect.provide(ProviderSim.layer({ cache: "breakpoints", ...Sessions.providerOptions([script]) })))
 *
 * const { value: log } = await Effect.runPromise(Simulation.run(program))
 * log.map(({ cacheReadTokens, inputTokens }) => [inputTokens, cacheReadTokens]) // => [[16_000, 0], [1_000, 16_000]]
 * ```
 *
 * @stability unstable
 * @category playing
 * @since 0.5.0
 */
export const run = <A, E, R>(
  { calls }: AgentScript,
  call: (call: ScriptedCall) => Effect.Effect<A, E, R>
): Effect.Effect<void, E, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      /** The sub-agents that work in the background, each with the index of the call that waits for it. */
      const background: Array<{ readonly fiber: Fiber.Fiber<void, E>; readonly until: number }> = []
      const joined = (index: number) =>
        Effect.forEach(background, ({ fiber, until }) => (until <= index ? Fiber.join(fiber) : Effect.void), {
          concurrency: "unbounded",
          discard: true
        })
      for (const [index, one] of calls.entries()) {
        if (index === 0) yield* Effect.sleep(one.pauseMillis)
        yield* call(one)
        for (const agent of one.subAgents) {
          const fiber = yield* Effect.forkScoped(run(agent, call))
          background.push({ fiber, until: index + 1 + agent.turnsMeanwhile })
        }
        const paused = Effect.sleep(calls[index + 1]?.pauseMillis ?? 0)
        yield* Effect.all([joined(index + 1), paused], { concurrency: "unbounded", discard: true })
      }
      yield* joined(Infinity)
    })
  )

const callsOf = function* ({ calls }: AgentScript): Generator<ScriptedCall> {
  for (const call of calls) {
    yield call
    for (const agent of call.subAgents) yield* callsOf(agent)
  }
}

/** The name of the last text of a request, which is that of its call: `agent/index`. */
const nameOf = ({ messages }: CountParams | Params): string => {
  const block = messages.at(-1)?.content[0]
  return typeof block === "object" && block.type === "text" ? Written.nameOf(block.text) : ""
}

/**
 * The options with which a simulated provider counts the requests of scripts, and answers as long as the table says.
 *
 * @stability unstable
 * @category playing
 * @since 0.5.0
 */
export const providerOptions = (
  scripts: ReadonlyArray<AgentScript>
): Pick<Options, "inputTokens" | "outputTokens" | "reply"> => {
  const outputs = new Map(
    scripts.flatMap((script) =>
      [...callsOf(script)].map(({ agent, index, outputTokens }) => [`${agent}/${index}`, outputTokens])
    )
  )
  return {
    inputTokens: Written.inputTokens,
    outputTokens: (params) => outputs.get(nameOf(params)) ?? 1,
    reply: () => "ok"
  }
}
