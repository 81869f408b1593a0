/**
 * Plants bugs outside admission and pacing, and says which tier of the tests notices each.
 *
 *     npm run bugs -- --list                    print the bugs of the sample
 *     npm run bugs -- --log FILE                try each, and record the sample and the results, or go on with those of FILE.
 *                                               FILE.TIER.json has which tests of a tier reach which bug
 *     npm run bugs -- --log FILE --docs         write the table into docs/figures/planted-bugs.md
 *     npm run bugs -- --at places,http.ts       only those in this part or file
 *     npm run bugs -- --tests test/call,places  run only test files whose path contains one of these
 *     npm run bugs -- --tiers unit              run only these tiers
 *
 * A copy of the repository has all bugs of the sample, and a variable of the environment turns one on, also in processes that a test
 * starts. A first run of each tier without a bug records which test files reach which bug. For each bug only those run, the
 * quickest first, until one fails. In another tier than `unit` its file must fail again, and pass without the bug, because it may fail on a
 * busy machine by itself.
 * Tests that never end count as noticed.
 */
import { execFileSync, spawn } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { parseArgs } from "node:util"
import { again, sample, type Sample } from "./mutation/planted.ts"
import * as Planted from "./mutation/plantedReport.ts"

const { values: options } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    count: { type: "string", default: "80" },
    tiers: { type: "string", default: "unit,system,full" },
    tests: { type: "string" },
    at: { type: "string" },
    log: { type: "string" },
    list: { type: "boolean", default: false },
    docs: { type: "boolean", default: false }
  }
})

const root = join(import.meta.dirname, "..")

/** Decides at run time which bug is on, and records which are reached. */
const prelude = `
const $process = globalThis.process
const $active = Number($process?.env?.FLOODGATE_BUG ?? -1)
const $reached = $process?.env?.FLOODGATE_BUGS_REACHED
const $mutant = ($number: number): boolean => {
  if ($reached !== undefined) {
    const $file = (globalThis as any).$testFile ?? $process.env.FLOODGATE_BUGS_TEST ?? ""
    const $seen = ((globalThis as any).$seen ??= new Set())
    const $key = $number + "\\t" + $file
    if (!$seen.has($key)) {
      $seen.add($key)
      $process.getBuiltinModule("node:fs").appendFileSync($reached, $key + "\\n")
    }
  }
  return $number === $active
}
`

const setup = `
import { beforeAll, expect } from "vitest"
const say = () => {
  globalThis.$testFile = process.env.FLOODGATE_BUGS_TEST = expect.getState().testPath
}
say()
beforeAll(say)
`

const config = `
import base from "./vitest.config.ts"
import { readFileSync } from "node:fs"
class InOrder {
  async shard(files) { return files }
  async sort(files) {
    const order = JSON.parse(readFileSync("bugs.order.json", "utf8"))
    const at = ({ moduleId }) => order.findIndex((file) => moduleId.endsWith(file))
    return files.toSorted((a, b) => at(a) - at(b))
  }
}
export default {
  ...base,
  test: {
    ...base.test,
    sequence: { sequencer: InOrder },
    projects: base.test.projects.map((project) => ({
      ...project,
      test: {
        ...project.test,
        retry: 0,
        testTimeout: Math.min(project.test.testTimeout, 40_000),
        hookTimeout: 120_000,
        setupFiles: [...project.test.setupFiles.filter((file) => file !== "test/tiers.ts"), "./bugs.setup.js"]
      }
    }))
  }
}
`

/** A copy with everything that git would have, and the packages of this workspace in place of the installed ones. */
const makeCopy = (): string => {
  const copy = mkdtempSync(join(tmpdir(), "floodgate-bugs-"))
  const listed = execFileSync("git", ["ls-files", "-co", "--exclude-standard"], { cwd: root, encoding: "utf8" })
  for (const file of listed.trim().split("\n")) {
    if (existsSync(join(root, file))) cpSync(join(root, file), join(copy, file))
  }
  for (const name of readdirSync(join(root, "node_modules"))) {
    const isOwn = name.startsWith(".") && name !== ".bin"
    if (isOwn || name === "floodgate" || name === "@floodgate") continue
    mkdirSync(join(copy, "node_modules"), { recursive: true })
    symlinkSync(join(root, "node_modules", name), join(copy, "node_modules", name))
  }
  symlinkSync("..", join(copy, "node_modules/floodgate"))
  mkdirSync(join(copy, "node_modules/@floodgate"))
  for (const name of readdirSync(join(root, "node_modules/@floodgate"))) {
    symlinkSync(`../../packages/${name}`, join(copy, "node_modules/@floodgate", name))
  }
  return copy
}

const plant = (copy: string, { texts }: Sample): void => {
  for (const [file, text] of texts) writeFileSync(join(copy, file), prelude + text)
  writeFileSync(join(copy, "bugs.setup.js"), setup)
  writeFileSync(join(copy, "bugs.config.js"), config)
  execFileSync(process.execPath, ["scripts/doctest.ts"], { cwd: copy })
}

interface Outcome {
  /** The files that ran to their end, with the time that each took. */
  readonly files: ReadonlyMap<string, { readonly millis: number; readonly isPassed: boolean }>
  /** The first test that failed, or why the run did not end as it should. */
  readonly failed: { readonly file: string; readonly by: string } | undefined
}

/** The part of the output of vitest's reporter that is read here. */
interface Written {
  readonly success: boolean
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly startTime: number
    readonly endTime: number
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

interface Run {
  readonly tier: string
  readonly files: ReadonlyArray<string>
  readonly env: Record<string, string>
  readonly args?: ReadonlyArray<string>
  readonly maxMillis: number
}

/** Runs test files in this order. A run that takes too long is ended, with all processes that it started. */
const runTests = async (copy: string, { args = [], env, files, maxMillis, tier }: Run): Promise<Outcome> => {
  const output = join(copy, "bugs.results.json")
  rmSync(output, { force: true })
  writeFileSync(join(copy, "bugs.order.json"), JSON.stringify(files))
  const vitest = ["node_modules/vitest/vitest.mjs", "run", "--config", "bugs.config.js", "--project", tier]
  const how = ["--maxWorkers=1", "--passWithNoTests", "--reporter=json", `--outputFile=${output}`]
  const child = spawn(process.execPath, [...vitest, ...how, ...args, ...files], {
    cwd: copy,
    env: { ...process.env, ...env },
    stdio: "ignore",
    detached: true
  })
  let isLate = false
  const timer = setTimeout(() => {
    isLate = true
    process.kill(-child.pid!, "SIGKILL")
  }, maxMillis)
  await new Promise((resolve) => child.once("exit", resolve))
  clearTimeout(timer)
  if (isLate) return { files: new Map(), failed: { file: "", by: "never ends" } }
  if (!existsSync(output)) return { files: new Map(), failed: { file: "", by: "the test process ends" } }
  const { success, testResults } = JSON.parse(readFileSync(output, "utf8")) as Written
  const pathOf = (name: string): string => relative(copy, name)
  const ran = testResults.map(({ assertionResults, endTime, name, startTime, status }) => {
    const test = assertionResults.find((each) => each.status === "failed")
    const isFailed = status === "failed" || test !== undefined
    // A file that did not begin has no results.
    const isPassed = !isFailed && assertionResults.some((each) => each.status === "passed")
    return {
      file: pathOf(name),
      millis: endTime - startTime,
      isFailed,
      isPassed,
      by: test?.fullName ?? "the file fails"
    }
  })
  const failed = ran.find(({ isFailed }) => isFailed)
  return {
    files: new Map(ran.map((each) => [each.file, each])),
    failed: failed ?? (success ? undefined : { file: "", by: "an error outside the tests" })
  }
}

/** The test files of a tier that reach each bug by its id, the quickest first, and how long they take together. */
type Reaching = ReadonlyMap<string, { readonly files: ReadonlyArray<string>; readonly millis: number }>

const reachingOf = async (
  copy: string,
  tier: string,
  only: ReadonlyArray<string>,
  bugs: Sample["bugs"]
): Promise<Reaching> => {
  const reached = join(copy, `bugs.reached.${tier}`)
  writeFileSync(reached, "")
  const env = { FLOODGATE_BUGS_REACHED: reached }
  const { files } = await runTests(copy, { tier, files: only, env, maxMillis: 3_600_000 })
  const unfit = [...files].filter(([, { isPassed }]) => !isPassed).map(([file]) => file)
  console.log(`${tier}: ${files.size} files, of which these fail without a bug and are left out: ${unfit.join(" ")}`)
  const byBug = new Map<number, Set<string>>()
  for (const line of readFileSync(reached, "utf8").trim().split("\n")) {
    const [number, name] = line.split("\t") as [string, string | undefined]
    if (name === undefined) continue
    const file = relative(copy, name)
    if (files.get(file)?.isPassed !== true) continue
    byBug.set(Number(number), (byBug.get(Number(number)) ?? new Set()).add(file))
  }
  const timeOf = (file: string): number => files.get(file)!.millis
  return new Map(
    Array.from(byBug, ([number, names]) => {
      const sorted = [...names].toSorted((a, b) => timeOf(a) - timeOf(b))
      return [bugs.get(number)!.id, { files: sorted, millis: sorted.reduce((sum, file) => sum + timeOf(file), 0) }]
    })
  )
}

/** The same, as an earlier run with this log has found it. */
const rememberedReaching = async (copy: string, tier: string, bugs: Sample["bugs"]): Promise<Reaching> => {
  const file = options.log === undefined ? undefined : `${options.log}.${tier}.json`
  if (file !== undefined && existsSync(file)) return new Map(JSON.parse(readFileSync(file, "utf8")))
  const reaching = await reachingOf(copy, tier, [], bugs)
  if (file !== undefined) writeFileSync(file, JSON.stringify([...reaching]))
  return reaching
}

/** The test of a tier that notices a bug. */
const noticedBy = async (
  copy: string,
  tier: string,
  number: number,
  found: ReturnType<Reaching["get"]>
): Promise<string | undefined> => {
  if (found === undefined) return undefined
  const run = (files: ReadonlyArray<string>, bug = String(number)): Promise<Outcome> =>
    runTests(copy, {
      tier,
      files,
      args: ["--bail=1"],
      env: { FLOODGATE_BUG: bug },
      maxMillis: 180_000 + 4 * found.millis
    })
  let files = found.files
  while (files.length > 0) {
    const { failed, files: ran } = await run(files)
    if (failed === undefined) return undefined
    const by = failed.file === "" ? failed.by : `${failed.file}: ${failed.by}`
    if (tier === "unit" || failed.file === "") return by
    // A busy machine may fail it as well.
    const isFailing = (await run([failed.file])).failed !== undefined
    if (isFailing && (await run([failed.file], "none")).failed === undefined) return by
    files = files.filter((file) => file !== failed.file && ran.get(file)?.isPassed !== true)
  }
  return undefined
}

const isAt = ({ file, part }: Planted.Result): boolean =>
  options.at === undefined || options.at.split(",").some((at) => at === part || file.includes(at))

/** The sample and its results so far, as a log has them. */
const logged = (): ReadonlyArray<Planted.Result> | undefined =>
  options.log !== undefined && existsSync(options.log) ? JSON.parse(readFileSync(options.log, "utf8")) : undefined

const main = async (copy: string): Promise<void> => {
  const seed = Number(options.seed)
  const earlier = logged()
  const found =
    earlier === undefined
      ? sample(copy, seed, Number(options.count))
      : again(seed, new Set(earlier.map(({ id }) => id)))
  const results = earlier ?? Array.from(found.bugs.values(), Planted.resultOf)
  if (options.list) {
    for (const result of results) console.log(`${result.part.padEnd(8)} ${Planted.nameOf(result)}`)
    return
  }
  const save = (): void => {
    if (options.log !== undefined) writeFileSync(options.log, `${JSON.stringify(results, undefined, 2)}\n`)
  }
  save()
  const numbers = new Map(Array.from(found.bugs, ([number, { id }]) => [id, number]))
  const open = new Set(results.filter((result) => isAt(result) && result.tier === ""))
  for (const result of open) {
    if (numbers.has(result.id)) continue
    Object.assign(result, { tier: "removed", by: "the code is gone" })
    open.delete(result)
  }
  if (open.size > 0 && !options.docs) {
    plant(copy, found)
    for (const tier of options.tiers.split(",")) {
      const reaching =
        options.tests === undefined
          ? await rememberedReaching(copy, tier, found.bugs)
          : await reachingOf(copy, tier, options.tests.split(","), found.bugs)
      for (const result of open) {
        const begun = performance.now()
        const reached = reaching.get(result.id)
        const by = await noticedBy(copy, tier, numbers.get(result.id)!, reached)
        const seconds = ((performance.now() - begun) / 1_000).toFixed(0)
        const files = reached?.files.length ?? 0
        console.log(`${tier}: ${Planted.nameOf(result)}: ${by ?? "not noticed"} (${files} files, ${seconds} s)`)
        if (by === undefined) continue
        open.delete(result)
        Object.assign(result, { tier, by })
        save()
      }
    }
  }
  save()
  for (const line of Planted.summary(results.filter(isAt))) console.log(line)
  if (options.docs) Planted.publish(join(root, "docs/figures/planted-bugs.md"), results)
}

const copy = makeCopy()
try {
  await main(copy)
} finally {
  rmSync(copy, { recursive: true })
}
