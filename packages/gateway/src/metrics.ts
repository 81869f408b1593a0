/** The text of `/metrics`: what the registry counts, which pools pause now, and how full the jobs are. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import type * as Budget from "floodgate/Budget"
import type { JobCapFigures, JobTrees } from "./trees.ts"

export const contentType = "text/plain; version=0.0.4; charset=utf-8"

/** More pools than an alert can name. */
const maxPools = 1_000

const escaped = (label: string): string => label.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")

const name = "floodgate_gateway_pool_paused"

/** A gauge that is 1 while a pool pauses. Pools come and go, so it is read when somebody asks. */
const pauses = ({ pools }: Budget.BudgetStatus): string =>
  [
    `# HELP ${name} Whether a pool sends nothing now, by pool`,
    `# TYPE ${name} gauge`,
    ...Object.entries(pools)
      .slice(0, maxPools)
      .map(([pool, { pause }]) => `${name}{pool="${escaped(pool)}"} ${pause === undefined ? 0 : 1}`),
    ""
  ].join("\n")

const part = "floodgate_gateway_job_cap_part"
const refusals = "floodgate_gateway_agents_refused"

/** The caps of jobs. Jobs are not named, because there may be any number of them. */
const jobs = ({ refused, used }: JobCapFigures): string =>
  [
    `# HELP ${part} The largest part of a cap that a running job has used, by cap`,
    `# TYPE ${part} gauge`,
    ...used.map(([cap, value]) => `${part}{cap="${cap}"} ${value}`),
    `# HELP ${refusals} New agents that a cap of their job has refused`,
    `# TYPE ${refusals} counter`,
    `${refusals} ${refused}`,
    ""
  ].join("\n")

/** Reads all metrics in Prometheus' format. */
export const exposition = (
  context: Context.Context<never>,
  { status }: Budget.TokenBudget["Service"],
  trees: JobTrees
): Effect.Effect<string> =>
  Effect.map(status, (now) => {
    const text = PrometheusMetrics.formatUnsafe(context)
    return `${text}${text.endsWith("\n") || text === "" ? "" : "\n"}${pauses(now)}${jobs(trees.figures)}`
  })
