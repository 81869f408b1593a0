/**
 * Holds what `npm test` promises: its tests open no socket, start no process, and take little processor time, so that they are quick
 * and do not fail on a busy machine. A test that cannot keep to that belongs in another tier: see vitest.config.ts.
 */
import { ChildProcess } from "node:child_process"
import { Server, Socket } from "node:net"
import { afterEach, beforeEach } from "vitest"

/**
 * Processor time of a test, in milliseconds. A test should take at most 300 on an idle machine. On a busy one the same work takes up to
 * three times as much, because programs share its caches, and a test must not fail for that.
 */
const max = 1_000

const isRefused = Symbol.for("floodgate/test/tiers")

const refuse = (prototype: object, method: string, what: string): void => {
  Object.defineProperty(prototype, method, {
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
}

let before: NodeJS.CpuUsage
beforeEach(() => {
  before = process.cpuUsage()
})

// The first run of a test compiles what it needs, so vitest.config.ts repeats one that fails with this.
afterEach(() => {
  const { system, user } = process.cpuUsage(before)
  const millis = (system + user) / 1_000
  if (millis > max) {
    throw new Error(
      `took ${Math.round(millis)} ms of processor time, more than ${max} (300 on an idle machine): give it the tag "full", or less to do`
    )
  }
})
