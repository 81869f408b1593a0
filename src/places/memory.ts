/** A governor's memory of places: where conversations are, how long answers take, and which places are set aside. Mutable. */
import * as Lru from "../domain/input/lru.ts"
import type { PlaceEnd, PlaceExchange, PlaceLearner, SentCall, SentElsewhere } from "../domain/placeCalls.ts"
import * as Answers from "./answers.ts"
import type { PlaceStatus, StatedLimits } from "./models.ts"

/** More conversations than run at the same time. One that is evicted may start anywhere. */
const maxConversations = 10_000
const maxPools = 1_000

/** How long a place is set aside whose provider refuses the credential, the model or the bill. Then one call tries it. */
const asideMillis = 30_000

/** The weight of the last failure in their average: about the last ten count. */
const weight = 1 / 8
/** The assumption until there was a failure. */
const usualFailure = 1_000

/**
 * A place that is left for slowness is tried by at most one call in so many, and not before so long, or as long as its answers take. Each
 * time, that doubles.
 */
const tryCalls = 20
const tryMillis = 30_000
const maxTryTimes = 8
/** It is tried at once if more than half of so many calls there end within the time of one quick answer. Fewer may do so by chance. */
const minTogether = 8

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

/** A place that is left for slowness. */
interface SlowPlace {
  /** How long an answer takes where it is quickest. */
  quick: number
  /** The calls that have gone elsewhere since it was last tried. */
  calls: number
  /** When one may try it, and how many times longer than usual the next one waits. */
  due: number
  times: number
  /** When the calls under way there were counted, and how many there were. */
  countedAt: number
  underWay: number
  /** Whether they say that it has recovered. */
  isBack: boolean
}

interface PoolTimes {
  /** Undefined until an answer has come. */
  answers: Answers.AnswerTimes | undefined
  /** The calls without an answer, in the order in which they were sent. */
  readonly sent: Set<SentCall>
  /** Those of other processes, as far as they are known. */
  elsewhere: SentElsewhere
  /** Undefined unless it is left for slowness. */
  left: SlowPlace | undefined
  failure: number
  /** Until when it is set aside. */
  asideUntil: number
  /** Whether its provider has read a prompt from a cache, or written one. */
  caches: boolean
  outlook: ReadAt<Outlook> | undefined
  /** The tokens of input a second that its limit allows. */
  inputRate: ReadAt<number> | undefined
}

const nobody: SentElsewhere = { count: 0, first: [] }
const nobodySent: ReadonlySet<SentCall> = new Set()

/** The calls without an answer, of all processes. */
const underWay = ({ elsewhere, sent }: PoolTimes): number => sent.size + elsewhere.count

/** The first of them, in the order in which they were sent. */
const firstSent = ({ elsewhere: { first }, sent }: PoolTimes): Iterable<SentCall> =>
  first.length === 0 ? sent : [...first, ...sent].sort((one, other) => one.at - other.at)

/** A place that was left has answered. If it has recovered, its calls end together, and not as far apart as slow calls were sent. */
const countEnds = (times: PoolTimes, now: number): void => {
  const { left } = times
  if (left === undefined) return
  const count = underWay(times)
  if (now - left.countedAt > left.quick) Object.assign(left, { countedAt: now, underWay: count })
  else if (left.underWay >= minTogether && count < left.underWay / 2) left.isBack = true
}

/** The place was heard of, so it need not be tried soon: a call that tries it may take as long as its answers do. */
const heard = ({ answers, left }: PoolTimes, now: number): void => {
  if (left !== undefined) left.due = now + left.times * Math.max(tryMillis, answers?.millis ?? 0)
}

/** A call tries a place that was left, or has tried it. */
const triedLeft = ({ left }: PoolTimes): void => {
  if (left === undefined) return
  Object.assign(left, { isBack: false, underWay: 0, calls: 0, times: Math.min(maxTryTimes, 2 * left.times) })
}

const stateOf = ({ answers, asideUntil, left, outlook, sent }: PoolTimes, now: number): PlaceStatus["state"] => {
  if (asideUntil > 0) return sent.size > 0 ? "trial" : "refused"
  if (left !== undefined) return Array.from(sent).some(({ isProbe }) => isProbe) ? "trial" : "slow"
  const seen = fresh(outlook, now)
  if (seen !== undefined && (seen.wait > 0 || seen.isPaused)) return "full"
  return answers === undefined ? "untried" : "open"
}

/** The place where the prompt of a conversation is cached, and the tokens of its last prompt. */
export interface CachedConversation {
  readonly place: string
  readonly prompt: number
}

/** How long calls of a pool take, in milliseconds. */
export interface AttemptTimes {
  /** An answer, now and as was learned before, and by how much that may be too short; undefined until one has come. */
  readonly answers: number | undefined
  readonly usual: number | undefined
  readonly margin: number
  /** How long the first call has been without an answer. */
  readonly age: number
  /** A failure. */
  readonly fails: number
}

export class PlaceMemory implements PlaceLearner {
  /** Tells other processes; undefined without a store. */
  readonly exchange: PlaceExchange | undefined
  private readonly conversations = new Map<string, CachedConversation>()
  private readonly pinned = new Map<string, string>()
  private readonly stated = new Map<string, StatedLimits>()
  private readonly times = new Map<string, PoolTimes>()
  /** The output of an answer as a part of its estimate, which is about what most calls do not exceed. */
  private outputPart = 1

  constructor(open?: (learner: PlaceLearner) => PlaceExchange) {
    this.exchange = open?.(this)
  }

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

  /**
   * How long a call takes whose estimate has so many output tokens. Calls that have waited for their answers for longer than usual say
   * that it takes longer now.
   */
  timesOf(pool: string, estimate: number, now: number): AttemptTimes {
    const times = this.times.get(pool)
    if (times === undefined) return { answers: undefined, usual: undefined, margin: 0, age: 0, fails: usualFailure }
    const { answers, failure: fails } = times
    const [first] = firstSent(times)
    const age = first === undefined ? 0 : now - first.at
    if (answers === undefined) return { answers, usual: undefined, margin: 0, age, fails }
    const usual = Answers.expected(answers, this.outputOf(estimate))
    return { answers: this.slowdown(answers, times, now) * usual, usual, margin: Answers.margin(answers), age, fails }
  }

  /** How many times longer answers take now than was learned. */
  private slowdown(answers: Answers.AnswerTimes, times: PoolTimes, now: number): number {
    return Answers.slowdown(
      firstSent(times),
      ({ at }) => now - at,
      (call) => Answers.expected(answers, this.outputOf(call.estimate))
    )
  }

  /** The output tokens that a call is expected to have. */
  private outputOf(estimate: number): number {
    return estimate * this.outputPart
  }

  /** The call has ended with an answer. */
  answered(pool: string, call: SentCall, tokens: number | undefined, isCached: boolean, now: number): void {
    const times = this.pool(pool)
    if (isCached) times.caches = true
    times.asideUntil = 0
    this.ended(pool, times, call, { tokens, isAnswer: true }, now)
    countEnds(times, now)
  }

  /** The call has ended without an answer. */
  unanswered(pool: string, call: SentCall, now: number): void {
    this.ended(pool, this.pool(pool), call, { tokens: undefined, isAnswer: false }, now)
  }

  private ended(
    pool: string,
    times: PoolTimes,
    call: SentCall,
    end: Pick<PlaceEnd, "tokens" | "isAnswer">,
    now: number
  ): void {
    const { at, estimate, isProbe } = call
    times.sent.delete(call)
    const ended: PlaceEnd = { estimate, isProbe, millis: now - at, ...end }
    if (this.follow(times, ended)) this.exchange?.ended(pool, ended)
    else this.exchange?.changed(pool)
    heard(times, now)
  }

  /**
   * Learns from a call, if it tells how long answers take. That of a probe replaces what was known. One without an answer tells it if it
   * took longer than an answer does.
   */
  private follow(times: PoolTimes, { estimate, isAnswer, isProbe, millis, tokens }: PlaceEnd): boolean {
    const { answers } = times
    const output = this.outputOf(estimate)
    if (!isAnswer && (answers === undefined || !Answers.isLate(answers, millis, output))) return false
    const before = isAnswer && isProbe ? undefined : answers
    times.answers = Answers.follow(before, tokens ?? output, millis, output)
    if (tokens !== undefined && estimate > 0) {
      this.outputPart += (Math.min(1, tokens / estimate) - this.outputPart) * weight
    }
    return true
  }

  /** The calls of this process at a place, in the order in which they were sent. */
  sentTo(pool: string): ReadonlySet<SentCall> {
    return this.times.get(pool)?.sent ?? nobodySent
  }

  /** Learns what other processes know of a place. */
  learn(pool: string, ended: ReadonlyArray<PlaceEnd>, elsewhere: SentElsewhere, now: number): void {
    const times = this.pool(pool)
    times.elsewhere = elsewhere
    for (const call of ended) {
      this.follow(times, call)
      if (call.isProbe) triedLeft(times)
      heard(times, now)
    }
    countEnds(times, now)
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
  sent(pool: string, estimate: number, isProbe: boolean, now: number): SentCall {
    if (this.asideUntil(pool) > 0) this.setAside(pool, now)
    const call: SentCall = { at: now, estimate, isProbe }
    this.pool(pool).sent.add(call)
    this.exchange?.changed(pool)
    return call
  }

  /** A call goes elsewhere, because the place is slow. An answer takes `quick` where it is quickest. */
  left(pool: string, quick: number, now: number): void {
    const times = this.pool(pool)
    times.left ??= { quick, calls: 0, due: now + tryMillis, times: 1, countedAt: -Infinity, underWay: 0, isBack: false }
    times.left.quick = quick
    times.left.calls++
  }

  /** The place is not slow any more. */
  isQuick(pool: string): void {
    const times = this.times.get(pool)
    if (times !== undefined) times.left = undefined
  }

  /**
   * Whether a call is to find out if a place that was left for slowness has recovered. Only one is, and none while calls are under way
   * that do not say so themselves.
   */
  isTried(pool: string, now: number): boolean {
    const times = this.pool(pool)
    const { left } = times
    if (left === undefined) return false
    const isDue = underWay(times) === 0 && left.calls >= tryCalls && now >= left.due
    if (!left.isBack && !isDue) return false
    triedLeft(times)
    heard(times, now)
    return true
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

  /** Whether the limits of a place, if it states any, are those of its pool. */
  hasLimits(pool: string, { concurrency, limits }: StatedLimits): boolean {
    const before = this.stated.get(pool)
    return before?.limits === limits && before?.concurrency === concurrency
  }

  /** Notes the limits that a place states of its pool. Returns those that it stated before; undefined if it stated none. */
  states(pool: string, stated: StatedLimits): StatedLimits | undefined {
    const before = this.stated.get(pool)
    if (stated.limits === undefined && stated.concurrency === undefined) this.stated.delete(pool)
    else Lru.put(this.stated, pool, stated, maxPools)
    return before
  }

  /** Why calls go to each place, or do not. */
  status(now: number): ReadonlyArray<PlaceStatus> {
    return Array.from(this.times, ([pool, times]): PlaceStatus => {
      const { answers, asideUntil, left } = times
      const answerMillis = answers && answers.millis * this.slowdown(answers, times, now)
      const triedAt = asideUntil > 0 ? asideUntil : left?.due
      return { pool, state: stateOf(times, now), answerMillis, triedAt }
    })
  }

  private pool(name: string): PoolTimes {
    const times = this.times.get(name) ?? {
      answers: undefined,
      sent: new Set<SentCall>(),
      elsewhere: nobody,
      left: undefined,
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
