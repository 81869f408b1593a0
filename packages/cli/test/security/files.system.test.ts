import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { ProviderServer } from "floodgate/testing/server"
import { filesIn, folder, run } from "../support/command.ts"

// The command runs in a process of its own, so that it can be killed if it does not end, and has its own working folder.

const args = (...more: ReadonlyArray<string>) => ["run", "docs", "--prompt", "Say what it is", "--agents", "1", ...more]

describe("a hostile folder", { timeout: 120_000 }, () => {
  it.live("whose lock is a broken link is refused by name, without a busy loop", () =>
    Effect.gen(function* () {
      // Regression: the lock was tried again and again, without an end, and the memory grew to gigabytes.
      const { inside, root } = yield* folder
      Fs.mkdirSync(Path.join(inside, "out"))
      Fs.symlinkSync("nowhere", Path.join(inside, "out/run.lock"))
      const ran = yield* Effect.timeout(run(inside, args("--out", "out")), "60 seconds")
      assert.strictEqual(ran.code, 3)
      assert.strictEqual(ran.stderr, "floodgate: cannot write out/run.lock: it is a link; choose another --out\n")
      assert.deepStrictEqual(filesIn(root), ["inside/docs/one.txt"])
    })
  )

  it.live("that is a link is not entered unless a flag names it", () =>
    Effect.gen(function* () {
      const { inside, root } = yield* folder
      const { url } = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })
      const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: url }
      Fs.mkdirSync(Path.join(root, "outside"))
      Fs.symlinkSync(Path.join(root, "outside"), Path.join(inside, "floodgate-out"))
      const ran = yield* run(inside, args(), env)
      assert.strictEqual(ran.code, 3, ran.stderr)
      assert.include(ran.stderr, "floodgate: cannot write floodgate-out: it is a link, and no flag names it")
      assert.deepStrictEqual(filesIn(root), ["inside/docs/one.txt"])
      const named = yield* run(inside, args("--out", "floodgate-out"), env)
      assert.strictEqual(named.code, 0, named.stderr)
      assert.include(filesIn(root), "outside/summary.md")
    })
  )
})
