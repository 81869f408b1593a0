import { assert, describe, it } from "@effect/vitest"
import { type ProcessInfo, describedBy, isForeground, watch } from "../../src/terminal/launcher.ts"

describe("a launcher", () => {
  it("is watched if its script runs this command in the foreground", () => {
    for (const script of [
      "node --conditions=@floodgate/source packages/cli/src/bin.ts",
      "floodgate gateway --config floodgate.json",
      "npm run -s build && floodgate provider",
      "floodgate gateway > gateway.log 2>&1"
    ]) {
      assert.isTrue(isForeground(script), script)
    }
  })

  it("is not watched if the command may outlive it: a service, a background job, a child of another program", () => {
    for (const script of [
      undefined,
      "node server.js",
      "floodgate gateway &",
      "nohup floodgate gateway > log &",
      "nohup floodgate gateway",
      "setsid floodgate gateway",
      "floodgate provider & node test.js"
    ]) {
      assert.isFalse(isForeground(script), script)
    }
  })

  it("is read from /proc, whatever the name of the process", () => {
    assert.deepStrictEqual(describedBy("12 (sh) S 7 12 7 0 -1"), { name: "sh", parent: 7 })
    assert.deepStrictEqual(describedBy("12 (npm run a) S 9) R 8 12"), { name: "npm run a) S 9", parent: 8 })
    assert.isUndefined(describedBy(""))
  })

  const world = (processes: Record<number, ProcessInfo>, own: { parent: number }) =>
    watch(
      () => own.parent,
      (pid) => processes[pid]
    )

  it("has ended if npm or the shell in between has ended", () => {
    for (const end of ["shell", "npm"]) {
      const processes: Record<number, ProcessInfo> = {
        20: { name: "sh", parent: 10 },
        10: { name: "npm run x", parent: 5 }
      }
      const own = { parent: 20 }
      const hasEnded = world(processes, own)
      assert.isFalse(hasEnded())
      if (end === "npm") processes[20] = { name: "sh", parent: 1 }
      else own.parent = 1
      assert.isTrue(hasEnded(), end)
    }
  })

  it("still runs if only the parent of npm has ended, such as a closed terminal", () => {
    const processes: Record<number, ProcessInfo> = {
      10: { name: "npm run x", parent: 5 },
      5: { name: "bash", parent: 1 }
    }
    const own = { parent: 10 }
    const hasEnded = world(processes, own)
    processes[10] = { name: "npm run x", parent: 1 }
    assert.isFalse(hasEnded())
    own.parent = 1
    assert.isTrue(hasEnded())
  })

  it("is only the parent on a system without /proc", () => {
    const own = { parent: 20 }
    const hasEnded = world({}, own)
    assert.isFalse(hasEnded())
    own.parent = 1
    assert.isTrue(hasEnded())
  })
})
