/**
 * A real engine: llama.cpp by its bindings for Node, with a small model of random weights, behind a server with a number of slots that
 * queues any number of calls: `npm run -s bench -- engine`. Agents call it in streams with fixed numbers of calls in flight, without a limiter,
 * and with the measured limit of Floodgate. Calls are given up after three times the mean time of a call while all slots are used.
 * It takes about 4 minutes, on a machine where nothing else runs.
 *
 *     --slots N      (16)
 *     --agents N     (80)
 *     --seconds N    what counts of each run, after 5 seconds (15)
 *
 * The bindings are installed from npm into `node_modules/.cache/engine`, and the model is written beside them.
 */
import * as Floodgate from "floodgate/promise"
import { fork, spawnSync } from "node:child_process"
import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { setTimeout as sleep } from "node:timers/promises"
import * as Model from "./engine/model.ts"
import * as Prng from "./weather/prng.ts"

const { values } = parseArgs({
  options: {
    slots: { type: "string", default: "16" },
    agents: { type: "string", default: "80" },
    seconds: { type: "string", default: "15" }
  }
})
const slots = Number(values.slots)
const agents = Number(values.agents)
const seconds = Number(values.seconds)
const settlingSeconds = 5

// -----------------------------------------------------------------------------
// The engine
// -----------------------------------------------------------------------------

const version = "3.22.1"
const platforms: Readonly<Record<string, string>> = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-x64": "mac-x64",
  "darwin-arm64": "mac-arm64-metal",
  "win32-x64": "win-x64"
}
const tools = join(import.meta.dirname, "../node_modules/.cache/engine")
const bindings = join(tools, "node_modules/node-llama-cpp/dist/index.js")

/** Installs the bindings and their binary for this platform alone: those for graphics cards are large. */
const install = (): void => {
  if (existsSync(bindings)) return
  const platform = platforms[`${process.platform}-${process.arch}`]
  if (platform === undefined) throw new Error(`There is no binary for ${process.platform}-${process.arch}`)
  mkdirSync(tools, { recursive: true })
  const packages = [`node-llama-cpp@${version}`, `@node-llama-cpp/${platform}@${version}`]
  const flags = ["--prefix", tools, "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--save=false"]
  const { status } = spawnSync("npm", ["install", ...flags, ...packages], { stdio: ["ignore", "ignore", "inherit"] })
  if (status !== 0) throw new Error("The bindings cannot be installed: is there a registry?")
}

/** Starts the server. Returns its address, and how it is stopped. */
const start = async (): Promise<{ readonly url: string; readonly stop: () => void }> => {
  install()
  const model = join(tools, "random.gguf")
  Model.write(model)
  const server = fork(join(import.meta.dirname, "engine/server.ts"), [bindings, model, String(slots)])
  const port = await new Promise<number>((resolve, reject) => {
    server.once("message", (port: number) => resolve(port))
    server.once("exit", (code) => reject(new Error(`The server ended with ${code}`)))
  })
  return { url: `http://127.0.0.1:${port}/v1/chat/completions`, stop: () => server.disconnect() }
}

// -----------------------------------------------------------------------------
// Clients
// -----------------------------------------------------------------------------

/** Sends a request when it may be sent, and gives it up after a timeout, which then begins. */
type Send = (url: string, body: string) => Promise<Response>

/** A client, and what ends it. */
interface Client {
  readonly send: Send
  readonly end: () => Promise<void>
}
type MakeClient = (fetch: typeof globalThis.fetch) => Client

const asks = (body: string): RequestInit => ({
  method: "POST",
  body,
  headers: { authorization: "Bearer none", "content-type": "application/json" }
})

/** A number of requests in flight. A request ends with its stream, so the caller says when. */
const fixed =
  (limit: number) =>
  (fetch: typeof globalThis.fetch): Client => {
    const queue: Array<() => void> = []
    let inFlight = 0
    const next = (): void => {
      inFlight--
      queue.shift()?.()
    }
    const send: Send = async (url, body) => {
      if (inFlight >= limit) await new Promise<void>((resolve) => queue.push(resolve))
      inFlight++
      try {
        const text = await (await fetch(url, asks(body))).text()
        return new Response(text)
      } finally {
        next()
      }
    }
    return { send, end: () => Promise.resolve() }
  }

const measured: MakeClient = (fetch) => {
  const floodgate = Floodgate.create({ fetch, concurrency: "measured", retry: { attempts: 1 } })
  return { send: (url, body) => floodgate.fetch(url, asks(body)), end: floodgate.dispose }
}

// -----------------------------------------------------------------------------
// Runs
// -----------------------------------------------------------------------------

interface Result {
  readonly tokensPerSecond: number
  readonly meanMillis: number
  readonly p95Seconds: number
  readonly lost: number
  readonly answered: number
}

/** Makes calls for some seconds. The times are those of whole calls, from the wish to the end of the answer. */
const run = async (url: string, make: MakeClient, timeoutMillis: number): Promise<Result> => {
  const stopped = new AbortController()
  const { end, send } = make((input, init) => {
    const signals = [stopped.signal, ...(init?.signal ? [init.signal] : [])]
    if (timeoutMillis < Infinity) signals.push(AbortSignal.timeout(timeoutMillis))
    return fetch(input, { ...init, signal: AbortSignal.any(signals) })
  })
  const startedAt = performance.now()
  const counts = (): boolean => !stopped.signal.aborted && performance.now() > startedAt + 1_000 * settlingSeconds
  const times: Array<number> = []
  let tokens = 0
  let lost = 0
  let problem: unknown
  const agent = async (index: number): Promise<void> => {
    const random = Prng.make(1, index)
    while (!stopped.signal.aborted) {
      const letters = Math.round(20 + 60 * random.next())
      const output = Math.round(Math.min(120, Math.max(8, random.lognormal(30, 0.6))))
      const messages = [{ role: "user", content: "x".repeat(letters) }]
      const body = {
        model: "random",
        max_tokens: output,
        stream: true,
        stream_options: { include_usage: true },
        messages
      }
      const at = performance.now()
      try {
        await (await send(url, JSON.stringify(body))).text()
        if (!counts()) continue
        tokens += output
        times.push(performance.now() - at)
      } catch (error) {
        problem = error
        if (counts()) lost++
        await sleep(200)
      }
    }
  }
  const all = Array.from({ length: agents }, (_, index) => agent(index))
  await sleep(1_000 * (settlingSeconds + seconds))
  stopped.abort()
  await end()
  await Promise.allSettled(all)
  if (times.length === 0) throw new Error("No call was answered", { cause: problem })
  times.sort((a, b) => a - b)
  return {
    tokensPerSecond: tokens / seconds,
    meanMillis: times.reduce((sum, time) => sum + time, 0) / times.length,
    p95Seconds: (times[Math.ceil(0.95 * times.length) - 1] ?? Number.NaN) / 1_000,
    lost,
    answered: times.length
  }
}

const { stop, url } = await start()
const cells = ({ answered, lost, p95Seconds, tokensPerSecond }: Result): string =>
  `${tokensPerSecond.toFixed(0)} | ${p95Seconds.toFixed(1)} s | ${((100 * lost) / (lost + answered)).toFixed(1)} %`

// The agents always want more, so the time of a call in a slot follows from how many are answered.
const full = await run(url, fixed(slots), Infinity)
const callMillis = (1_000 * slots * seconds) / full.answered
// A signal takes whole milliseconds only.
const timeout = Math.ceil(3 * callMillis)
console.log(
  `${slots} slots, ${agents} agents; a call takes ${(callMillis / 1_000).toFixed(2)} s while all slots are used,`
)
console.log(`and is given up after ${(timeout / 1_000).toFixed(2)} s. One core has the engine.\n`)
console.log("| calls in flight | tokens/s | p95 | lost |\n| --- | --- | --- | --- |")
const numbers = [...new Set([1, ...[0.5, 0.75, 1, 1.25, 1.5, 2].map((part) => Math.round(part * slots))])]
let best: Result | undefined
for (const number of numbers) {
  const result = await run(url, fixed(number), timeout)
  if (best === undefined || result.tokensPerSecond > best.tokensPerSecond) best = result
  console.log(`| ${number} | ${cells(result)} |`)
}
console.log(`| no limiter | ${cells(await run(url, fixed(Infinity), timeout))} |`)
const ours = await run(url, measured, timeout)
console.log(`| measured | ${cells(ours)} |`)
console.log(`\nmeasured / best fixed number: ${(ours.tokensPerSecond / best!.tokensPerSecond).toFixed(3)}`)
stop()
