/**
 * The metrics that OpenTelemetry's GenAI conventions have for clients, in their names, units and buckets:
 *
 * - `gen_ai.client.token.usage`: tokens of a call, by `gen_ai.token.type` (input, output), operation, provider and models
 * - `gen_ai.client.operation.duration`: seconds of a call, queue, retries and stream included, by the same and by `error.type`
 *
 * Source: https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md (status Development, at
 * version 1.42 of the general conventions)
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import { addSeries } from "../budget/metrics.ts"
import type { Call } from "./models.ts"

export const tokenUsage = {
  id: "gen_ai.client.token.usage",
  unit: "{token}",
  description: "Number of input and output tokens used",
  by: "gen_ai.token.type",
  /** From 1 to 67,108,864, each four times the one before. */
  boundaries: Array.from({ length: 14 }, (_, power) => 4 ** power)
}

export const duration = {
  id: "gen_ai.client.operation.duration",
  unit: "s",
  description: "GenAI operation duration",
  by: "error.type",
  /** From 10 ms to 82 s, each twice the one before. */
  boundaries: Array.from({ length: 14 }, (_, power) => 2 ** power / 100)
}

/**
 * At most this many combinations of attributes have series of their own, because callers name models. All further ones count without
 * their models.
 */
const maxCombinations = 500

/** The GenAI metrics of one registry. */
export class GenAiCounts {
  private readonly context: Context.Context<never>
  private readonly series = new Map<string, (value: number) => void>()

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  /** Counts a call: the value of its attribute (`by`) and the amount. The model that is named last has answered. */
  count(
    metric: typeof tokenUsage,
    { model, operation = "chat", provider }: Pick<Call, "model" | "operation" | "provider">,
    answeredBy: string | undefined,
    value: string | undefined,
    amount: number
  ): void {
    const key = [metric.id, operation, provider, value, model, answeredBy].join("\n")
    const known = this.series.get(key)
    if (known !== undefined) return known(amount)
    if (this.series.size >= maxCombinations && (model !== "" || answeredBy !== undefined)) {
      return this.count(metric, { operation, provider, model: "" }, undefined, value, amount)
    }
    const { boundaries, by, description, id, unit } = metric
    const attributes = {
      unit,
      "gen_ai.operation.name": operation,
      ...(provider !== undefined && { "gen_ai.provider.name": provider }),
      ...(model !== "" && { "gen_ai.request.model": model }),
      ...(answeredBy !== undefined && { "gen_ai.response.model": answeredBy }),
      ...(value !== undefined && { [by]: value })
    }
    const { update } = addSeries(Metric.histogram(id, { description, attributes, boundaries }), this.context)
    this.series.set(key, update)
    update(amount)
  }
}

const kept = new WeakMap<Metric.MetricRegistry, Map<string, GenAiCounts>>()

/** The GenAI metrics in the registry of a context, which all pools there share. */
export const genAiCountsOf = (context: Context.Context<never>): GenAiCounts => {
  const own = Context.pick(Metric.MetricRegistry, Metric.CurrentMetricAttributes)(context)
  const registry = Context.get(own, Metric.MetricRegistry)
  const named = kept.get(registry) ?? new Map<string, GenAiCounts>()
  kept.set(registry, named)
  const key = JSON.stringify(Object.entries(Context.get(own, Metric.CurrentMetricAttributes)).sort())
  const counts = named.get(key) ?? new GenAiCounts(own)
  named.set(key, counts)
  return counts
}
