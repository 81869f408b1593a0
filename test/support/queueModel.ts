/**
 * The rules of the fair queue with plain lists, in which every number is computed when it is needed. `FairQueue` must give
 * the same results in logarithmic time.
 */

export interface Line {
  readonly id: number
  readonly agent: string
  readonly job?: string | undefined
  readonly caller?: string | undefined
  readonly priority: number
  readonly weight: number
  readonly jobWeight: number
  readonly cost: number
}

/** What a caller, a job or an agent has: others inside it, or calls. */
interface Share {
  readonly inside: Shares | undefined
  readonly calls: Array<Line>
  weight: number
  start: number
  rank: number
  owed: number
  /** Whether it goes before others: as a small one, or as the head that they go behind. */
  isNext: boolean
  small: Line | undefined
}

interface Shares {
  readonly byName: Map<string, Share>
  virtual: number
  refunded: number
  servedCost: number
  servedEnd: number
  smallCost: number
}

/** The charge for a served call: of its caller first. */
export interface Charged {
  readonly call: Line
  readonly moved: ReadonlyArray<number>
  readonly since: number
}

export interface Model {
  levels: Map<number, Shares>
  ranks: number
  since: number
}

export const make = (): Model => ({ levels: new Map(), ranks: 0, since: 0 })

const empty = (): Shares => ({
  byName: new Map(),
  virtual: 0,
  refunded: 0,
  servedCost: 0,
  servedEnd: 0,
  smallCost: 0
})

const nobody = "nobody"

/** The names that lead to a call's agent, each with the weight that the call has there. */
const namesOf = ({ agent, caller, job, jobWeight, weight }: Line): ReadonlyArray<readonly [string, number]> => [
  [caller === undefined ? nobody : `caller ${caller}`, 1],
  ...(job === undefined ? [] : [[`job ${job}`, jobWeight] as const]),
  [`agent ${agent}`, weight]
]

/** The share in which a call stands in each group, its caller's first. */
const pathOf = (model: Model, call: Line) => {
  let shares = model.levels.get(call.priority)
  const path: Array<{ readonly shares: Shares; readonly share: Share; readonly step: number }> = []
  for (const [name, weight] of namesOf(call)) {
    const share = shares?.byName.get(name)
    if (share === undefined) break
    path.push({ shares: shares!, share, step: call.cost / weight })
    shares = share.inside
  }
  return path
}

const waits = ({ calls, inside }: Share): boolean =>
  calls.length > 0 || (inside !== undefined && waiting(inside).length > 0)

const waiting = ({ byName }: Shares): ReadonlyArray<Share> => Array.from(byName.values()).filter(waits)

/** The share with the smallest tag; of equal ones, the earliest. */
const first = (shares: Shares): Share | undefined =>
  waiting(shares).toSorted((a, b) => Number(b.isNext) - Number(a.isNext) || a.start - b.start || a.rank - b.rank)[0]

const firstCall = (share: Share): Line =>
  share.inside === undefined ? share.calls[0]! : firstCall(first(share.inside)!)

const weightOf = (shares: Shares): number => waiting(shares).reduce((sum, { weight }) => sum + weight, 0)

/** A share whose small call is no longer its first is one like others. */
const review = (model: Model, call: Line): void => {
  for (const { share } of pathOf(model, call)) {
    if (share.small === undefined || (waits(share) && firstCall(share) === share.small)) continue
    share.isNext = false
    share.small = undefined
  }
}

export const push = (model: Model, call: Line, front: boolean): void => {
  const { cost } = call
  const names = namesOf(call)
  let shares = model.levels.get(call.priority) ?? empty()
  model.levels.set(call.priority, shares)
  const path = names.map(([name, weight], depth) => {
    const start = shares.virtual - shares.refunded
    const share: Share = shares.byName.get(name) ?? {
      inside: depth === names.length - 1 ? undefined : empty(),
      calls: [],
      weight: 0,
      start,
      rank: 0,
      owed: 0,
      isNext: false,
      small: undefined
    }
    shares.byName.set(name, share)
    const at = { depth, shares, share, weight, wasWaiting: waits(share) }
    shares = share.inside ?? shares
    return at
  })
  for (const { depth, share, shares, wasWaiting, weight } of path.toReversed()) {
    if (wasWaiting) continue
    const head = first(shares)
    Object.assign(share, {
      start: Math.max(share.start + share.owed, head?.start ?? 0),
      owed: 0,
      rank: model.ranks++,
      weight,
      isNext: false,
      small: undefined
    })
    if (head === undefined) continue
    const next = firstCall(head)
    const before = head.small === undefined ? next.cost : shares.servedCost
    const end = head.small === undefined ? head.start + next.cost / namesOf(next)[depth]![1] : shares.servedEnd
    const endsFirst = share.start + (cost / weight) * (1 + 1e-9) < end
    if (endsFirst && 25 * cost <= before && shares.smallCost + cost <= before / 10) {
      share.small = call
      share.isNext = head.isNext = true
      shares.smallCost += cost
    }
  }
  const { calls } = path.at(-1)!.share
  if (front) calls.unshift(call)
  else calls.push(call)
  review(model, call)
}

const highest = ({ levels }: Model): Shares | undefined =>
  Array.from(levels)
    .filter(([, shares]) => first(shares) !== undefined)
    .toSorted(([a], [b]) => b - a)[0]?.[1]

export const peek = (model: Model): Line | undefined => {
  const shares = highest(model)
  return shares && firstCall(first(shares)!)
}

export const shift = (model: Model): Charged => {
  const call = peek(model)!
  const { cost } = call
  const moved: Array<number> = []
  const path = pathOf(model, call)
  for (const { share, shares, step } of path.toReversed()) {
    const move = share.small === undefined ? cost / weightOf(shares) : 0
    const start = share.start + shares.refunded
    if (share.small === undefined) {
      shares.virtual = Math.min(Math.max(shares.virtual, start) + move, start + step)
      Object.assign(shares, { servedCost: cost, servedEnd: share.start + step, smallCost: 0 })
    }
    moved.unshift(move)
    share.isNext = false
    share.small = undefined
    share.start += step + share.owed
    share.owed = 0
    share.rank = model.ranks++
  }
  path.at(-1)!.share.calls.shift()
  return { call, moved, since: model.since }
}

export const correct = (model: Model, { call, moved, since }: Charged, part: number): void => {
  if (part === 1 || since < model.since) return
  for (const [depth, { share, shares, step }] of pathOf(model, call).entries()) {
    shares.refunded += (1 - part) * moved[depth]!
    const wish = share.start + share.owed + (part - 1) * step
    const head = first(shares)
    const earliest = waits(share) ? head!.start : wish
    const start = share === head ? share.start : Math.max(earliest, wish)
    share.owed = Math.max(wish - start, -step)
    if (start === share.start) continue
    share.start = start
    share.rank = model.ranks++
  }
}

export const remove = (model: Model, call: Line): void => {
  const { calls } = pathOf(model, call).at(-1)!.share
  calls.splice(
    calls.findIndex(({ id }) => id === call.id),
    1
  )
  review(model, call)
}

export const forget = (model: Model): void => {
  if (peek(model) !== undefined || model.since === model.ranks) return
  model.since = model.ranks
  model.levels = new Map()
}

/** The weight of all who wait: of callers, and of the jobs of calls without a caller. */
export const weight = ({ levels }: Model): number => {
  const inLevel = ({ byName }: Shares): number =>
    Array.from(byName, ([name, share]) => {
      if (!waits(share)) return 0
      return name === nobody ? weightOf(share.inside!) : share.weight
    }).reduce((sum, each) => sum + each, 0)
  return Array.from(levels.values(), inLevel).reduce((sum, each) => sum + each, 0)
}

/** All entries in the order of service. */
export const inOrder = (model: Model): ReadonlyArray<number> => {
  const copyOf = (shares: Shares): Shares => ({
    ...shares,
    byName: new Map(
      Array.from(shares.byName, ([name, share]): [string, Share] => [
        name,
        {
          ...share,
          inside: share.inside && copyOf(share.inside),
          calls: [...share.calls]
        }
      ])
    )
  })
  const copy: Model = {
    ...model,
    levels: new Map(Array.from(model.levels, ([priority, shares]) => [priority, copyOf(shares)]))
  }
  const order: Array<number> = []
  for (let next = peek(copy); next !== undefined; next = peek(copy)) {
    order.push(next.id)
    shift(copy)
  }
  return order
}
