/** Real processes, and a provider whose log shows what was admitted. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Worker as Thread } from "node:worker_threads"
import type { Job, Outcome } from "./worker.ts"

export interface Entry {
  /** The call arrived between these two, in milliseconds since the epoch. */
  readonly from: number
  readonly at: number
  readonly process: string
  readonly agent: number
  readonly tokens: number
}

export interface Provider {
  readonly url: string
  readonly log: ReadonlyArray<Entry>
  /** The most calls that were in flight at once. */
  readonly peak: () => number
  readonly stop: () => Promise<void>
}

/** Notes every call as it arrives, and answers after a while. */
export const provider = async (latencyMillis: number): Promise<Provider> => {
  const log: Array<Entry> = []
  let peak = 0
  const thread = new Thread(new URL("./provider.ts", import.meta.url), { workerData: { latencyMillis } })
  const [{ port }] = (await once(thread, "message")) as [{ readonly port: number }]
  thread.on("message", (heard: { readonly peak: number; readonly entry: Entry }) => {
    peak = heard.peak
    log.push(heard.entry)
  })
  return {
    url: `http://127.0.0.1:${port}/`,
    log,
    peak: () => peak,
    stop: async () => {
      await thread.terminate()
    }
  }
}

/**
 * The most that any span of time holds for certain beyond what the rate gives in it: the burst that the provider saw. A
 * call belongs to a span if both moments between which it arrived do, so what the log cannot tell apart is no excess.
 */
export const burstOf = (log: ReadonlyArray<Omit<Entry, "process" | "agent">>, ratePerSecond: number): number => {
  const sorted = [...log].sort((a, b) => a.at - b.at)
  let most = 0
  for (const { from: start } of sorted) {
    let sum = 0
    for (const { at, from, tokens } of sorted) {
      if (from < start) continue
      sum += tokens
      most = Math.max(most, sum - (ratePerSecond * (at - start)) / 1_000)
    }
  }
  return most
}

/**
 * What a busy machine adds to the way of a call from its process to the provider, now and then: no budget knows of it. A call
 * that is late arrives together with those that were admitted for that time.
 */
const jitterMillis = 50
export const jitter = (ratePerSecond: number): number => (ratePerSecond * jitterMillis) / 1_000

/** How far apart the two moments are at most. */
export const blurOf = (log: ReadonlyArray<Entry>): number => Math.max(...log.map(({ at, from }) => at - from))

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

/** Starts workers together, when all are ready. */
export const start = async (
  jobs: ReadonlyArray<Job>,
  whenReady: () => Promise<unknown> = () => Promise.resolve()
): Promise<ReadonlyArray<Worker>> => {
  const workers = jobs.map(worker)
  await Promise.all(workers.map(({ ready }) => ready))
  await whenReady()
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
