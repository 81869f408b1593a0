/** Advises how many agents help, by forecasts over the live state of their pool. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import { sumAll } from "effect/Number"
import * as Budget from "../Budget.ts"
import { checkCall, growing } from "../budget/forecast/forecast.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Input from "../domain/input/checks.ts"
import { counted, plural } from "../domain/words.ts"
import * as Forecast from "../Forecast.ts"
import * as Advice from "./advice.ts"
import * as Harm from "./harm.ts"
import { type AgentHistory, History, isLike } from "../call/history.ts"
import { CurrentAgent } from "./counting.ts"
import * as Expected from "./expected.ts"
import type { AdviseOptions, Advice as AdviceModel, Options, PoolUnclear } from "./models.ts"
import { allCallsOf } from "./subAgents.ts"
import { resolvePools, type ResolvedPool } from "./resolvePool.ts"
import * as Room from "./room.ts"
import * as Spread from "./spread.ts"

/** More agents or calls would take seconds to forecast. */
const maxAgents = 10_000
const maxCalls = 20_000
const maxCallsEach = 1_000

const upTo = (max: number): Input.Check =>
  Input.number(`an integer from 1 to ${max}`, (value) => Input.whole(value) === undefined && value <= max)
const work = Input.options<Forecast.Work>(
  { calls: upTo(maxCallsEach), first: checkCall, later: checkCall, ...growing },
  "calls",
  "first"
)

/** The problem with a job of too many calls; undefined if there is none. */
const manyCalls = (agents = 1, calls: number): string | undefined =>
  agents * calls <= maxCalls ? undefined : `expected at most ${maxCalls} calls of all agents, got ${agents * calls}`

const isName = (value: unknown): value is string => typeof value === "string"

/** The options that say what agents do, and where. */
type About = NonNullable<Options["advice"]>

const about: Input.Checks<About> = {
  model: Input.text,
  pool: Input.text,
  account: Input.text,
  each: (value) => (isName(value) ? undefined : work(value)),
  places: Input.list(Input.text)
}

/** Calls to a pool, or of an account, may not go to other places. */
const checkPlaces: Input.Check = (value) => {
  const { places, ...others } = value as About
  const other = (["pool", "account"] as const).find((name) => others[name] !== undefined)
  if (places === undefined || other === undefined) return undefined
  return {
    place: ".places",
    text: `does not apply, because ${other} says where the agents call: leave out one of the two`
  }
}

/** Checks what agents do, and where. */
export const checkAbout: Input.Check = Input.all(Input.options(about), checkPlaces)

/** Checks a question. */
const checkAdvise: Input.Check = Input.all(
  Input.options<AdviseOptions>({
    ...about,
    agents: upTo(maxAgents),
    running: Input.number("an integer >= 0", (value) => Number.isSafeInteger(value) && value >= 0),
    asker: Input.text,
    askingTokens: Input.notNegative
  }),
  checkPlaces,
  (value) => {
    const { agents, each } = value as AdviseOptions
    const tooMany = isName(each) || each === undefined ? undefined : manyCalls(agents, each.calls)
    return tooMany === undefined ? undefined : Input.problem(tooMany)
  }
)

// -----------------------------------------------------------------------------
// The advice
// -----------------------------------------------------------------------------

const agentsOf = (count: number, work: Forecast.Work, restsFor: number): Forecast.Workload => {
  const agents = count === 0 ? [] : Forecast.uniform({ ...work, agents: count })
  return restsFor === 0 ? agents : agents.map((agent) => ({ ...agent, startsAfter: restsFor }))
}

/** A pool that limits nothing. */
const unlimited: Pick<
  Budget.PoolStatus,
  "allowed" | "dimensions" | "inFlight" | "known" | "measured" | "pause" | "queued"
> = {
  allowed: Infinity,
  dimensions: {},
  known: [],
  inFlight: 0,
  pause: undefined,
  queued: 0
}

/** The pools as they are now, and the agents that others were promised there. Without a history, no pool was used. */
const statesOf = Effect.fnUntraced(function* (
  meant: ReadonlyArray<ResolvedPool>,
  asker: string | undefined,
  now: number
) {
  const budget = yield* Budget.TokenBudget
  const history = yield* History
  // A prediction opens a pool and knows its name.
  const foreseen = yield* Effect.forEach(meant, ({ asked }) => budget.foresee({}, asked))
  const { pools } = yield* budget.status
  return meant.map((each, index) => {
    const { pool } = foreseen[index]!
    const { allowed, dimensions, inFlight, known, measured, pause, queued } = pools[pool] ?? unlimited
    return {
      ...each,
      pool,
      inFlight,
      queued,
      dimensions,
      isKnown: Advice.hasLimits(dimensions) || allowed < Infinity,
      harms: Harm.harmsOf({ known, measured }),
      maxLearned: Harm.maxLearned({ known }),
      asideFor: Math.max(0, (each.place?.asideUntil ?? 0) - now),
      pausedFor: pause?.leftMillis ?? 0,
      promised: history?.promised(pool, asker, now) ?? 0
    }
  })
})

type PoolNow = Effect.Success<ReturnType<typeof statesOf>>[number]

/**
 * The number of agents that run in each pool, if the asker has `own` and so many may be in a pause. A call that waits in several queues
 * is one agent.
 */
const runningIn = (states: ReadonlyArray<PoolNow>, own: number, resting: number): ReadonlyArray<number> => {
  const queued = states.map(({ queued }) => queued)
  const part = Math.max(...queued) / Math.max(1, sumAll(queued))
  const present = states.map(({ inFlight, queued }) => inFlight + part * queued)
  const promised = states.map(({ promised }) => promised)
  const all = Math.max(sumAll(present), own + sumAll(promised), resting)
  const known = present.map((agents, index) => agents + promised[index]!)
  const isUsed = sumAll(known) > 0
  const parts = known.map((agents) => (isUsed ? (all * agents) / sumAll(known) : all / states.length))
  // The sums are rounded, so that no agent is lost.
  const before = (index: number): number => Math.round(sumAll(parts.slice(0, index)))
  return parts.map((_, index) => before(index + 1) - before(index))
}

/** The number of the asker's agents that have neither ended nor begun a call, and so have all of their work to do. */
const unbegunOf = (states: ReadonlyArray<PoolNow>, own: number, begun: number): number =>
  Math.max(0, own - begun - sumAll(states.map(({ inFlight, queued }) => inFlight + queued)))

const costAt = ({ place }: ResolvedPool, each: Forecast.Work): number =>
  place?.price === undefined ? Infinity : Room.costOfAgent(place.price, each)

/** The pools to which calls go. With the policy "cheapest", these are only the pools of the cheapest place. */
const counting = (states: ReadonlyArray<PoolNow>, each: Forecast.Work): ReadonlyArray<PoolNow> => {
  if (!states.every(({ policy }) => policy === "cheapest")) return states
  const min = Math.min(...states.map((state) => costAt(state, each)))
  return states.filter((state) => costAt(state, each) === min)
}

const unseenPlaces = (model: string | undefined): string =>
  model === undefined
    ? "The places are not counted, because their model is unknown: state the model"
    : `The places of ${model} are known from its first call on, so they are not counted yet`

/** How many of the agents that count as running were promised to others. */
const promisedIn = (states: ReadonlyArray<PoolNow>): ReadonlyArray<string> => {
  const agents = sumAll(states.map(({ promised }) => promised))
  if (agents === 0) return []
  return [
    `${counted(agents, "agent")} that others were advised to start ${plural(agents, "counts", "count")} as running`
  ]
}

/** How long the limits of a pool take to refill what some calls use. */
const refillMillis = ({ dimensions }: PoolNow, calls: ReadonlyArray<Forecast.Call>): number => {
  const amounts = calls.map((call) => Amounts.whole(call))
  const millis = Amounts.dimensions.map((dimension) => {
    const { limitPerSecond = Infinity } = dimensions[dimension] ?? {}
    return (1_000 * sumAll(amounts.map((amount) => amount[dimension]))) / limitPerSecond
  })
  return Math.max(...millis)
}

/** The cost of one more question: the asker's own call, as stated, or as the calls of an agent of that name. */
const askingOf = (
  history: AgentHistory | undefined,
  states: ReadonlyArray<PoolNow>,
  { asker, askingTokens }: Pick<AdviseOptions, "asker" | "askingTokens">,
  work: Forecast.Work,
  now: number
): Advice.AskingCost => {
  const pools = states.map(({ pool }) => pool)
  const own = asker === undefined ? undefined : history?.like(pools, (name) => name === asker, now)?.work
  const call =
    askingTokens === undefined ? own && (own.later ?? own.first) : { inputTokens: askingTokens, outputTokens: 0 }
  if (call === undefined) return Advice.askingCost(0, 0)
  const calls = allCallsOf(work)
  const costs = states.map((state) => Advice.askingCost(refillMillis(state, [call]), refillMillis(state, calls)))
  return costs.reduce((least, each) => (each.millis < least.millis ? each : least))
}

/** Remembers for later ranges when the agents of a job are foreseen to end, if nothing keeps them from starting. */
const foreseeing =
  (history: AgentHistory | undefined, { asker, each = "*" }: AdviseOptions, { pool }: PoolNow, now: number) =>
  ({ caps, end, job }: Pick<AdviceModel, "caps" | "end" | "job">): void => {
    if (end === undefined || caps.length > 0) return
    const pattern = isName(each) ? each : "*"
    const isMeant = (agent: string) => isLike(pattern, agent)
    history?.foresaw(pool, { asker, isMeant, agents: job, at: now, millis: Duration.toMillis(end) }, now)
  }

/** Remembers for other askers how many agents this one was advised to start at each place. */
const promising =
  (
    history: AgentHistory | undefined,
    asker: string | undefined,
    places: ReadonlyArray<{ readonly pool: string }>,
    now: number
  ) =>
  (more: ReadonlyArray<number>, until: Duration.Duration): void => {
    if (asker === undefined) return
    for (const [index, agents] of more.entries()) {
      history?.promise(places[index]!.pool, { asker, agents, until: now + Duration.toMillis(until) }, now)
    }
  }

/** Gathers what is known of the pools and of the agents in question. */
const situationOf = Effect.fnUntraced(function* (
  operation: string,
  meant: ReadonlyArray<ResolvedPool>,
  options: AdviseOptions,
  isOfJob: boolean
) {
  const { account, agents, asker, askingTokens, each, model, places: only, running: own = 0 } = options
  const budget = yield* Budget.TokenBudget
  const history = yield* History
  const now = yield* Clock.currentTimeMillis
  const all = yield* statesOf(meant, asker, now)
  const pools = all.map(({ pool }) => pool)
  const isMeant = history && Expected.meant(history, { asker, each, isOfJob, lead: (yield* CurrentAgent)?.key })
  const { assumed, isGuess, work } = Expected.workOf(history && { history, pools, now }, each, isMeant)
  const tooMany = manyCalls(agents, allCallsOf(work).length)
  if (tooMany !== undefined) Input.wrong(operation, tooMany)
  const states = counting(all, work)
  const resting = history?.resting(pools, work.calls, now) ?? 0
  const inEach = runningIn(states, own, resting)
  const running = sumAll(inEach)
  const begun = history?.running(pools, work.calls, now)
  const remaining = Advice.remainingOf(work, begun && begun.calls / Math.max(1, running))
  const spending = { model, each: work, running, remaining }
  const left = yield* Room.left
  const rooms = states.map(({ asked, place, pool }, index) =>
    Room.find(left, { ...spending, account: account ?? asked.account, pool, price: place?.price, here: inEach[index]! })
  )
  const fresh = begun === undefined ? 0 : unbegunOf(states, own, begun.agents)
  const maxUnbegun = Advice.maxSearchedOf(work)
  const places = states.map(({ asideFor, asked, inFlight, isKnown, pausedFor, place, pool, queued }, index) => {
    const here = inEach[index]!
    const unbegun = Math.min(maxUnbegun, Math.floor((fresh * here) / Math.max(1, running)))
    const foretell: Advice.Foretell<Budget.BudgetError> = (count, atOnce) =>
      budget.forecast(agentsOf(count + unbegun, work, asideFor), {
        ...asked,
        running: here - unbegun,
        remaining,
        atOnce
      })
    const restsFor = Math.max(asideFor, pausedFor)
    const windows = place === undefined ? [] : rooms[index]!.windows
    const isIdle = own + resting === 0 && inFlight === 0 && queued === 0
    const known = { pool, running: here, isKnown, isWaiting: queued > 0, isIdle, restsFor, windows }
    return { ...known, name: place?.name ?? pool, foretell }
  })
  // A call must be able to pay at its dearest place.
  const costs = states.map((state) => costAt(state, work))
  const room = rooms[costs.indexOf(Math.max(...costs))]!
  const hasPlaces = states[0]!.place !== undefined
  const unseen = only === undefined || hasPlaces ? [] : [unseenPlaces(model)]
  const assumptions = [assumed, unseen, promisedIn(states), room.assumptions].flat()
  const missedBy = isGuess ? undefined : history?.missedBy(pools[0]!, now)
  const caps = hasPlaces ? room.caps : [...room.caps, ...room.windows]
  const asking = askingOf(history, states, { asker, askingTokens }, work, now)
  const question: Advice.Question = {
    pool: pools[0]!,
    each: work,
    running,
    agents,
    assumptions,
    caps,
    isGuess,
    missedBy,
    asking,
    harms: states.flatMap(({ harms }) => harms),
    maxLearned: states.length === 1 ? states[0]!.maxLearned : undefined,
    price: room.price
  }
  const promise = promising(history, asker, places, now)
  const foresaw = foreseeing(history, options, states[0]!, now)
  return {
    question,
    places,
    hasPlaces,
    promise,
    foresaw: isGuess || !places.every(({ isKnown }) => isKnown) ? constVoid : foresaw
  }
})

type Situation = Effect.Success<ReturnType<typeof situationOf>>

const asked = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions,
  isOfJob = false
): Effect.fn.Return<Situation, PoolUnclear | Budget.BudgetError, Budget.TokenBudget> {
  Input.check(operation, checkAdvise, options)
  const meant = yield* resolvePools(options)
  return yield* situationOf(operation, meant, options, isOfJob)
})

type AdviseError = PoolUnclear | Budget.BudgetError

/** Advises how many agents to start. */
export const advise = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions = {}
): Effect.fn.Return<AdviceModel, AdviseError, Budget.TokenBudget> {
  const { foresaw, hasPlaces, places, promise, question } = yield* asked(operation, options)
  if (hasPlaces) {
    const advice = yield* Spread.found(question, places)
    foresaw(advice)
    promise(
      advice.places.map(({ agents }) => agents),
      advice.expiresAfter
    )
    return advice
  }
  const { foretell, isIdle, isKnown, isWaiting } = places[0]!
  const advice = yield* isKnown ? Advice.found(question, foretell, isIdle) : Advice.tried(question, isWaiting, foretell)
  foresaw(advice)
  promise([advice.agents], advice.expiresAfter)
  return advice
})

/** How many agents of a job may run now. */
export interface Allowance {
  /** How many more help; negative if too many run. */
  readonly more: number
  readonly isGuess: boolean
  readonly millis: number
}

/** Advises a job, which needs neither the ends of other numbers nor words. */
export const allow = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions
): Effect.fn.Return<Allowance, AdviseError, Budget.TokenBudget> {
  const { places, promise, question } = yield* asked(operation, options, true)
  const { atOnce, expiresAfter, isGuess, shares } = yield* Spread.helpful(question, places)
  promise(shares, expiresAfter)
  return { more: atOnce - question.running, isGuess, millis: Duration.toMillis(expiresAfter) }
})

/** Forecasts the agents if all of them start now. */
export const foretold = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions = {}
): Effect.fn.Return<Advice.PlainForecast, AdviseError, Budget.TokenBudget> {
  const { places, question } = yield* asked(operation, options)
  const { agents = 1 } = question
  const { forecast, pool } = yield* Spread.foretold(agents, Infinity, places)
  const isKnown = places.every(({ isKnown }) => isKnown)
  return Advice.plainForecast({ ...question, agents, pool }, forecast, isKnown)
})

/** A job that runs. */
export interface RunningJob {
  readonly waiting: number
  readonly running: number
  /** How many of its agents run at once. */
  readonly atOnce: number
}

/** The foreseen end of a running job. */
export interface JobEnd {
  readonly pool: string
  readonly millis: number
  /** The calls of each agent. */
  readonly calls: number
  readonly isGuess: boolean
}

/** Foresees the end of a running job: of the agents that wait, or if all have begun, of those that run. */
export const jobEnd = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions,
  { atOnce, running, waiting }: RunningJob
): Effect.fn.Return<JobEnd, AdviseError, Budget.TokenBudget> {
  const { places, question } = yield* asked(operation, { ...options, running }, true)
  const { calls } = question.each
  // The forecast of a large job is that of a part of it.
  const count = Math.min(waiting, Math.max(1, Advice.maxSearchedOf(question.each)))
  const { forecast } = yield* Spread.foretold(count, atOnce, places)
  const isEnding = forecast.refused.length === 0
  return {
    pool: question.pool,
    millis: isEnding ? Duration.toMillis(forecast.duration) * (waiting / Math.max(1, count) || 1) : Infinity,
    calls,
    isGuess: question.isGuess || !places.every(({ isKnown }) => isKnown)
  }
})
