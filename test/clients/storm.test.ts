import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll } from "vitest"
import { clients, versionOf } from "./clients.ts"
import { agents, callsEach, type Result, type Row, storm } from "./storm.ts"

// Real packages over real HTTP, so this takes real time: each storm about ten seconds.

const calls = agents * callsEach

const rows: Array<Row> = []

/** For `table.ts`, which writes the table of docs/figures/clients.md. */
afterAll(() => {
  const folder = join(import.meta.dirname, "../../.vitest")
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, "clients.json"), JSON.stringify(rows, undefined, 2))
})

/**
 * After one rejection half a call is kept back, which the limit refills in 100 ms. A process that was blocked for longer sent
 * its calls later than it had counted them, by more than that amount, which is another exhaustion.
 */
const allowed = ({ stalledMillis }: Result): number => (calls / 60) * (stalledMillis > 100 ? 2 : 1)

describe("the storm", () => {
  for (const client of clients) {
    it(`is weathered by ${client.name}`, async () => {
      // One after the other: beside a storm of rejections nothing is sent on time.
      const governed = await storm(client, "governed")
      const bare = await storm(client, "bare")
      const { name, packages, through } = client
      rows.push({ name, through, versions: packages.map((name) => `${name} ${versionOf(name)}`), bare, governed })
      assert.deepStrictEqual(governed.failures, [])
      assert.strictEqual(governed.ok, calls)
      assert.isAtMost(governed.rejected, allowed(governed))
      // The limit binds: without Floodgate, each client is rejected. Otherwise there would be nothing to show.
      assert.isAbove(bare.rejected, 5)
    })
  }
})
