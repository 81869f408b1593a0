/** `run.lock`: the folder of a run's output is held by one run at a time. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
// Effect knows no process: Node is asked which process holds a lock, and whether that process is still there.
import { hostname } from "node:os"
import { kill, pid as ownPid, uptime } from "node:process"

/** Another run writes to the same folder. */
export class Taken extends Schema.TaggedError<Taken>("floodgate/cli/run/Taken")("Taken", {
  out: Schema.String,
  lock: Schema.String,
  pid: Schema.Finite,
  /** Where that process runs, if not here: then it cannot be asked whether it is still there. */
  host: Schema.UndefinedOr(Schema.String)
}) {
  override get message(): string {
    const who = this.host === undefined ? `process ${this.pid}` : `process ${this.pid} on ${this.host}`
    const gone =
      this.host === undefined ? "If that process is no run" : "Whether it still runs is only seen there; if it does not"
    return `another run (${who}) writes to ${this.out}: wait for its end, or choose another folder. ${gone}, delete ${this.lock}`
  }
}

/** Who holds a lock, as its one line says. */
interface Owner {
  readonly pid: number
  readonly host: string
  /** In milliseconds of the clock. */
  readonly since: number
}

const lineOf = ({ host, pid, since }: Owner): string => `${pid} ${host} ${since}\n`

const ownerOf = (line: string): Owner => {
  const [pid = "", host = hostname(), since = ""] = line.trim().split(" ")
  return { pid: Number.parseInt(pid, 10), host, since: Number.parseInt(since, 10) }
}

/**
 * Whether the owner may still be there. Signal 0 is not sent, it only tells whether it could be; if that is forbidden,
 * the process is there. A container that was killed starts again with the numbers that it had.
 */
const mayLive = ({ host, pid, since }: Owner, now: number): boolean => {
  if (host !== hostname()) return true
  if (!(pid > 0)) return false
  if (pid === ownPid) return since >= now - 1_000 * uptime()
  try {
    return kill(pid, 0)
  } catch (error) {
    return (error as { readonly code?: unknown }).code === "EPERM"
  }
}

/** The line of a lock; undefined where it is gone. A lock that was made a moment ago may not be written yet. */
const lineIn = Effect.fnUntraced(function* (lock: string) {
  const fs = yield* FileSystem.FileSystem
  const read = Effect.catchReason(fs.readFileString(lock), "PlatformError", "NotFound", () => Effect.undefined)
  let line = yield* read
  for (let looks = 0; line === "" && looks < 5; looks++) line = yield* Effect.delay(read, "200 millis")
  return line
})

/** Takes a lock, from a dead process if need be. Gives its holder; undefined if that is this process now. */
const take = (
  lock: string,
  own: Owner
): Effect.Effect<Owner | undefined, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const isOurs = yield* fs.writeFileString(lock, lineOf(own), { flag: "wx" }).pipe(
      Effect.as(true),
      Effect.catchReason("PlatformError", "AlreadyExists", () => Effect.succeed(false))
    )
    if (isOurs) return undefined
    const line = yield* lineIn(lock)
    if (line === undefined) return yield* take(lock, own)
    const owner = ownerOf(line)
    if (mayLive(owner, own.since)) return owner
    // Of two processes that find the same dead owner, the slower would remove the lock that the quicker has just taken.
    // So removing needs a lock of its own, and a second look.
    const removal = `${lock}.old`
    const other = yield* take(removal, own)
    if (other !== undefined) return other
    yield* Effect.gen(function* () {
      if ((yield* lineIn(lock)) === line) yield* fs.remove(lock)
    }).pipe(Effect.ensuring(Effect.ignore(fs.remove(removal))))
    return yield* take(lock, own)
  })

/** Holds the folder until the scope closes, however the run ends. A lock that a killed process left is taken over. */
export const hold = Effect.fnUntraced(function* (
  out: string
): Effect.fn.Return<void, PlatformError.PlatformError | Taken, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const lock = join(out, "run.lock")
  const own: Owner = { pid: ownPid, host: hostname(), since: yield* Clock.currentTimeMillis }
  yield* Effect.acquireRelease(
    Effect.flatMap(take(lock, own), (owner) =>
      owner === undefined
        ? Effect.void
        : Effect.fail(
            new Taken({ out, lock, pid: owner.pid, host: owner.host === hostname() ? undefined : owner.host })
          )
    ),
    () => Effect.ignore(fs.remove(lock, { force: true }))
  )
})
