/**
 * What the public benchmark "On the Bench" (github.com/GetBusbar/benchmarking) measures of gateways, by its method but not with
 * its tools: the gateway beside http-proxy-3 and, where it is installed, Portkey's (`npm ci --prefix benchmark/gateway/rivals`).
 *
 *     npm run -s bench -- onTheBench
 *         [--only latency,frontier,streams,memory]
 *         [--bodies 0.13,4,100]                        KB of a request; the public benchmark has 0.13
 *         [--seconds 1.2] [--rounds 3]
 *         [--quick]                                    only shows that it runs
 *
 * The provider answers without a delay. Latency is the p99 over one connection, less that without a proxy. The frontier is the
 * most requests a second of a sweep of connections with a p99 within a bound, if none fails. Streams have 64 pieces, 20 ms apart: at
 * once go as many as lose no piece and have no gap of more than ten pauses, and as many whose p99 of gaps is within 5 ms of that
 * without a proxy. Memory is resident: of a new process, under load over 64 connections until it changes by less than 5 % in 3 s,
 * and 6 s after the load.
 *
 * Not as there: 2 cores instead of 4 and 4. The proxy has one process, which has one thread for JavaScript. Callers and provider share
 * another, which competes with it for the cores, so compare rows, and read no row as what a proxy could do alone.
 */
import { parseArgs } from "node:util"
import { thousands } from "../src/domain/words.ts"
import { body } from "./gateway/cells.ts"
import { end, hasRivals, installed, isInstalled, portkey, type Server, server } from "./gateway/processes.ts"
import * as Upstream from "./gateway/upstream.ts"
import { memory, type Rung, rung, streams, type Streams, within } from "./onTheBench/measures.ts"
import { spreadOf, tableOf } from "./support/inTurns.ts"
import { machine, progress } from "./support/progress.ts"

const { values } = parseArgs({
  options: {
    bodies: { type: "string", default: "0.13,4,100" },
    only: { type: "string", default: "latency,frontier,streams,memory" },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" }
  }
})
const { quick } = values
const seconds = Number(values.seconds ?? (quick ? 0.1 : 1.2))
const rounds = Number(values.rounds ?? (quick ? 1 : 3))
const steps = quick ? [1, 4] : [1, 2, 4, 8, 16, 32, 64, 128, 256]
const streamSteps = quick ? [1, 8] : [1, 16, 64, 128, 256, 512, 1_024]
const bounds = [1, 5, 10, 50, 100, Infinity]

const smallest = Buffer.from(
  JSON.stringify({
    model: "claude-small",
    max_tokens: 100,
    stream: false,
    messages: [{ role: "user", content: "A question of some length." }]
  })
)
const bodies = values.bodies.split(",").map((size) => ({
  title: `${size} KB`,
  body: Number(size) < 1 ? smallest : body("whole", 1_000 * Number(size))
}))

const upstream = await Upstream.start()
const direct: Server = { name: "without a proxy", url: upstream.url, headers: {}, child: undefined }
const makes: ReadonlyArray<() => Promise<Server>> = [
  () => server("http-proxy-3", upstream.url),
  () => server("floodgate", upstream.url),
  ...(hasRivals() ? [() => portkey(upstream.url)] : [])
]

const print = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): void =>
  console.log(`\n${tableOf(head, rows)}`)
const millis = (value: number): string => (Number.isFinite(value) ? value.toFixed(2) : "none")

// -----------------------------------------------------------------------------
// One connection, and many
// -----------------------------------------------------------------------------

/** In turns. The difference is taken within a round. */
const latency = async (servers: ReadonlyArray<Server>): Promise<void> => {
  const rows = []
  for (const { body, title } of bodies) {
    progress(`one connection, ${title}`)
    const found = new Map<string, Array<Rung>>(servers.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const to of round % 2 === 0 ? servers : servers.toReversed())
        found.get(to.name)!.push(await rung(to, 1, body, seconds))
    }
    const bare = found.get(direct.name)!
    for (const [name, each] of found) {
      const added = (part: "p50" | "p99"): string =>
        millis(spreadOf(each.map((rung, round) => rung[part] - bare[round]![part])).median)
      rows.push([`${title}, ${name}`, millis(spreadOf(each.map(({ p99 }) => p99)).median), added("p50"), added("p99")])
    }
  }
  print(["one connection", "p99 in ms", "added p50", "added p99"], rows)
}

const frontier = async (servers: ReadonlyArray<Server>): Promise<void> => {
  const rows = []
  for (const { body, title } of bodies) {
    for (const to of servers) {
      progress(`frontier, ${title}: ${to.name}`)
      const rungs: Array<Rung> = []
      for (const connections of steps) rungs.push(await rung(to, connections, body, seconds))
      const failed = rungs.reduce((sum, { failed }) => sum + failed, 0)
      const cells = bounds.map((bound) => {
        const best = within(rungs, bound)
        return best === undefined ? "none" : `${thousands(Math.round(best.perSecond))} (${best.connections})`
      })
      rows.push([`${title}, ${to.name}`, ...cells, String(failed)])
    }
  }
  const head = bounds.map((bound) => (bound === Infinity ? "any p99" : `p99 within ${bound} ms`))
  print(["requests a second (connections)", ...head, "failed"], rows)
}

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

const stallMillis = 200
const closeMillis = 5
const isWhole = ({ failed, longest }: Streams): boolean => failed === 0 && longest <= stallMillis

const streaming = async (servers: ReadonlyArray<Server>): Promise<void> => {
  const sent = body("paced", 4_000, true)
  const bare: Array<Streams> = []
  const rows = []
  for (const to of servers) {
    const found: Array<Streams> = []
    for (const count of streamSteps) {
      progress(`${count} streams: ${to.name}`)
      found.push(await streams(to, count, sent, count === 1 && !quick ? 3 : 1))
      if (!isWhole(found.at(-1)!)) break
    }
    if (to === direct) bare.push(...found)
    const [one, alone] = [found[0]!, bare[0]!]
    const most = found.findLast(isWhole)?.count ?? 0
    const isClose = (each: Streams, n: number): boolean =>
      isWhole(each) && bare[n] !== undefined && each.p99 - bare[n].p99 <= closeMillis
    const close = found.findLast(isClose)?.count ?? 0
    const added = [one.first - alone.first, one.p50 - alone.p50, one.p99 - alone.p99].map((each) =>
      one.failed > 0 ? "fails" : millis(each)
    )
    rows.push([to.name, ...added, thousands(close), thousands(most)])
  }
  const head = [
    "added to the first piece in ms",
    "added to a gap, p50",
    "p99",
    "at once, within 5 ms",
    "at once, whole"
  ]
  print(["streams", ...head], rows)
}

// -----------------------------------------------------------------------------
// Memory
// -----------------------------------------------------------------------------

const unlimited = (): Promise<Server> => {
  const plenty = ["--requests-per-minute", "--input-tokens-per-minute", "--output-tokens-per-minute"]
  return installed(
    upstream.url,
    plenty.flatMap((flag) => [flag, "1000000000000"])
  )
}

const resident = async (): Promise<void> => {
  const isBuilt = isInstalled()
  if (!isBuilt) console.log("\nmemory of floodgate is that of its sources: npm run build for that of the command")
  const rows = []
  for (const make of isBuilt ? [makes[0]!, unlimited, ...makes.slice(2)] : makes) {
    for (const { body, title } of new Set([bodies[0]!, bodies.at(-1)!])) {
      const to = await make()
      progress(`memory, ${title}: ${to.name}`)
      const { idle, isSteady, recovered, steady } = await memory(to, body, quick ? 0.1 : 3)
      to.child!.kill("SIGKILL")
      const cells = [idle, steady, recovered].map((megabytes) => megabytes.toFixed(0))
      rows.push([`${title}, ${to.name}`, ...cells, isSteady ? "yes" : "no"])
    }
  }
  print(["MB", "idle", "under load", "recovered", "was it steady"], rows)
}

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

console.log(machine())
if (!hasRivals()) console.log("without Portkey, which is not installed: npm ci --prefix benchmark/gateway/rivals")
const all: Readonly<Record<string, (servers: ReadonlyArray<Server>) => Promise<void>>> = {
  latency,
  frontier,
  streams: streaming
}
const wanted = values.only.split(",")
const servers = [direct]
for (const make of makes) servers.push(await make())
progress("warming up")
for (const { body } of bodies) for (const to of servers) await rung(to, 16, body, seconds)
for (const [name, measure] of Object.entries(all)) if (wanted.includes(name)) await measure(servers)
end()
if (wanted.includes("memory")) await resident()
end()
upstream.close()
