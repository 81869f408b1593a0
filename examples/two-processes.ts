// Two processes share one budget in Redis, and together stay within the limits. Needs redis-server.
//     npm run -s example examples/two-processes.ts
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as LlmClient from "floodgate/LlmClient"
import * as FloodgateRedis from "@floodgate/redis"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"

// 20,000 tokens a second, and 20,000 at once: the provider's limits, for both processes together.
const limits = { inputTokens: { perSecond: 20_000, burst: 20_000 } }

// -----------------------------------------------------------------------------
// The program of each process: like any other, with one more layer below the budget
// -----------------------------------------------------------------------------

const worker = (name: string, redis: string, provider: string) => {
  const ask = (n: number) =>
    LlmClient.create(
      { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user", content: "x".repeat(16_000) }] },
      { agent: `${name}-${n}`, inputTokens: 4_000 }
    )
  const live = LlmClient.layer({ apiKey: Redacted.make("any"), baseUrl: provider }).pipe(
    Layer.provide(Budget.layer({ limits })),
    Layer.provide(FloodgateRedis.layerStoreUrl({ url: redis, name }))
  )
  return Effect.gen(function* () {
    const calls = Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ask, { concurrency: "unbounded" })
    const [elapsed, answers] = yield* Effect.timed(calls)
    yield* Console.log(`${name}: ${answers.length} answers in ${Duration.toSeconds(elapsed).toFixed(1)} s`)
  }).pipe(Effect.provide(live))
}

// -----------------------------------------------------------------------------
// The parent: a Redis, a simulated provider, and the two
// -----------------------------------------------------------------------------

const freePort = Effect.promise(async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  return port
})

const start = (command: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(command, args, { stdio: ["ignore", "ignore", "inherit"] })),
    (child) => Effect.sync(() => child.kill())
  )

const child = (...args: ReadonlyArray<string>) =>
  Effect.promise(() =>
    once(spawn(process.execPath, [...process.execArgv, import.meta.filename, ...args], { stdio: "inherit" }), "exit")
  )

const parent = Effect.gen(function* () {
  const port = yield* freePort
  yield* start("redis-server", "--port", `${port}`, "--bind", "127.0.0.1", "--save", "")
  const { stats, url } = yield* ProviderServer.ProviderServer
  yield* Effect.forEach(["one", "two"], (name) => child(name, `redis://127.0.0.1:${port}`, url), {
    concurrency: "unbounded"
  })
  const { rejected, requests } = yield* stats
  yield* Console.log(`The provider saw ${requests} requests and rejected ${rejected}: 80,000 tokens, 20,000 a second`)
}).pipe(
  Effect.scoped,
  Effect.provide(ProviderServer.layer({ limits, latency: { baseMillis: 50, perOutputTokenMillis: 0 } }))
)

const [name, redis, provider] = process.argv.slice(2)
if (name !== undefined) await Effect.runPromise(worker(name, redis!, provider!))
else if (spawnSync("redis-server", ["--version"]).status !== 0) {
  console.log("There is no redis-server on the PATH, so there is nothing to show. Install it and run this again.")
} else await Effect.runPromise(parent)
