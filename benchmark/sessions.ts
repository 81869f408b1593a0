/**
 * Replays recorded sessions of coding agents in simulated time: `npm run -s bench -- sessions --file PATH`.
 *
 * Each call repeats the conversation and adds to it, and most of the prompt is read from the provider's cache. Printed are the time until
 * all sessions have ended and the mean end of a session, both relative to a queue that knows what each call needs, in the order of
 * arrival; the calls that were lost; and the part of all requests that was rejected. The provider and that queue share no code with the
 * library.
 *
 *     --file PATH          sessions, as gzipped lines of session,path,start,input,cached,output,api,think,model; required
 *     --limits LIST        tokens a minute and burst as a part of that (400000:1,1000000:1,2000000:0.2)
 *     --told LIST          nothing, limits, and counts: the limits and the tokens of whole prompts (nothing,limits,counts)
 *     --sessions N         how many sessions (60)
 *     --offsets LIST       which ones (0)
 *     --scale N            the factor by which tokens and limits are divided (16)
 *     --lifetime SECONDS   how long a prefix stays cached, with the pauses as recorded; without it for ever, and pauses of at most 10 s
 *     --counts-all         a provider that counts whole prompts, as OpenAI, and not only what is not cached, as Anthropic
 *     --no-headers         a provider that says nothing about its limits
 *     --each               also print one line per call that was lost
 *     --errors LIST        instead, how well the tokens of each call were predicted that it takes from a limit which nobody reaches: with
 *                          messages whose bytes a token differ by up to these parts, such as 0,0.2. Best with --lifetime 300 --scale 4
 *     --caps LIST          instead, how much of caps of so many dollars is used before a call is refused that would fit, where nobody reaches
 *                          a limit: by the prices of Claude Sonnet 5. With --scale 1 tokens and dollars are as recorded
 *     --trees              instead, how full generous caps of jobs get, where each session is a job, and whether one refuses a call
 *     --jobs N             also with so many sessions to a job: the ends of sessions, relative to those without jobs
 *     --processes N        with --errors: how many processes take turns with each conversation, each with a memory of its own (1)
 */
import { Sessions } from "floodgate/testing"
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { gunzipSync } from "node:zlib"
import { percent, thousands } from "../src/domain/words.ts"
import * as Caps from "./sessions/caps.ts"
import * as Errors from "./sessions/errors.ts"
import * as Library from "./sessions/library.ts"
import * as Reference from "./sessions/reference.ts"
import * as Trees from "./sessions/trees.ts"
import { read, type Workload, workloadOf } from "./sessions/trace.ts"

const { values: options } = parseArgs({
  options: {
    file: { type: "string" },
    limits: { type: "string", default: "400000:1,1000000:1,2000000:0.2" },
    told: { type: "string", default: "nothing,limits,counts" },
    sessions: { type: "string", default: "60" },
    offsets: { type: "string", default: "0" },
    scale: { type: "string", default: "16" },
    lifetime: { type: "string" },
    "counts-all": { type: "boolean", default: false },
    "no-headers": { type: "boolean", default: false },
    each: { type: "boolean", default: false },
    errors: { type: "string" },
    caps: { type: "string" },
    trees: { type: "boolean", default: false },
    jobs: { type: "string" },
    processes: { type: "string", default: "1" }
  }
})

const modes = {
  nothing: { limits: false, counts: false },
  limits: { limits: true, counts: false },
  counts: { limits: true, counts: true }
}

const modeOf = (name: string): Pick<Library.Told, "limits" | "counts"> => {
  if (name in modes) return modes[name as keyof typeof modes]
  throw new Error(`--told: expected ${Object.keys(modes).join(", ")}, got ${name}`)
}

/** A positive number. */
const numberOf = (name: string, text: string): number => {
  const value = Number(text)
  if (value > 0) return value
  throw new Error(`--${name}: expected a number above 0, got ${text}`)
}

const times = (value: number, by: number): string => `${thousands(Math.round(value))} (${(value / by).toFixed(2)})`

/** A workload that reaches no limit. */
const unlimited = (recorded: ReturnType<typeof read>, offset: string): Workload =>
  workloadOf(recorded, {
    count: numberOf("sessions", options.sessions),
    offset: Number(offset),
    scale: numberOf("scale", options.scale),
    perMinute: 1e12,
    burst: 1,
    lifetime: options.lifetime === undefined ? Infinity : numberOf("lifetime", options.lifetime),
    countsAll: false
  })

/** Prints how much of caps was used. */
const capped = async (file: string, caps: string): Promise<void> => {
  const recorded = read(file)
  for (const line of Caps.head) console.log(line)
  for (const cap of caps.split(",")) {
    for (const offset of options.offsets.split(",")) {
      const workload = unlimited(recorded, offset)
      for (const told of options.told.split(",")) {
        const run = new Caps.CappedRun(numberOf("caps", cap), workload.maxTokens)
        const show = (line: string) => void (options.each && console.error(line))
        await Library.play(workload, { ...modeOf(told), limits: true, headers: false, writes: true, cap: run }, show)
        console.log(`| $${cap} | ${offset} | ${told === "counts" ? "counts" : "nothing"} | ${run.row} |`)
      }
    }
  }
}

/** Prints how well calls were predicted, for each noise. */
const predictions = async (file: string, noises: string): Promise<void> => {
  const workload = unlimited(read(file), options.offsets.split(",")[0]!)
  const processes = numberOf("processes", options.processes)
  for (const line of Errors.head) console.log(line)
  for (const noise of noises.split(",")) {
    const calls: Array<Library.PredictedCall> = []
    const told = { limits: true, counts: false, headers: false, writes: true, noise: Number(noise), processes }
    await Library.play(workload, { ...told, predicted: (call) => void calls.push(call) }, console.error)
    for (const row of Errors.rowsOf(noise, calls)) console.log(row)
  }
}

/** Prints how full caps of jobs get. */
const jobsUnderCaps = async (file: string): Promise<void> => {
  const { sessions } = Sessions.parse(gunzipSync(readFileSync(file)).toString())
  const { calls, jobs, refused, subAgents, used } = await Trees.play(sessions, Trees.generous)
  console.log(`${jobs} jobs, ${subAgents} sub-agents, ${calls} calls; refused: ${refused.length}`)
  console.log("| cap of a job | the most that one has used |\n| ---: | ---: |")
  for (const [cap, most] of Object.entries(used)) {
    console.log(`| ${cap} ${thousands(Trees.generous[cap as keyof typeof used])} | ${thousands(Math.round(most))} |`)
  }
}

const run = async (file: string): Promise<void> => {
  const recorded = read(file)
  const { "counts-all": countsAll, lifetime } = options
  console.log("| limit, burst | offset | told | seconds | mean end | lost | rejected |")
  console.log("| --- | --- | --- | --- | --- | --- | --- |")
  for (const limit of options.limits.split(",")) {
    const [perMinute = "", burst = "1"] = limit.split(":")
    for (const offset of options.offsets.split(",")) {
      const workload = workloadOf(recorded, {
        count: numberOf("sessions", options.sessions),
        offset: Number(offset),
        scale: numberOf("scale", options.scale),
        perMinute: numberOf("limits", perMinute),
        burst: numberOf("limits", burst),
        lifetime: lifetime === undefined ? Infinity : numberOf("lifetime", lifetime),
        countsAll
      })
      const calls = workload.sessions.flat().length
      const known = Reference.play(workload)
      const cell = `| ${thousands(Number(perMinute))}, ${burst} | ${offset}`
      const row = (told: string, { lost, mean, rejected, seconds }: typeof known) =>
        console.log(
          `${cell} | ${told} | ${times(seconds, known.seconds)} | ${times(mean, known.mean)} | ${lost} of ${calls} | ${percent(rejected / calls)} |`
        )
      row("everything (the queue that knows)", known)
      for (const told of options.told.split(",")) {
        const show = (line: string) => void (options.each && console.error(line))
        const known = { ...modeOf(told), headers: !options["no-headers"] }
        const alone = await Library.play(workload, known, show)
        row(told, alone)
        if (options.jobs === undefined) continue
        const sessionsOfJob = numberOf("jobs", options.jobs)
        const shared = await Library.play(workload, { ...known, sessionsOfJob }, show)
        const ratios = shared.ends.map((end, session) => end / alone.ends[session]!)
        const mean = (shared.mean / alone.mean).toFixed(3)
        row(`${told}, in jobs: ends ${mean}, at most ${Math.max(...ratios).toFixed(3)} of those without`, shared)
      }
    }
  }
}

if (options.file === undefined) {
  console.log("Skipped: the recorded sessions are not part of this repository. Give their file with --file PATH.")
} else if (options.trees) await jobsUnderCaps(options.file)
else if (options.caps !== undefined) await capped(options.file, options.caps)
else if (options.errors === undefined) await run(options.file)
else await predictions(options.file, options.errors)
