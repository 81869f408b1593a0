/** Runs a command as the program of this process: its services, signals, parent and output. */
import * as NodeChildProcessSpawner from "@effect/platform-node-shared/NodeChildProcessSpawner"
import * as NodeFileSystem from "@effect/platform-node-shared/NodeFileSystem"
import * as NodePath from "@effect/platform-node-shared/NodePath"
import * as NodeRuntime from "@effect/platform-node-shared/NodeRuntime"
import * as NodeStdio from "@effect/platform-node-shared/NodeStdio"
import * as NodeTerminal from "@effect/platform-node-shared/NodeTerminal"
import type * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import { readFileSync } from "node:fs"
import { codes } from "./exit.ts"
import { type ProcessInfo, describedBy, isForeground, watch } from "./launcher.ts"
import { unwritten } from "./output.ts"

/** The services of Node that a command line uses. */
const services: Layer.Layer<Command.Environment> = Layer.provideMerge(
  NodeChildProcessSpawner.layer,
  Layer.mergeAll(NodeFileSystem.layer, NodePath.layer, NodeStdio.layer, NodeTerminal.layer)
)

/** Launchers such as npm repeat the signal that the terminal has already sent, so signals within this time are one. */
const sameMillis = 1_000

const describe = (pid: number): ProcessInfo | undefined => {
  try {
    return describedBy(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return undefined
  }
}

/** Runs a command to its end, which is also the end of the process. */
export const run = (main: Effect.Effect<void, unknown, Command.Environment>): void => {
  /** The exit code of a stopped command: 128 plus the number of the signal, or 3 if its output cannot be written. */
  let stopped = 130
  process.once("SIGTERM", () => (stopped = 143))

  let stoppedAt: number | undefined
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // The first signal lets running calls end, such as those of a gateway; the second one ends the process at once.
    process.on(signal, () => {
      stoppedAt ??= performance.now()
      if (performance.now() - stoppedAt > sameMillis) process.exit(stopped)
    })
  }

  // If `npm run` is killed, the command would stay behind, so it ends itself. Services and background jobs outlive their parent.
  if (isForeground(process.env["npm_lifecycle_script"])) {
    const isOrphan = watch(() => process.ppid, describe)
    setInterval(() => {
      // After an earlier signal, this one would end running calls at once.
      if (stoppedAt === undefined && isOrphan()) process.kill(process.pid, "SIGTERM")
    }, 1_000).unref()
  }

  // If the output cannot be written, a run stops as with Ctrl-C, so that it keeps its answers and releases its folder.
  process.stdout.once("error", (error: NodeJS.ErrnoException) => {
    // EPIPE means that the reader has closed the output, as `| head` does, and needs no message.
    if (error.code !== "EPIPE") {
      process.exitCode = stopped = codes.file
      console.error(`floodgate: ${unwritten("standard output", error)}`)
    }
    process.emit("SIGINT")
  })
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

  NodeRuntime.runMain(Effect.provide(main, services), {
    teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? stopped : code))
  })
}
