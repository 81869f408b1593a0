/**
 * How many agents help: the number from which on more agents at once do not end a job earlier, and the advice in words. Pure,
 * but for the forecasts that it asks for.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { callsOf, laterOf } from "../budget/forecast/work.ts"
import type * as Amounts from "../domain/amounts.ts"
import { about, counted, plural, thousands, units } from "../domain/words.ts"
import type * as Forecast from "../Forecast.ts"
import type * as PriceTable from "../domain/prices.ts"
import * as Harm from "./harm.ts"
import type { Advice, CapRoom, PlainAdvice } from "./models.ts"
import { allCallsOf } from "./subAgents.ts"

/** The smallest number from 1 to `max` for which a condition holds. It must hold for `max`, and for all numbers above the smallest. */
export const smallest = Effect.fnUntraced(function* <E, R>(
  max: number,
  holds: (count: number) => Effect.Effect<boolean, E, R>
) {
  let from = 1
  let to = max
  while (from < to) {
    const middle = Math.floor((from + to) / 2)
    if (yield* holds(middle)) to = middle
    else from = middle + 1
  }
  return to
})

/**
 * The smallest number from 1 to `max` that takes longer than `max` by at most the part `tolerance`. Calls are paced, so hardly any number
 * is better than all at once.
 */
export const fewestAsQuick = Effect.fnUntraced(function* <E, R>(
  max: number,
  tolerance: number,
  millisWith: (count: number) => Effect.Effect<number, E, R>
) {
  if (max <= 1) return max
  const within = (1 + tolerance) * (yield* millisWith(max))
  return yield* smallest(max, (count) => Effect.map(millisWith(count), (millis) => millis <= within))
})

/** The facts that are known before the search. */
export interface Question {
  readonly pool: string
  readonly each: Forecast.Work
  readonly running: number
  /** How many agents there are to start, if that was said. */
  readonly agents: number | undefined
  readonly assumptions: ReadonlyArray<string>
  /** The caps on what the agents may spend. */
  readonly caps: ReadonlyArray<CapRoom>
  /** Whether the work of the agents is a guess. */
  readonly isGuess: boolean
  /** The factor by which nine of ten ends are at most earlier or later; undefined if that is not known. */
  readonly missedBy: number | undefined
  /** The cost of one more question. */
  readonly asking: AskingCost
  /** The harm that many agents at once do. */
  readonly harms: Advice["harms"]
  /** How many calls in flight the pool takes, if its rejections have shown that. */
  readonly maxLearned: number | undefined
  readonly price: PriceTable.Price | undefined
}

/** The cost of a question to an asker that is an agent itself: its own call. Nothing if the asker is a program. */
export interface AskingCost {
  /** How long the limits take to refill what that call uses. */
  readonly millis: number
  /** How many agents to start at least with one question, so that the questions cost little beside the work. */
  readonly fewest: number
}

/** The questions of an orchestrator may cost this part of its agents' work. */
const maxAskingShare = 0.1

/** The cost of a question whose call takes so long of the limits, beside an agent that takes so long of them. */
export const askingCost = (millis: number, agentMillis: number): AskingCost => ({
  millis,
  fewest: millis === 0 ? 1 : Math.min(lastJob, Math.max(1, Math.ceil(millis / (maxAskingShare * agentMillis))))
})

/** Forecasts a number of agents, of which some run at once with those that run already. */
export type Foretell<E> = (agents: number, atOnce: number) => Effect.Effect<Forecast.Forecast, E>

/** The first number of agents to look at if a job's number is not given, and the largest. */
const firstJob = 32
const lastJob = 256
/** The calls of the largest job to search, because each search takes ten forecasts. */
const maxSearched = 5_000

/** The number of agents in the largest job to search. */
export const maxSearchedOf = (work: Forecast.Work): number => Math.floor(maxSearched / allCallsOf(work).length)

const millisOf = ({ duration }: Forecast.Forecast): number => Duration.toMillis(duration)

/** A number of agents is enough if it ends the job at most this much later than all agents at once. */
const maxLater = 0.08

/** The number of agents at once that help a job of this size, with those that run already. */
const helping = <E>(foretell: Foretell<E>, { running }: Question, job: number): Effect.Effect<number, E> =>
  fewestAsQuick(running + job, maxLater, (atOnce) => Effect.map(foretell(job, atOnce), millisOf))

/** Looks at larger and larger jobs, until some of their agents do not help. A larger job needs no more agents at once. */
const search = Effect.fnUntraced(function* <E>(foretell: Foretell<E>, question: Question) {
  const { agents, each, running } = question
  const max = Math.max(2, Math.min(lastJob, maxSearchedOf(each)))
  for (let job = Math.min(max, agents ?? firstJob); ; job = Math.min(max, 2 * job)) {
    const atOnce = yield* helping(foretell, question, job)
    const isLarge = atOnce <= running + job / 4 || job >= max
    if (isLarge || agents !== undefined) return { atOnce, searched: job }
  }
})

/** The numbers of agents for which an advice gives the end: some below the number that helps, and some beyond it. */
export const numbersAround = (helps: number): ReadonlyArray<number> => {
  const numbers = new Set([helps, helps + 1])
  for (let each = 1; each <= 2 * helps + 4; each += Math.max(1, Math.floor(each / 4))) numbers.add(each)
  return [...numbers].filter((each) => each >= 1).sort((a, b) => a - b)
}

/** The time by which the last agent ends later with one agent more. */
export const furtherAdded = (ends: Advice["ends"], helps: number): Duration.Duration => {
  const endWith = (count: number): number =>
    Duration.toMillis(ends.find(({ agents }) => agents === count)?.end ?? Duration.zero)
  return Duration.millis(Math.max(0, endWith(helps + 1) - endWith(helps)))
}

/** An advice holds until its first agent ends, but not longer, because others use the pool as well. */
export const longest = 60_000
export const shortest = 1_000

/**
 * A guess holds until a call shows how large calls are, and all advice for as long as the limits take to refill what the question costs.
 * The time is in whole milliseconds, as timers are.
 */
const expiryOf = (helps: number, job: Forecast.Forecast, isGuess: boolean, asking: AskingCost): Duration.Duration => {
  const ends = isGuess ? job.calls : job.agents
  const next =
    helps > 0 ? ends.map(({ finishesAfter }) => finishesAfter) : job.calls.map(({ askedAfter }) => askedAfter)
  const millis = next.reduce((min, each) => Math.min(min, Duration.toMillis(each)), longest)
  return Duration.millis(Math.ceil(Math.max(shortest, millis, asking.millis)))
}

/** The number of agents to start if so many help. */
const startable = (more: number, { agents, asking }: Question, isIdle: boolean): number => {
  // An idle pool has room for one, whatever others were advised to start there.
  const helps = Math.max(isIdle ? 1 : 0, more)
  return helps === 0 ? 0 : Math.max(helps, Math.min(asking.fewest, agents ?? Infinity))
}

/** The number of agents that help, and the forecast of the job with them. */
export const helpful = Effect.fnUntraced(function* <E>(question: Question, foretell: Foretell<E>, isIdle = false) {
  const { agents, asking, isGuess, running } = question
  const found = yield* search(foretell, question)
  const helps = startable(found.atOnce - running, question, isIdle)
  const atOnce = helps === 0 ? found.atOnce : running + helps
  const job = agents ?? Math.max(1, helps)
  const whole = yield* foretell(job, atOnce)
  const expiresAfter = expiryOf(helps, whole, isGuess, asking)
  return { atOnce, helps, job, searched: found.searched, whole, expiresAfter }
})

/** Advises how many agents to start, by a search over forecasts. */
export const found = Effect.fnUntraced(function* <E>(
  question: Question,
  foretell: Foretell<E>,
  isIdle: boolean
): Effect.fn.Return<Advice, E> {
  const { helps, searched, whole, ...advice } = yield* helpful(question, foretell, isIdle)
  const { each, price } = question
  const isPart = helps < advice.job && (each.cachedShare ?? 0) > 0
  const all = isPart ? yield* foretell(advice.job, Infinity) : undefined
  const unbounded = yield* foretell(searched, Infinity)
  const misfit = unbounded.refused[0]
  if (misfit !== undefined) {
    const agents = yield* maxThatFit(foretell, searched)
    if (agents === 0) return never({ ...question, ...advice }, misfit)
    const name = `quota of ${plural(2, units[misfit.dimension])}`
    const quota = { name, agents, text: `the ${name} has room for ${counted(agents, "agent")} of this kind` }
    const { job, ...rest } = yield* found({ ...question, agents }, foretell, isIdle)
    return said({
      ...rest,
      isGuess: question.isGuess,
      job: question.agents ?? job,
      caps: [...rest.caps, quota],
      binding: misfit.dimension
    })
  }
  const ends = yield* Effect.forEach(numbersAround(helps), (count) =>
    Effect.map(foretell(count, Infinity), ({ duration }) => ({ agents: count, end: duration }))
  )
  return said({
    ...question,
    ...advice,
    agents: helps,
    saves: Harm.savesOf({ ...advice, agents: helps }, each, price, all, whole),
    end: whole.duration,
    range: rangeOf(whole.duration, question),
    furtherAdds: furtherAdded(ends, helps),
    ends,
    binding: unbounded.binding
  })
})

/** The most agents of which no call is refused because a quota is used up. With `max` agents, some are. */
const maxThatFit = <E>(foretell: Foretell<E>, max: number): Effect.Effect<number, E> => {
  const isRefused = (agents: number) => Effect.map(foretell(agents, Infinity), ({ refused }) => refused.length > 0)
  return Effect.map(smallest(max, isRefused), (agents) => agents - 1)
}

/** Advises against agents of which a call can never be sent. */
export const never = (
  known: Omit<Question, "agents"> & Pick<Advice, "atOnce" | "expiresAfter" | "job">,
  misfit: Amounts.Misfit
): Advice =>
  said({
    ...known,
    agents: 0,
    end: undefined,
    range: undefined,
    furtherAdds: Duration.zero,
    ends: [],
    binding: misfit.dimension,
    assumptions: [...known.assumptions, tooLarge(misfit)]
  })

export const tooLarge = ({ asked, dimension, limit }: Amounts.Misfit): string =>
  `A call of ${counted(asked, units[dimension])} never fits, because ${thousands(limit)} are left or allowed at once`

const noLimits = "No limit of this pool is known yet, so the end is the earliest that is possible"

/** The number of further agents to try in a pool without a known limit. */
export const triableNumber = (running: number, isWaiting: boolean): number => (isWaiting ? 0 : Math.max(1, running))

/**
 * The number of agents to try in a pool of which no limit is known: as many again as run now, because the pool itself doubles its
 * calls until the provider says what it allows.
 */
export const triable = Effect.fnUntraced(function* <E>(
  { agents, asking, running }: Question,
  isWaiting: boolean,
  foretell: Foretell<E>
) {
  const more = triableNumber(running, isWaiting)
  const helps = Math.min(agents ?? more, more)
  const job = agents ?? Math.max(1, helps)
  const atOnce = Math.max(1, running + helps)
  const whole = yield* foretell(job, atOnce)
  return { atOnce, helps, job, whole, expiresAfter: expiryOf(1, whole, true, asking) }
})

/** Advises for a pool of which no limit is known. */
export const tried = Effect.fnUntraced(function* <E>(question: Question, isWaiting: boolean, foretell: Foretell<E>) {
  const { helps, whole, ...advice } = yield* triable(question, isWaiting, foretell)
  return said({
    ...question,
    ...advice,
    agents: helps,
    end: whole.duration,
    range: undefined,
    furtherAdds: Duration.zero,
    ends: [],
    binding: "unknown",
    assumptions: [...question.assumptions, noLimits]
  })
})

// -----------------------------------------------------------------------------
// Plain data
// -----------------------------------------------------------------------------

const inSeconds = (duration: Duration.Duration): number => Duration.toMillis(duration) / 1_000

const plainCall = ({ duration, inputTokens, outputTokens }: Forecast.Call) => ({
  inputTokens,
  outputTokens,
  ...(duration === undefined ? {} : { seconds: inSeconds(Duration.fromInputUnsafe(duration)) })
})

const plainWork = (work: Forecast.Work): PlainAdvice["each"] => {
  const { cachedShare, calls, first, growth, pause } = work
  return {
    calls,
    first: plainCall(first),
    later: plainCall(laterOf(work)),
    ...(growth !== undefined && { growthTokens: growth }),
    ...(cachedShare !== undefined && { cachedShare }),
    ...(pause !== undefined && { pauseSeconds: inSeconds(Duration.fromInputUnsafe(pause)) })
  }
}

const plainRange = (range: Advice["range"]): PlainAdvice["rangeSeconds"] =>
  range === undefined ? null : { from: inSeconds(range.from), to: inSeconds(range.to) }

/** Advice in plain numbers, for JSON. */
export const plain = ({ each, end, ends, expiresAfter, furtherAdds, range, saves, ...advice }: Advice): PlainAdvice => {
  return {
    ...advice,
    each: plainWork(each),
    endSeconds: end === undefined ? null : inSeconds(end),
    furtherAddsSeconds: inSeconds(furtherAdds),
    ends: ends.map(({ agents, end }) => ({ agents, endSeconds: inSeconds(end) })),
    rangeSeconds: plainRange(range),
    saves: { ...saves, dollars: saves.dollars ?? null },
    expiresAfterSeconds: inSeconds(expiresAfter)
  }
}

/** A forecast of agents that all start now, in plain numbers. */
export interface PlainForecast extends Pick<
  PlainAdvice,
  "agents" | "assumptions" | "each" | "endSeconds" | "rangeSeconds" | "pool"
> {
  readonly binding: Advice["binding"]
  readonly waits: { readonly p50Seconds: number; readonly p95Seconds: number; readonly p99Seconds: number }
  readonly text: string
}

export const plainForecast = (
  { agents, assumptions, each, isGuess, missedBy, pool }: Question & { readonly agents: number },
  { binding, duration, refused, waits }: Forecast.Forecast,
  isKnown: boolean
): PlainForecast => {
  const limit = refused[0]?.dimension ?? (isKnown ? binding : "unknown")
  const all = [...assumptions, ...refused.slice(0, 1).map(tooLarge), ...(isKnown ? [] : [noLimits])]
  const isEnding = refused.length === 0
  const range = isKnown && isEnding ? rangeOf(duration, { missedBy }) : undefined
  const end = isEnding ? `all end in ${span(duration)} (${sureOf(range, isGuess || !isKnown)})` : "they never end"
  return {
    pool,
    agents,
    each: plainWork(each),
    endSeconds: isEnding ? inSeconds(duration) : null,
    binding: limit,
    waits: {
      p50Seconds: inSeconds(waits.p50),
      p95Seconds: inSeconds(waits.p95),
      p99Seconds: inSeconds(waits.p99)
    },
    rangeSeconds: plainRange(range),
    assumptions: all,
    text: `If ${counted(agents, "agent")} ${plural(agents, "starts", "start")} now, ${end}, because ${limitOf(limit)}.${sentences(all)}`
  }
}

// -----------------------------------------------------------------------------
// Words
// -----------------------------------------------------------------------------

/** A duration in the unit that a reader needs. */
export const span = (duration: Duration.Duration): string => about(Duration.toSeconds(duration))

const limitOf = (binding: Advice["binding"]): string => {
  if (binding === "pause") return "the provider made the pool pause"
  if (binding === "agents") return "each agent's own calls take that long"
  if (binding === "unknown") return "no limit is known yet"
  if (binding === "spending") return "no more may be spent"
  return binding === "concurrency" ? "calls at once are the limit" : `${plural(2, units[binding])} are the limit`
}

/** The places in words, with the number of agents at each. */
const whereOf = (places: Advice["places"]): string => {
  const used = places.filter(({ agents }) => agents > 0)
  if (used.length === 0) return ""
  if (used.length === 1) return `, at ${used[0]!.name}`
  const each = used.map(({ agents, name }) => `${agents} at ${name}`)
  return `, ${each.slice(0, -1).join(", ")} and ${each.at(-1)}`
}

/** How many agents end as early as those that are advised, which is then enough for a long job. */
const asEarlyAs = ({ agents, ends }: Omit<Advice, "text">): number => {
  const end = ends.find((each) => each.agents === agents)?.end ?? Duration.zero
  const latest = Duration.toMillis(end) + hardlyLater
  return ends.reduce(
    (most, each) => (Duration.toMillis(each.end) < latest ? Math.max(most, each.agents) : most),
    agents
  )
}

/** Ends that differ by fewer milliseconds look equal. */
const hardlyLater = 50

const noneOf = ({ binding, end, running }: Omit<Advice, "text">): string => {
  if (binding === "unknown") return "Start no more agents now"
  return running === 0 || binding === "spending" || end === undefined
    ? `Start no agents now, because ${limitOf(binding)}`
    : `Start no more agents now: the ${running} that count as running are enough, because ${limitOf(binding)}`
}

const countOf = (advice: Omit<Advice, "text">): string => {
  const { agents, binding, furtherAdds, job, places } = advice
  const limit = limitOf(binding)
  const where = whereOf(places)
  if (agents === 0) return noneOf(advice)
  if (binding === "unknown") return `Start ${counted(agents, "agent")} now${where}`
  if (binding === "spending") return `Start ${counted(agents, "agent")} now${where}, because ${limit}`
  if (agents < job) {
    const most = Math.round(100 * maxLater)
    return `Start ${agents} of ${job} agents now${where}: more at once would end the job at most ${most} % earlier, because ${limit}`
  }
  const help = `${counted(agents, "more agent")} ${plural(agents, "helps", "help")}${where}`
  if (binding === "agents") return `${help}, and no limit binds`
  return Duration.toMillis(furtherAdds) >= hardlyLater
    ? `${help}; a further one adds ${span(furtherAdds)}, because ${limit}`
    : `${help}: enough for a long job, because ${limit}; up to ${asEarlyAs(advice)} end as early`
}

const endOf = ({ binding, caps, end, job, range }: Omit<Advice, "text">, isGuess: boolean): string => {
  if (end === undefined) return `${counted(job, "agent")} will never end`
  const within = `${span(end)} (${sureOf(range, isGuess || binding === "unknown")})`
  return caps.length === 0
    ? `${counted(job, "agent")} will end in ${within}`
    : `${counted(job, "agent")} would end in ${within}, but ${caps.map(({ text }) => text).join(", and ")}`
}

const sureOf = (range: Advice["range"], isGuess: boolean): string => {
  if (range !== undefined) return `nine times in ten ${span(range.from)} to ${span(range.to)}`
  return isGuess ? "a guess" : "how exactly is not known yet"
}

/** The range of an end. */
export const rangeOf = (end: Duration.Duration, { missedBy }: Pick<Question, "missedBy">): Advice["range"] => {
  if (missedBy === undefined) return undefined
  const millis = Duration.toMillis(end)
  return { from: Duration.millis(Math.round(millis / missedBy)), to: Duration.millis(Math.round(millis * missedBy)) }
}

const sentences = (assumptions: ReadonlyArray<string>): string => assumptions.map((each) => ` ${each}.`).join("")

/** The advice before it is put into words. */
type Found = Omit<Advice, "places" | "text" | "saves"> &
  Partial<Pick<Advice, "places">> & { readonly saves?: Omit<Advice["saves"], "rejections"> }

/** Applies the caps that bind, and adds the words. */
export const said = ({
  asking: _asking,
  isGuess = false,
  maxLearned,
  missedBy: _missedBy,
  price: _price,
  ...found
}: Found & Partial<Question>): Advice => {
  const caps = found.caps.filter(({ agents }) => agents < Math.max(found.agents, found.job))
  const agents = Math.min(found.agents, ...caps.map((cap) => cap.agents))
  const binding = agents < found.agents ? "spending" : found.binding
  const { places = [] } = found
  const saves = {
    promptTokens: 0,
    dollars: undefined,
    ...found.saves,
    agents: Math.max(0, found.job - agents),
    rejections: Harm.rejectionsOf({ ...found, agents }, maxLearned)
  }
  const harms = caps.length === 0 ? found.harms : [...found.harms.filter((each) => each !== Harm.unpaid), Harm.unpaid]
  const advice = { ...found, agents, binding, caps, places, saves, harms }
  const again = `Ask again in ${span(advice.expiresAfter)}.`
  return {
    ...advice,
    text: `${countOf(advice)}. ${endOf(advice, isGuess)}.${Harm.textOf(advice)}${sentences(advice.assumptions)} ${again}`
  }
}

/** The work of an agent of which nothing is known: a short conversation. */
export const usualWork: Forecast.Work = { calls: 5, first: { inputTokens: 10_000, outputTokens: 500 } }

/**
 * The calls that each running agent still makes after the current one: what is left of its work, or half of it if nobody counts
 * what agents have done.
 */
export const remainingOf = (work: Forecast.Work, done = (work.calls - 1) / 2): ReadonlyArray<Forecast.Call> => {
  const left = Math.max(0, Math.round(work.calls - 1 - done))
  return left === 0 ? [] : callsOf(work).slice(1).slice(-left)
}

/** The work in words. */
export const workText = (work: Forecast.Work): string => {
  const { calls, pause = 0 } = work
  const rest = Duration.fromInputUnsafe(pause)
  return calls > 1 && Duration.toMillis(rest) > 0 ? `${callsText(work)} with pauses of ${span(rest)}` : callsText(work)
}

const callsText = (work: Forecast.Work): string => {
  const { calls, first, growth = 0 } = work
  const later = laterOf(work)
  const tokens = (call: Forecast.Call) => thousands(call.inputTokens + call.outputTokens)
  if (calls > 1 && growth > 0) {
    return `${counted(calls, "call")} of ${tokens(first)} tokens at first, each with ${thousands(growth)} more`
  }
  const of =
    calls > 1 && tokens(later) !== tokens(first)
      ? `${tokens(first)}, then ${tokens(later)} tokens`
      : `${tokens(first)} tokens`
  return `${counted(calls, "call")} of ${of}`
}

/** Whether any dimension has a known limit. */
export const hasLimits = (dimensions: Amounts.PerDimension<{ readonly limitPerSecond: number }>): boolean =>
  Object.values(dimensions).some(({ limitPerSecond }) => limitPerSecond < Infinity)
