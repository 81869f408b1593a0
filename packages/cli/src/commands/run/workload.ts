/** Estimates the tokens and the duration of a run's calls, before it and while it runs. Pure. */
import type * as Forecast from "floodgate/Forecast"
import { Amounts, Latency } from "floodgate/internal"
import type { RunEvent } from "./pipeline.ts"
import * as Steps from "./steps.ts"

/** The instructions of a call, in tokens. */
const promptTokens = 250

/** The tokens of a text in UTF-8, as the library first estimates them. */
export const tokensOf = (bytes: number): number => Math.ceil(bytes / Amounts.bytesPerToken)

/** The calls of an agent. Each prompt contains the answers before it. */
export const ofDocuments = (bytes: number, outputTokens: number): ReadonlyArray<Forecast.Call> =>
  [tokensOf(bytes), outputTokens, 2 * outputTokens, 2 * outputTokens, 2 * outputTokens].map((inputTokens) => ({
    inputTokens: inputTokens + promptTokens,
    outputTokens
  }))

/** The call of the orchestrator after all agents. */
export const ofMerge = (agents: number, outputTokens: number): Forecast.Call => ({
  inputTokens: agents * outputTokens + promptTokens,
  outputTokens
})

/** A call and how long the provider works on it, in milliseconds. */
export interface TimedCall extends Forecast.Call {
  readonly duration: number
}

/** The answered calls of each step, in the order of their answers. */
export type AnsweredCalls = ReadonlyMap<string, ReadonlyArray<TimedCall>>

/** No call is answered yet. */
export const nothing: AnsweredCalls = new Map()

/** Adds an answer and its duration. An answer without a usage, which a proxy may have removed, is ignored. */
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

/** The duration that a forecast assumes. */
const guessedMillis = (call: Forecast.Call): number => Latency.millisOf(Latency.usual, call)

const mean = (calls: ReadonlyArray<TimedCall>, of: (call: TimedCall) => number): number =>
  calls.reduce((sum, call) => sum + of(call), 0) / calls.length

/** Predicts the remaining calls from at least one answer. */
export interface CallPredictor {
  /**
   * The calls of an agent with so many bytes of documents. Each copies an answered call of its step, which depends on the agent's
   * number: the agent that ends last has long calls, and a mean would hide it.
   */
  readonly ofAgent: (bytes: number, number: number) => ReadonlyArray<TimedCall>
  /** The call that merges the texts of so many agents. Its answer is as long as the longest answer. */
  readonly ofMerge: (agents: number) => TimedCall
}

/** Predicts the remaining calls from those that were answered. */
export const expect = (learned: AnsweredCalls): CallPredictor => {
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
      const longest = seen.reduce((max, call) => Math.max(max, call.outputTokens), 0)
      return timed({ inputTokens: agents * finished + promptTokens, outputTokens: longest })
    }
  }
}
