/** `floodgate try --real`, with a simulated provider in the place of the real one: the real SDK over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Fiber from "effect/Fiber"
import type * as Limits from "floodgate/Limits"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import * as Provider from "../../src/commands/provider.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { floodgate } from "../support/cli.ts"

const key = "sk-not-in-the-record"

/** A provider, a folder for the record, and the command with its terminal. */
const prepared = Effect.fnUntraced(function* (limits?: Limits.Limits) {
  const fs = yield* FileSystem.FileSystem
  const at = yield* fs.makeTempDirectoryScoped()
  const server = yield* Provider.listen({ keys: [key], outputTokens: 6, limits })
  const run = (answer: string | undefined, ...args: ReadonlyArray<string>) => {
    const env = { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: server.url }
    const around = services({ env, answer, columns: answer === undefined ? undefined : 80 })
    return floodgate("try", "--real", "--out", join(at, "real.json"), ...args).pipe(Effect.provide(around))
  }
  const record = Effect.map(fs.readFileString(join(at, "real.json")), (text) => ({ text, json: JSON.parse(text) }))
  return { at, fs, record, run, stats: server.stats }
})

const live = (name: string, effect: Effect.Effect<void, unknown, Effect.Services<ReturnType<typeof prepared>>>) =>
  it.live(name, () => effect.pipe(Effect.scoped, Effect.provide(services())), { timeout: 60_000 })

describe("floodgate try --real", () => {
  live(
    "asks first, and sends and writes nothing without a yes",
    Effect.gen(function* () {
      const { at, fs, run, stats } = yield* prepared()
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
      const { record, run, stats } = yield* prepared()
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
      const { record, run, stats } = yield* prepared()
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

  it.live("ends with one line at the first refusal of a provider without a list of models", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const at = yield* fs.makeTempDirectoryScoped()
      let calls = 0
      const server = createServer((request, response) => {
        if (request.method === "POST") calls++
        response.writeHead(request.method === "POST" ? 401 : 404).end()
      })
      yield* Effect.acquireRelease(
        Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening")),
        () => Effect.sync(() => server.close())
      )
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const around = services({ env: { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: url } })
      const run = floodgate("try", "--real", "--yes", "--out", join(at, "real.json"))
      const { code, err, out } = yield* Effect.provide(run, around)
      assert.strictEqual(code, 1)
      assert.match(
        err,
        /^200 calls of .*\nfloodgate: http:\S+ answers 401 before any answer, so the run has ended: .*$/
      )
      assert.strictEqual(out, "")
      // At most the first call of each agent, of five.
      assert.isAtMost(calls, 40)
      assert.deepStrictEqual(yield* fs.readDirectory(at), [])
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  live(
    "keeps a whole record when it is stopped",
    Effect.gen(function* () {
      const { record, run, stats } = yield* prepared({ requests: { perMinute: 600, burst: 10 } })
      const fiber = yield* Effect.forkChild(run(undefined, "--yes"))
      while ((yield* stats).completed < 5) yield* Effect.sleep("10 millis")
      yield* Fiber.interrupt(fiber)
      const { json } = yield* record
      const answered = json.calls.filter(({ outcome }: { readonly outcome: string }) => outcome === "answered")
      assert.strictEqual(json.answered, answered.length)
      assert.isAtLeast(json.answered, 1)
      assert.isBelow(json.answered, 200)
      assert.isAbove(json.cents, 0)
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
