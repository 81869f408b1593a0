/** What the calls of a run use, as far as it can be said before and while it runs. Pure. */
import type * as Forecast from "../../Forecast.ts"
import { bytesPerToken } from "../../internal/requestSize.ts"
import type { Event } from "./pipeline.ts"
import * as Steps from "./steps.ts"

/** What the instructions of a call come to. */
const promptTokens = 250

/** What an agent asks: the answers before are part of each prompt. */
export const ofDocuments = (bytes: number, outputTokens: number): ReadonlyArray<Forecast.Call> =>
  [Math.ceil(bytes / bytesPerToken), outputTokens, 2 * outputTokens, 2 * outputTokens, 2 * outputTokens].map(
    (inputTokens) => ({ inputTokens: inputTokens + promptTokens, outputTokens })
  )

/** What the answers so far say of the calls of one step. */
interface Seen {
  readonly calls: number
  readonly inputTokens: number
  readonly outputTokens: number
}

/** What the answers so far say. */
export interface Learned {
  readonly steps: ReadonlyMap<string, Seen>
  /** How slow the provider is, as a multiple of what is guessed: that of the quickest call, since the others may have waited. */
  readonly slowness: number
}

/** Before the first answer. */
export const nothing: Learned = { steps: new Map(), slowness: Infinity }

/** As a forecast guesses it. */
const guessedMillis = (inputTokens: number, outputTokens: number): number =>
  500 + 0.01 * inputTokens + 10 * outputTokens

/** Takes note of an answer. One from an earlier run took no time; a proxy may leave the figures out. */
export const learn = (learned: Learned, event: Extract<Event, { event: "answered" }>): Learned => {
  const known = Number.isFinite(event.inputTokens) && Number.isFinite(event.outputTokens)
  if (event.reused || !known || event.inputTokens < 0 || event.outputTokens < 0) return learned
  const { inputTokens, outputTokens, seconds, step } = event
  const before = learned.steps.get(step) ?? { calls: 0, inputTokens: 0, outputTokens: 0 }
  return {
    steps: new Map(learned.steps).set(step, {
      calls: before.calls + 1,
      inputTokens: before.inputTokens + inputTokens,
      outputTokens: before.outputTokens + outputTokens
    }),
    slowness: Math.min(learned.slowness, (1_000 * seconds) / guessedMillis(inputTokens, outputTokens))
  }
}

const sum = ({ steps }: Learned, of: (seen: Seen) => number): number =>
  [...steps.values()].reduce((total, seen) => total + of(seen), 0)

/** The mean output of the calls so far; one must have been answered. */
const meanOutput = (learned: Learned): number =>
  sum(learned, ({ outputTokens }) => outputTokens) / sum(learned, ({ calls }) => calls)

/** A call and how long it takes. */
export interface Call extends Forecast.Call {
  readonly duration: number
}

const timed = ({ slowness }: Learned, { inputTokens, outputTokens }: Forecast.Call): Call => ({
  inputTokens,
  outputTokens,
  duration: slowness * guessedMillis(inputTokens, outputTokens)
})

const meanOf = ({ calls, inputTokens, outputTokens }: Seen): Forecast.Call => ({
  inputTokens: inputTokens / calls,
  outputTokens: outputTokens / calls
})

/** The calls of an agent, as those of the others were; one must have been answered. */
export const ofAgent = (bytes: number, learned: Learned): ReadonlyArray<Call> =>
  ofDocuments(bytes, meanOutput(learned)).map((guess, index) => {
    const seen = learned.steps.get(Steps.steps[index]!)
    return timed(learned, seen === undefined ? guess : meanOf(seen))
  })

/** The last call, which reads what every agent finished with. */
export const ofMerge = (agents: number, learned: Learned): Call => {
  const finish = learned.steps.get("finish")
  const outputTokens = finish === undefined ? meanOutput(learned) : finish.outputTokens / finish.calls
  return timed(learned, { inputTokens: agents * outputTokens + promptTokens, outputTokens })
}
