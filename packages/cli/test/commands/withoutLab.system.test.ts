/** What the commands do where an optional package was left out. */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { runWithout } from "../../../../test/support/withoutPackage.ts"

const bins = {
  floodgate: join(import.meta.dirname, "../../src/bin.ts"),
  "floodgate-gateway": join(import.meta.dirname, "../../../gateway/src/command/bin.ts")
}

/** Runs a command as if a package were not installed. */
const without = (name: string, command: keyof typeof bins, ...args: ReadonlyArray<string>) =>
  runWithout(
    name,
    `process.argv.push("command", ...${JSON.stringify(args)}); await import(${JSON.stringify(bins[command])})`
  )

const flat = (text: string): string => text.replaceAll(/\s+/g, " ").trim()

describe("the command without the lab", () => {
  it("lists its commands, and runs those that need no lab", () => {
    const help = without("@floodgate/lab", "floodgate", "--help")
    assert.strictEqual(help.status, 0, help.stderr)
    for (const name of ["try", "storm", "forecast"]) assert.match(help.stdout, new RegExp(`^ {2}${name} +\\S`, "m"))
    for (const args of [
      ["forecast", "--agents", "2", "--input-tokens-per-minute", "400000"],
      ["gateway", "--help"],
      ["run", "--help"],
      ["--completions", "bash"]
    ]) {
      const { status, stderr, stdout } = without("@floodgate/lab", "floodgate", ...args)
      assert.deepStrictEqual([status, stderr], [0, ""], args.join(" "))
      assert.isAbove(stdout.length, 100)
    }
  })

  it("says what to install before it begins the work of a command that needs it", () => {
    const folder = mkdtempSync(join(tmpdir(), "floodgate-"))
    const file = join(folder, "calls.csv")
    writeFileSync(file, "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.979,10,5\n")
    for (const [use, ...args] of [
      ["floodgate storm", "storm"],
      ["floodgate storm", "storm", "all", "--explain"],
      ["--trace", "forecast", "--trace", file],
      ["--sessions", "forecast", "--sessions", file],
      ["--report", "forecast", "--report", join(folder, "report.html")],
      ["--report", "run", file, "--prompt", "x", "--report", join(folder, "report.html")]
    ] as const) {
      const { status, stderr, stdout } = without("@floodgate/lab", "floodgate", ...args)
      const says = `floodgate: ${use} needs the package @floodgate/lab, which is not installed: npm install @floodgate/lab`
      assert.deepStrictEqual([status, flat(stderr), stdout], [2, says, ""])
    }
    rmSync(folder, { recursive: true })
  })
})

describe("the gateway without the store in Redis", () => {
  for (const [command, ...args] of [["floodgate-gateway"], ["floodgate", "gateway"]] as const) {
    it(`serves without --redis, and says what --redis needs: ${[command, ...args].join(" ")}`, () => {
      const help = without("@floodgate/redis", command, ...args, "--help")
      assert.strictEqual(help.status, 0, help.stderr)
      const shared = without("@floodgate/redis", command, ...args, "--port", "0", "--redis", "redis://127.0.0.1:1")
      const says = `${command}: a budget in Redis needs the package @floodgate/redis, which is not installed: npm install @floodgate/redis redis`
      assert.deepStrictEqual([shared.status, flat(shared.stderr), shared.stdout], [2, says, ""])
    })
  }
})
