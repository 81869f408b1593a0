/** The `floodgate` command. The commands are in `commands/`; this provides what it needs of Node. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import { main } from "./commands/index.ts"
import { codes } from "./commands/exit.ts"
import { unwritten } from "./commands/output.ts"

/** The code of a command that is stopped: 128 and the number of the signal, or 3 where its output cannot be written. */
let stopped = 130
process.once("SIGTERM", () => (stopped = 143))

/** Launchers such as npm pass the first signal on, though it has come by itself. */
const sameMillis = 1_000
let stoppedAt: number | undefined
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // What the first one lets end in its own time, such as the calls of a gateway, ends at the second.
  process.on(signal, () => {
    stoppedAt ??= performance.now()
    if (performance.now() - stoppedAt > sameMillis) process.exit(stopped)
  })
}

// A run stops as at Ctrl-C, so that it keeps its answers and frees its folder.
process.stdout.once("error", (error: NodeJS.ErrnoException) => {
  // The reader of the output has gone (`| head`): it knows.
  if (error.code !== "EPIPE") {
    process.exitCode = stopped = codes.file
    console.error(`floodgate: ${unwritten("standard output", error)}`)
  }
  process.emit("SIGINT")
})
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {})

NodeRuntime.runMain(Effect.provide(main, NodeServices.layer), {
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? stopped : code))
})
