import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as TestConsole from "effect/testing/TestConsole"
import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import * as Cli from "../../src/commands/index.ts"
import * as Provider from "../../src/commands/provider.ts"
import { services } from "../../../gateway/test/support/services.ts"

/** The lines that the command prints, and its exit code. */
const doctor = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
  asked(env, Cli.runWith(["doctor", ...args]))

const asked = (env: Record<string, string>, command: ReturnType<typeof Cli.runWith>) =>
  Effect.gen(function* () {
    const code = yield* Effect.match(command, {
      onFailure: ({ code }) => code,
      onSuccess: () => 0
    })
    const out = (yield* TestConsole.logLines).map(String).join("\n").split("\n")
    const err = (yield* TestConsole.errorLines).map(String).join("\n")
    return { code, err, out }
  }).pipe(Effect.provide(services({ env })))

const serve = (listener: RequestListener) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer(listener)
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  ).pipe(Effect.map((server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`))

/** An address at which no server listens any more. */
const deserted = Effect.scoped(serve(() => {}))

const answering = (status: number) =>
  serve((_, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(`{"data":[],"has_more":false}`)
  })

describe("floodgate doctor", () => {
  it.live("says what to set if there is no key, and still succeeds", () =>
    Effect.gen(function* () {
      const { code, out } = yield* doctor({})
      assert.strictEqual(code, 0)
      assert.match(out[0]!, /^ok {5}Node \d/)
      assert.include(out[1], "ANTHROPIC_API_KEY is not set")
      assert.include(out[2], "https://console.anthropic.com/")
      assert.include(out[3], "export ANTHROPIC_API_KEY=")
    })
  )

  it.live("names the copies of the SDK that ignore a middleware, and the alternative for them", () =>
    Effect.gen(function* () {
      const versions: Record<string, string> = {
        "node_modules/@anthropic-ai/sdk": "1.13.0",
        "node_modules/@llamaindex/anthropic/node_modules/@anthropic-ai/sdk": "0.58.0",
        "node_modules/older/node_modules/@anthropic-ai/sdk": "0.102.9",
        "node_modules/newer/node_modules/@anthropic-ai/sdk": "0.103.0",
        "node_modules/damaged/node_modules/@anthropic-ai/sdk": "?"
      }
      const folders: Record<string, Array<string>> = {
        node_modules: ["@anthropic-ai", "@llamaindex", "older", "newer", "damaged", "none"],
        "node_modules/@anthropic-ai": ["sdk"],
        "node_modules/@llamaindex": ["anthropic", "openai"]
      }
      const fs = FileSystem.makeNoop({
        readDirectory: (folder) => Effect.succeed(folders[folder]!),
        readFileString: (file) => {
          const version = versions[file.replace("/package.json", "")]
          return version === undefined
            ? Effect.die(new Error(file))
            : Effect.succeed(version === "?" ? "{" : JSON.stringify({ version }))
        },
        exists: (file) => Effect.succeed(versions[file.replace("/package.json", "")] !== undefined)
      })
      const { code, out } = yield* asked({}, Effect.provideService(Cli.runWith(["doctor"]), FileSystem.FileSystem, fs))
      assert.strictEqual(code, 0)
      const notes = out.join(" ").replace(/\s+/g, " ")
      assert.include(notes, "sdk 0.58.0 in node_modules/@llamaindex/anthropic/node_modules/@anthropic-ai/sdk ignores")
      assert.include(notes, "sdk 0.102.9 in node_modules/older/node_modules/@anthropic-ai/sdk ignores")
      assert.include(notes, "new Anthropic({ fetch: floodgate.fetch, maxRetries: 0 })")
      assert.notMatch(notes, /0\.103|1\.13/)
    })
  )

  it.live("refuses a key that no header can hold, without quoting it", () =>
    Effect.gen(function* () {
      const { code, out } = yield* doctor({ ANTHROPIC_API_KEY: "sk-secret and more" })
      assert.strictEqual(code, 2)
      assert.match(out[1]!, /^FAILS {2}ANTHROPIC_API_KEY contains white space/)
      assert.notInclude(out.join("\n"), "sk-secret")
    })
  )

  it.live("names the address or the Redis that does not answer", () =>
    Effect.gen(function* () {
      const url = yield* deserted
      const args = ["--redis", url.replace("http:", "redis:")]
      const { code, err, out } = yield* doctor({ ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: url }, ...args)
      assert.strictEqual(code, 4)
      assert.strictEqual(err, "floodgate: 2 checks failed")
      assert.strictEqual(out[2], `FAILS  ${url} cannot be reached (ECONNREFUSED)`)
      assert.include(out[3], "unset ANTHROPIC_BASE_URL")
      assert.match(out[4]!, /^FAILS {2}no Redis answers at redis:/)
    })
  )

  for (const [status, code, says] of [
    [200, 0, "ok     URL answers, and accepts the key"],
    [401, 2, "FAILS  URL refuses the key (401)"],
    [403, 2, "FAILS  URL refuses the key (403)"],
    [404, 0, "note   URL answers. It has no list of models, so the key was not checked: --call checks it"],
    [418, 4, "FAILS  URL answers 418: is it an address of Anthropic's API?"],
    [429, 0, "note   URL answers, but is over a limit now (429)"],
    [529, 4, "FAILS  URL fails now (529)"]
  ] as const) {
    it.live(`knows what an answer of ${status} means`, () =>
      Effect.gen(function* () {
        const url = yield* answering(status)
        const result = yield* doctor({ ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: url })
        assert.strictEqual(result.code, code)
        assert.strictEqual(result.out[2], says.replace("URL", url))
      }).pipe(Effect.scoped)
    )
  }

  it.live("reads the limits with a call only if it is asked to, and prints them as flags and as code", () =>
    Effect.gen(function* () {
      const { stats, url } = yield* Provider.listen({
        limits: { requests: { perMinute: 50 }, inputTokens: { perMinute: 400_000 } }
      })
      const env = { ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: url }
      assert.include((yield* doctor(env)).out.join("\n"), "--call reads them")
      assert.strictEqual((yield* stats).requests, 0)
      const { code, out } = yield* doctor(env, "--call")
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(
        out.slice(-2).map((line) => line.trim()),
        [
          "--requests-per-minute 50 --input-tokens-per-minute 400000",
          "Floodgate.create({ limits: { requests: { perMinute: 50 }, inputTokens: { perMinute: 400000 } } })"
        ]
      )
      assert.strictEqual((yield* stats).requests, 1)
    }).pipe(Effect.scoped)
  )

  it.live("does not wait for the end of an endless answer", () =>
    Effect.gen(function* () {
      const url = yield* serve((_, response) => void response.writeHead(200).write("["))
      const { code, out } = yield* doctor({ ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: url })
      assert.strictEqual(code, 0)
      assert.strictEqual(out[2], `ok     ${url} answers, and accepts the key`)
    }).pipe(Effect.scoped)
  )

  it.live("can be interrupted while nobody answers", () =>
    Effect.gen(function* () {
      let asked: () => void
      const isAsked = new Promise<void>((resolve) => (asked = resolve))
      const url = yield* serve(() => asked())
      const fiber = yield* Effect.forkChild(doctor({ ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: url }))
      yield* Effect.promise(() => isAsked)
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.scoped)
  )
})
