/** What a call costs in time, and in memory while it waits. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider } from "floodgate/LlmProvider"
import { params, plenty, provider, type Services, withClient } from "./client.ts"

const withOnePlace = LlmClient.layerPlaces({ models: { [params.model]: [{ name: "here", provider }] } })

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

/** Prints what calls cost. */
export const printCost = async (): Promise<void> => {
  await withClient(plenty, (plain) => withClient(plenty, (placed) => time(plain, placed), withOnePlace))
  // Room for one call, which is taken, so that all others wait.
  await withClient({ inputTokens: { perSecond: 0.001, burst: 1_000 } }, memory)
}
