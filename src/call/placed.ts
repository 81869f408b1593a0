/**
 * Admits an attempt at one of the places of its call.
 *
 * The call waits in the queue of each place that the policy chooses, as a reservation of its own. The first that is admitted wins.
 * The others are interrupted, which costs nothing.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import type { Claim } from "../line/hold.ts"
import { millisOf } from "../domain/input/checks.ts"
import { type Candidate, chosen, inOrder, minStay } from "../places/choice.ts"
import { type CachedConversation, type Outlook, reviewMillis } from "../places/memory.ts"
import type { PlacedBecause, Placement } from "../places/placement.ts"
import { type CallError, pay, queueingOf, refusalFor } from "./admission.ts"
import * as Counting from "./counting.ts"
import type { GovernedAttempt } from "./attempt.ts"
import type { GovernedCall } from "./governedCall.ts"
import type { Restore } from "./models.ts"
import { type Located, locate, openPlaces } from "./located.ts"
import { conversationOf } from "./place.ts"
import * as Usage from "./usage.ts"

// -----------------------------------------------------------------------------
// The race
// -----------------------------------------------------------------------------

/** The places of one attempt while it waits. */
class Race {
  private readonly attempt: GovernedAttempt
  private readonly call: GovernedCall
  private readonly placement: Placement
  private readonly clock: Clock.Clock
  readonly located: ReadonlyArray<Located>
  private readonly deadline: number
  /** The place where its prompt is cached. */
  private readonly cachedAt: Located | undefined
  candidates: ReadonlyArray<Candidate> = []
  private reviewedAt = -Infinity
  /** Whether the last review foresaw for this very call. */
  private isOwnReview = false
  /** When the call was expected to start, at the places where it waits. */
  private readonly starts = new Map<Located, number>()
  readonly refusals = new Map<Located, Budget.BudgetError>()

  constructor(
    attempt: GovernedAttempt,
    placement: Placement,
    located: ReadonlyArray<Located>,
    conversation: CachedConversation | undefined
  ) {
    const { call } = attempt
    const { within } = call.request.places!
    this.attempt = attempt
    this.call = call
    this.placement = placement
    this.clock = call.clock
    this.located = located
    this.deadline = Math.min(attempt.last, within === undefined ? Infinity : call.startedAt + millisOf(within))
    this.cachedAt = located.find(
      ({ place, pool }) => place.name === conversation?.place && call.parts.memory.caches(pool.name)
    )
  }

  private get now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /**
   * Foresees when the call would start at each place. To foresee is to play the queue of a pool, so all calls that wait look once a
   * second together. A call that comes, or is about to join another queue, looks itself. So it sees those who have just joined.
   */
  review(isOwn: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { now } = this
      this.reviewedAt = now
      this.isOwnReview = isOwn
      return Effect.flatMap(
        Effect.forEach(this.located, (at) => this.outlook(at, isOwn)),
        (all) => {
          const waits = this.located.map((at, index) => Math.max(this.waitAt(at, all[index]!), this.earliest(at) - now))
          return Effect.map(this.stay(waits), (stay) => {
            this.candidates = this.located.map((at, index) => this.candidateOf(at, waits[index]!, stay))
          })
        }
      )
    })
  }

  private outlook(at: Located, isOwn: boolean): Effect.Effect<Outlook> {
    const { attempt, call, now } = this
    const { budget, memory } = call.parts
    const known = isOwn ? undefined : memory.outlook(at.pool.name, now)
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(budget.foresee(at.estimate, queueingOf(attempt, at, now)), ({ binding, refusal, wait }) => {
      const outlook = {
        wait: refusal === undefined ? Duration.toMillis(wait) : Infinity,
        isPaused: binding === "pause"
      }
      memory.foresaw(at.pool.name, outlook, now)
      return outlook
    })
  }

  /**
   * How long the call still waits at a place. A prediction is for a call that comes now. The call itself may be far ahead of that,
   * so what was predicted when it came counts until that has proved wrong, or the pool pauses.
   */
  private waitAt(at: Located, { isPaused, wait }: Outlook): number {
    const left = (this.starts.get(at) ?? -Infinity) - this.now
    return left >= 0 && !isPaused ? left : wait
  }

  private candidateOf(at: Located, wait: number, stay: number): Candidate {
    const { call, cachedAt } = this
    return {
      wait,
      cost: this.costOf(at),
      ...call.parts.memory.timesOf(at.pool.name),
      stay: at === cachedAt ? stay : 0,
      hasFailed: this.placement.hasFailed(at.index)
    }
  }

  /** Places are compared by one usage, because what was learned of each differs. */
  private costOf({ price, ...at }: Located): number {
    if (price === undefined) return Infinity
    const { cachedAt, located } = this
    const { cacheReadTokens = 0, inputTokens, outputTokens } = Usage.expected(cachedAt ?? located[0]!)
    const isCached = cachedAt === undefined || at.index === cachedAt.index
    const usage = isCached
      ? { inputTokens, cacheReadTokens, outputTokens }
      : { inputTokens: inputTokens + cacheReadTokens, outputTokens }
    return Usage.costOf(price, usage)
  }

  /** How much sooner another place must start the call: as long as that place's limit takes for the cached prompt. */
  private stay(waits: ReadonlyArray<number>): Effect.Effect<number> {
    const { cachedAt, located } = this
    if (cachedAt === undefined) return Effect.succeed(0)
    const best = Math.min(...waits)
    const soonest = located[waits.indexOf(best)]!
    if (waits[located.indexOf(cachedAt)]! - best <= minStay) return Effect.succeed(minStay)
    return Effect.map(this.inputRate(soonest.pool.name), (rate) =>
      rate > 0 ? Math.max(minStay, (cachedAt.cached / rate) * 1_000) : minStay
    )
  }

  private inputRate(pool: string): Effect.Effect<number> {
    const { budget, memory } = this.call.parts
    const known = memory.inputRate(pool, this.now)
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(budget.status, ({ pools }) => {
      const dimensions = pools[pool]?.dimensions
      const rate = (dimensions?.inputTokens ?? dimensions?.tokens)?.perSecond ?? Infinity
      memory.hasInputRate(pool, rate, this.now)
      return rate
    })
  }

  /** The time when the call may be sent to a place: not before its failure there is over, nor while the place is set aside. */
  private earliest({ index, pool }: Located): number {
    const aside = this.located.length > 1 ? this.call.parts.memory.asideUntil(pool.name) : 0
    return Math.max(this.placement.earliest(index), aside)
  }

  /** How long until the call may join the queue of a place, or reconsiders that. 0 for now. */
  private delay(at: Located): number {
    const { now, placement } = this
    const early = this.earliest(at) - now
    if (early > 0) return Math.min(early, reviewMillis)
    const index = this.located.indexOf(at)
    const open = this.candidates.map((each, index) =>
      this.refusals.has(this.located[index]!) ? { ...each, wait: Infinity } : each
    )
    return chosen(open, placement.policy, this.deadline - now)[index] === true ? 0 : reviewMillis
  }

  /** The refusal of a place that takes no calls until after the call's own limit; undefined if it may take the call in time. */
  private tooLate(at: Located): Budget.BudgetError | undefined {
    const { attempt, now } = this
    const wait = this.earliest(at) - now
    const left = Math.max(0, attempt.until - now)
    if (wait <= left) return undefined
    const times = { wait: Duration.millis(wait), maxWait: Duration.millis(left) }
    return new Budget.BudgetError({
      reason: new Budget.WaitTooLong({ pool: at.pool.name, dimension: undefined, ...times })
    })
  }

  /** Waits until the call may join the queue of a place. */
  joined(at: Located): Effect.Effect<void, Budget.BudgetError> {
    return Effect.suspend(() => {
      const late = this.tooLate(at)
      if (late !== undefined) return Effect.fail(late)
      const delay = this.delay(at)
      if (delay === 0 && !this.isOwnReview) return Effect.andThen(this.review(true), this.joined(at))
      if (delay === 0) {
        this.starts.set(at, this.now + this.candidates[this.located.indexOf(at)]!.wait)
        return Effect.void
      }
      const review = Effect.suspend(() =>
        this.now - this.reviewedAt >= reviewMillis ? this.review(false) : Effect.void
      )
      return Effect.andThen(Effect.andThen(Effect.sleep(delay), review), this.joined(at))
    })
  }

  /** The place where the call would go if no other were sooner or cheaper, and its wait there. */
  usual(): { readonly at: Located; readonly wait: number } {
    const first = this.cachedAt ?? this.located[inOrder(this.candidates.map((each) => ({ ...each, wait: 0 })))[0]!]!
    return { at: first, wait: this.candidates[this.located.indexOf(first)]!.wait }
  }

  /** The reason why the call goes to a place. */
  why(at: Located): PlacedBecause {
    const { placement } = this
    if (placement.isPinned) return "pinned"
    if (placement.current !== undefined && placement.current !== at.index) return "failed"
    if (this.located.length === 1) return "only"
    if (at === this.cachedAt) return "cached"
    if (at === this.usual().at) return "first"
    return placement.policy === "cheapest" ? "cheaper" : "sooner"
  }
}

/** Reserves at a place. The `maxWait` of the call counts from now. */
const reserve = (
  attempt: GovernedAttempt,
  at: Located,
  claim: Claim | undefined
): Effect.Effect<Budget.Reservation, Budget.BudgetError, Scope.Scope> =>
  attempt.call.parts.budget.reserve(at.estimate, queueingOf(attempt, at, attempt.call.now, at.revise, claim))

/**
 * Reserves at all places that the policy chooses. The first reservation wins. It ends the race in the step in which it is handed
 * out, so no other is handed out, and those that still wait are interrupted.
 */
const raced = (attempt: GovernedAttempt, race: Race, restore: Restore) => {
  const { located, refusals } = race
  const claim = located.length > 1 ? { isTaken: false, queues: located.length } : undefined
  const racer = (at: Located) =>
    Effect.uninterruptibleMask((restore) =>
      restore(Effect.flatMap(race.joined(at), () => reserve(attempt, at, claim))).pipe(
        Effect.map((reserved) => ({ at, reserved })),
        Effect.tapError((error) => Effect.sync(() => refusals.set(at, error)))
      )
    )
  const racers = inOrder(race.candidates).map((index) => racer(located[index]!))
  return restore(racers.length === 1 ? racers[0]! : Effect.raceAll(racers))
}

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

/** Admits an attempt at one of its places, and continues its call there. */
export const admitted = (attempt: GovernedAttempt, placement: Placement): Effect.Effect<void, CallError> =>
  Effect.uninterruptibleMask((restore) => Scope.provide(placed(attempt, placement, restore), attempt.scope))

const placed = Effect.fnUntraced(function* (attempt: GovernedAttempt, placement: Placement, restore: Restore) {
  const { call } = attempt
  const { parts, request } = call
  parts.history?.placed(request.model, openPlaces(parts, { ...request, places: request.places! }))
  const named = conversationAt(call)
  const located = yield* restore(Effect.forEach(placement.open, (index) => locate(attempt, placement, index, named)))
  const conversation = warmest(located) ?? named
  if (located.length === 0) return yield* Effect.fail(refused(call, placement, new Map()))
  const payer = dearest(located)
  yield* restore(Effect.withFiber(({ context }) => pay(attempt, payer, payer.estimate, context) ?? Effect.void))
  const race = new Race(attempt, placement, located, conversation)
  yield* restore(race.review(true))
  const racing = raced(attempt, race, restore)
  // Prompts are counted at the first place, unless the call must not go there.
  const counting = located[0]!.index === 0 ? Counting.whileWaiting(call, located, racing) : racing
  const { at, reserved } = yield* Effect.catch(counting, (error) => {
    const all = [...race.refusals.values()]
    const isOne = all.length === 1 && placement.closed.length === 0
    const isAllWaiting = all.length > 0 && all.every(({ reason }) => reason._tag === "WaitTooLong")
    if (isOne || (isAllWaiting && attempt.isBoundByDeadline))
      return Effect.fail(refusalFor(attempt, all[0] ?? error, attempt.from))
    return Effect.fail<CallError>(refused(call, placement, race.refusals))
  })
  report(call, race, at, reserved)
  placement.current = at.index
  attempt.moveTo(at, at.place.name)
  attempt.admit(reserved)
})

/** The place that has the most of the prompt in its cache, by what is known of its content. */
const warmest = (located: ReadonlyArray<Located>): CachedConversation | undefined => {
  let warm: CachedConversation | undefined
  for (const { known, place } of located) {
    const prompt = known.prefix?.cachedTokens ?? 0
    if (prompt > (warm?.prompt ?? 0)) warm = { place: place.name, prompt }
  }
  return warm
}

/** The place where the last call of the conversation went, by its name. */
const conversationAt = (call: GovernedCall): CachedConversation | undefined => {
  const conversation = conversationOf(call)
  return conversation === undefined ? undefined : call.parts.memory.cachedAt(conversation)
}

/** The place whose price is the highest, or unknown: the call must be able to pay there. */
const dearest = (located: ReadonlyArray<Located>): Located => {
  const costOf = ({ known, price }: Located): number => (price === undefined ? Infinity : Usage.maxCostOf(price, known))
  return located.reduce((one, other) => (costOf(other) > costOf(one) ? other : one))
}

/** Reports a call that goes elsewhere than it usually would, and why. */
const report = (call: GovernedCall, race: Race, at: Located, reservation: Budget.Reservation): void => {
  const { now, parts } = call
  const why = race.why(at)
  at.pool.counts.placed(1, why)
  if (parts.observer === undefined || (why !== "sooner" && why !== "cheaper" && why !== "failed")) return
  const usual = race.usual()
  parts.observer({
    type: "place",
    at: now,
    pool: reservation.pool,
    agent: reservation.agent,
    model: call.request.model,
    place: at.place.name,
    why,
    waited: Duration.toMillis(reservation.waited),
    instead: why === "failed" ? call.placement!.places[call.placement!.current!]!.name : usual.at.place.name,
    insteadWait: why === "failed" || usual.wait === Infinity ? undefined : usual.wait
  })
}

/** The refusal of a call that no place can take. */
const refused = (
  { request }: GovernedCall,
  { closed }: Placement,
  refusals: ReadonlyMap<Located, Budget.BudgetError>
): Budget.BudgetError => {
  const places: Array<Budget.NoPlace["places"][number]> = closed.map(({ place, why }) => ({
    place,
    reason: new Budget.PlaceClosed({ place, why })
  }))
  for (const [{ place }, { reason }] of refusals) {
    if (reason._tag !== "NoPlace") places.push({ place: place.name, reason })
  }
  return new Budget.BudgetError({ reason: new Budget.NoPlace({ model: request.model, places }) })
}
