/** `floodgate try --real`, with a simulated provider in the place of the real one: the real SDK over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { join } from "node:path"
import * as Provider from "../../src/commands/provider.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { floodgate } from "../support/cli.ts"

const key = "sk-not-in-the-record"

/** A provider, a folder for the record, and the command with its terminal. */
const prepared = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const at = yield* fs.makeTempDirectoryScoped()
  const server = yield* Provider.listen({ keys: [key], outputTokens: 6 })
  const run = (answer: string | undefined, ...args: ReadonlyArray<string>) => {
    const env = { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: server.url }
    const around = services({ env, answer, columns: answer === undefined ? undefined : 80 })
    return floodgate("try", "--real", "--out", join(at, "real.json"), ...args).pipe(Effect.provide(around))
  }
  const record = Effect.map(fs.readFileString(join(at, "real.json")), (text) => ({ text, json: JSON.parse(text) }))
  return { at, fs, record, run, stats: server.stats }
})

const live = (name: string, effect: Effect.Effect<void, unknown, Effect.Services<typeof prepared>>) =>
  it.live(name, () => effect.pipe(Effect.scoped, Effect.provide(services())), { timeout: 60_000 })

describe("floodgate try --real", () => {
  live(
    "asks first, and sends and writes nothing without a yes",
    Effect.gen(function* () {
      const { at, fs, run, stats } = yield* prepared
      const refused = yield* run("n")
      assert.strictEqual(refused.code, 1)
      assert.include(refused.err, "nothing was sent")
      const unasked = yield* run(undefined)
      assert.strictEqual(unasked.code, 2)
      assert.match(
        unasked.err,
        /add --yes to send 200 calls of 40 agents to http:\S+, model claude-haiku-5-5, for at most\s+\$0\.25/
      )
      assert.strictEqual((yield* stats).requests, 0)
      assert.deepStrictEqual(yield* fs.readDirectory(at), [])
    })
  )

  live(
    "records each call and what it cost, without text and without the key",
    Effect.gen(function* () {
      const { record, run, stats } = yield* prepared
      const { code, err, out } = yield* run("y")
      assert.strictEqual(code, 0, err)
      assert.match(out, /^200 of 200 answered, 0 x 429, \d+\.\d s, \$0\.04\d? of at most \$0\.25\.$/m)
      const { json, text } = yield* record
      assert.strictEqual(json.calls.length, 200)
      const { inputTokens, outputTokens } = yield* stats
      assert.closeTo(json.cents, (100 * (0.1 * inputTokens + 0.5 * outputTokens)) / 1_000_000, 1e-6)
      assert.notMatch(text, /sky|clouds|sk-not/)
    })
  )

  live(
    "never spends more than --max-cents, by the tokens that the provider counted",
    Effect.gen(function* () {
      const { record, run, stats } = yield* prepared
      const { code, err } = yield* run(undefined, "--yes", "--max-cents", "1")
      assert.strictEqual(code, 1)
      assert.match(err, /\d+ calls were not answered \(refused: used\)/)
      const { inputTokens, outputTokens } = yield* stats
      const cents = (100 * (0.1 * inputTokens + 0.5 * outputTokens)) / 1_000_000
      assert.isAtMost(cents, 1)
      assert.isAbove(cents, 0.5)
      assert.closeTo((yield* record).json.cents, cents, 1e-6)
    })
  )

  it.live("has flags that are refused without it", () =>
    Effect.gen(function* () {
      const { code, err } = yield* floodgate("try", "--max-cents", "5")
      assert.strictEqual(code, 2)
      assert.include(err, '--max-cents "5" does not apply: only --real costs anything')
    }).pipe(Effect.provide(services()))
  )
})
