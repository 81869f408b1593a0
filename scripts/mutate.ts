/**
 * Mutation of the rules of admission: changes one operator, condition or statement of `src/admission` at a time, and runs
 * the tests that reach it. A mutant that no test notices survives; the score is the part that does not.
 *
 *     npm run mutate                            every mutant
 *     npm run mutate -- --every 5               each fifth
 *     npm run mutate -- --at cap.ts,law.ts:120  those of some files or lines
 *     npm run mutate -- --again FILE            those that FILE names, which is what an earlier run has printed
 *     npm run mutate -- --tests 'test/proof/e*' with the tests of some files alone
 *     npm run mutate -- --within 300            with the tests alone that take no longer, in milliseconds
 *     npm run mutate -- --by                    prints which test noticed each
 *     npm run mutate -- --list                  says what would be changed, and runs nothing
 *
 * Constants stay as they are, because measurements choose them and not rules. A mutant whose tests do not end counts as
 * found.
 */
import { type ChildProcess, fork } from "node:child_process"
import { readFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import type { Mutant } from "./mutation/mutants.ts"
import { type Message, mutantsOf, work, type Work } from "./mutation/worker.ts"

const { values: options } = parseArgs({
  options: {
    every: { type: "string", default: "1" },
    at: { type: "string" },
    again: { type: "string" },
    tests: {
      type: "string",
      default:
        "test/admission/[!m]*.test.ts,test/admission/meter.test.ts,test/proof/exhaustive.test.ts,test/budget/laws.test.ts"
    },
    within: { type: "string", default: "Infinity" },
    by: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    worker: { type: "boolean", default: false }
  }
})

const task: Work = { folder: "src/admission", tests: options.tests.split(","), within: Number(options.within) }

/** What became of a mutant: a test noticed it, its tests did not end, or nobody noticed. */
type Fate = "found" | "endless" | "survived"

/** A worker, which is replaced when a mutant does not end. */
class Worker {
  private child: ChildProcess | undefined = undefined

  private reply(): Promise<{ readonly fate: Fate; readonly by: string }> {
    const child = this.child!
    return new Promise((resolve, reject) => {
      let timer = setTimeout(() => this.end(), 60_000)
      const conclude = (fate: Fate, by: string): void => {
        clearTimeout(timer)
        child.off("message", hear).off("exit", end)
        resolve({ fate, by })
      }
      let by = ""
      const hear = (message: Message): void => {
        if ("problem" in message) return reject(new Error(message.problem))
        if ("by" in message) return conclude(message.by === null ? "survived" : "found", message.by ?? "")
        clearTimeout(timer)
        by = message.of
        timer = setTimeout(() => this.end(), message.millis)
      }
      const end = (): void => conclude("endless", by)
      child.on("message", hear).once("exit", end)
    })
  }

  async try(number: number): ReturnType<Worker["reply"]> {
    if (this.child === undefined) {
      const options = {
        execArgv: ["--conditions=@floodgate/source"],
        stdio: ["ignore", "ignore", "inherit", "ipc"] as never
      }
      this.child = fork(import.meta.filename, ["--worker", ...process.argv.slice(2)], options)
      const { fate, by } = await this.reply()
      if (fate === "endless") throw new Error(`the tests do not end without a mutant: ${by}`)
    }
    this.child.send(number)
    return this.reply()
  }

  end(): void {
    this.child?.kill("SIGKILL")
    this.child = undefined
  }
}

const nameOf = ({ file, is, line, was }: Mutant): string => `${file}:${line}  ${was}  ->  ${is}`

const main = async (): Promise<void> => {
  const places = options.at?.split(",")
  const named = options.again === undefined ? undefined : readFileSync(options.again, "utf8").split("\n")
  const mutants = mutantsOf(task.folder)
    .map((mutant, number) => ({ mutant, number }))
    .filter(
      ({ mutant: { file, line } }) =>
        places === undefined || places.includes(file) || places.includes(`${file}:${line}`)
    )
    .filter(({ mutant }) => named === undefined || named.some((line) => line.endsWith(nameOf(mutant))))
    .filter((_, n) => n % Number(options.every) === 0)
  if (options.list) return console.log(mutants.map(({ mutant }) => nameOf(mutant)).join("\n"))
  const begun = performance.now()
  const seconds = (): string => `${((performance.now() - begun) / 1_000).toFixed(0)} s`
  const workers = Array.from({ length: Math.min(availableParallelism(), mutants.length) }, () => new Worker())
  const fates = new Map<Mutant, Fate>()
  let next = 0
  const run = async (worker: Worker): Promise<void> => {
    for (let each = mutants[next++]; each !== undefined; each = mutants[next++]) {
      const { by, fate } = await worker.try(each.number)
      fates.set(each.mutant, fate)
      const progress = `${fates.size} of ${mutants.length} in ${seconds()}: ${fate}: `
      if (fate === "survived") console.log(progress + nameOf(each.mutant))
      else if (options.by) console.log(`${progress}${nameOf(each.mutant)} [${by}]`)
    }
    worker.end()
  }
  await Promise.all(workers.map(run))
  const report = (name: string, of: ReadonlyArray<Mutant>): void => {
    const count = (fate: Fate): number => of.filter((mutant) => fates.get(mutant) === fate).length
    const score = ((100 * (of.length - count("survived"))) / of.length).toFixed(1)
    const counts = `${count("found")} found, ${count("endless")} endless, ${count("survived")} survived`
    if (of.length > 0) console.log(`${name.padEnd(14)} ${counts} of ${of.length}: ${score} %`)
  }
  const all = Array.from(fates.keys())
  console.log("")
  for (const [name, of] of Map.groupBy(all, ({ file }) => file)) report(name, of)
  report("all", all)
  console.log(`in ${seconds()}`)
}

await (options.worker ? work(task) : main())
process.exitCode ??= 0
