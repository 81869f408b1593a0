/** The output of `floodgate forecast`: text, JSON or a report. */
import * as Duration from "effect/Duration"
import type * as Forecast from "floodgate/Forecast"
import type * as Limits from "floodgate/Limits"
import type { Report } from "@floodgate/lab/internal"
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import { aligned } from "@floodgate/gateway/internal/text"

/** The forecast under one set of limits. */
export interface TierForecast extends Report.Forecast.LimitsForecast {
  readonly agentsThatHelp: number
}

/** The cost of a workload with a model; undefined if the model has no price. */
export interface ModelCost {
  readonly model: string
  readonly dollars: number | undefined
  readonly asOf: string | undefined
}

/** Facts about sessions, beside the sizes of their calls. */
export interface SessionFacts {
  /** The tokens read from the cache, if nothing was waited for in a pause. */
  readonly cachedTokens: number
  /** Whether that counts against the limits. */
  readonly countsCached: boolean
  /** How long they took when they were recorded; undefined if others are forecast, or if it is not known. */
  readonly recordedSeconds: number | undefined
  readonly models: ReadonlyArray<string>
}

/** The results that are printed. */
export interface Printed {
  /** The agents of the workload, or its sessions. */
  readonly agents: number
  readonly sessions: SessionFacts | undefined
  readonly costs: ReadonlyArray<ModelCost>
  /** How many dollars tiers may spend in a month. */
  readonly monthly: ReadonlyMap<string, number>
  readonly answers: ReadonlyArray<TierForecast>
  /** The limits that were given, if any. */
  readonly limits: Limits.Limits | undefined
  /** The deadline that was given, and the first tier that meets it. */
  readonly deadline: { readonly duration: Duration.Duration; readonly tier: string | undefined } | undefined
}

/** The first call that never fits, if there is one: then the workload never ends. */
export const misfitOf = ({ forecast }: TierForecast): Forecast.Forecast["refused"][number] | undefined =>
  forecast.refused[0]

const seconds = (duration: Duration.Duration): number => Words.round(Duration.toSeconds(duration))

export const span = (duration: Duration.Duration): string => Words.span(Duration.toSeconds(duration))

export const names: Readonly<Record<Forecast.Forecast["binding"], string>> = {
  ...LimitWords.dimensionNames,
  concurrency: "calls at once",
  pause: "a pause",
  agents: "the agents"
}

const waitsJson = ({ p50, p95, p99 }: Forecast.Forecast["waits"]) => ({
  p50Seconds: seconds(p50),
  p95Seconds: seconds(p95),
  p99Seconds: seconds(p99)
})

const toJson = (answer: TierForecast) => {
  const { agentsThatHelp, forecast, tier } = answer
  const misfit = misfitOf(answer)
  const stopped = new Set(forecast.refused.map(({ agent }) => agent))
  return {
    tier,
    seconds: misfit === undefined ? seconds(forecast.duration) : null,
    binding: misfit?.dimension ?? forecast.binding,
    agentsThatHelp: misfit === undefined ? agentsThatHelp : null,
    waits: misfit === undefined ? waitsJson(forecast.waits) : null,
    refused: forecast.refused,
    agents: forecast.agents.map(({ finishesAfter, name, waits }) => ({
      name,
      finishSeconds: stopped.has(name) ? null : seconds(finishesAfter),
      waits: stopped.has(name) ? null : waitsJson(waits)
    }))
  }
}

export const heads = ["limits", "takes", "binds", "agents that help", "waits p50", "p95", "p99"]

const rowOf = (answer: TierForecast): ReadonlyArray<string> => {
  const { agentsThatHelp, forecast, tier } = answer
  const misfit = misfitOf(answer)
  if (misfit !== undefined) return [tier, "never done", names[misfit.dimension], "-", "-", "-", "-"]
  const { p50, p95, p99 } = forecast.waits
  return [
    tier,
    span(forecast.duration),
    names[forecast.binding],
    `${Words.thousands(agentsThatHelp)} of ${Words.thousands(forecast.agents.length)}`,
    ...[p50, p95, p99].map(span)
  ]
}

export const rowsOf = (answers: ReadonlyArray<TierForecast>): ReadonlyArray<ReadonlyArray<string>> => answers.map(rowOf)

export const refusals = (answers: ReadonlyArray<TierForecast>): ReadonlyArray<string> =>
  answers.flatMap((answer) => {
    const { forecast, tier } = answer
    const first = misfitOf(answer)
    return first === undefined
      ? []
      : [
          `${tier}: ${Words.counted(forecast.refused.length, "call")} cannot fit; the first is ${first.agent}'s with ${Words.counted(first.asked, Words.units[first.dimension])} of ${Words.thousands(first.limit)}`
        ]
  })

const costText = ({ dollars }: ModelCost): string => (dollars === undefined ? "no price known" : Words.dollars(dollars))

const cacheText = ({ sessions }: Printed): string =>
  sessions === undefined ? "with nothing read from a cache" : "with what sessions read from the cache"

/** The costs, and the tiers that may not spend so much in a month. */
const costLines = (printed: Printed): ReadonlyArray<string> => {
  const { answers, costs, monthly } = printed
  return [
    `Costs, ${cacheText(printed)}:`,
    ...aligned(costs.map((cost) => [cost.model, costText(cost)])),
    ...answers.flatMap(({ tier }) => {
      const max = monthly.get(tier) ?? Infinity
      const over = costs.filter(({ dollars = 0 }) => dollars > max).map(({ model }) => model)
      return over.length === 0
        ? []
        : [`More than the ${Words.dollars(max)} that the tier ${tier} may spend in a month: ${over.join(", ")}`]
    })
  ]
}

export const summaryOf = ({ agents, answers, sessions }: Printed): string => {
  const { inputTokens, outputTokens, requests } = answers[0]!.forecast.usage
  const calls = `${Words.counted(agents, sessions === undefined ? "agent" : "session")}, ${Words.counted(requests, "call")}`
  const counted = `${calls}, ${Words.thousands(inputTokens)} input and ${Words.thousands(outputTokens)} output tokens`
  if (sessions === undefined) return counted
  const { cachedTokens, countsCached } = sessions
  return `${counted}; ${countsCached ? "of them" : "beside them"} ${Words.thousands(cachedTokens)} read from the cache`
}

/** The notes on sessions below the table. */
export const sessionNotes = ({ sessions }: Printed): ReadonlyArray<string> => {
  if (sessions === undefined) return []
  const { countsCached, models, recordedSeconds } = sessions
  return [
    ...(recordedSeconds === undefined
      ? []
      : [`They took ${span(Duration.seconds(recordedSeconds))} when they were recorded.`]),
    countsCached
      ? "What is read from the cache counts against the limits, as at OpenAI and Gemini."
      : "What is read from the cache does not count against the limits, as at Anthropic.",
    ...(models.length > 1
      ? [`Their ${models.length} models share one set of limits here: ${models.slice(0, 5).join(", ")}.`]
      : [])
  ]
}

export const jsonOf = ({ agents, answers, costs, deadline, monthly, sessions }: Printed) => {
  const { inputTokens, outputTokens, requests: calls } = answers[0]!.forecast.usage
  const met =
    deadline === undefined
      ? {}
      : { deadline: { seconds: Duration.toSeconds(deadline.duration), cheapestTier: deadline.tier ?? null } }
  const facts =
    sessions === undefined
      ? {}
      : {
          cachedTokens: sessions.cachedTokens,
          recordedSeconds: sessions.recordedSeconds ?? null,
          models: sessions.models
        }
  const workload = { agents, calls, inputTokens, outputTokens, ...facts }
  const forecasts = answers.map((answer) => ({ ...toJson(answer), monthlyDollars: monthly.get(answer.tier) ?? null }))
  const priced = costs.map(({ asOf, dollars, model }) => ({ model, dollars: dollars ?? null, asOf: asOf ?? null }))
  return { workload, costs: priced, forecasts, ...met }
}

/** Whether a tier meets the deadline, in a sentence. */
export const met = ({ deadline }: Printed): string | undefined => {
  if (deadline === undefined) return undefined
  const { duration, tier } = deadline
  return tier === undefined
    ? `None of these is enough for ${span(duration)}.`
    : `Enough for ${span(duration)}: ${tier}.`
}

export const limitsTextOf = ({ limits }: Printed): string =>
  limits === undefined
    ? "Anthropic's tiers for Opus, Sonnet and Haiku (August 2026); token buckets"
    : LimitWords.limitsText(limits)

export const text = (printed: Printed): string =>
  [
    `Workload: ${summaryOf(printed)}`,
    `Limits: ${limitsTextOf(printed)}`,
    "",
    ...aligned([heads, ...rowsOf(printed.answers)]),
    ...refusals(printed.answers),
    ...(printed.sessions === undefined ? [] : ["", ...sessionNotes(printed)]),
    ...(met(printed) === undefined ? [] : ["", met(printed)!]),
    "",
    ...costLines(printed),
    "",
    "This assumes that nobody else uses the limits and that no call fails."
  ].join("\n")
