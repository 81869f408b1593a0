/** The commands that measure by the clock run: with `--quick`, their figures mean nothing, but each table is complete. */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { hasServer } from "../../packages/redis/test/server.ts"
import { root } from "../support/modules.ts"

const run = async (command: string, ...more: ReadonlyArray<string>): Promise<string> => {
  const program = join(root, "benchmark", `${command}.ts`)
  const flags = ["--conditions=@floodgate/source", "--expose-gc"]
  return (await promisify(execFile)(process.execPath, [...flags, program, "--quick", ...more])).stdout
}

/** The rows of all tables: the first cell, and the figures. */
const rowsOf = (printed: string): ReadonlyArray<readonly [name: string, figures: ReadonlyArray<number>]> =>
  printed
    .split("\n")
    .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"))
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .map(
      ([, name = "", ...cells]) => [name, cells.slice(0, -1).map((cell) => Number(cell.replaceAll(",", "")))] as const
    )
    .filter(([, figures]) => figures.some((figure) => !Number.isNaN(figure)))

describe("benchmarks", () => {
  it("gateway: every cell has a cost and a rate, and an open loop its delays", async () => {
    const printed = await run("gateway")
    const rows = rowsOf(printed)
    assert.lengthOf(rows, 2 * 5 + 3, printed)
    for (const [name, figures] of rows.slice(0, 10)) assert.isAbove(Math.min(...figures), 0, `${name}\n${printed}`)
    for (const [name, [p50 = 0, p99 = 0]] of rows.slice(10)) assert.isAtLeast(p99, p50, `${name}\n${printed}`)
  })

  it("growth: each size has a cost, and its ratio to the first", async () => {
    const printed = await run("growth", "--only", "waiting,agents,prefixes")
    const rows = rowsOf(printed)
    assert.deepStrictEqual(
      rows.map(([size]) => size),
      ["1", "20", "1", "20", "20"]
    )
    for (const [size, [, ratio = 0]] of rows) assert.isAbove(ratio, 0, `${size}\n${printed}`)
  })

  it.runIf(hasServer)("growth: one and two processes on one Redis make their calls", async () => {
    const printed = await run("growth", "--only", "redis")
    const rows = rowsOf(printed)
    assert.lengthOf(rows, 6, printed)
    for (const [, [scripts = 0, , , , , , perSecond = 0]] of rows.slice(2)) {
      assert.isAbove(scripts, 0.02, printed)
      assert.isAbove(perSecond, 0, printed)
    }
  })

  it.runIf(hasServer && process.platform === "linux")(
    "growth: a gateway of one and two processes has a cost",
    async () => {
      const printed = await run("growth", "--only", "cores")
      const rows = rowsOf(printed)
      assert.lengthOf(rows, 9, printed)
      const calls = rows.slice(0, 6)
      for (const [name, [, , , ratio = 0, , perSecond = 0]] of calls) {
        assert.isAbove(ratio, 0, `${name}\n${printed}`)
        assert.isAbove(perSecond, 0, `${name}\n${printed}`)
      }
      for (const [name, [scripts]] of calls) assert.strictEqual(scripts! > 0, name !== "1, without Redis", printed)
    }
  )

  it("onTheBench: every server answers, with a p99 and a rate, and streams are whole without a proxy", async () => {
    const printed = await run("onTheBench", "--bodies", "0.13", "--only", "latency,frontier,streams")
    const [latency, frontier, streams] = printed.split("\n\n").slice(1).map(rowsOf)
    for (const table of [latency!, frontier!, streams!]) assert.isAtLeast(table.length, 3, printed)
    for (const [name, [p99 = 0]] of latency!) assert.isAbove(p99, 0, name)
    for (const [name, figures] of frontier!) assert.strictEqual(figures.at(-1), 0, `failed calls of ${name}`)
    const [, alone] = streams!.find(([name]) => name === "without a proxy")!
    assert.isAbove(alone.at(-1)!, 0, printed)
  })
})
