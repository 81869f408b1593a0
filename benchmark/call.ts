/**
 * What one governed call costs: `npm run -s bench -- call`.
 *
 * - **time**: `LlmClient.create` over a provider that answers at once, minus that provider alone, in processor time, which
 *   other load affects little: of a client without places, and of one with a single place. All take turns in one process; the result
 *   is the median of the rounds.
 * - **memory**: what a queued call keeps alive, its fiber included, beside a fiber that only sleeps.
 * - **path**: the files and functions of `src/` that warm calls run, by V8's coverage. A hundred of them, 10 ms apart in simulated
 *   time, because what is learned from headers depends on the time between them.
 *
 * `--path` measures only the path, and lists its functions. `test/client/path.system.test.ts` limits its length.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider, type Params, type Reply } from "floodgate/LlmProvider"
import { Session } from "node:inspector/promises"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const params: Params = {
  model: "claude-sonnet-5",
  max_tokens: 500,
  messages: [{ role: "user", content: "What is a token bucket? ".repeat(20) }]
}

const reply: Reply<unknown> = {
  value: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-sonnet-5",
    stop_reason: "end_turn",
    content: [{ type: "text", text: "A bucket that refills." }],
    usage: { input_tokens: 160, output_tokens: 8 }
  },
  signal: { dimensions: { inputTokens: { limit: 2_000_000, remaining: 1_990_000, roundedTo: 1_000 } } },
  requestId: undefined
}

/** Answers at once, always the same. */
const provider = Layer.succeed(LlmProvider)(
  LlmProvider.of({
    name: "bare",
    create: () => Effect.succeed(reply as never),
    stream: () => Effect.succeed({ value: Stream.empty, signal: undefined, requestId: undefined }),
    countTokens: () => Effect.succeed({ value: 1, signal: undefined, requestId: undefined })
  })
)

type Services = LlmClient.LlmClient | LlmProvider | Budget.TokenBudget

/** Runs an effect with a client of its own. */
const withClient = (
  limits: Budget.Options["limits"],
  run: (context: Context.Context<Services>) => Promise<void>,
  client: Layer.Layer<LlmClient.LlmClient, never, LlmProvider | Budget.TokenBudget> = LlmClient.layerProvider(),
  clock: Layer.Layer<never> = Layer.empty
): Promise<void> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.flatMap(
        Layer.build(
          client.pipe(
            Layer.provideMerge(Budget.layer({ limits })),
            Layer.provideMerge(provider),
            Layer.provideMerge(clock)
          )
        ),
        (context) => Effect.promise(() => run(context))
      )
    )
  )

const withOnePlace = LlmClient.layerPlaces({ models: { [params.model]: [{ name: "here", provider }] } })

const plenty = { requests: { perMinute: 1e12 }, inputTokens: { perMinute: 1e12 }, outputTokens: { perMinute: 1e12 } }

// -----------------------------------------------------------------------------
// Time
// -----------------------------------------------------------------------------

const rounds = 15
const callsPerRound = 5_000

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1]!

const repeated = (call: Effect.Effect<unknown, unknown, LlmClient.LlmClient | LlmProvider>) =>
  Effect.gen(function* () {
    for (let n = 0; n < callsPerRound; n++) yield* call
  })

const time = async (plain: Context.Context<Services>, placed: Context.Context<Services>): Promise<void> => {
  const bare = Effect.suspend(() => Context.get(plain, LlmProvider).create(params))
  const governed = Effect.suspend(() => LlmClient.create(params))
  const contenders = [
    [bare, plain],
    [governed, plain],
    [governed, placed]
  ] as const
  const micros = contenders.map((): Array<number> => [])
  for (let round = 0; round < rounds; round++) {
    for (const [index, [call, context]] of contenders.entries()) {
      const start = process.cpuUsage()
      await Effect.runPromise(Effect.provide(Effect.orDie(repeated(call)), context))
      const { system, user } = process.cpuUsage(start)
      // The first rounds warm up.
      if (round >= 5) micros[index]!.push((system + user) / callsPerRound)
    }
  }
  const [alone = NaN, under = NaN, at = NaN] = micros.map(median)
  const over = (value: number): string => (value - alone).toFixed(1)
  console.log(
    `time: ${over(under)} us over the bare provider, ${over(at)} us with one place (${alone.toFixed(1)} us alone)`
  )
}

// -----------------------------------------------------------------------------
// Memory
// -----------------------------------------------------------------------------

const waiters = 10_000

/** Bytes that each of many fibers keeps alive while it waits. */
const bytesOf = async (fork: () => Fiber.Fiber<unknown, unknown>): Promise<number> => {
  const collect = globalThis.gc ?? (() => console.error("bench: run node with --expose-gc"))
  const settled = () => new Promise((resolve) => setTimeout(resolve, 50))
  collect()
  const before = process.memoryUsage().heapUsed
  const fibers = Array.from({ length: waiters }, fork)
  await settled()
  collect()
  const bytes = (process.memoryUsage().heapUsed - before) / waiters
  for (const fiber of fibers) fiber.interruptUnsafe()
  await settled()
  return bytes
}

const memory = async (context: Context.Context<Services>): Promise<void> => {
  await Effect.runPromise(Effect.provide(Budget.consume(1_000), context))
  const fork = Effect.runForkWith(context)
  const governed = () => fork(LlmClient.create(params))
  const asleep = () => fork(Effect.sleep("1 day"))
  for (const call of [governed, asleep]) await bytesOf(call)
  const [waits, sleeps] = [await bytesOf(governed), await bytesOf(asleep)]
  console.log(
    `memory: ${(waits / 1_000).toFixed(1)} KB while it waits (a fiber asleep: ${(sleeps / 1_000).toFixed(1)})`
  )
}

// -----------------------------------------------------------------------------
// Path
// -----------------------------------------------------------------------------

const isListed = process.argv.includes("--path")

const source = pathToFileURL(join(import.meta.dirname, "../src/")).href

const path = async (context: Context.Context<Services>): Promise<void> => {
  const call = Effect.andThen(TestClock.adjust("10 millis"), LlmClient.create(params))
  const once = () => Effect.runPromise(Effect.provide(call, context))
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false })
  for (let n = 0; n < 100; n++) await once()
  await session.post("Profiler.takePreciseCoverage")
  for (let n = 0; n < 100; n++) await once()
  const { result } = await session.post("Profiler.takePreciseCoverage")
  session.disconnect()
  const run = result
    .filter(({ url }) => url.startsWith(source))
    .map(({ functions, url }) => ({
      file: url.slice(source.length),
      functions: functions.filter(({ ranges }) => ranges[0]!.count > 0)
    }))
    .filter(({ functions }) => functions.length > 0)
  const count = run.reduce((sum, { functions }) => sum + functions.length, 0)
  console.log(`path: ${run.length} files, ${count} functions`)
  if (!isListed) return
  for (const { file, functions } of run.toSorted((a, b) => b.functions.length - a.functions.length)) {
    const names = functions.map(({ functionName }) => functionName || "(anonymous)")
    console.log(`  ${file} (${functions.length}): ${names.join(", ")}`)
  }
}

if (!isListed) {
  await withClient(plenty, (plain) => withClient(plenty, (placed) => time(plain, placed), withOnePlace))
  // Room for one call, which is taken, so that all others wait.
  await withClient({ inputTokens: { perSecond: 0.001, burst: 1_000 } }, memory)
}
await withClient(plenty, path, undefined, TestClock.layer())
