/** Questions about agents in plain figures, as they come in a query, as flags, or from a model. */
import type * as Forecast from "../Forecast.ts"
import * as Input from "../domain/input/checks.ts"
import { usualWork } from "./advice.ts"
import type { AdviseOptions } from "./models.ts"

/** A question in plain figures. */
export interface AdviceFigures extends Pick<
  AdviseOptions,
  "model" | "pool" | "account" | "agents" | "running" | "asker" | "askingTokens"
> {
  /** The name of earlier agents that did the same, which may end with `*`. */
  readonly like?: string | undefined
  /** The names of the places where the agents may call the model, separated by commas. */
  readonly places?: string | undefined
  /** The calls of each agent, and their sizes; what is left out is as usual. */
  readonly calls?: number | undefined
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  /** The sizes of an agent's first call, if it differs. */
  readonly firstInputTokens?: number | undefined
  readonly firstOutputTokens?: number | undefined
  /** The tokens that the prompt of each call adds to the one before. */
  readonly growthTokens?: number | undefined
  /** The part of the prompt before that is read from the cache and does not count, from 0 to 1. */
  readonly cachedShare?: number | undefined
  /** How long the provider works on a call. */
  readonly secondsPerCall?: number | undefined
  /** How many seconds an agent waits for its tools between two calls. */
  readonly pause?: number | undefined
}

/** The names of the figures that are texts, and of those that are numbers. */
export const texts = ["model", "pool", "account", "asker", "like", "places"] as const
export const numbers = [
  "agents",
  "running",
  "calls",
  "inputTokens",
  "outputTokens",
  "firstInputTokens",
  "firstOutputTokens",
  "growthTokens",
  "cachedShare",
  "secondsPerCall",
  "pause",
  "askingTokens"
] as const

/** The figures that say what an agent does. */
const sizes = numbers.filter((name) => name !== "agents" && name !== "running" && name !== "askingTokens")

/** The work of each agent. Figures that are left out are the usual ones. */
const workOf = (figures: AdviceFigures): Forecast.Work => {
  const usual = usualWork.first
  const { calls = usualWork.calls, inputTokens = usual.inputTokens, outputTokens = usual.outputTokens } = figures
  const { firstInputTokens = inputTokens, firstOutputTokens = outputTokens, secondsPerCall } = figures
  const { cachedShare, growthTokens: growth } = figures
  // With a growth, the first prompt says how large the second is, unless both are stated.
  const areStated = figures.firstInputTokens !== undefined && figures.inputTokens !== undefined
  const laterTokens = growth === undefined || areStated ? inputTokens : firstInputTokens + growth
  const duration = secondsPerCall === undefined ? undefined : 1_000 * secondsPerCall
  return {
    calls,
    first: { inputTokens: firstInputTokens, outputTokens: firstOutputTokens, duration },
    later: { inputTokens: laterTokens, outputTokens, duration },
    growth,
    cachedShare,
    pause: figures.pause === undefined ? undefined : 1_000 * figures.pause
  }
}

/** The question of these figures. */
export const questionOf = (operation: string, figures: AdviceFigures): AdviseOptions => {
  const { account, agents, asker, askingTokens, like, model, pool, running } = figures
  const stated = sizes.find((name) => figures[name] !== undefined)
  if (like !== undefined && stated !== undefined) {
    Input.wrong(`${operation}: ${stated}`, "does not apply, because like says what each agent does")
  }
  const each = stated === undefined ? like : workOf(figures)
  const places = figures.places?.split(",").map((name) => name.trim())
  return { account, agents, asker, askingTokens, each, model, places, pool, running }
}
