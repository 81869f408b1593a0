/** The savings of the advised number of agents, and the harm of all of them at once. Pure. */
import * as Duration from "effect/Duration"
import { callsOf } from "../budget/forecast/work.ts"
import type * as Budget from "../Budget.ts"
import * as PriceTable from "../domain/prices.ts"
import { counted, dollars, thousands } from "../domain/words.ts"
import type * as Forecast from "../Forecast.ts"
import { maxGrowthCalls } from "../pacing/window.ts"
import type { Advice } from "./models.ts"
import { allCallsOf } from "./subAgents.ts"

type Harm = Advice["harms"][number]
type Saves = Advice["saves"]

/** A provider forgets a prompt that was not used for this long, unless its lifetime was paid for. */
const keptMillis = 300_000

/** Prompts that the provider has forgotten when their agent calls again. */
export interface ForgottenPrompts {
  readonly calls: number
  readonly tokens: number
}

/** Finds the calls of a forecast that come so late that their prompt is no longer cached. */
const forgottenIn = ({ agents, calls }: Forecast.Forecast, work: Forecast.Work): ForgottenPrompts => {
  const each = callsOf(work)
  const own = new Set(agents.map(({ name }) => name))
  const last = new Map<string, { readonly index: number; readonly endsAt: number }>()
  let [count, tokens] = [0, 0]
  for (const { admittedAfter, agent, finishesAfter } of calls) {
    // Sub-agents begin conversations of their own.
    if (!own.has(agent)) continue
    const { endsAt = Infinity, index = -1 } = last.get(agent) ?? {}
    const { cacheReadTokens = 0 } = each[index + 1] ?? {}
    if (cacheReadTokens > 0 && Duration.toMillis(admittedAfter) - endsAt > keptMillis) {
      count++
      tokens += cacheReadTokens
    }
    last.set(agent, { index: index + 1, endsAt: Duration.toMillis(finishesAfter) })
  }
  return { calls: count, tokens }
}

/** The price of prompts that are written into the cache instead of being read there. */
const priceOf = ({ calls, tokens }: ForgottenPrompts, price: PriceTable.Price | undefined): number | undefined => {
  if (price === undefined || calls === 0) return undefined
  const all = { inputTokens: 0, outputTokens: 0 }
  const each = tokens / calls
  const written = PriceTable.cost(price, { ...all, cacheCreationTokens: each })
  return calls * Math.max(0, written - PriceTable.cost(price, { ...all, cacheReadTokens: each }))
}

const none: ForgottenPrompts = { calls: 0, tokens: 0 }

/** The savings of fewer agents at once. */
export const savesOf = (
  { agents, job }: Pick<Advice, "agents" | "job">,
  work: Forecast.Work,
  price: PriceTable.Price | undefined,
  all: Forecast.Forecast | undefined,
  advised: Forecast.Forecast
): Omit<Saves, "rejections"> => {
  const [late, early] = all === undefined ? [none, none] : [forgottenIn(all, work), forgottenIn(advised, work)]
  const more = { calls: Math.max(0, late.calls - early.calls), tokens: Math.max(0, late.tokens - early.tokens) }
  return { agents: Math.max(0, job - agents), promptTokens: more.tokens, dollars: priceOf(more, price) }
}

/** How many calls in flight a pool takes, if its rejections have shown that. */
export const maxLearned = ({ known }: Pick<Budget.PoolStatus, "known">): number | undefined =>
  known.find(({ from, what }) => what === "inFlight" && from === "rejections")?.value

/**
 * The rejections that only all agents at once would get: the pool keeps to what it has learned, and tries one call more after so many
 * that found it full.
 */
export const rejectionsOf = (
  { agents, each, job, running }: Pick<Advice, "agents" | "each" | "job" | "running">,
  max = Infinity
): number =>
  running + agents <= max && max < running + job ? Math.floor((job * allCallsOf(each).length) / maxGrowthCalls) : 0

/** The harm that many agents at once do in a pool, as far as it is known. */
export const harmsOf = (status: Pick<Budget.PoolStatus, "known" | "measured">): ReadonlyArray<Harm> => {
  const { measured } = status
  const max = maxLearned(status)
  const server: ReadonlyArray<Harm> =
    measured === undefined
      ? []
      : [{ by: "server", text: "the server refuses no call, so those beyond its size wait in it until they time out" }]
  const inFlight: ReadonlyArray<Harm> =
    max === undefined
      ? []
      : [
          {
            by: "inFlight",
            text: `the provider refuses calls beyond ${Math.floor(max)} at once, which nobody stated`
          }
        ]
  return [...server, ...inFlight]
}

/** The harm of agents that nobody can pay for. */
export const unpaid: Harm = { by: "spending", text: "all of them would use up what is left before they have ended" }

/** The savings and the harm in words. */
export const textOf = ({ harms, saves }: Pick<Advice, "harms" | "saves">): string => {
  if (saves.agents === 0) return ""
  const cost = saves.dollars === undefined ? "" : ` (${dollars(saves.dollars)})`
  const cached =
    saves.promptTokens === 0
      ? ""
      : ` All at once would send ${thousands(saves.promptTokens)} tokens of prompts again that are no longer cached${cost}.`
  const harm = harms.length === 0 ? "" : ` All at once would do harm: ${harms.map(({ text }) => text).join("; ")}.`
  const rejected =
    saves.rejections === 0 ? "" : ` All at once would be rejected about ${counted(saves.rejections, "more time")}.`
  return cached + harm + rejected
}
