/**
 * Fleets of real processes, and a provider whose log is the judge of what was admitted.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { Job, Outcome } from "./worker.ts"

export interface Entry {
  readonly at: number
  readonly process: string
  readonly agent: number
  readonly tokens: number
}

export interface Provider {
  readonly url: string
  readonly log: ReadonlyArray<Entry>
  readonly inFlight: () => number
  readonly peak: () => number
  readonly stop: () => Promise<void>
}

/** Notes every call as it arrives, and answers after a while. */
export const provider = async (latencyMillis: number): Promise<Provider> => {
  const log: Array<Entry> = []
  let inFlight = 0
  let peak = 0
  const server = createServer((request, response) => {
    const at = performance.now()
    let body = ""
    let open = true
    const end = () => {
      if (open) inFlight--
      open = false
    }
    peak = Math.max(peak, ++inFlight)
    response.on("close", end)
    request.on("data", (chunk) => (body += chunk))
    request.on("end", () => {
      log.push({ at, ...(JSON.parse(body) as Omit<Entry, "at">) })
      setTimeout(() => {
        end()
        response.end("{}")
      }, latencyMillis)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}/`,
    log,
    inFlight: () => inFlight,
    peak: () => peak,
    stop: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    }
  }
}

/** The most that any span of the log holds beyond what the rate gives in it: the burst that the provider saw. */
export const burstOf = (log: ReadonlyArray<Entry>, ratePerSecond: number): number => {
  const sorted = [...log].sort((a, b) => a.at - b.at)
  let level = 0
  let most = 0
  let before = sorted[0]?.at ?? 0
  for (const { at, tokens } of sorted) {
    level = Math.max(0, level - (ratePerSecond * (at - before)) / 1_000) + tokens
    most = Math.max(most, level)
    before = at
  }
  return most
}

/** Jain's index of what each process got within a span. */
export const jain = (log: ReadonlyArray<Entry>, from: number, to: number): number => {
  const sums = new Map<string, number>()
  for (const { at, process, tokens } of log) {
    if (at >= from && at < to) sums.set(process, (sums.get(process) ?? 0) + tokens)
  }
  const values = [...sums.values()]
  const sum = values.reduce((a, b) => a + b, 0)
  return sum ** 2 / (values.length * values.reduce((a, b) => a + b * b, 0))
}

export interface Worker {
  readonly child: ChildProcess
  readonly ready: Promise<void>
  readonly go: () => void
  /** What it said at its end; `undefined` when it was killed. */
  readonly outcome: Promise<Outcome | undefined>
}

const script = fileURLToPath(new URL("./worker.ts", import.meta.url))

export const worker = (job: Job): Worker => {
  const child = spawn(process.execPath, ["--conditions=@floodgate/source", script, JSON.stringify(job)], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  let last: string | undefined
  let isReady: () => void
  const ready = new Promise<void>((resolve) => (isReady = resolve))
  createInterface({ input: child.stdout! }).on("line", (line) => {
    if (line === "ready") isReady()
    else last = line
  })
  child.stdin!.on("error", () => {})
  return {
    child,
    ready,
    go: () => void child.stdin!.write("go\n"),
    outcome: once(child, "close").then(() => (last === undefined ? undefined : (JSON.parse(last) as Outcome)))
  }
}

/** Starts workers together. */
export const start = async (jobs: ReadonlyArray<Job>): Promise<ReadonlyArray<Worker>> => {
  const workers = jobs.map(worker)
  await Promise.all(workers.map(({ ready }) => ready))
  for (const { go } of workers) go()
  return workers
}

/** Numbers from 0 to 1, the same for the same seed. */
export const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

export const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))
