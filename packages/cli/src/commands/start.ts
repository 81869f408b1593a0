/**
 * `floodgate start`: the tour. The incident in simulated time, then the same fault and its cure on real documents, over
 * real HTTP with the official SDK.
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Words from "../words.ts"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type { ProviderServer } from "floodgate/testing/server"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import * as Retry from "floodgate/Retry"
import * as Answering from "./run/answering.ts"
import * as Documents from "./run/documents.ts"
import type { Work } from "./run/selection.ts"
import { split } from "./run/split.ts"
import * as Output from "./output.ts"
import * as Print from "./print.ts"
import type * as Pipeline from "./run/pipeline.ts"
import * as Session from "./run/session.ts"
import { modeOf } from "./run.ts"

const agents = 12
const task = {
  prompt: "What must somebody know who runs many agents against one rate limit?",
  model: "claude-sonnet-5",
  maxTokens: 300
}

/** The provider's time passes this much faster, so that the tour is short. */
const timeScale = 4

/** How many times smaller than the incident's 2.472M tokens these documents are, at four bytes a token. */
const scaleOf = (bytes: number): number => bytes / 4 / 2_472_000

/** The incident's limit, scaled to the documents: 60,000 tokens a second and a burst of 200,000. */
const limitsOf = (bytes: number): Limits.Limits => {
  const scale = scaleOf(bytes)
  const burst = Math.ceil(Math.max(200_000 * scale, (1.15 * bytes) / 4 / agents))
  return { inputTokens: { perSecond: Math.ceil(60_000 * scale), burst } }
}

/** What a limit is to a client for which the provider's time passes faster: more a second, the same burst. */
const asSeen = ({ inputTokens }: Limits.Limits): Limits.Limits => ({
  inputTokens: { perSecond: (inputTokens?.perSecond ?? 1) * timeScale, burst: inputTokens?.burst }
})

// -----------------------------------------------------------------------------
// Without
// -----------------------------------------------------------------------------

/** A client as it was in the incident: no budget, and after each rejection exactly one second of waiting, five attempts. */
const unguarded = (baseUrl: string): Layer.Layer<Answering.Services> => {
  const oneSecond = Schedule.spaced(1_000 / timeScale)
  const retrying = Layer.effect(
    LlmProvider,
    Effect.map(LlmProvider, (provider) =>
      LlmProvider.of({
        ...provider,
        create: (params) => Effect.retry(provider.create(params), { schedule: oneSecond, times: 4 })
      })
    )
  ).pipe(Layer.provide(Anthropic.layer({ apiKey: Redacted.make("embedded"), baseUrl })))
  return LlmClient.layerProvider({ retry: Retry.make({ attempts: 1 }) }).pipe(
    Layer.provide(retrying),
    Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layerUnlimited)))
  )
}

// -----------------------------------------------------------------------------
// The tour
// -----------------------------------------------------------------------------

/** Documents that every clone has: the project's own, and those of effect. */
const documents = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folderOf = (name: string) =>
    Effect.map(path.fromFileUrl(new URL(import.meta.resolve(`${name}/package.json`))), path.dirname)
  const own = yield* folderOf("floodgate")
  const effect = yield* folderOf("effect")
  const wanted = [
    ...["README.md", "AGENTS.md", "CONTRIBUTING.md", "docs"].map((name) => path.join(own, name)),
    ...["README.md", "AGENTS.md", "ai-docs"].map((name) => path.join(effect, name))
  ]
  return (yield* Effect.filter(wanted, (each) => fs.exists(each))).map((each) => path.relative("", each))
}).pipe(Effect.orDie)

interface Row {
  readonly name: string
  readonly report: Pipeline.Report
  readonly rejected: number
}

const rowOf = ({ name, rejected, report }: Row): string => {
  const failed = report.missing.length
  const parts = report.parts.length
  return [
    name.padEnd(20),
    `${(report.seconds * timeScale).toFixed(1)} s`.padStart(9),
    rejected.toString().padStart(7),
    `${parts} of ${agents}`.padStart(13),
    (failed === 0 ? "yes" : "no").padStart(10)
  ].join("")
}

const heading = (text: string) => Print.out(`\n== ${text}\n`)

/** Runs the documents against a new provider. */
const race = (
  name: string,
  options: { readonly work: Work; readonly out: string; readonly provider: ProviderServer.Options },
  layerOf: (url: string) => Layer.Layer<Answering.Services>
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const server = yield* Answering.serve(options.provider)
      const report = yield* Session.run({
        work: options.work,
        task,
        out: options.out,
        outIsNamed: false,
        // What 61 calls say is of use where it is drawn over; in a file it would hide the figures.
        mode: (yield* modeOf({ quiet: false, json: false })) === "live" ? "live" : "quiet",
        resumes: false,
        provider: `The simulated provider at ${server.url}; its time passes ${timeScale} times faster than yours`
      }).pipe(Effect.provide(layerOf(server.url)))
      const row: Row = { name, report, rejected: (yield* server.stats).rejected }
      return row
    })
  )

/** How this command is called: from a clone through npm, which has the right Node. */
const self = import.meta.url.endsWith(".ts") ? "npm run -s floodgate --" : "npx floodgate"

/** What to change where nothing can be written: the tour has no flags. */
const startedIn = "folder to start it in"

/** Where the tour leaves what its agents wrote. */
const kept = `${Documents.defaultOut}/start`

/** The tour after the storm, without the command around it. */
const tour = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const paths = yield* documents
  const found = yield* Documents.read(paths, { out: kept, report: undefined })
  const work: Work = { found, chunks: split(found.documents, agents) }
  const bytes = found.documents.reduce((sum, { text }) => sum + text.length, 0)
  const limits = limitsOf(bytes)
  const provider: ProviderServer.Options = {
    limits,
    timeScale,
    rejections: "charged",
    latency: { perOutputTokenMillis: 5 }
  }
  // Of the run without, nothing is kept.
  const out = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
  const { burst, perSecond } = limits.inputTokens!

  yield* heading(
    "The documents of this project and of effect, without Floodgate: retries after exactly 1 s, five attempts"
  )
  const without = yield* race("without", { work, out: path.join(out, "without"), provider }, unguarded)
  yield* heading("The same documents, with Floodgate")
  for (const folder of [path.dirname(kept), kept]) yield* Output.ownFolder(folder, startedIn)
  // What a tour leaves behind is nobody's change.
  yield* Output.replaceOwn(path.join(kept, ".gitignore"), "*\n", startedIn)
  const within = yield* race("with Floodgate", { work, out: kept, provider }, (baseUrl) =>
    Answering.guarded({ limits: asSeen(limits) }, { apiKey: Redacted.make("embedded"), baseUrl })
  )

  const floor = Math.max(0, within.report.inputTokens - burst!) / perSecond!
  yield* heading("What happened")
  yield* Print.out(
    [
      `${agents} agents, ${agents * 5 + 1} calls, over HTTP with the official SDK. The provider grants`,
      `${Words.thousands(perSecond!)} input tokens a second and ${Words.thousands(burst!)} at once (a bucket; rejections count).`,
      `In its own time, which passes ${timeScale} times as fast as yours:`,
      "",
      `${"".padEnd(20)}${"time".padStart(9)}${"429s".padStart(7)}${"agents done".padStart(13)}${"complete".padStart(10)}`,
      rowOf(without),
      rowOf(within),
      `${"no faster than".padEnd(20)}${`${floor.toFixed(1)} s`.padStart(9)}`,
      "",
      `${kept}/summary.md has what the agents wrote. Next: ${self} run YOUR-FOLDER --prompt "..."`
    ].join("\n")
  )
  yield* Session.complete(within.report, false)
}).pipe(Effect.scoped, Output.writing(".", startedIn))

/** The tour as a command: what the storm prints comes first. */
export const startCommand = <E, R>(storm: Effect.Effect<void, E, R>) =>
  Command.make("start", {}, () =>
    Effect.gen(function* () {
      for (const folder of [Documents.defaultOut, kept]) yield* Output.ownFolder(folder, startedIn)
      yield* Output.claimOwn(kept, ["summary.md", "results.jsonl", ".gitignore"], startedIn)
      yield* Print.out("== The incident, in simulated time: 12 agents, one rate limit, and five ways to retry\n")
      yield* storm
      yield* tour
    })
  ).pipe(
    Command.withDescription(
      "The tour, in about half a minute: the incident in simulated time, then real documents over HTTP against a provider that is the bottleneck, without Floodgate and with it."
    ),
    Command.withShortDescription("A tour in about half a minute: start here"),
    Command.withExamples([{ command: "floodgate start", description: "Needs no key and no network" }])
  )
