/**
 * Operations per second on one Redis server, with 1 and with 64 calls in flight, side by side with other limiters on the
 * same server: `npm run -s bench -- redis`. Nothing waits for a limit. Needs redis-server on the PATH.
 *
 * A call reserves and then settles to its usage. The other limiters count a call once and never correct it.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import Bottleneck from "bottleneck"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "@floodgate/redis"
import IORedis from "ioredis"
import { RateLimiterRedis } from "rate-limiter-flexible"
import { createClient } from "redis"
import { thousands } from "../src/domain/words.ts"
import * as Redis from "../packages/redis/test/server.ts"

const rounds = 10
const roundMillis = 500
const warmUpMillis = 500
const plenty = 1_000_000_000

interface Contender {
  readonly name: string
  readonly call: () => Promise<unknown>
  readonly close: () => Promise<unknown>
}

const server = await Redis.start()

/** Builds a layer and keeps it until it is closed. */
const keep = async <A>(layer: Layer.Layer<A>) => {
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  return { context, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const floodgate = async (): Promise<Contender> => {
  const { close, context } = await keep(
    Budget.layer({ limits: { tokens: { perSecond: plenty, burst: plenty } } }).pipe(
      Layer.provide(FloodgateRedis.layerStoreUrl({ url: server.url }))
    )
  )
  const call = Effect.provide(
    Budget.withReservation({ tokens: 100 }, (reservation) => reservation.settle({ tokens: 90 })),
    context
  )
  return { name: "@floodgate/redis (reserve + settle)", call: () => Effect.runPromise(call), close }
}

const effect = async (): Promise<Contender> => {
  const { close, context } = await keep(
    RateLimiter.layer.pipe(
      Layer.provide(RateLimiter.layerStoreRedis({ prefix: "effect" })),
      Layer.provide(NodeRedis.layer({ url: server.url })),
      Layer.orDie
    )
  )
  const call = Effect.provide(
    Effect.flatMap(RateLimiter.RateLimiter, (limiter) =>
      limiter.consume({
        key: "k",
        algorithm: "token-bucket",
        onExceeded: "delay",
        limit: plenty,
        window: "1 second",
        tokens: 100
      })
    ),
    context
  )
  return { name: "effect persistence/RateLimiter", call: () => Effect.runPromise(call), close }
}

const flexible = async (): Promise<Contender> => {
  const client = createClient({ url: server.url })
  await client.connect()
  const limiter = new RateLimiterRedis({ storeClient: client, useRedisPackage: true, points: plenty, duration: 60 })
  return { name: "rate-limiter-flexible", call: () => limiter.consume("k", 100), close: async () => client.destroy() }
}

const bottleneck = async (): Promise<Contender> => {
  const limiter = new Bottleneck({
    id: "bench",
    datastore: "ioredis",
    Redis: IORedis,
    clientOptions: { host: "127.0.0.1", port: Number(new URL(server.url).port) },
    clearDatastore: true,
    reservoir: plenty,
    maxConcurrent: 1_000
  })
  await limiter.ready()
  return {
    name: "bottleneck, cluster mode",
    call: () => limiter.schedule({ weight: 1, expiration: 60_000 }, () => Promise.resolve()),
    close: () => limiter.disconnect()
  }
}

const figures = async () => {
  const stats = String(await server.command("INFO", "commandstats"))
  const calls = [...stats.matchAll(/cmdstat_(?:evalsha|eval):calls=(\d+),usec=(\d+)/g)]
  const net = String(await server.command("INFO", "stats"))
  return {
    scripts: calls.reduce((sum, [, count]) => sum + Number(count), 0),
    micros: calls.reduce((sum, [, , micros]) => sum + Number(micros), 0),
    bytes: Number(/total_net_input_bytes:(\d+)/.exec(net)![1]) + Number(/total_net_output_bytes:(\d+)/.exec(net)![1])
  }
}

const loop = async (call: () => Promise<unknown>, inFlight: number, millis: number): Promise<number> => {
  const end = performance.now() + millis
  let count = 0
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (performance.now() < end) {
        await call()
        count++
      }
    })
  )
  return count
}

interface Row {
  readonly name: string
  readonly inFlight: number
  /** Calls per second of each round. */
  readonly perSecond: Array<number>
  count: number
  scripts: number
  bytes: number
  micros: number
}

// In rounds, one contender after the other. The best round counts, because other load only makes a round slower.
const contenders = [await floodgate(), await effect(), await flexible(), await bottleneck()]
const rows: Array<Row> = []
for (const inFlight of [1, 64]) {
  const measured = contenders.map(({ name }): Row => ({
    name,
    inFlight,
    perSecond: [],
    count: 0,
    scripts: 0,
    bytes: 0,
    micros: 0
  }))
  for (const { call } of contenders) await loop(call, inFlight, warmUpMillis)
  for (let round = 0; round < rounds; round++) {
    for (const [i, { call }] of contenders.entries()) {
      const row = measured[i]!
      const before = await figures()
      const start = performance.now()
      const count = await loop(call, inFlight, roundMillis)
      row.perSecond.push((1_000 * count) / (performance.now() - start))
      const after = await figures()
      row.count += count
      row.scripts += after.scripts - before.scripts
      row.bytes += after.bytes - before.bytes
      row.micros += after.micros - before.micros
    }
  }
  rows.push(...measured)
}
for (const contender of contenders) await contender.close()
await server.stop()

console.log("| limiter | in flight | calls/s | round trips per call | bytes per call | Redis µs per call |")
console.log("|---|---|---|---|---|---|")
for (const { bytes, count, inFlight, micros, name, perSecond, scripts } of rows.toSorted((a, b) =>
  a.name.localeCompare(b.name)
)) {
  console.log(
    `| ${name} | ${inFlight} | ${thousands(Math.round(Math.max(...perSecond)))} | ${(scripts / count).toFixed(2)} | ${Math.round(bytes / count)} | ${Math.round(micros / count)} |`
  )
}

/** How many times as fast as another limiter, with 64 calls in flight. */
const timesAsFast = (name: string): number => {
  const best = (start: string) =>
    Math.max(...rows.find((row) => row.name.startsWith(start) && row.inFlight === 64)!.perSecond)
  return best("@floodgate") / best(name)
}
const bars = [
  { what: "x persistence/RateLimiter at 64 in flight", seen: timesAsFast("effect"), holds: (x: number) => x >= 0.9 },
  { what: "x bottleneck at 64 in flight", seen: timesAsFast("bottleneck"), holds: (x: number) => x >= 10 },
  {
    what: "round trips per call at most",
    seen: Math.max(...rows.filter(({ name }) => name.startsWith("@floodgate")).map((row) => row.scripts / row.count)),
    holds: (x: number) => x <= 1.1
  }
]
console.log("")
for (const { holds, seen, what } of bars) console.log(`${holds(seen) ? "holds " : "MISSED"} ${seen.toFixed(2)} ${what}`)
process.exit(bars.every(({ holds, seen }) => holds(seen)) ? 0 : 1)
