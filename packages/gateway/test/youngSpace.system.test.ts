import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { flags } from "../../../scripts/executable.ts"

const folder = join(import.meta.dirname, "../../../docs/gateway")

/** The megabytes that a process keeps for young objects, of which many survive for a while. */
const kept = (options: string): number => {
  const program = `
    import { getHeapSpaceStatistics } from "node:v8"
    const recent = []
    for (let turn = 0; turn < 600; turn++) {
      for (let count = 0; count < 2_000; count++) recent.push({ turn, count, list: [count, turn] })
      if (recent.length > 40_000) recent.splice(0, 20_000)
      await new Promise((resolve) => setImmediate(resolve))
    }
    const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")
    console.log(young.space_size / 1_024 / 1_024)`
  const { stderr, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: options }
  })
  assert.strictEqual(stderr, "")
  return Number(stdout)
}

describe("the space of young objects", () => {
  it("is bounded where a gateway is deployed, and several times as large by default", () => {
    const [, unit = ""] =
      /^Environment=NODE_OPTIONS=(.*)$/m.exec(readFileSync(join(folder, "floodgate.service"), "utf8")) ?? []
    for (const options of [unit, flags.join(" ")]) assert.isAtMost(kept(options), 16, options)
    assert.isAbove(kept(""), 32)
  })
})
