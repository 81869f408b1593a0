/**
 * Serves the gateway in several processes on one port. The first process answers no request: it starts the others, starts one anew that
 * has crashed, hands signals on, and ends when all have ended.
 */
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import cluster, { type Worker } from "node:cluster"
import { availableParallelism } from "node:os"
import process from "node:process"
import { isSea } from "node:sea"
import { ExitError } from "../terminal/commandLine.ts"
import * as Exit from "../terminal/exit.ts"
import * as Print from "../terminal/print.ts"
import * as Reload from "./reload.ts"
import type { GivenSettings } from "./settings.ts"

/** More than the cores of nearly any machine. Each process may take over a gigabyte, and has two connections to Redis. */
const most = 256

/** How many processes serve. */
export const flag = Flag.String("processes").pipe(
  Flag.filterMap(
    (text) => {
      const count = text === "all" ? Math.min(most, availableParallelism()) : Number(text)
      return Option.filter(Option.some(count), () => /^(all|[1-9]\d{0,2})$/.test(text) && count <= most)
    },
    () => `a whole number from 1 to ${most}, or "all" for one on each core`
  ),
  Flag.withMetavar("<n|all>"),
  Flag.withDescription(
    "How many processes serve on the port, to use more than one core; all is one on each. They share limits and caps in --redis (default: 1)"
  ),
  Flag.withDefault(1)
)

/** The flags that concern what only one process can have. */
interface ProcessFlags {
  readonly processes: number
  readonly record: Option.Option<string>
  readonly redis: Option.Option<string>
  readonly state: Option.Option<string>
}

/** Something that several processes cannot have, because each would have its own; undefined if nothing is in the way. */
const obstacle = (given: ProcessFlags, settings: GivenSettings, nameOf: (place: string) => string) => {
  if (Option.isNone(given.redis)) {
    return "--processes needs --redis, such as --redis redis://127.0.0.1:6379: without it, each process would use the limits alone"
  }
  if (Option.isSome(given.state)) {
    return "--state does not go with --processes: Redis keeps limits and caps, so leave --state out"
  }
  if (Option.isSome(given.record)) {
    return "--record does not go with --processes: sessions are known to one process only, so record with one process"
  }
  if (settings.adminToken !== undefined) {
    return `${nameOf(".adminToken")} does not go with --processes: a key would be added at one process only, so remove it, and change the configuration instead`
  }
  if (settings.requestsToken !== undefined) {
    return `${nameOf(".requestsToken")} does not go with --processes: a list would show the requests of one process only, so remove it`
  }
  return undefined
}

/** Refuses what several processes cannot share. */
export const check = (
  given: ProcessFlags,
  settings: GivenSettings,
  nameOf: (place: string) => string
): Effect.Effect<void, Exit.CommandError> => {
  const why = given.processes === 1 ? undefined : obstacle(given, settings, nameOf)
  return why === undefined ? Effect.void : Effect.fail(Exit.failure("usage", why))
}

// -----------------------------------------------------------------------------
// A process that serves
// -----------------------------------------------------------------------------

/** The part of this process among others that serve with it; undefined if it serves alone. The first says what is odd about the configuration. */
export const partOf = (processes: number): { readonly isFirst: boolean } | undefined =>
  processes === 1 || cluster.worker === undefined ? undefined : { isFirst: cluster.worker.id === 1 }

/** Tells the supervisor that this process listens. If the supervisor is killed, this process ends as after SIGTERM. */
export const listens = (url: string): Effect.Effect<void> =>
  Effect.sync(() => {
    // Otherwise Node ends the process at once, and with it calls that are paid for.
    cluster.worker!.exitedAfterDisconnect = true
    process.once("disconnect", () => process.kill(process.pid, "SIGTERM"))
    process.send!({ url })
  })

// -----------------------------------------------------------------------------
// The supervisor
// -----------------------------------------------------------------------------

/** How a process has ended. */
interface Ended {
  /** Undefined if a signal has ended it. */
  readonly code: number | undefined
  readonly how: string
}

/** Whether a process knows the current configuration: one that starts may have read an earlier one, and a SIGHUP would end it. */
type WorkerState = "starts" | "outdated" | "serves"

type Workers = Map<Worker, WorkerState>

/** Waits until a process has ended, and ends it if nobody waits any more. */
const life = (workers: Workers, listening: (url: string) => void): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const worker = cluster.fork()
    workers.set(worker, "starts")
    const ended = (code: number | undefined, how: string): void => {
      workers.delete(worker)
      resume(Effect.succeed({ code, how }))
    }
    worker.on("message", ({ url }: { readonly url: string }) => {
      if (workers.get(worker) === "outdated") worker.process.kill("SIGHUP")
      workers.set(worker, "serves")
      listening(url)
    })
    worker.on("exit", (code: number | null, signal: string | null) =>
      ended(
        signal === null ? (code ?? undefined) : undefined,
        signal === null ? `ended with code ${code}` : `was ended by ${signal}`
      )
    )
    worker.on("error", ({ message }) => {
      // Of a process that has started, this is a message that it could not receive any more. It ends, too.
      if (worker.process.pid === undefined) ended(undefined, `did not start (${message})`)
    })
    return Effect.callback<void>((done) => {
      if (!workers.has(worker)) return done(Effect.void)
      worker.on("exit", () => done(Effect.void))
      worker.process.kill("SIGTERM")
    })
  })

/** So many ends in a row before a process listened, and it is not started again. */
const maxFailures = 5
const [firstDelay, longestDelay] = [1_000, 30_000]
/** A process that ran for so long was well. */
const steadyMillis = 60_000

/** The memory of the processes at a place: how many have ended in a row, and how many of those before they listened. */
interface ProcessEnds {
  readonly crashes: number
  readonly failures: number
}

/** The milliseconds until another process starts after one that ran for so long; undefined if none does. Pure. */
export const restart = (
  { crashes, failures }: ProcessEnds,
  hasListened: boolean,
  lasted: number
): { readonly ends: ProcessEnds; readonly delay: number | undefined } => {
  const ends = { crashes: lasted >= steadyMillis ? 1 : crashes + 1, failures: hasListened ? 0 : failures + 1 }
  const delay = Math.min(longestDelay, firstDelay * 2 ** (ends.crashes - 1))
  return { ends, delay: ends.failures < maxFailures ? delay : undefined }
}

/** Keeps a process running. Fails if it cannot listen. */
const keep = Effect.fnUntraced(function* (place: number, workers: Workers, up: Deferred.Deferred<string>) {
  let ends: ProcessEnds = { crashes: 0, failures: 0 }
  while (true) {
    const since = yield* Clock.currentTimeMillis
    let hasListened = false
    const { code, how } = yield* life(workers, (url) => {
      hasListened = true
      Deferred.doneUnsafe(up, Effect.succeed(url))
    })
    const next = restart(ends, hasListened, (yield* Clock.currentTimeMillis) - since)
    ends = next.ends
    const isUsable = place > 1 || (yield* Deferred.isDone(up))
    if (isUsable && next.delay !== undefined) {
      yield* Print.err(`Process ${place} ${how}; another starts in ${next.delay / 1_000} s`)
      yield* Effect.sleep(next.delay)
      continue
    }
    // The first process of all has said itself why it cannot listen, unless a signal has ended it.
    if (isUsable)
      yield* Print.err(`Process ${place} ${how} before it listened, ${ends.failures} times: the gateway closes`)
    else if (code === undefined) yield* Print.err(`Process ${place} ${how} before it listened`)
    return yield* new ExitError({ code: code || Exit.codes.failed })
  }
})

/** Serves with so many processes until this one is stopped. The first must listen before the others start. */
const supervised = Effect.fnUntraced(function* (processes: number, closing: Effect.Effect<void>) {
  // In the single executable there is no file to run, and Node passes the arguments on behind the first of them.
  if (isSea()) cluster.setupPrimary({ exec: process.argv[2]!, args: process.argv.slice(3), execArgv: [] })
  const workers: Workers = new Map()
  const hungUp = Effect.sync(() => {
    for (const [worker, state] of workers) {
      if (state === "serves") worker.process.kill("SIGHUP")
      else workers.set(worker, "outdated")
    }
  })
  yield* Effect.forkScoped(
    Stream.runForEach(Reload.hangups, () => hungUp),
    { startImmediately: true }
  )
  const up = yield* Effect.replicateEffect(Deferred.make<string>(), processes)
  const kept = up.map((listening, index) => {
    const process = keep(index + 1, workers, listening)
    return index === 0 ? process : Effect.andThen(Deferred.await(up[0]!), process)
  })
  const told = Effect.gen(function* () {
    const [url] = yield* Effect.forEach(up, (listening) => Deferred.await(listening))
    yield* Print.out(`floodgate gateway listening on ${url} in ${processes} processes`)
    return yield* Effect.onInterrupt(Effect.never, () => closing)
  })
  return yield* Effect.all([told, ...kept], { concurrency: "unbounded", discard: true })
}, Effect.scoped)

/** Supervises so many processes; undefined if this process is to serve itself. */
export const supervise = (processes: number, closing: Effect.Effect<void>) =>
  processes > 1 && cluster.isPrimary ? supervised(processes, closing) : undefined
