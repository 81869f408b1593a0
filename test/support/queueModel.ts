/**
 * The rules of the fair queue with plain lists, in which every number is computed when it is needed. `FairQueue` must give
 * the same results in logarithmic time.
 */

export interface Line {
  readonly id: number
  readonly agent: string
  readonly priority: number
  readonly weight: number
  readonly cost: number
}

interface Flow {
  readonly entries: Array<Line>
  weight: number
  start: number
  rank: number
  owed: number
  /** Whether it goes before others: as a small one, or as the head that they go behind. */
  isNext: boolean
  isSmall: boolean
}

interface Level {
  readonly flows: Map<string, Flow>
  virtual: number
  refunded: number
  servedCost: number
  servedEnd: number
  smallCost: number
}

/** The charge for a served call. */
export interface Charged {
  readonly agent: string
  readonly priority: number
  readonly step: number
  readonly moved: number
  readonly since: number
}

export interface Model {
  levels: Map<number, Level>
  ranks: number
  since: number
}

export const make = (): Model => ({ levels: new Map(), ranks: 0, since: 0 })

const waiting = ({ flows }: Level): ReadonlyArray<Flow> =>
  Array.from(flows.values()).filter((flow) => flow.entries.length > 0)

/** The flow with the smallest tag; of equal ones, the earliest. */
const first = (level: Level): Flow | undefined =>
  waiting(level).toSorted((a, b) => Number(b.isNext) - Number(a.isNext) || a.start - b.start || a.rank - b.rank)[0]

const weightOf = (level: Level): number => waiting(level).reduce((sum, { weight }) => sum + weight, 0)

export const push = (model: Model, entry: Line, front: boolean): void => {
  const level = model.levels.get(entry.priority) ?? {
    flows: new Map(),
    virtual: 0,
    refunded: 0,
    servedCost: 0,
    servedEnd: 0,
    smallCost: 0
  }
  model.levels.set(entry.priority, level)
  const start = level.virtual - level.refunded
  const fresh: Flow = { entries: [], weight: 0, start, rank: 0, owed: 0, isNext: false, isSmall: false }
  const flow = level.flows.get(entry.agent) ?? fresh
  if (flow.entries.length === 0) {
    Object.assign(flow, {
      start: Math.max(flow.start + flow.owed, first(level)?.start ?? 0),
      owed: 0,
      rank: model.ranks++,
      weight: entry.weight,
      isNext: false,
      isSmall: false
    })
    const head = first(level)
    if (head !== undefined) {
      const [next] = head.entries
      const before = head.isSmall ? level.servedCost : next!.cost
      const end = head.isSmall ? level.servedEnd : head.start + next!.cost / next!.weight
      const endsFirst = flow.start + (entry.cost / entry.weight) * (1 + 1e-9) < end
      if (endsFirst && 25 * entry.cost <= before && level.smallCost + entry.cost <= before / 10) {
        flow.isNext = flow.isSmall = head.isNext = true
        level.smallCost += entry.cost
      }
    }
  } else if (front && flow.isSmall) flow.isNext = flow.isSmall = false
  level.flows.set(entry.agent, flow)
  if (front) flow.entries.unshift(entry)
  else flow.entries.push(entry)
}

const highest = ({ levels }: Model): Level | undefined =>
  Array.from(levels)
    .filter(([, level]) => first(level) !== undefined)
    .toSorted(([a], [b]) => b - a)[0]?.[1]

export const peek = (model: Model): Line | undefined => {
  const level = highest(model)
  return level === undefined ? undefined : first(level)!.entries[0]
}

export const shift = (model: Model): Charged => {
  const level = highest(model)!
  const flow = first(level)!
  const { agent, cost, priority, weight } = flow.entries[0]!
  const step = cost / weight
  const moved = flow.isSmall ? 0 : cost / weightOf(level)
  const start = flow.start + level.refunded
  if (!flow.isSmall) {
    level.virtual = Math.min(Math.max(level.virtual, start) + moved, start + step)
    Object.assign(level, { servedCost: cost, servedEnd: flow.start + step, smallCost: 0 })
  }
  flow.isNext = flow.isSmall = false
  flow.start += step + flow.owed
  flow.owed = 0
  flow.rank = model.ranks++
  flow.entries.shift()
  return { agent, priority, step, moved, since: model.since }
}

export const correct = (model: Model, { agent, moved, priority, since, step }: Charged, part: number): void => {
  const level = model.levels.get(priority)
  const flow = level?.flows.get(agent)
  if (level === undefined || flow === undefined || part === 1 || since < model.since) return
  level.refunded += (1 - part) * moved
  const wish = flow.start + flow.owed + (part - 1) * step
  const head = first(level)
  const earliest = flow.entries.length === 0 ? wish : head!.start
  const start = flow === head ? flow.start : Math.max(earliest, wish)
  flow.owed = Math.max(wish - start, -step)
  if (start === flow.start) return
  flow.start = start
  flow.rank = model.ranks++
}

export const remove = (model: Model, { agent, id, priority }: Line): void => {
  const flow = model.levels.get(priority)!.flows.get(agent)!
  const place = flow.entries.findIndex((each) => each.id === id)
  flow.entries.splice(place, 1)
  if (place === 0 && flow.isSmall) flow.isNext = flow.isSmall = false
}

export const forget = (model: Model): void => {
  if (weight(model) > 0 || model.since === model.ranks) return
  model.since = model.ranks
  model.levels = new Map()
}

/** The total weight of the waiting agents. */
export const weight = ({ levels }: Model): number =>
  Array.from(levels.values()).reduce((sum, level) => sum + weightOf(level), 0)

/** All entries in the order of service. */
export const inOrder = (model: Model): ReadonlyArray<number> => {
  const copy: Model = { ...model, levels: new Map() }
  for (const [priority, { flows, ...level }] of model.levels) {
    const copies = Array.from(flows, ([agent, flow]): [string, Flow] => [
      agent,
      { ...flow, entries: [...flow.entries] }
    ])
    copy.levels.set(priority, { ...level, flows: new Map(copies) })
  }
  const order: Array<number> = []
  for (let next = peek(copy); next !== undefined; next = peek(copy)) {
    order.push(next.id)
    shift(copy)
  }
  return order
}
