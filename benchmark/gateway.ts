/**
 * What the gateway costs: beside a bare reverse proxy, in front of a provider that answers at once, over loopback. Every
 * server is a process of its own.
 *
 * Throughput is a closed loop of 16 and of 64 connections, in turns. Delay is an open loop: 200 requests a second, spaced at
 * random, because evenly spaced ones or bursts would measure themselves.
 *
 *     npm run bench -- gateway [--seconds 2] [--rounds 3]
 */
import { Pool } from "@effect/platform-node/Undici"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { parseArgs } from "node:util"

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "2" }, rounds: { type: "string", default: "3" } }
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)

const children: Array<ReturnType<typeof spawn>> = []
const start = (kind: string, target = ""): Promise<string> => {
  const file = join(import.meta.dirname, "gateway/server.ts")
  const child = spawn(process.execPath, [...process.execArgv, file, kind, target], { stdio: ["ignore", "pipe", 2] })
  children.push(child)
  return new Promise((resolve) => child.stdout!.once("data", (line) => resolve(String(line).trim())))
}

const bodyOf = (stream: boolean): string =>
  JSON.stringify({
    model: "claude-sonnet-5",
    max_tokens: 400,
    stream,
    messages: [{ role: "user", content: "A question of some length. ".repeat(70) }]
  })
const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

const call = async (pool: Pool, body: string): Promise<void> => {
  const response = await pool.request({ path: "/v1/messages", method: "POST", headers, body })
  const text = await response.body.text()
  if (response.statusCode !== 200 || text.length < 1_500) throw new Error(`${response.statusCode}: ${text}`)
}

/** Requests a second of so many connections, each of which sends its next when it has its answer. */
const closed = async (url: string, connections: number, body: string): Promise<number> => {
  const pool = new Pool(url, { connections })
  const end = performance.now() + seconds * 1_000
  let done = 0
  const started = performance.now()
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < end) {
        await call(pool, body)
        done++
      }
    })
  )
  const spent = performance.now() - started
  await pool.close()
  return (done * 1_000) / spent
}

/** The delays of requests that come 200 a second, in milliseconds, sorted. */
const open = async (url: string, body: string): Promise<ReadonlyArray<number>> => {
  const pool = new Pool(url, { connections: 64 })
  const delays: Array<number> = []
  const running: Array<Promise<void>> = []
  const end = performance.now() + 2 * seconds * 1_000
  for (let next = performance.now(); next < end; next += -Math.log(1 - Math.random()) * 5) {
    const wait = next - performance.now()
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
    const started = performance.now()
    running.push(call(pool, body).then(() => void delays.push(performance.now() - started)))
  }
  await Promise.all(running)
  await pool.close()
  return delays.sort((one, other) => one - other)
}

const median = (all: ReadonlyArray<number>): number => all.toSorted((one, other) => one - other)[all.length >> 1]!
const quantile = (all: ReadonlyArray<number>, part: number): number => all[Math.floor((all.length - 1) * part)]!

const upstream = await start("upstream")
const servers = [
  ["direct", upstream],
  ["http-proxy-3", await start("http-proxy-3", upstream)],
  ["floodgate", await start("floodgate", upstream)]
] as const

for (const [, url] of servers) await closed(url, 16, bodyOf(false))

for (const stream of [false, true]) {
  const body = bodyOf(stream)
  for (const connections of [16, 64]) {
    const found = new Map<string, Array<number>>(servers.map(([name]) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const [name, url] of servers) found.get(name)!.push(await closed(url, connections, body))
    }
    const bare = median(found.get("http-proxy-3")!)
    console.log(`\n${stream ? "streamed" : "whole"}, ${connections} connections, requests a second (of http-proxy-3)`)
    for (const [name, all] of found) {
      const rate = median(all)
      console.log(`  ${name.padEnd(14)} ${Math.round(rate).toString().padStart(6)}  ${(rate / bare).toFixed(2)}`)
    }
  }
}

console.log("\nwhole, 200 requests a second at random, delay in ms")
for (const [name, url] of servers) {
  const delays = await open(url, bodyOf(false))
  console.log(`  ${name.padEnd(14)} p50 ${quantile(delays, 0.5).toFixed(2)}  p99 ${quantile(delays, 0.99).toFixed(2)}`)
}

for (const child of children) child.kill()
