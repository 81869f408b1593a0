/** `npm run judge` in a repository of three commits, of which the second allocates more. It runs without Valgrind, so it takes less than a minute. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { afterAll } from "vitest"

const root = join(import.meta.dirname, "../..")
const folder = mkdtempSync(join(tmpdir(), "floodgate-judge-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const repository = join(folder, "repository")
const tools = join(folder, "tools")

const git = (...args: ReadonlyArray<string>): string => {
  const name = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
  return execFileSync("git", [...name, ...args], { cwd: repository, encoding: "utf8" }).trim()
}

const commit = (subject: string): string => {
  git("add", "--all")
  git("commit", "--quiet", "--allow-empty", "--message", subject)
  return git("rev-parse", "--short", "HEAD")
}

const prepare = (): void => {
  mkdirSync(repository)
  for (const each of ["src", "packages", "benchmark/judge", "benchmark/support", "scripts/judge.ts", "package.json"]) {
    cpSync(join(root, each), join(repository, each), {
      recursive: true,
      filter: (source) => !["node_modules", "dist"].includes(basename(source))
    })
  }
  symlinkSync(join(root, "node_modules"), join(repository, "node_modules"))
  writeFileSync(join(repository, ".gitignore"), "node_modules\n.judge\n")
  // What the judge starts, without Valgrind.
  mkdirSync(tools)
  for (const each of ["git", "tar", "ps"]) {
    symlinkSync(execFileSync("which", [each], { encoding: "utf8" }).trim(), join(tools, each))
  }
  git("init", "--quiet")
}

/** Makes each reservation allocate some hundred bytes more. */
const plant = (): void => {
  const path = join(repository, "src/Budget.ts")
  const at = "    const { reserve } = Context.getUnsafe(context, TokenBudget)\n"
  const text = readFileSync(path, "utf8")
  assert.strictEqual(text.split(at).length, 2, "the place of the planted allocation")
  writeFileSync(path, text.replace(at, `    Object.assign(globalThis, { $wasted: new Array(100).fill(0) })\n${at}`))
}

const judge = (...args: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["scripts/judge.ts", ...args], {
    cwd: repository,
    encoding: "utf8",
    env: { ...process.env, PATH: tools }
  })
  return { status, said: `${stdout}${stderr}` }
}

const withReservation = ["--only", "withReservation", "--turns", "3"]

describe("the judge of hot paths", () => {
  it("compares with the last recorded commit, whose figures were accepted, and otherwise with the one before", () => {
    prepare()
    const clean = commit("Clean")
    plant()
    const planted = commit("Planted")
    commit("Nothing")

    const alike = judge(...withReservation)
    assert.include(alike.said, `beside ${planted}`)
    assert.strictEqual(alike.status, 0, alike.said)

    const figures = { commit: clean, against: "0", node: process.versions.node, figures: {} }
    mkdirSync(join(repository, "benchmark"), { recursive: true })
    appendFileSync(join(repository, "benchmark/figures.jsonl"), `${JSON.stringify(figures)}\n`)
    commit("Recorded")
    const worse = judge(...withReservation)
    assert.match(
      worse.said,
      /judge: withReservation allocates [\d.]+ % more: worse than the last, \w+, by more than its spread/
    )
    assert.include(worse.said, `the last, ${clean}, by`)
    assert.strictEqual(worse.status, 1)
  }, 900_000)

  it("records no figures of a tree with changes, nor without instructions", () => {
    const uncounted = judge("--record")
    assert.include(uncounted.said, "--record: needs Valgrind")
    assert.strictEqual(uncounted.status, 2)
    appendFileSync(join(repository, "src/Budget.ts"), "\n")
    const changed = judge("--record")
    assert.include(changed.said, "commit them first")
    assert.strictEqual(changed.status, 2)
  })
})
