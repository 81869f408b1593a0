/** Finds the pool that a question is about. */
import type * as Budget from "../../Budget.ts"
import { type AdviseOptions, PoolUnclear } from "./models.ts"

export type PoolAsked = Pick<AdviseOptions, "account" | "model" | "pool">

type PoolStatuses = Budget.BudgetStatus["pools"]

/** The pools of a budget, and those that agents have used. */
interface KnownPools {
  readonly pools: PoolStatuses
  readonly used: ReadonlySet<string>
}

const isInUse = ({ dimensions, inFlight, pause, queued }: Budget.PoolStatus): boolean =>
  inFlight + queued > 0 ||
  pause !== undefined ||
  Object.values(dimensions).some(({ capacity, level }) => level < capacity)

/** The pools of a kind: the one of that name, and those of accounts. A single set of limits has the kind "default". */
const poolsOf = (pools: PoolStatuses, kind: string | undefined): ReadonlyArray<string> =>
  Object.keys(pools).filter(
    (name) => kind === undefined || kind === "default" || name === kind || name.endsWith(`/${kind}`)
  )

/** The one pool that is meant of several: the only one in use, or the one that has the name. */
const chosen = (
  { pools, used }: KnownPools,
  kind: string | undefined,
  asked: string | undefined
): PoolAsked | PoolUnclear => {
  const matches = poolsOf(pools, kind)
  const inUse = matches.filter((name) => used.has(name) || isInUse(pools[name]!))
  const likely = inUse.length > 0 ? inUse : matches
  if (likely.length === 1) return { pool: likely[0] }
  if (kind !== undefined && matches.includes(kind)) return { pool: kind }
  const isAmbiguous = likely.length > 0
  return new PoolUnclear({ asked, pools: isAmbiguous ? likely : Object.keys(pools), isAmbiguous })
}

/** The pool that is meant. Accounts have pools of their own, which a question about a model need not name. */
export const poolMeant = (
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
