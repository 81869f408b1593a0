/** Starts as many agents of a job as help, and more as soon as they would. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Budget from "../Budget.ts"
import { allow, type Allowance } from "./advise.ts"
import type { Options } from "./models.ts"

/** Agents that start in their order. */
export interface Starters {
  readonly count: number
  /** Starts the next one. */
  readonly start: () => void
  /** How many have started and not ended. */
  readonly running: () => number
  /** Has an element after an agent has ended. */
  readonly ends: Queue.Dequeue<void>
}

/** A larger job needs no more agents at once, and its forecasts take longer. */
const maxAsked = 64

/** Questions of different jobs are not the same asker's. */
let jobs = 0

/**
 * The number of the job's own agents that may run. While the advice is a guess, at most as many agents as run are added.
 */
const allowed = ({ isGuess, more }: Allowance, running: number): number =>
  Math.max(1, running + (isGuess ? Math.min(more, Math.max(1, running)) : more))

/** Which pool is meant may become unclear. Then the job keeps its number of agents for this long. */
const unclearMillis = 10_000

/**
 * Starts agents until all have started.
 *
 * The first question must be answerable: otherwise the options of the job are wrong.
 */
export const startAdvised = Effect.fnUntraced(function* (
  operation: string,
  starters: Starters,
  about: Options["advice"]
): Effect.fn.Return<void, never, Budget.TokenBudget> {
  const asker = `job ${++jobs}`
  let started = 0
  const ask = (running: number): Effect.Effect<Allowance, string, Budget.TokenBudget> => {
    const agents = Math.min(maxAsked, starters.count - started)
    return Effect.mapError(allow(operation, { ...about, agents, asker, running }), ({ message }) => message)
  }
  let isFirst = true
  while (started < starters.count) {
    const running = starters.running()
    const unanswered = (message: string): Effect.Effect<Allowance> =>
      isFirst
        ? Effect.die(new RangeError(`${operation}: advice: ${message}`))
        : Effect.succeed({ more: 0, isGuess: true, millis: unclearMillis })
    const allowance = yield* Effect.catch(ask(running), unanswered)
    const agents = allowed(allowance, running)
    const { millis } = allowance
    isFirst = false
    const until = (yield* Clock.currentTimeMillis) + millis
    for (let left = millis; left > 0 && started < starters.count;) {
      for (; started < starters.count && starters.running() < agents; started++) starters.start()
      yield* Effect.timeoutOption(Queue.take(starters.ends), left)
      // In whole milliseconds, as timers are: the clock never passes a rest that it cannot count.
      left = Math.ceil(until - (yield* Clock.currentTimeMillis))
    }
  }
})
