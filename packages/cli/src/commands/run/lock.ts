/**
 * `run.lock`: only one run at a time writes to an output folder.
 *
 * Node has no file locks. Packages that have know a dead holder only by the age of its file, so that the next run would have to wait,
 * and cannot say which process holds the folder.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
// Effect has no service for processes, so Node tells which process this is and whether another one still runs.
import { hostname } from "node:os"
import { kill, pid as ownPid, uptime } from "node:process"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Output from "@floodgate/gateway/internal/output"
import { oneLine } from "@floodgate/gateway/internal/text"

/** Another run writes to the same folder. */
export class FolderInUse extends Schema.TaggedError<FolderInUse>("floodgate/cli/run/FolderInUse")("FolderInUse", {
  out: Schema.String,
  lock: Schema.String,
  /** The process that holds it, if the lock names one. */
  pid: Schema.UndefinedOr(Schema.Finite),
  /** The host of that process, if it is another one: only that host can tell whether the process still runs. */
  host: Schema.UndefinedOr(Schema.String)
}) {
  readonly exitCode = Exit.codes.file
  override get message(): string {
    const process = this.pid === undefined ? "its lock names no process" : `process ${this.pid}`
    const who = this.host === undefined ? process : `${process} on ${oneLine(this.host)}`
    const gone =
      this.host === undefined
        ? "If there is no such run"
        : "Only that machine can tell whether it still runs; if it does not"
    return `another run (${who}) writes to ${oneLine(this.out)}: wait for its end, or choose another folder. ${gone}, delete ${oneLine(this.lock)}`
  }
}

/** The holder of a lock, from its single line. */
interface LockHolder {
  readonly pid: number
  readonly host: string
  /** Milliseconds since the epoch. */
  readonly since: number
}

const lineOf = ({ host, pid, since }: LockHolder): string => `${pid} ${host} ${since}\n`

const holderOf = (line: string): LockHolder => {
  const [pid = "", host = hostname(), since = ""] = line.trim().split(" ")
  return { pid: Number.parseInt(pid, 10), host, since: Number.parseInt(since, 10) }
}

/**
 * Whether the holder may still run. Signal 0 is never sent: it only checks whether a signal could be, and EPERM means that the
 * process exists. A restarted container gives the same process number again, so for the own number the time of the start decides.
 */
const mayLive = ({ host, pid, since }: LockHolder, now: number): boolean => {
  if (host !== hostname()) return true
  if (!(pid > 0)) return false
  if (pid === ownPid) return since >= now - 1_000 * uptime()
  try {
    return kill(pid, 0)
  } catch (error) {
    return (error as { readonly code?: unknown }).code === "EPERM"
  }
}

/** A longer file is not a lock: its line has only a process, a host and a time. */
const maxBytes = 4_096

/** Reads the line of a lock; undefined if the lock no longer exists. A lock that was just created may still be empty. */
const lineIn = Effect.fnUntraced(function* (lock: string) {
  const fs = yield* FileSystem.FileSystem
  for (let looks = 1; ; looks++) {
    const info = yield* Output.ownFile(lock, "--out")
    if (info === undefined) return undefined
    if (info.size > maxBytes) return "too long"
    const line = yield* Effect.catchReason(fs.readFileString(lock), "PlatformError", "NotFound", () => Effect.undefined)
    if (line !== "" || looks === 5) return line
    // Ctrl-C must end this wait, although the lock is taken in an uninterruptible region.
    yield* Effect.interruptible(Effect.sleep("200 millis"))
  }
})

/** How often taking a lock is tried: it may disappear, or its process may end, between two steps. */
const maxTries = 10

type TakeResult = Effect.Effect<
  LockHolder | undefined,
  PlatformError.PlatformError | Exit.CommandError,
  FileSystem.FileSystem
>

/** Takes a lock, even from a dead process. Returns the holder if a running process keeps it. */
const take: (lock: string, own: LockHolder) => TakeResult = Effect.fnUntraced(function* (lock, own) {
  const fs = yield* FileSystem.FileSystem
  let holder: LockHolder | undefined
  for (let tries = 0; tries < maxTries; tries++) {
    const isOurs = yield* fs.writeFileString(lock, lineOf(own), { flag: "wx" }).pipe(
      Effect.as(true),
      Effect.catchReason("PlatformError", "AlreadyExists", () => Effect.succeed(false))
    )
    if (isOurs) return undefined
    const line = yield* lineIn(lock)
    if (line === undefined) continue
    holder = holderOf(line)
    if (mayLive(holder, own.since)) return holder
    const other = yield* removeOld(lock, line, own)
    if (other !== undefined) return other
  }
  return holder ?? holderOf("")
})

/**
 * Removes the lock of a dead process. If two processes find it, the slower one could remove the lock that the faster one has just
 * taken. So removing needs a lock of its own, and reads the line again.
 */
const removeOld: (lock: string, line: string, own: LockHolder) => TakeResult = Effect.fnUntraced(
  function* (lock, line, own) {
    const fs = yield* FileSystem.FileSystem
    const removal = `${lock}.old`
    const other = yield* take(removal, own)
    if (other !== undefined) return other
    yield* Effect.gen(function* () {
      if ((yield* lineIn(lock)) === line) yield* fs.remove(lock)
    }).pipe(Effect.ensuring(Effect.ignore(fs.remove(removal))))
    return undefined
  }
)

/** Holds the folder until the scope closes, however the run ends. A lock that a killed process left is taken over. */
export const hold = Effect.fnUntraced(function* (out: string) {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const lock = join(out, "run.lock")
  const own: LockHolder = { pid: ownPid, host: hostname(), since: yield* Clock.currentTimeMillis }
  yield* Effect.acquireRelease(
    Effect.flatMap(take(lock, own), (owner) =>
      owner === undefined
        ? Effect.void
        : Effect.fail(
            new FolderInUse({
              out,
              lock,
              pid: owner.pid > 0 ? owner.pid : undefined,
              host: owner.host === hostname() ? undefined : owner.host
            })
          )
    ),
    () => Effect.ignore(fs.remove(lock, { force: true }))
  )
})
