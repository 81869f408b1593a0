/** A governor's memory of places: where conversations are, how long answers take, and which places are set aside. Mutable. */
import * as Estimating from "../domain/estimating.ts"
import * as Lru from "../domain/input/lru.ts"

/** More conversations than run at the same time. One that is evicted may start anywhere. */
const maxConversations = 10_000
const maxPools = 1_000

/** How long a place is set aside whose provider refuses the credential, the model or the bill. Then one call tries it. */
const asideMillis = 30_000

/** The weight of the last failure in their average: about the last ten count. */
const weight = 1 / 8
/** The assumption until an answer has come. */
const usualAnswer = 10_000
const usualFailure = 1_000
/** An answer takes longer than the mean and this many mean deviations once in about fifty times. */
const deviations = 3

/** For how long what was foreseen of a pool is good enough to reconsider where a call waits, in milliseconds. */
export const reviewMillis = 1_000

/** The outlook for a call that comes to a pool. */
export interface Outlook {
  /** How long it would wait; infinite if it would be refused. */
  readonly wait: number
  readonly isPaused: boolean
}

/** Something that was found out about a pool, and when. */
interface ReadAt<A> {
  readonly at: number
  readonly value: A
}

const fresh = <A>(recent: ReadAt<A> | undefined, now: number): A | undefined =>
  recent !== undefined && now - recent.at < reviewMillis ? recent.value : undefined

interface PoolTimes {
  /** Undefined until an answer has come. */
  answer: Estimating.Trend | undefined
  failure: number
  /** Until when it is set aside. */
  asideUntil: number
  /** Whether its provider has read a prompt from a cache, or written one. */
  caches: boolean
  outlook: ReadAt<Outlook> | undefined
  /** The tokens of input a second that its limit allows. */
  inputRate: ReadAt<number> | undefined
}

/** The place where the prompt of a conversation is cached, and the tokens of its last prompt. */
export interface CachedConversation {
  readonly place: string
  readonly prompt: number
}

/** How long calls of a pool take, in milliseconds. */
export interface AttemptTimes {
  /** An answer, cautiously. */
  readonly answers: number
  /** A failure. */
  readonly fails: number
}

export class PlaceMemory {
  private readonly conversations = new Map<string, CachedConversation>()
  private readonly pinned = new Map<string, string>()
  private readonly limits = new Map<string, object>()
  private readonly times = new Map<string, PoolTimes>()

  /** The place where the prompt of a conversation is cached. */
  cachedAt(key: string): CachedConversation | undefined {
    return this.conversations.get(key)
  }

  /** The place that stores a conversation. */
  pinOf(continuation: string): string | undefined {
    return this.pinned.get(continuation)
  }

  settled(key: string, conversation: CachedConversation): void {
    Lru.put(this.conversations, key, conversation, maxConversations)
  }

  /** Whether the provider of a pool is known to cache prompts. */
  caches(pool: string): boolean {
    return this.times.get(pool)?.caches === true
  }

  stored(continuation: string, place: string): void {
    Lru.put(this.pinned, continuation, place, maxConversations)
  }

  timesOf(pool: string): AttemptTimes {
    const { answer, failure = usualFailure } = this.times.get(pool) ?? {}
    const answers = answer === undefined ? usualAnswer : answer.mean + deviations * answer.deviation
    return { answers, fails: failure }
  }

  answered(pool: string, millis: number, isCached: boolean): void {
    const times = this.pool(pool)
    if (isCached) times.caches = true
    times.asideUntil = 0
    times.answer = Estimating.follow(times.answer, millis)
  }

  failed(pool: string, millis: number): void {
    const times = this.pool(pool)
    times.failure += (millis - times.failure) * weight
  }

  /** Sets a place aside. */
  setAside(pool: string, now: number): void {
    this.pool(pool).asideUntil = now + asideMillis
  }

  /** Until when a place is set aside; 0 if it is not. */
  asideUntil(pool: string): number {
    return this.times.get(pool)?.asideUntil ?? 0
  }

  /** A call is sent to a place. If that was set aside, the call is a probe, and the place stays aside until it is answered. */
  sent(pool: string, now: number): void {
    if (this.asideUntil(pool) > 0) this.setAside(pool, now)
  }

  /** The outlook that was foreseen for some call of a pool within the last second; undefined if there was none. */
  outlook(pool: string, now: number): Outlook | undefined {
    return fresh(this.times.get(pool)?.outlook, now)
  }

  foresaw(pool: string, value: Outlook, now: number): void {
    this.pool(pool).outlook = { at: now, value }
  }

  /** The tokens of input a second of a pool, if that was read within the last second. */
  inputRate(pool: string, now: number): number | undefined {
    return fresh(this.times.get(pool)?.inputRate, now)
  }

  hasInputRate(pool: string, value: number, now: number): void {
    this.pool(pool).inputRate = { at: now, value }
  }

  /** Whether the limits of a place, if it has any, are those of its pool. */
  hasLimits(pool: string, limits: object | undefined): boolean {
    return limits === undefined || this.limits.get(pool) === limits
  }

  /** Whether these limits of a place were not applied to its pool yet. Notes that they are. */
  isNewLimit(pool: string, limits: object): boolean {
    if (this.hasLimits(pool, limits)) return false
    Lru.put(this.limits, pool, limits, maxPools)
    return true
  }

  private pool(name: string): PoolTimes {
    const times = this.times.get(name) ?? {
      answer: undefined,
      failure: usualFailure,
      asideUntil: 0,
      caches: false,
      outlook: undefined,
      inputRate: undefined
    }
    Lru.put(this.times, name, times, maxPools)
    return times
  }
}
