/** Says in a line of the log when calls begin to wait, for what, and when that is over. */
import * as Config from "effect/Config"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Limits from "../Limits.ts"
import type { BudgetStatus, PoolStatus } from "./models.ts"

/** Whether the configuration asks for the log. */
export const isWanted: Config.Config<boolean> = Config.withDefault(Config.Boolean("FLOODGATE_LOG"), false)

/** Shorter waits are those of a steady flow, and no line is written sooner after another. */
const leastMillis = 1_000

// -----------------------------------------------------------------------------
// The pure step
// -----------------------------------------------------------------------------

/** What was last said of a pool whose calls wait. */
interface Told {
  /** What they wait for. */
  readonly cause: string
  readonly since: number
  /** The most that waited together. */
  readonly most: number
}

const names: { readonly [D in Limits.Dimension]: string } = {
  requests: "requests",
  inputTokens: "input tokens",
  outputTokens: "output tokens",
  tokens: "tokens"
}

const pauses: { readonly [R in NonNullable<PoolStatus["pause"]>["reason"]]: string } = {
  rateLimit: "the provider rejected a call because of a limit",
  ramp: "usage grew faster than the provider allows",
  overload: "the provider fails or cannot be reached"
}

const figure = (value: number): string => {
  if (value >= 1e6) return `${Number((value / 1e6).toFixed(1))}M`
  return value >= 1e4 ? `${Math.round(value / 1e3)}K` : Math.max(0, Math.floor(value)).toString()
}

const time = (millis: number): string => {
  const seconds = Math.max(1, Math.round(millis / 1_000))
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

const calls = (count: number): string => (count === 1 ? "1 call" : `${count} calls`)

/** How long the last of the callers waits that a status lists, as far as that is foreseen. */
const waitOf = ({ waiting }: PoolStatus): number => {
  const millis = Math.max(0, ...waiting.map(({ expectedMillis }) => expectedMillis))
  return millis < Infinity ? millis : 0
}

/** What the calls of a pool wait for; undefined if they do not wait long. */
const causeOf = (pool: PoolStatus): string | undefined => {
  const { binding, pause, queued, waiting } = pool
  if (pause !== undefined && pause.leftMillis >= leastMillis) return pause.reason
  const longest = Math.max(waitOf(pool), waiting[0]?.waitedMillis ?? 0)
  return queued > 0 && longest >= leastMillis ? (binding ?? "place") : undefined
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
  const begin = wait < leastMillis ? "waiting" : `waiting ${listed}${time(wait)}`
  if (binding === undefined) return `${begin} for a place in ${where}: ${calls(queued)}, ${inFlight} in flight`
  const limit = dimensions[binding]
  const left = limit === undefined ? "" : `, ${figure(limit.level)} of ${figure(limit.capacity)} left`
  return `${begin} for ${names[binding]} of ${where}: ${calls(queued)}${left}`
}

const overOf = (name: string, { most, since }: Told, now: number): string => {
  const after = `of pool "${name}" is over after ${time(now - since)}`
  return most === 0
    ? `the pause ${after}`
    : `the wait ${after}: ${most === 1 ? "1 call" : `up to ${calls(most)}`} waited`
}

/** What was told of a pool, after what was told before, and the line to write if something has changed. */
const stepOf = (
  name: string,
  told: Told | undefined,
  pool: PoolStatus,
  now: number
): readonly [told: Told | undefined, line?: string] => {
  const cause = causeOf(pool)
  if (told === undefined) {
    return cause === undefined ? [told] : [{ cause, since: now, most: pool.queued }, lineOf(name, pool)]
  }
  const most = Math.max(told.most, pool.queued)
  if (pool.queued === 0 && pool.pause === undefined) return [undefined, overOf(name, { ...told, most }, now)]
  // After a pause the others wait for a place while one call tries: the pause may go on.
  const isSame = cause === undefined || cause === told.cause || (cause === "place" && told.cause in pauses)
  return isSame ? [{ ...told, most }] : [{ ...told, cause, most }, lineOf(name, pool)]
}

// -----------------------------------------------------------------------------
// Writing
// -----------------------------------------------------------------------------

/** Writes a line for each change while calls wait, until it is interrupted. */
export const lines = (budget: {
  readonly status: Effect.Effect<BudgetStatus>
  readonly changes: Stream.Stream<BudgetStatus>
}): Effect.Effect<void> =>
  Effect.suspend(() => {
    const told = new Map<string, Told>()
    /** Returns whether nothing waits. */
    const tell = Effect.fnUntraced(function* ({ pools }: BudgetStatus) {
      const now = yield* Clock.currentTimeMillis
      for (const name of told.keys()) if (!Object.hasOwn(pools, name)) told.delete(name)
      for (const [name, pool] of Object.entries(pools)) {
        const [next, line] = stepOf(name, told.get(name), pool, now)
        if (next === undefined) told.delete(name)
        else told.set(name, next)
        if (line !== undefined) yield* Effect.logInfo(line)
      }
      return told.size === 0 && Object.values(pools).every(({ queued }) => queued === 0)
    })
    // While calls wait, time may be all that changes.
    const again = Effect.andThen(Effect.sleep(leastMillis), Effect.flatMap(budget.status, tell))
    const later = Effect.repeat(again, { until: (isQuiet) => isQuiet })
    return Stream.runForEach(budget.changes, (status) => Effect.andThen(tell(status), later))
  })
