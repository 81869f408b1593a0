/**
 * A small replacement for vitest in a process that runs the tests many times: it collects them once, as plain functions.
 * Importing a name that is missing here fails.
 */
export { assert, expect } from "vitest"

/** A collected test. */
export interface Task {
  readonly type: "test"
  readonly file: string
  readonly name: string
  /** Whether it has the tag of tests that `npm test` leaves out. */
  readonly isSlow: boolean
  readonly run: (context: object) => unknown
}

export const tasks: Array<Task> = []
let file = ""
let names: ReadonlyArray<string> = []
let isOuterSlow = false

/** Collects the tests that follow as those of this file. */
export const collect = (path: string): void => {
  file = path
}

type Test = (name: string, ...rest: ReadonlyArray<unknown>) => void

/** The function among the arguments of a test, which options precede or a timeout follows. */
const functionOf = (rest: ReadonlyArray<unknown>): ((...args: ReadonlyArray<unknown>) => unknown) =>
  rest.find((each) => typeof each === "function") as never

const isTagged = (options: unknown): boolean =>
  typeof options === "object" && options !== null && "tags" in options && options.tags === "full"

const add = (name: string, rest: ReadonlyArray<unknown>, run: Task["run"]): void => {
  const isSlow = isOuterSlow || rest.some(isTagged)
  tasks.push({ type: "test", file, name: [...names, name].join(" > "), isSlow, run })
}

const test: Test = (name, ...rest) => add(name, rest, functionOf(rest))

/** A case in the name of its test. */
const shown = (each: unknown): string =>
  JSON.stringify(each, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value))

const nothing: Test = () => {}

export const it = Object.assign(test, {
  each:
    (cases: ReadonlyArray<unknown>): Test =>
    (name, ...rest) => {
      for (const each of cases) {
        const args = Array.isArray(each) ? each : [each]
        add(`${name} ${shown(each)}`, rest, () => functionOf(rest)(...args))
      }
    },
  for:
    (cases: ReadonlyArray<unknown>): Test =>
    (name, ...rest) => {
      for (const each of cases) add(`${name} ${shown(each)}`, rest, (context) => functionOf(rest)(each, context))
    },
  skip: nothing,
  only: test,
  fails: nothing,
  skipIf: (condition: boolean) => (condition ? nothing : test),
  runIf: (condition: boolean) => (condition ? test : nothing)
})
export { it as test }

const group: Test = (name, ...rest) => {
  const outer = names
  const wasSlow = isOuterSlow
  names = [...names, name]
  isOuterSlow ||= rest.some(isTagged)
  functionOf(rest)()
  names = outer
  isOuterSlow = wasSlow
}

export const describe = Object.assign(group, {
  each:
    (cases: ReadonlyArray<unknown>): Test =>
    (name, ...rest) => {
      for (const each of cases) {
        const args = Array.isArray(each) ? each : [each]
        group(`${name} ${shown(each)}`, ...rest.filter((part) => typeof part !== "function"), () =>
          functionOf(rest)(...args)
        )
      }
    }
})

const hook = (): void => {
  throw new Error("a test with hooks cannot be run here")
}
export const beforeAll = hook
export const beforeEach = hook
export const afterAll = hook
export const afterEach = hook
export const TestRunner = { getCurrentSuite: () => ({ tasks }) }
