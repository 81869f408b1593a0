/** `npm run mutate`: mutation of the rules of admission and pacing, or of other folders. See {@link help}. */
import { type ChildProcess, fork } from "node:child_process"
import { createHash } from "node:crypto"
import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import type { Mutant } from "./mutation/mutants.ts"
import * as Report from "./mutation/report.ts"
import { type Message, mutantsOf, type Ready, work, type Work } from "./mutation/worker.ts"

const help = `Mutation of the rules of admission and pacing: changes one operator, condition or statement of src/admission or
src/pacing at a time, and runs the tests that reach it. A mutant that no test notices survives; the score is the fraction
of mutants that are noticed.

    npm run mutate                            every mutant
    npm run mutate -- --every 5               every fifth
    npm run mutate -- --at cap.ts,outage.ts:20  those in these files or lines
    npm run mutate -- --in src/line,src/money in these folders, with the quick tests of the whole library
    npm run mutate -- --sample 150 --seed 2   so many of them, chosen by the text of each and the seed
    npm run mutate -- --again FILE            those that an earlier run printed, saved as FILE
    npm run mutate -- --tests 'test/proof/e*' run only these test files
    npm run mutate -- --within 300            run only tests that take at most 300 ms of processor time
    npm run mutate -- --workers 1             in one process (default: one for each processor)
    npm run mutate -- --by                    print which test found each
    npm run mutate -- --log FILE              record the results, and resume from FILE if it was stopped
    npm run mutate -- --log FILE --docs       write the score and the survivors into docs/figures/promises.md
    npm run mutate -- --list                  print the mutants without running anything

Constants are not mutated: they are tuned by measurement and not fixed by a rule. A mutant whose tests never end counts as
found: limits are in processor time, so a busy machine finds nothing. mutation/survivors.ts explains those that survive; the run fails
if another one survives, or one of those is found.
A log is valid for one state of the code and the tests.`

/** The folders of the rules. */
const rules: ReadonlyArray<string> = ["src/admission", "src/pacing"]

const { values: options } = parseArgs({
  options: {
    every: { type: "string", default: "1" },
    at: { type: "string" },
    in: { type: "string", default: rules.join() },
    sample: { type: "string" },
    seed: { type: "string", default: "1" },
    again: { type: "string" },
    tests: { type: "string" },
    within: { type: "string", default: "Infinity" },
    workers: { type: "string", default: String(availableParallelism()) },
    by: { type: "boolean", default: false },
    log: { type: "string" },
    docs: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
    worker: { type: "boolean", default: false }
  }
})

if (options.help) {
  console.log(help)
  process.exit(0)
}

const isOfRules = options.in === rules.join()
const testsOfRules =
  "test/admission/[!m]*.test.ts,test/pacing/*.test.ts,test/proof/exhaustive.full.test.ts,test/budget/laws.test.ts"

const task: Work = {
  folders: options.in.split(","),
  tests: (options.tests ?? (isOfRules ? testsOfRules : "test/*.test.ts,test/*/**/*.test.ts")).split(","),
  isQuick: !isOfRules,
  within: Number(options.within)
}

interface Reply {
  readonly fate: Report.Fate
  readonly by: string
  readonly ready?: Ready
  /** An earlier mutant has left something behind, by which tests fail: another process must try this one. */
  readonly isSpoilt?: boolean
}

/** The time and the reach of each test, which the first worker measures. */
let measured: Promise<Ready["measured"]> | undefined

/** A worker process, which ends if a mutant never ends. Another one then replaces it. */
class Worker {
  private child: ChildProcess | undefined = undefined

  private reply(): Promise<Reply> {
    const child = this.child!
    return new Promise((resolve, reject) => {
      const conclude = (reply: Reply): void => {
        child.off("message", hear).off("exit", end)
        resolve(reply)
      }
      let by = ""
      const hear = (message: Message): void => {
        if ("problem" in message) return reject(new Error(message.problem))
        if ("measured" in message) return conclude({ fate: "survived", by: "", ready: message })
        if ("isSpoilt" in message) return conclude({ fate: "found", by, isSpoilt: true })
        if ("by" in message) return conclude({ fate: message.by === null ? "survived" : "found", by: message.by ?? "" })
        by = message.of
      }
      const end = (): void => {
        this.child = undefined
        conclude({ fate: "endless", by })
      }
      child.on("message", hear).once("exit", end)
    })
  }

  private async begin(known: Ready["measured"] | undefined): Promise<Ready["measured"]> {
    this.child = fork(import.meta.filename, ["--worker", ...process.argv.slice(2)], {
      execArgv: ["--conditions=@floodgate/source"],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      serialization: "advanced"
    })
    // IPC has no undefined.
    this.child.send((known ?? null) as never)
    const { by, ready } = await this.reply()
    if (ready === undefined) throw new Error(`a test never ends, even without a mutant: ${by}`)
    return ready.measured
  }

  async try(number: number, isAgain = false): Promise<Reply> {
    if (measured === undefined) await (measured = this.begin(undefined))
    const known = await measured
    if (this.child === undefined) await this.begin(known)
    this.child!.send(number)
    const reply = await this.reply()
    if (reply.isSpoilt !== true) return reply
    this.end()
    // In a new process only the mutant itself can have left something behind.
    return isAgain ? reply : this.try(number, true)
  }

  end(): void {
    this.child?.kill("SIGKILL")
    this.child = undefined
  }
}

/** The results in a log, by the place and name of each mutant. */
const logged = (file: string | undefined): ReadonlyMap<string, Report.Fate> => {
  if (file === undefined || !existsSync(file)) return new Map()
  const lines = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
  return new Map(lines.map((line) => line.split("\t") as [string, Report.Fate]))
}

const main = async (): Promise<void> => {
  const places = options.at?.split(",")
  const named = options.again === undefined ? undefined : readFileSync(options.again, "utf8").split("\n")
  const every = mutantsOf(task.folders)
  const draw = (mutant: Mutant): string =>
    createHash("sha256")
      .update(`${options.seed}\n${mutant.file}\n${mutant.code}\n${mutant.was}\n${mutant.is}`)
      .digest("hex")
  const chosen = every
    .map((mutant, number) => ({ mutant, number }))
    .filter(
      ({ mutant: { file, line } }) =>
        places === undefined || places.includes(file) || places.includes(`${file}:${line}`)
    )
    .filter(({ mutant }) => named === undefined || named.some((line) => line.endsWith(Report.nameOf(mutant))))
    .filter((_, n) => n % Number(options.every) === 0)
  const mutants =
    options.sample === undefined
      ? chosen
      : chosen
          .map((each) => ({ ...each, drawn: draw(each.mutant) }))
          .toSorted((a, b) => a.drawn.localeCompare(b.drawn))
          .slice(0, Number(options.sample))
  if (mutants.length === 0) {
    console.error(`mutate: no mutant is at ${options.at ?? "these places"}; --list shows them all`)
    process.exitCode = 2
    return
  }
  if (options.list) return console.log(mutants.map(({ mutant }) => Report.nameOf(mutant)).join("\n"))
  const begun = performance.now()
  const seconds = (): string => `${((performance.now() - begun) / 1_000).toFixed(0)} s`
  const fates = new Map<Mutant, Report.Fate>()
  const log = logged(options.log)
  // Numbered per file, so that a changed file does not renumber the others.
  const keyOf = ({ mutant, number }: (typeof mutants)[number]): string =>
    `${number - every.findIndex(({ file }) => file === mutant.file)} ${Report.nameOf(mutant)}`
  const open = mutants.filter((each) => {
    const fate = log.get(keyOf(each))
    if (fate !== undefined) fates.set(each.mutant, fate)
    return fate === undefined
  })
  const workers = Array.from({ length: Math.min(Number(options.workers), open.length) }, () => new Worker())
  let next = 0
  const run = async (worker: Worker): Promise<void> => {
    for (let each = open[next++]; each !== undefined; each = open[next++]) {
      const { by, fate } = await worker.try(each.number)
      fates.set(each.mutant, fate)
      if (options.log !== undefined) appendFileSync(options.log, `${keyOf(each)}\t${fate}\n`)
      const progress = `${fates.size} of ${mutants.length} in ${seconds()}: ${fate}: `
      if (fate === "survived") console.log(progress + Report.nameOf(each.mutant))
      else if (options.by) console.log(`${progress}${Report.nameOf(each.mutant)} [${by}]`)
    }
    worker.end()
  }
  await Promise.all(workers.map(run))
  console.log("")
  for (const line of Report.summary(fates)) console.log(line)
  console.log(`in ${seconds()}`)
  const isWhole = fates.size === every.length
  if (options.docs && !(isWhole && isOfRules)) throw new Error("--docs needs a run of all mutants of the rules")
  if (options.docs) Report.publish("docs/figures/promises.md", fates)
  const problems = Report.problems(fates, isWhole && isOfRules)
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) process.exitCode = 1
}

await (options.worker ? work(task) : main())
process.exitCode ??= 0
