/**
 * Agents of real packages at work through the gateway, which records them; then the recording is played in the lab under the same limits.
 *
 * `FLOODGATE_CLAUDE` names the binary of Claude Code, which then takes part. `FLOODGATE_MINUTES=30` lets them work for about half an hour
 * instead of one minute, and `FLOODGATE_RECORDING` names the file to keep.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Race, Recorded, Scenarios, Strategies } from "@floodgate/lab/internal"
import { Stepwise } from "floodgate/internal"
import { ProviderServer } from "floodgate/testing/server"
import { spawn } from "node:child_process"
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { agents, script, type Effort } from "./sessions.ts"

const bin = join(import.meta.dirname, "../../packages/cli/src/bin.ts")
const claude = process.env["FLOODGATE_CLAUDE"]
const minutes = Number(process.env["FLOODGATE_MINUTES"] ?? 1)
const effort: Effort = minutes > 1 ? { turns: Math.round(2 * minutes), pause: [5, 35] } : { turns: 5, pause: [0.5, 2] }
/** Together they need about as long under this limit as the longest of them needs alone. */
const limit = { perMinute: minutes > 1 ? 50_000 : 80_000, burst: 200_000 }
const flags = ["--input-tokens-per-minute", String(limit.perMinute), "--burst", String(limit.burst)]
/** In the short form, a single wait of three seconds is 8 %. */
const within = minutes > 1 ? 0.1 : 0.2
const latency = { baseMillis: 1_500, perInputTokenMillis: 0, perOutputTokenMillis: 15 }
const key = "sk-a-secret-key-0123456789"

const command = (cwd: string, ...args: ReadonlyArray<string>) =>
  spawn(process.execPath, ["--conditions=@floodgate/source", bin, ...args], {
    cwd,
    env: { PATH: process.env["PATH"]!, HOME: cwd },
    stdio: ["ignore", "pipe", "pipe"]
  })

/** Starts a gateway that records, and returns its URL when it listens. */
const gateway = Effect.fnUntraced(function* (folder: string, provider: string) {
  const args = ["--port", "0", "--upstream", `anthropic=${provider}`, "--record", "sessions.csv", ...flags]
  const child = command(folder, "gateway", ...args)
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()))
  const url = yield* Effect.promise(
    () =>
      new Promise<string>((resolve, reject) => {
        let said = ""
        const hear = (chunk: Buffer) => {
          said += String(chunk)
          const [, found] = /listening on (http:\/\/\S+)\n/.exec(said) ?? []
          if (found !== undefined) resolve(found)
        }
        child.stdout.on("data", hear)
        child.stderr.on("data", hear)
        child.on("close", () => reject(new Error(said)))
      })
  )
  const close = Effect.promise(() => {
    child.kill("SIGTERM")
    return ended
  })
  yield* Effect.addFinalizer(() => close)
  return { url, close }
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "floodgate-sessions-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Plays a recording with the library as the gateway uses it: it knows the limits, and estimates the tokens. */
const played = ({ latency, sessions }: Recorded.RecordedSessions) => {
  const limits = { inputTokens: { ...limit, window: "bucket" as const } }
  const scenario = Scenarios.fromSessions({ sessions, latency, limits })
  const strategy = Strategies.all.find(({ name }) => name === "floodgate-estimates")!
  return Effect.map(Race.run(scenario, strategy), ({ result }) => result)
}

describe("agents at work, recorded and played again", () => {
  it(
    "take about as long in the lab as they took, and leave neither text nor names in the file",
    () =>
      Effect.gen(function* () {
        const cwd = yield* folder
        const provider = yield* ProviderServer.make({
          limits: { inputTokens: limit },
          latency,
          cache: "breakpoints",
          outputTokens: (_, random) => Math.round(60 + 180 * random),
          reply: script(effort)
        })
        const { close, url } = yield* gateway(cwd, provider.url)
        const working = agents(claude)
        const outcomes = yield* Effect.promise(() =>
          Promise.allSettled(working.map(({ run }) => run({ ...effort, url, key })))
        )
        yield* close
        const file = join(cwd, "sessions.csv")
        const kept = process.env["FLOODGATE_RECORDING"]
        if (kept !== undefined) copyFileSync(file, kept)
        for (const [index, outcome] of outcomes.entries()) {
          if (outcome.status === "rejected") assert.fail(`${working[index]!.name}: ${String(outcome.reason)}`)
        }
        const text = readFileSync(file, "utf8")
        assert.notMatch(text, /sdk-|langchain|mastra|sk-a|helper|work/i)
        const recorded = Stepwise.drained(Recorded.parseSteps(text))
        assert.strictEqual(recorded.sessions.length, working.length, "each agent has a session of its own")
        const { rejected } = yield* provider.stats
        const [seconds, meanEnd] = [recorded.seconds!, recorded.meanEndSeconds!]
        const result = yield* played(recorded)
        console.log(
          [
            `${working.length} sessions, ${text.split("\n").length - 2} calls, ${rejected} 429s`,
            `recorded: ${seconds.toFixed(1)} s, mean end ${meanEnd.toFixed(1)} s`,
            `played: ${result.makespanSeconds.toFixed(1)} s, mean end ${result.meanEndSeconds!.toFixed(1)} s`
          ].join("\n")
        )
        assert.strictEqual(result.failedCalls, 0)
        assert.closeTo(result.makespanSeconds / seconds, 1, within)
        assert.closeTo(result.meanEndSeconds! / meanEnd, 1, within)
      }).pipe(Effect.scoped, Effect.runPromise),
    Math.max(300_000, minutes * 4 * 60_000)
  )
})
