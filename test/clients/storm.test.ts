import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll } from "vitest"
import { clients, versionOf } from "./clients.ts"
import { agents, callsEach, type Row, storm } from "./storm.ts"

// Real packages over real HTTP, so this takes real time: each storm about ten seconds.

const calls = agents * callsEach

const rows: Array<Row> = []

/** For `table.ts`, which writes the table of docs/clients.md. */
afterAll(() => {
  const folder = join(import.meta.dirname, "../../.vitest")
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, "clients.json"), JSON.stringify(rows, undefined, 2))
})

describe("the storm", () => {
  for (const client of clients) {
    // Once more where the machine was busy: what arrives late at the provider is as a limit of its own.
    it(`is weathered by ${client.name}`, { retry: 1 }, async () => {
      const [bare, governed] = await Promise.all([storm(client, "bare"), storm(client, "governed")])
      const { name, packages, through } = client
      rows.splice(0, rows.length, ...rows.filter((row) => row.name !== name))
      rows.push({ name, through, versions: packages.map((name) => `${name} ${versionOf(name)}`), bare, governed })
      assert.deepStrictEqual(governed.failures, [])
      assert.strictEqual(governed.ok, calls)
      assert.isAtMost(governed.rejected, calls / 60)
      // The limit binds, or there is nothing to show: alone, each of them is rejected.
      assert.isAbove(bare.rejected, 5)
    })
  }
})
