/**
 * How many calls of a pool may be in flight: the concurrency, held as permits of a semaphore that nobody ever waits on,
 * and a probe that lets calls out one, two, four after the provider said no.
 *
 * A call that ends leaves its permit in hand, for the next one; what nobody takes goes back to the semaphore.
 *
 * While the provider is down its probes fail, too. Each that fails alone makes the pool rest before the next, longer each
 * time: an outage costs all callers together a probe now and then, and not each of them its attempts.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { Pushback } from "../LlmError.ts"
import * as Backoff from "../internal/backoff.ts"

/**
 * A bound on calls in flight. After a rejection it is one, then two, then four, for a round of calls each. When the
 * provider has accepted those, each success doubles it: the buckets still pace what goes out, and a rejection costs
 * less when the pool opens sooner. After an overload, and while the limits are unknown, it grows by one with each
 * success.
 */
interface Probe {
  /** Successes of calls up to this one say nothing: they were sent before. */
  since: number
  /** Calls up to this one are not counted: waiting for them would keep the provider idle. */
  readonly counts: number
  readonly reason: Pushback | "unknown"
  allowed: number
  open: number
  /** When a call last went out or succeeded. */
  heardAt: number
  /** How many in a row failed alone, because of overload. */
  misses: number
  /** No call goes out before this time. */
  restsUntil: number
}

/** Up to this bound, a round of calls doubles it once, and not once for each success. */
const mostByRound = 4
/** At this bound the probing ends. */
const mostProbed = 1024
/**
 * How long others wait for a probe. A stream may run long, and a silent one for ever, but a rejection comes at once.
 */
const patienceMillis = 60_000
/**
 * How long to rest after a probe that failed alone. One probe costs the provider almost nothing, so the rests are
 * short, and the end of an outage is noticed within 20 s. The first ones are long enough that the five attempts of a
 * single caller span half a minute.
 */
const rest = { base: 5_000, factor: 2, cap: 20_000 }

export class Gate {
  inFlight = 0
  concurrency: number
  /** `undefined` where nothing bounds the calls in flight. Else what is taken of it is in flight or in hand. */
  private semaphore: Semaphore.Semaphore | undefined
  private inHand = 0
  private probe: Probe | undefined
  private lastId = -1
  /** How many effects keep the gate shut for the moment. */
  private shut = 0
  private readonly now: () => number

  /** `now` gives milliseconds. */
  constructor(concurrency: number, alone: boolean, now: () => number) {
    this.concurrency = concurrency
    this.now = now
    this.semaphore = concurrency === Infinity ? undefined : Semaphore.makeUnsafe(concurrency)
    if (alone) this.probe = this.probeOf("unknown", -1, -Infinity, 1, 0)
  }

  private probeOf(reason: Probe["reason"], since: number, counts: number, allowed: number, open: number): Probe {
    return { since, counts, reason, allowed, open, heardAt: this.now(), misses: 0, restsUntil: -Infinity }
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
    if (probe === undefined) return 0
    const silent = probe.open < probe.allowed ? 0 : probe.heardAt + patienceMillis - this.now()
    return Math.max(silent, this.rest)
  }

  /** Whether one call at a time finds out if the provider's overload is over. */
  get probesOverload(): boolean {
    return this.probe?.reason === "overload" && this.probe.allowed === 1
  }

  /** Milliseconds for which nobody goes out, because the last probe failed; 0 where none did. */
  get rest(): number {
    const until = this.probe?.restsUntil ?? -Infinity
    return until === -Infinity ? 0 : Math.max(0, until - this.now())
  }

  /** Lets no call out while an effect runs. Afterwards ask again which call may go. */
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
      // The semaphore was replaced meanwhile: the new one has permits of its own.
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
    if (probe.reason === "overload" || probe.reason === "unknown") probe.allowed++
    else {
      probe.allowed *= 2
      if (probe.allowed <= mostByRound) probe.since = this.lastId
    }
    probe.heardAt = this.now()
    if (probe.allowed >= Math.min(mostProbed, this.concurrency)) this.probe = undefined
  }

  /** The provider said no to the call `id`. The random number spreads how long it rests. */
  pause(reason: Pushback, id: number | undefined, random: number): void {
    const { lastId, probe } = this
    if (reason !== "overload") {
      this.probe = this.probeOf(reason, lastId, lastId, 1, 0)
      return
    }
    // Calls of one round that fail together are one overload: the places are halved once.
    if (this.rest > 0 || (probe !== undefined && id !== undefined && id <= probe.since)) return
    if (probe !== undefined && this.probesOverload) {
      probe.since = lastId
      probe.misses++
      probe.restsUntil =
        this.now() + Math.ceil(Backoff.spread("proportional", Backoff.exponential(rest, probe.misses), random))
      return
    }
    const half = Math.max(1, Math.floor(Math.min(this.allowed, this.inFlight + 1) / 2))
    const { allowed, counts, open } = probe ?? { allowed: Infinity, counts: -Infinity, open: this.inFlight }
    this.probe = this.probeOf(reason, lastId, counts, Math.min(allowed, half), open)
  }

  /** The limits are known now: the first call need not go alone any more. */
  known(): void {
    if (this.probe?.reason === "unknown") this.probe = undefined
  }

  /** The limits are known no more: one call goes alone again. */
  unknown(): void {
    this.probe ??= this.probeOf("unknown", this.lastId, this.lastId, 1, 0)
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
