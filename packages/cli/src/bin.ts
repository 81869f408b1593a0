/** The `floodgate` command. The commands are in `commands/`; this provides what it needs of Node. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import { readFileSync } from "node:fs"
import { main } from "./commands/index.ts"
import { codes } from "./commands/exit.ts"
import { unwritten } from "./commands/output.ts"
import { type ProcessInfo, describedBy, isForeground, watch } from "./launcher.ts"

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

const describe = (pid: number): ProcessInfo | undefined => {
  try {
    return describedBy(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return undefined
  }
}

// `npm run` that is killed leaves the command behind, so it ends as by SIGTERM. A service and a background job outlive theirs.
if (isForeground(process.env["npm_lifecycle_script"])) {
  const isOrphan = watch(() => process.ppid, describe)
  setInterval(() => {
    // A second signal would cut short what the first one lets end.
    if (stoppedAt === undefined && isOrphan()) process.kill(process.pid, "SIGTERM")
  }, 1_000).unref()
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
