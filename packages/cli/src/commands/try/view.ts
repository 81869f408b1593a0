/** The view of the duel: both sides beside each other, under one clock. Pure. */
import * as Words from "floodgate/internal/words"
import type { ProviderSim } from "floodgate/testing"
import type { Matrix } from "@floodgate/lab/internal"
import * as View from "../run/view.ts"
import { aligned, fit } from "@floodgate/gateway/internal/text"
import type { DuelAgent, Side } from "./duel.ts"

/** The state of a side at a moment. */
export interface SideView {
  readonly name: string
  readonly agents: Side["agents"]
  readonly stats: ProviderSim.Stats
  readonly waits: ReadonlyMap<string, number>
}

const nameWidth = 10
const barWidth = 10

/** Counts the calls of a side. After a failed call, the agent's further calls count as lost as well. */
export const countsOf = ({ agents }: Pick<SideView, "agents">) => {
  let calls = 0
  let done = 0
  let lost = 0
  let seconds = 0
  for (const agent of agents.values()) {
    calls += agent.calls
    done += agent.done
    if (agent.failure !== undefined) lost += agent.calls - agent.done
    seconds = Math.max(seconds, agent.endedAt ?? 0)
  }
  return { calls, done, lost, seconds }
}

const doing = ({ endedAt, failure }: DuelAgent, waited: number | undefined): string => {
  if (failure !== undefined) return `lost: ${failure}`
  if (endedAt !== undefined) return `done ${View.clock(endedAt)}`
  return waited === undefined ? "asks" : `waits ${View.clock(waited)}`
}

const cell = (agent: DuelAgent, waited: number | undefined): string =>
  `${View.bar(agent.done / agent.calls, barWidth)} ${agent.done}/${agent.calls} ${doing(agent, waited)}`

const total = (look: SideView): string => {
  const { calls, done, lost } = countsOf(look)
  const gone = lost === 0 ? "" : `, ${lost} lost`
  return `${done} of ${calls}${gone}, 429s: ${look.stats.rejected}`
}

/** The picture, within the size of the terminal. */
export const draw = (
  looks: ReadonlyArray<SideView>,
  seconds: number,
  { columns, rows }: { readonly columns: number; readonly rows: number }
): ReadonlyArray<string> => {
  const width = Math.max(barWidth, Math.floor((columns - 1 - nameWidth) / looks.length))
  const row = (name: string, cells: ReadonlyArray<string>): string =>
    name.padEnd(nameWidth) + cells.map((one) => fit(one, width - 1).padEnd(width)).join("")
  // A picture that is higher than the terminal cannot be redrawn in place.
  const names = [...looks[0]!.agents.keys()].slice(0, Math.max(0, rows - 3))
  return [
    row(
      "",
      looks.map(({ name }) => name)
    ),
    ...names.map((name) =>
      row(
        name,
        looks.map(({ agents, waits }) => cell(agents.get(name)!, waits.get(name)))
      )
    ),
    row(View.clock(seconds), looks.map(total))
  ].map((line) => fit(line.trimEnd(), columns - 1))
}

/** Colours the lost calls in a line of the picture. */
export const painted = (line: string, paint: Matrix.Paint): string =>
  line.replaceAll(/[█░]+ \d+\/\d+ lost: \S+|\d+ lost/g, (lost) => paint(lost, "lost"))

/** The progress in one line, for output that cannot be redrawn. */
export const plain = (looks: ReadonlyArray<SideView>, seconds: number): string =>
  `${View.clock(seconds)}  ${looks.map((look) => `${look.name}: ${total(look)}`).join("; ")}`

/** The facts of a result that are the same for both sides. */
interface Facts {
  /** Whether all agents have ended. */
  readonly isOver: boolean
  /** The fewest seconds in which the provider grants what Floodgate's side has used. */
  readonly atLeast: number
  readonly limit: { readonly perMinute: number; readonly burst: number }
}

/** The result: the difference in one line, a table, and how it was made. */
export const summary = (looks: ReadonlyArray<SideView>, { atLeast, isOver, limit }: Facts): ReadonlyArray<string> => {
  const counts = looks.map((look) => ({ ...look, ...countsOf(look) }))
  const answered = counts.map(({ calls, done }) => `${done} of ${calls}`)
  const rows = counts.map(({ name, seconds, stats }, index) => [
    name,
    answered[index]!,
    seconds === 0 ? "" : Words.seconds(seconds),
    `${stats.rejected}`
  ])
  return [
    `Without Floodgate ${answered[0]} calls were answered, with Floodgate ${answered[1]}${isOver ? "." : ", so far."}`,
    "",
    ...aligned([
      ["", "answered", "ended after", "429s"],
      ...rows,
      ...(isOver ? [["the least possible", "", Words.seconds(atLeast), ""]] : [])
    ]),
    "",
    `@anthropic-ai/sdk over HTTP, as it is and with Floodgate's middleware. Floodgate was told nothing: it learned the limit from the answers. Each side has a simulated provider of its own, which allows ${Words.compact(limit.perMinute)} input tokens a minute and ${Words.compact(limit.burst)} at once. A call that fails after the SDK's two retries ends its agent.`
  ]
}
