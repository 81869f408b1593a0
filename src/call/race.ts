/**
 * The wait of an attempt that may be made at several places. It stands in the queue of each that the policy chooses, and goes to the first
 * that admits it; the others drop it uncharged.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { exitOf, traced } from "../budget/asking.ts"
import { Entry } from "../budget/entry.ts"
import { tooLong } from "../budget/foresee.ts"
import { promptTokens } from "../domain/amounts.ts"
import { millisOf } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import type { Claim } from "../line/hold.ts"
import * as Answers from "../places/answers.ts"
import { type Candidate, chosen, endOf, inOrder, isSlow, minStay } from "../places/choice.ts"
import type { CachedConversation, Outlook } from "../places/memory.ts"
import type { PlacedBecause } from "../places/placement.ts"
import { ask, queueingOf } from "./admission.ts"
import type { GovernedAttempt, Held } from "./attempt.ts"
import type { Located } from "./located.ts"
import type { SharedPlaces } from "./place.ts"
import type { Restore } from "./models.ts"
import { inOrder as oneByOne, refund, type Rest } from "./settlement.ts"
import * as Usage from "./usage.ts"

// -----------------------------------------------------------------------------
// A hold at a place
// -----------------------------------------------------------------------------

/** The hold of an attempt in the queue of a place: an entry, or a fiber in which another layer reserves. */
type PlaceHold = Entry | Fiber.Fiber<Held, Budget.BudgetError>

/** The admission or the refusal; undefined while the attempt waits. */
type PlaceExit = Exit.Exit<Held, Budget.BudgetError> | undefined

const pollHold = (hold: PlaceHold): PlaceExit => {
  if (!(hold instanceof Entry)) return hold.pollUnsafe()
  return hold.phase === "waiting" ? undefined : exitOf(hold)
}

/** Ends the wait, or gives back what was admitted meanwhile. */
const leave = (hold: PlaceHold): Rest => {
  if (hold instanceof Entry) return refund(hold)
  hold.interruptUnsafe()
  return Effect.flatMap(Fiber.await(hold), (exit) => (Exit.isSuccess(exit) && refund(exit.value)) || Effect.void)
}

/** An attempt at one of its places: its prospects and its hold there. */
export class Standing implements Candidate {
  readonly at: Located
  outlook: Outlook = { wait: Infinity, isPaused: false }
  /** How long the call is expected to wait. */
  foreseen = Infinity
  cost = Infinity
  answers = 0
  margin = 0
  fails = 0
  stay = 0
  hasFailed = false
  /** Whether the call goes elsewhere because its answer would take too long here. */
  isSlow = false
  /** Undefined until the call joins the queue. */
  hold: PlaceHold | undefined = undefined
  /** When the call was expected to start as it joined the queue. */
  startsAt = -Infinity
  exit: PlaceExit = undefined

  constructor(at: Located) {
    this.at = at
  }
  get wait(): number {
    return this.exit === undefined ? this.foreseen : Infinity
  }
  /** Whether the call may still join the queue. */
  get isOpen(): boolean {
    return this.hold === undefined && this.exit === undefined
  }
  get refusal(): Budget.BudgetError | undefined {
    return this.exit && Option.getOrUndefined(Exit.findErrorOption(this.exit))
  }
}

// -----------------------------------------------------------------------------
// The race
// -----------------------------------------------------------------------------

/** A call leaves a queue when it would end there so many times later than a place may be to be joined. */
const maxSlack = 2

/** An attempt at all of its places, while it waits. */
export class Race {
  readonly attempt: GovernedAttempt
  readonly standings: ReadonlyArray<Standing>
  /** Where it is admitted. */
  winner: Standing | undefined = undefined
  /** Whether the last review foresaw for this very call. */
  isOwnReview = false
  /** The slow place that the call tries, to find out if it has recovered. */
  probed: Standing | undefined = undefined
  private readonly shared: SharedPlaces
  private readonly context: Context.Context<never>
  /** The place where its prompt is cached. */
  private readonly cachedAt: Standing | undefined
  private readonly deadline: number
  private readonly claim: Claim | undefined
  /** Those whose queues it has joined, in that order. */
  private readonly joined: Array<Standing> = []
  private wake: () => void = () => {}

  constructor(
    attempt: GovernedAttempt,
    located: ReadonlyArray<Located>,
    conversation: CachedConversation | undefined,
    context: Context.Context<never>
  ) {
    const { parts, request, startedAt } = attempt.call
    const { within } = request.places!
    this.attempt = attempt
    this.shared = parts.places!
    this.context = context
    this.standings = located.map((at) => new Standing(at))
    this.cachedAt = this.standings.find(
      ({ at: { place, pool } }) => place.name === conversation?.place && this.shared.memory.caches(pool.name)
    )
    this.deadline = Math.min(attempt.last, within === undefined ? Infinity : startedAt + millisOf(within))
    this.claim = located.length > 1 ? { isTaken: false, queues: located.length } : undefined
  }

  /** The time when the call may be sent to a place: not before its failure there is over, nor while the place is set aside. */
  private earliest({ at: { index, pool } }: Standing): number {
    const { placement } = this.attempt.call
    const aside = this.standings.length > 1 ? this.shared.memory.asideUntil(pool.name) : 0
    return Math.max(placement!.earliest(index), aside)
  }

  // ---------------------------------------------------------------------------
  // Choosing
  // ---------------------------------------------------------------------------

  /** Compares the places by what was foreseen last. False if the rate of one is not known. */
  weigh(): boolean {
    const { attempt, cachedAt, standings } = this
    const { now, placement } = attempt.call
    const { memory } = this.shared
    // Places are compared by one usage, because what was learned of each differs.
    const usage = Usage.expected((cachedAt ?? standings[0]!).at)
    const uncached = { inputTokens: promptTokens(usage), outputTokens: usage.outputTokens }
    const times = standings.map(({ at }) => memory.timesOf(at.pool.name, usage.outputTokens, now))
    const known = times.flatMap(({ usual }) => usual ?? [])
    const best = known.length === 0 ? undefined : Math.min(...known)
    for (const [n, each] of standings.entries()) {
      const { index, pool, price } = each.at
      each.outlook = memory.outlook(pool.name, now) ?? each.outlook
      const { isPaused, wait } = each.outlook
      // A prediction is for a call that comes now. The call itself may be far ahead of that, so what was predicted when it joined
      // counts until that has proved wrong, or the pool pauses.
      const left = each.startsAt - now
      each.foreseen = Math.max(left >= 0 && !isPaused ? left : wait, this.earliest(each) - now)
      const used = cachedAt === undefined || each === cachedAt ? usage : uncached
      each.cost = price === undefined ? Infinity : Usage.costOf(price, used)
      const { age, answers = Answers.guess(age, best), fails, margin } = times[n]!
      Object.assign(each, { answers, fails, margin })
      each.hasFailed = placement!.hasFailed(index)
    }
    const isKnown = cachedAt === undefined || this.weighStay(cachedAt)
    this.findSlow()
    return isKnown
  }

  /** Notes which places are slow, and whether the call tries one of them. */
  private findSlow(): void {
    const { attempt, deadline, standings } = this
    const { now, placement } = attempt.call
    for (const each of standings) {
      const { name } = each.at.pool
      if (standings.length > 1) this.shared.memory.exchange?.weighed(name)
      each.isSlow = isSlow(each, standings, placement!.policy, deadline - now)
      if (!each.isSlow) this.shared.memory.isQuick(name)
      else if (this.winner === undefined && this.joined.length === 0 && this.shared.memory.isTried(name, now))
        this.probed = each
    }
  }

  /** How much sooner another place must end the call: as long as that place's limit takes for the cached prompt. */
  private weighStay(cachedAt: Standing): boolean {
    const { attempt, standings } = this
    const { now } = attempt.call
    cachedAt.stay = minStay
    const soonest = standings.reduce((one, other) => (endOf(other) < endOf(one) ? other : one))
    if (!(endOf(cachedAt) - endOf(soonest) > minStay)) return true
    const rate = this.shared.memory.inputRate(soonest.at.pool.name, now)
    if (rate !== undefined && rate > 0) cachedAt.stay = Math.max(minStay, (cachedAt.at.cached / rate) * 1_000)
    return rate !== undefined
  }

  /** The places whose queues the call may join now. */
  private get due(): ReadonlyArray<Standing> {
    const { now } = this.attempt.call
    return this.chosen(1).filter((each) => each.isOpen && this.earliest(each) <= now)
  }

  /** The places in whose queues the call should wait. */
  private chosen(slack: number): ReadonlyArray<Standing> {
    const { attempt, deadline, probed, standings } = this
    const { now, placement } = attempt.call
    // It tries a place only if it need not wait there longer than elsewhere.
    if (probed !== undefined && standings.every((each) => probed.wait <= endOf(each))) return [probed]
    return chosen(standings, placement!.policy, deadline - now, slack)
  }

  /** The places in whose queues the call waits, and should not any more, because they have become slow. */
  private get slow(): ReadonlyArray<Standing> {
    const slow = this.joined.filter(({ exit, hold, isSlow }) => isSlow && exit === undefined && hold instanceof Entry)
    if (slow.length === 0) return slow
    const stays = this.chosen(maxSlack)
    return slow.filter((each) => !stays.includes(each))
  }

  /** Chooses again by what others have foreseen within the last second, and wakes the call if it may join another queue. */
  reconsider(): void {
    const { now, parts } = this.attempt.call
    const reconsidered = (): void => {
      this.isOwnReview = false
      if (this.due.length > 0 || this.slow.length > 0) parts.wake(this.wake)
    }
    const isSeen = this.standings.every(({ at }) => this.shared.memory.outlook(at.pool.name, now) !== undefined)
    if (isSeen && this.weigh()) return reconsidered()
    Effect.runForkWith(this.context)(Effect.ignoreCause(Effect.map(review(this, false), reconsidered)))
  }

  // ---------------------------------------------------------------------------
  // Waiting
  // ---------------------------------------------------------------------------

  /** Waits until a place admits the call, or all have refused it. Only the wait itself is interrupted. */
  run(restore: Restore): Effect.Effect<Held, Budget.BudgetError> {
    const { agent } = this.attempt.call
    const waiting: Effect.Effect<Held, Budget.BudgetError> = Effect.suspend(() => {
      const step = this.due.length > 0 ? review(this, true) : this.asleep
      return Effect.flatMap(restore(step), () => this.next() ?? waiting)
    })
    const ran = Effect.suspend(() => {
      const exit = this.next()
      if (exit !== undefined) return exit
      // A layer that reserves has spans of its own.
      const isOwn = this.joined.some(({ hold }) => hold instanceof Entry)
      return isOwn ? traced(waiting, this.context, { "floodgate.agent": agent }) : waiting
    })
    return Effect.onExitPrimitive(ran, (exit) => this.leave(exit))
  }

  /** Notes which waits have ended, and joins the queues that are due. Returns the end of the race; undefined while it goes on. */
  private next(): PlaceExit {
    const { attempt, standings } = this
    const { now } = attempt.call
    this.shared.reviews.delete(this)
    for (const each of standings) this.conclude(each, Math.max(0, attempt.until - now))
    if (this.winner === undefined) this.leaveSlow()
    if (this.isOwnReview) this.join()
    if (this.winner !== undefined) return this.winner.exit
    if (standings.some(({ exit }) => exit === undefined)) return undefined
    // A place that has neither admitted nor refused the call has failed.
    return (standings.find(({ refusal }) => refusal === undefined) ?? standings[0]!).exit
  }

  /** Notes whether a wait has ended. It ends if the call may wait no longer, or not until the place may be tried. */
  private conclude(standing: Standing, left: number): void {
    const { at, exit, hold } = standing
    if (exit !== undefined) return
    const late = (dimension: Limits.Dimension | undefined, wait: number, maxWait: number): PlaceExit =>
      Exit.fail(new Budget.BudgetError({ reason: tooLong(at.pool.name, dimension, wait, maxWait) }))
    if (hold === undefined) {
      const wait = this.earliest(standing) - this.attempt.call.now
      if (wait > left) standing.exit = late(undefined, wait, left)
      return
    }
    standing.exit = pollHold(hold)
    if (standing.exit?._tag === "Success") this.winner ??= standing
    if (standing.exit !== undefined || left > 0 || !(hold instanceof Entry)) return
    standing.exit = late(hold.binding, hold.queueing.maxWait, hold.queueing.maxWait)
    refund(hold)
  }

  /** Leaves the queues of places that have become slow. It may join them again. */
  private leaveSlow(): void {
    for (const each of this.slow) {
      leave(each.hold!)
      each.hold = undefined
      each.startsAt = -Infinity
      this.joined.splice(this.joined.indexOf(each), 1)
    }
  }

  /** Joins the queues that are due, until one admits the call at once. */
  private join(): void {
    const { attempt, claim, context, joined } = this
    const { now } = attempt.call
    for (let { due } = this; due.length > 0 && this.winner === undefined; due = this.due) {
      const next = inOrder(this.standings).find((each) => due.includes(each))!
      const { at } = next
      const asked = ask(attempt, at.estimate, queueingOf(attempt, at, now, at.revise, claim), context)
      next.hold = asked instanceof Entry ? asked : Effect.runForkWith(context)(Scope.provide(asked, attempt.scope))
      next.startsAt = now + next.foreseen
      joined.push(next)
      this.conclude(next, attempt.until - now)
    }
  }

  /** Sleeps until a wait ends, or must end, or a queue may be due. */
  private get asleep(): Effect.Effect<void> {
    const { attempt, standings } = this
    const { now } = attempt.call
    const open = standings.filter(({ isOpen }) => isOpen)
    const holds = this.joined.flatMap(({ exit, hold }) => (exit === undefined ? hold! : []))
    const asleep = Effect.callback<void>((resume) => {
      const wake = (this.wake = () => resume(Effect.void))
      if (standings.length > 1) this.shared.reviews.add(this)
      for (const hold of holds) {
        if (hold instanceof Entry) hold.listen(wake)
        else hold.addObserver(wake)
      }
    })
    const times = open.map((each) => this.earliest(each)).filter((time) => time > now)
    // A layer that reserves ends the wait by itself.
    if (holds.some((hold) => hold instanceof Entry)) times.push(attempt.until)
    // A clock with fractions may be woken an instant too early, and a wait for less than that would never end.
    const duration = Math.ceil(Math.min(...times) - now)
    return duration === Infinity ? asleep : Effect.timeoutOrElse(asleep, { duration, orElse: () => Effect.void })
  }

  /** Ends the waits in other queues than the one that has admitted the call. */
  private leave({ _tag }: Exit.Exit<unknown, unknown>): Rest {
    this.shared.reviews.delete(this)
    let rest: Rest
    for (const each of this.joined) {
      if (_tag === "Failure" || each !== this.winner) rest = oneByOne(rest, leave(each.hold!))
    }
    return rest
  }

  // ---------------------------------------------------------------------------
  // Afterwards
  // ---------------------------------------------------------------------------

  /** The place where the call would go if no other were sooner or cheaper. */
  get usual(): Standing {
    return this.cachedAt ?? inOrder(this.standings, () => 0)[0]!
  }

  /** The reason why the call goes to the place that has admitted it. */
  get why(): PlacedBecause {
    const { cachedAt, standings, usual, winner } = this
    const { current, isPinned, policy } = this.attempt.call.placement!
    if (isPinned) return "pinned"
    if (current !== undefined && current !== winner!.at.index) return "failed"
    if (standings.length === 1) return "only"
    if (winner === this.probed) return "probe"
    if (winner === cachedAt) return "cached"
    if (winner === usual) return "first"
    if (usual.isSlow) return "slow"
    return policy === "cheapest" ? "cheaper" : "sooner"
  }
}

// -----------------------------------------------------------------------------
// Foreseeing
// -----------------------------------------------------------------------------

/**
 * Foresees when a call would start at each place. To foresee is to play the queue of a pool, so all calls that wait look once a second
 * together. A call that comes, or is about to join another queue, looks itself. So it sees those who have just joined.
 */
export const review = Effect.fnUntraced(function* (race: Race, isOwn: boolean): Effect.fn.Return<void> {
  const { attempt, standings } = race
  const { now, parts } = attempt.call
  const { budget } = parts
  const { memory } = parts.places!
  for (const each of standings) {
    const { estimate, pool } = each.at
    if (!isOwn && memory.outlook(pool.name, now) !== undefined) continue
    const { binding, refusal, wait } = yield* budget.foresee(estimate, queueingOf(attempt, each.at, now))
    each.outlook = { wait: refusal === undefined ? Duration.toMillis(wait) : Infinity, isPaused: binding === "pause" }
    memory.foresaw(pool.name, each.outlook, now)
  }
  if (!race.weigh()) {
    const { pools } = yield* budget.status
    for (const { at } of standings) {
      memory.hasInputRate(at.pool.name, inputRateOf(pools[at.pool.name]), now)
    }
    race.weigh()
  }
  race.isOwnReview = isOwn
})

const inputRateOf = ({ dimensions = {} }: Partial<Budget.PoolStatus> = {}): number =>
  (dimensions.inputTokens ?? dimensions.tokens)?.perSecond ?? Infinity
