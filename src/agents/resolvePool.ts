/** Finds the pools that a question is about: one, or those of a model's places. */
import * as Effect from "effect/Effect"
import * as Budget from "../Budget.ts"
import { nameIn } from "../budget/registry.ts"
import type { PlacePolicy } from "../places/models.ts"
import type { OpenPlace, OpenPlaces } from "../places/placement.ts"
import { History } from "../call/history.ts"
import { type AdviseOptions, PoolUnclear } from "./models.ts"

type PoolAsked = Pick<AdviseOptions, "account" | "model" | "pool">

/** A pool that a question is about. */
export interface ResolvedPool {
  readonly asked: PoolAsked
  /** The place whose calls go there; undefined if the model has no places. */
  readonly place: OpenPlace | undefined
  /** The policy that chooses the place of a call. */
  readonly policy: PlacePolicy | undefined
}

type PoolStatuses = Budget.BudgetStatus["pools"]

/** The pools of a budget, and those that agents have used. */
interface KnownPools {
  readonly pools: PoolStatuses
  readonly used: ReadonlySet<string>
}

/** Whether a pool looks used: calls run or wait there, it pauses, or something is missing in its buckets. */
export const isInUse = ({ dimensions, inFlight, pause, queued }: Budget.PoolStatus): boolean =>
  inFlight + queued > 0 ||
  pause !== undefined ||
  Object.values(dimensions).some(({ capacity, level }) => level < capacity)

/** The pools of a kind: the one of that name, and those of accounts. A single set of limits has the kind "default". */
const poolsOf = (pools: PoolStatuses, kind: string | undefined): ReadonlyArray<string> =>
  Object.keys(pools).filter(
    (name) => kind === undefined || kind === "default" || name === kind || name.endsWith(`/${kind}`)
  )

const usedOf = ({ pools, used }: KnownPools, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.filter((name) => used.has(name) || isInUse(pools[name]!))

/** The one pool that is meant of several: the only one in use, or the one that has the name. */
const chosen = (known: KnownPools, kind: string | undefined, asked: string | undefined): PoolAsked | PoolUnclear => {
  const { pools } = known
  const matches = poolsOf(pools, kind)
  const inUse = usedOf(known, matches)
  const likely = inUse.length > 0 ? inUse : matches
  if (likely.length === 1) return { pool: likely[0] }
  if (kind !== undefined && matches.includes(kind)) return { pool: kind }
  const isAmbiguous = likely.length > 0
  return new PoolUnclear({ asked, pools: isAmbiguous ? likely : Object.keys(pools), isAmbiguous })
}

/** The pool that is meant. Accounts have pools of their own, which a question about a model need not name. */
const resolvePool = (
  { poolOf }: Pick<Budget.TokenBudget["Service"], "poolOf">,
  known: KnownPools,
  asked: PoolAsked
): PoolAsked | PoolUnclear => {
  const { account, model, pool } = asked
  const { pools } = known
  const isNew = account !== undefined || Object.keys(pools).length === 0
  if (isNew || (pool !== undefined && Object.hasOwn(pools, pool))) return { account, model, pool }
  const kind = pool ?? (model === undefined ? undefined : poolOf(model))
  return chosen(known, kind, model ?? pool)
}

/** Whether each of these pools belongs to one of the places. */
const areOf = ({ open }: OpenPlaces, pools: ReadonlyArray<string>): boolean => {
  const names = open.map(({ account, pool }) => nameIn(account, pool))
  return pools.every((pool) => names.includes(pool))
}

/**
 * The model of a question that names no pool, with its places. If the question names no model either, it is the one whose places
 * have all pools in use.
 */
const resolveModel = Effect.fnUntraced(function* (used: KnownPools, { account, model, places, pool }: AdviseOptions) {
  if (account !== undefined || pool !== undefined) return undefined
  const models = (yield* History)?.models ?? []
  const inUse = usedOf(used, Object.keys(used.pools))
  const meant: Array<{ readonly model: string } & OpenPlaces> = []
  for (const [name, find] of models) {
    if (model !== undefined && name !== model) continue
    const found = yield* find(places)
    if (name === model || areOf(found, inUse)) meant.push({ model: name, ...found })
  }
  return meant.length === 1 ? meant[0] : undefined
})

/** The pools of the places that a question is about; undefined if it is about one pool. */
const resolvePlaces = Effect.fnUntraced(function* (used: KnownPools, options: AdviseOptions) {
  const meant = yield* resolveModel(used, options)
  if (meant === undefined) return undefined
  const { closed, model, open, policy } = meant
  if (open.length === 0) {
    const places = closed.map(({ place, why }) => ({ place, reason: new Budget.PlaceClosed({ place, why }) }))
    return yield* new Budget.BudgetError({ reason: new Budget.NoPlace({ model, places }) })
  }
  return open.map((place): ResolvedPool => ({ asked: { account: place.account, pool: place.pool }, place, policy }))
})

/** The pools that a question is about. */
export const resolvePools = Effect.fnUntraced(function* (
  options: AdviseOptions
): Effect.fn.Return<ReadonlyArray<ResolvedPool>, PoolUnclear | Budget.BudgetError, Budget.TokenBudget> {
  const budget = yield* Budget.TokenBudget
  const known = { pools: (yield* budget.status).pools, used: (yield* History)?.pools ?? new Set() }
  const places = yield* resolvePlaces(known, options)
  if (places !== undefined) return places
  const asked = resolvePool(budget, known, options)
  return asked instanceof PoolUnclear ? yield* asked : [{ asked, place: undefined, policy: undefined }]
})
