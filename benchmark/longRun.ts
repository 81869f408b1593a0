/**
 * Looks for leaks in long runs: `npm run -s bench -- longRun`, about two and a half minutes.
 *
 * 1. An hour of 200 agents under a simulated clock, after ten minutes of warm-up.
 * 2. An hour of the provider's time in a minute of real time: 200 agents over HTTP with the official SDK, half through
 *    `LlmClient` and half through the middleware, against a provider in a process of its own.
 *
 * Calls are answers and streams of many sizes; one in eight is cancelled while it waits or runs; the provider rejects,
 * fails, breaks streams off and falls silent, and a neighbour uses the same limits. Measured are the heap after a
 * collection, and what is left when all has ended: calls in flight, waiters, timers, sockets, listeners.
 * Fails when the heap has grown by 5 % or more, or when anything is left.
 */
import Sdk from "@anthropic-ai/sdk"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError } from "floodgate/LlmError"
import { ProviderSim, Simulation } from "floodgate/testing"
import { spawn } from "node:child_process"

const agents = 200
const hour = 3_600_000
const most = 0.05

const collect = globalThis.gc
if (collect === undefined) throw new Error("longRun: run it with --expose-gc, as npm run bench does")

// -----------------------------------------------------------------------------
// The provider, and what is asked of it
// -----------------------------------------------------------------------------

const limits = {
  requests: { perMinute: 2_000 },
  inputTokens: { perMinute: 4_000_000 },
  outputTokens: { perMinute: 400_000 }
}

const provider: ProviderSim.Options = {
  limits,
  rejections: "charged",
  neighbour: { share: 0.3, everyMillis: 300_000, forMillis: 60_000 },
  latency: { baseMillis: 500, perInputTokenMillis: 0.02, perOutputTokenMillis: 5, noise: 0.3 },
  outputTokens: ProviderSim.lognormal(250, 0.8),
  logSize: 100,
  faults: [
    { kind: "529", between: [1_500_000, 1_530_000] },
    { kind: "429", rate: 0.002, retryAfterMillis: 2_000 },
    { kind: "500", rate: 0.01 },
    { kind: "refused", rate: 0.005 },
    { kind: "cut", rate: 0.01 },
    { kind: "truncated", rate: 0.01 },
    { kind: "timeout", rate: 0.001, afterMillis: 30_000 },
    { kind: "stall", rate: 0.001 }
  ]
}

const text = "The gate opens when the bucket has room. ".repeat(2_000)

interface Tally {
  calls: number
  cancelled: number
  failed: number
  /** Failures without a type. There must be none. */
  defects: number
}

/** One way to make a call for an agent. */
type Ask = (
  params: Sdk.MessageCreateParamsNonStreaming,
  agent: string,
  stream: boolean
) => Effect.Effect<unknown, unknown>

/** One agent: makes call after call until it is interrupted. `scale` is the speed of the provider's clock. */
const agent = (ask: Ask, name: string, tally: Tally, scale: number) =>
  Effect.gen(function* () {
    while (true) {
      const content = text.slice(0, yield* Random.nextIntBetween(400, 80_000))
      const params = { model: "claude-sonnet-5", max_tokens: 2_000, messages: [{ role: "user" as const, content }] }
      const call = ask(params, name, (yield* Random.next) < 0.5)
      // One in eight is cancelled soon. The others have a timeout, because some streams fall silent.
      const soon = (yield* Random.next) < 1 / 8
      const patience = soon ? (yield* Random.nextIntBetween(0, 5_000)) / scale : Math.max(120_000 / scale, 10_000)
      const exit = yield* Effect.exit(
        Effect.timeoutOrElse(call, { duration: patience, orElse: () => Effect.fail("cancelled") })
      )
      tally.calls++
      if (Exit.isFailure(exit)) {
        const error = Exit.findErrorOption(exit)
        if (error._tag === "Some" && error.value === "cancelled") tally.cancelled++
        else if (error._tag === "Some" && (error.value instanceof LlmError || error.value instanceof Error))
          tally.failed++
        else tally.defects++
      }
      yield* Effect.sleep((yield* Random.nextIntBetween(0, 2_000)) / scale)
    }
  })

const throughClient =
  (client: LlmClient.LlmClient["Service"]): Ask =>
  (params, agent, stream) =>
    stream ? Stream.runDrain(client.stream(params, { agent })) : client.create(params, { agent })

const throughSdk =
  (client: Sdk): Ask =>
  (params, agent, stream) =>
    Effect.tryPromise({
      try: async (signal) => {
        const body = { ...params, metadata: { user_id: agent } }
        if (!stream) return await client.messages.create(body, { signal })
        for await (const _ of await client.messages.create({ ...body, stream: true }, { signal }));
        return undefined
      },
      catch: (error) => error
    })

// -----------------------------------------------------------------------------
// Measuring
// -----------------------------------------------------------------------------

/** Megabytes alive after some collections: weak references are cleared a turn later. */
const heap = Effect.promise(async () => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed / 1e6
})

/** The timers and sockets of this process by kind, without the pipes of its output. */
const resources = (): Record<string, number> => {
  const kinds = process.getActiveResourcesInfo().filter((kind) => !/Pipe|TTY|ProcessWrap|Immediate/.test(kind))
  return Object.fromEntries(
    Object.entries(Object.groupBy(kinds, (kind) => kind)).map(([kind, all]) => [kind, all!.length])
  )
}

const listeners = (): number => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)

const warnings: Array<string> = []
process.on("warning", (warning) => warnings.push(warning.message))

const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** The growth from the first third of the samples to the last. */
const growth = (samples: ReadonlyArray<number>): number => {
  const third = Math.max(1, Math.floor(samples.length / 3))
  return mean(samples.slice(-third)) / mean(samples.slice(0, third)) - 1
}

const problems: Array<string> = []
const expect = (holds: boolean, problem: string): void => {
  if (!holds) problems.push(problem)
}

const report = (name: string, samples: ReadonlyArray<number>, tally: Tally, more: ReadonlyArray<string>): void => {
  const grown = growth(samples)
  expect(grown < most, `${name}: the heap has grown by ${(100 * grown).toFixed(1)} %`)
  expect(tally.defects === 0, `${name}: ${tally.defects} calls ended without a typed failure`)
  console.log(`\n${name}`)
  const { calls, cancelled, failed } = tally
  console.log(`  calls      ${calls}, ${cancelled} of them cancelled, ${failed} failed in the end`)
  console.log(`  heap       ${samples.map((sample) => sample.toFixed(1)).join(" ")} MB`)
  console.log(`  growth     ${(100 * grown).toFixed(1)} %`)
  for (const line of more) console.log(`  ${line}`)
}

const assertIdle = Effect.fnUntraced(function* (name: string) {
  const { pools } = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
  for (const { dimensions, inFlight, queued } of Object.values(pools)) {
    expect(inFlight === 0 && queued === 0, `${name}: ${inFlight} calls in flight and ${queued} waiters are left`)
    for (const { level } of Object.values(dimensions)) expect(Number.isFinite(level), `${name}: a level is ${level}`)
  }
})

// -----------------------------------------------------------------------------
// 1. Simulated time
// -----------------------------------------------------------------------------

const simulated = Effect.gen(function* () {
  const name = "An hour in simulated time"
  const tally: Tally = { calls: 0, cancelled: 0, failed: 0, defects: 0 }
  const samples: Array<number> = []
  const warmUp = 600
  const started = performance.now()
  const { value: stats } = yield* Simulation.run(
    Effect.gen(function* () {
      const client = yield* LlmClient.LlmClient
      const names = Array.from({ length: agents }, (_, index) => `agent-${index}`)
      const one = (agentName: string) => agent(throughClient(client), agentName, tally, 1)
      const all = yield* Effect.forkChild(Effect.forEach(names, one, { concurrency: "unbounded" }))
      yield* Effect.sleep(hour + warmUp * 1_000)
      yield* Fiber.interrupt(all)
      yield* assertIdle(name)
      return yield* Effect.flatMap(ProviderSim.ProviderSim, (sim) => sim.stats)
    }).pipe(
      Effect.provide(
        LlmClient.layerProvider().pipe(
          Layer.provideMerge(Budget.layer({ limits, concurrency: 500 })),
          Layer.provideMerge(ProviderSim.layer(provider))
        )
      )
    ),
    {
      seed: 1,
      progress: (seconds) =>
        seconds >= warmUp && seconds % 300 === 0 && seconds < warmUp + hour / 1_000
          ? Effect.map(heap, (alive) => void samples.push(alive))
          : Effect.void
    }
  )
  report(name, samples, tally, [
    `provider   ${stats.requests} requests, ${stats.rejected} rejected, ${stats.failed + stats.broken} failed or broken`,
    `took       ${((performance.now() - started) / 1_000).toFixed(0)} s`
  ])
})

// -----------------------------------------------------------------------------
// 2. Real HTTP
// -----------------------------------------------------------------------------

const scale = 60

/** The provider as a separate process, so that its memory and sockets do not count. */
const serveForEver = Effect.gen(function* () {
  const server = yield* ProviderServer.make({ ...provider, timeScale: scale })
  console.log(server.url)
  return yield* Effect.never
}).pipe(Effect.scoped)

const providerProcess = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly end: () => void }>((resume) => {
    const child = spawn(process.execPath, [...process.execArgv, import.meta.filename, "provider"], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    child.stdout.once("data", (data) => resume(Effect.succeed({ url: String(data).trim(), end: () => child.kill() })))
  }),
  ({ end }) => Effect.sync(end)
)

const overHttp = Effect.gen(function* () {
  const name = "An hour of the provider's time over HTTP, in a minute"
  const tally: Tally = { calls: 0, cancelled: 0, failed: 0, defects: 0 }
  const samples: Array<number> = []
  const { url } = yield* providerProcess
  const before = listeners()
  const perMinute = {
    requests: { perMinute: limits.requests.perMinute * scale },
    inputTokens: { perMinute: limits.inputTokens.perMinute * scale },
    outputTokens: { perMinute: limits.outputTokens.perMinute * scale }
  }
  let during: Record<string, number> = {}
  yield* Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const middleware = yield* Floodgate.make({ callOptions: { timeout: "10 seconds" } })
    const sdk = new Sdk({ apiKey: "any", baseURL: url, maxRetries: 0, middleware: [middleware] })
    const ways = [throughClient(client), throughSdk(sdk)] as const
    const names = Array.from({ length: agents }, (_, index) => [`agent-${index}`, ways[index % 2]!] as const)
    const one = ([agentName, ask]: (typeof names)[number]) => agent(ask, agentName, tally, scale)
    const all = yield* Effect.forkChild(Effect.forEach(names, one, { concurrency: "unbounded" }))
    yield* Effect.sleep("15 seconds")
    const start = yield* Clock.currentTimeMillis
    while ((yield* Clock.currentTimeMillis) - start < hour / scale) {
      samples.push(yield* heap)
      during = resources()
      yield* Effect.sleep("5 seconds")
    }
    yield* Fiber.interrupt(all)
    // Sockets report an abort a moment later.
    yield* Effect.sleep(Duration.seconds(1))
    yield* assertIdle(name)
  }).pipe(
    Effect.provide(
      LlmClient.layer({
        apiKey: Redacted.make("any"),
        baseUrl: url,
        timeout: "10 seconds",
        idleTimeout: "5 seconds"
      }).pipe(
        Layer.provideMerge(Governor.layer()),
        Layer.provideMerge(Budget.layer({ limits: perMinute, concurrency: 500 }))
      )
    )
  )
  const stats = (yield* Effect.promise(async () => (await fetch(`${url}/stats`)).json())) as ProviderSim.Stats
  // Idle connections are kept for a few seconds.
  yield* Effect.sleep("8 seconds")
  const after = resources()
  expect((after["Timeout"] ?? 0) <= 1, `${name}: timers are left: ${JSON.stringify(after)}`)
  expect((after["TCPSocketWrap"] ?? 0) === 0, `${name}: sockets are left: ${JSON.stringify(after)}`)
  expect(listeners() <= before, `${name}: listeners of the process: ${before} before, ${listeners()} after`)
  expect(warnings.length === 0, `${name}: ${warnings.join("; ")}`)
  report(name, samples, tally, [
    `provider   ${stats.requests} requests, ${stats.rejected} rejected, ${stats.failed + stats.broken} failed or broken`,
    `while      ${JSON.stringify(during)}`,
    `after      ${JSON.stringify(after)}, listeners of the process ${before} before and ${listeners()} after`
  ])
}).pipe(Effect.scoped)

if (process.argv[2] === "provider") await Effect.runPromise(serveForEver)
else {
  await Effect.runPromise(simulated)
  await Effect.runPromise(overHttp)
  for (const problem of problems) console.log(`FAIL  ${problem}`)
  console.log(problems.length === 0 ? "\nok" : "")
  process.exit(problems.length === 0 ? 0 : 1)
}
