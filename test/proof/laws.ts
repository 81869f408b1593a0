/**
 * The laws of a pool as checks of a played history. Each returns the problem, or undefined. They know only the stated limits
 * and what callers saw, unless their comment says that they look into the pool.
 */
import * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import { asUsed, type Flow, levelAt, type Limit, overWindow } from "../support/ledger.ts"
import { type Call, isCalm, type Play, type Scope, statedOf } from "./play.ts"

/** Sums of fractions differ by less than this. */
const rounding = 1e-6

const limited = (limits: Limits.Limits) =>
  Limits.Dimension.literals.flatMap((dimension) => {
    const limit = limits[dimension]
    return limit === undefined ? [] : [{ dimension, limit: statedOf(limit) }]
  })

/** Each movement, with the burst at the admission of its call. */
type PlayedFlow = ReadonlyArray<Flow[number] & { readonly burst: number }>

/** What was taken of a dimension, and refunded. In one move, the end of a call comes before the admissions that it makes room for. */
const flowOf = ({ calls }: Play, dimension: Limits.Dimension): PlayedFlow =>
  calls
    .flatMap(({ charge, endedAt, endedIn, grantedAt, grantedIn, setting, used }) => {
      if (grantedAt === undefined) return []
      const limit = setting!.limits[dimension]
      const burst = limit === undefined ? Infinity : statedOf(limit).burst
      const taken = { at: grantedAt, amount: charge[dimension], admittedAt: undefined, order: 2 * grantedIn + 1, burst }
      if (endedAt === undefined) return [taken]
      const amount = used![dimension] - charge[dimension]
      return [taken, { at: endedAt, amount, admittedAt: grantedAt, order: 2 * endedIn, burst }]
    })
    .sort((a, b) => a.at - b.at || a.order - b.order)

/** Whether limits have changed. A ledger of one limit then cannot tell what is left. */
const isResized = ({ settings }: Play): boolean => settings.length > 1

export type Law = (play: Play) => string | undefined

// -----------------------------------------------------------------------------
// Never over
// -----------------------------------------------------------------------------

/** The most of a dimension that an interval allows, although limits changed within it. */
const allowedIn = (play: Play, dimension: Limits.Dimension, from: number, to: number): number | undefined => {
  let burst = 0
  let refilled = 0
  for (const [n, { from: since, setting }] of play.settings.entries()) {
    const until = play.settings[n + 1]?.from ?? Infinity
    if (until < from || since > to) continue
    const limit = setting.limits[dimension]
    if (limit === undefined) return undefined
    const stated = statedOf(limit)
    burst = Math.max(burst, stated.burst)
    refilled += stated.rate * (Math.min(until, to) - Math.max(since, from))
  }
  return burst + refilled
}

/** In every interval that ends with an admission, the charges less the refunds are at most what is allowed. */
const overInterval = (play: Play, dimension: Limits.Dimension, flow: PlayedFlow): string | undefined => {
  for (const [last, { admittedAt, amount, at, burst }] of flow.entries()) {
    if (admittedAt !== undefined) continue
    let sum = 0
    for (let first = last; first >= 0; first--) {
      const from = flow[first]!
      sum += from.amount
      const allowed = allowedIn(play, dimension, from.at, at)
      if (allowed === undefined) break
      const most = allowed + Math.max(0, amount - burst)
      if (sum > most + rounding) return `${sum} ${dimension} from ${from.at} to ${at} ms, where ${most} are allowed`
    }
  }
  return undefined
}

/** A refund counts from the admission on, because the provider never counted it; for a window, from the settlement on. */
const neverOver: Law = (play) => {
  for (const dimension of Limits.Dimension.literals) {
    const flow = flowOf(play, dimension)
    const { window } = statedOf(play.setting.limits[dimension] ?? { total: 0 })
    const over =
      overInterval(play, dimension, flow) ??
      (window === undefined
        ? overInterval(play, dimension, asUsed(flow) as PlayedFlow)
        : overWindow(flow, { max: window, millis: 60_000 }))
    if (over !== undefined) return over
  }
  for (const { call, open } of play.steps.at(-1)?.granted ?? []) {
    const places = play.setting.concurrency ?? Infinity
    if (open > places) return `call ${call.id} is one of ${open} in flight, and ${places} are allowed`
  }
  return undefined
}

// -----------------------------------------------------------------------------
// Refunds
// -----------------------------------------------------------------------------

/** The pool's calls in flight are the open ones, and its levels are what the calls have left. Looks into the pool. */
const countedRight: Law = (play) => {
  const { open, pool, waiting } = play
  if (pool.inFlight !== open.length) return `the pool has ${pool.inFlight} calls in flight, and ${open.length} are`
  if (pool.queued !== waiting.length) return `${pool.queued} callers are queued, and ${waiting.length} wait`
  if (!isCalm(play.scope) || isResized(play)) return undefined
  for (const { dimension, limit } of limited(play.setting.limits)) {
    const level = levelIn(play, dimension)
    const expected = levelAt(flowOf(play, dimension), limit, play.now)
    if (Math.abs(level - expected) > rounding) return `the level of ${dimension} is ${level}, and should be ${expected}`
  }
  return undefined
}

/** The level of the pool. */
const levelIn = ({ now, pool }: Play, dimension: Limits.Dimension): number => {
  const { at, level, rule } = pool.law.caps[dimension]!
  return Math.min(Math.max(level, rule.capacity), level + rule.rate * (now - at))
}

// -----------------------------------------------------------------------------
// Work
// -----------------------------------------------------------------------------

/** What a call still lacks according to the ledger; undefined if it may go. */
const lacks = (play: Play, { charge }: Call): string | undefined => {
  const { concurrency = Infinity, limits } = play.setting
  if (play.open.length >= concurrency) return "a place"
  for (const { dimension, limit } of limited(limits)) {
    const flow = flowOf(play, dimension)
    const quotaOrBurst = limit.rate === 0 ? charge[dimension] : Math.min(charge[dimension], limit.burst)
    if (levelAt(flow, limit, play.now) < quotaOrBurst - rounding) return dimension
    if (isFull(flow, limit, charge[dimension], play.now)) return dimension
  }
  return undefined
}

/** Whether a window has no room. An amount may leave it up to a sixtieth late. */
const isFull = (flow: Flow, { window }: Limit, amount: number, now: number): boolean => {
  if (window === undefined) return false
  const late = 61_000
  const kept = flow.filter(({ admittedAt, amount, at }) => (amount < 0 ? (admittedAt ?? at) : at) > now - late)
  return kept.reduce((sum, movement) => sum + movement.amount, amount) > window - rounding
}

/** The next call does not wait if it lacks nothing. Looks into the pool for the next call. */
const nobodyFits: Law = (play) => {
  const { head } = play
  if (head === undefined || !isCalm(play.scope) || isResized(play)) return undefined
  const lack = lacks(play, head)
  if (lack === undefined) return `call ${head.id} waits, and lacks nothing`
  const { limits } = play.setting
  const quota = Limits.Dimension.literals.find(
    (dimension) => limits[dimension]?.total !== undefined && lack === dimension
  )
  return quota === undefined ? undefined : `call ${head.id} waits for a quota of ${quota}, which never refills`
}

/**
 * The pool decides again in time: if a slot is free, a timer fires no later than the law admits the next call. Asks the law, on
 * a copy.
 */
const isWoken: Law = (play) => {
  const { code, head, now, open, pool, setting, timers } = play
  if (head === undefined || open.length >= (setting.concurrency ?? Infinity)) return undefined
  const blocked = code.Pacer.decide(structuredClone(pool.law), head.charge, now)
  if (blocked === undefined) return `the law lets call ${head.id} go, and it waits`
  const by = now + Math.ceil(blocked.millis)
  if (blocked.millis === Infinity || timers.some(({ at }) => at <= by + rounding)) return undefined
  return `call ${head.id} may go in ${blocked.millis} ms, and no timer looks by then`
}

/** If all calls now succeed and time passes, no call waits any more. This continues the play, so it must come last. */
export const isServed: Law = (play) => {
  for (let rounds = 0; rounds < 200; rounds++) {
    for (const { id } of play.open) play.play(["end", id, "used"])
    const timer = play.nextTimer()
    if (play.waiting.length === 0) return undefined
    if (timer === undefined && play.open.length === 0) break
    if (timer !== undefined) play.play(["tick", Math.max(0, timer.at - play.now)])
  }
  return `calls ${play.waiting.map(({ id }) => id).join(", ")} wait for ever`
}

// -----------------------------------------------------------------------------
// Order
// -----------------------------------------------------------------------------

const inOrder: Law = (play) => {
  const { granted = [], headBefore } = play.steps.at(-1) ?? {}
  for (const { call, first, waiting } of granted) {
    const { id, priority } = call
    if (first !== call) return `call ${id} went before call ${first?.id} of its agent`
    const higher = waiting.find((each) => each.priority > priority)
    if (higher !== undefined) return `call ${id} went before call ${higher.id}, whose priority is higher`
  }
  // The next call stays next, unless it leaves or a call arrives whose turn is earlier.
  const next = granted[0]?.call ?? play.head
  if (next === undefined || headBefore === undefined || next === headBefore) return undefined
  const hasLeft = headBefore.hasLeft || headBefore.refusal !== undefined
  if (hasLeft || next.priority > headBefore.priority || next.agent === headBefore.agent) return undefined
  return `call ${next.id} is before call ${headBefore.id}, which was next`
}

/** The callers; the jobs of each, where an agent without one is a job; and the agents of each job. */
const rivalries = ({ agents, owners = {} }: Scope): ReadonlyArray<ReadonlyMap<string, string>> => {
  const pathOf = (agent: string): ReadonlyArray<string> => {
    const { caller = "nobody", job } = owners[agent] ?? {}
    return job === undefined ? [caller, `agent ${agent}`] : [caller, `job ${job}`, `agent ${agent}`]
  }
  const found = new Map<string, Map<string, string>>()
  for (const agent of agents) {
    for (const [depth, name] of pathOf(agent).entries()) {
      const within = JSON.stringify(pathOf(agent).slice(0, depth))
      found.set(within, (found.get(within) ?? new Map()).set(agent, name))
    }
  }
  return [...found.values()]
}

/** The service of two that wait all the time differs by at most one call of each: of two callers, two jobs of one, two agents of one. */
const fairly: Law = (play) => {
  if (!isCalm(play.scope) || play.scope.endings.some((each) => each !== "used" && each !== "kept")) return undefined
  if (play.scope.priorities !== undefined || play.scope.fronts === true) return undefined
  for (const nameOf of rivalries(play.scope)) {
    const unfair = unfairTo(play, nameOf)
    if (unfair !== undefined) return unfair
  }
  return undefined
}

const unfairTo = (play: Play, nameOf: ReadonlyMap<string, string>): string | undefined => {
  const got = new Map([...nameOf.values()].map((name) => [name, { sum: 0, largest: 0 }]))
  for (const { before, granted } of play.steps.toReversed()) {
    const waited = new Set(before.map(({ agent }) => nameOf.get(agent)))
    if ([...got.keys()].some((name) => !waited.has(name))) break
    for (const { call } of granted) {
      const name = nameOf.get(call.agent)
      if (name === undefined) continue
      const { largest, sum } = got.get(name)!
      const cost = Amounts.dominantShare(call.charge, Rules.resolve(play.setting.limits))
      got.set(name, { sum: sum + cost, largest: Math.max(largest, cost) })
    }
    for (const [one, a] of got) {
      for (const [other, b] of got) {
        if (a.sum - b.sum > a.largest + b.largest + rounding) {
          return `${one} got ${a.sum} while ${other} got ${b.sum}, though both waited`
        }
      }
    }
  }
  return undefined
}

/** No call is sent before the end of a pause. */
const paused: Law = ({ pausedUntil, steps }) => {
  const granted = steps.at(-1)?.granted ?? []
  const early = granted.find(({ call }) => call.grantedAt! < pausedUntil)
  return early === undefined ? undefined : `call ${early.call.id} went in a pause`
}

// -----------------------------------------------------------------------------
// Nobody harms another
// -----------------------------------------------------------------------------

/** Every caller that was answered resumes outside of the pool, and what its code throws is reported. */
const nobodyHarms: Law = ({ ranInside, reported, thrown, waiting }) => {
  if (ranInside !== undefined) return `the code of call ${ranInside.id} ran inside the pool`
  const lost = waiting.find(({ waiter }) => waiter !== undefined && waiter.phase !== "waiting")
  if (lost !== undefined) return `call ${lost.id} was answered, and never resumed`
  return reported === thrown ? undefined : `${thrown} callers threw, and ${reported} of them were reported`
}

/** A closed pool admits no call and leaves none waiting. */
const closed: Law = ({ closedIn, steps, waiting }) => {
  if (steps.length < closedIn) return undefined
  if (waiting.length > 0) return `call ${waiting[0]!.id} waits for a pool that is closed`
  const late = steps.length > closedIn ? steps.at(-1)?.granted[0] : undefined
  return late === undefined ? undefined : `call ${late.call.id} went after the pool was closed`
}

/** The laws of a state. {@link isServed} is another law, which continues the play. */
export const laws = {
  "nobody harms another": nobodyHarms,
  "closed is closed": closed,
  "never over": neverOver,
  "what is held is given back": countedRight,
  "nobody fits and waits": nobodyFits,
  "somebody looks in time": isWoken,
  "in order": inOrder,
  fairly,
  "nothing goes in a pause": paused
} satisfies Record<string, Law>
