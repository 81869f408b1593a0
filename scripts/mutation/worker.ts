/** A worker process: it loads the tests and the code once, and for each mutant runs the tests that reach it. */
import { once } from "node:events"
import { globSync } from "node:fs"
import { registerHooks } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { type Mutant, mutate } from "./mutants.ts"
import type { Task } from "./vitest.ts"
import { processorMillis, watch } from "./watch.ts"

export interface Work {
  readonly folders: ReadonlyArray<string>
  /** Globs of test files, the fastest first. */
  readonly tests: ReadonlyArray<string>
  /** Whether only what `npm test` runs is run: a test that needs a hook or a socket, or takes long, is left out. */
  readonly isQuick: boolean
  /** Tests that take more than this many milliseconds of processor time are left out. */
  readonly within: number
}

/** A test begins. */
interface Alive {
  readonly of: string
}
/** A test fails without a mutant after it has run with one. */
interface Spoilt {
  readonly isSpoilt: true
}
/** A mutant was tried: `by` is the test that failed, or `null`. */
export interface Tried {
  readonly by: string | null
}
/** The time of a test without a mutant, in milliseconds of processor time, and the mutants that it reaches. */
interface Measured {
  readonly millis: number
  readonly reached: Uint8Array
}
/** It is ready: a figure for each test that can run here, which spares the next process to run them all first. */
export interface Ready {
  readonly measured: ReadonlyArray<Measured | undefined>
}
export type Message = Alive | Spoilt | Tried | Ready | { readonly problem: string }

const root = join(import.meta.dirname, "../..")

/** All mutants of these folders; a mutant's number is its index. */
export const mutantsOf = (folders: Work["folders"]): ReadonlyArray<Mutant> => textsOf(folders).mutants

const textsOf = (folders: Work["folders"]): { mutants: Array<Mutant>; texts: Map<string, string> } => {
  const mutants: Array<Mutant> = []
  const texts = new Map<string, string>()
  for (const path of folders.flatMap((folder) =>
    globSync(`${folder}/**/*.ts`, { cwd: root })
      .toSorted()
      .map((file) => join(root, file))
  )) {
    const mutated = mutate(path, mutants.length)
    mutants.push(...mutated.mutants)
    texts.set(pathToFileURL(path).href, mutated.text)
  }
  return { mutants, texts }
}

/** The processor time that a test may take: ten times as much as without a mutant, and 2 s, for what is compiled meanwhile. */
const allowance = (millis: number): number => 2_000 + 10 * millis

/** The names of files that quick runs leave out. */
const isOther = /\.(system|lint|full)\.test\.ts$|^test\/(clients|packaging)\//

export const work = async ({ folders, isQuick, tests, within }: Work): Promise<void> => {
  const { mutants, texts } = textsOf(folders)
  const state: { active: number; reached: Uint8Array | undefined } = { active: -1, reached: undefined }
  const isActive = (number: number): boolean => {
    if (state.reached !== undefined) state.reached[number] = 1
    return number === state.active
  }
  Object.assign(globalThis, { $mutant: isActive })
  const shim = new URL("vitest.ts", import.meta.url).href
  registerHooks({
    resolve: (name, context, next) =>
      name === "vitest" && context.parentURL !== shim
        ? { url: shim, format: "module-typescript", shortCircuit: true }
        : next(name, context),
    load: (url, context, next) => {
      const source = texts.get(url)
      return source === undefined ? next(url, context) : { format: "module-typescript", source, shortCircuit: true }
    }
  })
  /** The tests that cannot run here, which the first process reports. */
  const leftOut: Array<string> = []
  const leaveOut = (what: string, why: string): void => {
    leftOut.push(`mutate: left out: ${what}: ${why}`)
  }
  const say = (message: Message): void => void process.send!(message)
  const run = async ({ run }: Task): Promise<boolean> => {
    const { signal } = new AbortController()
    try {
      await run({ signal, onTestFinished: () => {} })
      return true
    } catch {
      return false
    }
  }
  const { collect, tasks } = await import("./vitest.ts")
  const paths = tests
    .flatMap((glob) => globSync(glob, { cwd: root }).toSorted())
    .filter((path) => !isQuick || !isOther.test(path))
  if (paths.length === 0) return say({ problem: `no test file matches ${tests.join()}` })
  for (const path of paths) {
    collect(path)
    const loaded = import(pathToFileURL(join(root, path)).href)
    await (isQuick ? loaded.catch((error: unknown) => leaveOut(path, String(error))) : loaded)
  }
  const { allow, done } = watch()
  const measure = async (): Promise<Array<Measured | undefined> | undefined> => {
    const measured: Array<Measured | undefined> = []
    for (const task of tasks) {
      if (isQuick && task.isSlow) {
        measured.push(undefined)
        continue
      }
      say({ of: task.name })
      allow(60_000)
      const reached = (state.reached = new Uint8Array(mutants.length))
      const begun = processorMillis()
      const isPassed = await run(task)
      if (!isPassed && isQuick) {
        leaveOut(`${task.file}: ${task.name}`, "it fails without a mutant")
        measured.push(undefined)
        continue
      }
      if (!isPassed) {
        say({ problem: `the test fails without a mutant: ${task.file}: ${task.name}` })
        return undefined
      }
      measured.push({ millis: processorMillis() - begun, reached })
    }
    done()
    state.reached = undefined
    return measured
  }
  const [known] = (await once(process, "message")) as [Ready["measured"] | null]
  const measured = known ?? (await measure())
  if (known === null) for (const line of leftOut) console.error(line)
  if (measured === undefined) return
  const ordered = measured
    .flatMap((each, index) => (each === undefined ? [] : [{ ...each, task: tasks[index]! }]))
    .filter(({ millis }) => millis <= within)
    .toSorted((a, b) => a.millis - b.millis)
  process.on("message", async (number: number) => {
    state.active = number
    let by: string | null = null
    for (const { millis, reached, task } of ordered) {
      if (reached[number] === 0) continue
      say({ of: task.name })
      allow(allowance(millis))
      if (await run(task)) continue
      by = `${task.file}: ${task.name}`
      state.active = -1
      allow(allowance(millis))
      if (isQuick && !(await run(task))) return say({ isSpoilt: true })
      break
    }
    state.active = -1
    done()
    say({ by })
  })
  say({ measured })
}
