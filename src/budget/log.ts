/** Logs a line when calls begin to wait, for what, and when the wait is over. */
import * as Config from "effect/Config"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { about, awaited, compact, counted } from "../domain/words.ts"
import type { BudgetStatus, PoolStatus } from "./models.ts"

/** Whether the configuration asks for the log, or for none. */
export const wanted: Config.Config<boolean> = Config.Boolean("FLOODGATE_LOG")

/** Shorter waits are normal and are not logged. This is also the minimum time between two lines about a pool. */
const minMillis = 1_000

// -----------------------------------------------------------------------------
// The pure step
// -----------------------------------------------------------------------------

/** The last line about a pool whose calls wait. */
interface Told {
  /** The cause of their wait. */
  readonly cause: string
  readonly since: number
  /** The largest number of calls that waited together. */
  readonly max: number
}

const pauses: { readonly [R in NonNullable<PoolStatus["pause"]>["reason"]]: string } = {
  rateLimit: "the provider rejected a call because of a limit",
  ramp: "usage grew faster than the provider allows",
  overload: "the provider fails or cannot be reached"
}

const figure = (value: number): string => compact(Math.max(0, Math.floor(value)))

const time = (millis: number): string => about(Math.max(1, Math.round(millis / 1_000)))

const calls = (count: number): string => counted(count, "call")

/** The expected wait of the last call that a status lists; 0 if it is not known. */
const waitOf = ({ waiting }: PoolStatus): number => {
  const millis = Math.max(0, ...waiting.map(({ expectedMillis }) => expectedMillis))
  return millis < Infinity ? millis : 0
}

/** Names what the calls of a pool wait for; undefined if they do not wait long. */
const causeOf = (pool: PoolStatus): string | undefined => {
  const { binding, pause, queued, waiting } = pool
  if (pause !== undefined && pause.leftMillis >= minMillis) return pause.reason
  const longest = Math.max(waitOf(pool), waiting[0]?.waitedMillis ?? 0)
  return queued > 0 && longest >= minMillis ? (binding ?? "place") : undefined
}

const lineOf = (name: string, pool: PoolStatus): string => {
  const { binding, dimensions, inFlight, pause, queued, waiting } = pool
  const where = `pool "${name}"`
  if (pause !== undefined) {
    const held = queued === 0 ? "" : `, ${calls(queued)} waiting`
    return `pausing ${where} for ${time(pause.leftMillis)}: ${pauses[pause.reason]}${held}`
  }
  const wait = waitOf(pool)
  const listed = queued > waiting.length ? "at least " : ""
  const begin = wait < minMillis ? "waiting" : `waiting ${listed}${time(wait)}`
  if (binding === undefined) return `${begin} for a place in ${where}: ${calls(queued)}, ${inFlight} in flight`
  const limit = dimensions[binding]
  const left = limit === undefined ? "" : `, ${figure(limit.level)} of ${figure(limit.capacity)} left`
  return `${begin} for ${awaited(binding)} of ${where}: ${calls(queued)}${left}`
}

const overOf = (name: string, { max, since }: Told, now: number): string => {
  const after = `of pool "${name}" is over after ${time(now - since)}`
  return max === 0 ? `the pause ${after}` : `the wait ${after}: ${max === 1 ? "1 call" : `up to ${calls(max)}`} waited`
}

/** The known state of a pool's wait, and the line to log if that has changed. */
const stepOf = (
  name: string,
  told: Told | undefined,
  pool: PoolStatus,
  now: number
): readonly [told: Told | undefined, line?: string] => {
  const cause = causeOf(pool)
  if (told === undefined) {
    return cause === undefined ? [told] : [{ cause, since: now, max: pool.queued }, lineOf(name, pool)]
  }
  const max = Math.max(told.max, pool.queued)
  if (pool.queued === 0 && pool.pause === undefined) return [undefined, overOf(name, { ...told, max }, now)]
  // After a pause, one call probes while the others wait for its result. This is not logged as a change, because the pause may
  // continue.
  const isSame = cause === undefined || cause === told.cause || (cause === "place" && told.cause in pauses)
  return isSame ? [{ ...told, max }] : [{ ...told, cause, max }, lineOf(name, pool)]
}

/** The name of a pool without its account. The pool of an account without classes has only the account, with a hash at its end. */
const shortened = (name: string): string => {
  const [last = name] = /[^/]+$/.exec(name) ?? []
  return /^[0-9a-f]{12}$/.test(last) ? name : last
}

/** Names pools as people do, `sonnet-5`, unless two of them would be called so. */
export const shortNames = (names: ReadonlyArray<string>): ((name: string) => string) => {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(shortened(name), (counts.get(shortened(name)) ?? 0) + 1)
  return (name) => ((counts.get(shortened(name)) ?? 0) > 1 ? name : shortened(name))
}

/** The names of the pools that have calls, or are paused. */
const usedIn = (pools: BudgetStatus["pools"]): ReadonlyArray<string> =>
  Object.entries(pools).flatMap(([name, { inFlight, pause, queued }]) =>
    inFlight === 0 && queued === 0 && pause === undefined ? [] : [name]
  )

// -----------------------------------------------------------------------------
// Writing
// -----------------------------------------------------------------------------

/** Logs a line for each change, until it is interrupted. */
export const lines = (budget: {
  readonly status: Effect.Effect<BudgetStatus>
  readonly changes: Stream.Stream<BudgetStatus>
}): Effect.Effect<void> =>
  Effect.suspend(() => {
    const told = new Map<string, Told>()
    /** Logs what has changed. Returns whether nothing waits. */
    const tell = Effect.fnUntraced(function* ({ pools }: BudgetStatus) {
      const now = yield* Clock.currentTimeMillis
      for (const name of told.keys()) if (!Object.hasOwn(pools, name)) told.delete(name)
      const called = shortNames(usedIn(pools))
      for (const [name, pool] of Object.entries(pools)) {
        const [next, line] = stepOf(called(name), told.get(name), pool, now)
        if (next === undefined) told.delete(name)
        else told.set(name, next)
        if (line !== undefined) yield* Effect.logInfo(line)
      }
      return told.size === 0 && Object.values(pools).every(({ queued }) => queued === 0)
    })
    // While calls wait, the status also changes with time.
    const again = Effect.andThen(Effect.sleep(minMillis), Effect.flatMap(budget.status, tell))
    const later = Effect.repeat(again, { until: (isQuiet) => isQuiet })
    return Stream.runForEach(budget.changes, (status) => Effect.andThen(tell(status), later))
  })
