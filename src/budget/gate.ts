/**
 * How many calls of a pool may be in flight: the concurrency, held as permits of a semaphore that nobody ever waits on,
 * and a probe that lets calls out one, two, four after the provider said no.
 *
 * A call that ends leaves its permit in hand, for the next one; what nobody takes goes back to the semaphore.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { PauseReason } from "../BudgetStore.ts"

/** A bound on calls in flight that grows by one with each success, and so doubles with each round. */
interface Probe {
  /** Successes of calls up to this one say nothing: they were sent before. */
  readonly since: number
  /** Calls up to this one are not counted: waiting for them would keep the provider idle. */
  readonly counts: number
  readonly reason: PauseReason | "unknown"
  allowed: number
  open: number
  /** When a call last went out or succeeded. */
  heardAt: number
}

/** So many in flight are no probe any more. */
const mostProbed = 1024
/** A stream may run for long, and one that fell silent for ever: rejections come at once, so others need not wait for it. */
const patienceMillis = 60_000

export class Gate {
  inFlight = 0
  concurrency: number
  /** `undefined` where nothing bounds the calls in flight. Else what is taken of it is in flight or in hand. */
  private semaphore: Semaphore.Semaphore | undefined
  private inHand = 0
  private probe: Probe | undefined
  private lastId = -1
  /** Those who keep the gate shut for the moment. */
  private shut = 0
  private readonly now: () => number

  /** `now` gives milliseconds. */
  constructor(concurrency: number, alone: boolean, now: () => number) {
    this.concurrency = concurrency
    this.now = now
    this.semaphore = concurrency === Infinity ? undefined : Semaphore.makeUnsafe(concurrency)
    if (alone) this.probe = { since: -1, counts: -Infinity, reason: "unknown", allowed: 1, open: 0, heardAt: now() }
  }

  /** Calls that may be in flight now. */
  get allowed(): number {
    const { concurrency, probe } = this
    return probe === undefined ? concurrency : Math.min(concurrency, this.inFlight - probe.open + probe.allowed)
  }

  get isUnbounded(): boolean {
    return this.semaphore === undefined
  }

  /** Whether every permit is taken. */
  get isFull(): boolean {
    return this.inFlight >= this.concurrency
  }

  /** Whether a call can have a permit without asking the semaphore. */
  get hasPermit(): boolean {
    return this.semaphore === undefined || (this.inHand > 0 && !this.isFull)
  }

  /** Whether a call may go out now, as far as the probe decides. */
  get hasRoom(): boolean {
    return this.shut === 0 && this.patience <= 0
  }

  /** Milliseconds until the probe lets another call out, if nothing is heard until then; 0 where there is room. */
  get patience(): number {
    const { probe } = this
    return probe === undefined || probe.open < probe.allowed ? 0 : probe.heardAt + patienceMillis - this.now()
  }

  /** Lets nobody out while an effect runs. Who may go after it must be asked then. */
  whileShut(self: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.shut++
      return Effect.ensuring(
        self,
        Effect.sync(() => this.shut--)
      )
    })
  }

  /** Takes a permit in hand if there is one. */
  get takePermit(): Effect.Effect<boolean> {
    const { semaphore } = this
    if (semaphore === undefined) return Effect.succeed(true)
    return Effect.map(semaphore.takeIfAvailable(1), (taken) => {
      // Who took the semaphore's place meanwhile has permits of its own.
      if (taken && semaphore === this.semaphore) this.inHand++
      return taken
    })
  }

  /** Gives back what is in hand; `undefined` where that is nothing. */
  returnPermits(): Effect.Effect<unknown> | undefined {
    const { inHand, semaphore } = this
    if (semaphore === undefined || inHand === 0) return undefined
    this.inHand = 0
    return semaphore.release(inHand)
  }

  /** A call goes out, with a permit that was in hand. */
  enter(): void {
    this.inFlight++
    if (this.semaphore !== undefined) this.inHand--
    if (this.probe === undefined) return
    this.probe.open++
    this.probe.heardAt = this.now()
  }

  admitted(id: number): void {
    if (id > this.lastId) this.lastId = id
  }

  /** A call has ended, or was not let out after all (`id` is `undefined`). Its permit is in hand then. */
  leave(id: number | undefined, succeeded: boolean): void {
    this.inFlight--
    if (this.semaphore !== undefined) this.inHand++
    const { probe } = this
    if (probe === undefined || (id !== undefined && id <= probe.counts)) return
    if (probe.open > 0) probe.open--
    if (!succeeded || id === undefined || id <= probe.since) return
    probe.allowed++
    probe.heardAt = this.now()
    if (probe.allowed >= Math.min(mostProbed, this.concurrency)) this.probe = undefined
  }

  /** The provider said no to the call `id`. */
  pause(reason: PauseReason, id: number | undefined): void {
    const { lastId, probe } = this
    if (reason !== "overload") {
      this.probe = { since: lastId, counts: lastId, reason, allowed: 1, open: 0, heardAt: this.now() }
      return
    }
    // Calls of one round that fail together are one overload: the places are halved once.
    if (probe?.reason === "overload" && id !== undefined && id <= probe.since) return
    const half = Math.max(1, Math.floor(Math.min(this.allowed, this.inFlight + 1) / 2))
    if (probe !== undefined && probe.reason !== "overload") probe.allowed = Math.min(probe.allowed, half)
    else {
      const counts = -Infinity
      this.probe = { since: lastId, counts, reason, allowed: half, open: this.inFlight, heardAt: this.now() }
    }
  }

  /** The limits are known now: the first call need not go alone any more. */
  known(): void {
    if (this.probe?.reason === "unknown") this.probe = undefined
  }

  resize(concurrency: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.concurrency = concurrency
      if (concurrency === Infinity) {
        this.inHand = 0
        this.semaphore = undefined
        return Effect.void
      }
      if (this.semaphore !== undefined) return this.semaphore.resize(concurrency)
      const semaphore = Semaphore.makeUnsafe(Math.max(concurrency, this.inFlight))
      this.semaphore = semaphore
      return Effect.andThen(semaphore.take(this.inFlight), semaphore.resize(concurrency))
    })
  }
}
