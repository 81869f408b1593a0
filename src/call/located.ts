/** A call as each of its places would take it: the pool, the price, and the estimate there. */
import * as Effect from "effect/Effect"
import type * as Accounting from "../Accounting.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Limits from "../Limits.ts"
import { type GovernedResize, restored } from "../budget/models.ts"
import { priceOf, revisionOf } from "./admission.ts"
import type { GovernedAttempt } from "./attempt.ts"
import type { GovernorParts } from "./parts.ts"
import type { Call } from "./models.ts"
import { callAt, type Reserving } from "./place.ts"
import type { CachedConversation } from "../places/memory.ts"
import type { CallPlace, CallPlaces, StatedLimits } from "../places/models.ts"
import { type OpenPlace, type OpenPlaces, Placement } from "../places/placement.ts"
import type { PoolRecord } from "./pool.ts"
import * as Usage from "./usage.ts"

/** A call at a place, before it is estimated. */
interface Locating extends Reserving {
  readonly index: number
  readonly place: CallPlace
  known: Usage.KnownCall
}

/** The reservation of a call at a place. */
interface Estimated {
  estimate: Limits.Estimate
  /** The tokens that it reads from the cache there. */
  cached: number
}

/** A place that can take a call, with the call as it is there. */
export interface Located extends Locating, Estimated {
  /** Estimates the call again; undefined if nothing was learned, or if the estimator may take time. */
  readonly revise: (() => Limits.Estimate | undefined) | undefined
}

/** A call as a place has it, with the pool and the price there. */
const addressed = (parts: GovernorParts, given: Call, place: CallPlace): Omit<Reserving, "known"> => {
  const request = callAt(given, place)
  const accounting = request.accounting ?? parts.accounting
  const pool = parts.pools.of(parts.budget, accounting, request)
  return { request, accounting, pool, price: priceOf(request, place, parts.prices) }
}

/** The call of an attempt at a place. */
export const locate = Effect.fnUntraced(function* (
  attempt: GovernedAttempt,
  placement: Placement,
  index: number,
  conversation: CachedConversation | undefined
): Effect.fn.Return<Located> {
  const { call } = attempt
  const { parts } = call
  const place = placement.places[index]!
  const { accounting, pool, price, request } = addressed(parts, call.request, place)
  const known = Usage.known(call, request, pool)
  if (!parts.places!.memory.hasLimits(pool.name, place)) yield* limited(parts, pool, place)
  const learned = yield* parts.estimator.estimate(known)
  const at: Locating = { index, place, request, accounting, pool, price, known }
  const located = Object.assign(at, estimated(parts, at, learned, conversation))
  const again = revisionOf(attempt, located, learned)
  const revise = (): Limits.Estimate | undefined => {
    const next = again?.()
    return next && Object.assign(located, estimated(parts, located, next, conversation)).estimate
  }
  return Object.assign(located, { revise: again && revise })
})

/** Estimates a call at a place. The estimator has learned what is read from the cache, but not that another place has the cache. */
const estimated = (
  parts: GovernorParts,
  { accounting, known, place, pool }: Locating,
  learned: Limits.Estimate,
  conversation: CachedConversation | undefined
): Estimated => {
  // What each place has in its cache is known by the content.
  if (known.prefix !== undefined) return { cached: known.prefix.cachedTokens, estimate: learned }
  const expected = Usage.expected({ accounting, known, estimate: learned })
  const cached = conversation?.place === place.name ? cachedTokens(parts, pool, expected, conversation) : 0
  if (conversation === undefined || cached === expected.cacheReadTokens) return { cached, estimate: learned }
  const estimate = accounting.estimate({
    // What another place has cached counts in full here.
    inputTokens: Amounts.promptTokens(expected) - cached,
    cachedTokens: cached,
    outputTokens: expected.outputTokens,
    maxTokens: known.maxTokens
  })
  return { cached, estimate }
}

/** The tokens that a call reads from the cache at the place of its conversation: at least its last prompt, if the provider caches. */
const cachedTokens = (
  { places }: GovernorParts,
  pool: PoolRecord,
  expected: Accounting.Actual,
  { prompt }: CachedConversation
): number => {
  const { cacheReadTokens = 0 } = expected
  const last = places!.memory.caches(pool.name) ? prompt : 0
  return Math.min(Amounts.promptTokens(expected), Math.max(cacheReadTokens, last))
}

/** Applies the limits of a place to its pool, once. */
const limited = (
  { budget, places }: GovernorParts,
  { account, kind, name }: PoolRecord,
  { concurrency, limits }: StatedLimits
): Effect.Effect<void> => {
  const { memory } = places!
  const applied = Effect.suspend(() => {
    if (memory.hasLimits(name, { concurrency, limits })) return Effect.void
    const before = memory.states(name, { concurrency, limits })
    // After a reload a place may state less, and its pool has what the budget gives it.
    const options: GovernedResize = { pool: name, limits, concurrency, [restored]: before && name }
    // A prediction opens the pool.
    return Effect.andThen(budget.foresee({}, { pool: kind, account }), budget.resize(options))
  })
  // Otherwise an interruption could leave them noted but not applied.
  return Effect.uninterruptible(applied)
}

/** The properties that tell the places of a call, without what it sends. */
type PlacesOfCall = Pick<Call, "accounting" | "model" | "tier"> & { readonly places: CallPlaces }

/** The places that take calls like this one now. `only` names those where the calls may be made. */
export const openPlaces =
  (parts: GovernorParts, { accounting, model, places, tier }: PlacesOfCall) =>
  (only: ReadonlyArray<string> | undefined): Effect.Effect<OpenPlaces> => {
    // Other calls of the model may have a body that can be changed.
    const all = places.places.map((place) => (place.closed === "fixedBody" ? { ...place, closed: undefined } : place))
    const placement = new Placement({ ...places, places: all }, { only, pinned: undefined })
    const { closed, policy } = placement
    const opened = (index: number): Effect.Effect<OpenPlace> => {
      const place = placement.places[index]!
      const { pool, price } = addressed(parts, { accounting, bytes: 0, model, tier }, place)
      const asideUntil = parts.places!.memory.asideUntil(pool.name)
      const open = { name: place.name, pool: pool.kind, account: pool.account, price, asideUntil }
      return Effect.as(limited(parts, pool, place), open)
    }
    return Effect.map(Effect.forEach(placement.open, opened), (open) => ({ policy, closed, open }))
  }
