import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"

const fixture = (name: string): string => join(import.meta.dirname, "../fixtures", name)

/** A child process, which is killed at the end of the test. */
const start = (name: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--conditions=@floodgate/source", fixture(name), ...args], {
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** The lines that a process prints, one for each pull. */
const reader = (child: ChildProcess) => {
  const lines: Array<string> = []
  let rest = ""
  let wake: (() => void) | undefined
  child.stdout!.on("data", (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split("\n")
    rest = parts.pop()!
    lines.push(...parts)
    wake?.()
  })
  return Effect.callback<string>((resume) => {
    const take = () => {
      const line = lines.shift()
      if (line !== undefined) resume(Effect.succeed(line))
    }
    wake = take
    take()
  })
}

const exitOf = (child: ChildProcess) =>
  Effect.callback<readonly [code: number | null, signal: string | null]>((resume) => {
    const done = () => resume(Effect.succeed([child.exitCode, child.signalCode]))
    if (child.exitCode !== null || child.signalCode !== null) done()
    else child.once("exit", done)
  })

describe("a provider that is killed in the middle of 100 streams", () => {
  // The processes, the sockets and the clock are real.
  it.live("leaves no reservation, no permit, no rejection unhandled and no process alive", () =>
    Effect.gen(function* () {
      const provider = yield* start("endlessProvider.ts")
      const port = yield* reader(provider)
      const client = yield* start("hundredStreams.ts", `http://127.0.0.1:${port}`)
      const line = reader(client)
      assert.strictEqual(yield* line, "running")
      provider.kill("SIGKILL")
      const report = JSON.parse(yield* line) as Record<string, unknown>
      const { usedOutput, ...rest } = report
      assert.deepStrictEqual(rest, {
        tags: ["StreamInterrupted"],
        retryable: 0,
        inFlight: 0,
        queued: 0,
        usedRequests: 100,
        // The 25 tokens of each `message_start`, in place of the estimated 1,000.
        usedInput: 2_500,
        unhandled: 0
      })
      // At least what each stream had received before the last one began, and not the 500 that were reserved for each.
      assert.isAtLeast(usedOutput as number, 1_100)
      assert.isBelow(usedOutput as number, 50_000)
      assert.deepStrictEqual(yield* exitOf(client), [0, null])
    }).pipe(Effect.timeout("50 seconds"))
  )
})
