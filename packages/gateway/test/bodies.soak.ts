import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { ProviderServer } from "floodgate/testing/server"
import { type ChildProcess, spawn } from "node:child_process"
import * as Http from "node:http"
import { join } from "node:path"

// Bodies that crashed a gateway, and the largest ones that it accepts: `npm run test:soak -- packages/gateway/test/bodies`.

const bin = join(import.meta.dirname, "../../cli/src/bin.ts")
const strain = join(import.meta.dirname, "strain.ts")
const megabyte = 1_024 * 1_024
const maxBodyBytes = 32 * megabyte

interface Strain {
  /** Megabytes. */
  readonly rss: number
  /** Milliseconds of processor time. */
  readonly turn: number
}

/** The command in its own process. */
const gateway = (provider: string, node: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly child: ChildProcess; readonly url: string }>((resume) => {
      const args = [...node, "--import", strain, "--conditions=@floodgate/source", bin, "gateway", "--port", "0"]
      const child = spawn(process.execPath, [...args, "--upstream", `anthropic=${provider}`], {
        stdio: ["ignore", "pipe", "inherit", "ipc"]
      })
      child.stdout!.once("data", (line) => resume(Effect.succeed({ child, url: /http:\S+/.exec(String(line))![0] })))
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const strainOf = (child: ChildProcess): Effect.Effect<Strain> =>
  Effect.callback((resume) => {
    child.once("message", (strain) => resume(Effect.succeed(strain as Strain)))
    child.send("strain")
  })

/** Sends a body that many calls share. */
const post = (url: string, body: Buffer): Effect.Effect<number> =>
  Effect.callback((resume) => {
    const headers = { "x-api-key": "any", "content-length": body.length }
    const request = Http.request(`${url}/v1/messages`, { method: "POST", headers, agent: false }, (response) => {
      response.resume().on("close", () => resume(Effect.succeed(response.statusCode!)))
    })
    request.on("error", () => resume(Effect.succeed(0)))
    request.end(body)
  })

const small = Buffer.from(
  JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "Hello" }] })
)

/** The largest and costliest body: the maximum number of values, and a text with two bytes a character. */
const largest = (): Buffer => {
  const values = `{"700":1},`.repeat(195_000)
  const tools = `[{"name":"pick","input_schema":{"type":"object","enum":[${values}{}]}}]`
  const begin = `{"model":"claude-sonnet-5","max_tokens":9,"tools":${tools},"messages":[{"role":"user","content":"👍🏽`
  const end = '"}]}'
  return Buffer.from(begin + "x".repeat(maxBodyBytes - Buffer.byteLength(begin + end)) + end)
}

/** The memory rule of docs/gateway.md, in megabytes. */
const maxMegabytes = (2 * 256 * megabyte + 10 * maxBodyBytes) / 1e6 + 400

// On a machine with other work, even the processor time of the costliest turn varies between 170 and 210 ms.
const cases = [
  {
    name: "empty objects",
    body: () => Buffer.from(`[${"{},".repeat((maxBodyBytes - 5) / 3)}{}]`),
    status: 413,
    maxTurn: 200
  },
  { name: "the largest that it takes", body: largest, status: 200, maxTurn: 300 }
]

describe("a gateway with seven bodies of 32 MB", () => {
  for (const { body, maxTurn, name, status } of cases) {
    for (const node of [[], ["--max-old-space-size=1024"]]) {
      it.live(`of ${name}, ${node[0] ?? "with the default heap"}: 20 of 20 small calls beside them are answered`, () =>
        Effect.gen(function* () {
          const latency = { baseMillis: 20, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
          const provider = yield* ProviderServer.make({ latency, maxBodyBytes: 2 * maxBodyBytes, headers: "none" })
          const { child, url } = yield* gateway(provider.url, node)
          for (let call = 0; call < 3; call++) assert.strictEqual(yield* post(url, small), 200)
          yield* strainOf(child)
          const bytes = body()
          const large = yield* Effect.forkChild(
            Effect.forEach(Array.from({ length: 7 }), () => post(url, bytes), { concurrency: "unbounded" })
          )
          const beside = yield* Effect.forEach(
            Array.from({ length: 20 }, (_, index) => index),
            (index) => Effect.andThen(Effect.sleep(50 * index), post(url, small)),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual([...new Set(beside)], [200])
          assert.deepStrictEqual([...new Set(yield* Fiber.join(large))], [status])
          const { rss, turn } = yield* strainOf(child)
          yield* Effect.log(`${rss.toFixed(0)} of ${maxMegabytes.toFixed(0)} MB, a turn of ${turn.toFixed(0)} ms`)
          assert.isBelow(rss, maxMegabytes)
          assert.isBelow(turn, maxTurn)
        })
      )
    }
  }
})
