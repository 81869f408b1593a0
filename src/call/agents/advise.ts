/** Advises how many agents help, by forecasts over the live state of their pool. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Budget from "../../Budget.ts"
import { checkCall } from "../../budget/forecast/forecast.ts"
import * as Input from "../../domain/input/checks.ts"
import { nearest } from "../../domain/input/nearest.ts"
import * as Forecast from "../../Forecast.ts"
import * as Advice from "./advice.ts"
import { type AgentHistory, History, isLike, type Likeness } from "./history.ts"
import { type AdviseOptions, type AgentWork, type Advice as AdviceModel, PoolUnclear } from "./models.ts"
import { type PoolAsked, poolMeant } from "./poolMeant.ts"
import * as Room from "./room.ts"

/**
 * The relative error of the end that nine of ten measured jobs did not exceed (`docs/guides/how-many-agents.md`). At first, neighbours,
 * outages and limits that were not stated are unknown. After a minute of calls, shares are averages over that minute.
 */
const errors = { first: 0.65, later: 0.2 } as const
const learningMillis = 60_000
const errorOf = (usedFor: number): number => (usedFor < learningMillis ? errors.first : errors.later)

/** More agents or calls would take seconds to forecast. */
const maxAgents = 10_000
const maxCalls = 20_000
const maxCallsEach = 1_000

const upTo = (max: number): Input.Check =>
  Input.number(`an integer from 1 to ${max}`, (value) => Input.whole(value) === undefined && value <= max)
const work = Input.options<AgentWork>(
  { calls: upTo(maxCallsEach), first: checkCall, later: checkCall },
  "calls",
  "first"
)

/** What is wrong with a job of too many calls. */
const manyCalls = (agents = 1, { calls }: AgentWork): string | undefined =>
  agents * calls <= maxCalls ? undefined : `expected at most ${maxCalls} calls of all agents, got ${agents * calls}`

const isName = (value: unknown): value is string => typeof value === "string"

/** Checks what each agent does. */
export const checkEach: Input.Check = (value) => (isName(value) ? undefined : work(value))

/** Checks a question. */
const checkAdvise: Input.Check = Input.all(
  Input.options<AdviseOptions>({
    model: Input.text,
    pool: Input.text,
    account: Input.text,
    each: checkEach,
    agents: upTo(maxAgents),
    running: Input.number("an integer >= 0", (value) => Number.isSafeInteger(value) && value >= 0),
    asker: Input.text
  }),
  (value) => {
    const { agents, each } = value as AdviseOptions
    const tooMany = isName(each) || each === undefined ? undefined : manyCalls(agents, each)
    return tooMany === undefined ? undefined : Input.problem(tooMany)
  }
)

// -----------------------------------------------------------------------------
// The work
// -----------------------------------------------------------------------------

const likenessText = (pattern: string, { agents, hasEnded, work }: Likeness): string | undefined => {
  if (hasEnded) return undefined
  const run = agents === 1 ? "earlier agent" : `${agents} earlier agents`
  const are = agents === 1 ? "still runs, and is" : "still run, and are"
  return `The ${run} like "${pattern}" ${are} assumed to be halfway through ${Advice.workText(work)}`
}

/** What each agent does, and what was assumed for it. */
const workOf = (
  history: AgentHistory | undefined,
  pool: string,
  each: AdviseOptions["each"] = "*",
  now: number
): { readonly work: AgentWork; readonly assumed: string | undefined; readonly isGuess: boolean } => {
  if (!isName(each)) return { work: each, assumed: undefined, isGuess: false }
  const alike = history?.like(pool, (name) => isLike(each, name), now)
  if (alike !== undefined) return { work: alike.work, assumed: likenessText(each, alike), isGuess: !alike.hasEnded }
  const near = each === "*" ? undefined : nearest(each, history?.namesIn(pool) ?? [])
  const whose = each === "*" ? "No earlier agent of this pool is known" : `No earlier agent is like "${each}"`
  const instead = near === undefined ? "" : ` (did you mean "${near}"?)`
  const assumed = `${whose}${instead}, so each is assumed to make ${Advice.workText(Advice.usualWork)}`
  return { work: Advice.usualWork, assumed, isGuess: true }
}

// -----------------------------------------------------------------------------
// The advice
// -----------------------------------------------------------------------------

const agentsOf = (count: number, { calls, first, later }: AgentWork): Forecast.Workload =>
  Forecast.uniform({ agents: count, calls, first, later })

/** A pool that limits nothing. */
const unlimited = { allowed: Infinity, dimensions: {}, inFlight: 0, queued: 0 }

/** What the history has of a pool. Without a history, no agents are promised and the pool is unused. */
const seenIn = (history: AgentHistory | undefined, pool: string, asker: string | undefined, now: number) => ({
  promised: history?.promised(pool, asker, now) ?? 0,
  usedFor: history?.usedFor(pool, now) ?? 0
})

/** What is known of a pool and of the agents in question. */
const situationOf = Effect.fnUntraced(function* (
  operation: string,
  meant: PoolAsked,
  { account, agents, asker, each, model, running: own = 0 }: AdviseOptions
) {
  const budget = yield* Budget.TokenBudget
  const history = yield* History
  const now = yield* Clock.currentTimeMillis
  const { pool } = yield* budget.foresee({}, meant)
  const { allowed, dimensions, inFlight, queued } = (yield* budget.status).pools[pool] ?? unlimited
  const { assumed, isGuess, work } = workOf(history, pool, each, now)
  const seen = seenIn(history, pool, asker, now)
  const tooMany = manyCalls(agents, work)
  if (tooMany !== undefined) Input.wrong(operation, tooMany)
  const running = Math.max(inFlight + queued, own + seen.promised)
  const made = history?.callsOfRunning(pool, work.calls, now)
  const remaining = Advice.remainingOf(work, made && made / Math.max(1, running))
  const foretell: Advice.Foretell<Budget.BudgetError> = (count, atOnce) =>
    budget.forecast(agentsOf(count, work), { ...meant, running, remaining, atOnce })
  const room = yield* Room.find({ model, account, pool, each: work, running, remaining })
  const assumptions = [...(assumed === undefined ? [] : [assumed]), ...room.assumptions]
  const error = isGuess ? undefined : errorOf(seen.usedFor)
  const question = { pool, each: work, running, agents, assumptions, caps: room.caps, error }
  const promise = (more: number, until: Duration.Duration): void => {
    if (asker !== undefined) history?.promise(pool, { asker, agents: more, until: now + Duration.toMillis(until) }, now)
  }
  return {
    question,
    foretell,
    promise,
    isWaiting: queued > 0,
    isKnown: Advice.hasLimits(dimensions) || allowed < Infinity
  }
})

const asked = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions
): Effect.fn.Return<
  Effect.Success<ReturnType<typeof situationOf>>,
  PoolUnclear | Budget.BudgetError,
  Budget.TokenBudget
> {
  Input.check(operation, checkAdvise, options)
  const budget = yield* Budget.TokenBudget
  const used = (yield* History)?.pools ?? new Set()
  const meant = poolMeant(budget, { pools: (yield* budget.status).pools, used }, options)
  return yield* meant instanceof PoolUnclear ? meant : situationOf(operation, meant, options)
})

type AdviseError = PoolUnclear | Budget.BudgetError

/** Advises how many agents to start. */
export const advise = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions = {}
): Effect.fn.Return<AdviceModel, AdviseError, Budget.TokenBudget> {
  const { foretell, isKnown, isWaiting, promise, question } = yield* asked(operation, options)
  const advice = yield* isKnown ? Advice.found(question, foretell) : Advice.tried(question, isWaiting, foretell)
  promise(advice.agents, advice.expiresAfter)
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
  const { foretell, isKnown, isWaiting, promise, question } = yield* asked(operation, options)
  const found = isKnown ? Advice.helpful(question, foretell) : Advice.triable(question, isWaiting, foretell)
  const { atOnce, expiresAfter, helps } = yield* found
  promise(helps, expiresAfter)
  const isGuess = !isKnown || question.error === undefined
  return { more: atOnce - question.running, isGuess, millis: Duration.toMillis(expiresAfter) }
})

/** Forecasts the agents if all of them start now. */
export const foretold = Effect.fnUntraced(function* (
  operation: string,
  options: AdviseOptions = {}
): Effect.fn.Return<Advice.PlainForecast, AdviseError, Budget.TokenBudget> {
  const { foretell, isKnown, question } = yield* asked(operation, options)
  const { agents = 1 } = question
  return Advice.plainForecast({ ...question, agents }, yield* foretell(agents, Infinity), isKnown)
})
