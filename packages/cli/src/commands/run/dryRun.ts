/** `floodgate run --dry-run`: shows what a run would send. */
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import type * as Limits from "floodgate/Limits"
import * as Words from "floodgate/internal/words"
import { sizeText } from "@floodgate/gateway/internal/files"
import * as Print from "@floodgate/gateway/internal/print"
import * as Redis from "@floodgate/gateway/internal/redis"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"
import * as Tiers from "../tiers.ts"
import * as Answering from "./answering.ts"
import * as Cost from "./cost.ts"
import * as Documents from "./documents.ts"
import * as Pipeline from "./pipeline.ts"
import * as Plan from "./plan.ts"
import type { Assignment } from "./selection.ts"
import type * as Steps from "./steps.ts"
import * as Store from "./store.ts"
import * as View from "./view.ts"
import * as Workload from "./workload.ts"

/** The options of the run. */
export interface Options {
  readonly work: Assignment
  readonly task: Steps.Task
  readonly out: string
  readonly limits: Limits.Limits | undefined
  readonly concurrency: number | undefined
  readonly cost: Cost.Cost
  readonly json: boolean
}

/** The limits under which the time is predicted: the given ones, or those that the provider may have. */
const tiersOf = (limits: Limits.Limits | undefined, isEmbedded: boolean): ReadonlyArray<Tiers.Tier> => {
  if (limits !== undefined) return [{ name: "the limits given", limits }]
  if (isEmbedded) return [{ name: "the limits of the embedded provider", limits: Answering.embeddedLimits }]
  return Tiers.anthropic.map(({ limits, name }) => ({ name: `Anthropic's tier ${name}`, limits }))
}

const filesOf = ({ found: { documents } }: Assignment) =>
  documents.map(({ path, text }) => {
    const bytes = Buffer.byteLength(text)
    return { path, bytes, tokens: Workload.tokensOf(bytes) }
  })

/** Shows the plan of a run. It reads the documents and the results of earlier runs; it writes and sends nothing. */
export const show = Effect.fnUntraced(function* ({ concurrency, cost, json, limits, out, task, work }: Options) {
  const { join } = yield* Path.Path
  const { chunks, found } = work
  const credentials = yield* Answering.credentials
  const paths = Documents.filesIn(join, out)
  const { results } = yield* Store.load(paths)
  const plan = Plan.make(task, chunks, Pipeline.knownOf({ task, chunks, finished: results }))
  const provider = credentials === undefined ? "the embedded simulated provider" : Redis.shown(credentials.baseUrl)
  const files = filesOf(work)
  const times = yield* Effect.forEach(tiersOf(limits, credentials === undefined), ({ limits, name }) =>
    Effect.map(Plan.secondsUnder(plan, { limits, concurrency }), (seconds) => ({ limits: name, seconds }))
  )
  const dollars = Cost.sumOf(cost.price, plan.left)

  if (json) {
    return yield* Print.json({
      event: "plan",
      provider,
      model: task.model,
      files,
      leftOut: found.leftOut.map(({ path, why }) => ({ path, why: Documents.skipReasonText(why) })),
      agents: chunks.length,
      calls: plan.calls,
      known: plan.known,
      inputTokens: plan.inputTokens,
      outputTokens: plan.outputTokens,
      dollars: dollars ?? null,
      pauses: Cost.pausesOf(cost, dollars),
      times: times.map(({ limits, seconds }) => ({ limits, seconds: seconds ?? null }))
    })
  }
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0)
  const rows = files.map(({ bytes, path, tokens }) => [
    Words.thousands(bytes).padStart(10),
    Words.thousands(tokens).padStart(12),
    oneLine(path)
  ])
  const known = plan.known === 0 ? "" : `; ${Words.counted(plan.known, "answer is", "answers are")} in ${paths.results}`
  yield* Print.out(
    [
      `Would go to ${provider}, model ${task.model}:`,
      "",
      ...aligned([["     bytes", "about tokens", "file"], ...rows]),
      "",
      ...found.leftOut.map(({ path, why }) => `Left out: ${oneLine(path)} (${Documents.skipReasonText(why)})`),
      ...(found.leftOut.length === 0 ? [] : [""]),
      `${Words.counted(files.length, "file")}, ${sizeText(total)}; ${Words.counted(chunks.length, "agent")}, ${Words.counted(plan.calls, "call")}${known}`,
      `At most about ${Words.thousands(plan.inputTokens)} input and ${Words.thousands(plan.outputTokens)} output tokens`,
      Cost.planned(cost, dollars),
      ...times.map(({ limits, seconds }) =>
        seconds === undefined
          ? `Never done under ${limits}: a call is too large for them; use more agents`
          : `At most about ${View.clock(seconds)} under ${limits}`
      ),
      "",
      "Nothing was sent, and nothing was written."
    ].join("\n")
  )
})
