/**
 * A pool's line to Redis: what its process has to say goes out in order, one request at a time, each executed once.
 *
 * While a request is under way, what comes up meanwhile waits and goes with the next, so a process costs Redis one
 * request at a time per pool whatever its number of callers. What comes up in one turn of the event loop goes together,
 * and what no caller waits for stays until there is something to send it with. A request whose reply was lost is sent
 * again with the same number, as is true by then; if the script had heard it, it answers from memory. While Redis is away
 * the policy decides about those who wait for an answer; what must not be lost (settlements, pauses) stays in line.
 */
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import type { RedisError } from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { StoreUnavailable } from "../BudgetStore.ts"
import { isHopeless, lastKnown } from "./connection.ts"
import { type Job, Outbox, type Request } from "./outbox.ts"
import { View } from "./view.ts"
import type { Operation, Reply } from "./wire.ts"

/** Which head may come, and in how many milliseconds. If that head was served since, this means nothing any more. */
export type Wake = (millis: number, head: number) => void

export interface LineOptions {
  readonly pool: string
  /** This process's time in milliseconds. */
  readonly millis: () => number
  readonly send: (request: string) => Effect.Effect<string, RedisError>
  readonly timeoutMillis: number
  /** How long a caller may wait for an answer while Redis is away. */
  readonly patienceMillis: number
  /** The operations that introduce this process: `open`, and `join` with what it holds and remembers. */
  readonly introduce: () => ReadonlyArray<Operation>
  readonly onAway: () => void
  readonly onBack: () => void
  /** A head of this process may come in so many milliseconds, as far as is known now: see `Wake`. */
  readonly onTurn: Wake
}

const firstRetryMillis = 50
const longestRetryMillis = 500
const mostRefusals = 3
/** How long a job that no caller waits for stays until there is something to send it with. */
const companyMillis = 500

type Run = (effect: Effect.Effect<void>) => unknown

export class Line {
  readonly view = new View()
  private readonly outbox = new Outbox()
  private readonly options: LineOptions
  private readonly run: Run
  private readonly runLater: Run
  private running = false
  private waitsForCompany = false
  /** Since when nothing was heard although something was said, and how often it was. */
  private outage: { readonly since: number; failures: number } | undefined

  constructor(options: LineOptions, run: Run, runLater: Run) {
    this.options = options
    this.run = run
    this.runLater = runLater
  }

  get isAway(): boolean {
    return this.outage !== undefined
  }

  submit(job: Job): void {
    if (this.isAnsweredElsewhere(job)) return
    this.outbox.add(job)
    this.kick()
  }

  /** As `submit`, before everything that waits. */
  submitFirst(job: Job): void {
    if (this.isAnsweredElsewhere(job)) return
    this.outbox.addFirst(job)
    this.kick()
  }

  /** As `submit`, for what changes nothing for anybody: it goes with the next request, or alone after a while. */
  submitLater(job: Job): void {
    if (this.isAnsweredElsewhere(job)) return
    this.outbox.add(job)
    if (this.running || this.waitsForCompany) return
    this.waitsForCompany = true
    const alone = Effect.sync(() => {
      this.waitsForCompany = false
      if (!this.outbox.isEmpty) this.kick()
    })
    this.runLater(Effect.andThen(Effect.sleep(companyMillis), alone))
  }

  /** Says that this process is gone for good, if somebody is there to hear it. */
  get leave(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.view.epoch === 0) return Effect.void
      // While Redis is away it goes on trying for the same time: settlements may still be in line.
      const left = Effect.callback<void>((resume) => {
        this.submit({ operation: () => ["leave"], replied: () => resume(Effect.void), away: () => false })
      })
      return Effect.timeoutOrElse(left, { duration: this.options.timeoutMillis, orElse: () => Effect.void })
    })
  }

  private isAnsweredElsewhere(job: Job): boolean {
    if (this.outage === undefined) return false
    return job.away(this.unavailable(new Error("Redis is away")), this.patienceLeft(this.outage) <= 0)
  }

  private unavailable(cause: unknown): StoreUnavailable {
    return new StoreUnavailable({ pool: this.options.pool, cause })
  }

  private patienceLeft(outage: { readonly since: number }): number {
    return outage.since + this.options.patienceMillis - this.options.millis()
  }

  // -----------------------------------------------------------------------------
  // One request after the other
  // -----------------------------------------------------------------------------

  private kick(): void {
    if (this.running) return
    this.running = true
    this.run(this.next)
  }

  private readonly work: Effect.Effect<void> = Effect.suspend(() => {
    const request = this.outbox.next(this.view.epoch === 0)
    if (request !== undefined) return this.attempt(request)
    this.running = false
    return Effect.void
  })

  /** After everybody else who runs in this turn of the event loop: a settlement and the next call go together. */
  private readonly next: Effect.Effect<void> = Effect.andThen(Effect.yieldNowWith(1), this.work)

  private attempt(request: Request): Effect.Effect<void> {
    const { introduce, millis, send, timeoutMillis } = this.options
    // Of a request that was sent twice, nobody knows which one was heard.
    const sentAt = request.tries++ === 0 ? millis() : undefined
    const said = request.introduces ? [...introduce(), ...request.operations] : request.operations
    const reply = Effect.timeoutOrElse(send(this.view.encode(request.seq, said)), {
      duration: timeoutMillis,
      orElse: () => Effect.fail(new Error(`no reply within ${timeoutMillis} ms`))
    })
    return Effect.matchEffect(Effect.flatMap(reply, read), {
      onFailure: (cause) => this.failed(request, cause),
      onSuccess: (heard) => this.answered(request, heard, sentAt)
    })
  }

  private answered(
    request: Request,
    reply: Reply | readonly [number, 0],
    sentAt: number | undefined
  ): Effect.Effect<void> {
    if (reply[1] !== 0) return this.heard(request, reply as Reply, sentAt)
    // The state is missing, or not the one that is known here: say who we are and what we hold.
    request.introduces = true
    return ++request.refused > mostRefusals
      ? this.failed(request, new Error("the pool's state is lost again and again"))
      : this.attempt(request)
  }

  private heard(request: Request, reply: Reply, sentAt: number | undefined): Effect.Effect<void> {
    const [now, , , , , news, , replies, turn] = reply
    const wasAway = this.isAway
    const before = this.view.epoch
    this.outbox.conclude()
    this.outage = undefined
    this.view.hear(reply, this.options.millis(), sentAt)
    // What introduces us is answered first.
    const skipped = replies.length - request.jobs.length
    request.jobs.forEach((job, i) => job.replied(replies[skipped + i], now))
    if (news !== 0) this.options.onTurn(0, Infinity)
    else if (turn !== -1) this.options.onTurn(...turn)
    if (wasAway) this.options.onBack()
    const notes = notesOf(this.options.pool, reply, before, wasAway)
    return notes === undefined ? this.next : Effect.andThen(notes, this.next)
  }

  private failed(request: Request, cause: unknown): Effect.Effect<void> {
    const error = this.unavailable(cause)
    const wasAway = this.isAway
    const outage = (this.outage ??= { since: this.options.millis(), failures: 0 })
    if (!wasAway) this.options.onAway()
    const left = this.patienceLeft(outage)
    const givesUp = isHopeless(cause)
    const isAlone = request.jobs.length === 1
    for (const job of request.jobs) job.away(error, left <= 0 || (givesUp && isAlone))
    this.outbox.away(error, left <= 0)
    if (givesUp) this.outbox.giveUp()
    this.outbox.countFrom(lastKnown(cause))
    const pause = Math.min(firstRetryMillis * 2 ** outage.failures++, longestRetryMillis)
    const again = Effect.andThen(Effect.sleep(left > 0 ? Math.min(pause, left) : pause), this.work)
    if (wasAway) return again
    const warning = Effect.logWarning(`Redis does not answer for the budget's pool "${this.options.pool}"`, cause)
    return Effect.andThen(warning, again)
  }
}

const read = (text: string): Effect.Effect<Reply | readonly [number, 0], unknown> =>
  Effect.try({ try: () => JSON.parse(text), catch: (cause) => cause })

/** What people should know of a reply. */
const notesOf = (pool: string, reply: Reply, before: number, wasAway: boolean): Effect.Effect<void> | undefined => {
  const [now, epoch, , why] = reply
  const isFresh = epoch / 1_000 >= now - 1_000
  const isLost = why !== "new" && (before === 0 ? isFresh : before !== epoch)
  if (!isLost && !wasAway) return undefined
  const lost = Effect.logWarning(
    why === "wiped"
      ? `The state of the budget's pool "${pool}" was gone from Redis: it starts again from empty levels`
      : `The state of the budget's pool "${pool}" was damaged in Redis: processes say again what they hold`
  )
  const back = Effect.logInfo(`Redis is back for the budget's pool "${pool}"`)
  return Effect.andThen(isLost ? lost : Effect.void, wasAway ? back : Effect.void)
}

/** Opens a line. At the end of its scope the process says that it leaves. */
export const open = Effect.fnUntraced(function* (options: LineOptions): Effect.fn.Return<Line, never, Scope.Scope> {
  const line = new Line(options, yield* FiberHandle.makeRuntime<never>(), yield* FiberHandle.makeRuntime<never>())
  yield* Effect.addFinalizer(() => line.leave)
  return line
})
