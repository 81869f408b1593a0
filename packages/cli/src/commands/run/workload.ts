/** What the calls of a run use, as far as it is known before it and while it runs. Pure. */
import type * as Forecast from "floodgate/Forecast"
import * as Latency from "../../latency.ts"
import type { RunEvent } from "./pipeline.ts"
import * as Steps from "./steps.ts"

/** English text in UTF-8, as the library estimates it before it has learned better. */
const bytesPerToken = 2.7

/** What the instructions of a call come to. */
const promptTokens = 250

/** The estimated tokens of a text, from its bytes. */
export const tokensOf = (bytes: number): number => Math.ceil(bytes / bytesPerToken)

/** The calls of an agent. Each prompt contains the answers before it. */
export const ofDocuments = (bytes: number, outputTokens: number): ReadonlyArray<Forecast.Call> =>
  [tokensOf(bytes), outputTokens, 2 * outputTokens, 2 * outputTokens, 2 * outputTokens].map((inputTokens) => ({
    inputTokens: inputTokens + promptTokens,
    outputTokens
  }))

/** What the orchestrator asks when all agents are done. */
export const ofMerge = (agents: number, outputTokens: number): Forecast.Call => ({
  inputTokens: agents * outputTokens + promptTokens,
  outputTokens
})

/** A call and how long the provider works on it, in milliseconds. */
export interface TimedCall extends Forecast.Call {
  readonly duration: number
}

/** What the answers so far say: the calls of each step, in the order in which they came back. */
export type AnsweredCalls = ReadonlyMap<string, ReadonlyArray<TimedCall>>

/** Before the first answer. */
export const nothing: AnsweredCalls = new Map()

/** Learns from an answer and its duration. A proxy may leave the usage out. */
export const learn = (
  learned: AnsweredCalls,
  { inputTokens, outputTokens, step }: Extract<RunEvent, { event: "answered" }>,
  seconds: number
): AnsweredCalls =>
  inputTokens >= 0 && outputTokens >= 0 && inputTokens + outputTokens < Infinity
    ? new Map(learned).set(step, [
        ...(learned.get(step) ?? []),
        { inputTokens, outputTokens, duration: 1_000 * seconds }
      ])
    : learned

/** As a forecast guesses it. */
const guessedMillis = (call: Forecast.Call): number => Latency.millisOf(Latency.usual, call)

const mean = (calls: ReadonlyArray<TimedCall>, of: (call: TimedCall) => number): number =>
  calls.reduce((sum, call) => sum + of(call), 0) / calls.length

/** What the answers so far, of which there is one at least, let expect of the calls that are left. */
export interface Prediction {
  /**
   * The calls of an agent that has so many bytes of documents. Each is as one of its step was, and those of the agents
   * with other numbers as others: the last to end is one whose calls are long, which a mean would not show.
   */
  readonly ofAgent: (bytes: number, number: number) => ReadonlyArray<TimedCall>
  /** The call that reads what so many agents finished with, and says at least as much as each of them. */
  readonly ofMerge: (agents: number) => TimedCall
}

/** Predicts the remaining calls from those that were answered. */
export const expect = (learned: AnsweredCalls): Prediction => {
  const seen = [...learned.values()].flat()
  const outputTokens = mean(seen, (call) => call.outputTokens)
  const slowness = mean(seen, ({ duration }) => duration) / mean(seen, guessedMillis)
  const timed = (guess: Forecast.Call): TimedCall => ({ ...guess, duration: slowness * guessedMillis(guess) })
  return {
    ofAgent: (bytes, number) =>
      ofDocuments(bytes, outputTokens).map((guess, index) => {
        const alike = learned.get(Steps.steps[index]!)
        return alike === undefined ? timed(guess) : alike[number % alike.length]!
      }),
    ofMerge: (agents) => {
      const finished = mean(learned.get("finish") ?? seen, (call) => call.outputTokens)
      const longest = seen.reduce((most, call) => Math.max(most, call.outputTokens), 0)
      return timed({ inputTokens: agents * finished + promptTokens, outputTokens: longest })
    }
  }
}
