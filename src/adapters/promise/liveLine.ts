/** Shows one line on the terminal while calls wait: how many, for what, how many have ended, and for about how long. */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import type { BudgetStatus, PoolStatus, TokenBudget } from "../../Budget.ts"
import { about, awaited, thousands } from "../../domain/words.ts"

/** The part of a standard stream that the line needs. */
export interface Stdio {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  write(chunk: never, ...rest: ReadonlyArray<never>): boolean
}

/** The part of a process that the line needs: it may end while the line is shown, and its last words must not follow the line. */
export interface ProcessEnd {
  once(event: "exit", listener: () => void): unknown
  off(event: "exit", listener: () => void): unknown
}

/** Shorter waits are normal, and no line is shown for them. This is also the time between two lines. */
const everyMillis = 500

/** The time until the last call of a pool is admitted. A status lists the first calls, which are admitted at equal distances. */
const leftOf = ({ queued, waiting }: PoolStatus): number => {
  const listed = Math.max(0, ...waiting.map(({ expectedMillis }) => expectedMillis))
  return listed * Math.max(1, queued / Math.max(1, waiting.length))
}

/** The line, or undefined if no call waits for long. `ended` is the number of calls that have ended so far. */
export const textOf = ({ pools }: BudgetStatus, ended: number): string | undefined => {
  const all = Object.values(pools)
  const longest = all.reduce((a, b) => (leftOf(b) > leftOf(a) ? b : a), all[0]!)
  if (longest === undefined || longest.queued === 0 || leftOf(longest) < everyMillis) return undefined
  const queued = all.reduce((sum, pool) => sum + pool.queued, 0)
  const known = ended + all.reduce((sum, pool) => sum + pool.queued + pool.inFlight, 0)
  const what = longest.pause === undefined ? awaited(longest.binding) : "the end of a pause"
  const left = leftOf(longest) < Infinity ? `, about ${about(Math.ceil(leftOf(longest) / 1_000))} left` : ""
  return `${thousands(queued)} ${queued === 1 ? "waits" : "wait"} for ${what}, ${thousands(ended)} of ${thousands(known)} done${left}`
}

const clear = "\r\x1b[2K"

/**
 * A line at the end of what the program writes. It disappears before the program writes, and is not shown while the program is within a
 * line of its own, so nothing of the program's is ever overwritten.
 */
const lineOn = (terminal: Stdio, others: ReadonlyArray<Stdio>, ending: ProcessEnd | undefined) => {
  const own = terminal.write.bind(terminal) as (text: string) => boolean
  let isShown = false
  let isWithinLine = false
  const hide = (): void => {
    if (!isShown) return
    isShown = false
    ending?.off("exit", hide)
    own(clear)
  }
  const restores = [terminal, ...others].map((stream) => {
    const write = stream.write
    const watched: Stdio["write"] = (chunk: string | Uint8Array, ...rest) => {
      hide()
      if (chunk.length > 0) isWithinLine = chunk.at(-1) !== "\n" && chunk.at(-1) !== 10
      return write.call(stream, chunk as never, ...rest)
    }
    stream.write = watched
    // Whoever replaced it meanwhile keeps it, and then it passes on what is written.
    return () => void (stream.write === watched && (stream.write = write))
  })
  return {
    hide,
    show: (text: string): void => {
      if (isWithinLine) return
      own(`${clear}floodgate: ${text}`.slice(0, clear.length + (terminal.columns ?? 80) - 1))
      // Many floodgates would be too many listeners, and few of them show a line.
      if (!isShown) ending?.once("exit", hide)
      isShown = true
    },
    close: (): void => {
      hide()
      for (const restore of restores) restore()
    }
  }
}

/** How many calls have ended, by the metrics of the floodgate. */
const ended = Effect.map(Metric.snapshot, (metrics) =>
  metrics.reduce(
    (sum, { id, state }) => sum + (id === "floodgate_calls" && "count" in state ? Number(state.count) : 0),
    0
  )
)

/** Shows the line on `terminal` while calls of the budget wait, until it is interrupted or `ending` ends. `others` write to the same terminal. */
export const show = (
  budget: TokenBudget["Service"],
  terminal: Stdio,
  others: ReadonlyArray<Stdio>,
  ending?: ProcessEnd
): Effect.Effect<void> =>
  Effect.acquireUseRelease(
    Effect.sync(() => lineOn(terminal, others, ending)),
    (line) => {
      const draw = (status: BudgetStatus) =>
        Effect.map(ended, (count) => {
          const text = textOf(status, count)
          if (text === undefined) line.hide()
          else line.show(text)
          return Object.values(status.pools).every(({ queued }) => queued === 0)
        })
      const later = Effect.andThen(Effect.sleep(everyMillis), Effect.flatMap(budget.status, draw)).pipe(
        Effect.repeat({ until: (isQuiet) => isQuiet })
      )
      return Stream.runForEach(budget.changes, (status) =>
        Object.values(status.pools).some(({ queued }) => queued > 0) ? later : Effect.void
      )
    },
    (line) => Effect.sync(line.close)
  )
