/**
 * What the gateway costs: beside a bare reverse proxy, Fastify's and Portkey's gateway, in front of a provider that answers at
 * once, over loopback. Every server is a process of its own. Fastify and Portkey take part where they are installed:
 * `npm ci --prefix benchmark/gateway/rivals`.
 *
 * Throughput is a closed loop of 16 and of 64 connections, in turns (see `support/inTurns.ts`), by the processor time that each
 * server takes for a request, which is what counts on a busy machine, and by requests a second. Delay is an open loop: 200
 * requests a second, spaced at random, because evenly spaced requests or bursts would measure their own pattern, also in turns,
 * and as the difference from http-proxy-3 in the same round. Memory is that of the installed command, after `npm run build`, with 500
 * open streams and 1,000 calls that wait.
 *
 *     npm run bench -- gateway [--seconds 2] [--rounds 3] [--warmup 10] [--cells w4,w100,spread,burst]
 */
import { Agent, Pool, request } from "@effect/platform-node/Undici"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { availableParallelism, cpus, loadavg } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { inTurns, resultsOf, spreadOf, tableOf, type Turn } from "./support/inTurns.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    warmup: { type: "string", default: "10" },
    cells: { type: "string", default: "w4,w100,spread,burst" }
  }
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)

interface Server {
  readonly name: string
  readonly url: string
  readonly child: ChildProcess
  readonly headers: Readonly<Record<string, string>>
}

const children: Array<ChildProcess> = []
const start = async (
  name: string,
  args: ReadonlyArray<string>,
  headers: Readonly<Record<string, string>> = {}
): Promise<Server> => {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", 2, "ipc"] })
  children.push(child)
  const line = await new Promise((resolve) => child.stdout!.once("data", resolve))
  return { name, url: /http:\S+/.exec(String(line))![0], child, headers }
}

const folder = join(import.meta.dirname, "gateway")
const server = (kind: string, target = "", headers?: Readonly<Record<string, string>>): Promise<Server> =>
  start(kind, [...process.execArgv, join(folder, "server.ts"), kind, target], headers)

/** What is sent and answered. The provider of `gateway/server.ts` reads the shape of its answer from the model's name. */
interface Cell {
  readonly name: string
  readonly model: string
  readonly stream: boolean
  /** The length of the request, in sentences. */
  readonly questions: number
}

const shapes: Readonly<Record<string, Cell>> = {
  w4: { name: "whole, 4 KB", model: "claude-w4", stream: false, questions: 145 },
  w100: { name: "whole, 100 KB", model: "claude-w100", stream: false, questions: 3_800 },
  spread: { name: "streamed with pauses", model: "claude-spread", stream: true, questions: 70 },
  burst: { name: "streamed at once", model: "claude-burst", stream: true, questions: 70 }
}
const cells = values.cells.split(",").map((name) => shapes[name]!)

const bodyOf = ({ model, questions, stream }: Cell): string =>
  JSON.stringify({
    model,
    max_tokens: 400,
    stream,
    messages: [{ role: "user", content: "A question of some length. ".repeat(questions) }]
  })
const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

const call = async (pool: Pool, to: Server, body: string): Promise<void> => {
  const sent = { ...headers, ...to.headers }
  const response = await pool.request({ path: "/v1/messages", method: "POST", headers: sent, body })
  const text = await response.body.text()
  if (response.statusCode !== 200 || text.length < 1_500) throw new Error(`${to.name}: ${response.statusCode}: ${text}`)
}

/** Microseconds of processor time that a server has used so far. */
const spentBy = ({ child }: Server): Promise<number> =>
  new Promise((resolve) => {
    child.once("message", (usage) => {
      const { system, user } = usage as NodeJS.CpuUsage
      resolve(system + user)
    })
    child.send("usage")
  })

/** A closed loop over some connections. */
const closed = async (to: Server, connections: number, body: string, lasting = seconds): Promise<Turn> => {
  const pool = new Pool(to.url, { connections })
  const before = await spentBy(to)
  const started = performance.now()
  const end = started + lasting * 1_000
  let count = 0
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < end) {
        await call(pool, to, body)
        count++
      }
    })
  )
  const took = (performance.now() - started) / 1_000
  const micros = (await spentBy(to)) - before
  await pool.close()
  return { count, micros, seconds: took }
}

/** The delays of 200 requests per second, in milliseconds, sorted. */
const open = async (to: Server, body: string): Promise<ReadonlyArray<number>> => {
  const pool = new Pool(to.url, { connections: 64 })
  const delays: Array<number> = []
  const running: Array<Promise<void>> = []
  const end = performance.now() + 3 * seconds * 1_000
  for (let next = performance.now(); next < end; next += -Math.log(1 - Math.random()) * 5) {
    const wait = next - performance.now()
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
    const started = performance.now()
    running.push(call(pool, to, body).then(() => void delays.push(performance.now() - started)))
  }
  await Promise.all(running)
  await pool.close()
  return delays.sort((one, other) => one - other)
}

const quantile = (all: ReadonlyArray<number>, part: number): number => all[Math.floor((all.length - 1) * part)]!

const upstream = await server("upstream")
const hasRivals = existsSync(join(folder, "rivals/node_modules"))
const servers = [
  { ...upstream, name: "direct" },
  await server("http-proxy-3", upstream.url),
  ...(hasRivals
    ? [
        await server("@fastify/http-proxy", upstream.url),
        await server("@portkey-ai/gateway", upstream.url, {
          "x-portkey-provider": "anthropic",
          "x-portkey-custom-host": `${upstream.url}/v1`
        })
      ]
    : []),
  await server("floodgate", upstream.url)
]

/** Portkey's streams fail on Node 24, because it appends to immutable headers. */
const taking = ({ stream }: Cell): ReadonlyArray<Server> =>
  servers.filter(({ name }) => name !== "direct" && !(stream && name === "@portkey-ai/gateway"))

const machine = `${availableParallelism()} cores of ${cpus()[0]?.model ?? "an unknown processor"}`
console.log(`Node ${process.versions.node}, ${machine} at a load of ${Math.round(loadavg()[0]!)} from other work`)

// Warm up: it takes tens of thousands of requests until all code is compiled.
for (const cell of cells) {
  for (const to of taking(cell)) await closed(to, 16, bodyOf(cell), Number(values.warmup))
}

for (const cell of cells) {
  const body = bodyOf(cell)
  for (const connections of [16, 64]) {
    const contenders = taking(cell).map((to) => ({ name: to.name, turn: () => closed(to, connections, body) }))
    const measured = await inTurns(contenders, { rounds, warmups: 1, base: "http-proxy-3" })
    console.log(`\n${resultsOf(`${cell.name}, ${connections} connections`, "request", measured)}`)
  }
}

/** The delays of a round. A server that was idle for a while would first load its code again, so each begins with requests at once. */
const delayed = async (to: Server): Promise<{ readonly name: string; readonly p50: number; readonly p99: number }> => {
  const body = bodyOf(shapes["w4"]!)
  await closed(to, 16, body, seconds / 2)
  const delays = await open(to, body)
  return { name: to.name, p50: quantile(delays, 0.5), p99: quantile(delays, 0.99) }
}

const delayRounds: Array<ReadonlyArray<Awaited<ReturnType<typeof delayed>>>> = []
for (let round = 0; round < rounds; round++) {
  const measured = []
  for (const to of round % 2 === 0 ? servers : servers.toReversed()) measured.push(await delayed(to))
  delayRounds.push(measured)
}
const delayOf = (name: string, part: "p50" | "p99"): ReadonlyArray<number> =>
  delayRounds.map((round) => round.find((each) => each.name === name)![part])
const median = (values: ReadonlyArray<number>): string => spreadOf(values).median.toFixed(2)
const overBase = (name: string, part: "p50" | "p99"): string =>
  median(delayOf(name, part).map((value, round) => value - delayOf("http-proxy-3", part)[round]!))
const delayHead = [
  "whole, 4 KB, 200 requests a second at random",
  "p50 in ms",
  "p99",
  "p50 over http-proxy-3",
  "p99 over it"
]
const delayRows = servers.map(({ name }) => [
  name,
  median(delayOf(name, "p50")),
  median(delayOf(name, "p99")),
  overBase(name, "p50"),
  overBase(name, "p99")
])
console.log(`\n${tableOf(delayHead, delayRows)}`)
for (const child of children.splice(0)) child.kill()

// ---------------------------------------------------------------------------
// Memory
// ---------------------------------------------------------------------------

const command = join(import.meta.dirname, "../packages/cli/dist/entry.js")

const memoryOf = ({ child }: Server): number =>
  Math.round(Number(execFileSync("ps", ["-o", "rss=", "-p", String(child.pid)], { encoding: "utf8" })) / 1_024)

if (existsSync(command)) {
  const endless = await server("endless")
  const flags = ["--port", "0", "--concurrency", "500", "--upstream", `anthropic=${endless.url}`]
  // As docs/gateway/Dockerfile and floodgate.service start it.
  const gateway = await start("floodgate gateway", ["--max-semi-space-size=8", command, "gateway", ...flags])
  const atFirst = memoryOf(gateway)
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 })
  const ask = () =>
    request(`${gateway.url}/v1/messages`, {
      method: "POST",
      headers,
      body: bodyOf(shapes["burst"]!),
      dispatcher: agent
    })
  const streams = await Promise.all(Array.from({ length: 500 }, ask))
  for (const { body } of streams) void body.text().catch(() => {})
  for (let count = 0; count < 1_000; count++) void ask().catch(() => {})
  const waits = async (): Promise<number> =>
    Number(/^floodgate_gateway_open (\d+)/m.exec(await (await fetch(`${gateway.url}/metrics`)).text())?.[1])
  while ((await waits()) < 1_500) await new Promise((resolve) => setTimeout(resolve, 50))
  console.log(
    `\nmemory of the command: ${atFirst} MB at first, ${memoryOf(gateway)} MB with 500 streams and 1,000 calls that wait`
  )
  await agent.destroy()
} else console.log("\nmemory: not measured, because the command is not built (npm run build)")
for (const child of children) child.kill()
