/** Fifty sessions of `floodgate run` that are parked until a window's reset, and a run that is killed meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { message } from "../../../../test/support/httpProvider.ts"
import { serve } from "../../../../test/support/httpServer.ts"
import { root } from "../../../../test/support/modules.ts"

const sessions = 50
const concurrency = 4
const names = Array.from({ length: sessions }, (_, n) => `session-${String(n + 1).padStart(2, "0")}`)

/** A provider whose window is spent until its reset. The reset of each run is told when its first request comes. */
const provider = Effect.gen(function* () {
  const state = {
    /** How long after its first request a run is told that the window begins again, in seconds. */
    seconds: 3_600,
    resetsAt: undefined as number | undefined,
    rejected: [] as Array<string>,
    answered: [] as Array<{ readonly name: string; readonly at: number }>,
    inFlight: 0,
    most: 0
  }
  const server = yield* serve((request, response, body) => {
    if (request.method !== "POST") return void response.writeHead(404).end()
    // Later calls of a session put its answers together.
    const name = /session-\d\d/.exec(body)?.[0] ?? "later"
    state.most = Math.max(state.most, ++state.inFlight)
    response.on("close", () => state.inFlight--)
    const now = Date.now()
    const resetsAt = (state.resetsAt ??= 1_000 * (Math.ceil(now / 1_000) + state.seconds))
    const isOpen = now >= resetsAt
    const headers = {
      "content-type": "application/json",
      "anthropic-ratelimit-unified-status": isOpen ? "allowed" : "rejected",
      "anthropic-ratelimit-unified-representative-claim": "five_hour",
      "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.01" : "1",
      "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000 + (isOpen ? 18_000 : 0))
    }
    if (!isOpen) {
      state.rejected.push(name)
      response.writeHead(429, headers)
      return void response.end(JSON.stringify({ type: "error", error: { type: "rate_limit_error", message: "spent" } }))
    }
    state.answered.push({ name, at: now })
    response.writeHead(200, headers)
    return void response.end(JSON.stringify(message(25, 12, "claude-sonnet-5")))
  })
  return { ...server, state }
})

const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const docs = mkdtempSync(join(tmpdir(), "floodgate-"))
    for (const name of names) writeFileSync(join(docs, `${name}.md`), `This is ${name}.`)
    return docs
  }),
  (docs) => Effect.sync(() => rmSync(docs, { recursive: true }))
)

/** A run of the command as a process of its own. */
const run = (docs: string, url: string) => {
  const args = [
    "run",
    docs,
    "--prompt",
    "Say which one it is.",
    "--agents",
    String(sessions),
    "--out",
    join(docs, "out"),
    "--yes"
  ]
  const child = spawn(
    process.execPath,
    [
      "--conditions=@floodgate/source",
      join(root, "packages/cli/src/bin.ts"),
      ...args,
      "--concurrency",
      String(concurrency),
      "--model",
      "claude-sonnet-5",
      "--wait-for-reset"
    ],
    {
      cwd: root,
      env: { PATH: process.env.PATH, ANTHROPIC_API_KEY: "test", ANTHROPIC_BASE_URL: url },
      stdio: ["ignore", "pipe", "pipe"]
    }
  )
  const said: Array<string> = []
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
  const paused = new Promise<string>((resolve, reject) => {
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        said.push(line)
        if (line.includes("Paused until")) resolve(line)
      })
    }
    void ended.then(() => reject(new Error(said.join("\n"))))
  })
  paused.catch(() => {})
  return { child, ended, paused, said }
}

const running = (docs: string, url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => run(docs, url)),
    ({ child, ended }) =>
      Effect.promise(() => {
        child.kill("SIGKILL")
        return ended
      })
  )

describe("a run of fifty sessions at a spent window", () => {
  it.live("makes each call once after the reset, although it was killed while they were parked", () =>
    Effect.gen(function* () {
      const { state, url } = yield* provider
      const docs = yield* folder
      const first = yield* running(docs, url)
      yield* Effect.promise(() => first.paused)
      first.child.kill("SIGKILL")
      yield* Effect.promise(() => first.ended)
      assert.lengthOf(state.answered, 0)
      // A few found out that the window is spent, and the others were not sent.
      assert.isAtMost(state.rejected.length, concurrency)
      const before = state.rejected.length

      Object.assign(state, { seconds: 4, resetsAt: undefined })
      const second = yield* running(docs, url)
      assert.strictEqual(yield* Effect.promise(() => second.ended), 0, second.said.join("\n"))
      assert.isAtMost(state.rejected.length - before, concurrency)
      const answered = state.answered.filter(({ name }) => name !== "later")
      assert.deepStrictEqual(answered.map(({ name }) => name).toSorted(), names)
      const late = state.answered[0]!.at - state.resetsAt!
      assert.isAtLeast(late, 0)
      assert.isAtMost(late, 10_000)
      assert.isAtMost(state.most, concurrency)
      const results = readFileSync(join(docs, "out", "results.jsonl"), "utf8")
        .trim()
        .split("\n")
      // Each answer was asked for once, those of later calls, too.
      assert.lengthOf(results, state.answered.length)
    }).pipe(Effect.scoped)
  )
})
