/** `run.lock`: the folder of a run's output is held by one run at a time. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
// Effect knows no process: Node is asked which process holds a lock, and whether that process is still there.
import { hostname } from "node:os"
import { kill, pid as ownPid, uptime } from "node:process"
import * as Exit from "../exit.ts"
import * as Output from "../output.ts"
import { oneLine } from "../text.ts"

/** Another run writes to the same folder. */
export class FolderInUse extends Schema.TaggedError<FolderInUse>("floodgate/cli/run/FolderInUse")("FolderInUse", {
  out: Schema.String,
  lock: Schema.String,
  /** The process that holds it, if the lock names one. */
  pid: Schema.UndefinedOr(Schema.Finite),
  /** Where that process runs, if not here: then it cannot be asked whether it is still there. */
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
  /** In milliseconds of the clock. */
  readonly since: number
}

const lineOf = ({ host, pid, since }: LockHolder): string => `${pid} ${host} ${since}\n`

const holderOf = (line: string): LockHolder => {
  const [pid = "", host = hostname(), since = ""] = line.trim().split(" ")
  return { pid: Number.parseInt(pid, 10), host, since: Number.parseInt(since, 10) }
}

/**
 * Whether the owner may still be there. Signal 0 is not sent, it only tells whether it could be; if that is forbidden,
 * the process is there. A container that was killed starts again with the numbers that it had.
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

/** The line of a process and a host is shorter. */
const maxBytes = 4_096

/** The line of a lock; undefined where it is gone. A lock that was made a moment ago may not be written yet. */
const lineIn = Effect.fnUntraced(function* (lock: string) {
  const fs = yield* FileSystem.FileSystem
  for (let looks = 1; ; looks++) {
    const info = yield* Output.ownFile(lock, "--out")
    if (info === undefined) return undefined
    if (info.size > maxBytes) return "too long"
    const line = yield* Effect.catchReason(fs.readFileString(lock), "PlatformError", "NotFound", () => Effect.undefined)
    if (line !== "" || looks === 5) return line
    // The lock is taken within an uninterruptible region; this wait must hear Ctrl-C all the same.
    yield* Effect.interruptible(Effect.sleep("200 millis"))
  }
})

/** The most attempts, because a lock may disappear, or its process may die, between two steps. */
const maxTries = 10

type TakeResult = Effect.Effect<
  LockHolder | undefined,
  PlatformError.PlatformError | Exit.CommandError,
  FileSystem.FileSystem
>

/** Takes a lock, from a dead process if need be. Gives its holder; undefined if that is this process now. */
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
 * Removes the lock of a dead process. Of two processes that find the same one, the slower would remove the lock that the
 * quicker has just taken, so removing needs a lock of its own, and a second look.
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
