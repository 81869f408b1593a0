/** The report of `floodgate run`. */
import * as Effect from "effect/Effect"
import { Report } from "@floodgate/lab/internal"
import * as Output from "@floodgate/gateway/internal/output"
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import * as Provenance from "../provenance.ts"
import * as Cost from "./cost.ts"
import type * as Recorder from "./recorder.ts"
import * as Steps from "./steps.ts"

/** The run that a report is about. */
export interface ReportedRun {
  readonly cost: Cost.Cost
  readonly costs: boolean
  readonly limits: Limits.Limits | undefined
  readonly model: string
  readonly planned: number
  readonly provider: string
  readonly recorder: Recorder.RunRecorder
}

/** Writes the report of a run. A run without any call does not overwrite the report of an earlier run. */
export const write = Effect.fnUntraced(function* (path: string, run: ReportedRun) {
  const { limits, model, planned, provider } = run
  const { recorded } = run.recorder
  const agents = [...new Set([...recorded.calls.map(({ call }) => call.agent), ...recorded.outcomes.keys()])].sort()
  if (agents.length === 0) return
  const parts = agents.filter((agent) => agent !== Steps.orchestrator)
  const section = Report.Run.section({
    recorded,
    agents,
    provider,
    limits,
    planned,
    cost: yield* Cost.tile(run.cost, run.costs),
    summary: `${Words.counted(parts.length, "agent")}, ${Words.counted(planned, "call")}; model ${model}`
  })
  const html = Report.Html.render({
    title: "floodgate run",
    intro: "What the agents did and waited for, and what the budget had left.",
    sections: [section],
    provenance: yield* Provenance.of([
      ["model", model],
      ["provider", provider],
      ["limits", limits === undefined ? "none given: learned from the responses" : LimitWords.limitsText(limits)]
    ])
  })
  yield* Output.write(path, html, "--report")
})
