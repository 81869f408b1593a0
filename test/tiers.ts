/**
 * Holds what `npm test` promises: its tests open no socket, start no process, and take little processor time, so that they are quick
 * and do not fail on a busy machine. A test that cannot keep to that belongs in another tier: see vitest.config.ts.
 */
import childProcess, { ChildProcess } from "node:child_process"
import { syncBuiltinESMExports } from "node:module"
import { Server, Socket } from "node:net"
import { afterEach, beforeEach } from "vitest"

/**
 * Processor time of a test, in milliseconds, of the thread that runs it. The whole process also compiles and collects garbage beside
 * it, for all tests: a third more, of which a test may get the share of its neighbours.
 *
 * A test fails if it takes more three times in a row. The first run also compiles, and beside ten programs for each core the same work takes
 * up to three times as much, because they share its caches. So a test that takes 300 in such company has to take 150 on an idle machine.
 */
const maxOfTests = 300
/** Examples of the pages cannot be tagged: they are whole programs, and a few play two races. */
const maxOfExamples = 600

const isRefused = Symbol.for("floodgate/test/tiers")

const refuse = (target: object, method: string, what: string): void => {
  Object.defineProperty(target, method, {
    configurable: true,
    writable: true,
    value: () => {
      throw new Error(`a test of this tier ${what}: call its file *.system.test.ts`)
    }
  })
}

// Files share a process, so this may already be done.
if (!(isRefused in globalThis)) {
  Object.defineProperty(globalThis, isRefused, { value: true })
  refuse(Server.prototype, "listen", "listened on a socket")
  refuse(Socket.prototype, "connect", "opened a socket")
  refuse(ChildProcess.prototype, "spawn", "started a process")
  for (const method of ["spawnSync", "execSync", "execFileSync"]) refuse(childProcess, method, "started a process")
  syncBuiltinESMExports()
}

let before: NodeJS.CpuUsage
beforeEach(() => {
  before = process.threadCpuUsage()
})

// The first run of a test compiles what it needs, so vitest.config.ts repeats one that fails with this.
afterEach(({ task }) => {
  const max = task.file.name.startsWith(".doctest/") ? maxOfExamples : maxOfTests
  const { system, user } = process.threadCpuUsage(before)
  const millis = (system + user) / 1_000
  if (millis > max) {
    throw new Error(
      `took ${Math.round(millis)} ms of processor time, more than ${max}: give it the tag "full", or less to do`
    )
  }
})
