/** `floodgate jobs`: shows the agents and the spending of the jobs of a running gateway, and stops a job. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Asking from "./asking.ts"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Print from "@floodgate/gateway/internal/print"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"
import * as Operating from "./operating.ts"
import * as Words from "floodgate/internal/words"

const flags = {
  job: Argument.String("job").pipe(Argument.withDescription("The id of a job (default: all)"), Argument.optional),
  stop: Flag.Literals("stop", ["agents", "calls"]).pipe(
    Flags.optional("Refuse new agents of the job, or all its calls; calls that run end as usual")
  ),
  resume: Flags.toggle("resume", "Let a stopped job go on"),
  gateway: Asking.gatewayFlag,
  json: Flags.toggle("json", "Print one JSON object")
}

const count = Schema.optionalKey(Schema.Finite)
const spending = { tokens: count, dollars: count, calls: count }
const use = { tokens: Schema.Finite, dollars: Schema.Finite, waitedMillis: Schema.Finite }

/** A job as the status of a gateway has it. */
const ShownJob = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  stop: Schema.String,
  agents: Schema.Finite,
  atOnce: Schema.Finite,
  perHour: Schema.Finite,
  depth: Schema.Finite,
  refused: Schema.Finite,
  caps: Schema.Struct({ agents: count, atOnce: count, perHour: count, depth: count, ...spending }),
  spent: Schema.Struct(spending),
  list: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      parent: Schema.optionalKey(Schema.String),
      depth: Schema.Finite,
      isRunning: Schema.Boolean,
      ...use
    })
  ),
  ...use
})

type JobShown = typeof ShownJob.Type

/** The agents that conversations show, of calls that name none. */
const Inferring = Schema.Struct({
  name: Schema.String,
  caller: Schema.String,
  // Earlier gateways do not say.
  inferredAgents: count
})

const Status = Schema.Struct({ trees: Schema.Array(ShownJob), jobs: Schema.Array(Inferring) })
const Changed = Schema.Struct({ id: Schema.String })

const of = (used: number | string, cap: number | string | undefined): string =>
  cap === undefined ? `${used}` : `${used} of ${cap}`
const inDollars = (amount: number | undefined): string | undefined =>
  amount === undefined ? undefined : Words.dollars(amount)
const waited = (millis: number): string => Words.about(millis / 1_000)

const table = (jobs: ReadonlyArray<JobShown>): string => {
  if (jobs.length === 0) return "No job has called that a rule caps: set capPerJob in a rule of the gateway."
  return aligned([
    [
      "job",
      "id",
      "agents",
      "at once",
      "last hour",
      "deep",
      "tokens",
      "dollars",
      "calls",
      "waited",
      "refused",
      "stopped"
    ],
    ...jobs.map(({ agents, atOnce, caps, depth, id, name, perHour, refused, spent, stop, ...use }) => [
      oneLine(name),
      id,
      of(agents, caps.agents),
      of(atOnce, caps.atOnce),
      of(perHour, caps.perHour),
      of(depth, caps.depth),
      of(Words.compact(spent.tokens ?? use.tokens), caps.tokens && Words.compact(caps.tokens)),
      of(Words.dollars(spent.dollars ?? use.dollars), inDollars(caps.dollars)),
      spent.calls === undefined ? "-" : of(spent.calls, caps.calls),
      waited(use.waitedMillis),
      `${refused}`,
      stop === "none" ? "-" : stop
    ])
  ]).join("\n")
}

/** Who started whom: each agent below the one that started it. An agent whose parent never called stands at the top. */
const tree = ({ list }: JobShown): string => {
  const known = new Set(list.map(({ name }) => name))
  const below = (parent: string | undefined, indent: string): ReadonlyArray<string> =>
    list
      .filter((each) => (each.parent !== undefined && known.has(each.parent) ? each.parent : undefined) === parent)
      .flatMap(({ isRunning, name, tokens, waitedMillis, ...use }) => [
        `${indent}${oneLine(name)}${isRunning ? "" : " (idle)"}: ${Words.counted(tokens, "token")}, ${Words.dollars(use.dollars)}, waited ${waited(waitedMillis)}`,
        ...below(name, `${indent}  `)
      ])
  return below(undefined, "  ").join("\n")
}

const shows = ({ caller, inferredAgents = 0, name }: typeof Inferring.Type): string =>
  `${oneLine(name === caller ? name : `${name} of ${caller}`)}: ${Words.counted(inferredAgents, "agent")} by its conversations; its calls name none, so no cap on agents counts them.`

/** The command. */
export const jobsCommand = Command.make(
  "jobs",
  flags,
  Effect.fnUntraced(function* ({ gateway, job, json, resume, stop }) {
    const address = yield* Asking.addressOf(gateway)
    const id = Option.getOrUndefined(job)
    if (resume && Option.isSome(stop)) return yield* Exit.failure("usage", "Say either --stop or --resume")
    if (resume || Option.isSome(stop)) {
      if (id === undefined)
        return yield* Exit.failure(
          "usage",
          "Say which job, as in `floodgate jobs 5f0c2a9d41b7e836 --stop agents`; `floodgate jobs` lists them"
        )
      yield* Operating.change(address, "jobs", { job: id, stop: Option.getOrElse(stop, () => "none") }, Changed)
    }
    const { jobs, trees } = yield* Operating.read(address, "status", Status)
    const shown = id === undefined ? trees : trees.filter((each) => each.id === id)
    if (id !== undefined && shown.length === 0)
      return yield* Exit.failure(
        "usage",
        `The gateway shows no job with the id "${oneLine(id)}": list them without an id`
      )
    const inferred = id === undefined ? jobs.filter(({ inferredAgents = 0 }) => inferredAgents > 0) : []
    if (json) return yield* Print.json({ jobs: shown, inferred }, 2)
    yield* Print.out(table(shown))
    for (const each of inferred) yield* Print.out(shows(each))
    if (id !== undefined) yield* Print.out(`\n${tree(shown[0]!)}`)
  })
).pipe(
  Command.withDescription(
    "Shows the jobs of a running gateway that its rules cap (capPerJob): how many agents each has, at once and in the last hour, how deep they start each other, how many were refused, and what they have used. With an id it shows who started whom, and what each agent has used through this gateway. With --stop it refuses a job's new agents or all its calls, for all gateways that share the job; --resume undoes that. Changes need the admin token of the gateway in FLOODGATE_GATEWAY_ADMIN_TOKEN; a gateway with a token reads it from FLOODGATE_GATEWAY_TOKEN."
  ),
  Command.withExamples([
    { command: "floodgate jobs", description: "The jobs of the gateway on this machine" },
    {
      command: "floodgate jobs 5f0c2a9d41b7e836 --stop agents",
      description: "Lets its agents go on, and no new ones start"
    },
    { command: "floodgate jobs 5f0c2a9d41b7e836 --resume", description: "Lets it start agents again" }
  ])
)
