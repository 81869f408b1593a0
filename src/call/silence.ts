/** Bounds the silences of streams: a read that takes too long fails, and its connection is closed. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { monotonic } from "../domain/input/clock.ts"

/** A stream of pieces, such as bytes or events. */
export interface Source<Piece> {
  /** The next piece; undefined at the end. It rejects when the stream breaks. */
  readonly read: () => Promise<Piece | undefined>
  /** Ends the stream before its end. */
  readonly cancel: (reason?: unknown) => void
}

/** How long a source may be silent. */
export interface Patience {
  readonly silence: Duration.Duration
  /** The error of a read that took too long. */
  readonly stalled: (silence: string) => Effect.Effect<unknown>
}

/** A source whose silences are bounded. */
export interface Bounded<Piece> extends Source<Piece> {
  /** Whether this is the error of a read that took too long. */
  readonly isStalled: (thrown: unknown) => boolean
}

// -----------------------------------------------------------------------------
// The timer
// -----------------------------------------------------------------------------

/** A stream whose silences are bounded. */
export abstract class SilentStream {
  private readonly patience: Patience
  /** The longest silence, in milliseconds. */
  readonly max: number
  /** When the silence began; undefined while nothing is awaited. */
  silentSince: number | undefined = undefined
  /** Whether the silence was too long, and its error is made or was made. */
  private isStalling = false

  constructor(patience: Patience) {
    this.patience = patience
    this.max = Duration.toMillis(patience.silence)
  }

  /** Ends the stream by the error of a silence that was too long. */
  abstract stall(error: unknown): void

  /** The time at which the silence may be too long; undefined once it was. */
  dueAt(now: number): number | undefined {
    return this.isStalling ? undefined : (this.silentSince ?? now) + this.max
  }

  /** Ends the stream, unless data arrives while the error is being made. */
  stalled(again: () => void): Effect.Effect<void> {
    const { patience, silentSince } = this
    this.isStalling = true
    return Effect.map(patience.stalled(Duration.format(patience.silence)), (error) => {
      if (this.silentSince === silentSince) return this.stall(error)
      this.isStalling = false
      again()
    })
  }
}

/**
 * Watches the silences of all streams that are read by one clock. A timer for each stream, or for each of its reads, would cost
 * more than reading it. It is mutable.
 */
export class SilenceTimer {
  readonly now: () => number
  private readonly streams = new Set<SilentStream>()
  private readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private sleeping: Fiber.Fiber<void> | undefined = undefined
  private wakesAt = Infinity
  /** When the first of the streams that were added in this turn of the event loop may be silent for too long. */
  private nextAt = Infinity
  private isArranging = false

  constructor(context: Context.Context<never>) {
    const clock = Context.get(context, Clock.Clock)
    this.now = monotonic(clock)
    this.fork = Effect.runForkWith(Context.make(Clock.Clock, clock))
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  }

  /** Watches a stream until it is removed. */
  add(stream: SilentStream): void {
    this.streams.add(stream)
    this.nextAt = Math.min(this.nextAt, stream.dueAt(this.now())!)
    this.arrange()
  }

  /** Stops watching a stream. Without any stream, nothing keeps the process alive. */
  remove(stream: SilentStream): void {
    if (this.streams.delete(stream) && this.streams.size === 0) this.arrange()
  }

  /** Sets the timer at the end of this turn of the event loop, because most bodies have ended by then. */
  private arrange(): void {
    if (this.isArranging) return
    this.isArranging = true
    this.dispatcher.scheduleTask(() => {
      this.isArranging = false
      if (this.streams.size > 0) this.wakeBy(this.nextAt)
      else if (this.sleeping !== undefined) this.sleepUntil(Infinity)
      this.nextAt = Infinity
    }, 0)
  }

  private wakeBy(at: number | undefined): void {
    if (at !== undefined && at < this.wakesAt) this.sleepUntil(at)
  }

  private sleepUntil(at: number): void {
    this.sleeping?.interruptUnsafe()
    this.wakesAt = at
    const millis = Math.max(0, at - this.now())
    const woken = Effect.flatMap(Effect.sleep(millis), () => Effect.sync(() => this.check()))
    this.sleeping = at === Infinity ? undefined : this.fork(woken)
  }

  private check(): void {
    const now = this.now()
    this.sleeping = undefined
    this.wakesAt = Infinity
    let next = Infinity
    for (const stream of this.streams) {
      const dueAt = stream.dueAt(now) ?? Infinity
      if (dueAt > now) next = Math.min(next, dueAt)
      else this.fork(stream.stalled(() => this.wakeBy(stream.dueAt(this.now()))))
    }
    this.wakeBy(next)
  }
}

const timers = new WeakMap<Clock.Clock, SilenceTimer>()

/** The timer of a context's clock. */
export const timerOf = (context: Context.Context<never>): SilenceTimer => {
  const clock = Context.get(context, Clock.Clock)
  const known = timers.get(clock) ?? new SilenceTimer(context)
  timers.set(clock, known)
  return known
}

// -----------------------------------------------------------------------------
// Sources
// -----------------------------------------------------------------------------

/** A source, and the read that is under way. The time between reads does not count as silence. */
class BoundedSource<Piece> extends SilentStream implements Bounded<Piece> {
  readonly cancel: Source<Piece>["cancel"]
  private readonly source: Source<Piece>
  private readonly controller: AbortController
  private readonly now: () => number
  private reject: (error: unknown) => void = () => {}
  private stalledBy: { readonly error: unknown } | undefined = undefined

  constructor(source: Source<Piece>, controller: AbortController, patience: Patience, now: () => number) {
    super(patience)
    this.cancel = source.cancel
    this.source = source
    this.controller = controller
    this.now = now
  }

  stall(error: unknown): void {
    this.stalledBy = { error }
    this.reject(error)
    this.controller.abort(error)
  }

  readonly isStalled = (thrown: unknown): boolean => this.stalledBy !== undefined && thrown === this.stalledBy.error

  readonly read = (): Promise<Piece | undefined> =>
    new Promise((resolve, reject) => {
      if (this.stalledBy !== undefined) return reject(this.stalledBy.error)
      this.silentSince = this.now()
      this.reject = reject
      this.source.read().then(
        (piece) => {
          this.silentSince = undefined
          resolve(piece)
        },
        (thrown: unknown) => {
          this.silentSince = undefined
          reject(thrown)
        }
      )
    })
}

/** Bounds the silences of a source until the scope closes. The controller ends its connection. */
export const bound = <Piece>(
  source: Source<Piece>,
  controller: AbortController,
  patience: Patience
): Effect.Effect<Bounded<Piece>, never, Scope.Scope> =>
  Effect.withFiber(({ context }) => {
    const timer = timerOf(context)
    const bounded = new BoundedSource(source, controller, patience, timer.now)
    timer.add(bounded)
    const removed = Effect.sync(() => timer.remove(bounded))
    return Effect.as(Scope.addFinalizer(Context.getUnsafe(context, Scope.Scope), removed), bounded)
  })
