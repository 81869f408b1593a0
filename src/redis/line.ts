/**
 * A pool's line to Redis: what its process has to say goes out in order, one request at a time, each executed once.
 *
 * While a request is under way, what comes up meanwhile waits and goes with the next, so a process costs Redis one
 * request at a time per pool whatever its number of callers. What comes up in one turn of the event loop goes together,
 * and what nobody waits for waits for company. A request whose reply was lost is sent again with the same
 * number, and the script answers it from memory. While Redis is away the policy decides about those who wait for an
 * answer; what must not be lost (settlements, pauses) stays in line.
 */
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import type { RedisError } from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { StoreUnavailable } from "../BudgetStore.ts"
import type * as Limits from "../Limits.ts"
import { isHopeless } from "./connection.ts"
import type { Operation, Reply } from "./wire.ts"
import * as Wire from "./wire.ts"

/** Something to say. */
export interface Job {
  /** Called when the request is made; `undefined` when it is no longer worth saying. */
  readonly operation: () => Operation | undefined
  /** What became of it. */
  readonly replied: (reply: unknown, now: number) => void
  /**
   * Redis is away: `true` when somebody else has answered, and the job must not be said any more. A job that is under way
   * is told, too; then `replied` hears of it if it was executed after all.
   */
  readonly away: (error: StoreUnavailable, lapsed: boolean) => boolean
}

/** What the line knows of the pool since the last reply. */
export interface View {
  rules: Limits.Rules
  levels: Limits.Charge
  processes: number
  epoch: number
  /** Whether somebody may wait for a call to end, and not only for what it gives back. */
  tight: boolean
  /** This process's time of the last reply; -Infinity before the first. */
  at: number
}

export interface Line {
  readonly view: View
  readonly submit: (job: Job) => void
  /** As `submit`, for what changes nothing for anybody: it goes with the next request, or alone after a while. */
  readonly submitLater: (job: Job) => void
  /** As `submit`, before everything that waits. */
  readonly submitFirst: (job: Job) => void
  /** When Redis went away, in this process's time. */
  readonly awaySince: () => number | undefined
}

/** In how many milliseconds which head may come. One that has been served since is not meant any more. */
export type Wake = (millis: number, head: number) => void

export interface LineOptions {
  readonly pool: string
  /** This process's time in milliseconds. */
  readonly millis: () => number
  readonly send: (request: string) => Effect.Effect<string, RedisError>
  readonly timeoutMillis: number
  /** How long who waits for an answer may wait while Redis is away. */
  readonly patienceMillis: number
  /** The operations that introduce this process: `open`, and `join` with what it holds and remembers. */
  readonly introduce: () => ReadonlyArray<Operation>
  readonly onAway: (error: StoreUnavailable) => void
  readonly onBack: () => void
  /** A head of this process may come in so many milliseconds, as far as is known now: see `Wake`. */
  readonly onTurn: Wake
}

interface Request {
  readonly seq: number
  readonly jobs: ReadonlyArray<Job>
  readonly operations: ReadonlyArray<Operation>
  introduced: boolean
  refused: number
  /** When it was sent; `undefined` when it was sent more than once. */
  sentAt: number | undefined
  tries: number
}

const mostPerRequest = 256
const firstRetryMillis = 50
const longestRetryMillis = 500
/** How long a job that nobody waits for waits for company. */
const companyMillis = 500

export const make = Effect.fnUntraced(function* (options: LineOptions): Effect.fn.Return<Line, never, Scope.Scope> {
  const { millis, pool } = options
  const run = yield* FiberHandle.makeRuntime<never>()
  const runCompany = yield* FiberHandle.makeRuntime<never>()
  const jobs: Array<Job> = []
  const view: View = { rules: {}, levels: {}, processes: 1, epoch: 0, tight: true, at: -Infinity }
  let rulesVersion = 0
  let seq = 0
  let request: Request | undefined
  let running = false
  let awaySince: number | undefined
  let failures = 0
  /** How long the last reply took, as far as is known: a grant in it was heard so late at most. */
  let lateMillis = 0
  let waitsForCompany = false

  const kick = (): void => {
    if (running) return
    running = true
    run(next)
  }

  const kickLater = (): void => {
    if (running || waitsForCompany) return
    waitsForCompany = true
    runCompany(
      Effect.andThen(
        Effect.sleep(companyMillis),
        Effect.sync(() => {
          waitsForCompany = false
          if (jobs.length > 0) kick()
        })
      )
    )
  }

  const nextRequest = (): Request | undefined => {
    while (jobs.length > 0) {
      const batch: Array<Job> = []
      const operations: Array<Operation> = []
      for (const job of jobs.splice(0, mostPerRequest)) {
        const operation = job.operation()
        if (operation === undefined) continue
        batch.push(job)
        operations.push(operation)
      }
      if (batch.length > 0) {
        return { seq: ++seq, jobs: batch, operations, introduced: view.epoch === 0, refused: 0, sentAt: 0, tries: 0 }
      }
    }
    return undefined
  }

  const work: Effect.Effect<void> = Effect.suspend(() => {
    request ??= nextRequest()
    if (request === undefined) {
      running = false
      return Effect.void
    }
    return attempt(request)
  })

  /** After everybody else who runs in this turn of the event loop: a settlement and the next call go together. */
  const next: Effect.Effect<void> = Effect.andThen(Effect.yieldNowWith(1), work)

  const encode = (request: Request): string =>
    JSON.stringify([
      request.seq,
      view.epoch,
      rulesVersion,
      request.introduced ? [...options.introduce(), ...request.operations] : request.operations,
      Math.round(lateMillis)
    ])

  const attempt = (request: Request): Effect.Effect<void> => {
    request.sentAt = request.tries++ === 0 ? millis() : undefined
    return Effect.matchEffect(
      Effect.timeoutOrElse(options.send(encode(request)), {
        duration: options.timeoutMillis,
        orElse: () => Effect.fail(new Error(`no reply within ${options.timeoutMillis} ms`))
      }),
      { onFailure: (cause) => failed(request, cause), onSuccess: (text) => succeeded(request, text) }
    )
  }

  const succeeded = (sent: Request, text: string): Effect.Effect<void> => {
    const reply = JSON.parse(text) as Reply | readonly [number, 0]
    if (reply[1] === 0) {
      // The state is missing, or not the one that is known here: say who we are and what we hold.
      sent.introduced = true
      return ++sent.refused > 3 ? failed(sent, new Error("the pool's state is lost again and again")) : attempt(sent)
    }
    return heard(sent, reply as Reply)
  }

  const heard = (sent: Request, reply: Reply): Effect.Effect<void> => {
    const [now, epoch, processes, why, version, rules, levels, replies, turn, tight] = reply
    const wasAway = awaySince !== undefined
    const before = view.epoch
    request = undefined
    failures = 0
    awaySince = undefined
    view.at = millis()
    if (sent.sentAt !== undefined) lateMillis = view.at - sent.sentAt
    view.tight = tight === 1
    view.epoch = epoch
    view.processes = processes
    view.levels = Wire.toCharge(levels)
    if (rules !== 0) {
      rulesVersion = version
      view.rules = Wire.toRecord(rules, Wire.toRule)
    }
    const skipped = replies.length - sent.jobs.length
    sent.jobs.forEach((job, i) => job.replied(replies[skipped + i], now))
    if (rules !== 0) options.onTurn(0, Infinity)
    else if (turn !== -1) options.onTurn(...turn)
    if (wasAway) options.onBack()
    const notes: Array<Effect.Effect<void>> = []
    const isFresh = epoch / 1_000 >= now - 1_000
    if (why !== "new" && (before === 0 ? isFresh : before !== epoch)) notes.push(tellLost(pool, why))
    if (wasAway) notes.push(Effect.logInfo(`Redis is back for the budget's pool "${pool}"`))
    return notes.length === 0 ? next : Effect.andThen(Effect.all(notes, { discard: true }), next)
  }

  const failed = (sent: Request, cause: unknown): Effect.Effect<void> => {
    const error = new StoreUnavailable({ pool, cause })
    const isPoison = isHopeless(cause)
    const isFirst = awaySince === undefined
    if (isFirst) {
      awaySince = millis()
      options.onAway(error)
    }
    const left = awaySince! + options.patienceMillis - millis()
    for (const job of sent.jobs) job.away(error, left <= 0 || isPoison)
    const kept = jobs.filter((job) => !job.away(error, left <= 0))
    jobs.splice(0, jobs.length, ...kept)
    if (isPoison) request = undefined
    const pauseMillis = Math.min(firstRetryMillis * 2 ** failures++, longestRetryMillis)
    const again = Effect.andThen(Effect.sleep(left > 0 ? Math.min(pauseMillis, left) : pauseMillis), work)
    return isFirst
      ? Effect.andThen(Effect.logWarning(`Redis does not answer for the budget's pool "${pool}"`, cause), again)
      : again
  }

  const add = (job: Job, place: "first" | "last" | "later"): void => {
    if (awaySince !== undefined) {
      const lapsed = millis() - awaySince >= options.patienceMillis
      if (job.away(new StoreUnavailable({ pool, cause: new Error("Redis is away") }), lapsed)) return
    }
    if (place === "first") jobs.unshift(job)
    else jobs.push(job)
    if (place === "later") kickLater()
    else kick()
  }

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      if (awaySince !== undefined || view.epoch === 0) return Effect.void
      const left = Effect.callback<void>((resume) =>
        add(
          {
            operation: () => ["leave"],
            replied: () => resume(Effect.void),
            away: () => (resume(Effect.void), true)
          },
          "last"
        )
      )
      return Effect.timeoutOrElse(left, { duration: options.timeoutMillis, orElse: () => Effect.void })
    })
  )
  return {
    view,
    submit: (job) => add(job, "last"),
    submitLater: (job) => add(job, "later"),
    submitFirst: (job) => add(job, "first"),
    awaySince: () => awaySince
  }
})

const tellLost = (pool: string, why: "wiped" | "damaged"): Effect.Effect<void> =>
  Effect.logWarning(
    why === "wiped"
      ? `The state of the budget's pool "${pool}" was gone from Redis: it starts again from empty levels`
      : `Reservations of the budget's pool "${pool}" were gone from Redis: processes say again what they hold`
  )
