/**
 * What the gateway costs, beside a bare reverse proxy, earlier commits, Fastify's proxy and Portkey's gateway, in front of a
 * provider that answers at once, over loopback.
 *
 *     npm run -s bench -- gateway
 *         [--against COMMIT,COMMIT]    the gateways of other commits, too
 *         [--rivals]                   Fastify and Portkey, too: npm ci --prefix benchmark/gateway/rivals
 *         [--cells w4,w100,w400,spread,burst] [--connections 16,64,1000]
 *         [--runs 3] [--rounds 3] [--seconds 0.5] [--warmup 6]
 *         [--quick]                    only shows that it runs
 *
 * Every proxy is a process of its own, and the callers and the provider share this one, so that two cores are enough. A run
 * starts all of them anew, because two processes of one program may differ by a fifth for good: they have compiled it
 * differently. It takes tens of thousands of requests until all code is compiled, so each warms up for half a minute: until then, a
 * request through the gateway takes up to twice as long. Within a run they take turns (see `support/inTurns.ts`). A figure is the median
 * of the runs, with the lowest and the highest. Bodies are those of coding agents (`support/bodies.ts`); whole answers have 4 KB.
 *
 * A closed loop counts the processor time that a proxy takes for a request, and requests a second. Bodies of 100 and 400 KB are
 * sent over at most 64 connections. Delay is an open loop of 4 KB, at 70 % of what `http-proxy-3`, or a slower gateway, took in
 * the closed loop of the same run. Memory is that of the installed command, after `npm run build`.
 */
import { parseArgs } from "node:util"
import { thousands } from "../src/domain/words.ts"
import { type Cell, cells as shapes } from "./gateway/cells.ts"
import { closed, open, quantile } from "./gateway/load.ts"
import { memory } from "./gateway/memory.ts"
import { end, gatewayOf, hasRivals, portkey, type Server, server } from "./gateway/processes.ts"
import * as Upstream from "./gateway/upstream.ts"
import { inTurns, type Measured, spreadOf, tableOf } from "./support/inTurns.ts"
import { machine, progress } from "./support/progress.ts"

const { values } = parseArgs({
  options: {
    against: { type: "string", default: "" },
    cells: { type: "string", default: Object.keys(shapes).join() },
    connections: { type: "string" },
    quick: { type: "boolean", default: false },
    rivals: { type: "boolean", default: false },
    rounds: { type: "string" },
    runs: { type: "string" },
    seconds: { type: "string" },
    warmup: { type: "string" }
  }
})
const { quick } = values
const seconds = Number(values.seconds ?? (quick ? 0.05 : 0.5))
const warmup = Number(values.warmup ?? (quick ? 0.05 : 6))
const rounds = Number(values.rounds ?? (quick ? 1 : 3))
const runs = Number(values.runs ?? (quick ? 1 : 3))
const connections = (values.connections ?? (quick ? "4" : "16,64,1000")).split(",").map(Number)
const commits = values.against.split(",").filter((commit) => commit !== "")
const cells = values.cells.split(",").map((name): Cell => {
  const shape = shapes[name]
  if (shape === undefined) throw new Error(`--cells ${name}: expected some of ${Object.keys(shapes).join()}`)
  return shape()
})
if (values.rivals && !hasRivals()) throw new Error("--rivals: first npm ci --prefix benchmark/gateway/rivals")

const upstream = await Upstream.start()
const direct: Server = { name: "without a proxy", url: upstream.url, headers: {}, child: undefined }
const base = "http-proxy-3"

const startAll = async (): Promise<ReadonlyArray<Server>> => {
  const servers = [await server(base, upstream.url), await server("floodgate", upstream.url)]
  for (const commit of commits) servers.push(await gatewayOf(commit, upstream.url))
  if (values.rivals) servers.push(await server("@fastify/http-proxy", upstream.url), await portkey(upstream.url))
  return servers
}

/** Portkey's streams fail on Node 24, because it appends to immutable headers. */
const canTake = (to: Server, { name }: Cell): boolean =>
  !(to.name === "@portkey-ai/gateway" && name.startsWith("streamed"))

// -----------------------------------------------------------------------------
// A run
// -----------------------------------------------------------------------------

interface Closed {
  readonly title: string
  readonly measured: ReadonlyArray<Measured>
  /** Requests a second without a proxy: a proxy that comes near is not what limits them. */
  readonly most: number
}

interface Opened {
  readonly rate: number
  readonly slowest: string
  readonly delays: ReadonlyMap<string, Readonly<Record<Part, number>>>
}
type Part = "p50" | "p99" | "p50 over" | "p99 over"

const closedLoops = async (servers: ReadonlyArray<Server>): Promise<ReadonlyArray<Closed>> => {
  const found: Array<Closed> = []
  for (const cell of cells) {
    const taking = servers.filter((to) => canTake(to, cell))
    for (const count of connections.filter((count) => count <= cell.most)) {
      progress(`${cell.name}, ${count} connections`)
      const bare = await closed(direct, count, cell.bodies, seconds)
      const contenders = taking.map((to) => ({ name: to.name, turn: () => closed(to, count, cell.bodies, seconds) }))
      const measured = await inTurns(contenders, { rounds, warmups: 0, base })
      found.push({ title: `${cell.name}, ${count} connections`, measured, most: bare.count / bare.seconds })
    }
  }
  return found
}

/** The open loop, at a rate that each of ours can take for long. */
const openLoop = async (servers: ReadonlyArray<Server>, loops: ReadonlyArray<Closed>): Promise<Opened | undefined> => {
  const cell = cells.find(({ name }) => name === "whole, 4 KB")
  if (cell === undefined) return undefined
  const ours = servers.filter(({ name }) => !name.startsWith("@"))
  const mostOf = ({ name }: Server): number =>
    Math.max(
      ...loops
        .filter(({ title }) => title.startsWith(cell.name))
        .map(({ measured }) => measured.find((each) => each.name === name)!.rate.median)
    )
  const slowest = ours.toSorted((one, other) => mostOf(one) - mostOf(other))[0]!
  const rate = 0.7 * mostOf(slowest)
  progress(`open loop of ${rate.toFixed(0)} a second, 70 % of ${slowest.name}`)
  const found = new Map<string, Array<Readonly<Record<Part, number>>>>()
  for (let round = 0; round < rounds; round++) {
    const inRound = new Map<string, ReadonlyArray<number>>()
    const all = [direct, ...ours]
    for (const to of round % 2 === 0 ? all : all.toReversed())
      inRound.set(to.name, await open(to, rate, cell.bodies, 4 * seconds))
    const least = inRound.get(base)!
    for (const [name, delays] of inRound) {
      const [p50, p99] = [quantile(delays, 0.5), quantile(delays, 0.99)]
      const over = { "p50 over": p50 - quantile(least, 0.5), "p99 over": p99 - quantile(least, 0.99) }
      found.set(name, [...(found.get(name) ?? []), { p50, p99, ...over }])
    }
  }
  const medians = Array.from(found, ([name, each]) => {
    const of = (part: Part): number => spreadOf(each.map((delays) => delays[part])).median
    return [name, { p50: of("p50"), p99: of("p99"), "p50 over": of("p50 over"), "p99 over": of("p99 over") }] as const
  })
  return { rate, slowest: slowest.name, delays: new Map(medians) }
}

const run = async (): Promise<{ readonly loops: ReadonlyArray<Closed>; readonly opened: Opened | undefined }> => {
  const servers = await startAll()
  for (const cell of cells) {
    progress(`warming up: ${cell.name}`)
    for (const to of servers) if (canTake(to, cell)) await closed(to, connections[0]!, cell.bodies, warmup)
  }
  const loops = await closedLoops(servers)
  const opened = await openLoop(servers, loops)
  end()
  return { loops, opened }
}

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

/** The median of the runs, with the lowest and the highest. */
const ofRuns = (found: ReadonlyArray<number>, digits: number): string => {
  const text = (value: number): string => (digits === 0 ? thousands(Math.round(value)) : value.toFixed(digits))
  const median = text(spreadOf(found).median)
  return found.length === 1 ? median : `${median} (${text(Math.min(...found))}-${text(Math.max(...found))})`
}

console.log(machine())
const all: Array<Awaited<ReturnType<typeof run>>> = []
for (let n = 0; n < runs; n++) {
  progress(`run ${n + 1} of ${runs}`)
  all.push(await run())
}

const names = all[0]!.loops.flatMap(({ measured }) => measured.map(({ name }) => name))
const others = [...new Set(names)].filter((name) => name !== base)

const table = (
  what: string,
  digits: number,
  figure: (measured: Measured) => number,
  ratio: (measured: Measured) => number,
  more: ReadonlyArray<readonly [head: string, cell: (loop: Closed) => number]> = []
): string =>
  tableOf(
    [what, ...more.map(([head]) => head), base, ...others.flatMap((name) => [name, "ratio"])],
    all[0]!.loops.map(({ title }, i) => {
      const found = (name: string, of: (measured: Measured) => number, digits: number): string => {
        const each = all.flatMap(({ loops }) => loops[i]!.measured.filter((measured) => measured.name === name).map(of))
        return each.length === 0 ? "" : ofRuns(each, digits)
      }
      return [
        title,
        ...more.map(([, cell]) =>
          ofRuns(
            all.map(({ loops }) => cell(loops[i]!)),
            0
          )
        ),
        found(base, figure, digits),
        ...others.flatMap((name) => [found(name, figure, digits), found(name, ratio, 2)])
      ]
    })
  )

const [micros, rate] = [(each: Measured) => each.micros.median, (each: Measured) => each.rate.median]
console.log(`\n${runs} runs. Ratios are to ${base}, and above 1 is better.\n`)
console.log(table("us of processor time a request", 0, micros, (each) => each.byProcessor.median))
console.log()
console.log(
  table("requests a second", 0, rate, (each) => each.byRate.median, [[direct.name, ({ most }: Closed) => most]])
)

const opened = all.flatMap(({ opened }) => opened ?? [])
if (opened.length > 0) {
  const said = opened.map(({ rate, slowest }) => `${thousands(Math.round(rate))} (of ${slowest})`).join(", ")
  const parts = ["p50", "p99", "p50 over", "p99 over"] as const
  const head = ["p50 in ms", "p99", `p50 over ${base}`, "p99 over it"]
  const rows = Array.from(opened[0]!.delays.keys(), (name) => [
    name,
    ...parts.map((part) =>
      ofRuns(
        opened.map(({ delays }) => delays.get(name)![part]),
        2
      )
    )
  ])
  console.log(`\nAn open loop at 70 % of the slowest, in each run: ${said} requests a second\n`)
  console.log(tableOf(["whole, 4 KB", ...head], rows))
}
if (!quick) for (const line of await memory(upstream.url)) console.log(`\n${line}`)
end()
upstream.close()
