/**
 * Runs every check in order, prints how long each took, and stops at the first that fails. It needs no network.
 *
 *     npm run verify                        everything
 *     npm run verify -- --skip test,size    all but these
 *     npm run verify -- --only lint,check   only these
 */
import { spawnSync } from "node:child_process"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")

// The linter resolves exports in `dist`, so an old build would cause false errors.
const steps = [
  "build",
  "lint",
  "format:check",
  "doctest:gen",
  "check",
  "test-types",
  "pack:check",
  "size",
  "test",
  "test:system",
  "test:full",
  "test:effect",
  "storms",
  "judge"
]

const names = (flag: string): ReadonlySet<string> | undefined => {
  const at = process.argv.indexOf(flag)
  if (at === -1) return undefined
  const list = (process.argv[at + 1] ?? "").split(",")
  const unknown = list.filter((name) => !steps.includes(name))
  if (unknown.length > 0) {
    console.error(`verify: ${flag}: unknown step ${unknown.join(", ")}: known are ${steps.join(", ")}`)
    process.exit(2)
  }
  return new Set(list)
}

const only = names("--only")
const skip = names("--skip")
const report: Array<string> = []

const finish = (code: number): never => {
  console.log(`\nverify\n${report.join("\n")}`)
  process.exit(code)
}

for (const name of steps) {
  if (skip?.has(name) === true || only?.has(name) === false) continue
  console.log(`\n> ${name}`)
  const start = performance.now()
  // On CI each run of tests writes its results to a file: see vitest.config.ts.
  const env = { ...process.env, FLOODGATE_TEST_RESULTS: name.replace(":", "-") }
  const { status } = spawnSync("npm", ["run", "--silent", name], { cwd: root, env, stdio: "inherit" })
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  report.push(`  ${name.padEnd(14)} ${seconds.padStart(6)} s  ${status === 0 ? "ok" : "FAILED"}`)
  if (status !== 0) finish(1)
}
finish(0)
