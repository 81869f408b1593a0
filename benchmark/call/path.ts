/** How much of the library a warm call runs through. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as LlmClient from "floodgate/LlmClient"
import { Session } from "node:inspector/promises"
import { params, plenty, type Services, withClient } from "./client.ts"
import { handOversSince } from "./handOvers.ts"

const calls = 100

const sum = (values: Iterable<number>): number => [...values].reduce((sum, value) => sum + value, 0)

/** A number per call. */
const perCall = (count: number): string => `${Math.round((10 * count) / calls) / 10}`

const path = async (context: Context.Context<Services>, source: string): Promise<void> => {
  const call = Effect.andThen(TestClock.adjust("10 millis"), LlmClient.create(params))
  const once = () => Effect.runPromise(Effect.provide(call, context))
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false })
  for (let n = 0; n < calls; n++) await once()
  await session.post("Profiler.takePreciseCoverage")
  handOversSince()
  for (let n = 0; n < calls; n++) await once()
  const handOvers = handOversSince()
  const { result } = await session.post("Profiler.takePreciseCoverage")
  session.disconnect()
  const run = result
    .filter(({ url }) => url.startsWith(source))
    .map(({ functions, url }) => {
      const used = functions
        .map(({ functionName, ranges }) => ({ name: functionName || "(anonymous)", count: ranges[0]!.count }))
        .filter(({ count }) => count > 0)
      const file = url.slice(source.length)
      return { file, used, count: sum(used.map(({ count }) => count)), from: handOvers.get(file) ?? 0 }
    })
    .filter(({ count }) => count > 0)
  const functions = sum(run.map(({ used }) => used.length))
  const called = perCall(sum(run.map(({ count }) => count)))
  console.log(
    `path: ${run.length} files, ${functions} functions, ${called} calls, ${perCall(sum(handOvers.values()))} hand-overs`
  )
  for (const { count, file, from, used } of run.toSorted((a, b) => b.count - a.count)) {
    const names = used.toSorted((a, b) => b.count - a.count).map(({ count, name }) => `${name} ${perCall(count)}`)
    console.log(`  ${file} (${used.length}, ${perCall(count)}, ${perCall(from)}): ${names.join(", ")}`)
  }
}

/** Prints what calls run through below a folder, given as a URL. */
export const printPath = (source: string): Promise<void> =>
  withClient(plenty, (context) => path(context, source), undefined, TestClock.layer())
